"""Reading Hugging Face folders: equal numbers, and a clear refusal of everything else."""

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from safetensors.numpy import save_file

import bert_models
from bert_models.checkpoints.names import HUGGING_FACE, weights

GOLDEN = Path(__file__).parent / "golden" / "minilm.npz"
# float32, hidden states up to 10, sums of up to 1536 products: transformers itself is 4e-6 off
# float64.
TOLERANCE = 1e-5

SENTENCES = [
    "The cat sat on the mat.",
    "Tensor networks compress the weights of a language model by an order of magnitude.",
    "Why?",
    "In 1998, the naïve approach cost $4.2m (about €3.9m) – far too much!",  # noqa: RUF001
    "日本語 and Ελληνικά in one line",
    "",
    "word " * 100,
]


def variables_of(encoder):
    return {v.path: ops.convert_to_numpy(v) for v in encoder.weights}


# --- equal to transformers


def test_minilm_equals_the_golden_numbers(minilm, minilm_tokenizer):
    golden = np.load(GOLDEN, allow_pickle=False)
    batch = minilm_tokenizer([str(sentence) for sentence in golden["sentences"]])
    np.testing.assert_array_equal(batch["input_word_ids"], golden["input_word_ids"])
    outputs = minilm(batch)
    real = batch["input_mask"].astype(bool)  # [B, S]
    for ours, theirs in zip(outputs["encoder_outputs"], golden["encoder_outputs"], strict=True):
        ours = ops.convert_to_numpy(ours)[..., ::32]
        np.testing.assert_allclose(ours[real], theirs[real], atol=TOLERANCE, rtol=0)
    pooled = ops.convert_to_numpy(outputs["pooled_output"])[..., ::32]
    np.testing.assert_allclose(pooled, golden["pooled_output"], atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_minilm_equals_transformers(minilm, minilm_folder, minilm_tokenizer):
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    batch = minilm_tokenizer(SENTENCES)
    reference = transformers.BertModel.from_pretrained(minilm_folder).eval()
    with torch.no_grad():
        theirs = reference(
            input_ids=torch.tensor(batch["input_word_ids"]),
            attention_mask=torch.tensor(batch["input_mask"]),
            token_type_ids=torch.tensor(batch["input_type_ids"]),
            output_hidden_states=True,
        )
    ours = minilm(batch)
    real = batch["input_mask"].astype(bool)
    pairs = zip(
        [*ours["encoder_outputs"], ours["sequence_output"]],
        [*theirs.hidden_states[1:], theirs.last_hidden_state],
        strict=True,
    )
    for mine, other in pairs:
        np.testing.assert_allclose(ops.convert_to_numpy(mine)[real], other.numpy()[real], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(
        ops.convert_to_numpy(ours["pooled_output"]),
        theirs.pooler_output.numpy(),
        atol=TOLERANCE,
        rtol=0,
    )


def test_minilm_has_its_number_of_parameters(minilm):
    assert minilm.count_params() == 22_713_216


# --- the small folder, and its variants that are read


def test_every_weight_is_read_and_can_be_written_back(small_folder, small_config, small_weights):
    variables = variables_of(bert_models.load(small_folder))
    table = weights(HUGGING_FACE.encoder, small_config)
    assert {w.path for w in table} == {path for path in variables if "seed" not in path}
    for weight in table:
        np.testing.assert_array_equal(weight.to_file(variables[weight.path]), small_weights[weight.name])


def test_kernels_are_transposed_and_split_into_heads(small_folder, small_weights):
    variables = variables_of(bert_models.load(small_folder))
    query = small_weights["encoder.layer.1.attention.self.query.weight"]  # [out, in]
    x = np.ones(8, "float32")
    heads = np.einsum("h,hnk->nk", x, variables["block_1/attention/query/kernel"])  # [N, K]
    np.testing.assert_allclose(heads.ravel(), query @ x, atol=1e-6)
    up = variables["block_0/feed_forward/intermediate/kernel"]
    np.testing.assert_array_equal(up, small_weights["encoder.layer.0.intermediate.dense.weight"].T)


def old_endings(name):
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize(
    "renamed",
    [
        lambda w: {f"bert.{name}": x for name, x in w.items()},
        lambda w: {old_endings(name): x for name, x in w.items()},
        lambda w: {**w, "embeddings.position_ids": np.arange(20)[None]},
        lambda w: {**w, "cls.predictions.bias": np.zeros(14, "float32")},
        lambda w: {name: x.astype("float64") for name, x in w.items()},
    ],
    ids=["prefix bert.", "gamma and beta", "position_ids", "pretraining head", "float64"],
)
def test_other_spellings_give_the_same_weights(small_folder, small_weights, renamed):
    expected = variables_of(bert_models.load(small_folder))
    save_file(renamed(small_weights), small_folder / "model.safetensors")
    found = variables_of(bert_models.load(small_folder))
    for path in (path for path in expected if "seed" not in path):
        np.testing.assert_array_equal(found[path], expected[path])


# --- what is refused: how the folder is spoilt, the error, words of its sentence


def rewrite_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


def rewrite_weights(folder, change):
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def cut(folder, size):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


QUERY = "encoder.layer.0.attention.self.query.weight"
BAD_FOLDERS = {
    "no config": (lambda f: (f / "config.json").unlink(), FileNotFoundError, ["lacks config.json"]),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        FileNotFoundError,
        ["lacks model.safetensors"],
    ),
    "only pickle": (only_pickle, FileNotFoundError, ["pytorch_model.bin", "only safetensors"]),
    "cut in the header": (
        lambda f: cut(f, 200),
        ValueError,
        ["model.safetensors", "200 bytes", "truncated"],
    ),
    "vocabulary of another": (
        lambda f: (f / "vocab.txt").write_text("[PAD]\n" * 15),
        ValueError,
        ["vocab.txt", "15 tokens", "14 rows"],
    ),
    "cut in the data": (lambda f: cut(f, 6000), ValueError, ["model.safetensors", "truncated"]),
    "empty": (lambda f: cut(f, 0), ValueError, ["0 bytes", "truncated"]),
    "no safetensors": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1"),
        ValueError,
        ["model.safetensors", "truncated or damaged"],
    ),
    "config is not JSON": (
        lambda f: (f / "config.json").write_text("{'a': 1}"),
        ValueError,
        ["config.json", "not JSON"],
    ),
    "config is not text": (
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"),
        ValueError,
        ["config.json", "not JSON"],
    ),
    "config is a list": (
        lambda f: (f / "config.json").write_text("[]"),
        ValueError,
        ["config.json", "JSON object", "list"],
    ),
    "another architecture": (
        lambda f: rewrite_config(f, model_type="roberta"),
        ValueError,
        ["config.json", "'bert'", "'roberta'"],
    ),
    "a decoder": (lambda f: rewrite_config(f, is_decoder=True), ValueError, ["is_decoder"]),
    "relative positions": (
        lambda f: rewrite_config(f, position_embedding_type="relative_key"),
        ValueError,
        ["'absolute'", "'relative_key'"],
    ),
    "unknown activation": (
        lambda f: rewrite_config(f, hidden_act="mish"),
        ValueError,
        ["hidden_act", "'mish'"],
    ),
    "heads do not divide": (
        lambda f: rewrite_config(f, num_attention_heads=3),
        ValueError,
        ["config.json", "3 heads"],
    ),
    "size is a word": (
        lambda f: rewrite_config(f, hidden_size="8"),
        ValueError,
        ["config.json", "hidden_size", "'8'"],
    ),
    "vocabulary size": (
        lambda f: rewrite_config(f, vocab_size=99),
        ValueError,
        ["word_embeddings.weight", "(14, 8)", "(99, 8)"],
    ),
    "other shapes": (
        lambda f: rewrite_weights(f, lambda w: w.update({QUERY: np.zeros((8, 4), "float32")})),
        ValueError,
        [QUERY, "(8, 4)", "(8, 8)"],
    ),
    "too few layers in the file": (
        lambda f: rewrite_config(f, num_hidden_layers=3),
        ValueError,
        ["missing encoder.layer.2.", "and 8 more", "unused none"],
    ),
    "too many layers in the file": (
        lambda f: rewrite_config(f, num_hidden_layers=1),
        ValueError,
        ["missing none", "unused encoder.layer.1."],
    ),
    "absurdly many layers": (
        lambda f: rewrite_config(f, num_hidden_layers=10**12),
        ValueError,
        ["too few", "1000000000000 layers"],
    ),
    "a task head": (
        lambda f: rewrite_weights(f, lambda w: w.update({"classifier.bias": np.zeros(2, "float32")})),
        ValueError,
        ["missing none", "unused classifier.bias"],
    ),
    "no pooler": (
        lambda f: rewrite_weights(f, lambda w: w.pop("pooler.dense.bias")),
        ValueError,
        ["missing pooler.dense.bias", "unused none"],
    ),
    "one weight twice": (
        lambda f: rewrite_weights(f, lambda w: w.update({f"bert.{QUERY}": w[QUERY].copy()})),
        ValueError,
        ["twice", QUERY],
    ),
    "whole numbers": (
        lambda f: rewrite_weights(f, lambda w: w.update({QUERY: np.zeros((8, 8), "int8")})),
        ValueError,
        [QUERY, "I8"],
    ),
}


@pytest.mark.parametrize(("spoil", "kind", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_folder_is_refused_in_one_sentence(small_folder, monkeypatch, spoil, kind, words):
    from bert_models.checkpoints import huggingface

    spoil(small_folder)
    monkeypatch.setattr(huggingface, "build_encoder", None)  # nothing is built before the refusal
    with pytest.raises(kind) as caught:
        bert_models.load(small_folder)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_path_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder '.*nowhere'"):
        bert_models.load(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file: give a folder"):
        bert_models.load(str(tmp_path / "file"))


def test_dropout_and_activation_come_from_the_config(small_folder):
    rewrite_config(small_folder, hidden_dropout_prob=0.3, hidden_act="relu")
    config = bert_models.load(small_folder).config
    assert (config.hidden_dropout, config.activation, config.max_positions) == (0.3, "relu", 20)


def test_loaded_model_survives_a_keras_file(small_folder, tmp_path):
    encoder = bert_models.load(small_folder)
    encoder.save(tmp_path / "again.keras")
    found = variables_of(keras.saving.load_model(tmp_path / "again.keras"))
    for path, value in variables_of(encoder).items():
        np.testing.assert_array_equal(found[path], value)
