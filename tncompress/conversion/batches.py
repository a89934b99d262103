"""Calibration data as batches, their rows, and a model run on them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import keras
import numpy as np

from tncompress.conversion.misfit import misfit, wrong_numbers
from tncompress.conversion.structures import holds_arrays, symbolic_inputs

ROWS = 32  # a batch, where data come as one array


def batches_of(data: Any, source: str = "calibration", rows: int = ROWS) -> tuple[Iterator[Any], int | None]:
    """An iterator over batches, checked to hold one, and their number if it is known.

    Args:
        data: see `tncompress.calibrate`.
        source: what they are for, for messages.
        rows: of a batch, where data come as one array.

    Raises:
        TypeError, ValueError: if data are no batches, or none.
    """
    if isinstance(data, Mapping) or hasattr(data, "shape"):
        counts = set(map(num_rows, data.values() if isinstance(data, Mapping) else [data])) or {0}
        if len(counts) != 1:
            raise ValueError(f"The {source} arrays need equal lengths, got {sorted(counts)}.")
        data = [rows_of(data, slice(start, start + rows)) for start in range(0, counts.pop(), rows)]
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise TypeError(
            f"{source.capitalize()} data are an iterable of what the model takes as input (batches of arrays), got "
            f"{type(data).__name__}."
        )
    batches = iter(data)
    first = list(islice(batches, 1))
    if not first:
        raise ValueError(f"The {source} data are empty: give at least one batch of what the model takes as input.")
    return chain(first, batches), _length(data)


def _length(data: Iterable) -> int | None:
    try:
        return len(data)  # type: ignore[arg-type]
    except TypeError:  # a generator, or a dataset that does not know
        return None


def inputs_of(batch: Any, model: keras.Model) -> Any:
    """The x of `(x, y)` and `(x, y, weights)`; what the model takes as it is otherwise."""
    if not isinstance(batch, tuple) or not batch:
        return batch
    structure = symbolic_inputs(model)
    several = isinstance(structure, (list, tuple)) and len(structure) > 1
    is_one_of_them = several and not isinstance(batch[0], (list, tuple, Mapping))
    return batch if is_one_of_them else batch[0]


# -- rows ------------------------------------------------------------------------------------------


def rows_of(x: Any, rows: slice) -> Any:
    """Some rows of a batch: of every value of a dict, of every array in a list of them, else of x itself.

    >>> rows_of({"ids": [[1, 2], [3, 4]]}, slice(1)), rows_of([[1, 2], [3, 4]], slice(1, 2))
    ({'ids': [[1, 2]]}, [[3, 4]])
    """
    if isinstance(x, Mapping):
        return {key: rows_of(value, rows) for key, value in x.items()}
    if holds_arrays(x):
        return type(x)(rows_of(item, rows) for item in x)
    return x[rows] if num_rows(x) else x  # a number counts for all rows


def num_rows(x: Any) -> int:
    """Rows of a batch.

    >>> num_rows([np.zeros((3, 2)), np.zeros((3, 4))]), num_rows([[1, 2], [3, 4]])
    (3, 2)
    """
    if isinstance(x, Mapping):
        return max((num_rows(value) for value in x.values()), default=0)
    if holds_arrays(x):
        return max(map(num_rows, x))
    if hasattr(x, "shape"):
        return int(x.shape[0]) if len(x.shape) else 0
    return len(x) if hasattr(x, "__len__") else 0


def rows_in(data: Any, batches: int | None, first: int, model: keras.Model) -> int | None:
    """How many rows there are in all data, up to a last batch that may be smaller; None if it is not known.

    Args:
        data: as `calibrate` takes them.
        batches: their number, if it is known.
        first: rows of the first batch.
        model: which takes them.
    """
    if isinstance(data, Mapping) or hasattr(data, "shape"):
        return num_rows(data)
    if isinstance(data, (list, tuple)):
        return sum(num_rows(inputs_of(batch, model)) for batch in data)
    return None if batches is None else batches * first


def numbers_of_a_row(x: Any) -> float:
    """How many numbers a row of a batch holds.

    >>> numbers_of_a_row({"ids": np.zeros((5, 3)), "scale": 2.0}), numbers_of_a_row([[1, 2], [3, 4]])
    (3.0, 2.0)
    """
    if isinstance(x, Mapping) or holds_arrays(x):
        return sum(map(numbers_of_a_row, x.values() if isinstance(x, Mapping) else x))
    size = math.prod(x.shape) if hasattr(x, "shape") else np.size(x)
    return size / num_rows(x) if num_rows(x) else 0.0


def parts_of(rows: range, every: int, block: int) -> Iterator[tuple[range, range | None]]:
    """Rows in parts, in order: of every so many blocks of rows one gives gradients.

    Whole blocks, so that passes with gradients are few; by their places in all data, so that it does not matter how
    these are cut into batches, which may be sorted.

    Args:
        rows: by their numbers in all data.
        every: so many blocks.
        block: so many rows.

    Returns:
        parts of the rows; and with each its numbers among the rows that give gradients, None for those that give none.

    >>> list(parts_of(range(5, 25), every=2, block=8))
    [(range(5, 8), range(5, 8)), (range(8, 16), None), (range(16, 24), range(8, 16)), (range(24, 25), None)]
    """
    block, start = block if every > 1 else max(rows.stop, 1), rows.start
    while start < rows.stop:
        turn, place = divmod(start, block * every)
        gives = place < block
        stop = min(rows.stop, start - place + (block if gives else block * every))
        first = turn * block + place
        yield range(start, stop), range(first, first + stop - start) if gives else None
        start = stop


# -- running ---------------------------------------------------------------------------------------


def run_batch(model: keras.Model, x: Any, number: int, source: str = "calibration", role: str = "model") -> Any:
    """The model's outputs for a batch.

    Raises:
        ValueError: it does not take the batch; see `misfit`.
    """
    if reason := wrong_numbers(model, x):
        raise ValueError(misfit(model, x, reason, number, source, role))
    try:
        return model(x, training=False)
    except Exception as error:  # whatever its code says
        raise ValueError(misfit(model, x, error, number, source, role)) from None
