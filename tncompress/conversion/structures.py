"""What models take: arrays and symbolic tensors in dicts, lists and tuples."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops


def as_floats(tensor: Any) -> np.ndarray:
    """A tensor as float32 of numpy, whose linear algebra does not know bfloat16."""
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def symbolic_inputs(model: keras.Model) -> Any:
    """What a functional or sequential model was built of; None for another one."""
    try:
        return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    except (AttributeError, ValueError):
        return None


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
        return f"{'text' if is_text(x) else dtype} [{shape}]"
    return f"{type(x).__name__} of {len(x)}" if hasattr(x, "__len__") else type(x).__name__


def holds_arrays(x: Any) -> bool:
    """Inputs side by side, and not the rows of one as nested lists."""
    return isinstance(x, (list, tuple)) and bool(x) and all(hasattr(i, "shape") or isinstance(i, Mapping) for i in x)


def is_text(x: Any) -> bool:
    """Whether there are strings among the arrays."""
    if isinstance(x, Mapping):
        return any(map(is_text, x.values()))
    if isinstance(x, (list, tuple)):
        return any(map(is_text, x))
    is_array = isinstance(x, np.ndarray) and x.dtype.kind in "OSU" and x.size
    return isinstance(x.flat[0] if is_array else x, (str, bytes))
