"""What training need not hold: activations, and the wide tensors that they make, are computed again on the way back."""

import contextlib
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
from keras import ops

from tncompress.layers.fast_paths import is_elementwise
from tncompress.network.plan import Plan, contract

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
        return holding_arguments(activation, compiled=True) if is_elementwise(activation) else activation
    if backend == "jax":
        import jax

        return jax.checkpoint(activation)
    import torch.utils.checkpoint

    return lambda x: torch.utils.checkpoint.checkpoint(activation, x, use_reentrant=False)


def holding_arguments(function: Callable, compiled: bool = False) -> Callable:
    """The same function of tensors, with a gradient that holds its arguments alone and computes the rest again.

    TensorFlow only. `tf.recompute_grad` is alike, but refuses gradients of gradients.

    Args:
        function: of one tensor or several; it reads no variables and draws no random numbers.
        compiled: by XLA, which makes one loop over the numbers of what else are ten, each with a tensor of its own.

    >>> import tensorflow as tf
    >>> float(holding_arguments(tf.multiply)(2.0, 3.0))
    6.0
    """
    import tensorflow as tf

    def derivatives(upstream: Any, *arguments: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            y = function(*arguments)
        return tape.gradient(y, arguments, upstream)

    forward, backward = (tf.function(f, jit_compile=True) if compiled else f for f in (function, derivatives))

    @tf.custom_gradient
    def recomputing(*arguments: Any):
        def gradient(upstream: Any) -> Any:
            with tf.control_dependencies([upstream]):  # else the graph's optimiser finds that it has the rest already
                again = tf.identity(arguments[0])
            return backward(upstream, again, *arguments[1:])

        return forward(*arguments), gradient

    def held(*arguments: Any) -> Any:
        y = recomputing(*map(tf.convert_to_tensor, arguments))
        if not tf.executing_eagerly():
            _let_go_with_its_graph(y.op)
        return y

    return held


def _let_go_with_its_graph(operation: Any) -> None:
    """Give a graph the custom gradient of its operation, of which TensorFlow keeps nothing then but the name.

    By itself it keeps the gradients of all graphs in a table, for ever: hence tensors, hence graphs, and with those of
    training steps all variables of models and optimizers.
    """
    with contextlib.suppress(ImportError, AttributeError, KeyError):  # the table is TensorFlow's own affair
        from tensorflow.python.framework.ops import gradient_registry

        entry = gradient_registry._registry[operation.get_attr("_gradient_op_type").decode()]
        gradient = entry["type"]
        kept = weakref.ref(gradient)
        entry["type"] = lambda *given: kept()(*given)
        operation.graph.gradients_of_tncompress = [*getattr(operation.graph, "gradients_of_tncompress", ()), gradient]


def contract_activated(plan: Plan, activation: Callable, x: Any, cores: Sequence[Any]) -> Any:
    """`contract(plan, activation(x), cores)`, with a gradient that holds x but not `activation(x)`.

    Of the two tensors as wide as a hidden layer that a feed-forward block otherwise holds, this leaves one. The matmul
    that takes `activation(x)` makes it again for the gradient of its weights; a graph computes no product twice.
    TensorFlow only.

    Args:
        plan: of the map behind the activation.
        activation: one of single numbers that `recomputed` does not give back as it is.
        x: `[batch, *input modes]`.
        cores: as `contract` takes them.

    Returns:
        `[batch, *output modes]`.

    >>> from keras import activations, ops
    >>> from tncompress import Spec, plan
    >>> planned = plan(Spec.parse("i, i r, r o -> o", i=3, r=2, o=4))
    >>> x, cores = -ops.ones((5, 3)), [ops.ones((3, 2)), ops.ones((2, 4))]
    >>> round(float(contract_activated(planned, activations.gelu, x, cores)[0, 0]), 4)  # 6 gelu(-1)
    -0.9519
    """
    return contract(plan, _Activated(x, activation), cores, _HoldingInputs)


@dataclass(frozen=True)
class _Activated:
    """`activation(x)`, not yet computed: moving axes about is the same before it and after."""

    x: Any
    activation: Callable

    @property
    def shape(self) -> Any:
        return self.x.shape


class _HoldingInputs:
    """`keras.ops` for `contract`, where one of the operands is not yet activated."""

    @staticmethod
    def reshape(array: Any, shape: tuple[int, ...]) -> Any:
        return _moved(ops.reshape, array, shape)

    @staticmethod
    def transpose(array: Any, axes: tuple[int, ...]) -> Any:
        return _moved(ops.transpose, array, axes)

    @staticmethod
    def matmul(left: Any, right: Any) -> Any:
        if isinstance(left, _Activated):
            return _product(left.activation, is_left=True)(left.x, right)
        if isinstance(right, _Activated):
            return _product(right.activation, is_left=False)(right.x, left)
        return ops.matmul(left, right)


def _moved(move: Callable, array: Any, how: tuple[int, ...]) -> Any:
    return _Activated(move(array.x, how), array.activation) if isinstance(array, _Activated) else move(array, how)


@lru_cache(maxsize=64)
def _product(activation: Callable, is_left: bool) -> Callable:
    """`(x, other) -> activation(x) @ other`, or `other @ activation(x)`, whose gradient holds x and the other alone."""
    activated = recomputed(activation)

    def product(x: Any, other: Any) -> Any:
        return ops.matmul(activated(x), other) if is_left else ops.matmul(other, activated(x))

    return holding_arguments(product)  # the gradient needs no product, so a graph leaves out the second one
