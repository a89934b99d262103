"""One budget over many places, each of which offers several sizes: the multiple-choice knapsack.

Where the offers of every place lie on a convex curve, taking the steps that save most loss for their cost, over all
places, is optimal (Everett 1963, generalised Lagrange multipliers); what is left over is then spent on any offer that
still fits.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple


class Offer(NamedTuple):
    """One size of one place: what it costs, what it loses, and the caller's own note of what it is."""

    cost: float
    loss: float
    what: Any = None


def pareto(offers: Sequence[Offer]) -> list[Offer]:
    """Without those that cost no less than another that loses no more; cheapest first.

    >>> [offer.cost for offer in pareto([Offer(3, 1.0), Offer(1, 5.0), Offer(2, 5.0)])]
    [1, 3]
    """
    kept: list[Offer] = []
    for offer in sorted(offers, key=lambda offer: (offer.cost, offer.loss)):
        if not kept or offer.loss < kept[-1].loss:
            kept.append(offer)
    return kept


def convex(offers: Sequence[Offer]) -> list[Offer]:
    """Of a Pareto front those on its lower convex hull: each step saves less for its cost than the one before.

    >>> [offer.cost for offer in convex([Offer(0, 4.0), Offer(1, 3.9), Offer(2, 0.0)])]
    [0, 2]
    """
    hull: list[Offer] = []
    for offer in offers:
        while len(hull) > 1 and _saving(hull[-2], hull[-1]) <= _saving(hull[-1], offer):
            hull.pop()
        hull.append(offer)
    return hull


def _saving(small: Offer, large: Offer) -> float:
    return (small.loss - large.loss) / (large.cost - small.cost)


def knapsack(places: Sequence[Sequence[Offer]], budget: float) -> list[Offer]:
    """One offer for every place, together within the budget, with (nearly) the least loss in sum.

    Raises:
        ValueError: the cheapest offers together cost more than the budget.

    >>> cheap, dear = [Offer(1, 9.0), Offer(2, 4.0)], [Offer(1, 1.0), Offer(2, 0.5)]
    >>> [offer.cost for offer in knapsack([cheap, dear], budget=3)]
    [2, 1]
    """
    fronts = [pareto(offers) for offers in places]
    hulls = [convex(front) for front in fronts]
    chosen = [hull[0] for hull in hulls]
    left = budget - sum(offer.cost for offer in chosen)
    if left < 0:
        raise ValueError(f"the smallest offers together cost {budget - left:,.0f}, more than the budget {budget:,.0f}.")
    steps = [(_saving(*pair), k, pair) for k, hull in enumerate(hulls) for pair in pairwise(hull)]
    for _, k, (small, large) in sorted(steps, key=lambda step: -step[0]):
        # A place that could not afford a step takes none beyond it: the steps of a hull build on each other.
        if chosen[k] is small and large.cost - small.cost <= left:
            chosen[k] = large
            left -= large.cost - small.cost
    return _filled_up(fronts, chosen, left)


def _filled_up(fronts: Sequence[Sequence[Offer]], chosen: list[Offer], left: float) -> list[Offer]:
    """Spend what is left where it saves most, until nothing fits."""
    while True:
        upgrades = [
            (chosen[k].loss - offer.loss, k, offer)
            for k, front in enumerate(fronts)
            for offer in front
            if chosen[k].cost < offer.cost <= chosen[k].cost + left
        ]
        if not upgrades:
            return chosen
        _, k, offer = max(upgrades, key=lambda upgrade: upgrade[0])
        left -= offer.cost - chosen[k].cost
        chosen[k] = offer
