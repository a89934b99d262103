"""Passes of batches through a model: forward, for what layers see, and back, for what an objective makes of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.batches import counted, rows_of, run_batch
from tncompress.conversion.dense_maps import dense_map
from tncompress.conversion.gradients import Objective, gradients_at, selection
from tncompress.conversion.watching import Enough, watched
from tncompress.fitting.frequencies import TokenCounts, token_counts
from tncompress.fitting.moments import Gathering, Moments, Spread

HELD_OUT_EVERY = 100  # rows: so few that the moments hardly miss them
HELD_OUT_VECTORS = 1000  # of a layer, at least where there are so many, and at most twice as many
SLICE_BYTES = 32e6  # that a model's dense layers make in one pass with gradients; about four times as much is kept

Layers = Mapping[str, keras.layers.Layer]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer.

    Args:
        path: of the layer.
        counts: which of its vectors are no padding, bool `[rows, vectors of a row]`; None: all.
        vectors: of a row, how many.
    """

    path: str
    counts: np.ndarray | None
    vectors: float


class Forward:
    """What layers see, gathered batch by batch."""

    def __init__(self, model: keras.Model, layers: Layers):
        self._model, self._layers = model, layers
        self._moments: dict[str, Gathering] = {}
        self._tokens: dict[str, np.ndarray] = {}
        self._held_out: dict[str, _Thinned] = {}
        self._last: int | None = None  # calls until all layers had their only one; None: not known

    def run(self, x: Any, given: np.ndarray | None, rows: range, number: int) -> list[Call]:
        """Add one batch.

        Args:
            x: what the model takes.
            given: its mask `[rows, length]`.
            rows: numbers of its rows in all data.
            number: its own, for messages.

        Raises:
            ValueError: the model does not take it, or a layer sees what is not finite.
        """
        apart = np.array([row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 for row in rows])
        calls: list[Call] = []
        not_finite: list[str] = []  # an error from within a call would get Keras's long story around it
        ids: list[tuple[str, np.ndarray, np.ndarray | None]] = []

        def see(path: str, value: Any) -> None:
            is_table = isinstance(self._layers[path], keras.layers.Embedding)
            lead = tuple(value.shape) if is_table else tuple(value.shape[:-1])
            counts = counted(value, lead, given)
            by_row = _by_row(lead, counts, len(rows))
            calls.append(Call(path, None if counts is None else by_row, math.prod(lead) / len(rows)))
            if is_table:
                ids.append((path, ops.convert_to_numpy(value), counts))
            elif not self._add(path, ops.convert_to_numpy(ops.cast(value, "float32")), by_row, counts, apart):
                not_finite.append(path)
            if len(calls) == self._last:
                raise Enough

        try:
            with watched(self._layers, see):
                run_batch(self._model, x, number)
        except Enough:
            pass
        if not_finite:
            raise ValueError(
                f"The layer {not_finite[0]!r} sees NaN or infinity in calibration batch {number}; remove it."
            )
        for path, array, counts in ids:
            found = token_counts([(array, counts)], self._layers[path].input_dim)
            self._tokens[path] = self._tokens.get(path, 0) + found
        if self._last is None and sorted(call.path for call in calls) == sorted(self._layers):
            self._last = len(calls)  # every layer once: what comes after the last need not be computed
        return calls

    def _add(
        self, path: str, x: np.ndarray, by_row: np.ndarray | None, counts: np.ndarray | None, apart: np.ndarray
    ) -> bool:
        """Add vectors to what they belong to; whether all of them are finite."""
        width = x.shape[-1]
        if by_row is None:  # vectors of which it is not known to which row they belong
            here, there = x[counts] if counts is not None else x.reshape(-1, width), None
        else:
            x = x.reshape(*by_row.shape, width)
            here, there = x[by_row & ~apart[:, None]], x[by_row & apart[:, None]] if apart.any() else None
        self._moments.setdefault(path, Gathering(width)).add(here)
        if there is not None:
            self._held_out.setdefault(path, _Thinned()).add(there)
        return is_finite(here)

    def seen(self) -> dict[str, Moments | TokenCounts]:
        """Of all layers that were called."""
        moments = {path: gathering.moments() for path, gathering in self._moments.items()}
        return {**moments, **{path: TokenCounts(counts) for path, counts in self._tokens.items()}}

    def held_out(self) -> dict[str, np.ndarray]:
        """Some of the vectors `[n, in_dim]` that are not in the moments."""
        return {path: thinned.array() for path, thinned in self._held_out.items()}


class Backward:
    """An objective's gradients at the outputs of layers, gathered batch by batch."""

    def __init__(self, model: keras.Model, layers: Layers, objective: Objective):
        self._model, self._layers, self._objective = model, layers, objective
        self._moments: dict[str, Gathering] = {}
        self.spreads: list[Spread] = []
        # A kernel makes about so many numbers as its matrix has rows or columns.
        made = sum(math.sqrt(math.prod(weight.shape)) for weight in model.weights if len(weight.shape) > 1)
        self._vectors = SLICE_BYTES / 4 / max(made, 1)

    def run(
        self, x: Any, given: np.ndarray | None, rows: range, calls: Sequence[Call], chosen: slice, number: int
    ) -> None:
        """Add the chosen rows of one batch, a few at a time: a pass with gradients keeps all that is computed in it.

        Args:
            x, given, rows, number: as of `Forward.run`, which gave the calls.
            calls: of layers in this batch.
            chosen: rows that give gradients.
        """
        few = max(1, int(self._vectors / max([call.vectors for call in calls], default=1)))
        x, rows, given = rows_of(x, chosen), rows[chosen], None if given is None else given[chosen]
        counts = [None if call.counts is None else call.counts[chosen] for call in calls]
        numbers = [row // (chosen.step or 1) for row in rows]
        for start in range(0, len(rows), few):
            part = slice(start, start + few)
            wanted = selection(self._objective, None if given is None else given[part])
            gradients, tensors = gradients_at(self._model, rows_of(x, part), self._layers, wanted, numbers[part])
            for call, gradient, count in zip(calls, gradients, counts, strict=True):
                self._add(call.path, gradient, None if count is None else count[part], number)
            spreads = [Spread.of(tensor) for tensor in tensors]
            self.spreads = added(self.spreads, spreads) if self.spreads else spreads

    def _add(self, path: str, gradient: np.ndarray, counts: np.ndarray | None, number: int) -> None:
        layer = self._layers[path]
        width = dense_map(layer).out_dim if isinstance(layer, keras.layers.EinsumDense) else gradient.shape[-1]
        gradient = gradient.reshape(-1, width)
        if counts is not None:
            gradient = gradient[counts.reshape(-1)]
        if not is_finite(gradient):
            raise ValueError(f"The objective's gradient at the layer {path!r} is NaN or infinity in batch {number}.")
        self._moments.setdefault(path, Gathering(width)).add(gradient)

    def moments(self) -> dict[str, Moments]:
        """Of gradients, by path."""
        return {path: gathering.moments() for path, gathering in self._moments.items()}


class _Thinned:
    """Vectors at even distances among all that come by, the farther apart the more there are."""

    def __init__(self):
        self._kept: list[np.ndarray] = []
        self._seen, self._every = 0, 1

    def add(self, x: np.ndarray) -> None:
        self._kept.append(x[-self._seen % self._every :: self._every].copy())
        self._seen += len(x)
        if sum(map(len, self._kept)) > 2 * HELD_OUT_VECTORS:
            self._kept, self._every = [self.array()[::2].copy()], 2 * self._every

    def array(self) -> np.ndarray:
        return np.concatenate(self._kept)


def added(first: Sequence[Spread], second: Sequence[Spread]) -> list[Spread]:
    """Spreads of the same tensors in two streams."""
    return [a + b for a, b in zip(first, second, strict=True)]


def moments_bytes(layer: keras.layers.Layer, *, with_gradients: bool) -> float:
    """What a layer's moments take in memory."""
    if isinstance(layer, keras.layers.Embedding):
        return 8.0 * layer.input_dim + 4.0 * with_gradients * layer.output_dim**2
    found = dense_map(layer)
    return 4.0 * (found.in_dim**2 + with_gradients * found.out_dim**2)


def is_finite(x: np.ndarray) -> bool:
    """Whether all numbers, and their squares, are."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.vdot(x, x)))


def _by_row(lead: tuple[int, ...], counts: np.ndarray | None, rows: int) -> np.ndarray | None:
    """The same as `[rows, vectors of a row]`; None where the first axis counts neither rows nor vectors row by row."""
    if not lead or not rows or (lead[0] != rows and (len(lead) > 1 or lead[0] % rows)):
        return None
    return np.ones((rows, math.prod(lead) // rows), bool) if counts is None else counts.reshape(rows, -1)
