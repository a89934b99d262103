"""KerasHub's folders of compressed models: read in any process, and refused in a sentence where they are damaged."""

import json
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from corrupting import corrupted
from keras import ops
from refusals import error_of, refused

from tncompress import load, replace_dense, report

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "sat"]


def weights_of(model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(weight) for weight in model.weights]


def assert_same(model, other):
    for ours, theirs in zip(weights_of(model), weights_of(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# -- what KerasHub writes --------------------------------------------------------------------------


def backbone_of():
    models = pytest.importorskip("keras_hub").models
    keras.utils.set_random_seed(0)
    return models.BertBackbone(len(WORDS), 1, 2, 16, 32, max_sequence_length=12)


def task_of(backbone):
    models = pytest.importorskip("keras_hub").models
    preprocessor = models.BertTextClassifierPreprocessor(models.BertTokenizer(WORDS), sequence_length=6)
    return models.BertTextClassifier(backbone, num_classes=3, preprocessor=preprocessor, dropout=0.0)


def small_of(model):
    return replace_dense(model, keep=0.6, include="_feedforward", progress=False)


MADE = {
    "backbone": lambda: small_of(backbone_of()),
    "task": lambda: small_of(task_of(backbone_of())),
    "task of a small backbone": lambda: task_of(small_of(backbone_of())),
    "backbone as it was": backbone_of,
}


@pytest.mark.filterwarnings("ignore:`compile..` was not called")
@pytest.mark.parametrize("kind", MADE)
def test_presets_are_read_as_they_were(kind, tmp_path):
    made = MADE[kind]()
    made.save_to_preset(str(tmp_path / "made"))
    folder_of(model_of(), tmp_path / "other")  # compresses a model of another class, which takes the registered name
    loaded = load(tmp_path / "made")
    assert type(loaded) is type(made)
    assert_same(made, loaded)
    if "task" in kind:
        np.testing.assert_array_equal(made.predict(["a cat"], verbose=0), loaded.predict(["a cat"], verbose=0))
    if kind in ("backbone", "task"):
        assert report(loaded) == report(made)


def test_presets_are_read_by_a_process_that_knows_nothing_of_them(tmp_path):
    made = MADE["backbone"]()
    made.save_to_preset(str(tmp_path / "made"))
    code = "import sys, tncompress; print(type(tncompress.load(sys.argv[1])).__mro__[2].__name__)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "made")], capture_output=True, check=False)
    assert done.stdout.decode().split() == ["BertBackbone"], done.stderr.decode()[-2000:]


# -- damaged ones, without KerasHub ----------------------------------------------------------------


def model_of():
    keras.utils.set_random_seed(0)
    return replace_dense(keras.Sequential([keras.Input((16,)), keras.layers.Dense(16, name="dense")]), keep=0.6)


def folder_of(model, folder):
    """As `save_to_preset` writes it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(keras.saving.serialize_keras_object(model)))
    model.save_weights(folder / "model.weights.h5")
    return folder


@pytest.fixture
def folder(tmp_path):
    return folder_of(model_of(), tmp_path / "made")


def test_a_hundred_damaged_configs_are_refused_or_loaded(folder):
    file, wanted = folder / "config.json", load(folder)
    content, exact = file.read_bytes(), 0
    for data in corrupted(content, 100):
        file.write_bytes(data)
        if error := error_of(lambda: load(folder)):
            assert str(folder) in str(error)
        else:
            exact += 1
            assert_same(load(folder), wanted)
    assert exact < 60  # names of layers, losses that were measured and the like may change


def test_a_hundred_damaged_weights_are_refused_or_read_as_they_are(folder):
    """HDF5 files have no checksum."""
    file, wanted = folder / "model.weights.h5", weights_of(load(folder))
    content, read = file.read_bytes(), 0
    for data in corrupted(content, 100):
        file.write_bytes(data)
        if error := error_of(lambda: load(folder)):
            assert str(folder) in str(error)
        else:
            read += 1
            assert [value.shape for value in weights_of(load(folder))] == [value.shape for value in wanted]
    assert 0 < read < 100


def with_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config["config"]["dense"]["config"]["layers"][1] = {"class_name": "__lambda__", "config": {"code": "4wAA"}}
    (folder / "config.json").write_text(json.dumps(config))


def with_terabytes(folder):
    config = json.loads((folder / "config.json").read_text())
    dense = config["config"]["dense"]["config"]["layers"][1]
    dense["config"]["units"], dense["build_config"] = 10**7, {"input_shape": [None, 10**6]}
    (folder / "config.json").write_text(json.dumps(config))


def with_link(folder):
    with h5py.File(folder / "model.weights.h5", "r+") as weights:
        weights["layers/other"] = h5py.ExternalLink("/nowhere.h5", "/a")


def with_link_at_the_root(folder):
    with h5py.File(folder / "model.weights.h5", "r+") as weights:
        weights["other"] = h5py.SoftLink("/layers")


EVIL = {
    "code": (with_code, "Python code"),
    "terabytes": (with_terabytes, "more weights than the file can hold"),
    "link to a file": (with_link, "lead to others by a link"),
    "link": (with_link_at_the_root, "lead to others by a link"),
    "several files": (lambda folder: (folder / "model.weights.h5").unlink(), "max_shard_size=None"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "must be a JSON object, got list"),
    "deep": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "nested too deeply"),
    "no weights": (lambda folder: (folder / "model.weights.h5").write_text("x"), "cannot be loaded"),
    "no object": (lambda folder: (folder / "config.json").write_text("{}"), "cannot be loaded"),
}


@pytest.mark.parametrize(("change", "words"), EVIL.values(), ids=EVIL)
def test_evil_presets_are_refused(folder, change, words):
    change(folder)
    refused(lambda: load(folder), words)


def test_a_task_that_is_none_is_refused(folder):
    (folder / "task.json").write_text((folder / "config.json").read_text())
    refused(lambda: load(folder), "cannot be loaded")
