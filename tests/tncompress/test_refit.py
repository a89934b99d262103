"""Sequential refit against explicit least squares on stored activations, and what it must leave alone."""

import keras
import numpy as np
import pytest
from backends import passes_on
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from tncompress import Moments, TNDense, replace_dense, report
from tncompress.conversion import deciding
from tncompress.conversion import streams as streams_module
from tncompress.conversion.events import Event, observed
from tncompress.conversion.refit import refit
from tncompress.conversion.refit_data import checked_data, judges
from tncompress.conversion.streams import stream_of
from tncompress.conversion.sums import find_sums
from tncompress.conversion.surgery import copy_model, put_networks
from tncompress.fitting.choice import Choice
from tncompress.fitting.fit import fit, metrics_of
from tncompress.forms import kronecker, low_rank
from tncompress.layers.pivoted import TNPivoted, pivoted
from tncompress.linalg import psd_root
from tncompress.network.cost import dense_spec

WIDTH = 6
TENTH = 0.1  # docs/fitting.md: the ridge is "a tenth of the inputs' mean variance"


def batches(count=10, rows=40, width=WIDTH, seed=0):
    return list(np.random.default_rng(seed).normal(size=(count, rows, width)).astype("float32"))


def mlp(hidden=8, activation="tanh", use_bias=True):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            layers.Dense(hidden, activation, use_bias=use_bias, name="first"),
            layers.Dense(WIDTH, use_bias=use_bias, name="second"),
        ],
        name="mlp",
    )


def compressed(model, choices):
    """A copy with networks fitted to the weights alone."""
    small = copy_model(model)
    dense = {path: array(small, path, "kernel") for path in choices}
    biases = {path: array(small, path, "bias") for path in choices}
    for path, layer in put_networks(small, choices).items():
        cores = [dense[path]] if len(layer.spec.cores) == 1 else fit(dense[path], layer.spec, form="low_rank").cores
        if choices[path].pivots:
            cores, order = pivoted(*cores)
            layer.order.assign(order)
        for variable, core in zip(layer.cores, cores, strict=True):
            variable.assign(core)
        if layer.bias is not None:
            layer.bias.assign(biases[path])
    return small


def array(model, path, name):
    value = getattr(stream_of(model, [path]).layers[path], name)
    return None if value is None else ops.convert_to_numpy(value)


def whole(in_dim, out_dim):
    """The map with one core: least squares may choose any kernel."""
    return Choice(None, dense_spec(in_dim, out_dim))


def ranked(in_dim, out_dim, rank, pivots=False):
    return Choice("low_rank", low_rank.spec(in_dim, out_dim, rank), pivots)


def least_squares(x, missing, use_bias=True):
    """Change of the kernel, and of the bias, by numpy's solver on stacked rows; the ridge is rows of its own."""
    shift, mean = (missing.mean(axis=0), x.mean(axis=0)) if use_bias else (0.0, 0.0)
    x, missing = np.float64(x - mean), np.float64(missing - shift)
    ridge = np.sqrt(TENTH * (x**2).sum() / x.shape[1])
    rows = np.vstack([x, ridge * np.eye(x.shape[1])])
    change = np.linalg.lstsq(rows, np.vstack([missing, np.zeros((x.shape[1], missing.shape[1]))]), rcond=None)[0]
    return change, shift - mean @ change if use_bias else 0.0


def outputs_of(model, path, x):
    layer_model = keras.Model(model.inputs, model.get_layer(path).output)
    return ops.convert_to_numpy(layer_model(x))


# -- least squares ---------------------------------------------------------------------------------


@pytest.mark.parametrize("use_bias", [True, False])
def test_equals_least_squares_on_stored_activations(use_bias):
    """Of ten batches the fifth judges; the second layer sees what the compressed first one gives it."""
    model, data = mlp(use_bias=use_bias), batches()
    small = compressed(model, {"first": ranked(WIDTH, 8, 2), "second": whole(8, WIDTH)})
    small.get_layer("second").cores[0].assign(0.5 * array(model, "second", "kernel"))
    x = np.concatenate([*data[:4], *data[5:]])
    hidden = outputs_of(small, "first", x)
    missing = outputs_of(model, "second", x) - outputs_of(small, "second", x)
    change, shift = least_squares(hidden, missing, use_bias)
    expected = 0.5 * array(model, "second", "kernel") + change
    before = missing_of(model, small, data[4])
    results = refit(model, small, data, paths=["second"])
    assert results["second"].taken
    np.testing.assert_allclose(small.get_layer("second").to_dense(), expected, atol=2e-5)
    if use_bias:
        np.testing.assert_allclose(array(small, "second", "bias"), array(model, "second", "bias") + shift, atol=2e-5)
    assert results["second"].before == pytest.approx(before, rel=1e-4)
    assert results["second"].after == pytest.approx(missing_of(model, small, data[4]), rel=1e-4)


def missing_of(model, small, x, path="second"):
    return np.sqrt(((outputs_of(model, path, x) - outputs_of(small, path, x)) ** 2).mean())


def test_the_next_layer_sees_what_the_one_before_became():
    model, data = mlp(), batches()
    choices = {"first": ranked(WIDTH, 8, 3), "second": whole(8, WIDTH)}
    both, one_by_one = compressed(model, choices), compressed(model, choices)
    refit(model, both, data, paths=["second", "first"])
    for path in ("first", "second"):
        refit(model, one_by_one, data, paths=[path])
    for a, b in zip(both.get_weights(), one_by_one.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", ["whole", "low_rank", "pivots", "kronecker"])
def test_a_representable_layer_is_found_again(kind):
    """Its inputs are those of the original, so the ridge's pull towards the present cores is all that is left."""
    model, data = mlp(), batches(10, 200)
    choice = {
        "whole": whole(WIDTH, 8),
        "low_rank": ranked(WIDTH, 8, 3),
        "pivots": ranked(WIDTH, 8, 3, pivots=True),
        "kronecker": Choice("kronecker", kronecker.spec((2, 3), (2, 4), rank=6)),
    }[kind]
    small = copy_model(model)
    layer = put_networks(small, {"first": choice})["first"]
    draw = np.random.default_rng(0)
    truth = [draw.normal(size=core.shape) for core in layer.cores]
    for variable, core in zip(layer.cores, truth, strict=True):
        variable.assign(core)
    model.get_layer("first").kernel.assign(layer.to_dense())
    for variable, core in zip(layer.cores, truth, strict=True):
        variable.assign(core + 0.1 * draw.normal(size=core.shape))
    first = refit(model, small, data, paths=["first"])["first"]
    assert first.taken
    assert first.after < 0.2 * first.before
    for _ in range(4):
        last = refit(model, small, data, paths=["first"])["first"]
    assert last.after < 1e-3 * first.before
    assert isinstance(layer, TNPivoted) == (kind == "pivots")


def test_gradients_and_units():
    """A layer that lost outputs is compared with those that it has, in the metric of their gradients."""
    model, data = mlp(), batches()
    units = np.array([5, 0, 3])
    small = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            TNDense(low_rank.spec(WIDTH, 3, rank=1), activation="tanh", name="first"),
            TNDense(dense_spec(3, WIDTH), name="second"),
        ]
    )
    gradients = {"first": Moments.of(np.random.default_rng(1).normal(size=(50, 8)) * np.geomspace(1, 0.01, 8))}
    layer, x = small.get_layer("first"), np.concatenate([*data[:4], *data[5:]])
    kernel, bias = (array(model, "first", name)[..., units] for name in ("kernel", "bias"))
    now = layer.to_dense()
    change, _ = least_squares(x, x @ (kernel - now) + bias)
    result = refit(model, small, data, paths=["first"], units={"first": units}, gradients=gradients)["first"]
    assert result.taken
    # The best of rank 1 for that kernel, in both metrics: truncated between their roots.
    covariance = np.cov(x.T, bias=True)
    inner = psd_root(covariance + TENTH * np.trace(covariance) / WIDTH * np.eye(WIDTH))
    outer = psd_root(metrics_of(Moments(1, *np.zeros((2, 1)), gradients["first"].of_features(units)), True)[1])
    left, values, right = np.linalg.svd(inner @ (now + change) @ outer)
    expected = np.linalg.solve(inner, values[0] * np.outer(left[:, 0], right[0])) @ np.linalg.inv(outer)
    np.testing.assert_allclose(layer.to_dense(), expected, atol=1e-4 * np.abs(expected).max())


# -- sums ------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="tests")
class Residual(layers.Layer):
    """x + down(gelu(up(x))) with a LayerNormalization before or after, and heads of attention if asked for."""

    def __init__(self, after=True, gated=False, **kwargs):
        super().__init__(**kwargs)
        self.after, self.gated = after, gated
        self.norm = layers.LayerNormalization()
        self.up = layers.Dense(12, "gelu")
        self.gate = layers.Dense(12) if gated else None
        self.down = layers.Dense(WIDTH)
        self.dropout = layers.Dropout(0.1)

    def build(self, shape):
        self.norm.build(shape)
        self.up.build(shape)
        if self.gate:
            self.gate.build(shape)
        self.down.build((*shape[:-1], 12))

    def call(self, x):
        entering = x if self.after else self.norm(x)
        wide = self.up(entering)
        if self.gate:
            wide = wide * self.gate(entering)
        y = x + self.dropout(self.down(wide))
        return self.norm(y) if self.after else y

    def get_config(self):
        return {**super().get_config(), "after": self.after, "gated": self.gated}


def residual(after=True, gated=False, blocks=2):
    keras.utils.set_random_seed(0)
    names = "abc"[:blocks]
    return keras.Sequential([keras.Input((WIDTH,)), *(Residual(after, gated, name=n) for n in names)], name="residual")


def sums_of(model, paths, x):
    return find_sums(model, stream_of(model, paths).layers, paths, x)


def test_sums_before_and_after_normalisation():
    x, paths = batches()[0][:2], ["a/up", "a/down", "b/up", "b/down"]
    assert sums_of(residual(after=True), paths, x) == {
        "a/down": Event("input", "a/norm"),
        "b/down": Event("input", "b/norm"),
    }
    # The sum of the first block is what the second is called with; after the last no layer sees it.
    assert sums_of(residual(after=False), paths, x) == {"a/down": Event("input", "b")}


def test_no_sums_where_there_are_none():
    x = batches()[0][:2]
    assert sums_of(mlp(), ["first", "second"], x) == {}
    inputs = keras.Input((WIDTH,))
    y = layers.Dense(WIDTH, name="y")(inputs)
    for z in (2.0 * y + inputs, y * inputs, ops.flip(y + inputs, axis=-1), layers.Activation("relu")(y) + inputs):
        model = keras.Model(inputs, layers.Dense(2, name="end")(z))
        assert sums_of(model, ["y", "end"], x) == {}
    model = keras.Model(inputs, layers.Dense(2, name="end")(y + inputs))
    assert sums_of(model, ["y", "end"], x) == {"y": Event("input", "end")}


def test_a_sum_also_makes_up_for_what_was_lost_before():
    """The embedding of the small model is off by a linear map; a block cannot know, its stream can."""
    model, data = residual(after=True), batches(10, 300)
    small = compressed(model, {"a/up": ranked(WIDTH, 12, 2), "a/down": whole(12, WIDTH)})
    ours, theirs = stream_of(small, []), stream_of(model, [])
    x = np.concatenate([*data[:4], *data[5:]])
    event = Event("input", "a/norm")
    entering = Event("input", "a/down")
    seen = observed(small, ours.layers, x, {event, entering})
    missing = observed(model, theirs.layers, x, {event})[event] - seen[event]
    change, _ = least_squares(*map(ops.convert_to_numpy, (seen[entering], missing)))
    expected = array(model, "a/down", "kernel") + change
    found = refit(model, small, data, paths=["a/down"])["a/down"]
    assert found.residual
    assert found.taken
    np.testing.assert_allclose(small.layers[0].down.to_dense(), expected, atol=2e-5)


# -- groups ----------------------------------------------------------------------------------------


def test_gated_pairs_are_refitted_together(monkeypatch):
    model, data = residual(gated=True), batches()
    choices = {f"a/{n}": ranked(WIDTH, 12, 2) for n in ("up", "gate")} | {"a/down": ranked(12, WIDTH, 2)}
    small = compressed(model, choices)
    passes = []
    observe = streams_module.observed
    monkeypatch.setattr(
        streams_module, "observed", lambda *args, **kwargs: passes.append(args[3]) or observe(*args, **kwargs)
    )
    results = refit(model, small, data, paths=list(choices))
    assert list(results) == ["a/up", "a/gate", "a/down"]
    assert [results[path].residual for path in results] == [False, False, True]
    # Two groups, each with both models on every batch and once on the sample.
    assert len(passes) == 2 * 2 * (len(data) + 1)


def test_layers_that_enter_one_sum_do_not_make_up_twice():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((WIDTH,))
    left, right = layers.Dense(WIDTH, name="left")(inputs), layers.Dense(WIDTH, name="right")(inputs)
    model = keras.Model(inputs, layers.LayerNormalization(name="norm")(left + right))
    small = compressed(model, {"left": ranked(WIDTH, WIDTH, 3), "right": ranked(WIDTH, WIDTH, 3)})
    data = batches(10, 300)
    results = refit(model, small, data, paths=["left", "right"])
    assert all(result.residual for result in results.values())
    # What the first made up for is not missing any more.
    assert results["right"].before == pytest.approx(results["left"].after, rel=0.01)


def test_shared_layers():
    """One set of weights for all calls, judged by running the model again."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((WIDTH,))
    shared = layers.Dense(WIDTH, "tanh", name="shared")
    model = keras.Model(inputs, layers.Dense(2, name="end")(shared(shared(shared(inputs)))))
    small, data = compressed(model, {"shared": ranked(WIDTH, WIDTH, 3)}), batches()
    before = small.get_weights()
    result = refit(model, small, data, paths=["shared"])["shared"]
    assert not result.residual
    assert result.taken == (result.after < result.before)
    x = data[4]
    paths = [Event("output", "shared", number) for number in range(3)]

    def missing():
        ours, theirs = (observed(m, stream_of(m, ["shared"]).layers, x, set(paths)) for m in (small, model))
        return np.sqrt(np.mean([ops.convert_to_numpy(theirs[p] - ours[p]) ** 2 for p in paths]))

    assert missing() == pytest.approx(result.after if result.taken else result.before, rel=1e-4)
    small.set_weights(before)
    assert missing() == pytest.approx(result.before, rel=1e-4)


def test_features_on_several_axes():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, WIDTH))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    model = keras.Model(inputs, layers.LayerNormalization(name="norm")(inputs + attention(inputs, inputs)))
    data = list(np.random.default_rng(0).normal(size=(10, 8, 5, WIDTH)).astype("float32"))
    parts = {"query": "_query_dense", "key": "_key_dense", "value": "_value_dense", "output": "_output_dense"}
    paths = [f"attention/{name}" for name in parts.values()]
    small = copy_model(model)
    networks = put_networks(small, {path: ranked(WIDTH, WIDTH, 4) for path in paths})
    for path, layer in networks.items():
        kernel = array(model, path, "kernel").reshape(WIDTH, WIDTH)
        for variable, core in zip(layer.cores, fit(kernel, layer.spec, form="low_rank").cores, strict=True):
            variable.assign(core)
    results = refit(model, small, data, paths=paths)
    assert [result.residual for result in results.values()] == [False, False, False, True]
    assert results[paths[-1]].taken


# -- never worse -----------------------------------------------------------------------------------


def test_what_would_overfit_is_left_as_it_was():
    """The compressed model's layer gets nothing that has to do with what is missing: the two see different features."""
    model, data = mlp(hidden=30), batches(5, 8)
    small = compressed(model, {"second": ranked(30, WIDTH, 4)})
    for one, seen in ((model, np.arange(WIDTH) < 3), (small, np.arange(WIDTH) >= 3)):
        kernel = np.random.default_rng(3).normal(size=(WIDTH, 30))
        one.get_layer("first").kernel.assign(kernel * seen[:, None])
    for core in small.get_layer("second").cores:
        core.assign(0.01 * np.random.default_rng(4).normal(size=core.shape))
    before = small.get_weights()
    result = refit(model, small, data, paths=["second"], held_out=0.2)["second"]
    assert not result.taken
    assert result.after > result.before
    for a, b in zip(small.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=12, deadline=None)
@given(
    hidden=st.integers(2, 9),
    rank=st.integers(1, 2),
    rows=st.integers(2, 30),
    use_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_never_worse_on_what_was_held_out(hidden, rank, rows, use_bias, seed):
    model, data = mlp(hidden, use_bias=use_bias), batches(5, rows, seed=seed)
    small = compressed(model, {"first": ranked(WIDTH, hidden, rank), "second": ranked(hidden, WIDTH, rank)})
    was = {path: small.get_layer(path).get_weights() for path in ("first", "second")}
    results = refit(model, small, data, paths=["first", "second"], held_out=0.2)
    for path, result in results.items():
        assert result.taken == (result.after < result.before)
        now = small.get_layer(path).get_weights()
        assert result.taken or all(np.array_equal(a, b) for a, b in zip(was[path], now, strict=True))
    last = results["second"]
    assert missing_of(model, small, data[2]) == pytest.approx(min(last.before, last.after), rel=1e-3, abs=1e-6)


# -- padding, passes -------------------------------------------------------------------------------


def tokens(padding):
    draw = np.random.default_rng(0)
    ids = draw.integers(1, 9, (10, 6, 5)).astype("int32")
    mask = (np.arange(5) < draw.integers(1, 6, (10, 6, 1))).astype("int32")
    return [{"ids": np.where(m == 1, i, padding).astype("int32"), "mask": m} for i, m in zip(ids, mask, strict=True)]


def token_model():
    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="mask")
    keras.utils.set_random_seed(0)
    y = layers.Dense(WIDTH, name="dense")(layers.Embedding(9, WIDTH)(ids))
    return keras.Model({"ids": ids, "mask": mask}, layers.Dense(2, name="end")(y), name="tokens")


def test_padding_changes_nothing():
    model, found = token_model(), []
    for padding in (0, 7):
        small = compressed(model, {"dense": ranked(WIDTH, WIDTH, 2), "end": whole(WIDTH, 2)})
        small.get_layer("end").bias.assign([0.5, -0.5])
        results = refit(model, small, tokens(padding), paths=["dense", "end"])
        assert results["end"].taken
        found.append([*small.get_weights(), results["end"].before, results["end"].after])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


class Shuffled(list):
    """Batches in another order every time, the same orders for every object."""

    def __init__(self, *args):
        super().__init__(*args)
        self.draw = np.random.default_rng(0)

    def __iter__(self):
        return iter([self[k] for k in self.draw.permutation(len(self))])


@pytest.mark.parametrize(
    ("make", "data"),
    [(mlp, list), (residual, list), (residual, Shuffled), (lambda: residual(after=False, gated=True), list)],
)
def test_what_is_kept_between_passes_changes_nothing(make, data, monkeypatch):
    model, found = make(), []
    paths = [path for path, layer in stream_of(model, []).layers.items() if isinstance(layer, layers.Dense)]
    dims = {path: array(model, path, "kernel").shape for path in paths}
    for keeps in (True, False):
        small = compressed(model, {path: ranked(*dims[path], 2) for path in paths})
        if not keeps:
            monkeypatch.setattr(
                streams_module, "observed", lambda *args, kept=None, **kwargs: observed(*args, **kwargs)
            )
            monkeypatch.setattr(streams_module.Stream, "forget", lambda *args: None)
        refit(model, small, data(batches()), paths=paths)
        found.append(small.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
class Holds(layers.Layer):
    """Calls a layer that others call too."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return self.inner(x)


def test_calls_that_are_answered_count_with_those_within_them():
    inputs = keras.Input((WIDTH,))
    norm = layers.LayerNormalization(name="norm")
    first = Holds(norm, name="holds")(inputs)
    total = layers.Dense(WIDTH, name="y")(first) + first
    model, x = keras.Model(inputs, norm(total)), batches()[0]
    stream, kept = stream_of(model, ["norm"]), {}
    observed(model, stream.layers, x, {Event("input", "y")}, kept=kept)
    assert list(kept) == [("holds", 0)]
    event = Event("input", "norm", 1)
    again = observed(model, stream.layers, x, {event}, kept=kept)[event]
    anew = observed(model, stream.layers, x, {event})[event]
    np.testing.assert_array_equal(ops.convert_to_numpy(again), ops.convert_to_numpy(anew))


def test_both_models_are_left_as_they_were_but_for_the_weights():
    model, data = residual(), batches()
    small = compressed(model, {"a/up": ranked(WIDTH, 12, 3), "a/down": ranked(12, WIDTH, 3)})
    weights, before = model.get_weights(), {path: set(vars(x)) for path, x in stream_of(small, []).layers.items()}
    untouched = small.layers[1].get_weights()
    refit(model, small, data, paths=["a/up", "a/down"])
    for a, b in zip(model.get_weights() + small.layers[1].get_weights(), weights + untouched, strict=True):
        np.testing.assert_array_equal(a, b)
    assert {path: set(vars(layer)) for path, layer in stream_of(small, []).layers.items()} == before


# -- bad input -------------------------------------------------------------------------------------


BAD = {
    "moments": ({"first": Moments.of(np.ones((2, WIDTH)))}, {}, "needs batches of inputs; moments alone do not do"),
    "a generator": (iter(batches()), {}, "give a list of batches or a dataset"),
    "one batch": (batches(1), {}, "are 1 batch, too few to hold 10% out; give more and smaller ones, or a larger held"),
    "four batches": (batches(4), {}, "are 4 batches, too few to hold 10% out"),
    "all held out": (batches(3), {"held_out": 0.99}, "too few to hold 99% out; .* or another held_out"),
    "four rows at once": (batches()[0][:4], {}, "are 4 batches, too few to hold 10% out"),
    "all of one part padding": (
        [*batches(4), np.zeros((0, WIDTH), "float32")],
        {},
        "are 5 batches, .* nothing but padding in those held out",
    ),
    "no fraction": (batches(), {"held_out": 1.0}, "held_out is the fraction of batches .* got 1.0"),
    "not finite": ([*batches(), np.full((2, WIDTH), np.nan, "float32")], {}, "'first' sees or makes NaN or infinity"),
    "another width": ([*batches(4), np.ones((2, 3), "float32")], {}, "does not take calibration batch 4"),
    "no such layer": (batches(), {"paths": ["third"]}, "has no layer 'third' to refit"),
}


@pytest.mark.parametrize(("data", "settings", "words"), BAD.values(), ids=BAD)
def test_bad_input_in_one_sentence(data, settings, words):
    model = mlp()
    small = compressed(model, {"first": ranked(WIDTH, 8, 2)})
    before = small.get_weights()
    with pytest.raises(ValueError, match=words) as caught:
        refit(model, small, data, **{"paths": ["first"], **settings})
    assert "\n" not in str(caught.value)
    for a, b in zip(small.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rows", [5, 9, 20, 100, 2000])
def test_inputs_at_once_are_cut_so_that_some_can_be_held_out(rows):
    model = mlp()
    small = compressed(model, {"second": whole(8, WIDTH)})
    data = checked_data(np.float32(np.random.default_rng(0).normal(size=(rows, WIDTH))), 0.1)
    judging = [judges(number, 0.1) for number in range(len(data))]
    assert sum(map(len, data)) == rows
    assert max(map(len, data)) <= 32
    assert 0.05 <= sum(judging) / len(data) <= 0.2
    x = np.concatenate(data)
    found = [
        refit(model, model_, given, paths=["second"])["second"].before
        for model_, given in ((copy_model(small), x), (copy_model(small), data))
    ]
    assert found[0] == found[1]


# -- in replace_dense ------------------------------------------------------------------------------


WIDE = np.random.default_rng(1).normal(size=(200, WIDTH)).astype("float32")
WRONG = {
    "a number": (3, TypeError, "refit is True, .* or batches of what the model takes as input, got 3"),
    "a word": ("yes", TypeError, "refit is True, .* got 'yes'"),
    "nothing": ([], ValueError, "The refit data are empty"),
    "one batch": ([WIDE], ValueError, "refit= gives 1 batch, too few to hold 10% out; give more and smaller ones"),
    "three rows": (WIDE[:3], ValueError, "refit= gives 3 batches, too few"),
    "another width": (WIDE[:, :4], ValueError, r"does not take refit batch 0: it takes .* and got float32 \[20, 4\]"),
    "another width later": ([*np.split(WIDE, 10), WIDE[:9, :4]], ValueError, "does not take refit batch 10"),
    "texts": (["some", "text"] * 9, ValueError, "does not take refit batch 0: .* texts have to be tokenised first"),
    "moments": ({"first": Moments.of(WIDE)}, ValueError, "refit= gives moments, .* give batches of inputs"),
}


@pytest.mark.parametrize(("data", "error", "words"), WRONG.values(), ids=WRONG)
def test_bad_data_are_found_before_any_work(data, error, words, monkeypatch):
    monkeypatch.setattr(deciding, "moments_of", None)
    with pytest.raises(error, match=words) as caught:
        replace_dense(mlp(), 0.9, refit=data, calibration=WIDE)
    assert "\n" not in str(caught.value)
    assert "held_out" not in str(caught.value)


def test_one_batch_of_calibration_cannot_be_refitted_on(monkeypatch):
    monkeypatch.setattr(deciding, "moments_of", None)
    with pytest.raises(
        ValueError, match="refit=True goes over the calibration data, which are 1 batch, too few to hold"
    ):
        replace_dense(mlp(), 0.9, refit=True, calibration=[WIDE])


def test_batches_of_a_refit_may_come_in_any_way():
    cut = np.split(WIDE, 10)
    found = [
        replace_dense(mlp(), 0.6, refit=data, calibration=WIDE).get_weights()
        for data in (cut, iter(cut), tuple(cut), WIDE)
    ]
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(a, b)
    listed, iterated = (
        replace_dense(mlp(), 0.6, calibration=calibration, refit=data).get_weights()
        for calibration, data in ((cut, cut), (iter(cut), True))
    )
    for a, b in zip(listed, iterated, strict=True):
        np.testing.assert_array_equal(a, b)
    small = replace_dense(mlp(), 0.6, refit=True, calibration=WIDE[:20])  # so few that it may not be better
    assert report(small).replaced


# -- other backends --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="starts the others")
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_pass_this_file(backend):
    passes_on(backend, __file__)
