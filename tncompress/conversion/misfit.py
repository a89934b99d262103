"""Why a model does not take a batch, in one sentence."""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tncompress.conversion.structures import described, is_text, symbolic_inputs
from tncompress.conversion.surgery import first_line

# What TensorFlow writes around the reason why one of its operations failed: its node and its name.
ENGINE = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*")


def misfit(
    model: keras.Model,
    x: Any,
    reason: str | Exception,
    number: int,
    source: str = "calibration",
    role: str = "model",
) -> str:
    """One sentence about a batch that a model does not take: what it wants, what it got, what it says itself.

    Where it got what it wants, but for what is in it, only the two last; and what to do, where that is known.

    Args:
        model: of this role.
        x: the batch, of this number, of the data for this.
        reason: why not.
    """
    wanted, matched = _wanted(model), _matched(model, x)
    is_alike = bool(matched) and all(_is_alike(tensor.shape, array.shape) for _, tensor, array in matched)
    takes = f"it takes {wanted} and got {described(x)}" if wanted and not is_alike else f"it got {described(x)}"
    why = f" ({reason if isinstance(reason, str) else ENGINE.sub('', first_line(reason))})"
    named = _named_inputs(model)
    if is_text(x) and "string" not in wanted:
        why = "; texts have to be tokenised first: give the arrays that a tokenizer makes of them"
    elif hasattr(x, "shape") and len(named) > 1:
        each = "such a dict" if isinstance(symbolic_inputs(model), Mapping) else f"[{', '.join(named)}]"
        why = f"; give all inputs at once as a dict of arrays, {' and '.join(named)}, or a list of batches, each {each}"
    return f"The {role} {model.name!r} does not take {source} batch {number}: {takes}{why}."


def told(error: Exception) -> str:
    """What an error of a user's own code says, with its kind: some say nothing else.

    >>> told(KeyError("ids"))
    "KeyError: 'ids'"
    """
    return f"{type(error).__name__}: {ENGINE.sub('', first_line(error))}" if str(error) else type(error).__name__


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


def _wanted(model: keras.Model) -> str:
    structure = symbolic_inputs(model)
    if isinstance(structure, (list, tuple)) and len(structure) == 1:
        structure = structure[0]
    return "" if structure is None else described(structure)


def _named_inputs(model: keras.Model) -> dict[str, Any]:
    """The symbolic inputs by the names under which a dict may give them; of a model that says none, none."""
    structure = symbolic_inputs(model)
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
