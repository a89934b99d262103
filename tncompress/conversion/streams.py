"""Two models on the same batches: what a layer of the one gets, and by how much it misses the other."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.batches import batches_of, inputs_of, num_rows, rows_of
from tncompress.conversion.events import Event, Kept, Layers, needed, observed
from tncompress.conversion.masks import Mask, counted, mask_of
from tncompress.conversion.refit_data import judges
from tncompress.conversion.structures import as_floats
from tncompress.conversion.walking import walk
from tncompress.fitting.moments import Moments

SAMPLE = slice(2)  # rows on which it is tried what depends on what


@dataclass(frozen=True)
class Part:
    """A layer that is fitted, how often a pass calls it, and the sum that its output enters."""

    path: str
    calls: int
    sum: Event | None

    @property
    def inputs(self) -> list[Event]:
        """What it gets, for every call."""
        return [Event("input", self.path, number) for number in range(self.calls)]

    @property
    def points(self) -> list[Event]:
        """Where the models are compared, for every call."""
        return [self.sum] if self.sum else [Event("output", self.path, number) for number in range(self.calls)]


@dataclass(frozen=True, eq=False)
class Stream:
    """A model, its layers by path, each once, and what it made: by number of the batch, with a digest of that."""

    model: keras.Model
    layers: Layers
    kept: dict[int, tuple[bytes, Kept]] = field(default_factory=dict)

    def observed(self, batch: Any, wanted: set[Event], number: int) -> dict[Event, Any]:
        """The tensors at some events, all of which lie behind those of earlier calls with the same number."""
        digest = _digest(batch)
        if number not in self.kept or self.kept[number][0] != digest:  # data may come in another order every time
            self.kept[number] = digest, {}
        return observed(self.model, self.layers, batch, wanted, kept=self.kept[number][1], number=number)

    def forget(self, sample: Any, wanted: set[Event]) -> None:
        """Keep only the shapes of what nothing depends on that is still to come."""
        self.observed(sample, wanted, -1)
        alive = needed(self.model, self.layers, sample, self.kept[-1][1])
        for _, kept in self.kept.values():
            kept.update({key: made.emptied() for key, made in kept.items() if key not in alive})


def stream_of(model: keras.Model, paths: Sequence[str]) -> Stream:
    """The model, with shared layers under the path that is asked for."""
    layers = dict(walk(model))
    for path in paths:
        if path not in layers:
            raise ValueError(f"The model {model.name!r} has no layer {path!r} to refit; its layers have other paths.")
    names = {id(layer): path for path, layer in layers.items()} | {id(layers[path]): path for path in paths}
    return Stream(model, {path: layers[path] for path in names.values()})


@dataclass(frozen=True, eq=False)
class Streams:
    """Both models, and what they run on.

    Args:
        original, small: the models.
        data: batches, gone over again and again.
        mask: which positions count.
        units: of layers with fewer outputs than the original's: which these are.
        held_out: fraction of the batches that judge.
    """

    original: Stream
    small: Stream
    data: Any
    mask: Mask
    units: Mapping[str, np.ndarray]
    held_out: float

    @cached_property
    def sample(self) -> Any:
        """A few rows of the first batch."""
        return rows_of(inputs_of(next(batches_of(self.data)[0]), self.small.model), SAMPLE)

    def judges(self, number: int) -> bool:
        """Whether this batch is held out."""
        return judges(number, self.held_out)


def gathered(
    streams: Streams, group: Sequence[Part], *, judging_only: bool = False
) -> list[tuple[Moments | None, Moments]]:
    """For every layer of a group, the moments of the joined vectors (x, r): of the batches to fit, and held out.

    x is what the compressed model's layer gets, r by how much it misses the original where they are compared.

    Raises:
        ValueError: too few batches, or numbers that are not finite.
    """
    points = {point for part in group for point in part.points}
    wanted = {*group[0].inputs, *points}
    found: dict[tuple[str, bool], Moments] = {}
    number = -1
    for number, batch in enumerate(batches_of(streams.data)[0]):
        judges = streams.judges(number)
        if judging_only and not judges:
            continue
        x = inputs_of(batch, streams.small.model)
        if not num_rows(x):
            continue
        given, asked = mask_of(x, streams.mask, number, "refit"), streams.mask is not None
        ours, theirs = streams.small.observed(x, wanted, number), streams.original.observed(x, points, number)
        for part in group:
            for entering, point in zip(group[0].inputs, part.points, strict=True):
                lead = tuple(ours[entering].shape[:-1])
                counts = counted(ours[entering], lead, given, part.path, asked=asked)
                rows = _rows(ours[entering], ours[point], theirs[point], streams.units.get(part.path), counts)
                with np.errstate(all="ignore"):  # what is not finite is said in words
                    new = Moments.of(rows)
                key = (part.path, judges)
                found[key] = found[key] + new if key in found else new
    streams.small.forget(streams.sample, wanted)
    streams.original.forget(streams.sample, points)
    for part in group:
        seen = [found.get((part.path, judges)) for judges in ((True,) if judging_only else (False, True))]
        if not all(moments and moments.count for moments in seen):
            raise ValueError(
                f"The refit's data are {number + 1} batches, with nothing but padding in those held out or in the "
                "others; give more batches, or leave empty ones away."
            )
        if not all(np.isfinite(moments.scatter).all() for moments in seen):
            raise ValueError(f"In the data of the refit the layer {part.path!r} sees or makes NaN or infinity.")
    return [(found.get((part.path, False)), found[part.path, True]) for part in group]


def _rows(entering: Any, ours: Any, theirs: Any, units: np.ndarray | None, counts: np.ndarray | None) -> np.ndarray:
    """`[vectors, in_dim + out_dim]` of those that count: a layer's inputs, and by how much it misses the original."""
    vectors = int(np.prod(entering.shape[:-1]))
    x, ours, theirs = (as_floats(value).reshape(vectors, -1) for value in (entering, ours, theirs))
    rows = np.concatenate([x, (theirs if units is None else theirs[:, units]) - ours], axis=1)
    return rows if counts is None else rows[counts.reshape(-1)]


def _digest(batch: Any) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for array in keras.tree.flatten(batch):
        found.update(np.ascontiguousarray(ops.convert_to_numpy(array) if ops.is_tensor(array) else array).tobytes())
    return found.digest()
