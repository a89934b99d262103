"""LayerNorm: Keras's function and gradients, with the inputs alone held in a graph of TensorFlow."""

import keras
import numpy as np
import pytest
from graphs import held, source

from bert_models.blocks.norm import LayerNorm

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere it is Keras's own")


RMS = {"rms_scaling": True}


def pair_of_norms(**options):
    norms = LayerNorm(**options), keras.layers.LayerNormalization(**options)
    draw = np.random.default_rng(0)
    weights = [draw.normal(size=7) for _ in range(2)]
    for norm in norms:
        norm.build((None, 5, 7))
        norm.set_weights(weights[: len(norm.weights)])
    return norms


def value_and_gradients(norm, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = norm(x, training=True) if isinstance(norm, LayerNorm) else norm(x)
        loss = tf.reduce_sum(tf.cast(y, "float32") * tf.cos(tf.cast(y, "float32")))
    return [y, *tape.gradient(loss, [x, *norm.trainable_variables])]


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "options", [{}, {"epsilon": 1e-12}, {"scale": False}, {"center": False}, {"axis": (1, 2)}, RMS]
)
def test_equals_keras(options, x_dtype):
    if options.get("axis"):
        ours, plain = LayerNorm(**options), keras.layers.LayerNormalization(**options)
    else:
        ours, plain = pair_of_norms(**options)
    x = tf.cast(np.random.default_rng(1).normal(2, 3, (4, 5, 7)), x_dtype)
    for a, b in zip(value_and_gradients(ours, x), value_and_gradients(plain, x), strict=True):
        np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours(x), plain(x))


def test_a_graph_holds_no_tensor_but_the_input():
    ours, _ = pair_of_norms()
    graph = tf.function(lambda x: value_and_gradients(ours, x)).get_concrete_function(tf.TensorSpec((4, 5, 7))).graph
    wide = {name for name, tensor in held(graph).items() if tensor.shape.rank == 3}
    assert wide == {source(graph.inputs[0]).name, source(graph.outputs[0]).name}  # the latter for the loss


def test_config_makes_the_same_layer():
    ours, plain = pair_of_norms(epsilon=0.5)
    again = keras.layers.deserialize(keras.layers.serialize(ours))
    assert type(again) is LayerNorm
    assert again.get_config() == {**plain.get_config(), "name": ours.name}
