"""Saving that fails, loading what is no model, and what a loaded model remembers."""

import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from models import largest_difference, made, outputs_of

from tncompress import FORMS, load, register_form, replace_dense, report
from tncompress.conversion.saving import Compression, Outcome, compression_of
from tncompress.fitting.choice import Choice
from tncompress.forms import Form, low_rank


@pytest.fixture
def small():
    return replace_dense(made("sequential")[0], keep=0.6)


class FullDisk(zipfile.ZipFile):
    """Room for 400 bytes of each part."""

    def open(self, name, mode="r", **kwargs):
        file = super().open(name, mode, **kwargs)
        if mode == "w":
            write = file.write

            def limited(data):
                write(data[:400])
                if len(data) > 400:
                    raise OSError(28, "No space left on device")

            file.write = limited
        return file


def test_failed_save_leaves_the_old_file_whole(small, tmp_path, monkeypatch):
    file = tmp_path / "small.keras"
    small.save(file)
    before = file.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(zipfile, "ZipFile", FullDisk)
        with pytest.raises(OSError, match="No space left"):
            small.save(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["small.keras"]
    assert isinstance(load(file), keras.Sequential)


def test_failed_first_save_leaves_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZipFile", FullDisk)
    with pytest.raises(OSError, match="No space left"):
        small.save(tmp_path / "small.keras")
    assert list(tmp_path.iterdir()) == []


def test_save_replaces_an_older_file(small, tmp_path):
    file = tmp_path / "small.keras"
    file.write_text("older")
    small.save(file)
    assert report(load(str(file))) == report(small)


def test_save_refuses_in_one_sentence(small, tmp_path):
    file = tmp_path / "small.keras"
    file.write_text("older")
    with pytest.raises(FileExistsError, match=r"small.keras exists; choose another name or overwrite=True"):
        small.save(file, overwrite=False)
    assert file.read_text() == "older"
    with pytest.raises(FileNotFoundError, match=r"The folder .*nowhere does not exist"):
        small.save(tmp_path / "nowhere" / "small.keras")


def test_weights_files_and_other_formats_are_those_of_keras(small, tmp_path):
    small.save_weights(tmp_path / "small.weights.h5")
    other = replace_dense(made("sequential", seed=2)[0], recipe=report(small).recipe)
    other.load_weights(tmp_path / "small.weights.h5")
    _, inputs = made("sequential")
    assert largest_difference(outputs_of(other, inputs), outputs_of(small, inputs)) == 0.0
    with pytest.raises(ValueError, match="extension"):
        small.save(tmp_path / "small.pickle")


def test_checkpoints_of_a_training_may_be_loaded(small, tmp_path):
    _, inputs = made("sequential")
    small.compile("adam", "mse")
    small.fit(inputs, inputs, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "at_{epoch}.keras")])
    assert largest_difference(outputs_of(load(tmp_path / "at_1.keras"), inputs), outputs_of(small, inputs)) == 0.0


@pytest.mark.filterwarnings("error:Skipping variable loading")
@pytest.mark.parametrize("trained", [False, True])
def test_an_optimizer_that_made_no_step_takes_no_room(tmp_path, trained):
    """Adam keeps two numbers for every weight, once it has begun."""
    model, inputs = made("sequential")
    model.compile("adam", "mse")
    model.fit(inputs, inputs, verbose=0)
    small = replace_dense(model, keep=0.6)
    assert not small.optimizer.built
    if trained:
        small.fit(inputs, inputs, verbose=0)
    small.save(tmp_path / "small.keras")
    with zipfile.ZipFile(tmp_path / "small.keras") as archive, h5py.File(archive.open("model.weights.h5")) as weights:
        assert len(weights["optimizer/vars"]) == 2 + trained * 2 * len(small.trainable_variables)
    for again in (load(tmp_path / "small.keras"), keras.models.load_model(tmp_path / "small.keras")):
        assert again.built
        states = zip(small.optimizer.variables, again.optimizer.variables, strict=True)
        assert all(np.array_equal(one, other) for one, other in states)
        again.fit(inputs, inputs, verbose=0)
        assert again.optimizer.iterations == small.optimizer.iterations + 1


def test_config_goes_round(small):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(small))
    assert report(again).rows == report(small).rows
    assert again.get_config() == small.get_config()


def test_outcomes_go_round():
    choice = Choice("low_rank", low_rank.spec(4, 6, 2))
    for outcome in (Outcome("a/b", 4, 6, choice, "closed form", 0.5, 0.25), Outcome("c", 4, 6, reason="in exclude")):
        assert Outcome.from_config(outcome.to_config()) == outcome
    assert Compression({}, (outcome,)).recipe == {}


def test_only_compressed_models_remember(small):
    assert compression_of(made("sequential")[0]) is None
    assert set(compression_of(small).recipe) == {"first", "second"}


def unregistered(path):
    """A model of a class that is not registered."""

    class Stranger(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(8)

        def call(self, x):
            return self.dense(x)

    model = Stranger()
    model(np.zeros((1, 16), "float32"))
    replace_dense(model).save(path)
    return Stranger


def test_custom_classes_may_be_given(tmp_path):
    stranger = unregistered(tmp_path / "stranger.keras")
    with pytest.raises(ValueError, match=r"or give custom_objects=\{'Stranger': Stranger\}\.$") as caught:
        load(tmp_path / "stranger.keras")
    assert "no class Stranger here; import the module that defines and registers Stranger" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(load(tmp_path / "stranger.keras", {"Stranger": stranger}), stranger)


def test_lambda_layers_need_safe_mode_off_as_ever(tmp_path):
    entry = keras.Input((16,))
    double = keras.layers.Lambda(lambda x: 2 * x, output_shape=(16,), name="double")
    model = keras.Model(entry, double(keras.layers.Dense(16, name="dense")(entry)))
    small = replace_dense(model, keep=0.5)
    small.save(tmp_path / "small.keras")
    with pytest.raises(ValueError, match=r"cannot be loaded .*[Ll]ambda"):
        load(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras", safe_mode=False)
    x = np.ones((2, 16), "float32")
    assert largest_difference(outputs_of(again, x), outputs_of(small, x)) == 0.0


def truncated(path):
    replace_dense(made("sequential")[0]).save(path)
    path.write_bytes(path.read_bytes()[:-200])


def without(part):
    def make(path):
        replace_dense(made("sequential")[0]).save(path)
        with zipfile.ZipFile(path) as whole:
            parts = {name: whole.read(name) for name in whole.namelist() if name != part}
        with zipfile.ZipFile(path, "w") as rest:
            for name, data in parts.items():
                rest.writestr(name, data)

    return make


def damaged_weights(path):
    """The archive is whole, the weights in it are not."""
    replace_dense(made("sequential")[0]).save(path)
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w") as broken:
        for name, data in parts.items():
            broken.writestr(name, data[:1000] if name.endswith(".h5") else data)


BAD = {
    "missing": (lambda path: None, FileNotFoundError, "There is no file .*x.keras"),
    "text": (lambda path: path.write_text("hello"), ValueError, "is not a .keras file, or is damaged"),
    "empty": (lambda path: path.write_text(""), ValueError, "is not a .keras file, or is damaged"),
    "folder": (lambda path: path.mkdir(), ValueError, "is not a .keras file, or is damaged"),
    "truncated": (truncated, ValueError, "is not a .keras file, or is damaged"),
    "no config": (without("config.json"), ValueError, "cannot be loaded"),
    "no weights": (without("model.weights.h5"), ValueError, "cannot be loaded"),
    "damaged weights": (damaged_weights, ValueError, "cannot be loaded"),
    "another archive": (
        lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "a"),
        ValueError,
        "is not a .keras file|cannot be loaded",
    ),
}


@pytest.mark.parametrize(("make", "error", "words"), BAD.values(), ids=BAD)
def test_bad_files_in_one_sentence(make, error, words, tmp_path):
    make(tmp_path / "x.keras")
    with pytest.raises(error, match=words) as caught:
        load(tmp_path / "x.keras")
    assert "\n" not in str(caught.value)


def test_a_saved_model_does_not_need_the_form(tmp_path):
    model, inputs = made("sequential")
    register_form(Form("of_my_own", low_rank.candidates))
    try:
        small = replace_dense(model, keep=0.6, form="of_my_own")
        small.save(tmp_path / "small.keras")
    finally:
        FORMS.pop("of_my_own")
    again = load(tmp_path / "small.keras")
    assert largest_difference(outputs_of(again, inputs), outputs_of(small, inputs)) == 0.0
    assert report(again).replaced[0].form == "of_my_own"


def test_a_format_that_could_not_be_loaded_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match=r"save it as 'small\.keras'"):
        small.save(tmp_path / "small.h5")
    assert not any(tmp_path.iterdir())


def test_a_fresh_process_needs_to_import_only_tncompress(tmp_path):
    """Also for models of bert_models, whose classes the file names."""
    model, _ = made("encoder")
    replace_dense(model, keep=0.6).save(tmp_path / "small.keras")
    code = f"import tncompress; print(type(tncompress.load({str(tmp_path / 'small.keras')!r})).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "CompressedEncoder", done.stderr
