"""What places can be at each size, against fits and against trying all combinations."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tncompress.fitting.choice import NARROW, Choice
from tncompress.fitting.fit import fit
from tncompress.fitting.moments import Moments
from tncompress.fitting.offers import PAYS, offers
from tncompress.fitting.pair_offers import pair_offers, widths
from tncompress.fitting.place import Place, inputs_of, outputs_of
from tncompress.fitting.problem import squared_error
from tncompress.forms import get_form


def place(in_dim, out_dim, seed, calibrated=True, with_gradients=True):
    draw = np.random.default_rng(seed)
    kernel = draw.normal(size=(in_dim, out_dim))
    if not calibrated:
        return Place(kernel, None, True)
    moments = Moments.of(draw.normal(size=(300, in_dim)) @ draw.normal(size=(in_dim, in_dim)))
    gradients = Moments.of(draw.normal(size=(300, out_dim)) @ draw.normal(size=(out_dim, out_dim)))
    return Place(
        kernel, Moments(moments.count, moments.mean, moments.scatter, gradients if with_gradients else None), True
    )


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 99), st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_predicted_loss_of_low_rank_is_that_of_the_fit(in_dim, out_dim, seed, calibrated, with_gradients):
    here = place(in_dim, out_dim, seed, calibrated, with_gradients)
    inputs, outputs = here.metrics
    for offer in offers(here, [get_form("low_rank")], pivots=False):
        if offer.what is None:
            assert (offer.cost, offer.loss) == (in_dim * out_dim, 0)
            continue
        found = fit(here.kernel, offer.what.spec, here.moments, form="low_rank")
        error = squared_error(here.kernel, found.cores[0] @ found.cores[1], inputs, outputs) * here.unit
        # The fit damps S by 1e-4; the prediction is the optimum without it.
        total = squared_error(here.kernel, 0.0, inputs, outputs) * here.unit
        assert offer.loss - 1e-9 * total <= error <= offer.loss + 2e-2 * total


def test_pivots_cost_less_for_the_same_loss():
    here = place(40, 60, 0)
    with_them = {o.what.spec: o for o in offers(here, [get_form("low_rank")]) if o.what}
    without = {o.what.spec: o for o in offers(here, [get_form("low_rank")], pivots=False) if o.what}
    common = with_them.keys() & without.keys()
    assert common
    for spec in common:
        rank = spec.core_shapes[0][1]
        saved = rank**2 - spec.out_dim  # less the places of the outputs, which are stored
        assert without[spec].cost - with_them[spec].cost == (saved if saved >= PAYS * spec.num_params else 0)
        assert with_them[spec].loss == without[spec].loss


@pytest.mark.parametrize("form", ["kronecker", "monarch", "expand_condense"])
def test_other_forms_offer_several_sizes(form):
    found = [offer for offer in offers(place(16, 32, 0), [get_form(form)]) if offer.what]
    assert len(found) > 2
    assert all(offer.cost == offer.what.num_params and offer.loss > 0 for offer in found)


@pytest.mark.parametrize("low_rank_too", [False, True])
def test_offers_of_pairs_cost_and_lose_what_they_say(low_rank_too):
    first, gate, second = place(10, 24, 0), place(10, 24, 1), place(24, 7, 2)
    found = pair_offers([first, gate], second, pivots=False, low_rank_too=low_rank_too)
    assert found[-1].loss == 0
    assert found[-1].cost == 2 * 10 * 24 + 24 * 7
    for offer in found[:-1]:
        units, choices = offer.what.units, offer.what.choices
        members = (outputs_of(first, units), outputs_of(gate, units), inputs_of(second, units))
        sizes = [m.kernel.size if c is None else c.num_params for m, c in zip(members, choices, strict=True)]
        assert offer.cost == sum(sizes)
        for member, choice in zip(members, choices, strict=True):
            assert choice is None or (choice.spec.in_dim, choice.spec.out_dim) == member.kernel.shape
            assert choice is not None or len(units) == 24
        if not low_rank_too:
            assert {choice.form for choice in choices} == {NARROW}


def test_losses_fall_with_cost():
    found = pair_offers([place(10, 24, 0)], place(24, 7, 2), pivots=True, low_rank_too=True)
    costs, losses = [o.cost for o in found], [o.loss for o in found]
    assert costs == sorted(costs)
    assert losses == sorted(losses, reverse=True)


def test_widths_are_multiples_where_there_is_room():
    assert widths(20) == sorted({max(1, min(20, w)) for w in widths(20)})
    assert all(width % 8 == 0 for width in widths(768))
    assert max(widths(768)) == 768


def test_a_narrow_choice_survives_json():
    choice = Choice(NARROW, offers(place(4, 6, 0), [get_form("low_rank")])[0].what.spec, True)
    assert Choice.from_config(choice.to_config()) == choice


@pytest.mark.parametrize("centred", [True, False])
def test_errors_of_a_place_by_samples(centred):
    """Every pair of a sample x and a gradient g tells x D g, of which the errors are the mean squares."""
    draw = np.random.default_rng(0)
    kernel, other = draw.normal(size=(2, 5, 4))
    x, g, held_out = draw.normal(size=(30, 5)) + 1, draw.normal(size=(20, 4)), draw.normal(size=(12, 5)) + 1
    moments = replace(Moments.of(x), gradients=Moments.of(g))
    found = Place(kernel, moments, centred, 3.0, held_out).errors(other)
    mean = x.mean(axis=0) if centred else 0.0

    def size(samples, matrix, weights=g.T):
        return np.sqrt(np.mean(((samples - mean) @ matrix @ weights) ** 2))

    d = kernel - other
    expected = {
        "weight": np.linalg.norm(d) / np.linalg.norm(kernel),
        "output": size(x, d, np.eye(4)) / size(x, kernel, np.eye(4)),
        "loss": size(x, d) / size(x, kernel),
        "predicted_loss": 3.0 * size(x, d) ** 2,
        "held_out_ratio": size(held_out, d) / size(held_out, kernel) / (size(x, d) / size(x, kernel)),
    }
    assert vars(found) == pytest.approx(expected, rel=1e-9)
    plain = Place(kernel, None, centred).errors(other)
    assert plain.weight == pytest.approx(expected["weight"])
    assert plain.output is plain.loss is plain.predicted_loss is plain.held_out_ratio is None
    assert Place(kernel, moments, centred, 3.0, held_out).errors(kernel).held_out_ratio is None
