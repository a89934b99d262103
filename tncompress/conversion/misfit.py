"""Why a model does not take a batch, in one sentence."""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tncompress.conversion.surgery import first_line

# What TensorFlow writes around the reason why one of its operations failed: its node and its name.
ENGINE = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*")


def misfit(model: keras.Model, x: Any, reason: str | Exception, number: int) -> str:
    """One sentence about a batch that a model does not take: what it wants, what it got, what it says itself.

    Where it got what it wants, but for what is in it, only the two last; and what to do, where that is known.
    """
    wanted, matched = _wanted(model), _matched(model, x)
    is_alike = bool(matched) and all(_is_alike(tensor.shape, array.shape) for _, tensor, array in matched)
    takes = f"it takes {wanted} and got {described(x)}" if wanted and not is_alike else f"it got {described(x)}"
    why = f" ({reason if isinstance(reason, str) else ENGINE.sub('', first_line(reason))})"
    named = _named_inputs(model)
    if _is_text(x) and "string" not in wanted:
        why = "; texts have to be tokenised first: give the arrays that a tokenizer makes of them"
    elif hasattr(x, "shape") and len(named) > 1:
        each = "such a dict" if isinstance(_structure(model), Mapping) else f"[{', '.join(named)}]"
        why = f"; give all inputs at once as a dict of arrays, {' and '.join(named)}, or a list of batches, each {each}"
    return f"The model {model.name!r} does not take calibration batch {number}: {takes}{why}."


def wrong_numbers(model: keras.Model, x: Any) -> str | None:
    """What is wrong with the numbers of a batch that Keras would round to whole ones; None if nothing is.

    >>> entry = keras.Input((2,), dtype="int32", name="ids")
    >>> wrong_numbers(keras.Model(entry, keras.layers.Embedding(9, 2)(entry)), np.array([[1.0, 2.5]]))
    'ids are whole numbers, and these are not'
    """
    for name, wanted, array in _matched(model, x):
        is_float = isinstance(array, np.ndarray) and array.dtype.kind == "f"
        if is_float and "int" in keras.backend.standardize_dtype(wanted.dtype) and np.any(array != np.trunc(array)):
            return f"{name} are whole numbers, and these are not"
    return None


def _structure(model: keras.Model) -> Any:
    """Symbolic inputs of a functional or sequential model, as they were given; None of another one."""
    structure = getattr(model, "_inputs_struct", None)
    if structure is None:
        structure = getattr(model, "inputs", None)
    return structure[0] if isinstance(structure, (list, tuple)) and len(structure) == 1 else structure


def _wanted(model: keras.Model) -> str:
    structure = _structure(model)
    return "" if structure is None else described(structure)


def _named_inputs(model: keras.Model) -> dict[str, Any]:
    """The symbolic inputs by the names under which a dict may give them; of a model that says none, none."""
    structure = _structure(model)
    if isinstance(structure, Mapping):
        found = dict(structure)
    else:
        found = {} if structure is None else {tensor.name: tensor for tensor in keras.tree.flatten(structure)}
    return found if all(hasattr(tensor, "shape") for tensor in found.values()) else {}


def _matched(model: keras.Model, x: Any) -> list[tuple[str, Any, Any]]:
    """Name, symbolic input and array, if a batch has an array for every input of the model; else none."""
    named = _named_inputs(model)
    if isinstance(x, Mapping):
        given = [x.get(name) for name in named]
    else:
        given = list(x) if isinstance(x, (list, tuple)) and len(x) == len(named) else [x] * (len(named) == 1)
    matched = list(zip(named, named.values(), given, strict=False))
    return matched if matched and all(hasattr(array, "shape") for array in given) else []


def _is_alike(wanted: Any, given: Any) -> bool:
    return len(wanted) == len(given) and all(size in (None, other) for size, other in zip(wanted, given, strict=True))


def _is_text(x: Any) -> bool:
    if isinstance(x, Mapping):
        return any(map(_is_text, x.values()))
    if isinstance(x, (list, tuple)):
        return any(map(_is_text, x))
    is_array = isinstance(x, np.ndarray) and x.dtype.kind in "OSU" and x.size
    return isinstance(x.flat[0] if is_array else x, (str, bytes))


def described(x: Any) -> str:
    """Shapes and dtypes of arrays in a structure.

    >>> described({"ids": np.zeros((2, 3), "int32")})
    '{ids: int32 [2, 3]}'
    """
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{key}: {described(value)}" for key, value in x.items()) + "}"
    if holds_arrays(x):
        return f"{type(x).__name__} of {', '.join(map(described, x))}"
    if hasattr(x, "shape"):
        shape = ", ".join("any" if size is None else str(size) for size in x.shape)
        # Keras has no name for the dtypes of texts
        dtype = x.dtype.name if isinstance(x, np.ndarray) else keras.backend.standardize_dtype(x.dtype)
        return f"{'text' if _is_text(x) else dtype} [{shape}]"
    return f"{type(x).__name__} of {len(x)}" if hasattr(x, "__len__") else type(x).__name__


def holds_arrays(x: Any) -> bool:
    """Inputs side by side, and not the rows of one as nested lists."""
    return isinstance(x, (list, tuple)) and bool(x) and all(hasattr(i, "shape") or isinstance(i, Mapping) for i in x)
