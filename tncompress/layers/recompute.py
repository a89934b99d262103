"""`recomputed`: an activation of which training keeps the input alone, and computes it once more on the way back."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import keras

from tncompress.layers.fast_paths import is_elementwise

# Their gradients are made of their outputs, which the next layer holds anyway.
_FROM_OUTPUTS = tuple(keras.activations.get(name) for name in ("linear", "relu", "tanh", "sigmoid", "softmax"))


@lru_cache(maxsize=64)
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
    if activation in _FROM_OUTPUTS or isinstance(activation, keras.layers.Layer):
        return activation
    backend = keras.backend.backend()
    if backend == "tensorflow":  # what draws random numbers or reads variables is not the same the second time
        return _in_tensorflow(activation) if is_elementwise(activation) else activation
    if backend == "jax":
        import jax

        return jax.checkpoint(activation)
    import torch.utils.checkpoint

    return lambda x: torch.utils.checkpoint.checkpoint(activation, x, use_reentrant=False)


def _in_tensorflow(function: Callable) -> Callable:
    # tf.recompute_grad refuses gradients of gradients. XLA makes one loop over the numbers of what else are ten, each
    # with a tensor of its own.
    import tensorflow as tf

    forward = tf.function(function, jit_compile=True)

    @tf.function(jit_compile=True)
    def backward(x: Any, upstream: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x, upstream)

    @tf.custom_gradient
    def recomputing(x: Any):
        def gradient(upstream: Any) -> Any:
            with tf.control_dependencies([upstream]):  # else the graph's optimiser finds that it has y already
                again = tf.identity(x)
            return backward(again, upstream)

        return forward(x), gradient

    return recomputing
