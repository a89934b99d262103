"""The dict that goes into an encoder, checked and made int32."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

# The dict of inputs, each int32 [B, S]; the text side makes arrays with the same names.
INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")
POSITIONS_NAME = "masked_lm_positions"  # int32 [B, P], also wanted for masked-LM predictions


def checked_inputs(inputs: Any, names: Sequence[str], model: str) -> Any:
    """The inputs with every tensor as int32.

    Any integer type is converted; a float is refused, for ids are never fractions.

    Args:
        inputs: what a caller passed: a dict of [B, S] tensors, arrays, nested lists or symbolic Keras tensors.
        names: keys that it must have, no more and no fewer.
        model: name for the messages.

    Raises:
        TypeError: not a dict, or not integers.
        ValueError: a key is missing or unknown, or a tensor has not two axes.

    >>> checked_inputs({"input_mask": [[1.0]]}, ["input_mask"], "encoder")
    Traceback (most recent call last):
    TypeError: encoder: input_mask must be integers, got float32. ...
    """
    if not isinstance(inputs, Mapping):
        raise TypeError(f"{model}: the input must be a dict with {_listed(names)}, got {type(inputs).__name__}.")
    missing = [name for name in names if name not in inputs]
    unknown = [str(name) for name in inputs if name not in names]
    if missing or unknown:
        raise ValueError(
            f"{model}: the input must be a dict with {_listed(names)}; "
            f"missing: {_listed(missing)}; not known: {_listed(unknown)}."
        )
    return {name: _ids(inputs[name], name, model) for name in names}


def _ids(value: Any, name: str, model: str) -> Any:
    if not hasattr(value, "dtype"):
        value = ops.convert_to_tensor(value)
    dtype = keras.backend.standardize_dtype(value.dtype)
    if "int" not in dtype:  # a bool as mask would be one fault hidden; say it
        raise TypeError(
            f"{model}: {name} must be integers, got {dtype}. Give int32 ids (other integers are converted to int32)."
        )
    if len(value.shape) != 2:
        raise ValueError(f"{model}: {name} must have the shape [batch, tokens], got {tuple(value.shape)}.")
    return value if dtype == "int32" else ops.cast(value, "int32")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
