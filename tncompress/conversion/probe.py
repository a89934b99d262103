"""What really changed about an objective, on calibration inputs that no moments were gathered from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tncompress.conversion.batches import num_rows
from tncompress.conversion.gradients import Objective, selection, vectors_of
from tncompress.conversion.masks import Given
from tncompress.conversion.structures import as_floats
from tncompress.fitting.moments import Spread

MOST_ROWS = 32  # of inputs that are put together

Pair = tuple[Any, Given]  # inputs and their mask


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs that were held out, and what to look at.

    Args:
        objective: see `tncompress.calibrate`.
        batches: pairs of inputs and their mask.
        spreads: of the objective's tensors, on the inputs that were not held out.
    """

    objective: Objective
    batches: Sequence[Pair]
    spreads: Sequence[Spread]

    def changed(self, model: keras.Model, small: keras.Model) -> float | None:
        """The squared change of the objective from one model to the other, as a fraction of its variance.

        Raises:
            ValueError: the objective fails on these inputs, see `selection`.
        """
        lost, numbers = np.zeros(len(self.spreads)), np.zeros(len(self.spreads))
        for x, given in self.batches:
            pairs = zip(self._vectors(model, x, given), self._vectors(small, x, given), strict=True)
            for k, (before, after) in enumerate(pairs):
                lost[k] += float(np.sum((before.astype(np.float64) - after) ** 2))
                numbers[k] += before.size
        energy = sum(spread.energy for spread in self.spreads)
        if not numbers.all() or not energy:
            return None
        scales = np.array([spread.count * len(spread.mean) for spread in self.spreads]) / numbers
        return float(lost @ scales / energy)

    def _vectors(self, model: keras.Model, x: Any, given: Given) -> list[np.ndarray]:
        select = selection(self.objective, given, "rows of the data that were held out")
        chosen = select(model(x, training=False), x)
        return [vectors_of(as_floats(tensor), counts) for tensor, counts in chosen]


def joined(batches: Sequence[Pair]) -> list[Pair]:
    """The same in fewer batches: small ones whose rows have the same shapes are put together, if they are of NumPy."""
    found: list[Pair] = []
    open_: dict[str, int] = {}  # where in what was found there is room for more rows of a kind
    for x, given in batches:
        arrays = keras.tree.flatten((x, given))
        rows = {len(a) if isinstance(a, np.ndarray) and a.ndim else 0 for a in arrays if a is not None}
        if len(rows) > 1 or 0 in rows:
            found.append((x, given))
            continue
        kind = str(keras.tree.map_structure(lambda a: a if a is None else f"{a.dtype} {a.shape[1:]}", (x, given)))
        before = open_.get(kind)
        if before is None or num_rows(found[before][0]) + rows.pop() > MOST_ROWS:
            open_[kind] = len(found)
            found.append((x, given))
        else:
            found[before] = keras.tree.map_structure(_concatenated, found[before], (x, given))
    return found


def _concatenated(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None or second is None else np.concatenate([first, second])
