"""The curves of a report: a front that nothing lies below, and spectra whose tails are what a cut loses."""

from itertools import product

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tncompress import replace_dense, report
from tncompress.conversion.curves import MOST_POINTS, Front, Spectrum, front_of
from tncompress.fitting.knapsack import Offer

menus = st.lists(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)).map(lambda pair: Offer(*pair)), min_size=1, max_size=5),
    min_size=1,
    max_size=3,
)


@given(menus)
def test_no_combination_of_offers_lies_below_the_front(menus):
    points = front_of(menus, [menu[0] for menu in menus], "keep", "objective").points
    costs, losses = map(list, zip(*points, strict=True))
    assert costs == sorted(costs)
    for chosen in product(*menus):
        cost, loss = sum(offer.cost for offer in chosen), sum(offer.loss for offer in chosen)
        assert cost >= costs[0]
        assert loss >= np.interp(cost, costs, losses) * (1 - 1e-3) - 1e-3  # numbers of five digits


@given(menus)
def test_every_point_of_the_front_is_a_combination_of_offers(menus):
    found = {(sum(o.cost for o in chosen), sum(o.loss for o in chosen)) for chosen in product(*menus)}
    for cost, loss in front_of(menus, [menu[0] for menu in menus], "keep", "objective").points:
        assert (round(cost), round(loss)) in found


def test_long_fronts_and_spectra_are_thinned_but_keep_their_ends():
    menu = [Offer(k, (500 - k) ** 2) for k in range(501)]
    front = front_of([menu], [menu[3]], "keep", "objective")
    assert len(front.points) <= MOST_POINTS
    assert (front.points[0], front.points[-1]) == ((0, 250_000), (500, 0))
    assert front.chosen == (3, 247_010)  # five digits of 497²
    spectrum = Spectrum.of(np.arange(1000.0, 0.0, -1.0))
    assert len(spectrum.positions) == len(spectrum.values) == MOST_POINTS
    assert (spectrum.positions[0], spectrum.positions[-1]) == (0, 999)
    assert Spectrum.of(np.zeros(3)) is None


def test_what_lies_right_of_the_cut_is_the_error_of_the_weights():
    model = keras.Sequential([keras.Input((24,)), keras.layers.Dense(40, use_bias=False), keras.layers.Dense(32)])
    for row in report(replace_dense(model, keep=0.6)).rows:
        assert row.rank == int(row.sizes.split("=")[-1])
        assert row.spectrum.positions == tuple(range(len(row.spectrum.values)))
        lost = np.sqrt(np.sum(np.square(row.spectrum.values[row.rank :])))
        assert lost == pytest.approx(row.weight_error, rel=1e-3)


@pytest.fixture(scope="module")
def small():
    entry = keras.Input((16,))
    hidden = keras.layers.Dense(32, "tanh", name="wide")(entry)
    model = keras.Model(entry, keras.layers.Dense(16, name="back")(hidden), name="tiny")
    inputs = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    return replace_dense(model, keep=0.5, calibration=[inputs], objective="outputs")


def test_what_was_chosen_is_what_the_report_has(small):
    result = report(small)
    assert (result.front.budget, result.front.loss) == ("keep", "objective")
    assert result.front.chosen[0] == sum(row.params_after for row in result.rows)
    assert result.front.chosen[1] == pytest.approx(result.predicted_loss, rel=1e-2)
    assert result.front.points[-1] == (1024, 0.0)
    lost = [np.sqrt(np.sum(np.square(row.spectrum.values[row.rank :]))) for row in result.replaced]
    assert lost == pytest.approx([row.loss_error for row in result.replaced], rel=1e-2)


def test_curves_are_saved_with_the_model(small, tmp_path):
    from tncompress import load

    small.save(tmp_path / "small.keras")
    assert report(load(tmp_path / "small.keras")).to_json() == report(small).to_json()
    front = report(small).front
    assert Front.from_config(front.to_config()) == front


def test_models_that_were_saved_without_curves_load(small):
    config = small.get_config()
    del config["front"]
    for outcome in config["outcomes"]:
        del outcome["spectrum"]
    result = report(type(small).from_config(config))
    assert result.front is None
    assert {row.spectrum for row in result.rows} == {None}
    assert result.keep == report(small).keep
