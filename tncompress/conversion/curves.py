"""What a report draws as curves, noted while a model is compressed: the front that a budget chose from, and spectra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tncompress.fitting.knapsack import Offer, convex, pareto

MOST_POINTS = 48  # of a curve: as many as a picture shows
DIGITS = 5  # of its numbers


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a kernel as its inputs and outputs weight it, descending, at a few of their positions.

    The root of the sum of the squares of those from position r on is what rank r loses, as a fraction.

    Args:
        positions: from 0.
        values: those of the whole, all squares of which add up to 1.
    """

    positions: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, energies: np.ndarray) -> "Spectrum | None":
        """Of squared singular values, descending; None if all are zero.

        >>> Spectrum.of(np.array([0.64, 0.36]))
        Spectrum(positions=(0, 1), values=(0.8, 0.6))
        """
        total = float(energies.sum())
        if not total > 0:
            return None
        chosen = np.unique(np.linspace(0, len(energies) - 1, MOST_POINTS).round().astype(int))
        return cls(tuple(map(int, chosen)), tuple(map(_short, np.sqrt(energies[chosen] / total))))

    @classmethod
    def from_config(cls, config: Mapping | None) -> "Spectrum | None":
        """The spectrum that `to_config` described."""
        return None if config is None else cls(tuple(config["positions"]), tuple(config["values"]))

    def to_config(self) -> dict:
        """A JSON-able value from which `from_config` makes this spectrum again."""
        return {"positions": list(self.positions), "values": list(self.values)}


@dataclass(frozen=True)
class Front:
    """What one budget over all places could have chosen: the least loss at each cost, and where it went.

    Args:
        budget: kind of the budget, see `tncompress.Budget`; it tells the unit of costs: "keep", "params" parameters,
            "flops" operations a token, "latency" seconds.
        loss: what the losses are of: "objective": fractions of its variance; "outputs", "weights": each place's own
            energy, added up.
        points: costs of all places together with their losses, cheapest first; the last is all places as they were.
        chosen: cost and loss of what was chosen.
    """

    budget: str
    loss: str
    points: tuple[tuple[float, float], ...]
    chosen: tuple[float, float]

    def to_config(self) -> dict:
        """A JSON-able value from which `from_config` makes this front again."""
        return {
            "budget": self.budget,
            "loss": self.loss,
            "points": list(map(list, self.points)),
            "chosen": list(self.chosen),
        }

    @classmethod
    def from_config(cls, config: Mapping | None) -> "Front | None":
        """The front that `to_config` described."""
        if config is None:
            return None
        points = tuple((cost, loss) for cost, loss in config["points"])
        return cls(config["budget"], config["loss"], points, (config["chosen"][0], config["chosen"][1]))


def front_of(menus: Sequence[Sequence[Offer]], chosen: Sequence[Offer], budget: str, loss: str) -> Front:
    """The front of several places together, by the steps that save most loss for their cost first.

    >>> menus = [[Offer(1, 9.0), Offer(2, 4.0)], [Offer(1, 1.0), Offer(2, 0.0)]]
    >>> front_of(menus, [Offer(2, 4.0), Offer(1, 1.0)], "keep", "objective").points
    ((2.0, 10.0), (3.0, 5.0), (4.0, 4.0))
    """
    hulls = [convex(pareto(menu)) for menu in menus]
    steps = [(large.cost - small.cost, small.loss - large.loss) for hull in hulls for small, large in pairwise(hull)]
    steps.sort(key=lambda step: -step[1] / step[0])
    costs = sum(hull[0].cost for hull in hulls) + np.cumsum([0.0, *(cost for cost, _ in steps)])
    # From the end, so that what loses nothing is exactly 0.
    losses = sum(hull[-1].loss for hull in hulls) + np.cumsum([0.0, *(saved for _, saved in reversed(steps))])[::-1]
    points = tuple((_short(costs[k], 12), _short(losses[k])) for k in _thinned(costs))
    at = (_short(sum(offer.cost for offer in chosen), 12), _short(sum(offer.loss for offer in chosen)))
    return Front(budget, loss, points, at)


def _thinned(costs: np.ndarray) -> np.ndarray:
    """Which steps are kept: all if they are few, else some even in cost and some even in number, where it is steep."""
    last = len(costs) - 1
    if last < MOST_POINTS:
        return np.arange(last + 1)
    in_cost = np.searchsorted(costs, np.linspace(costs[0], costs[-1], MOST_POINTS // 2)).clip(0, last)
    in_number = np.linspace(0, last, MOST_POINTS // 2).round().astype(int)
    return np.unique([*in_cost, *in_number])


def _short(value: float, digits: int = DIGITS) -> float:
    return float(f"{value:.{digits}g}")
