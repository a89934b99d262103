"""Moments of gradients against what numpy computes where an objective of one number has a known gradient.

For one number v is a sign, which squares to 1: the second moment is exact, whatever was drawn.
"""

import keras
import numpy as np
import pytest
from backends import passes_on
from keras import layers, ops

from tncompress import Moments, calibrate, replace_dense, report
from tncompress.conversion import calibration_passes
from tncompress.conversion.gradients import _signs
from tncompress.conversion.watching import preactivated

IN, MIDDLE = 6, 5


def inputs(rows=40, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, IN)).astype("float32")


def two_layers(activation="tanh", out=1):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((IN,)), layers.Dense(MIDDLE, activation, name="first"), layers.Dense(out, name="second")],
        name="two",
    )


def arrays(model):
    return [np.asarray(ops.convert_to_numpy(weight), "float64") for weight in model.weights]


def check(moments, gradients):
    """Equal to numpy's second moment of the vectors `gradients [n, out_dim]`."""
    assert moments.count == len(gradients)
    second = gradients.T @ gradients / len(gradients)
    np.testing.assert_allclose(moments.second, second, rtol=0, atol=1e-5 * np.abs(second).max())


@pytest.mark.parametrize("batches", [1, 4])
def test_before_the_activation(batches):
    """d tanh(h) w / dh = (1 - tanh(h)^2) w; the last layer's own gradient is v."""
    model, x = two_layers(), inputs()
    kernel, bias, last, _ = arrays(model)
    found = calibrate(model, ["first", "second"], np.array_split(x, batches), objective="outputs")
    check(found["first"].gradients, (1 - np.tanh(x @ kernel + bias) ** 2) * last[:, 0])
    check(found["second"].gradients, np.ones((len(x), 1)))
    plain = calibrate(model, ["first", "second"], [x])
    assert plain["first"].gradients is None
    for name in plain:
        np.testing.assert_allclose(found[name].second, plain[name].second, rtol=0, atol=1e-5)


def test_of_a_function_of_outputs_and_batch():
    """The gradient of (w.y) m with m from the batch, through a linear model."""
    model, x = two_layers("linear", out=3), inputs()
    *_, last, _ = arrays(model)
    weights = np.array([1.0, -2.0, 0.5], "float32")

    def objective(outputs, batch):
        return ops.sum(ops.multiply(outputs, weights), axis=-1) * ops.cast(batch[:, 0] > 0, "float32")

    found = calibrate(model, ["first"], [x], objective=objective)["first"].gradients
    check(found, (x[:, :1] > 0) * (last @ weights))


def test_many_outputs_each_with_a_sign_of_its_own():
    """E[g g^T] = W W^T for the first of two linear layers; 2,000 draws are within five standard errors."""
    model, x = two_layers("linear", out=4), inputs(2000)
    *_, last, _ = arrays(model)
    found = calibrate(model, ["first", "second"], x, objective="outputs")
    expected = last @ last.T
    # The variance of g_i g_j is at most 2 E[g_i^2] E[g_j^2] for a sum of signs.
    error = np.sqrt(2 * np.outer(np.diag(expected), np.diag(expected)) / len(x))
    assert (np.abs(found["first"].gradients.second - expected) <= 5 * error).all()
    assert np.abs(found["second"].gradients.second - np.eye(4)).max() <= 5 * np.sqrt(1 / len(x))


@pytest.mark.parametrize(("out", "rows"), [(3, 4), (4, 4), (5, 8), (4, 12)])
def test_few_rows_of_few_outputs_are_exact(out, rows):
    """Over as many rows as a Hadamard matrix has, whatever its random signs are."""
    model = two_layers("linear", out=out)
    *_, last, _ = arrays(model)
    found = calibrate(model, ["first", "second"], [inputs(rows)], objective="outputs")
    for name, expected in (("first", last @ last.T), ("second", np.eye(out))):
        np.testing.assert_allclose(found[name].gradients.second, expected, atol=1e-5)


def test_every_tensor_has_signs_of_its_own():
    """Of two tensors of equal gradients twice the moment is left; of equal signs it would be four times."""
    model, x = two_layers("linear", out=4), inputs(2000)
    *_, last, _ = arrays(model)
    found = calibrate(model, ["first"], [x], objective=lambda outputs, batch: [outputs, outputs], gradient_rows=len(x))
    # Signs of one tensor times those of the other are drawn once for every four rows, for each output alone.
    error = 2 * np.sqrt(np.square(last) @ np.square(last).T / (len(x) / 4))
    assert (np.abs(found["first"].gradients.second - 2 * last @ last.T) <= 5 * error).all()


def test_signs_of_every_row_are_its_own():
    """However many numbers it has, and in whatever batch it comes; those of no rows are drawn for every batch."""
    for size in (64, 3000):
        signs = _signs((5, size), range(7, 12), 0)
        assert set(np.unique(signs)) == {-1.0, 1.0}
        assert len({row.tobytes() for row in signs}) == 5
        np.testing.assert_array_equal(_signs((1, size), [9], 0), signs[2:3])
    first, second = (_signs((64,), range(start, start + 5), 0) for start in (0, 5))
    assert 0 < np.sum(first != second) < 64


def test_a_shared_layer_counts_every_call():
    left, right = keras.Input((IN,), name="left"), keras.Input((IN,), name="right")
    shared, head = layers.Dense(MIDDLE, name="shared"), layers.Dense(1, name="head")
    model = keras.Model([left, right], head(shared(left)) * 3.0 + head(shared(right)))
    _, _, last, _ = arrays(model)
    found = calibrate(model, ["shared"], [[inputs(), inputs(seed=1)]], objective="outputs")
    rows = np.repeat([3.0, 1.0], 40)[:, None] * last[:, 0]
    check(found["shared"].gradients, rows)


def tokens():
    """Two outputs a token and one a row; every position of the first counts but for padding."""
    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="mask")
    keras.utils.set_random_seed(0)
    x = layers.Embedding(9, IN)(ids)
    x = layers.Dense(MIDDLE, name="dense")(x)
    outputs = {"tokens": layers.Dense(1, name="head")(x), "first": layers.Dense(2, name="pooler")(x[:, 0])}
    return keras.Model({"ids": ids, "mask": mask}, outputs, name="tokens")


def token_inputs(padding=0):
    ids = np.random.default_rng(0).integers(1, 9, (10, 7)).astype("int32")
    mask = (np.arange(7) < np.random.default_rng(1).integers(1, 8, (10, 1))).astype("int32")
    return {"ids": np.where(mask == 1, ids, padding).astype("int32"), "mask": mask}


@pytest.mark.parametrize("padding", [0, 5])
def test_an_output_by_name_without_padding(padding):
    model, batch = tokens(), token_inputs(padding)
    head = ops.convert_to_numpy(model.get_layer("head").kernel)[:, 0]
    found = calibrate(model, ["dense"], [batch], objective="tokens")["dense"]
    check(found.gradients, np.tile(head, (batch["mask"].sum(), 1)))
    assert found.count == found.gradients.count - batch["mask"][9].sum()  # the tenth row is held out


def test_outputs_at_padding_do_not_count():
    """Every output is that of the token before: the last token of a row moves padding only, so its gradient is 0."""
    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="mask")
    y = layers.Dense(1, name="dense")(layers.Embedding(9, IN)(ids))
    model = keras.Model({"ids": ids, "mask": mask}, ops.pad(y[:, :-1], [[0, 0], [1, 0], [0, 0]]))
    batch = token_inputs()
    found = calibrate(model, ["dense"], [batch], objective="outputs")["dense"].gradients
    lengths = batch["mask"].sum(axis=1)
    assert found.second.item() == pytest.approx((lengths - 1).sum() / lengths.sum())


def test_all_outputs_are_floating_point_ones_without_padding():
    """Changed padding changes nothing; positions that are not padding move all outputs."""
    model = tokens()
    first, second = (
        calibrate(model, ["dense", "pooler"], [token_inputs(padding)], objective="outputs") for padding in (0, 5)
    )
    for name in first:
        np.testing.assert_allclose(first[name].gradients.second, second[name].gradients.second, atol=1e-6)


def test_an_objective_over_masked_tokens():
    """The mean over a row's n tokens gives each of them w / n."""
    model, batch = tokens(), token_inputs()
    head = ops.convert_to_numpy(model.get_layer("head").kernel)[:, 0]

    def mean(outputs, x):
        counts = ops.cast(x["mask"], "float32")
        return ops.sum(outputs["tokens"][..., 0] * counts, axis=1) / ops.sum(counts, axis=1)

    found = calibrate(model, ["dense"], [batch], objective=mean)["dense"]
    lengths = np.repeat(batch["mask"].sum(axis=1), batch["mask"].sum(axis=1))
    check(found.gradients, head / lengths[:, None])


def test_frozen_layers_have_gradients_too():
    model = two_layers("linear")
    model.trainable = False
    *_, last, _ = arrays(model)
    found = calibrate(model, ["first"], inputs(), objective="outputs")
    check(found["first"].gradients, np.tile(last[:, 0], (40, 1)))


def test_half_precision():
    keras.utils.set_random_seed(0)
    policy = "mixed_bfloat16"
    model = keras.Sequential(
        [
            keras.Input((IN,)),
            layers.Dense(MIDDLE, dtype=policy, name="first"),
            layers.Dense(1, dtype=policy, name="second"),
        ]
    )
    *_, last, _ = arrays(model)
    found = calibrate(model, ["first"], inputs(), objective="outputs")["first"].gradients
    np.testing.assert_allclose(found.second, np.outer(last, last), atol=0.02 * np.abs(last).max() ** 2)


def test_the_model_stays_as_it_is():
    model = keras.Sequential(
        [keras.Input((IN,)), layers.Dense(MIDDLE, layers.LeakyReLU(), name="first"), layers.Dense(1, name="second")]
    )
    chosen = {name: model.get_layer(name) for name in ("first", "second")}
    before = {name: (dict(vars(layer)), layer.activation) for name, layer in chosen.items()}
    expected = ops.convert_to_numpy(model(inputs()))
    calibrate(model, list(chosen), inputs(), objective="outputs")
    with pytest.raises(ValueError, match=r"fails on calibration batch 0 \(RuntimeError: mine\)") as caught:
        calibrate(model, list(chosen), inputs(), objective=failing)
    assert isinstance(caught.value.__cause__, RuntimeError)
    for name, layer in chosen.items():
        assert vars(layer).keys() == before[name][0].keys()
        assert layer.activation is before[name][1]
    np.testing.assert_array_equal(ops.convert_to_numpy(model(inputs())), expected)


def failing(outputs, x):
    raise RuntimeError("mine")


def test_preactivated_changes_what_enters_the_activation():
    model, x = two_layers("relu"), inputs()
    with preactivated({"first": model.get_layer("first")}, lambda path, y: ops.zeros_like(y)):
        silent = ops.convert_to_numpy(model(x))
    np.testing.assert_array_equal(silent, np.zeros((40, 1)))
    assert np.abs(ops.convert_to_numpy(model(x))).max() > 0


def test_energy_is_that_about_the_mean():
    """Of all tensors, over rows that are no padding; with the gradients' count it is what a fit loses, relative."""
    model, batch = tokens(), token_inputs()
    outputs = {name: ops.convert_to_numpy(y).astype("float64") for name, y in model(batch).items()}
    wanted = {"tokens": outputs["tokens"][batch["mask"] == 1], "first": outputs["first"]}
    energies = {name: float(np.sum((y - y.mean(axis=0)) ** 2)) for name, y in wanted.items()}
    for name, energy in {**energies, "outputs": sum(energies.values())}.items():
        layer = "pooler" if name == "first" else "dense"
        assert calibrate(model, [layer], [batch], objective=name).energy == pytest.approx(energy, rel=1e-5)


def test_a_function_says_itself_what_counts():
    model, batch = tokens(), token_inputs(padding=5)
    every = ops.convert_to_numpy(model(batch)["tokens"]).astype("float64")
    found = calibrate(model, ["dense"], [batch], objective=lambda outputs, x: outputs["tokens"])
    assert found.energy == pytest.approx(float(np.sum((every - every.mean()) ** 2)), rel=1e-5)


def test_energy_predicts_the_change():
    """A linear model's outputs change by x D: count tr(D^T C D S) / energy is its share of their variance."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((IN,)), layers.Dense(MIDDLE, name="first"), layers.Dense(3, name="second")])
    x = inputs(4000)
    found = calibrate(model, ["first"], x, objective="outputs", gradient_rows=len(x))
    kernel, _, last, _ = arrays(model)
    error = 0.1 * np.random.default_rng(1).normal(size=kernel.shape)
    moments = found["first"]
    predicted = np.trace(error.T @ moments.covariance @ error @ moments.gradients.second)
    changed, outputs = x @ error @ last, x @ kernel @ last
    share = np.sum((changed - changed.mean(axis=0)) ** 2) / np.sum((outputs - outputs.mean(axis=0)) ** 2)
    assert moments.gradients.count * predicted / found.energy == pytest.approx(share, rel=0.05)  # signs are drawn


def test_energy_of_numbers_of_any_shape():
    model, x = two_layers(), inputs(30)
    y = ops.convert_to_numpy(model(x))[:, 0].astype("float64")
    energy = np.sum((y - y.mean()) ** 2)
    for objective in ("outputs", lambda outputs, x: outputs[:, 0]):
        parts = np.array_split(x, [7, 11])
        assert calibrate(model, ["first"], parts, objective=objective).energy == pytest.approx(energy, rel=1e-5)


def test_gradients_of_some_rows_spread_over_the_data():
    """The gradient of the first layer tells x[0] by the objective: of every third block of 300 // 8 rows."""
    model = two_layers("linear")
    x = np.sort(inputs(900), axis=0)  # as if sorted by length

    def objective(outputs, batch):
        return outputs[:, 0] * ops.cast(batch[:, 0], "float32")

    for parts in (1, 7, 300):
        found = calibrate(model, ["first"], np.array_split(x, parts), objective=objective, gradient_rows=300)
        *_, last, _ = arrays(model)
        check(found["first"].gradients, x[np.arange(900) // 37 % 3 == 0, :1] * last[:, 0])


def test_gradients_of_all_rows_where_their_number_is_not_known():
    model, x = two_layers(), inputs(50)
    found = calibrate(model, ["first"], iter([x, x]), objective="outputs", gradient_rows=10)
    assert found["first"].gradients.count == 100


@pytest.mark.parametrize("rows", [1023, 1535])
@pytest.mark.parametrize("size", [16, 1000])
def test_the_same_rows_give_gradients_in_any_batches(rows, size):
    model, x = two_layers(out=3), inputs(rows)
    one, many, arrays = (
        calibrate(model, ["first"], data, objective="outputs", gradient_rows=200)
        for data in ([x], [x[k : k + size] for k in range(0, rows, size)], x)
    )
    for found in (many, arrays):
        assert found["first"].gradients.count == one["first"].gradients.count < 300
        second = one["first"].gradients.second
        np.testing.assert_allclose(found["first"].gradients.second, second, atol=1e-6 * np.abs(second).max())
        assert found.energy == pytest.approx(one.energy, rel=1e-6)


def test_slices_are_small_enough(monkeypatch):
    """However few rows fit a pass, the gradients are the same."""
    model, batch = tokens(), token_inputs()
    usual = calibrate(model, ["dense"], [batch], objective="tokens")
    monkeypatch.setattr(calibration_passes, "SLICE_BYTES", 1.0)
    sizes = []

    def objective(outputs, x):
        sizes.append(len(x["ids"]))
        return outputs["tokens"]

    calibrate(model, ["dense"], [batch], objective=objective)
    assert set(sizes) == {1}
    found = calibrate(model, ["dense"], [batch], objective="tokens")
    np.testing.assert_allclose(found["dense"].gradients.second, usual["dense"].gradients.second, rtol=1e-6)
    assert found.energy == pytest.approx(usual.energy, rel=1e-6)


# -- use -------------------------------------------------------------------------------------------


def test_two_sided_keeps_the_objective_better():
    """Outputs of the first layer differ in what they do: 1, 0.9, ... down to nothing."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((24,)), layers.Dense(24, name="first"), layers.Dense(8, name="second")])
    scaled = np.geomspace(1, 1e-3, 24)[:, None] * ops.convert_to_numpy(model.get_layer("second").kernel)
    model.get_layer("second").kernel.assign(scaled)
    draw = np.random.default_rng(0)
    x, held_out = draw.normal(size=(2, 500, 24)).astype("float32")
    expected = ops.convert_to_numpy(model(held_out))
    models = {
        "weights": replace_dense(model, include="first"),
        "one-sided": replace_dense(model, include="first", calibration=x),
        "two-sided": replace_dense(model, include="first", calibration=x, objective="outputs"),
    }
    errors = {name: np.linalg.norm(ops.convert_to_numpy(m(held_out)) - expected) for name, m in models.items()}
    assert errors["two-sided"] < 0.5 * errors["one-sided"]
    rows = {name: report(small).replaced[0] for name, small in models.items()}
    assert [row.method for row in rows.values()] == [
        "closed form",
        "closed form, calibrated and centred",
        "closed form, calibrated and centred, two-sided",
    ]
    assert rows["weights"].output_error is rows["weights"].loss_error is rows["one-sided"].loss_error is None
    # To first order, and here there is no other; 500 samples and signs estimate it.
    relative = errors["two-sided"] / np.linalg.norm(expected - expected.mean(axis=0))
    assert rows["two-sided"].loss_error == pytest.approx(relative, rel=0.2)
    assert "two-sided: 1" in str(report(models["two-sided"]))


def test_gathered_moments_bring_the_objective_along():
    model, x = two_layers(out=4), inputs()
    moments = calibrate(model, ["first", "second"], x, objective="outputs")
    first = replace_dense(model, 0.7, calibration=moments)
    second = replace_dense(model, 0.7, calibration=x, objective="outputs")
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# -- bad input -------------------------------------------------------------------------------------


def pooled(outputs, x):
    return outputs["first"]


BAD = {
    "a layer that it does not see": (
        tokens,
        token_inputs,
        ["dense", "head"],
        pooled,
        "does not depend on the layer 'head'",
    ),
    "no such output": (tokens, token_inputs, ["dense"], "pooled", r"'pooled' is no output .*\['first', 'tokens'\]"),
    "a name, but no dict": (
        two_layers,
        inputs,
        ["first"],
        "logits",
        "'logits' is no output of the model; 'outputs' takes",
    ),
    "nothing": (two_layers, inputs, ["first"], lambda outputs, x: None, "gives no floating-point tensor"),
    "integers": (
        two_layers,
        inputs,
        ["first"],
        lambda y, x: ops.cast(y > 0, "int32"),
        "gives no floating-point tensor",
    ),
    "an index that outputs lack": (
        two_layers,
        inputs,
        ["first"],
        lambda outputs, x: outputs["zzz"],
        r"objective is called with outputs and batch, and fails on calibration batch 0 \(\w*Error: ",
    ),
    "a key that batches lack": (
        tokens,
        token_inputs,
        ["dense"],
        lambda outputs, x: x["zzz"],
        r"fails on calibration batch 0 \(KeyError: 'zzz'\)",
    ),
    "one argument": (
        two_layers,
        inputs,
        ["first"],
        lambda outputs: outputs,
        r"fails on calibration batch 0 \(TypeError: .* takes 1 positional argument but 2 were given\)",
    ),
    "infinite": (
        two_layers,
        inputs,
        ["first"],
        lambda y, x: y / 0.0,
        "The objective is NaN or infinity in calibration batch 0; make it finite there",
    ),
    "not a number, of finite gradients": (
        two_layers,
        inputs,
        ["first"],
        lambda y, x: ops.log(ops.minimum(y, -1e-3)),
        "The objective is NaN or infinity in calibration batch 0",
    ),
    "an infinite gradient": (
        two_layers,
        inputs,
        ["first"],
        lambda y, x: ops.sqrt(y - ops.stop_gradient(y)),
        "at the layer 'first' is NaN or infinity in batch 0",
    ),
    "the same for all": (
        two_layers,
        lambda: inputs(40) * 0,
        ["first"],
        "outputs",
        "the same for all calibration inputs",
    ),
}


@pytest.mark.parametrize(("make", "batch", "paths", "objective", "words"), BAD.values(), ids=BAD)
def test_bad_objectives_in_one_sentence(make, batch, paths, objective, words):
    with pytest.raises(ValueError, match=words) as caught:
        calibrate(make(), paths, [batch()], objective=objective)
    assert "\n" not in str(caught.value)


def test_an_objective_that_fails_on_what_was_held_out():
    """It is measured there after the fit, on other rows than those that gave gradients."""
    model, x = two_layers(out=4), inputs(200)
    x[99, 0] = 100

    def objective(outputs, batch):
        if float(ops.max(batch[:, 0])) > 50 and len(batch) < 100:
            raise RuntimeError("mine")
        return outputs

    with pytest.warns(
        UserWarning, match=r"not measured: .* on rows of the data that were held out \(RuntimeError: mine"
    ):
        small = replace_dense(model, 0.7, calibration=[x], objective=objective)
    assert report(small).replaced
    assert report(small).measured_loss is None


def test_what_is_wrong_is_said_before_the_data_are_asked_for():
    model, never = two_layers(), NeverAsked()
    with pytest.raises(TypeError, match=r"objective is the name of an output, .* got 3"):
        calibrate(model, ["first"], never, objective=3)
    with pytest.raises(TypeError, match=r"objective is the name of an output, .* got <"):
        calibrate(model, ["first"], never, objective=keras.losses.MeanSquaredError())
    with pytest.raises(ValueError, match="An objective needs inputs on which to look at it; give calibration="):
        replace_dense(model, objective="outputs")
    moments = {name: Moments.of(np.ones((2, 2))) for name in ("first", "second")}
    with pytest.raises(ValueError, match="moments are gathered already; give the objective to"):
        replace_dense(model, calibration=moments, objective="outputs")
    norm = keras.Sequential([keras.Input((IN,)), layers.LayerNormalization(name="norm")])
    with pytest.raises(ValueError, match="gathered at Dense layers, but 'norm' is LayerNormalization"):
        calibrate(norm, ["norm"], never, objective="outputs")


class NeverAsked:
    def __iter__(self):
        raise AssertionError("the calibration data were asked for")


def test_moments_with_gradients_of_another_layer():
    model, x = two_layers(out=4), inputs()
    moments = calibrate(model, ["first", "second"], x, objective="outputs")
    wrong = Moments(
        moments["first"].count, moments["first"].mean, moments["first"].scatter, moments["second"].gradients
    )
    with pytest.raises(ValueError, match="'first' have gradients of 4 features, but the layer makes 5"):
        replace_dense(model, 0.7, calibration={**moments, "first": wrong})


# -- other backends --------------------------------------------------------------------------------


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="starts the others")
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize(
    "some", ["before or function or shared", pytest.param("test", marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_other_backends_pass_this_file(backend, some):
    passes_on(backend, __file__, "-k", some)
