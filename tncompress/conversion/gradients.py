"""Gradients of what matters about a model's outputs, at the outputs of its dense layers, without labels.

With independent signs v of mean 0, and outputs o with the Jacobian J, the gradient g = J^T v of the number v.o has the
second moment E[g g^T] = J^T J: the Gauss-Newton matrix of sum (o - o')^2, from one backward pass a batch (Hutchinson
1990).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.batches import run_batch
from tncompress.conversion.masks import Given, of_outputs
from tncompress.conversion.misfit import told
from tncompress.conversion.structures import as_floats
from tncompress.conversion.watching import preactivated

ALL_OUTPUTS = "outputs"
MOST_ORTHOGONAL = 1024  # numbers of a row; for more there are hardly ever as many rows

Objective = str | Callable[[Any, Any], Any]
Tensors = Sequence[tuple[Any, np.ndarray | None]]  # each with the positions of it that count; None: all
Change = Callable[[str, Any], Any]


def check_objective(objective: Objective, layers: Mapping[str, keras.layers.Layer]) -> None:
    """Refuse what is no objective, and layers whose outputs cannot be looked at before the activation."""
    is_loss = isinstance(objective, keras.losses.Loss)  # wants labels
    if is_loss or not (isinstance(objective, str) or callable(objective)):
        raise TypeError(
            f"objective is the name of an output, {ALL_OUTPUTS!r} for all, or a function of the model's outputs and "
            f"the batch, got {objective!r}."
        )
    backend = keras.backend.backend()
    if backend not in _RECORDED:
        raise ValueError(f"An objective needs gradients, which Keras's {backend} backend does not have.")
    for path, layer in layers.items():
        if not (hasattr(layer, "activation") or isinstance(layer, keras.layers.Embedding)):
            raise ValueError(f"Gradients are gathered at Dense layers, but {path!r} is {type(layer).__name__}.")


def gradients_at(
    model: keras.Model,
    x: Any,
    layers: Mapping[str, keras.layers.Layer],
    wanted: Callable[[Any, Any], Tensors],
    rows: Sequence[int],
    number: int,
    seeing: AbstractContextManager,
) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, np.ndarray]]:
    """The gradient of a random projection at every call of a layer, and the tensors that were projected.

    Args:
        model: called with x.
        x: one batch.
        layers: to look at, by path.
        wanted: outputs and batch to the tensors that are projected, see `selection`.
        rows: numbers of the batch's rows among all that give gradients, by which signs are drawn: the same in batches
            of any size.
        number: of the batch, for messages.
        seeing: within which the model runs forward, once.

    Returns:
        gradients `[..., out_dim]`, before the activation, one for every call in order; and of every tensor the vectors
        that count, `[n, features]`; and by path, of tables of embeddings that the model does not only look up, as for
        tied logits, the gradient at the table `[tokens, features]`, without that by what was looked up.
    """
    tables = {path: layer.embeddings for path, layer in layers.items() if isinstance(layer, keras.layers.Embedding)}

    def forward(change: Change, *, again: bool = False) -> Tensors:
        with nullcontext() if again else seeing, preactivated(layers, change):
            return wanted(run_batch(model, x, number), x)

    def projection(tensors: Tensors) -> Any:
        products = []
        for k, (tensor, counts) in enumerate(tensors):
            signs = _signs(tuple(tensor.shape), rows, k)
            if counts is not None:
                signs *= counts.reshape(*counts.shape, *[1] * (signs.ndim - counts.ndim))
            products.append(ops.sum(ops.multiply(ops.cast(tensor, "float32"), signs)))
        return sum(products)

    tensors, gradients, uses = _RECORDED[keras.backend.backend()](forward, projection, tables)
    return (
        [as_floats(gradient) for gradient in gradients],
        [vectors_of(as_floats(t), counts) for t, counts in tensors],
        {path: as_floats(gradient) for path, gradient in uses.items()},
    )


def selection(objective: Objective, mask: Given, what: str) -> Callable[[Any, Any], Tensors]:
    """What an objective asks for, as a function of outputs and batch that gives floating-point tensors.

    Args:
        objective: see `tncompress.calibrate`.
        mask: which positions count; positions of outputs that are chosen by name are left out.
        what: the batch is, for messages.

    Raises:
        ValueError: when called, if the model has no output of that name, the user's function fails, or there is no
            floating-point tensor.
    """

    def select(outputs: Any, x: Any) -> Tensors:
        if callable(objective):
            try:
                chosen = objective(outputs, x)
            except Exception as error:  # whatever a user's code says
                raise ValueError(
                    f"The objective is called with outputs and batch, and fails on {what} ({told(error)})."
                ) from error
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
        return [(tensor, None if callable(objective) else of_outputs(mask, tuple(tensor.shape))) for tensor in tensors]

    return select


def vectors_of(tensor: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """The vectors of a tensor that count `[n, features]`; of numbers for rows or positions, vectors of one number."""
    if tensor.ndim <= 1 or (counts is not None and counts.ndim == tensor.ndim):
        tensor = tensor[..., None]
    if counts is not None:
        tensor = tensor[counts]
    return tensor.reshape(-1, tensor.shape[-1])


def _signs(shape: tuple[int, ...], rows: Sequence[int], number: int) -> np.ndarray:
    """Random signs, float32; those of a row are its own."""
    if not shape or shape[0] != len(rows):
        return _independent(math.prod(shape), (number, rows[0])).reshape(shape)
    size = math.prod(shape[1:])
    draw = _orthogonal if size <= MOST_ORTHOGONAL else lambda size, row, number: _independent(size, (number, row))
    return np.stack([draw(size, row, number) for row in rows]).reshape(shape)


def _independent(size: int, seed: tuple[int, ...]) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 256, -(-size // 8), np.uint8)
    return (2.0 * np.unpackbits(drawn, count=size) - 1.0).astype("float32")


def _orthogonal(size: int, row: int, number: int) -> np.ndarray:
    """Those of a Hadamard matrix with random signs of its columns: over as many rows as it has, sum v v^T is exact."""
    order = max(1, 1 << (size - 1).bit_length())
    cycle, position = divmod(row, order)
    return _hadamard(order)[position, :size] * _independent(order, (number, cycle))[:size]


@lru_cache(maxsize=4)
def _hadamard(order: int) -> np.ndarray:
    from scipy.linalg import hadamard

    return hadamard(order).astype("float32")


# -- backends: run forward, and give its tensors and the gradient of their projection at every place it came by, and at
# the tables; what is looked up in these is cut off from them --------------------------------------------------------

Recorded = tuple[Tensors, list, dict[str, Any]]


def _by_tensorflow(
    forward: Callable[..., Tensors], projection: Callable[[Tensors], Any], tables: Mapping[str, keras.Variable]
) -> Recorded:
    import tensorflow

    made = []
    with tensorflow.GradientTape(watch_accessed_variables=False) as tape:
        for table in tables.values():
            tape.watch(table.value)

        def watch(path: str, y: Any) -> Any:
            y = ops.stop_gradient(y) if path in tables else y
            tape.watch(y)
            made.append(y)
            return y

        tensors = forward(watch)
        value = projection(tensors)
    found = tape.gradient(value, [*made, *(table.value for table in tables.values())])
    gradients = [
        tensorflow.zeros_like(y) if g is None else tensorflow.convert_to_tensor(g)
        for y, g in zip(made, found, strict=False)
    ]
    at_tables = zip(tables, found[len(made) :], strict=True)
    return tensors, gradients, {path: tensorflow.convert_to_tensor(g) for path, g in at_tables if g is not None}


def _by_jax(
    forward: Callable[..., Tensors], projection: Callable[[Tensors], Any], tables: Mapping[str, keras.Variable]
) -> Recorded:
    """Twice forward: JAX differentiates functions, here of what is added to the places, whose shapes come first."""
    import jax

    nudges = []

    def measure(_: str, y: Any) -> Any:
        nudges.append(ops.zeros(y.shape, y.dtype))
        return y

    tensors = forward(measure)

    def function(given: list, values: list) -> Any:
        left = iter(given)

        def nudged(path: str, y: Any) -> Any:
            return ops.add(ops.stop_gradient(y) if path in tables else y, next(left))

        with keras.StatelessScope(list(zip(tables.values(), values, strict=True))):
            return projection(forward(nudged, again=True))

    gradients, found = jax.grad(function, argnums=(0, 1))(nudges, [table.value for table in tables.values()])
    return tensors, gradients, {path: g for path, g in zip(tables, found, strict=True) if g.any()}


def _by_torch(
    forward: Callable[..., Tensors], projection: Callable[[Tensors], Any], tables: Mapping[str, keras.Variable]
) -> Recorded:
    import torch

    made = []

    def watch(path: str, y: Any) -> Any:
        # Nothing before the first place needs to be recorded.
        torch.set_grad_enabled(True)
        made.append(y if y.requires_grad and path not in tables else y.detach().requires_grad_())
        return made[-1]

    weights = {path: table.value for path, table in tables.items()}
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_()
        with torch.no_grad():  # brings back what it was before
            tensors = forward(watch)
            value = projection(tensors)
        if not value.requires_grad:
            return tensors, [torch.zeros_like(y) for y in made], {}
        found = torch.autograd.grad(value, [*made, *weights.values()], allow_unused=True)
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
    gradients = [torch.zeros_like(y) if g is None else g for y, g in zip(made, found, strict=False)]
    at_tables = zip(weights, found[len(made) :], strict=True)
    return tensors, gradients, {path: g for path, g in at_tables if g is not None}


_RECORDED = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
