"""`fold` and `unfold`: the same outputs, never stale, within the memory that is given."""

import keras
import numpy as np
import pytest
from backends import ON_TENSORFLOW, passes_on
from keras import ops
from models import made

import tncompress
from tncompress import TNDense, fold, unfold
from tncompress.conversion import folding, timing
from tncompress.conversion.walking import walk
from tncompress.forms import FORMS, low_rank
from tncompress.layers.folded import TNFolded, TNFoldedPivoted
from tncompress.layers.pivoted import TNPivoted

FOLDED = (TNFolded, TNFoldedPivoted)


@pytest.fixture
def always(monkeypatch):
    """Every network is found to be faster as a kernel."""
    monkeypatch.setattr(folding, "time_layers", lambda layers, tokens: {"network": 2.0, "folded": 1.0})


def spec_of(form, in_dim=24, out_dim=36):
    return next(iter(FORMS[form].candidates(in_dim, out_dim, in_dim * out_dim // 2)))


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def network(form="tt_matrix", layer=TNDense, **arguments):
    model = keras.Sequential([keras.Input((None, 24)), layer(spec_of(form), **arguments)])
    for seed, variable in enumerate(model.layers[0].trainable_variables):  # biases too
        variable.assign(inputs(*variable.shape, seed=seed))
    return model


def numbers(model, x):
    return ops.convert_to_numpy(model(x))


def close(model, other, x, tolerance=1e-5):
    left, right = numbers(model, x), numbers(other, x)
    np.testing.assert_allclose(left, right, rtol=0, atol=tolerance * max(1, np.abs(right).max()))


def kinds_of(model):
    return [type(layer) for _, layer in walk(model) if isinstance(layer, TNDense)]


@pytest.mark.parametrize("form", ["tt_matrix", "monarch", "kronecker", "low_rank"])
@pytest.mark.parametrize("activation", [None, "gelu", "softmax"])
def test_same_outputs_and_back(always, form, activation):
    model = network(form, activation=activation)
    folded = fold(model)
    assert kinds_of(folded) == [TNFolded]
    kernel = model.layers[0].to_dense()
    np.testing.assert_allclose(ops.convert_to_numpy(folded.layers[0].kernel), kernel, atol=1e-5 * np.abs(kernel).max())
    x = inputs(2, 3, 24)
    close(folded, model, x)
    back = unfold(folded)
    assert kinds_of(back) == [TNDense]
    assert len(back.trainable_variables) == len(model.trainable_variables)
    np.testing.assert_array_equal(numbers(back, x), numbers(model, x))


def test_pivots(always):
    model = network("low_rank", TNPivoted, activation="relu")
    folded = fold(model)
    assert kinds_of(folded) == [TNFoldedPivoted]
    close(folded, model, inputs(2, 3, 24))
    np.testing.assert_array_equal(numbers(unfold(folded), inputs(1, 2, 24)), numbers(model, inputs(1, 2, 24)))


def test_features_on_several_axes(always):
    entry = keras.Input((5, 24))
    heads = TNDense(spec_of("low_rank"), "softmax", out_shape=(4, 9))(entry)
    model = keras.Model(entry, TNDense(low_rank.spec(36, 24, 3), in_shape=(4, 9))(heads))
    folded = fold(model)
    assert kinds_of(folded) == [TNFolded, TNFolded]
    close(folded, model, inputs(2, 5, 24))


@pytest.mark.parametrize("kind", ["subclassed", "functional", "encoder", "masked", "bert_backbone"])
def test_compressed_models(always, kind):
    model, x = made(kind)
    small = tncompress.replace_dense(model, 0.7, form="tt_matrix")
    folded = fold(small)
    assert set(kinds_of(folded)) == {TNFolded}
    assert set(kinds_of(small)) == {TNDense}, "the given one is not changed"
    for left, right in zip(*(keras.tree.flatten(m(x)) for m in (folded, small)), strict=True):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (left, right)), atol=1e-4)
    assert set(kinds_of(unfold(folded))) == {TNDense}


@pytest.mark.parametrize("change", ["assign", "assign_add", "set_weights", "load_weights"])
def test_never_stale(always, change, tmp_path):
    model, other = network(), network()
    for variable in other.trainable_variables:
        variable.assign(ops.add(ops.multiply(variable, 1.5), 0.1))
    folded = fold(model)
    x = inputs(4, 3, 24)
    before = folded.predict(x, verbose=0)  # compiled with the kernel that there was
    if change == "set_weights":
        folded.set_weights(fold(other).get_weights())
    elif change == "load_weights":
        other.save_weights(tmp_path / "other.weights.h5")
        folded.load_weights(tmp_path / "other.weights.h5")
    else:
        for mine, theirs in zip(folded.layers[0].cores, other.layers[0].cores, strict=True):
            value = ops.convert_to_numpy(theirs)
            if change == "assign":
                mine.assign(value)
            else:
                mine.assign_add(value - ops.convert_to_numpy(mine))
        folded.layers[0].bias.assign(ops.convert_to_numpy(other.layers[0].bias))
    after = folded.predict(x, verbose=0)
    np.testing.assert_allclose(after, other.predict(x, verbose=0), rtol=0, atol=1e-5 * np.abs(after).max())
    assert np.abs(after - before).max() > 0.1


@ON_TENSORFLOW
def test_never_stale_inside_a_compiled_function(always):
    import tensorflow as tf

    model = network()
    folded = fold(model)
    twice = tf.function(lambda: folded.layers[0].cores[0].assign(2 * folded.layers[0].cores[0]))
    twice()
    model.layers[0].cores[0].assign(2 * model.layers[0].cores[0])
    close(folded, model, inputs(2, 3, 24))


def test_cores_are_not_trained_but_all_else_is(always):
    model = keras.Sequential([keras.Input((24,)), TNDense(spec_of("tt_matrix")), keras.layers.Dense(2)])
    folded = fold(model)
    folded.trainable = True
    assert not {id(core) for core in folded.layers[0].cores} & {id(v) for v in folded.trainable_variables}
    folded.compile("adam", "mse")
    before = [ops.convert_to_numpy(core) for core in folded.layers[0].cores]
    dense = ops.convert_to_numpy(folded.layers[1].kernel)
    folded.fit(inputs(8, 24), inputs(8, 2), verbose=0)
    for core, value in zip(folded.layers[0].cores, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(core), value)
    assert np.abs(ops.convert_to_numpy(folded.layers[1].kernel) - dense).max() > 0
    close(folded, unfold(folded), inputs(3, 24))


@pytest.mark.parametrize("kind", ["sequential", "subclassed"])
def test_files_hold_the_cores_alone(always, kind, tmp_path):
    model, x = made(kind)
    small = tncompress.replace_dense(model, 0.7, form="tt_matrix")
    folded = fold(small)
    small.save(tmp_path / "small.keras")
    folded.save(tmp_path / "folded.keras")
    loaded = tncompress.load(tmp_path / "folded.keras")
    np.testing.assert_array_equal(numbers(loaded, x), numbers(small, x))
    sizes = [(tmp_path / f"{name}.keras").stat().st_size for name in ("small", "folded")]
    assert abs(sizes[0] - sizes[1]) < 200


def test_a_graph_of_networks_is_saved_folded(always, tmp_path):
    folded = fold(network())
    folded.save(tmp_path / "folded.keras")
    loaded = tncompress.load(tmp_path / "folded.keras")
    assert kinds_of(loaded) == [TNFolded]
    np.testing.assert_array_equal(numbers(loaded, inputs(1, 2, 24)), numbers(folded, inputs(1, 2, 24)))


def test_memory_goes_to_what_saves_most_time_for_it(monkeypatch):
    def times(layers, tokens):
        assert tokens == 7
        # The second saves as much as the first with a quarter of the bytes; the third is slower as a kernel, the last
        # no faster.
        saved = {64: 1.0, 32: 1.0, 16: -1.0, 8: 0.0}[layers["network"].spec.in_dim]
        return {"network": 5.0, "folded": 5.0 - saved}

    monkeypatch.setattr(folding, "time_layers", times)
    widths = (64, 32, 16, 8)
    entries = [keras.Input((width,)) for width in widths]
    model = keras.Model(entries, [TNDense(low_rank.spec(w, w, 2))(x) for w, x in zip(widths, entries, strict=True)])
    both, small = 4 * (64**2 + 32**2), 4 * 32**2

    def folded(memory):
        return [layer.spec.in_dim for _, layer in walk(fold(model, tokens=7, memory=memory)) if type(layer) in FOLDED]

    assert folded(None) == folded(both) == [64, 32]
    assert folded(both - 1) == folded(small) == [32]
    assert folded(small - 1) == []


@keras.saving.register_keras_serializable(package="tests")
class Wrap(keras.layers.Layer):
    """Builds what it holds while it is called for the first time."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = TNFolded(low_rank.spec(16, 8, 2))

    def call(self, x):
        return self.inner(x)


def test_built_inside_a_symbolic_call():
    model = keras.Sequential([keras.Input((16,)), Wrap()])
    inner, x = model.layers[0].inner, inputs(3, 16)
    np.testing.assert_allclose(numbers(model, x), x @ inner.to_dense(), atol=1e-5)


def test_weights_of_another_layer_change_nothing(always):
    layer = fold(network()).layers[0]
    before = layer.to_dense()
    with pytest.raises(ValueError, match=r"its weights have the shapes .* those to load"):
        layer.load_own_variables({"0": np.ones((2, 2), "float32")})
    np.testing.assert_array_equal(layer.to_dense(), before)
    layer.cores[0].assign(ops.convert_to_numpy(layer.cores[0]) * 2)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.kernel), 2 * before, rtol=1e-4, atol=1e-4)


def test_compiled_as_before(always):
    model = network()
    assert not fold(model).compiled
    model.compile("sgd", "mae")
    folded = fold(model)
    for made_of_it in (folded, unfold(folded)):
        assert made_of_it.compiled
        assert made_of_it.get_compile_config() == model.get_compile_config()


def test_half_precision(always):
    model = network(dtype="mixed_bfloat16")
    folded = fold(model)
    assert keras.backend.standardize_dtype(folded.layers[0].kernel.dtype) == "float32"
    for dtype, size in (("mixed_bfloat16", 4), ("float64", 8)):
        kernel = size * 24 * 36
        assert kinds_of(fold(network(dtype=dtype), memory=kernel - 1)) == [TNDense]
        assert kinds_of(fold(network(dtype=dtype), memory=kernel)) == [TNFolded]
    left, right = (np.asarray(ops.convert_to_numpy(ops.cast(m(inputs(2, 3, 24)), "float32"))) for m in (model, folded))
    np.testing.assert_allclose(left, right, atol=2e-2 * np.abs(left).max())


def test_times_are_medians_of_single_calls(monkeypatch):
    """By a clock that a call moves on by what it is to take; every third call meets something that delays it."""
    now, calls = [0.0], []

    def compiled(layer, inputs):
        assert inputs.shape == (5, 12)

        def call():
            calls.append(layer.units)
            now[0] += 1e-3 * layer.units * (10 if len(calls) % 3 == 0 else 1)

        return call

    monkeypatch.setattr(timing, "_compiled", compiled)
    monkeypatch.setattr(timing, "_clock", lambda: lambda: now[0])
    layers = {name: keras.layers.Dense(units) for name, units in (("small", 20), ("large", 40))}
    for layer in layers.values():
        layer.build((None, 12))
    found = timing.time_layers(layers, tokens=5)
    assert found == pytest.approx({"small": 0.02, "large": 0.04})
    assert calls[4:8] == [40, 20, 20, 40], "in turns, and the other way round"


def test_times_are_of_this_backend():
    layer = keras.layers.Dense(8)
    layer.build((None, 4))
    network = TNDense(low_rank.spec(4, 8, 2))
    network.build((None, 4))
    assert all(0 < seconds < 10 for seconds in timing.time_layers({"dense": layer, "network": network}, 3).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 0}, "tokens is the number of vectors at once, at least 1, got 0"),
        ({"tokens": 2.5}, "at least 1, got 2.5"),
        ({"memory": -1}, "memory is bytes for all kernels together, 0 or more, got -1"),
        ({"memory": float("nan")}, "0 or more, got nan"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        fold(network(), **arguments)


def test_models_without_networks():
    dense = made("sequential")[0]
    with pytest.raises(ValueError, match="'sequential' has no networks to fold"):
        fold(dense)
    with pytest.raises(ValueError, match="has no folded networks"):
        unfold(network())


@ON_TENSORFLOW
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_pass_this_file(backend):
    passes_on(backend, __file__, "-k", "stale or trained or pivots or axes or backend")
