"""Two networks in training: the function and gradients of the layers one by one, and one wide tensor held, not two."""

import keras
import numpy as np
import pytest
from graphs import forward_and_backward, held
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import specs

from tncompress import Spec
from tncompress.forms import expand_condense, low_rank
from tncompress.layers import feed_forward as feed_forward_module
from tncompress.layers import pair
from tncompress.layers.dense import TNDense
from tncompress.layers.feed_forward import TNFeedForward
from tncompress.layers.pivoted import TNPivoted
from tncompress.layers.recompute import contract_activated
from tncompress.network.plan import candidates, contract

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends hold what they hold")


def block(activation="gelu", dtype="float32", **kwargs):
    keras.utils.set_random_seed(0)
    expand = expand_condense.expand(16, 64, 2, 4)
    made = TNFeedForward(expand, expand_condense.condense(64, 16, 2, 4), activation, dtype=dtype, **kwargs)
    made.build((None, None, 16))
    made.expand.bias.assign(np.random.default_rng(1).normal(size=64))
    return made


def value_and_gradients(layer, x):
    """Of the sum of squares of what it gives in training: by the inputs and all weights."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, "float32") ** 2)
    return [y, *tape.gradient(loss, [x, *layer.trainable_variables])]


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2), ("float64", 1e-12)])
def test_layer_after_layer_gives_the_same(monkeypatch, dtype, tolerance, in_graph):
    layer = block(dtype=dtype)
    x = tf.cast(np.random.default_rng(0).normal(size=(3, 5, 16)), layer.compute_dtype)
    calls = []
    monkeypatch.setattr(feed_forward_module, "trained", lambda *args: calls.append(1) or pair.trained(*args))
    run = tf.function(lambda: value_and_gradients(layer, x)) if in_graph else lambda: value_and_gradients(layer, x)
    found = run()
    assert calls
    monkeypatch.setattr(feed_forward_module, "holds_less", lambda *layers: False)
    for a, b in zip(found, value_and_gradients(layer, x), strict=True):
        a, b = np.float64(a), np.float64(b)
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@settings(max_examples=40, deadline=None)
@given(specs(), st.integers(1, 4), st.data())
def test_any_network_in_any_order(spec, batch, data):
    """Whatever the steps do with x before it meets a core."""
    name = data.draw(st.sampled_from(sorted(candidates(spec, batch))))
    planned = candidates(spec, batch)[name]
    draw = np.random.default_rng(0)
    x = tf.constant(draw.normal(size=(batch, *spec.shape(spec.inputs))))
    cores = [tf.constant(draw.normal(size=shape)) for shape in spec.core_shapes]
    gelu = keras.activations.gelu

    def derived(function):
        with tf.GradientTape() as tape:
            tape.watch([x, *cores])
            y = function()
            loss = tf.reduce_sum(y**2)
        return [y, *tape.gradient(loss, [x, *cores])]

    found = derived(lambda: contract_activated(planned, gelu, x, cores))
    for a, b in zip(found, derived(lambda: contract(planned, gelu(x), cores, keras.ops)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


def test_against_differences():
    spec = low_rank.spec(8, 6, rank=3)
    planned = candidates(spec, 4)["fewest FLOPs"]
    draw = np.random.default_rng(0)
    x = draw.normal(size=(4, *spec.shape(spec.inputs)))
    cores = [tf.constant(draw.normal(size=shape)) for shape in spec.core_shapes]
    way = draw.normal(size=x.shape)

    def loss(at):
        return tf.reduce_sum(contract_activated(planned, keras.activations.gelu, at, cores) ** 2)

    at = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = loss(at)
    slope = float((loss(tf.constant(x + 1e-6 * way)) - loss(tf.constant(x - 1e-6 * way))) / 2e-6)
    assert float(tf.reduce_sum(tape.gradient(value, at) * way)) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("activation", ["gelu", "mish", "relu"])
def test_a_graph_holds_one_wide_tensor_and_no_second_product(activation):
    layer = block(activation)
    graph = tf.function(lambda x: value_and_gradients(layer, x)).get_concrete_function(tf.TensorSpec((6, 16))).graph
    assert sum(tensor.shape.num_elements() == 6 * 64 for tensor in held(graph).values()) == 1
    # Of four matmuls one gradient by each operand.
    assert [sum(op.type == "MatMul" for op in ops) for ops in forward_and_backward(graph)] == [4, 8]


class Doubled(TNDense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


def watched():
    """With a call of its own, as this library watches layers."""
    layer = TNDense(low_rank.spec(12, 8, rank=2))
    layer.call = lambda *args, **kwargs: TNDense.call(layer, *args, **kwargs)
    return layer


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Doubled(low_rank.spec(8, 12, rank=2), "gelu"), TNDense(low_rank.spec(12, 8, rank=2))),
        (TNDense(low_rank.spec(8, 12, rank=2), "gelu"), watched()),
        (TNDense(low_rank.spec(8, 12, rank=2), "gelu", dtype="bfloat16"), TNDense(low_rank.spec(12, 8, rank=2))),
        (keras.layers.Dense(12, "gelu"), TNDense(low_rank.spec(12, 8, rank=2))),
        (TNDense(low_rank.spec(8, 12, rank=2), "gelu"), TNPivoted(low_rank.spec(12, 8, rank=2))),
        (TNDense(low_rank.spec(8, 12, rank=2), "relu"), TNDense(low_rank.spec(12, 8, rank=2))),
        (TNDense(low_rank.spec(8, 12, rank=2)), TNDense(low_rank.spec(12, 8, rank=2))),
        (TNDense(low_rank.spec(8, 12, rank=2), "gelu", activity_regularizer="l2"), TNDense(low_rank.spec(12, 8, 2))),
        (TNDense(low_rank.spec(8, 12, rank=2), "gelu"), TNDense(low_rank.spec(12, 8, rank=2), "tanh")),
        (TNDense(low_rank.spec(8, 12, rank=2), "softmax"), TNDense(low_rank.spec(12, 8, rank=2))),
    ],
    ids=[
        "of another class",
        "watched",
        "of another dtype",
        "dense",
        "pivoted",
        "relu",
        "linear",
        "regularised",
        "activated",
        "softmax",
    ],
)
def test_not_where_it_would_be_another_function_or_save_nothing(first, second):
    assert not pair.holds_less(first, second)


def test_dropout_between_the_networks_stays():
    keras.utils.set_random_seed(0)
    layer = block(dropout=0.5)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 16)), "float32")
    assert np.abs(np.subtract(layer(x, training=True), layer(x, training=True))).max() > 0
    assert Spec.from_config(layer.get_config()["expand"]) == layer.expand.spec
