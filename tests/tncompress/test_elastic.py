"""One file at several sizes, against fits of those sizes."""

import keras
import numpy as np
import pytest
from keras import ops

import tncompress
from tncompress import Budget, load, replace_dense, report
from tncompress.conversion.elastic import shrunk
from tncompress.conversion.outcomes import ROOM

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(400, 12)) @ RNG.normal(size=(12, 24)) + 1).astype("float32")
PATHS = [f"layer_{i}" for i in range(4)]


def outputs(model):
    return ops.convert_to_numpy(model(X))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(w, "gelu", name=f"layer_{i}") for i, w in enumerate((48, 24, 48, 24))]
    return keras.Sequential([keras.Input((24,)), *layers], name="mlp")


@pytest.fixture(scope="module")
def moments(model):
    return tncompress.calibrate(model, PATHS, X, objective="outputs")


@pytest.mark.parametrize("objective", [False, True], ids=["one-sided", "two-sided"])
@pytest.mark.parametrize("keep", [0.2, 0.4, 0.6])
def test_loaded_smaller_is_what_a_fit_of_that_size_gives(model, moments, keep, objective, tmp_path):
    given = moments if objective else moments.without_gradients()
    large = replace_dense(model, keep=0.75, elastic=True, allocation="global", calibration=given)
    large.save(tmp_path / "large.keras")
    small = load(tmp_path / "large.keras", keep=keep)
    total = sum(24 * 48 for _ in PATHS)
    cores = sum(int(np.prod(c.shape)) for name in PATHS for c in small.get_layer(name).cores)
    assert keep * total - (24 + 48) < cores <= keep * total  # to the next rank
    assert report(small).params_after == small.count_params()
    again = replace_dense(model, recipe=report(small).recipe, calibration=given)
    # The closed form of a smaller rank is the larger one's, cut; biases take up the same means.
    np.testing.assert_allclose(outputs(small), outputs(again), atol=2e-4)


def test_predicted_loss_adds_up(model, moments):
    large = replace_dense(model, keep=0.75, elastic=True, calibration=moments)
    small = shrunk(large, 0.4)
    fitted = replace_dense(model, recipe=report(small).recipe, calibration=moments)
    for row, other in zip(report(small).rows, report(fitted).rows, strict=True):
        assert row.predicted_loss == pytest.approx(other.predicted_loss, rel=1e-2, abs=1e-9)


def test_smaller_again_and_with_fewer_hidden_units(model, moments, tmp_path):
    large = replace_dense(model, keep=0.7, elastic=True, form=("narrow", "low_rank"), calibration=moments)
    if not any(row.form == "low_rank" for row in report(large).rows):
        pytest.fail("nothing elastic to try")
    share = report(large).keep
    small = shrunk(large, 0.9 * share)
    smaller = shrunk(small, 0.8 * share)
    assert report(smaller).keep < report(small).keep < share
    smaller.save(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(outputs(load(tmp_path / "smaller.keras")), outputs(smaller))


@pytest.mark.parametrize("keep", [0.8, 0.9])
def test_hidden_units_do_not_keep_large_ranks_out(model, moments, keep):
    """With them the budget is used up as well, and no more is lost than without."""
    plain, both = (
        report(replace_dense(model, keep, elastic=True, form=form, calibration=moments, allocation="global"))
        for form in ("low_rank", ("narrow", "low_rank"))
    )
    total = sum(row.params_before for row in both.rows)
    assert 0.98 * keep * total < sum(row.params_after for row in both.rows) <= keep * total
    assert all(row.form == "low_rank" for row in both.rows)
    assert both.predicted_loss <= 1.05 * plain.predicted_loss


@pytest.mark.parametrize(
    ("form", "most", "stays_whole"),
    [
        ("low_rank", 0.5, False),
        ("low_rank", 1e-3, True),
        (("narrow", "low_rank"), 0.5, False),
        (("narrow", "low_rank"), 0.03, True),  # both layers of a pair
    ],
)
def test_a_limit_of_the_loss_is_met_by_layers_that_stay_whole_if_it_must_be(model, moments, form, most, stays_whole):
    small = replace_dense(model, budget=Budget(max_loss=most), elastic=True, form=form, calibration=moments)
    found = report(small)
    assert found.predicted_loss <= most * (1 + 1e-3)
    assert any(row.reason == ROOM for row in found.rows) == stays_whole
    assert found.replaced
    smaller = shrunk(small, 0.7 * found.keep)
    assert report(smaller).keep <= 0.7 * found.keep
    with pytest.warns(UserWarning, match=r"Nothing is compressed: within Budget\(max_loss=1e-12\) .* raise it"):
        replace_dense(model, budget=Budget(max_loss=1e-12), elastic=True, form=form, calibration=moments)


def test_networks_of_one_size_beside_count(model):
    """One kernel is a Kronecker product, which stays as it is at every size."""
    dense = keras.models.clone_model(model)
    dense.get_layer("layer_0").kernel.assign(np.kron(RNG.normal(size=(6, 6)), RNG.normal(size=(4, 8))))
    for layer in dense.layers[1:]:  # nearly of low rank
        kernel = RNG.normal(size=(layer.kernel.shape[0], 6)) @ RNG.normal(size=(6, layer.kernel.shape[1]))
        layer.kernel.assign(kernel + 0.05 * RNG.normal(size=kernel.shape))
    large = replace_dense(dense, 0.7, elastic=True, form=("kronecker", "low_rank"))
    assert {row.form for row in report(large).rows} == {"kronecker", "low_rank"}
    keep = 0.7 * report(large).keep
    assert 0.9 * keep < report(shrunk(large, keep)).keep <= keep


def test_refusals(model, moments, tmp_path):
    plain = replace_dense(model, keep=0.5, calibration=moments)
    plain.save(tmp_path / "plain.keras")
    with pytest.raises(ValueError, match=r"has one size only; make it with replace_dense\(..., elastic=True\)"):
        load(tmp_path / "plain.keras", keep=0.3)
    large = replace_dense(model, keep=0.5, elastic=True, calibration=moments)
    for keep in (0.9, 0.001):
        with pytest.raises(ValueError, match=r"can keep from .*% to .*%.*got keep="):
            shrunk(large, keep)
    with pytest.raises(ValueError, match="fraction of parameters"):
        shrunk(large, 1.5)
    with pytest.raises(ValueError, match=r"elastic=True is for low rank.*got kronecker"):
        replace_dense(model, form="kronecker", elastic=True)
