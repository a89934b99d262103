"""The folder of an export: what is enough to build the encoder again, what is refused, and that it is whole."""

import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from bert_models.config import BertConfig
from bert_models.encoder import build, build_encoder
from bert_models.heads import MaskedLM
from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME
from bert_models.manifest import MANIFEST, head_weights, read_manifest, weight_names

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf

from bert_models.hub_export import export

TINY = {"vocab_size": 14, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_positions": 20}
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]
BATCH = dict(zip(INPUT_NAMES, np.array([[[2, 9, 3, 0]] * 2, [[1, 1, 1, 0]] * 2, [[0, 0, 1, 1]] * 2]), strict=True))
MLM_BATCH = {name: ids.astype("int32") for name, ids in {**BATCH, POSITIONS_NAME: np.array([[1, 0], [2, 2]])}.items()}


def plain():
    return MaskedLM(build_encoder(BertConfig(**{**TINY, "num_layers": 1})))


def compressed():
    """As part of a larger model, with its embeddings frozen."""
    from tncompress import replace_dense

    small = replace_dense(MaskedLM(build_encoder(BertConfig(**TINY))), keep=0.6, include=["feed_forward", "pooler"])
    small.encoder.get_layer("embeddings").trainable = False
    return small


def compressed_by_itself():
    from tncompress import replace_dense

    return MaskedLM(replace_dense(build_encoder(BertConfig(**TINY)), keep=0.6, include="feed_forward"))


def of_networks():
    """Networks by its config; one Dense layer becomes one later."""
    from tncompress import replace_dense

    encoder = build("tn_bert", **{**TINY, "hidden_size": 128, "num_layers": 1})
    return replace_dense(MaskedLM(encoder), keep=0.5, include="pooler")


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in (compressed_by_itself, of_networks)]


@pytest.fixture(scope="module", params=[plain, compressed, *SLOW])
def each(request, tmp_path_factory):
    """A masked-language model with random weights, and the folder of its export."""
    mlm = request.param()
    draw = np.random.default_rng(1)
    for weight in mlm.weights:
        weight.assign(weight + draw.normal(0, 0.3, weight.shape))
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    export(mlm.encoder, folder, mlm=mlm)
    return SimpleNamespace(encoder=mlm.encoder, mlm=mlm, folder=folder)


def test_any_structure_is_exported(each):
    outputs, expected = tf.saved_model.load(each.folder).mlm(MLM_BATCH), each.mlm(MLM_BATCH)
    for name in expected:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)


def test_variables_have_names_of_their_own_and_stay_frozen(each):
    loaded = tf.saved_model.load(each.folder)
    names = [v.name for v in loaded.variables]
    assert len({*names}) == len(names) == len(each.encoder.weights)
    assert "block_0/feed_forward/intermediate/bias:0" in names
    assert len(loaded.trainable_variables) == len(each.encoder.trainable_variables)


def test_the_manifest_is_enough_to_build_and_fill_the_encoder(each):
    manifest = read_manifest(each.folder)
    stored = tf.train.load_checkpoint(str(each.folder / "variables" / "variables"))
    again = keras.saving.deserialize_keras_object(manifest["model"])
    assert again.config == each.encoder.config == BertConfig.from_dict(manifest["config"])
    assert list(weight_names(again)) == manifest["variables"]
    for i, weight in enumerate(weight_names(again).values()):
        weight.assign(stored.get_tensor(f"variables/{i}/.ATTRIBUTES/VARIABLE_VALUE"))
    for one, other in zip(*(keras.tree.flatten(e(BATCH)) for e in (again, each.encoder)), strict=True):
        np.testing.assert_array_equal(one, other)

    head = head_weights(each.mlm)
    assert manifest["mlm"] == list(head)
    assert set(head) == {"output_bias", "transform/kernel", "transform/bias", "norm/gamma", "norm/beta"}
    for j, weight in enumerate(head.values()):
        np.testing.assert_array_equal(stored.get_tensor(f"mlm/head/{j}/.ATTRIBUTES/VARIABLE_VALUE"), weight)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    mlm = plain()
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    export(mlm.encoder, folder, vocab=VOCAB, lower_case=False)
    return SimpleNamespace(encoder=mlm.encoder, mlm=mlm, folder=folder)


def test_the_vocabulary_moves_with_the_folder(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "moved")
    loaded = tf.saved_model.load(tmp_path / "moved")
    file = loaded.vocab_file.asset_path.numpy().decode()
    assert file.startswith(str(tmp_path))
    with open(file, encoding="utf-8") as lines:
        assert lines.read().split() == VOCAB
    assert loaded.do_lower_case.numpy() is np.False_


def test_a_manifest_that_cannot_be_read(made, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not written by bert_models\.export"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).parent.mkdir()
    (tmp_path / MANIFEST).write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        read_manifest(tmp_path)


def test_a_failed_export_changes_nothing(made, tmp_path, monkeypatch):
    shutil.copytree(made.folder, tmp_path / "encoder")
    before = sorted(tmp_path.rglob("*"))

    def write_half(*args):
        (args[-1] / "saved_model.pb").write_text("half")
        raise ZeroDivisionError

    monkeypatch.setattr("bert_models.hub_export._save", write_half)
    with pytest.raises(ZeroDivisionError):
        export(made.encoder, tmp_path / "encoder", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def other(made):
    return MaskedLM(build_encoder(made.encoder.config))


REFUSED = {
    "the head": (TypeError, r"export\(model.encoder", lambda m: (m.mlm, "x", {})),
    "another model": (TypeError, "got Functional", lambda m: (keras.Model(m.encoder.input, m.encoder.output), "x", {})),
    "mlm is not one": (TypeError, "mlm must be a MaskedLM", lambda m: (m.encoder, "x", {"mlm": True})),
    "another's mlm": (ValueError, "another encoder", lambda m: (m.encoder, "x", {"mlm": other(m)})),
    "preprocessor": (TypeError, "must be a bert_models.Preprocessor", lambda m: (m.encoder, "x", {"preprocessor": 1})),
    "rule alone": (ValueError, "give vocab too", lambda m: (m.encoder, "x", {"lower_case": True})),
    "long vocabulary": (
        ValueError,
        r"15 tokens.*14 rows",
        lambda m: (m.encoder, "x", {"vocab": VOCAB + list("abcdefg")}),
    ),
    "taken": (FileExistsError, "overwrite=True", lambda m: (m.encoder, "saved", {})),
    "not a SavedModel": (FileExistsError, "no SavedModel", lambda m: (m.encoder, "taken", {})),
    "not to be overwritten": (FileExistsError, "no SavedModel", lambda m: (m.encoder, "taken", {"overwrite": True})),
    "no parent": (FileNotFoundError, "make it first", lambda m: (m.encoder, "no/where", {})),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused_before_any_work(made, tmp_path, monkeypatch, case):
    kind, words, arguments = REFUSED[case]
    encoder, name, options = arguments(made)
    for folder in ("saved", "taken"):
        (tmp_path / folder).mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    monkeypatch.setattr("bert_models.hub_export._save", lambda *a: pytest.fail("work was done"))
    with pytest.raises(kind, match=words):
        export(encoder, tmp_path / name, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved", "taken"]


def test_other_backends_are_told(made, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
        export(made.encoder, tmp_path / "encoder")
