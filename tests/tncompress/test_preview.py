"""`preview` tells what `replace_dense` will do, without doing it."""

import keras
import numpy as np
import pytest
from keras import layers

from tncompress import Budget, replace_dense
from tncompress.conversion.preview import preview
from tncompress.fitting.budget import BudgetError

WIDTHS = (24, 48, 24, 48, 24)


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((WIDTHS[0],)), *(layers.Dense(n, "relu", name=f"dense_{k}") for k, n in enumerate(WIDTHS[1:]))]
    )


INPUTS = np.random.default_rng(0).normal(size=(300, WIDTHS[0])).astype("float32")
CASES = {
    "uniform": {"keep": 0.4},
    "global": {"keep": 0.4, "allocation": "global"},
    "params": {"budget": Budget(params=2500)},
    "calibrated": {"keep": 0.4, "calibration": INPUTS},
    "objective": {"keep": 0.4, "calibration": INPUTS, "objective": "outputs"},
    "max_loss": {"budget": Budget(max_loss=0.2), "calibration": INPUTS, "objective": "outputs"},
    "narrow": {"keep": 0.6, "form": ("narrow", "low_rank"), "calibration": INPUTS, "objective": "outputs"},
    "two forms": {"keep": 0.5, "form": ("low_rank", "monarch")},
    "some": {"keep": 0.5, "include": "dense_[12]"},
    "device": {"keep": 0.6, "device": "gpu-t4", "tokens": [64, 1024]},
}


@pytest.mark.parametrize("case", CASES)
def test_sizes_recipe_and_reasons_are_those_of_replace_dense(case):
    dense = model()
    before = [weight.copy() for weight in dense.get_weights()]
    expected, small = preview(dense, **CASES[case]), replace_dense(dense, **CASES[case])
    assert all(np.array_equal(a, b) for a, b in zip(dense.get_weights(), before, strict=True))
    outcomes = small._compression.outcomes
    assert expected.params_after == small.count_params()
    assert expected.params_before == dense.count_params()
    assert expected.recipe == {o.path: o.choice.to_config() for o in outcomes if o.choice}
    assert [row.reason for row in expected.rows] == [outcome.reason for outcome in outcomes]
    assert all(line.startswith(f"{o.path}: ") for line, o in zip(str(expected).splitlines(), outcomes, strict=False))


@pytest.mark.parametrize("case", ["uniform", "global", "calibrated", "objective"])
def test_the_loss_is_that_of_the_fit(case):
    """Low rank is fitted in closed form, so the singular values tell exactly what is lost."""
    measure = {"objective": "predicted_loss", "calibrated": "output_error"}.get(case, "weight_error")
    expected, small = preview(model(), **CASES[case]), replace_dense(model(), **CASES[case])
    for row, outcome in zip(expected.rows, small._compression.outcomes, strict=True):
        found = getattr(outcome, measure)
        if outcome.choice:
            assert row.loss == pytest.approx(found if case == "objective" else found**2, rel=1e-3)


def test_a_recipe_loses_what_was_told_of_it():
    expected = preview(model(), keep=0.4)
    again = preview(model(), recipe=expected.recipe)
    assert [row.loss for row in again.rows] == pytest.approx([row.loss for row in expected.rows])


def test_times_are_estimates_of_the_device():
    slow, fast = (preview(model(), keep=0.6, device=name).rows[0] for name in ("gpu-t4", "gpu-h100"))
    assert fast.seconds_before < slow.seconds_before
    assert preview(model(), keep=0.6).rows[0].seconds_after is None


def test_the_model_still_computes_the_same():
    dense = model()
    before = dense.predict(INPUTS, verbose=0)
    preview(dense, **CASES["narrow"])
    assert np.array_equal(dense.predict(INPUTS, verbose=0), before)


def test_bad_arguments():
    with pytest.raises(TypeError, match="preview has no argument 'refit'; it takes budget"):
        preview(model(), refit=True)
    with pytest.raises(ValueError, match="two limits"):
        preview(model(), 0.5, budget=Budget(params=9))
    with pytest.raises(BudgetError, match="less than the 144 parameters"):
        preview(model(), budget=Budget(params=9))
    with pytest.raises(BudgetError, match="smallest networks"):
        preview(model(), budget=Budget(flops=1))
