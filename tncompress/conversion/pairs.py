"""Pairs of dense layers with nothing but unit-by-unit work between them, found by experiment.

Of such a pair a hidden unit can be taken out: a column of the first kernel and a row of the second. What a model's code
does between two layers cannot be read off in general, but it can be tried: nudge some units of the first layer's
outputs, and look at which inputs of the second change, and whether anything else in the model notices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.batches import rows_of
from tncompress.conversion.dense_maps import DenseLayer, dense_map
from tncompress.conversion.sites import Site
from tncompress.conversion.structures import as_floats
from tncompress.conversion.walking import locate
from tncompress.conversion.watching import answered, preactivated, watched

ROWS = slice(2)  # of the batch that are tried


@dataclass(frozen=True)
class Pair:
    """Layers that share hidden units.

    Args:
        first: paths of the layers that make the hidden units: one, or two if the units are gated by others.
        second: path of the layer that takes them, and the only one that does.
    """

    first: tuple[str, ...]
    second: str


def find_pairs(model: keras.Model, sites: Sequence[Site], batch: Any) -> list[Pair]:
    """The pairs among dense layers of a model, as one batch shows them; no layer is in two of them.

    Args:
        model: a built Keras model; it stays as it is.
        sites: of layers that may be taken; shared ones never are.
        batch: what the model takes as input. A few rows are enough, and no more are used.
    """
    by_path = {site.path: site for site in sites if not site.aliases and not site.is_table}
    layers = {path: layer for path, layer in locate(model, list(by_path)).items() if _has_single_axes(layer)}
    if len(layers) < 2:
        return []
    trial = _Trial(model, layers, rows_of(batch, ROWS))
    pairs, taken = [], set()
    for position, second in enumerate(trial.order):
        width = by_path[second].in_dim
        # Nearest before it first; a layer farther up that passes the same test would be gated by the nearer.
        before = [p for p in trial.order[max(0, position - 2) : position] if by_path[p].out_dim == width]
        first = tuple(path for path in before if path not in taken and trial.feeds(path, second))
        if second not in taken and first and trial.only_through(first, second) and trial.narrows(first, second):
            pairs.append(Pair(first, second))
            taken |= {*first, second}
    return pairs


def _has_single_axes(layer: DenseLayer) -> bool:
    """Features lie on one axis: heads of attention by their features, say, stay as they are."""
    found = dense_map(layer)
    return len(found.in_shape) == len(found.out_shape) == 1


def _has_units(layer: keras.layers.Layer) -> bool:
    """Features lie on one axis on both sides: those of heads cannot leave one by one."""
    found = dense_map(layer)
    return len(found.in_shape) == len(found.out_shape) == 1


class _Trial:
    """One batch, run again and again with something changed."""

    def __init__(self, model: keras.Model, layers: Mapping[str, keras.layers.Layer], batch: Any):
        self._model, self._layers, self._batch = model, layers, batch
        calls: list[tuple[str, np.ndarray]] = []
        self._made: dict[str, Any] = {}

        def look(path: str, y: Any) -> Any:
            self._made[path] = y
            return y

        with watched(layers, lambda path, x: calls.append((path, as_floats(x)))), preactivated(layers, look):
            self._outputs = _floats(model(batch, training=False))
        paths = [path for path, _ in calls]
        self._inputs = {path: x for path, x in calls if paths.count(path) == 1}
        self.order = [path for path in paths if path in self._inputs]

    def feeds(self, first: str, second: str) -> bool:
        """Every unit of `first` changes its own input of `second`, and no other one."""
        width = self._inputs[second].shape[-1]
        chosen = np.random.default_rng(0).permutation(width) < (width + 1) // 2
        for nudged in (chosen, ~chosen) if width > 1 else (chosen,):
            changed = self._inputs_changed(first, nudged, second)
            if changed is None or changed[~nudged].any() or not changed[nudged].any():
                return False
        return True

    def _inputs_changed(self, first: str, nudged: np.ndarray, second: str) -> np.ndarray | None:
        """Which inputs of `second` change with the nudged units of `first`; None if it is not called as before."""
        seen: list[np.ndarray] = []
        with watched({second: self._layers[second]}, lambda _, x: seen.append(as_floats(x))):
            self._nudged_outputs((first,), nudged)
        usual = self._inputs[second]
        if len(seen) != 1 or seen[0].shape != usual.shape:
            return None
        return (seen[0] != usual).reshape(-1, usual.shape[-1]).any(axis=0)

    def only_through(self, first: Sequence[str], second: str) -> bool:
        """Whatever `first` gives, the model's outputs are the same as long as `second` makes what it made."""
        with answered(self._layers[second], lambda _: self._usual(second)):
            outputs = self._nudged_outputs(first, np.ones(self._inputs[second].shape[-1]))
        return all(np.array_equal(a, b) for a, b in zip(outputs, self._outputs, strict=True))

    def narrows(self, first: Sequence[str], second: str) -> bool:
        """With half of the hidden units, the model runs, and `second` gets so many."""
        half = (self._inputs[second].shape[-1] + 1) // 2
        widths: list[int] = []

        def answer(x: Any) -> Any:
            widths.append(x.shape[-1])
            return self._usual(second)

        layers = {path: self._layers[path] for path in first}
        try:
            with answered(self._layers[second], answer), preactivated(layers, lambda _, y: y[..., :half]):
                self._model(self._batch, training=False)
        except Exception:  # whatever the code between says to fewer units, from whichever library
            return False
        return widths == [half]

    def _usual(self, path: str) -> Any:
        activation = self._layers[path].activation
        return self._made[path] if activation is None else activation(self._made[path])

    def _nudged_outputs(self, paths: Sequence[str], units: np.ndarray) -> list[np.ndarray]:
        """The model's outputs with random amounts added to these units of the outputs of the layers at `paths`."""
        draw = np.random.default_rng(1)

        def nudge(path: str, y: Any) -> Any:
            spread = float(np.std(as_floats(y))) or 1.0
            amount = spread * (1 + draw.random(tuple(y.shape))) * units
            return ops.add(y, ops.cast(amount, y.dtype))

        with preactivated({path: self._layers[path] for path in paths}, nudge):
            return _floats(self._model(self._batch, training=False))


def _floats(outputs: Any) -> list[np.ndarray]:
    return [as_floats(tensor) for tensor in keras.tree.flatten(outputs)]
