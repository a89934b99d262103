"""`.keras` files of other people's: refused in one sentence, in little time and memory, or read exactly."""

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import h5py
import keras
import numpy as np
import pytest
from corrupting import corrupted
from keras import ops
from refusals import MEGABYTE, error_of, refused

from tncompress import load, replace_dense, report
from tncompress.conversion.opening import MOST_PARTS, import_own_modules, weights_within


def model_of(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    entry = keras.Input((16,), name="entry")
    hidden = keras.layers.Dense(16, "relu", name="first")(entry)
    return keras.Model(entry, keras.layers.Dense(16, name="second")(hidden), name="model")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Kind -> a saved model."""
    folder, found = tmp_path_factory.mktemp("saved"), {}
    for kind, elastic in (("compressed", False), ("elastic", True)):
        found[kind] = folder / f"{kind}.keras"
        replace_dense(model_of(), keep=0.75, elastic=elastic).save(found[kind])
    return found


def parts_of(file) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(file, parts, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file


def weights_of(model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.mark.parametrize("kind", ["compressed", "elastic"])
def test_a_hundred_damaged_files_are_refused_or_load_exactly(files, kind, tmp_path):
    model, loaded = load(files[kind]), 0
    for number, data in enumerate(corrupted(files[kind].read_bytes(), 100, seed=1)):
        file = tmp_path / f"{number}.keras"
        file.write_bytes(data)
        if error := error_of(lambda file=file: load(file)):
            assert str(file) in str(error)
            continue
        loaded += 1
        found = load(file)
        assert report(found) == report(model)
        for ours, theirs in zip(weights_of(model), weights_of(found), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert loaded < 50  # what may change are dates and the like


def with_config(change):
    def make(file, parts):
        config = json.loads(parts["config.json"])
        write(file, {**parts, "config.json": json.dumps(change(config) or config)})

    return make


def layers_in(config):
    return config["config"]["dense"]["config"]["layers"]


def set_units(config):
    dense = layers_in(config)[1]
    dense["config"]["units"] = 10**7
    dense["build_config"] = {"input_shape": [None, 10**6]}


def hide_code(config):
    """As one object that is shared with an earlier one: Keras looks at it when a copy is made, without safe mode."""
    config["config"]["outcomes"] = [one for one in config["config"]["outcomes"] if one["path"] == "first"]
    first, second = layers_in(config)[1:3]
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None, "closure": None}}
    first["shared_object_id"] = second["shared_object_id"] = 77
    second.update(class_name="Lambda", config={"name": "second", "function": code})


def nest(config):
    """Found by fuzzing: Keras tells all of a config that stands in the place of a size."""
    layers_in(config)[2]["build_config"]["input_shape"][1] = json.loads(json.dumps(config["config"]))


def set_module(config):
    layers_in(config)[1].update(module="os", class_name="system", registered_name=None)


def set_saved_model(config):
    layers_in(config)[1].update(module="keras.layers", class_name="TFSMLayer", registered_name=None)
    layers_in(config)[1]["config"] = {"filepath": "/nowhere", "name": "first"}


def set_pickled(config):
    layers_in(config)[1].update(module="keras.layers", class_name="TorchModuleWrapper", registered_name=None)
    layers_in(config)[1]["config"] = {"module": "", "name": "first"}


def with_weights(change):
    def make(file, parts):
        content = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(content, "r+") as weights:
            change(weights)
        write(file, {**parts, "model.weights.h5": content.getvalue()})

    return make


def shape_bomb(weights):
    """A gigabyte of zeros that takes no room: chunks that were never written."""
    weights.create_dataset("bomb", shape=(1 << 28,), dtype="float32", chunks=(1 << 16,), compression="gzip")


def external(weights):
    """Weights that are read from another file on this machine."""
    weights.create_dataset("other", (8,), "uint8", external=[("/etc/hostname", 0, 8)])


def virtual(weights):
    layout = h5py.VirtualLayout((8,), "uint8")
    layout[:] = h5py.VirtualSource("/nowhere.h5", "x", (8,))
    weights.create_virtual_dataset("other", layout)


def link(weights):
    weights["other"] = h5py.ExternalLink("/nowhere.h5", "/x")


def inner_link(weights):
    weights.create_group("some")["other"] = h5py.SoftLink("/layers")


def without(name):
    return lambda file, parts: write(file, {part: content for part, content in parts.items() if part != name})


def with_parts(*names):
    return lambda file, parts: write(file, {**parts, **dict.fromkeys(names, b"")})


def twice(file, parts):
    write(file, parts)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("config.json", parts["config.json"])


def wrong_sum(file, parts):
    write(file, parts)
    data = file.read_bytes()
    file.write_bytes(data.replace(parts["model.weights.h5"][-64:], b"x" * 64))


def zip_bomb(file, parts):
    write(file, {**parts, "config.json": b"[" + b"0," * (150 << 20) + b"0]"}, zipfile.ZIP_DEFLATED)


EVIL = {
    "code in a config": (with_config(hide_code), "Python code"),
    "other program": (with_config(set_module), "cannot be loaded"),
    "other folder's program": (with_config(set_saved_model), "TFSMLayer, which would run what is in another file"),
    "a pickled module": (with_config(set_pickled), "TorchModuleWrapper, which would run what is in another file"),
    "a config for a size": (with_config(nest), "cannot be loaded"),
    "weights of terabytes": (with_config(set_units), "more weights than the file can hold"),
    "config is a list": (with_config(lambda config: [config]), "no JSON object"),
    "deep config": (lambda f, p: write(f, {**p, "config.json": b"[" * 100_000}), "nested too deeply"),
    "part outside": (with_parts("../x"), "lies outside"),
    "part outside on Windows": (with_parts("..\\x"), "lies outside"),
    "absolute part": (with_parts("/x"), "lies outside"),
    "absolute part on Windows": (with_parts("C:x"), "lies outside"),
    "part twice": (twice, "of 3 names"),
    "too many parts": (with_parts(*map(str, range(MOST_PARTS))), "it has 10,003 parts"),
    "no config": (without("config.json"), "it has no config.json"),
    "no weights": (without("model.weights.h5"), "it has no model.weights.h5"),
    "numbers of a gigabyte": (with_weights(shape_bomb), "weights declare"),
    "numbers elsewhere": (with_weights(external), "in another file"),
    "numbers of several files": (with_weights(virtual), "in another file"),
    "numbers behind a link": (with_weights(link), "lead to others by a link"),
    "numbers behind a link within": (with_weights(inner_link), "lead to others by a link"),
    "wrong sum": (wrong_sum, "Bad CRC-32"),
}


@pytest.mark.parametrize(("make", "words"), EVIL.values(), ids=EVIL)
def test_evil_files_are_refused(files, make, words, tmp_path):
    make(tmp_path / "x.keras", parts_of(files["elastic"]))
    assert (tmp_path / "x.keras").stat().st_size < MEGABYTE
    refused(lambda: load(tmp_path / "x.keras"), words)
    refused(lambda: load(tmp_path / "x.keras", keep=0.5), words)


def test_a_config_that_is_too_large_is_refused(files, monkeypatch):
    monkeypatch.setattr("tncompress.conversion.opening.MOST_CONFIG", 100)
    refused(lambda: load(files["elastic"]), "its config has more than 100 bytes")


@pytest.mark.slow
def test_a_config_of_hundreds_of_megabytes_is_refused(files, tmp_path):
    zip_bomb(tmp_path / "x.keras", parts_of(files["elastic"]))
    assert (tmp_path / "x.keras").stat().st_size < MEGABYTE
    refused(lambda: load(tmp_path / "x.keras"), "unpacks to")


def test_only_modules_of_these_packages_are_imported(monkeypatch):
    imported = []
    monkeypatch.setattr("tncompress.conversion.opening.importlib.import_module", imported.append)
    names = ("bert_models.__main__", "os", "tncompress.cli.app.__x", "tncompressed.x", "tncompress.layers.dense")
    import_own_modules({"layers": [{"module": name} for name in names]})
    assert imported == ["tncompress.layers.dense"]


def test_large_weights_are_refused_only_while_a_file_is_read(files, tmp_path):
    with_config(set_units)(tmp_path / "x.keras", parts_of(files["compressed"]))
    before = keras.layers.Layer.add_weight
    refused(lambda: load(tmp_path / "x.keras"))
    assert keras.layers.Layer.add_weight is before
    assert keras.layers.Dense(4000)(np.zeros((1, 5000), "float32")).shape == (1, 4000)


def test_many_small_weights_are_refused():
    layer = keras.layers.Layer()
    with weights_within(3 * 128):
        for _ in range(1003):
            layer.add_weight(shape=())
        refused(lambda: layer.add_weight(shape=()), "more weights than the file can hold")


def make_large():
    keras.layers.Dense(4000).build((None, 5000))


def test_each_thread_has_limits_of_its_own(files):
    load(files["compressed"])
    within, enough = Event(), Event()

    def loads():
        with weights_within(0):
            within.set()
            assert enough.wait(60)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(loads)
        try:
            assert within.wait(60)
            make_large()  # this thread has read its file
            with weights_within(0):
                refused(make_large)
                enough.set()
                other.result()
                refused(make_large)  # the other one has ended, this one has not
        finally:
            enough.set()
