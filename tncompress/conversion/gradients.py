"""Gradients of what matters about a model's outputs, at the outputs of its dense layers, without labels.

With independent signs v of mean 0, and outputs o with the Jacobian J, the gradient g = J^T v of the number v.o has the
second moment E[g g^T] = J^T J: the Gauss-Newton matrix of sum (o - o')^2, from one backward pass a batch (Hutchinson
1990).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.surgery import preactivated

ALL_OUTPUTS = "outputs"

Objective = str | Callable[[Any, Any], Any]


def check_objective(objective: Objective, layers: Mapping[str, keras.layers.Layer]) -> None:
    """Refuse what is no objective, and layers whose outputs cannot be looked at before the activation."""
    if not (isinstance(objective, str) or callable(objective)):
        raise TypeError(
            f"objective is the name of an output, {ALL_OUTPUTS!r} for all, or a function of the model's outputs and "
            f"the batch, got {objective!r}."
        )
    backend = keras.backend.backend()
    if backend not in _GRADIENT:
        raise ValueError(f"An objective needs gradients, which Keras's {backend} backend does not have.")
    for path, layer in layers.items():
        if not hasattr(layer, "activation"):
            raise ValueError(f"Gradients are gathered at Dense layers, but {path!r} is {type(layer).__name__}.")


def gradients_at(
    model: keras.Model,
    x: Any,
    layers: Mapping[str, keras.layers.Layer],
    calls: Sequence[tuple[tuple[int, ...], str]],
    wanted: Callable[[Any, Any], Sequence[Any]],
    draw: np.random.Generator,
) -> list[np.ndarray]:
    """The gradient of a random projection, for every call of a layer: `[..., out_dim]`, before the activation.

    Args:
        model: called with x.
        x: one batch.
        layers: to look at, by path.
        calls: shape and dtype of what every call of such a layer makes, in order.
        wanted: outputs and batch to the tensors that are projected.
        draw: of the signs.
    """

    def projection(nudges: Sequence[Any]) -> Any:
        left = iter(nudges)
        with preactivated(layers, lambda _, y: ops.add(y, next(left))):
            tensors = wanted(model(x, training=False), x)
        signs = [draw.choice(np.array([-1.0, 1.0], "float32"), ops.shape(tensor)) for tensor in tensors]
        products = (ops.multiply(ops.cast(tensor, "float32"), v) for tensor, v in zip(tensors, signs, strict=True))
        return sum(map(ops.sum, products))

    gradients = _GRADIENT[keras.backend.backend()](projection, [ops.zeros(shape, dtype) for shape, dtype in calls])
    return [ops.convert_to_numpy(ops.cast(gradient, "float32")) for gradient in gradients]


def selection(objective: Objective, mask: np.ndarray | None) -> Callable[[Any, Any], Sequence[Any]]:
    """What an objective asks for, as a function of outputs and batch that gives a list of floating-point tensors.

    Args:
        objective: see `tncompress.calibrate`.
        mask: `[batch, length]`, which positions count; positions of outputs that are chosen by name are left out.

    Raises:
        ValueError: when called, if the model has no output of that name, or there is no floating-point tensor.
    """

    def select(outputs: Any, x: Any) -> Sequence[Any]:
        if callable(objective):
            chosen = objective(outputs, x)
        elif objective == ALL_OUTPUTS:
            chosen = outputs
        elif isinstance(outputs, Mapping) and objective in outputs:
            chosen = outputs[objective]
        else:
            names = f"; it has {sorted(outputs)}" if isinstance(outputs, Mapping) else ""
            raise ValueError(f"objective={objective!r} is no output of the model{names}; {ALL_OUTPUTS!r} takes all.")
        tensors = [ops.convert_to_tensor(tensor) for tensor in keras.tree.flatten(chosen) if tensor is not None]
        tensors = [t for t in tensors if keras.backend.is_float_dtype(keras.backend.standardize_dtype(t.dtype))]
        if not tensors:
            raise ValueError("The objective gives no floating-point tensor; return what matters about the outputs.")
        return tensors if callable(objective) else [_without_padding(tensor, mask) for tensor in tensors]

    return select


def _without_padding(tensor: Any, mask: np.ndarray | None) -> Any:
    if mask is None or tuple(tensor.shape[: mask.ndim]) != mask.shape:
        return tensor
    return ops.where(mask.reshape(*mask.shape, *[1] * (len(tensor.shape) - mask.ndim)), tensor, ops.zeros_like(tensor))


def _by_tensorflow(function: Callable, at: list) -> list:
    import tensorflow

    with tensorflow.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(at)
        value = function(at)
    return tape.gradient(value, at, unconnected_gradients=tensorflow.UnconnectedGradients.ZERO)


def _by_jax(function: Callable, at: list) -> list:
    import jax

    return jax.grad(function)(at)


def _by_torch(function: Callable, at: list) -> list:
    import torch

    with torch.enable_grad():
        at = [point.detach().requires_grad_() for point in at]
        value = function(at)
    if not value.requires_grad:
        return [torch.zeros_like(point) for point in at]
    found = torch.autograd.grad(value, at, allow_unused=True)
    return [
        torch.zeros_like(point) if gradient is None else gradient for point, gradient in zip(at, found, strict=True)
    ]


_GRADIENT = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
