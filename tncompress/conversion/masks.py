"""Masks of calibration batches: which of them there are, and which vectors of a layer they leave out."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
from keras import ops

from tncompress.conversion.batches import num_rows
from tncompress.conversion.misfit import told

MASK_KEYS = ("input_mask", "attention_mask", "padding_mask", "mask")
SIDES = {"encoder": "enc", "decoder": "dec"}  # of models with two lengths, and what is in the paths of their layers

Mask = str | Callable[[Any], Any] | None
Given = np.ndarray | Mapping[str, np.ndarray] | None  # of a batch, bool: one mask, or those of the two sides


def check_mask(mask: Any) -> None:
    """Refuse what can be no mask.

    Raises:
        TypeError: it is neither a text nor a function.
    """
    if mask is not None and not isinstance(mask, str) and not callable(mask):
        raise TypeError(
            "mask is the key of a mask among the inputs, or a function of the batch that gives an array "
            f"[batch, length], got {type(mask).__name__}; for an array a, put it into the batches or give a function."
        )


def mask_of(x: Any, mask: Mask, number: int, source: str = "calibration") -> Given:
    """Which positions of a batch count, bool, rows first; None if nothing is known of padding.

    Args:
        x: what the model takes.
        mask: see `tncompress.calibrate`.
        number: of the batch, for the message.
        source: what the batch is for, likewise.

    Raises:
        ValueError: the batch has no mask of that name, or the function gives none.
    """
    where = f"{source} batch {number}"
    if callable(mask):
        try:
            found = mask(x)
        except Exception as error:  # whatever the user's code says
            raise ValueError(
                f"The function mask= fails on {where} ({told(error)}); it takes what the model takes and gives an "
                "array [batch, length]."
            ) from error
        return _checked(found, num_rows(x), "The function mask= gives", where)
    if isinstance(mask, str):
        if not isinstance(x, Mapping) or mask not in x:
            keys = sorted(x) if isinstance(x, Mapping) else type(x).__name__
            raise ValueError(f"{where.capitalize()} has no {mask!r} to mask with; it holds {keys}.")
        return _checked(x[mask], num_rows(x), f"mask={mask!r} is", where)
    if not isinstance(x, Mapping):
        return None
    plain, *sided = (
        next((x[start + key] for key in MASK_KEYS if start + key in x), None)
        for start in ("", *(f"{side}_" for side in SIDES))
    )
    if all(value is None for value in sided):
        return None if plain is None else _bool(plain)
    if sided[0] is None:  # as in Hugging Face's models: the encoder's goes without a name
        sided[0] = plain
    return {side: _bool(value) for side, value in zip(SIDES, sided, strict=True) if value is not None}


def _bool(value: Any) -> np.ndarray:
    return ops.convert_to_numpy(value).astype(bool)


def _checked(value: Any, rows: int, what: str, where: str) -> np.ndarray:
    try:
        array = np.asarray(ops.convert_to_numpy(value))
        kind = array.dtype.kind
    except Exception:  # whatever Keras's backend says
        array, kind = None, ""
    if array is None or kind not in "biuf":
        raise ValueError(
            f"{what} {type(value).__name__} in {where}; a mask is an array "
            "[batch, length], true where a position counts."
        )
    if array.ndim == 0 or (rows and len(array) != rows):
        raise ValueError(
            f"{what} an array of shape {list(array.shape)} in {where} of {rows} rows; a mask is an "
            f"array [batch, length], here [{rows}, length]."
        )
    return array.astype(bool)


def is_unusable(given: Given) -> bool:
    """Whether a mask is of more than the positions, and not of attention."""
    return isinstance(given, np.ndarray) and positions(given).ndim > 2


# -- which vectors count ---------------------------------------------------------------------------


def counted(value: Any, lead: tuple[int, ...], given: Given, path: str, *, asked: bool) -> np.ndarray | None:
    """Which vectors of a layer's input are no padding, bool as their leading axes; None: all.

    Args:
        value: the input, which may carry a Keras mask.
        lead: its axes that count vectors.
        given: the mask of the batch.
        path: of the layer.
        asked: it was asked for, so it comes before the Keras mask.
    """
    own = None if asked else getattr(value, "_keras_mask", None)
    found = None if own is None else over(_bool(own), lead)
    return over(given, lead, path) if found is None else found


def over(given: Given, lead: tuple[int, ...], path: str = "") -> np.ndarray | None:
    """A mask with the leading axes of some vectors; None if it does not fit them.

    Of the masks of two sides that of the side to which the layer belongs, if its path tells, else the only one that
    fits; what two may belong to counts only where both say so.

    >>> over(np.array([[True, False]]), (1, 3, 2)).tolist()
    [[[True, False], [True, False], [True, False]]]
    """
    if given is None:
        return None
    if isinstance(given, np.ndarray):
        return _over(given, lead)
    fitting = {side: found for side, mask in given.items() if (found := _over(mask, lead)) is not None}
    named = [side for side, part in SIDES.items() if part in path.lower()]
    if len(named) == 1 and "cross" not in path.lower():  # whose keys and values are of the other side
        return fitting.get(named[0])
    return reduce(np.logical_and, fitting.values()) if fitting else None


def _over(mask: np.ndarray, lead: tuple[int, ...]) -> np.ndarray | None:
    if mask.shape == lead:
        return mask
    mask = positions(mask)
    if mask.shape == lead:
        return mask
    if mask.ndim not in (1, 2) or not lead:
        return None
    if lead[0] == mask.size:  # rows side by side
        return _spread(mask.reshape(-1), lead, (0,))
    if lead[0] != len(mask):
        return None
    if mask.ndim == 1:
        return _spread(mask, lead, (0,))
    axis = next((axis for axis, size in enumerate(lead) if axis and size == mask.shape[1]), None)
    return None if axis is None else _spread(mask, lead, (0, axis))


def of_outputs(given: Given, shape: tuple[int, ...]) -> np.ndarray | None:
    """A mask with the first axes of a tensor that a model gives; None if it does not fit it."""
    masks = [] if given is None else [given] if isinstance(given, np.ndarray) else given.values()
    found = []
    for mask in masks:
        fits = [m for m in (mask, positions(mask)) if shape[: m.ndim] == m.shape]
        # With as many axes as the tensor, one of attention has nothing to do with its last.
        found += [m for m in fits if m.ndim <= 2 or m.ndim < len(shape)][:1]
    return reduce(np.logical_and, found) if found else None


def joint(given: Given) -> np.ndarray | None:
    """One mask `[batch, length]` for all; None if two sides have other lengths."""
    if given is None or isinstance(given, np.ndarray):
        return None if given is None else positions(given)
    masks = [positions(mask) for mask in given.values()]
    return reduce(np.logical_and, masks) if len({mask.shape for mask in masks}) == 1 else None


def _spread(mask: np.ndarray, lead: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    shape = [size if axis in axes else 1 for axis, size in enumerate(lead)]
    return np.broadcast_to(mask.reshape(shape), lead)


def positions(mask: np.ndarray) -> np.ndarray:
    """A mask as `[batch, length]`, if it tells of positions: without axes of size 1, and of attention the keys.

    A key is padding where no query may see it; so a causal mask has no padding.

    >>> positions(np.tri(3, dtype=bool)[None] & [True, True, False]).tolist()
    [[True, True, False]]
    """
    while mask.ndim > 2 and 1 in mask.shape[1:]:
        mask = mask.squeeze(1 + mask.shape[1:].index(1))
    if mask.ndim > 2 and mask.shape[-1] == mask.shape[-2]:
        mask = mask.any(axis=tuple(range(1, mask.ndim - 1)))
    return mask
