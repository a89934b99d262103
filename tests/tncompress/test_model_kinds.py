"""Every promise about a compressed model, on every kind of model in tests/models.py."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from models import KINDS, full_recipe, largest_difference, made, outputs_of

from tncompress import TNDense, find_sites, load, replace_dense, report
from tncompress.conversion.walking import walk

HALF = {"half_precision"}  # computes in bfloat16


@dataclass
class Case:
    name: str
    model: keras.Model
    inputs: object
    before: list  # outputs of the model before it was compressed
    weights: list
    small: keras.Model


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    if request.param == "bert_backbone":
        pytest.importorskip("keras_hub")
    model, inputs = made(request.param)
    before, weights = outputs_of(model, inputs), model.get_weights()
    small = replace_dense(model, keep=0.6, calibration=[inputs])
    return Case(request.param, model, inputs, before, weights, small)


def zeros_like_outputs(model, inputs):
    return keras.tree.map_structure(lambda y: np.zeros(y.shape, "float32"), model(inputs, training=False))


def train(model, inputs, epochs=1):
    """One step of an epoch: all rows in one batch, in order."""
    targets = zeros_like_outputs(model, inputs)
    if not model.compiled:
        model.compile(keras.optimizers.Adam(0.01), loss=keras.tree.map_structure(lambda y: "mse", targets))
    model.fit(inputs, targets, batch_size=12, shuffle=False, epochs=epochs, verbose=0)


def all_layers(model):
    return [model, *(layer for _, layer in walk(model))]


def test_finds_the_dense_layers(case):
    assert sorted(site.path for site in find_sites(case.model) if not site.reason) == sorted(KINDS[case.name].paths)


def test_full_rank_gives_the_same_outputs(case):
    small = replace_dense(case.model, recipe=full_recipe(case.model))
    scale = max(1.0, *(float(np.abs(y).max()) for y in case.before))
    # Sums of at most 64 terms in up to 9 layers; bfloat16 has 8 bits.
    tolerance = scale * (2**-8 * 4 if case.name in HALF else 2**-24 * 64)
    assert largest_difference(outputs_of(small, case.inputs), case.before) < tolerance
    assert sum(type(layer) is TNDense for layer in {id(one): one for one in all_layers(small)}.values()) == len(
        KINDS[case.name].paths
    )


def test_given_model_is_unchanged(case):
    for before, after in zip(case.weights, case.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert largest_difference(outputs_of(case.model, case.inputs), case.before) == 0.0
    for layer in all_layers(case.model):
        assert "call" not in vars(layer)
        assert not isinstance(layer, TNDense)
    assert not case.model.compiled


def test_new_model_shares_nothing(case):
    for things in (lambda m: m.variables, all_layers):
        assert not {id(thing) for thing in things(case.model)} & {id(thing) for thing in things(case.small)}
    assert isinstance(case.small, type(case.model))
    assert not case.small.compiled


def test_counts_add_up(case):
    found = report(case.small)
    assert 0 < found.keep <= 0.6
    cores = sum(np.prod(core.shape) for layer in _unique_networks(case.small) for core in layer.cores)
    assert sum(row.params_after for row in found.replaced) == cores
    assert found.params_after == case.small.count_params()
    assert found.params_before == case.model.count_params()
    assert {row.layer for row in found.rows if not row.reason} | {row.layer for row in found.rows if row.reason} == {
        site.path for site in find_sites(case.model)
    }


def _unique_networks(model):
    return {id(layer): layer for layer in all_layers(model) if isinstance(layer, TNDense)}.values()


def test_file_gives_the_same_model(case, tmp_path):
    case.small.save(tmp_path / "small.keras")
    expected = outputs_of(case.small, case.inputs)
    for again in (load(tmp_path / "small.keras"), keras.saving.load_model(tmp_path / "small.keras", safe_mode=True)):
        assert largest_difference(outputs_of(again, case.inputs), expected) == 0.0
        assert report(again) == report(case.small)
        assert isinstance(again, type(case.model))


def test_trains_and_goes_on_after_loading(case, tmp_path):
    case.small.save(tmp_path / "fresh.keras")
    small = load(tmp_path / "fresh.keras")
    inference = small.predict(case.inputs, verbose=0)
    train(small, case.inputs)
    after = small.predict(case.inputs, verbose=0)
    assert largest_difference(*map(keras.tree.flatten, (after, inference))) > 1e-4  # no stale function
    small.save(tmp_path / "trained.keras")
    again = load(tmp_path / "trained.keras")
    assert largest_difference(outputs_of(small, case.inputs), outputs_of(again, case.inputs)) == 0.0
    for ours, theirs in zip(small.variables, again.variables, strict=True):
        if "seed_generator" in ours.path:  # Keras does not save where the dropout is
            theirs.assign(ours)
    for model in (small, again):
        train(model, case.inputs, epochs=2)
    assert again.optimizer.iterations == 3
    for first, second in zip(small.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_every_weight_has_a_gradient(case):
    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(case.small(case.inputs, training=True))
        loss = sum(tf.reduce_mean(tf.cast(y, "float32") ** 2) for y in outputs)
    variables = case.small.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    dead = {v.path for v, g in zip(variables, gradients, strict=True) if g is None}
    assert dead == set()


def test_saved_model_gives_the_same_outputs(case, tmp_path):
    case.small.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")

    def one(array):
        axes = array.shape[1:] if array.ndim > 2 or array.dtype.kind == "f" else [None] * (array.ndim - 1)
        return tf.TensorSpec([None, *axes], array.dtype)

    inputs = keras.tree.map_structure(tf.convert_to_tensor, case.inputs)
    specs = keras.tree.map_structure(
        lambda x: one(x.numpy()) if x.dtype != tf.string else tf.TensorSpec([None, 3], x.dtype), inputs
    )
    function = tf.function(lambda x: case.small(x, training=False), input_signature=[specs])
    expected = [np.asarray(tf.cast(y, "float32")) for y in _by_name(function(inputs))]
    got = [np.asarray(tf.cast(y, "float32")) for y in _by_name(exported.serve(inputs))]
    assert largest_difference(got, expected) == 0.0


def _by_name(outputs):
    """Flat, with the list in the encoder's outputs under the names that export gives its items."""
    if isinstance(outputs, dict) and "encoder_outputs" in outputs:
        outputs = dict(outputs)
        hidden = outputs.pop("encoder_outputs")
        outputs |= {f"encoder_outputs_{i}": y for i, y in enumerate(hidden)}
    return keras.tree.flatten(outputs)


@pytest.mark.parametrize("name", ["sequential", "subclassed"])
def test_trains_under_xla(name):
    model, inputs = made(name)
    small = replace_dense(model, keep=0.6)
    targets = zeros_like_outputs(small, inputs)
    small.compile(keras.optimizers.Adam(0.01), loss="mse", jit_compile=True)
    before = small.evaluate(inputs, targets, verbose=0)
    small.fit(inputs, targets, epochs=5, batch_size=12, verbose=0)
    assert small.jit_compile is True
    assert small.evaluate(inputs, targets, verbose=0) < 0.9 * before


FRESH = """
import sys
import keras, models, numpy as np
from pathlib import Path
from tncompress import load, report
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    inputs = models.made(name)[1]
    model = load(folder / f"{name}.keras")
    np.savez(folder / f"{name}.npz", *keras.tree.flatten(models.outputs_of(model, inputs)))
    (folder / f"{name}.json").write_text(report(model).to_json())
"""


def test_loads_in_a_fresh_process(tmp_path):
    """Other automatic layer names than here, and no class but those that the modules register."""
    names = ["lazy", "subclassed", "functional_of_models", "encoder"]
    expected = {}
    for name in names:
        model, inputs = made(name)
        small = replace_dense(model, keep=0.6)
        small.save(tmp_path / f"{name}.keras")
        expected[name] = keras.tree.flatten(outputs_of(small, inputs)), report(small).to_json()
    root = Path(models.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path), *names], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in names:
        outputs = list(np.load(tmp_path / f"{name}.npz", allow_pickle=False).values())
        assert largest_difference(outputs, expected[name][0]) == 0.0
        assert (tmp_path / f"{name}.json").read_text() == expected[name][1]


def test_inside_a_larger_model(tmp_path):
    """A compressed model below a new head: trained, saved, loaded."""
    for name in ("subclassed", "sequential"):
        model, inputs = made(name)
        small = replace_dense(model, keep=0.6)
        entry = keras.Input((models.WIDTH,))
        larger = keras.Model(entry, keras.layers.Dense(3, name="head")(small(entry)), name="larger")
        train(larger, inputs)
        larger.save(tmp_path / "larger.keras")
        again = load(tmp_path / "larger.keras")
        assert largest_difference(outputs_of(larger, inputs), outputs_of(again, inputs)) == 0.0
        assert report(again) == report(larger)
        assert {row.layer for row in report(again).rows if row.reason} == {"head"}


@pytest.mark.parametrize("name", ["sequential", "functional"])
def test_clone_is_an_ordinary_model(name, tmp_path):
    model, inputs = made(name)
    small = replace_dense(model, keep=0.6)
    clone = keras.models.clone_model(small)
    clone.set_weights(small.get_weights())
    clone.save(tmp_path / "clone.keras")
    again = load(tmp_path / "clone.keras")
    assert largest_difference(outputs_of(again, inputs), outputs_of(small, inputs)) == 0.0
