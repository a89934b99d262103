"""Run sample inputs through a model and gather the moments of what its dense layers see."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.sites import locate
from tncompress.conversion.surgery import first_line, watched
from tncompress.fitting.moments import Moments
from tncompress.progress import progress_bar

MASK_KEYS = ("input_mask", "attention_mask", "padding_mask", "mask")
ROWS = 32  # a batch, where calibration data come as one array

Mask = str | Callable[[Any], Any] | None


def calibrate(
    model: keras.Model,
    paths: Sequence[str],
    data: Any,
    *,
    mask: Mask = None,
    progress: bool | None = None,
) -> dict[str, Moments]:
    """Moments of the inputs of the layers at `paths`, over all batches, without padding.

    Args:
        model: any built Keras model; it stays as it is.
        paths: of layers, as `find_sites` gives them.
        data: an iterable of batches, each what the model takes as input (a `tf.data.Dataset`, a list of dicts of
            arrays ...; of `(x, y)` pairs the x); or all inputs at once as an array or a dict of arrays.
        mask: which positions count: the key of the mask in a dict input, or a function of the batch that gives an
            array `[batch, length]`. None: the Keras mask of the layer's input if it has one, else the first of the
            keys input_mask, attention_mask, padding_mask, mask.
        progress: show a bar; None: if it runs long in a terminal.

    Raises:
        ValueError: if there is no batch, the model does not take a batch, or a layer sees NaN or infinity.
    """
    layers = locate(model, paths)
    batches, total = _batches(data)
    moments: dict[str, Moments] = {}
    for number, batch in enumerate(progress_bar(batches, "Calibrating", total, progress)):
        x = _inputs(batch, model)
        given = _mask(x, mask, number)
        not_finite: list[str] = []

        def see(path: str, value: Any, given=given, not_finite=not_finite) -> None:
            with np.errstate(all="ignore"):  # what is not finite is said below, in words
                found = _moments(value, given)
            if not np.isfinite(found.scatter).all():
                not_finite.append(path)  # an error from within a call would get Keras's long story around it
            moments[path] = moments[path] + found if path in moments else found

        with watched(layers, see):
            _run(model, x, number)
        if not_finite:
            raise ValueError(
                f"The layer {not_finite[0]!r} sees NaN or infinity in calibration batch {number}; remove it."
            )
    for path in paths:
        if path not in moments or not moments[path].count:
            raise ValueError(f"No calibration batch reaches the layer {path!r} (or all of it is padding); exclude it.")
    return moments


def _moments(value: Any, given: np.ndarray | None) -> Moments:
    """Moments of one call's input `[..., in_dim]`, without what the mask leaves out."""
    own = getattr(value, "_keras_mask", None)
    # bfloat16 is foreign to numpy's linear algebra
    x = ops.convert_to_numpy(ops.cast(value, "float32"))
    mask = given if own is None else ops.convert_to_numpy(own)
    if mask is not None:
        if mask.shape == x.shape[:-1]:
            return Moments.of(x, mask)
        if x.shape[:-1] == (mask.size,):
            return Moments.of(x, mask.reshape(-1))
    return Moments.of(x)


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
