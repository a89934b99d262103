"""`TNDense` and `TNFeedForward` against numpy. Runs on every backend: see the last test."""

import os

import keras
import numpy as np
import pytest
from backends import passes_on
from keras import ops

from bert_models import BertConfig, ExpandCondense
from bert_models.blocks.feed_forward import FeedForward
from tncompress import FORMS, Spec, TNDense
from tncompress.forms import expand_condense, low_rank
from tncompress.layers import fast_paths
from tncompress.layers.dense import core_stddev
from tncompress.layers.feed_forward import TNFeedForward
from tncompress.layers.pivoted import TNPivoted

IN, OUT = 16, 24
BACKEND = keras.backend.backend()
ON_TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="needs the TensorFlow backend")

# One spec of every form, and networks that belong to none.
SPECS = {name: next(iter(form.candidates(IN, OUT, 300))) for name, form in sorted(FORMS.items())}
SPECS["condense"] = expand_condense.condense(IN, OUT, blocks=2, bond=4)
SPECS["dense"] = Spec.parse("i, i o -> o", i=IN, o=OUT)
SPECS["scale"] = Spec.parse("i, i -> i", i=IN)  # no sum at all
if SOME := os.environ.get("TNCOMPRESS_TEST_SPECS"):
    SPECS = {name: spec for name, spec in SPECS.items() if name in SOME.split()}
A_SPEC = low_rank.spec(IN, OUT, 3)

every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def by_einsum(spec, x, cores, stacked=None):
    """y [..., out_dim] for x [..., in_dim], in one einsum; of a stack of one core, a stack of y."""
    number = {mode: k + 1 for k, (mode, _) in enumerate(spec.sizes)}
    operands = [x.reshape(-1, *spec.shape(spec.inputs)), [0, *(number[m] for m in spec.inputs)]]
    stack = len(number) + 1
    for k, (core, modes) in enumerate(zip(cores, spec.cores, strict=True)):
        operands += [core, [*([stack] if k == stacked else []), *(number[m] for m in modes)]]
    kept = [0] if stacked is None else [stack, 0]
    y = np.einsum(*operands, [*kept, *(number[m] for m in spec.outputs)], optimize=True)
    return y.reshape(*([] if stacked is None else [-1]), *x.shape[:-1], spec.out_dim)


def numpy_cores(layer):
    return [ops.convert_to_numpy(core).astype("float64") for core in layer.cores]


def rounding(spec, x, cores, eps):
    """How far a result may be off: a rounding for each sum and product, of the sum of absolute values."""
    roundings = len(spec.cores) + 1 + np.log2(spec.in_dim)
    return eps * roundings * by_einsum(spec, np.abs(x), [np.abs(core) for core in cores]).max()


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype("float32")


def built(spec, **kwargs):
    """A layer with a random bias."""
    layer = TNDense(spec, **kwargs)
    layer.build((None, spec.in_dim))
    if layer.bias is not None:
        layer.bias.assign(draw(spec.out_dim, seed=5))
    return layer


# -- values --------------------------------------------------------------------


@every_spec
@pytest.mark.parametrize("lead", [(5,), (2, 3), (2, 3, 2)], ids=str)
def test_equals_numpy(spec, lead):
    layer = built(spec)
    x = draw(*lead, spec.in_dim)
    y = layer(x)
    bias = ops.convert_to_numpy(layer.bias)
    assert tuple(y.shape) == layer.compute_output_shape(x.shape) == (*lead, spec.out_dim)
    tolerance = rounding(spec, x, numpy_cores(layer), 2**-23) + 1e-6
    expected = by_einsum(spec, x.astype("float64"), numpy_cores(layer)) + bias
    np.testing.assert_allclose(ops.convert_to_numpy(y), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(x @ layer.to_dense() + bias, expected, rtol=0, atol=tolerance)


@every_spec
def test_unknown_length_in_a_functional_model(spec):
    entry = keras.Input((None, spec.in_dim))
    layer = TNDense(spec, "tanh")
    model = keras.Model(entry, layer(entry))
    assert model.output_shape == (None, None, spec.out_dim)
    for length in (1, 4):
        x = draw(3, length, spec.in_dim)
        expected = np.tanh(by_einsum(spec, x.astype("float64"), numpy_cores(layer)))
        tolerance = rounding(spec, x, numpy_cores(layer), 2**-23) + 1e-6
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=0, atol=tolerance)


@ON_TENSORFLOW
@every_spec
def test_unknown_batch_and_length_in_a_function(spec):
    import tensorflow as tf

    layer = built(spec)
    function = tf.function(layer, input_signature=[tf.TensorSpec([None, None, spec.in_dim])])
    for x in (draw(2, 3, spec.in_dim), draw(1, 7, spec.in_dim), draw(0, 2, spec.in_dim)):
        tolerance = rounding(spec, x, numpy_cores(layer), 2**-23) + 1e-6 if x.size else 0
        np.testing.assert_allclose(function(x), layer(x), rtol=0, atol=tolerance)
    assert function.experimental_get_tracing_count() == 1


@every_spec
def test_gradients_are_those_through_the_dense_kernel(spec):
    """One step of SGD with rate 1 on sum(y G) shows the gradient on any backend."""
    layer = TNDense(spec)
    model = keras.Sequential([keras.Input((spec.in_dim,)), layer])
    x, g = draw(4, spec.in_dim), draw(4, spec.out_dim, seed=1)
    before = numpy_cores(layer)
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, p: ops.sum(y * p))
    # Not train_on_batch: in Keras 3.15 on TensorFlow 2.21 its gradients of one weight may see the update of another.
    model.fit(x, g, batch_size=4, verbose=0)
    kernel_gradient = x.astype("float64").T @ g  # [in_dim, out_dim]
    sizes = [np.abs(core) for core in before]
    roundings = len(before) + 2 + np.log2(4 * spec.in_dim * spec.out_dim)
    for k, after in enumerate(numpy_cores(layer)):
        slopes = kernel_slopes(spec, before, k)
        got, expected = (before[k] - after).ravel(), slopes @ kernel_gradient.ravel()
        largest = (kernel_slopes(spec, sizes, k) @ (np.abs(x).T @ np.abs(g)).ravel()).max() + sizes[k].max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=2**-23 * roundings * largest)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.bias), -g.sum(axis=0), atol=1e-5)


def kernel_slopes(spec, cores, k):
    """dW / d core k, [entries of the core, entries of W]: W is linear in a core, so they are kernels of unit cores."""
    units = np.eye(cores[k].size).reshape(-1, *cores[k].shape)
    kernels = by_einsum(spec, np.eye(spec.in_dim), [*cores[:k], units, *cores[k + 1 :]], stacked=k)
    return kernels.reshape(len(units), -1)


@every_spec
def test_a_new_layer_has_the_output_variance_of_dense(spec):
    """Averaged over layers: Glorot's 2 / (in + out) for every one of in_dim inputs of variance 1."""
    keras.utils.set_random_seed(2)
    x = draw(200, spec.in_dim)
    variances = [np.mean(by_einsum(spec, x, numpy_cores(built(spec, use_bias=False))) ** 2) for _ in range(80)]
    expected = 2 * spec.in_dim / (spec.in_dim + spec.out_dim)
    standard_error = np.std(variances) / np.sqrt(len(variances))
    assert standard_error < 0.12 * expected
    assert abs(np.mean(variances) - expected) < 4 * standard_error + 0.05 * expected


def test_dense_spec_starts_with_the_deviation_of_glorot():
    assert core_stddev(Spec.parse("i, i o -> o", i=IN, o=OUT)) == pytest.approx(np.sqrt(2 / (IN + OUT)))


@every_spec
def test_parameters_are_counted(spec):
    assert built(spec).count_params() == spec.num_params + spec.out_dim
    assert built(spec, use_bias=False).count_params() == sum(np.prod(shape) for shape in spec.core_shapes)


# -- what Keras layers do --------------------------------------------------------------


FULL = {
    "activation": "relu",
    "core_initializer": keras.initializers.RandomUniform(seed=3),
    "bias_initializer": "ones",
    "core_regularizer": keras.regularizers.L2(0.01),
    "bias_regularizer": "l1",
    "activity_regularizer": keras.regularizers.L1(0.02),
    "core_constraint": keras.constraints.MaxNorm(2.0),
    "bias_constraint": "non_neg",
    "name": "full",
    "dtype": "mixed_bfloat16",
    "trainable": False,
}


@pytest.mark.parametrize("options", [{}, {"use_bias": False}, FULL], ids=["defaults", "no_bias", "all"])
def test_config_makes_the_same_layer(options):
    layer = TNDense(A_SPEC, **options)
    again = TNDense.from_config(layer.get_config())
    assert again.spec == layer.spec
    assert again.get_config() == layer.get_config()
    for name in options:
        value = getattr(again, name)
        assert value is not None
        if isinstance(options[name], keras.regularizers.Regularizer):
            assert value.get_config() == options[name].get_config()


def test_spec_may_be_given_as_config():
    spec = A_SPEC
    assert TNDense(spec.to_config()).spec == spec


@every_spec
def test_keras_file_gives_the_same_outputs(spec, tmp_path):
    model = keras.Sequential([keras.Input((spec.in_dim,)), built(spec, activation="gelu")])
    model.save(tmp_path / "layer.keras")
    again = keras.saving.load_model(tmp_path / "layer.keras", safe_mode=True)
    x = draw(5, spec.in_dim)
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))


@every_spec
@pytest.mark.parametrize(("policy", "eps"), [("mixed_bfloat16", 2**-8), ("mixed_float16", 2**-11)])
def test_mixed_precision(spec, policy, eps):
    layer = built(spec, dtype=policy)
    x = draw(6, spec.in_dim)
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype == policy.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(v.dtype) for v in layer.variables} == {"float32"}
    y = ops.convert_to_numpy(ops.cast(y, "float32"))
    expected = by_einsum(spec, x.astype("float64"), numpy_cores(layer)) + ops.convert_to_numpy(layer.bias)
    np.testing.assert_allclose(y, expected, rtol=0, atol=rounding(spec, x, numpy_cores(layer), eps) + 4 * eps)
    assert np.abs(y - expected).max() > 0  # computed in half precision indeed


def test_regularizers_add_their_numbers():
    spec = A_SPEC
    layer = built(spec, core_regularizer=keras.regularizers.L2(0.5), bias_regularizer=keras.regularizers.L1(0.25))
    expected = 0.5 * sum(np.sum(core**2) for core in numpy_cores(layer))
    expected += 0.25 * np.abs(ops.convert_to_numpy(layer.bias)).sum()
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-5)


def test_activity_regularizer_sees_the_outputs():
    layer = built(A_SPEC, activity_regularizer=keras.regularizers.L1(0.5))
    y = ops.convert_to_numpy(layer(draw(5, IN)))
    assert float(sum(layer.losses)) == pytest.approx(0.5 * np.abs(y).sum() / 5, rel=1e-5)  # Keras: a mean over rows


def test_constraints_hold_after_a_step():
    layer = TNDense(A_SPEC, core_constraint=keras.constraints.MaxNorm(0.1, axis=0), bias_constraint="non_neg")
    model = keras.Sequential([keras.Input((IN,)), layer])
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    model.fit(draw(8, IN), draw(8, OUT, seed=1), verbose=0)
    for core in numpy_cores(layer):
        assert np.linalg.norm(core, axis=0).max() <= 0.1 * (1 + 1e-5)
    assert ops.convert_to_numpy(layer.bias).min() >= 0


def test_frozen_layer_stays():
    layer = built(A_SPEC, trainable=False)
    model = keras.Sequential([keras.Input((IN,)), layer, keras.layers.Dense(2)])
    before = numpy_cores(layer)
    model.compile("sgd", loss="mse")
    model.fit(draw(8, IN), draw(8, 2, seed=1), verbose=0)
    for core, after in zip(before, numpy_cores(layer), strict=True):
        np.testing.assert_array_equal(core, after)


def test_mask_passes_through():
    tokens = keras.Input((None,), dtype="int32")
    x = TNDense(A_SPEC)(keras.layers.Embedding(9, IN, mask_zero=True)(tokens))
    pooled = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(tokens, [x, pooled])
    states, mean = model.predict(np.array([[3, 4, 0, 0], [5, 6, 7, 8]]), verbose=0)
    np.testing.assert_allclose(mean[0], states[0, :2].mean(axis=0), atol=1e-6)


def test_may_be_called_as_dense_is():
    layer = built(A_SPEC)
    x = draw(2, IN)
    expected = ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(inputs=x)), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x, training=True)), expected)


def test_wrong_last_axis_is_named():
    with pytest.raises(ValueError, match=r"lay: the spec 'i, i r, r o -> o .* maps 16 features, but the input has 7"):
        TNDense(low_rank.spec(IN, OUT, 2), name="lay").build((None, 7))
    layer = built(A_SPEC)
    with pytest.raises(ValueError, match="16"):
        layer(draw(2, 7))


# -- the feed-forward block -------------------------------------------------------------


def block(**kwargs):
    kwargs = {"activation": "tanh", **kwargs}
    expand, condense = expand_condense.expand(IN, 64, 4, 3), expand_condense.condense(64, IN, 4, 3)
    layer = TNFeedForward(expand, condense, **kwargs)
    layer.build((None, None, IN))
    for k, variable in enumerate(layer.trainable_variables):
        if variable.path.endswith("bias"):
            variable.assign(draw(*variable.shape, seed=k))
    return layer


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, False)], ids=str)
@pytest.mark.parametrize("lead", [(5,), (2, 3), (2, 3, 2)], ids=str)
def test_feed_forward_equals_numpy(biases, lead):
    use_bias, use_output_bias = biases
    layer = block(use_bias=use_bias, use_output_bias=use_output_bias)
    x = draw(*lead, IN)
    hidden = by_einsum(layer.expand.spec, x.astype("float64"), numpy_cores(layer.expand))
    hidden = np.tanh(hidden + (ops.convert_to_numpy(layer.expand.bias) if use_bias else 0))
    expected = by_einsum(layer.condense.spec, hidden, numpy_cores(layer.condense))
    expected = expected + (ops.convert_to_numpy(layer.condense.bias) if use_output_bias else 0)
    tolerance = rounding(layer.condense.spec, np.ones((1, 64)), numpy_cores(layer.condense), 2**-23) * 8
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, rtol=0, atol=tolerance + 1e-6)
    counted = 12 * IN + 3 * 16 + 64 * use_bias + 3 * 16 + 12 * IN + IN * use_output_bias
    assert layer.count_params() == counted
    assert layer.compute_output_shape(x.shape) == x.shape


def test_feed_forward_config_and_file(tmp_path):
    layer = block(use_output_bias=False, dropout=0.25, name="ffn", dtype="mixed_bfloat16")
    again = TNFeedForward.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.expand.compute_dtype == again.condense.compute_dtype == "bfloat16"
    entry = keras.Input((None, IN))
    model = keras.Model(entry, block(dropout=0.25)(entry))
    model.save(tmp_path / "block.keras")
    loaded = keras.saving.load_model(tmp_path / "block.keras")
    x = draw(2, 3, IN)
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_feed_forward_drops_in_training_only():
    layer = block(dropout=0.9)
    x = draw(2, 3, IN)
    rest, again, training = (ops.convert_to_numpy(layer(x, training=t)) for t in (False, None, True))
    np.testing.assert_array_equal(rest, again)
    assert np.abs(training - rest).max() > 1e-3


def test_feed_forward_trains_all_its_weights():
    layer = block(dropout=0.1)
    model = keras.Sequential([keras.Input((IN,)), layer])
    before = [ops.convert_to_numpy(v) for v in layer.trainable_variables]
    model.compile("sgd", loss="mse")
    model.fit(draw(8, IN), draw(8, IN, seed=1), verbose=0)
    assert len(before) == 6
    for old, new in zip(before, layer.trainable_variables, strict=True):
        assert np.abs(old - ops.convert_to_numpy(new)).max() > 0


def test_feed_forward_parts_must_fit():
    expand, condense = expand_condense.expand(IN, 64, 4, 3), expand_condense.condense(32, IN, 4, 3)
    with pytest.raises(ValueError, match="expand gives 64 features, but condense takes 32"):
        TNFeedForward(expand, condense)


@pytest.mark.parametrize("block", ["TNDense", "several axes", "TNFeedForward", "pivoted", "bert_models"])
def test_the_same_where_leading_axes_are_kept(block, monkeypatch):
    """As on a TPU: outputs, and shapes that are not known."""
    entry = keras.Input((None, 48))
    y = {
        "TNDense": lambda: TNDense(expand_condense.expand(48, 96, 3, 4), "gelu"),
        "several axes": lambda: TNDense(low_rank.spec(48, 24, 5), "softmax", out_shape=(4, 6)),
        "TNFeedForward": lambda: TNFeedForward(
            expand_condense.expand(48, 96, 3, 4), expand_condense.condense(96, 48, 3, 4)
        ),
        "pivoted": lambda: TNPivoted(low_rank.spec(48, 24, 5), "relu"),
        "bert_models": lambda: FeedForward(
            BertConfig(hidden_size=48, num_heads=2, feed_forward=ExpandCondense(block_size=12))
        ),
    }[block]()(entry)
    model = keras.Model(entry, y)
    x = np.random.default_rng(0).normal(size=(2, 5, 48)).astype("float32")
    expected = ops.convert_to_numpy(model(x))
    monkeypatch.setattr(fast_paths, "_accelerator", lambda: "tpu")
    seen = []
    unflattened = fast_paths.contract_unflattened
    monkeypatch.setattr(fast_paths, "contract_unflattened", lambda *a: seen.append(a[1].ndim) or unflattened(*a))
    found = model(x)
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-5)
    assert block == "pivoted" or (seen and min(seen) >= 3)


# -- other backends --------------------------------------------------------------


@ON_TENSORFLOW
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize(
    "specs", ["low_rank butterfly", pytest.param("", marks=pytest.mark.slow)], ids=["two_specs", "all_specs"]
)
def test_other_backends_pass_this_file(backend, specs):
    passes_on(backend, __file__, TNCOMPRESS_TEST_SPECS=specs)
