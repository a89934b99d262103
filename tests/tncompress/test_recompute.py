"""Recomputed activations: the same values, gradients and gradients of gradients, and less that is held."""

import keras
import numpy as np
import pytest
from backends import ON_TENSORFLOW, passes_on
from keras import ops

from tncompress.layers.recompute import recomputed

ACTIVATIONS = ["gelu", "silu", "mish"]


def derivatives(function, x):
    """Of sum(w f(x)) by x: the first, and the second of its square sum, on any backend."""
    w = np.cos(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(w * function(x))
            first = inner.gradient(y, x)
            total = tf.reduce_sum(first**2)
        return first.numpy(), outer.gradient(total, x).numpy()
    if backend == "jax":
        import jax

        first = jax.grad(lambda x: (w * function(x)).sum())
        return np.asarray(first(x)), np.asarray(jax.grad(lambda x: (first(x) ** 2).sum())(x))
    import torch

    x = torch.tensor(x, requires_grad=True)
    (first,) = torch.autograd.grad((torch.tensor(w) * function(x)).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), x)
    return first.detach().numpy(), second.numpy()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_derivatives(name):
    activation = keras.activations.get(name)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    values = [ops.convert_to_numpy(f(ops.convert_to_tensor(x))) for f in (activation, recomputed(activation))]
    np.testing.assert_allclose(*values, atol=1e-6)
    for plain, found in zip(derivatives(activation, x), derivatives(recomputed(activation), x), strict=True):
        np.testing.assert_allclose(found, plain, atol=1e-6)


def test_against_differences():
    activation = keras.activations.get("gelu")
    x = np.linspace(-3, 3, 12)
    values = [ops.convert_to_numpy(activation(ops.convert_to_tensor(x + e, "float64"))) for e in (1e-6, -1e-6)]
    slopes = (values[0] - values[1]) / 2e-6
    weights = np.cos(np.arange(12.0))
    np.testing.assert_allclose(derivatives(recomputed(activation), x)[0], weights * slopes, atol=1e-7)


@ON_TENSORFLOW
def test_a_graph_holds_the_input_alone():
    """What the way back takes from the way there is x, and x is read once more only then."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((3,))])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(recomputed(keras.activations.gelu)(tf.sin(x)))
        return tape.gradient(y, x)

    operations = step.get_concrete_function().graph.get_operations()
    forward, backward = (op for op in operations if op.type.endswith("PartitionedCall"))
    (again,) = (i.op for i in backward.inputs if i.op.type == "Identity" and i.op.control_inputs)
    assert again.inputs[0].op.type == "Sin"
    assert forward.outputs[0].op not in {i.op for i in backward.inputs}


@ON_TENSORFLOW
def test_a_graph_is_let_go():
    """TensorFlow keeps what a custom gradient refers to, for ever: a model's variables must not be among it."""
    import gc
    import weakref

    import tensorflow as tf

    def graph():
        variable = tf.Variable(2.0)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                y = recomputed(keras.activations.gelu)(variable * tf.ones((3, 4)))
            return tape.gradient(y, variable)

        step()
        return weakref.ref(step.get_concrete_function().graph)

    left = graph()
    gc.collect()
    assert left() is None


@ON_TENSORFLOW
def test_not_what_is_another_function_the_second_time():
    import tensorflow as tf

    weight = tf.Variable(2.0)
    for activation in (
        lambda x: x * weight,
        lambda x: x * tf.random.uniform(tf.shape(x)),
        lambda x: tf.numpy_function(np.tanh, [x], tf.float32),
        keras.layers.PReLU(),
    ):
        assert recomputed(activation) is activation


def test_only_where_it_saves_something():
    for name in (None, "relu", "tanh", "sigmoid", "softmax"):
        activation = keras.activations.get(name)
        assert recomputed(activation) is activation


@ON_TENSORFLOW
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_pass_this_file(backend):
    passes_on(backend, __file__, JAX_ENABLE_X64="1")
