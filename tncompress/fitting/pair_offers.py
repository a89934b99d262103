"""What kernels that share hidden units can be together: fewer units, and low rank on top."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tncompress.fitting.choice import NARROW, Choice, has_components
from tncompress.fitting.knapsack import Offer, pareto
from tncompress.fitting.offers import FRACTIONS, STEP, energies_of, low_ranks
from tncompress.fitting.place import Place, hidden_covariance
from tncompress.fitting.units import Narrowed, narrow
from tncompress.linalg import psd_root
from tncompress.network.cost import dense_spec

MOST_WIDTHS = 40


@dataclass(frozen=True, eq=False)
class Width:
    """One offer of a pair: its hidden units, and the choices for the first kernels and for the second."""

    units: np.ndarray
    choices: tuple[Choice | None, ...]


def pair_offers(
    first: Sequence[Place], second: Place, *, pivots: bool, low_rank_too: bool, elastic: bool = False, step: int = STEP
) -> list[Offer]:
    """The Pareto front of kernels that share hidden units: what each is, is a `Width`.

    Every width has its own units and its own second kernel, in which the units that left are folded; on top of that
    the kernels may become low rank. Where they may not, there are as many widths as the step allows.

    Args:
        first: kernels that make the hidden units.
        second: the kernel that takes them.
        pivots: as of `offers`.
        low_rank_too: factorise the narrower kernels.
        elastic: all of the kernels, if they can be, so that they can be cut shorter later.
        step: in which ranks grow.
    """
    covariance, moment = hidden_covariance(second), second.metrics[1]
    hidden, out_dim = second.kernel.shape
    seen, unit = [_seen(place) for place in first], second.unit
    found: list[Offer] = []
    narrower = narrow(second.kernel, covariance, _root(moment), widths(hidden, step))
    for narrowed in narrower:
        units, among = narrowed.units, np.ix_(narrowed.units, narrowed.units)
        dims = [(len(place.kernel), len(units)) for place in first] + [(len(units), out_dim)]
        sides = [[Offer(m * n, 0.0, _whole(m, n, len(units) < hidden))] for m, n in dims]
        if low_rank_too:
            energies = [energies_of(kernel[:, units], None if w is None else w[among]) for kernel, w in seen]
            energies.append(energies_of(narrowed.outgoing.T, covariance[among]) * unit)
            for (m, n), side, values in zip(dims, sides, energies, strict=True):
                side += [offer for offer in low_ranks(m, n, values, pivots, step) if offer.cost < m * n]
        if elastic:
            sides = [[offer for offer in side if has_components(offer.what)] for side in sides]
        if all(sides):
            found += _combined([pareto(side) for side in sides], narrowed, unit * narrowed.loss)
    if not low_rank_too:  # ranks would use up what widths far apart leave of a budget
        found += _between(narrower[-1], [len(place.kernel) for place in first], hidden, out_dim, step, unit)
    if not found:
        return pair_offers(first, second, pivots=pivots, low_rank_too=low_rank_too, step=step)
    return pareto(found)


def _between(
    narrowest: Narrowed, in_dims: Sequence[int], hidden: int, out_dim: int, step: int, unit: float
) -> Iterator[Offer]:
    """All multiples of the step as widths of dense kernels, in the order in which units left."""
    for width in range(-(-len(narrowest.units) // step) * step, hidden, step):
        units, loss = narrowest.wider(width)
        dims = [*((in_dim, width) for in_dim in in_dims), (width, out_dim)]
        choices = tuple(_whole(m, n, True) for m, n in dims)
        yield Offer(sum(m * n for m, n in dims), unit * loss, Width(units, choices))


def _root(moment: np.ndarray | None) -> np.ndarray | None:
    return None if moment is None else psd_root(moment)


def _whole(in_dim: int, out_dim: int, is_narrower: bool) -> Choice | None:
    """A kernel that is not factorised."""
    return Choice(NARROW, dense_spec(in_dim, out_dim)) if is_narrower else None


def _seen(place: Place) -> tuple[np.ndarray, np.ndarray | None]:
    """A first kernel as its inputs see it, its squares as losses, and what weights the outputs, the hidden units."""
    inputs, outputs = place.metrics
    kernel = place.kernel.astype(np.float64) * np.sqrt(place.unit)
    return (kernel if inputs is None else psd_root(inputs) @ kernel), outputs


def widths(hidden: int, step: int = STEP) -> list[int]:
    """How many hidden units are tried: all multiples of the step if they are few, else ever smaller fractions.

    >>> widths(8, 1), widths(1536)[:3]
    ([1, 2, 3, 4, 5, 6, 7, 8], [160, 192, 224])
    """
    if hidden <= MOST_WIDTHS * step:
        return [*range(step, hidden, step), hidden]
    return sorted({min(hidden, max(step, round(fraction * hidden / step) * step)) for fraction in FRACTIONS})


def _combined(sides: Sequence[Sequence[Offer]], narrowed: Narrowed, loss: float) -> list[Offer]:
    """All combinations of the kernels' offers, of which the Pareto front is kept after every side."""
    combinations: list[tuple[Choice | None, ...]] = [()]
    costs, losses = np.zeros(1), np.array([loss])
    for side in sides:
        cost = np.add.outer(costs, [offer.cost for offer in side]).ravel()
        total = np.add.outer(losses, [offer.loss for offer in side]).ravel()
        order = np.lexsort((total, cost))
        best = np.minimum.accumulate(total[order])
        kept = order[np.append(True, best[1:] < best[:-1])]
        combinations = [(*combinations[k // len(side)], _choice(side[k % len(side)])) for k in kept]
        costs, losses = cost[kept], total[kept]
    return [
        Offer(float(cost), float(total), Width(narrowed.units, choices))
        for cost, total, choices in zip(costs, losses, combinations, strict=True)
    ]


def _choice(offer: Offer) -> Choice | None:
    assert offer.what is None or isinstance(offer.what, Choice)
    return offer.what
