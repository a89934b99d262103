"""Random input for any model that says what it takes."""

import sys
from typing import Any

import numpy as np

FEW_ROWS = 16  # of a table that is of segments and the like


def random_inputs(model: Any, rows: int, length: int) -> Any:
    """Random input of the shapes that a model takes: ids of its tables, masks of ones, types of zeros.

    Args:
        model: with known inputs.
        rows: of the batch.
        length: of axes whose length is open.

    Raises:
        ValueError: the model does not say what it takes.
    """
    from tncompress.conversion.structures import symbolic_inputs

    struct = symbolic_inputs(model)
    if struct is None:
        raise ValueError(
            f"The model {model.name} does not say what shape of input it takes; give arrays, as .npy or .npz."
        )
    import keras

    generator, most = np.random.default_rng(0), _ids(model)

    def drawn(tensor: Any) -> np.ndarray:
        shape = (rows, *(size or length for size in tensor.shape[1:]))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if "mask" in tensor.name or "type" in tensor.name or "segment" in tensor.name:
            return np.full(shape, int("mask" in tensor.name), dtype)
        if "int" in dtype:
            return generator.integers(0, most, shape).astype(dtype)
        return generator.normal(size=shape).astype(dtype)

    return keras.tree.map_structure(drawn, struct)


def has_length(model: Any) -> bool:
    """Whether an axis of a model's inputs is open besides that of the batch, so that a length decides it."""
    import keras

    from tncompress.conversion.structures import symbolic_inputs

    return any(None in tensor.shape[1:] for tensor in keras.tree.flatten(symbolic_inputs(model)))


def _ids(model: Any) -> int:
    """Ids below this are in every table of words."""
    from tncompress.conversion.sites import find_sites

    if known := getattr(getattr(model, "config", None), "vocab_size", None):  # of an encoder
        return known
    sizes = [site.in_dim for site in find_sites(model) if site.is_table]
    words = [size for size in sizes if size > FEW_ROWS]  # the others are of segments and the like
    return min(words or sizes, default=2)


def check_length(model: Any, length: int) -> None:
    """Refuse more positions than an encoder has."""
    most = getattr(getattr(model, "config", None), "max_positions", sys.maxsize)
    if not 1 <= length <= most:
        raise ValueError(f"--length is from 1 to the {most} positions of the model, got {length}.")
