"""Writing Hugging Face folders: `transformers` computes the same, and we read the same again."""

import json
import os
import re

import keras
import numpy as np
import pytest
from encoders import batch_of, encoder_of, masked_lm_of, outputs_of, with_positions
from keras import ops
from safetensors import safe_open
from tokenizers import normalizers

import tncompress
from bert_models import load_tokenizer
from bert_models.checkpoints.huggingface_export import export_huggingface
from bert_models.checkpoints.loading import load, load_mlm

TOLERANCE = 1e-5  # float32, outputs up to 4
BATCH = with_positions(batch_of([7, 4, 1], longest=7))
ENCODER_BATCH = {name: ids for name, ids in BATCH.items() if name != "masked_lm_positions"}


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_what_is_written_is_read_again(tmp_path, activation):
    mlm = masked_lm_of("dense", activation=activation, hidden_dropout=0.3, intermediate_size=20)
    export_huggingface(mlm, tmp_path / "new" / "folder")
    found = load_mlm(tmp_path / "new" / "folder")
    assert found.encoder.config == mlm.encoder.config
    for ours, theirs in zip(outputs_of(found, BATCH), outputs_of(mlm, BATCH), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_encoder_alone_has_names_without_prefix(tmp_path):
    encoder = encoder_of("dense")
    export_huggingface(encoder, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "numpy") as store:
        assert store.metadata() == {"format": "pt"}
        names = list(store.keys())
        query = store.get_tensor("encoder.layer.1.attention.self.query.weight")  # [out, in]
    assert len(names) == 5 + 2 * 16 + 2
    assert not any(name.startswith(("bert.", "cls.")) for name in names)
    kernel = ops.convert_to_numpy(encoder.get_layer("block_1").attention.query_dense.kernel)  # [H, N, K]
    np.testing.assert_array_equal(query, kernel.reshape(8, 8).T)
    for ours, theirs in zip(outputs_of(load(tmp_path), ENCODER_BATCH), outputs_of(encoder, ENCODER_BATCH), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nothing_is_overwritten_unless_asked(tmp_path):
    export_huggingface(encoder_of("dense"), tmp_path)
    other = encoder_of("dense", num_layers=1)
    with pytest.raises(FileExistsError, match=r"config.json and model.safetensors already: .*overwrite=True"):
        export_huggingface(other, tmp_path)
    export_huggingface(other, tmp_path, overwrite=True)
    assert load(tmp_path).config.num_layers == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
    from bert_models.checkpoints import huggingface_export

    def fail(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError("disk full")

    export_huggingface(encoder_of("dense"), tmp_path)
    monkeypatch.setattr(huggingface_export, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        export_huggingface(encoder_of("dense", num_layers=1), tmp_path, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert load(tmp_path).config.num_layers == 2


REFUSED = {
    "talkheads_ggelu": ["attention=TalkingHeads", "gated=True"],
    "tn_bert": ["feed_forward=ExpandCondense", "output_bias=False"],
    "networks": ["feed_forward=Networks"],
}


@pytest.mark.parametrize(("kind", "words"), REFUSED.items(), ids=REFUSED)
def test_structures_that_hugging_face_has_not_are_refused(tmp_path, kind, words):
    with pytest.raises(ValueError, match="Hugging Face's BERT has plain attention") as caught:
        export_huggingface(encoder_of(kind), tmp_path / "x")
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "x").exists()


def test_compressed_encoder_is_refused_and_densified_one_is_not(tmp_path):
    small = tncompress.replace_dense(encoder_of("dense"), keep=0.6)
    with pytest.raises(ValueError, match=r"no block_0/.* it was compressed.*bert_models.export"):
        export_huggingface(small, tmp_path)
    dense = tncompress.densify(small)
    export_huggingface(dense, tmp_path)
    for ours, theirs in zip(outputs_of(load(tmp_path), ENCODER_BATCH), outputs_of(small, ENCODER_BATCH), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


def test_tokenizer_goes_along(small_folder, tmp_path):
    tokenizer, sentences = load_tokenizer(small_folder), ["The cat sat unable", "[MASK]."]
    export_huggingface(load(small_folder), tmp_path / "x", tokenizer=tokenizer)
    again = load_tokenizer(tmp_path / "x")
    assert again.max_length == tokenizer.max_length == 20
    for name, ids in tokenizer(sentences).items():
        np.testing.assert_array_equal(again(sentences)[name], ids)
    with pytest.raises(ValueError, match="tokenizer has 14 tokens, but the encoder knows only 9"):
        export_huggingface(encoder_of("dense", vocab_size=9), tmp_path / "y", tokenizer=tokenizer)


WRONG_TYPES = {
    "a name": (lambda: ("x", {}), "takes an encoder of build_encoder, build or load, or a MaskedLM, got str"),
    "another model": (lambda: (keras.Sequential(), {}), "takes an encoder .* got Sequential"),
    "a folder": (lambda: (encoder_of("dense"), {"tokenizer": "x"}), r"bert_models.load_tokenizer\(folder\), got str"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types_are_refused_in_one_sentence(tmp_path, arguments, words):
    model, settings = arguments()
    with pytest.raises(TypeError, match=words) as caught:
        export_huggingface(model, tmp_path / "x", **settings)
    assert not re.search(r"\n|\. [A-Z]", str(caught.value))
    assert not (tmp_path / "x").exists()


# --- transformers as the truth


@pytest.fixture(scope="module")
def transformers():
    os.environ["HF_HUB_OFFLINE"] = "1"
    return pytest.importorskip("transformers")


def their_outputs(model, batch):
    torch = pytest.importorskip("torch")

    inputs = dict(
        zip(("input_ids", "attention_mask", "token_type_ids"), map(torch.tensor, batch.values()), strict=False)
    )
    with torch.no_grad():
        return model.eval()(**inputs, output_hidden_states=True)


def check_close(ours, theirs, mask=None):
    ours, theirs = ops.convert_to_numpy(ours), theirs.numpy()
    rows = np.ones(ours.shape[:2], bool) if mask is None else mask.astype(bool)
    np.testing.assert_allclose(ours[rows], theirs[rows], atol=TOLERANCE, rtol=0)


SPELLINGS = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "accents": {"strip_accents": False},
    "cased, no accents": {"do_lower_case": False, "strip_accents": True},
    "Chinese in one": {"tokenize_chinese_chars": False},
}
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "the", "é", "e", "É", "E", "日本", "日", "本"]


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json", "not BERT's"])
@pytest.mark.parametrize("rules", SPELLINGS.values(), ids=SPELLINGS)
def test_transformers_spells_the_same(transformers, tmp_path, rules, kind):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(rules))
    tokenizer = load_tokenizer(tmp_path)
    if kind == "not BERT's":  # the same in another form
        tokenizer.backend.normalizer = normalizers.Sequence([tokenizer.backend.normalizer])
    if kind != "vocab.txt":
        tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = load_tokenizer(tmp_path)
    folder = tmp_path / "written"
    export_huggingface(encoder_of("dense", num_layers=1, vocab_size=14), folder, tokenizer=tokenizer)
    sentences = ["The the é e É E 日本", "[MASK] THE"]
    expected = tokenizer(sentences)["input_word_ids"].tolist()
    classes = [transformers.AutoTokenizer, transformers.BertTokenizerFast]
    for cls in classes[: 1 if kind == "not BERT's" else 2]:
        assert cls.from_pretrained(folder)(sentences, padding=True)["input_ids"] == expected
    assert load_tokenizer(folder)(sentences)["input_word_ids"].tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_transformers_computes_the_same(transformers, small_folder, tmp_path, activation):
    mlm = masked_lm_of("dense", activation=activation)
    folder = tmp_path / "written"
    export_huggingface(mlm, folder, tokenizer=load_tokenizer(small_folder))
    ours = mlm(BATCH)
    theirs = their_outputs(transformers.BertModel.from_pretrained(folder), ENCODER_BATCH)
    check_close(ours["pooled_output"][:, None], theirs.pooler_output[:, None])
    for mine, other in zip(ours["encoder_outputs"], theirs.hidden_states[1:], strict=True):
        check_close(mine, other, BATCH["input_mask"])
    model, loading = transformers.BertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"]
    logits = their_outputs(model, ENCODER_BATCH).logits  # [B, S, V]
    rows = np.arange(len(logits))[:, None]
    check_close(ours["mlm_logits"], logits[rows, BATCH["masked_lm_positions"]])


@pytest.mark.slow
def test_what_transformers_writes_is_read(transformers, tmp_path):
    config = transformers.BertConfig(
        vocab_size=14, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12
    )
    for cls in (transformers.BertForPreTraining, transformers.BertForMaskedLM):
        reference = cls(config)
        for weight in reference.parameters():
            weight.data.normal_(0, 0.5)
        reference.save_pretrained(tmp_path / cls.__name__)
        # BertForMaskedLM has no pooler, and its logits need none.
        mlm = load_mlm(tmp_path / cls.__name__, allow_missing=cls is transformers.BertForMaskedLM)
        theirs = their_outputs(reference, ENCODER_BATCH)
        logits = getattr(theirs, "prediction_logits", None)
        logits = theirs.logits if logits is None else logits
        rows = np.arange(len(logits))[:, None]
        positions = np.zeros((3, 1), "int32")
        check_close(mlm({**ENCODER_BATCH, "masked_lm_positions": positions})["mlm_logits"], logits[rows, positions])


@pytest.mark.slow
def test_minilm_is_the_same_after_export(transformers, minilm, minilm_folder, minilm_tokenizer, tmp_path):
    export_huggingface(minilm, tmp_path, tokenizer=minilm_tokenizer)
    sentences = ["The cat sat on the mat.", "Why?", "Naïve 日本語 [MASK] text"]
    batch = minilm_tokenizer(sentences)
    theirs = their_outputs(transformers.BertModel.from_pretrained(tmp_path), batch)
    check_close(minilm(batch)["sequence_output"], theirs.last_hidden_state, batch["input_mask"])
    encoded = transformers.AutoTokenizer.from_pretrained(tmp_path)(sentences, padding=True)
    assert encoded["input_ids"] == batch["input_word_ids"].tolist()
    assert json.loads((tmp_path / "config.json").read_text())["hidden_act"] == "gelu"
    pairs = zip(load(tmp_path).get_weights(), minilm.get_weights(), strict=True)
    assert all(np.array_equal(ours, original) for ours, original in pairs)
