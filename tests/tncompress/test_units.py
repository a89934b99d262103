"""Hidden-unit selection against explicit least squares."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tncompress.fitting import units
from tncompress.fitting.units import folded, narrow
from tncompress.linalg import psd_root


def problem(hidden, out_dim, seed, samples=400):
    draw = np.random.default_rng(seed)
    activity = np.maximum(draw.normal(size=(samples, 5)) @ draw.normal(size=(5, hidden)), 0)
    activity += 0.05 * draw.normal(size=activity.shape)
    factor = draw.normal(size=(out_dim, out_dim))
    return activity, draw.normal(size=(hidden, out_dim)), factor @ factor.T


def least_squares(activity, kernel, moment, kept):
    """Smallest E ||(h W - h' W') S^(1/2)||^2 about the mean, by numpy's least squares on the samples."""
    centred = activity - activity.mean(axis=0)
    values, vectors = np.linalg.eigh(moment)
    target = centred @ kernel @ (vectors * np.sqrt(values.clip(0)))
    solution = np.linalg.lstsq(centred[:, kept], target, rcond=None)[0]
    return float(np.sum((target - centred[:, kept] @ solution) ** 2) / len(activity))


@given(st.integers(3, 14), st.integers(1, 5), st.integers(0, 10**6), st.data())
@settings(max_examples=40, deadline=None)
def test_loss_is_that_of_least_squares_on_the_samples(hidden, out_dim, seed, data):
    width = data.draw(st.integers(1, hidden))
    activity, kernel, moment = problem(hidden, out_dim, seed)
    covariance = np.cov(activity.T, bias=True)
    found = narrow(kernel, covariance, psd_root(moment), [width])[0]
    assert len(found.units) == width
    centred = activity - activity.mean(axis=0)
    stand_in = folded(kernel, covariance, found.units)
    np.testing.assert_allclose(found.outgoing, stand_in @ psd_root(moment), rtol=1e-6, atol=1e-6)
    difference = (centred @ kernel - centred[:, found.units] @ stand_in) @ psd_root(moment)
    assert np.mean(np.sum(difference**2, axis=1)) <= found.loss * (1 + 1e-9) + 1e-9
    best = least_squares(activity, kernel, moment, found.units)
    total = least_squares(activity, kernel, moment, [])
    # The damping keeps a little back, by its own size.
    assert best - 1e-9 * total <= found.loss <= best + 5 * units.DAMPING * total


def test_one_unit_less_is_the_best_single_unit_to_lose():
    activity, kernel, moment = problem(9, 4, seed=3)
    found = narrow(kernel, np.cov(activity.T, bias=True), psd_root(moment), [8])[0]
    by_hand = {gone: least_squares(activity, kernel, moment, [u for u in range(9) if u != gone]) for gone in range(9)}
    assert set(range(9)) - set(found.units) == {min(by_hand, key=by_hand.get)}


def test_greedy_choice_is_close_to_the_best_of_all_subsets():
    activity, kernel, moment = problem(8, 3, seed=5)
    found = narrow(kernel, np.cov(activity.T, bias=True), psd_root(moment), [4])[0]
    best = min(least_squares(activity, kernel, moment, kept) for kept in map(list, itertools.combinations(range(8), 4)))
    assert found.loss <= 1.5 * best + 1e-3


def test_all_units_are_the_kernel_itself():
    activity, kernel, _ = problem(6, 3, seed=1)
    found = narrow(kernel, np.cov(activity.T, bias=True), None, [6])[0]
    np.testing.assert_array_equal(found.outgoing, kernel)
    assert found.loss == 0


def test_units_that_never_vary_go_first_and_cost_nothing():
    activity, kernel, moment = problem(7, 3, seed=2)
    activity[:, [1, 4]] = 2.0
    found = narrow(kernel, np.cov(activity.T, bias=True), psd_root(moment), [5])[0]
    assert found.units.tolist() == [0, 2, 3, 5, 6]
    assert found.loss <= 5 * units.DAMPING * least_squares(activity, kernel, moment, [])  # the damping's share


def test_wide_layers_lose_several_units_at_once_and_little_by_it(monkeypatch):
    activity, kernel, moment = problem(60, 6, seed=4, samples=2000)
    covariance = np.cov(activity.T, bias=True)
    one_by_one = narrow(kernel, covariance, psd_root(moment), [20])[0]
    monkeypatch.setattr(units, "STEPS", 12)
    at_once = narrow(kernel, covariance, psd_root(moment), [20])[0]
    assert one_by_one.loss <= at_once.loss * 1.05
    assert at_once.loss <= one_by_one.loss * 1.3


def test_the_given_matrices_stay_as_they_are():
    activity, kernel, moment = problem(40, 4, seed=7)
    given = [kernel, np.cov(activity.T, bias=True), psd_root(moment)]
    before = [array.copy() for array in given]
    narrow(*given, [30, 12])
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_width_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"widths must be from 1 to 2, got \[3\]"):
        narrow(np.ones((2, 1)), np.eye(2), None, [3])


@pytest.mark.parametrize("hidden", [12, 250])
def test_wider_ones_are_told_by_the_narrowest(hidden):
    """In wide layers several units leave at once: between these, the loss is told no better than it is."""
    activity, kernel, moment = problem(hidden, 4, seed=1)
    covariance, widths = np.cov(activity.T, bias=True), [hidden, hidden - 4, hidden // 2, 3]
    found = narrow(kernel, covariance, psd_root(moment), widths)
    for each in found:
        chosen, loss = found[-1].wider(len(each.units))
        np.testing.assert_array_equal(chosen, each.units)
        assert loss == pytest.approx(each.loss)
    chosen, loss = found[-1].wider(hidden // 2 + 1)
    assert set(found[2].units) < set(chosen)
    assert len(chosen) == hidden // 2 + 1
    best = least_squares(activity, kernel, moment, chosen)
    assert best * (1 - 1e-9) <= loss <= found[2].loss
