"""`recomputed`: an activation of which training keeps the input alone, and computes it once more on the way back."""

from collections.abc import Callable
from typing import Any

import keras

# Their gradients are made of their outputs, which the next layer holds anyway.
_FROM_OUTPUTS = tuple(keras.activations.get(name) for name in ("linear", "relu", "tanh", "sigmoid", "softmax"))


def recomputed(activation: Callable) -> Callable:
    """The same function, with a gradient that holds nothing but its input between the two passes.

    Activations are cheap, but what their gradients hold is wide: for GELU by tanh, five tensors as large as the hidden
    layer. Gradients of gradients work as without it.

    Source: Chen et al. 2016, arXiv:1604.06174, for one operation.

    >>> from keras import activations, ops
    >>> float(recomputed(activations.silu)(ops.zeros(())))
    0.0
    >>> recomputed(activations.relu) is activations.relu  # its gradient is made of its output
    True
    """
    if activation in _FROM_OUTPUTS:
        return activation
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _in_tensorflow(activation)
    if backend == "jax":
        import jax

        return jax.checkpoint(activation)
    import torch.utils.checkpoint

    return lambda x: torch.utils.checkpoint.checkpoint(activation, x, use_reentrant=False)


def _in_tensorflow(activation: Callable) -> Callable:
    # tf.recompute_grad refuses gradients of gradients.
    import tensorflow as tf

    @tf.custom_gradient
    def function(x: Any):
        def gradient(upstream):
            with tf.control_dependencies([upstream]):  # else the graph's optimiser finds that it has y already
                again = tf.identity(x)
            with tf.GradientTape() as tape:
                tape.watch(again)
                y = activation(again)
            return tape.gradient(y, again, upstream)

        return activation(x), gradient

    return function
