"""Batches that models are to run on again and again: what is wrong with them is found before, on a few of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.batches import batches_of, inputs_of, run_batch
from tncompress.conversion.masks import Mask, joint, mask_of
from tncompress.conversion.misfit import misfit, wrong_numbers
from tncompress.conversion.structures import described, holds_arrays


def read_batches(
    models: Mapping[str, keras.Model], data: Any, mask: Mask, source: str
) -> list[tuple[Any, np.ndarray | None]]:
    """All batches as arrays, with their masks, checked to be alike and such as the models take.

    Args:
        models: by their role, for messages.
        data, mask: see `tncompress.calibrate`.
        source: what the data are for.

    Raises:
        ValueError: they are no such batches.
    """
    first, found = next(iter(models.values())), []
    for number, batch in enumerate(batches_of(data, source)[0]):
        inputs = inputs_of(batch, first)
        found.append((_arrays(inputs), joint(mask_of(inputs, mask, number, source))))
    arrays = [x for x, _ in found]
    check_batches(models, arrays, source)
    kinds = [[(path, array.ndim) for path, array in leaves_of(x)] for x in arrays]
    for number, kind in enumerate(kinds):
        if kind != kinds[0]:  # and yet the models take it
            raise ValueError(
                f"All batches need the same arrays, but {source} batch {number} is {described(arrays[number])} and "
                f"batch 0 is {described(arrays[0])}; give them alike."
            )
    return found


def check_batches(models: Mapping[str, keras.Model], batches: Sequence[Any], source: str) -> None:
    """Run models on those batches that are most likely not to fit them, and look at the numbers in all of them.

    Shapes may differ from batch to batch, as lengths of texts do: what a model does not take is found where most or
    least comes together.

    Args:
        models: by their role, for messages.
        batches: of arrays.
        source: what the batches are for.

    Raises:
        ValueError: a model does not take a batch, see `misfit`.
    """
    telling = telling_batches(batches)
    for role, model in models.items():
        for number, x in enumerate(batches):
            if number in telling:
                run_batch(model, x, number, source, role)
            elif reason := wrong_numbers(model, x):
                raise ValueError(misfit(model, x, reason, number, source, role))


def telling_batches(batches: Sequence[Any]) -> set[int]:
    """Numbers of a few batches: what a model that takes these does not take is hardly among the others.

    Of every structure, with the kinds of numbers in it, the first; those with the smallest and the largest size of an
    axis other than that of rows; and those with the least and the greatest whole number, which may be ids of tokens.

    >>> lengths = [4, 5, 3, 5, 9, 4, 7]
    >>> sorted(telling_batches([np.zeros((2, length)) for length in lengths]))
    [0, 2, 4]
    """
    groups: dict[Any, list[int]] = {}
    leaves = [leaves_of(x) for x in batches]
    for number, found in enumerate(leaves):
        groups.setdefault(tuple((path, array.ndim, array.dtype.kind) for path, array in found), []).append(number)
    telling: set[int] = set()
    for numbers in groups.values():
        # [batches, measures]; those of one group have the same measures
        measures = np.array([[size for _, array in leaves[n] for size in _measures(array)] for n in numbers], float)
        ends = (*measures.argmin(axis=0), *measures.argmax(axis=0)) if measures.size else ()
        telling |= {numbers[k] for k in (0, *ends)}
    return telling


def leaves_of(x: Any) -> list[tuple[tuple, np.ndarray]]:
    """The arrays of a batch, by where they stand in it."""
    if isinstance(x, (list, tuple)) and not holds_arrays(x):
        return [((), as_numpy(x))]  # rows as nested lists
    return [(path, as_numpy(leaf)) for path, leaf in keras.tree.flatten_with_path(x)]


def as_numpy(x: Any) -> np.ndarray:
    """An array, tensor, number or rows as nested lists; rows of different lengths as an array of lists."""
    if ops.is_tensor(x):
        return ops.convert_to_numpy(x)
    try:
        return np.asarray(x)
    except ValueError:
        return np.array([*x, None], object)[:-1]


def _measures(array: np.ndarray) -> list[float]:
    sizes = list(map(float, array.shape[1:]))
    return [*sizes, float(array.min()), float(array.max())] if array.dtype.kind in "iu" and array.size else sizes


def _arrays(inputs: Any) -> Any:
    if isinstance(inputs, (list, tuple)) and not holds_arrays(inputs):
        return as_numpy(inputs)  # rows as nested lists
    return keras.tree.map_structure(as_numpy, inputs)
