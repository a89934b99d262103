"""Run sample inputs through a model and gather the moments of what its dense layers see."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.gradients import Objective, check_objective, gradients_at, selection
from tncompress.conversion.sites import locate
from tncompress.conversion.surgery import first_line, watched
from tncompress.fitting.moments import Moments
from tncompress.progress import progress_bar

MASK_KEYS = ("input_mask", "attention_mask", "padding_mask", "mask")
SAMPLE = 2  # rows of inputs that stay with the moments
ROWS = 32  # a batch, where calibration data come as one array

Mask = str | Callable[[Any], Any] | None


class Calibration(dict[str, Moments]):
    """Moments by path, and a few of the inputs, by which `replace_dense` finds layers that share hidden units."""

    def __init__(self, moments: Mapping[str, Moments], sample: Any):
        super().__init__(moments)
        self.sample = sample

    def without_gradients(self) -> "Calibration":
        """The same without an objective."""
        return Calibration({path: replace(m, gradients=None) for path, m in self.items()}, self.sample)


def calibrate(
    model: keras.Model,
    paths: Sequence[str],
    data: Any,
    *,
    objective: Objective | None = None,
    mask: Mask = None,
    progress: bool | None = None,
) -> Calibration:
    """Moments of the inputs of the layers at `paths`, over all batches, without padding.

    With an objective also those of its gradient at the layers' outputs, from a backward pass a batch: a fit then spends
    its parameters on the outputs that move the objective. No labels are needed.

    Args:
        model: any built Keras model; it stays as it is.
        paths: of layers, as `find_sites` gives them.
        data: an iterable of batches, each what the model takes as input (a `tf.data.Dataset`, a list of dicts of
            arrays ...; of `(x, y)` pairs the x); or all inputs at once as an array or a dict of arrays.
        objective: what shall stay the same. `"outputs"`: all floating-point outputs of the model; another text: the
            output of that name, where outputs are a dict; both without padding. Or a function `objective(outputs, x)`
            of the model's outputs and the batch that gives a tensor (or a list or dict of some), computed with
            `keras.ops`. None: the layers' own outputs, all alike.
        mask: which positions count: the key of the mask in a dict input, or a function of the batch that gives an
            array `[batch, length]`. None: the Keras mask of the layer's input if it has one, else the first of the
            keys input_mask, attention_mask, padding_mask, mask.
        progress: show a bar; None: if it runs long in a terminal.

    Raises:
        ValueError: if there is no batch, the model does not take a batch, a layer sees NaN or infinity, or the
            objective does not depend on a layer.

    Example:
        def sentence(outputs, x):  # the mean over tokens
            weights = keras.ops.cast(x["input_mask"], "float32")[..., None]
            return keras.ops.sum(outputs["sequence_output"] * weights, axis=1) / keras.ops.sum(weights, axis=1)

        moments = calibrate(encoder, paths, batches, objective=sentence)
    """
    layers = locate(model, paths)
    if objective is not None:
        check_objective(objective, layers)
    batches, total = _batches(data)
    moments: dict[str, Moments] = {}
    gradients: dict[str, Moments] = {}
    draw = np.random.default_rng(0)
    for number, batch in enumerate(progress_bar(batches, "Calibrating", total, progress)):
        x = _inputs(batch, model)
        given = _mask(x, mask, number)
        calls = _see_inputs(model, x, layers, given, moments, number)
        if objective is None:
            continue
        shapes = [(call.shape, call.dtype) for call in calls]
        found = gradients_at(model, x, layers, shapes, selection(objective, given), draw)
        for call, gradient in zip(calls, found, strict=True):
            _add(gradients, call.path, gradient, call.counts)
            if not np.isfinite(gradients[call.path].scatter).all():
                raise ValueError(
                    f"The objective's gradient at the layer {call.path!r} is NaN or infinity in batch {number}."
                )
    for path in paths:
        if path not in moments or not moments[path].count:
            raise ValueError(f"No calibration batch reaches the layer {path!r} (or all of it is padding); exclude it.")
        if objective is not None and not gradients[path].second.any():
            raise ValueError(
                f"The objective does not depend on the layer {path!r}; exclude it, or choose an objective that does."
            )
    found = {path: replace(moments[path], gradients=gradients.get(path)) for path in moments}
    return Calibration(found, keras.tree.map_structure(lambda array: array[:SAMPLE], x))


@dataclass(frozen=True)
class _Call:
    """One call of a layer: which rows of it count, and what it makes before the activation."""

    path: str
    counts: np.ndarray | None
    shape: tuple[int, ...]
    dtype: str


def _see_inputs(
    model: keras.Model,
    x: Any,
    layers: Mapping[str, keras.layers.Layer],
    given: np.ndarray | None,
    moments: dict[str, Moments],
    number: int,
) -> list[_Call]:
    """Add what the layers see in one batch to the moments; the calls, in order."""
    calls: list[_Call] = []
    not_finite: list[str] = []

    def see(path: str, value: Any) -> None:
        counts = _counted(value, given)
        # bfloat16 is foreign to numpy's linear algebra
        seen = ops.convert_to_numpy(ops.cast(value, "float32"))
        _add(moments, path, seen, counts)
        if not np.isfinite(moments[path].scatter).all():
            not_finite.append(path)  # an error from within a call would get Keras's long story around it
        layer = layers[path]
        calls.append(_Call(path, counts, tuple(layer.compute_output_shape(seen.shape)), layer.compute_dtype))

    with watched(layers, see):
        _run(model, x, number)
    if not_finite:
        raise ValueError(f"The layer {not_finite[0]!r} sees NaN or infinity in calibration batch {number}; remove it.")
    return calls


def _add(moments: dict[str, Moments], path: str, rows: np.ndarray, counts: np.ndarray | None) -> None:
    with np.errstate(all="ignore"):  # what is not finite is said in words
        found = Moments.of(rows, counts)
    moments[path] = moments[path] + found if path in moments else found


def _counted(value: Any, given: np.ndarray | None) -> np.ndarray | None:
    """Which vectors of a call's input `[..., in_dim]` are no padding, `[...]`; None: all."""
    own = getattr(value, "_keras_mask", None)
    mask = given if own is None else ops.convert_to_numpy(own)
    lead = tuple(value.shape[:-1])
    if mask is None or mask.shape == lead:
        return mask
    return mask.reshape(-1) if lead == (mask.size,) else None


def _run(model: keras.Model, x: Any, number: int) -> None:
    try:
        model(x, training=False)
    except Exception as error:
        reason = first_line(error)
        raise ValueError(f"The model {model.name!r} does not take calibration batch {number} ({reason}).") from None


def _batches(data: Any) -> tuple[Iterator[Any], int | None]:
    """An iterator over batches, checked to hold one, and their number if it is known."""
    if isinstance(data, Mapping) or hasattr(data, "shape"):
        rows = {len(v) for v in (data.values() if isinstance(data, Mapping) else [data])} or {0}
        if len(rows) != 1:
            raise ValueError(f"The calibration arrays need equal lengths, got {sorted(rows)}.")
        data = [_rows(data, start) for start in range(0, rows.pop(), ROWS)]
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise TypeError(
            f"Calibration data are an iterable of what the model takes as input (batches of arrays), got "
            f"{type(data).__name__}."
        )
    total = len(data) if isinstance(data, (list, tuple)) else None
    batches = iter(data)
    first = list(_take_one(batches))
    if not first:
        raise ValueError("The calibration data are empty: give at least one batch of what the model takes as input.")
    return chain(first, batches), total


def _take_one(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        yield batch
        return


def _rows(data: Any, start: int) -> Any:
    if isinstance(data, Mapping):
        return {key: value[start : start + ROWS] for key, value in data.items()}
    return data[start : start + ROWS]


def _inputs(batch: Any, model: keras.Model) -> Any:
    """The x of `(x, y)` and `(x, y, weights)`; what the model takes as it is otherwise."""
    if not isinstance(batch, tuple) or not batch:
        return batch
    several = isinstance(getattr(model, "_inputs_struct", None), (list, tuple)) and len(model.inputs) > 1
    is_one_of_them = several and not isinstance(batch[0], (list, tuple, Mapping))
    return batch if is_one_of_them else batch[0]


def _mask(x: Any, mask: Mask, number: int) -> np.ndarray | None:
    if callable(mask):
        return ops.convert_to_numpy(mask(x)).astype(bool)
    if isinstance(mask, str):
        if not isinstance(x, Mapping) or mask not in x:
            keys = sorted(x) if isinstance(x, Mapping) else type(x).__name__
            raise ValueError(f"Calibration batch {number} has no {mask!r} to mask with; it holds {keys}.")
        return ops.convert_to_numpy(x[mask]).astype(bool)
    if isinstance(x, Mapping):
        for key in MASK_KEYS:
            if key in x:
                return ops.convert_to_numpy(x[key]).astype(bool)
    return None
