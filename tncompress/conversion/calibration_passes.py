"""Passes of batches through a model: forward, for what layers see, and back, for what an objective makes of it."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.batches import numbers_of_a_row, rows_of, run_batch
from tncompress.conversion.dense_maps import dense_map
from tncompress.conversion.gradients import Objective, gradients_at, selection
from tncompress.conversion.held_out import held_out
from tncompress.conversion.masks import Given, counted
from tncompress.conversion.structures import as_floats
from tncompress.conversion.watching import Enough, watched
from tncompress.fitting.frequencies import TableUses, TokenCounts, token_counts
from tncompress.fitting.moments import Gathering, Moments, Spread

HELD_OUT_VECTORS = 1000  # of a layer, at least where there are so many, and at most twice as many
SLICE_BYTES = 48e6  # that a model's dense layers make in one pass with gradients; about four times as much is kept
SLICE = 1 / 14  # of a large model's own bytes, instead

Layers = Mapping[str, keras.layers.Layer]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer.

    Args:
        path: of the layer.
        counts: which of its vectors are no padding, bool `[rows, vectors of a row]`; None: all.
        vectors: of a row, how many.
        ids: of the tokens `[vectors]`, those that count, where it is a table of embeddings.
    """

    path: str
    counts: np.ndarray | None
    vectors: float
    ids: np.ndarray | None = None


class Forward:
    """What layers see, gathered batch by batch.

    Args:
        model: to run.
        layers: to look at, by path.
        asked: masks that are given were asked for, see `counted`.
    """

    def __init__(self, model: keras.Model, layers: Layers, *, asked: bool = False):
        self._model, self._layers, self._asked = model, layers, asked
        self._moments: dict[str, Gathering] = {}
        self._tokens: dict[str, np.ndarray] = {}
        self._held_out: dict[str, _Thinned] = {}
        self.total: int | None = None  # rows of all data; None: not known
        self.masked = False  # whether a mask fitted any layer
        self._last: int | None = None  # calls until all layers had their only one; None: not known

    def run(self, x: Any, given: Given, rows: range, number: int) -> None:
        """Add one batch.

        Args:
            x: what the model takes.
            given: its mask.
            rows: numbers of its rows in all data.
            number: its own, for messages.

        Raises:
            ValueError: the model does not take it, or a layer sees what is not finite.
        """
        with self.seeing([], given, rows, number, to_the_end=False):
            run_batch(self._model, x, number)

    @contextlib.contextmanager
    def seeing(self, calls: list[Call], given: Given, rows: range, number: int, *, to_the_end: bool) -> Iterator[None]:
        """Within the context the model is run on one batch, which is added.

        Args:
            calls: to which those of layers are appended.
            given, rows, number: as of `run`.
            to_the_end: what comes after the last layer is computed too.
        """
        apart = np.zeros(len(rows), bool)
        for part in held_out(rows, self.total):
            apart[part] = True
        not_finite: list[str] = []  # an error from within a call would get Keras's long story around it
        ids: list[tuple[str, np.ndarray, np.ndarray | None]] = []

        def see(path: str, value: Any) -> None:
            is_table = isinstance(self._layers[path], keras.layers.Embedding)
            lead = tuple(value.shape) if is_table else tuple(value.shape[:-1])
            counts = counted(value, lead, given, path, asked=self._asked)
            self.masked |= counts is not None
            by_row = _by_row(lead, counts, len(rows))
            vectors, tokens = math.prod(lead) / max(len(rows), 1), None
            if is_table:
                array = ops.convert_to_numpy(value)
                ids.append((path, array, counts))
                tokens = array.reshape(-1) if by_row is None else array.reshape(by_row.shape)[by_row]
            calls.append(Call(path, None if counts is None else by_row, vectors, tokens))
            x = None if is_table else as_floats(value)
            if x is not None and not self._add(path, x, by_row, counts, apart):
                not_finite.append(path)
            if len(calls) == self._last and not to_the_end:
                raise Enough

        with contextlib.suppress(Enough), watched(self._layers, see):
            yield
        if not_finite:
            raise ValueError(
                f"The layer {not_finite[0]!r} sees NaN or infinity in calibration batch {number}; remove it."
            )
        positions = next((call for call in calls if call.vectors > 1), None)
        if self._asked and isinstance(given, np.ndarray) and not self.masked and positions:
            shape = ", ".join(["batch", *map(str, given.shape[1:])])
            raise ValueError(
                f"mask= has the shape [{shape}], which fits none of the chosen layers ({positions.path!r} sees "
                f"{positions.vectors:g} vectors for each row of calibration batch {number}); give one [batch, length]."
            )
        for path, array, counts in ids:
            found = token_counts([(array, counts)], self._layers[path].input_dim)
            self._tokens[path] = self._tokens.get(path, 0) + found
        if self._last is None and sorted(call.path for call in calls) == sorted(self._layers):
            self._last = len(calls)  # every layer once: what comes after the last need not be computed

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
        return is_finite(here) and (there is None or is_finite(there))

    def seen(self) -> dict[str, Moments | TokenCounts]:
        """Of all layers that were called."""
        moments = {path: gathering.moments() for path, gathering in self._moments.items()}
        return {**moments, **{path: TokenCounts(counts) for path, counts in self._tokens.items()}}

    def held_out(self) -> dict[str, np.ndarray]:
        """Some of the vectors `[n, in_dim]` that are not in the moments."""
        return {path: thinned.array() for path, thinned in self._held_out.items()}


class Backward:
    """An objective's gradients at the outputs of layers, gathered batch by batch, beside what the layers see."""

    def __init__(self, model: keras.Model, layers: Layers, objective: Objective, forward: Forward):
        self._model, self._layers, self._objective, self._forward = model, layers, objective, forward
        self._moments: dict[str, Gathering] = {}
        self._tokens: dict[str, np.ndarray] = {}  # energies of gradients, and how many: [2, tokens]
        self._uses: dict[str, TableUses] = {}
        self.spreads: list[Spread] = []
        # A kernel makes about so many numbers as its matrix has rows or columns.
        made = sum(math.sqrt(math.prod(weight.shape)) for weight in model.weights if len(weight.shape) > 1)
        self._most = max(SLICE_BYTES, SLICE * 4 * model.count_params()) / 4 / max(made, 1)  # vectors
        self._vectors: float | None = None  # of the busiest layer, for each number in the inputs; None: not known

    def run(self, x: Any, given: Given, rows: range, numbers: range, number: int) -> None:
        """Add one batch, a few rows at a time: a pass with gradients keeps all that is computed in it.

        Args:
            x, given, rows, number: as of `Forward.run`, which need not see it too.
            numbers: of the rows among those that give gradients.
        """
        start = 0
        while start < len(rows):
            few = 1.0 if self._vectors is None else self._most / (self._vectors * max(numbers_of_a_row(x), 1))
            part = slice(start, start := start + max(1, int(few)))
            self._run(rows_of(x, part), rows_of(given, part), rows[part], numbers[part], number)

    def _run(self, x: Any, given: Given, rows: range, numbers: range, number: int) -> None:
        calls: list[Call] = []
        gradients, tensors, uses = gradients_at(
            self._model,
            x,
            self._layers,
            selection(self._objective, given, f"calibration batch {number}"),
            numbers,
            number,
            self._forward.seeing(calls, given, rows, number, to_the_end=True),
        )
        if not all(map(is_finite, tensors)):
            raise ValueError(f"The objective is NaN or infinity in calibration batch {number}; make it finite there.")
        for call, gradient in zip(calls, gradients, strict=True):
            self._add(call, gradient, number)
        for path, gradient in uses.items():
            _check_gradient(gradient, path, number)
            found = TableUses.of(gradient)
            self._uses[path] = self._uses[path] + found if path in self._uses else found
        self._vectors = max([call.vectors for call in calls], default=1) / max(numbers_of_a_row(x), 1)
        spreads = [Spread.of(tensor) for tensor in tensors]
        self.spreads = added(self.spreads, spreads) if self.spreads else spreads

    def _add(self, call: Call, gradient: np.ndarray, number: int) -> None:
        path, layer = call.path, self._layers[call.path]
        width = dense_map(layer).out_dim if isinstance(layer, keras.layers.EinsumDense) else gradient.shape[-1]
        gradient = gradient.reshape(-1, width)
        if call.counts is not None:
            gradient = gradient[call.counts.reshape(-1)]
        _check_gradient(gradient, path, number)
        self._moments.setdefault(path, Gathering(width)).add(gradient)
        if call.ids is not None:
            energies = np.einsum("ij,ij->i", gradient, gradient, dtype=np.float64)
            both = self._tokens.setdefault(path, np.zeros((2, layer.input_dim)))
            both += [np.bincount(call.ids, weights, layer.input_dim) for weights in (energies, None)]

    def added_to(self, seen: Mapping[str, Moments | TokenCounts]) -> dict[str, Moments | TokenCounts]:
        """What layers see, by path, with the moments of gradients, and their energies at every token."""
        found = {}
        for path, moments in seen.items():
            given: dict[str, Any] = {}
            if path in self._moments:
                given["gradients"] = self._moments[path].moments()
            if path in self._tokens and isinstance(moments, TokenCounts):
                given["energies"], given["observed"] = self._tokens[path]
                given["uses"] = self._uses.get(path)
            found[path] = replace(moments, **given)
        return found


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


def _check_gradient(gradient: np.ndarray, path: str, number: int) -> None:
    if not is_finite(gradient):
        raise ValueError(f"The objective's gradient at the layer {path!r} is NaN or infinity in batch {number}.")


def added(first: Sequence[Spread], second: Sequence[Spread]) -> list[Spread]:
    """Spreads of the same tensors in two streams."""
    return [a + b for a, b in zip(first, second, strict=True)]


def moments_bytes(layer: keras.layers.Layer, *, with_gradients: bool) -> float:
    """What a layer's moments take in memory."""
    if isinstance(layer, keras.layers.Embedding):
        return 8.0 * layer.input_dim + 2.0 * with_gradients * layer.output_dim**2
    found = dense_map(layer)
    return 2.0 * (found.in_dim**2 + with_gradients * found.out_dim**2)  # a `Packed` is half of float32


def is_finite(x: np.ndarray) -> bool:
    """Whether all numbers, and their squares, are."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.vdot(x, x)))


def _by_row(lead: tuple[int, ...], counts: np.ndarray | None, rows: int) -> np.ndarray | None:
    """The same as `[rows, vectors of a row]`; None where the first axis counts neither rows nor vectors row by row."""
    if not lead or not rows or (lead[0] != rows and (len(lead) > 1 or lead[0] % rows)):
        return None
    return np.ones((rows, math.prod(lead) // rows), bool) if counts is None else counts.reshape(rows, -1)
