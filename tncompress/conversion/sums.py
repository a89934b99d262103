"""Where the outputs of layers are added to something, found by experiment.

A layer at the end of a residual branch makes an output y that is added to a residual stream. What a model's code does
with y cannot be read off in general, but it can be tried: nudge y by d, and see whether the input of a later layer
moves by just d. Then that input is z = y + (what was there without y).
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tncompress.conversion.events import Event, Layers, observed
from tncompress.conversion.structures import as_floats

ROUNDINGS = 16  # units in the last place of the largest number, by which a sum may be off
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def find_sums(model: keras.Model, layers: Layers, paths: Iterable[str], batch: Any) -> dict[str, Event]:
    """For layers whose output is added to something: whose input the sum is, where it is first seen.

    Args:
        model: a built Keras model; it stays as it is.
        layers: all of its layers by path, each once.
        paths: of dense layers that are tried. Those that a pass calls more than once have no sum here, nor have those
            with an activation.
        batch: a few rows of what the model takes as input.

    Example:
        find_sums(encoder, layers, ["block_0/feed_forward/output_dense"], batch)
        # {'block_0/feed_forward/output_dense': Event(kind='input', path='block_0/feed_forward_norm', number=0)}
    """
    tried = [path for path in paths if layers[path].activation in (None, keras.activations.linear)]
    usual = observed(model, layers, batch, nudges=dict.fromkeys(tried, 0.0))
    found = {}
    for path in tried:
        if Event("output", path) in usual and Event("output", path, 1) not in usual:
            sum_ = _sum_of(model, layers, batch, path, usual)
            if sum_ is not None:
                found[path] = sum_
    return found


def _sum_of(model: keras.Model, layers: Layers, batch: Any, path: str, usual: Mapping[Event, Any]) -> Event | None:
    made = as_floats(usual[Event("output", path)])
    candidates = _as_large(usual, made)
    if not candidates:
        return None
    nudge = (float(made.std()) or 1.0) * (1 + np.random.default_rng(0).random(made.shape))
    for event, value in observed(model, layers, batch, candidates, nudges={path: nudge}).items():
        before, after = as_floats(usual[event]).ravel(), as_floats(value).ravel()
        dtypes = (keras.backend.standardize_dtype(value.dtype), layers[path].compute_dtype)
        rounding = ROUNDINGS * max(EPSILON[dtype] for dtype in dtypes)
        if np.abs(after - before - nudge.ravel()).max() <= rounding * (np.abs(after).max() + nudge.max()):
            return event
    return None


def _as_large(usual: Mapping[Event, Any], made: np.ndarray) -> Collection[Event]:
    """Inputs that can be y and something else: as many numbers, and not y itself."""
    inputs = {event: value for event, value in usual.items() if event.kind == "input" and hasattr(value, "shape")}
    return {
        event
        for event, value in inputs.items()
        if keras.backend.standardize_dtype(value.dtype) in EPSILON
        and np.prod(value.shape) == made.size
        and not np.array_equal(as_floats(value).ravel(), made.ravel())
    }
