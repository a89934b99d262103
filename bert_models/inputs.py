"""The dict that goes into an encoder, checked and made int32."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
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
        ValueError: a key is missing or unknown, a tensor has not two axes, or one has other rows than the rest.

    >>> checked_inputs({"input_mask": [[1.0]]}, ["input_mask"], "encoder")
    Traceback (most recent call last):
    TypeError: encoder: input_mask must be integers, got float64. ...
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
    checked = {name: _ids(inputs[name], name, model) for name in names}
    _check_shapes(checked, model)
    return checked


def check_range(ids: Any, rows: int | None, model: str, name: str, advice: str) -> None:
    """Refuse ids that are not from 0 to `rows` - 1, where their values are at hand, see `_values`.

    Raises:
        ValueError: with the range and `advice`.

    >>> check_range(np.array([[0, 9]]), 9, "encoder", "input_word_ids", "Use its own tokenizer.")
    Traceback (most recent call last):
    ValueError: encoder: input_word_ids must be from 0 to 8, got 0 to 9. Use its own tokenizer.
    """
    values = _values(ids)
    if rows is None or values is None or not values.size:
        return
    low, high = values.min(), values.max()
    if low < 0 or high >= rows:
        raise ValueError(f"{model}: {name} must be from 0 to {rows - 1}, got {low} to {high}. {advice}")


def _values(ids: Any) -> np.ndarray | None:
    """The numbers in a tensor that is no trace and lies in the processor's own memory; None for any other.

    On an accelerator it would take a copy to look; there an id beyond the table is the backend's own error, or none.
    """
    if isinstance(ids, np.ndarray):
        return ids
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return ids.numpy() if hasattr(ids, "numpy") else None
    if backend == "torch":
        return ids.numpy() if getattr(getattr(ids, "device", None), "type", None) == "cpu" else None
    if backend == "jax":
        import jax

        concrete = isinstance(ids, jax.Array) and not isinstance(ids, jax.core.Tracer)
        return np.asarray(ids) if concrete and all(d.platform == "cpu" for d in ids.devices()) else None
    return None


def _ids(value: Any, name: str, model: str) -> Any:
    if type(value).__name__ == "RaggedTensor":
        raise ValueError(f"{model}: {name} is ragged; pad its rows with 0 to equal lengths, as with value.to_tensor().")
    value = value if hasattr(value, "dtype") else _array(value, name, model)
    dtype = getattr(value.dtype, "name", str(value.dtype)).removeprefix("torch.")
    if "int" not in dtype:  # a bool as mask would be one fault hidden; say it
        raise TypeError(
            f"{model}: {name} must be integers, got {dtype}. Give int32 ids (other integers are converted to int32)."
        )
    if len(value.shape) != 2:
        raise ValueError(f"{model}: {name} must have the shape [batch, tokens], got {tuple(value.shape)}.")
    if value.shape[1] == 0:
        raise ValueError(f"{model}: {name} must have at least one token a row, got the shape {tuple(value.shape)}.")
    if dtype != "int32":
        _check_fits(value, name, model)
    if isinstance(value, np.ndarray):  # Keras refuses a dict of arrays and tensors both
        return ops.convert_to_tensor(value, "int32")
    return value if dtype == "int32" else ops.cast(value, "int32")


def _check_fits(value: Any, name: str, model: str) -> None:
    """Refuse what would become another number as int32."""
    values, limits = _values(value), np.iinfo("int32")
    if values is not None and values.size and not limits.min <= values.min() <= values.max() <= limits.max:
        raise ValueError(f"{model}: {name} must fit into int32, got {values.min()} to {values.max()}.")


def _array(value: Any, name: str, model: str) -> np.ndarray:
    """Nested lists as an array; of anything else NumPy makes one of objects, which are no integers."""
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(
            f"{model}: {name} must have the shape [batch, tokens], every row as long as the others; pad them with 0."
        ) from error


def _check_shapes(tensors: Mapping[str, Any], model: str) -> None:
    """Every tensor has the shape of the first, except that of positions, which has as many rows."""
    (first, wanted), *rest = ((name, tuple(tensor.shape)) for name, tensor in tensors.items())
    for name, shape in rest:
        axes = 1 if name == POSITIONS_NAME else 2
        pairs = zip(wanted[:axes], shape[:axes], strict=True)
        # A size that is not known yet is None, or in a trace by JAX a symbol that cannot be compared.
        if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
            need = f"{wanted[0]} rows" if axes == 1 else f"the shape {wanted}"
            raise ValueError(f"{model}: {name} must have {need}, as {first} has, got the shape {shape}.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
