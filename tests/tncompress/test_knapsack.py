"""The knapsack against trying everything."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tncompress.fitting.knapsack import Offer, convex, knapsack, pareto

offers = st.lists(st.builds(Offer, st.integers(1, 40), st.integers(0, 100), st.none()), min_size=1, max_size=5)


def tried_all(places, budget):
    sums = [
        (sum(o.loss for o in picked), sum(o.cost for o in picked))
        for picked in itertools.product(*places)
        if sum(o.cost for o in picked) <= budget
    ]
    return min(sums)[0] if sums else None


@given(st.lists(offers, min_size=1, max_size=5), st.integers(1, 160))
@settings(max_examples=300, deadline=None)
def test_within_budget_and_near_the_best(places, budget):
    best = tried_all(places, budget)
    if best is None:
        with pytest.raises(ValueError, match="more than the budget"):
            knapsack(places, budget)
        return
    picked = knapsack(places, budget)
    assert sum(offer.cost for offer in picked) <= budget
    assert all(offer in place for offer, place in zip(picked, places, strict=True))
    # Between the optimum and the Lagrangian solution lies at most one step of one place.
    largest_step = max(
        (a.loss - b.loss for place in places for a, b in itertools.pairwise(convex(pareto(place)))), default=0
    )
    assert best <= sum(offer.loss for offer in picked) <= best + largest_step


@given(st.lists(offers, min_size=1, max_size=4), st.integers(1, 160))
def test_nothing_that_saves_loss_still_fits(places, budget):
    if sum(min(o.cost for o in place) for place in places) > budget:
        return
    picked = knapsack(places, budget)
    left = budget - sum(offer.cost for offer in picked)
    for offer, place in zip(picked, places, strict=True):
        assert not [o for o in place if o.loss < offer.loss and o.cost <= offer.cost + left]


@given(offers)
def test_hull_is_on_the_front_and_convex(place):
    front = pareto(place)
    hull = convex(front)
    assert hull[0] == front[0]
    assert hull[-1] == front[-1]
    slopes = [(a.loss - b.loss) / (b.cost - a.cost) for a, b in itertools.pairwise(hull)]
    assert slopes == sorted(slopes, reverse=True)
