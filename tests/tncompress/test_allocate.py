"""`choose` and its parts against trying every candidate."""

import numpy as np
import pytest

from tncompress import FORMS, Moments
from tncompress.fitting.allocate import NEAR, TRIALS, choose, near_budget, smallest_params
from tncompress.fitting.choice import Choice
from tncompress.fitting.fit import quick_error
from tncompress.forms import get_form, low_rank

NONE = (None, None)
EVERY_FORM = pytest.mark.parametrize("name", FORMS)


def kernel_of(in_dim=12, out_dim=16):
    return np.random.default_rng(0).normal(size=(in_dim, out_dim))


@EVERY_FORM
@pytest.mark.parametrize("budget", [20, 60, 96, 150])
def test_near_budget_holds_the_largest_and_what_is_close_to_it(name, budget):
    specs = list(get_form(name).candidates(12, 16, budget))
    choices = near_budget(get_form(name), 12, 16, budget)
    assert len(choices) <= TRIALS
    assert bool(choices) == bool(specs)
    largest = max((spec.num_params for spec in specs), default=0)
    for choice in choices:
        assert choice.form == name
        assert choice.spec in specs
        assert NEAR * largest <= choice.spec.num_params <= budget
    assert len(choices) == min(TRIALS, sum(spec.num_params >= NEAR * largest for spec in specs))


@pytest.mark.parametrize(
    "forms", [["low_rank"], ["kronecker"], ["low_rank", "monarch", "block_tt", "tucker"], list(FORMS)]
)
@pytest.mark.parametrize(("calibrated", "two_sided"), [(False, False), (True, False), (True, True)])
def test_choose_takes_the_best_by_measured_error(forms, calibrated, two_sided):
    kernel = kernel_of()
    x = np.random.default_rng(1).normal(size=(100, 12)) * np.geomspace(1, 0.01, 12)
    g = np.random.default_rng(2).normal(size=(100, 16)) * np.geomspace(0.1, 1, 16)
    metrics = (Moments.of(x).covariance if calibrated else None, Moments.of(g).second if two_sided else None)
    forms = list(map(get_form, forms))
    tried = [c for form in forms for c in near_budget(form, 12, 16, 96)]
    errors = [quick_error(kernel, c.spec, get_form(c.form), *metrics) for c in tried]
    chosen = choose(kernel, metrics, forms, 96)
    assert chosen == tried[int(np.argmin(errors))]
    assert chosen.spec.num_params <= 96


def test_choose_sees_the_structure_of_the_kernel():
    """A Kronecker product is recognised among low-rank networks of the same size, and the other way round."""
    generator = np.random.default_rng(0)
    both = [get_form("low_rank"), get_form("kronecker")]
    kronecker = np.kron(generator.normal(size=(4, 4)), generator.normal(size=(3, 4)))
    assert choose(kronecker, NONE, both, 60).form == "kronecker"
    rank_two = generator.normal(size=(12, 2)) @ generator.normal(size=(2, 16))
    assert choose(rank_two, NONE, both, 60).form == "low_rank"


def test_no_network_so_small():
    assert choose(kernel_of(), NONE, list(FORMS.values()), 3) is None
    assert choose(kernel_of(7, 11), NONE, [get_form("kronecker")], 50) is None
    assert near_budget(get_form("kronecker"), 7, 11, 50) == []


@EVERY_FORM
def test_smallest_params_by_trying_every_budget(name):
    below = [b for b in range(1, 8 * 12) if list(get_form(name).candidates(8, 12, b))]
    assert smallest_params([get_form(name)], 8, 12) == (min(below) if below else None)


def test_smallest_params_of_several_forms_and_of_none():
    each = [smallest_params([get_form(name)], 8, 12) for name in FORMS]
    assert smallest_params(list(FORMS.values()), 8, 12) == min(size for size in each if size is not None)
    assert smallest_params([get_form("kronecker")], 7, 11) is None
    assert smallest_params([], 8, 12) is None


def test_a_choice_round_trips_through_its_config():
    choice = Choice("low_rank", low_rank.spec(12, 16, 3))
    assert Choice.from_config(choice.to_config()) == choice
    with pytest.raises(ValueError, match="'form' and 'spec'"):
        Choice.from_config({"form": "low_rank"})
    assert Choice.from_config({**choice.to_config(), "form": "unknown here"}).form == "unknown here"
    with pytest.raises(ValueError, match="a name or null, got 3"):
        Choice.from_config({**choice.to_config(), "form": 3})
