"""`Moments` against explicit loops in Python's exact-ish sums (math.fsum)."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tncompress import Moments, linalg
from tncompress.fitting import moments as moments_module
from tncompress.fitting.moments import Gathering, Spread


def by_loops(x):
    """Count, mean and scatter, every sum by `math.fsum`."""
    x = np.asarray(x, np.float64).reshape(-1, np.shape(x)[-1])
    count, width = x.shape
    mean = [math.fsum(x[:, i]) / count for i in range(width)]
    scatter = [
        [math.fsum((row[i] - mean[i]) * (row[j] - mean[j]) for row in x) for j in range(width)] for i in range(width)
    ]
    return count, np.array(mean), np.array(scatter)


def assert_same(moments, x, relative):
    """Equal, the scatter relative to the size of its entries sqrt(s_ii s_jj), the mean to that of x."""
    count, mean, scatter = by_loops(x)
    assert moments.count == count
    spread = np.sqrt(np.diag(scatter))
    np.testing.assert_array_less(np.abs(moments.mean - mean), relative * np.abs(x).max() + 1e-300)
    np.testing.assert_array_less(np.abs(moments.scatter - scatter), relative * np.outer(spread, spread) + 1e-300)
    np.testing.assert_allclose(moments.covariance, np.asarray(moments.scatter) / count)
    np.testing.assert_allclose(moments.second, moments.covariance + np.outer(moments.mean, moments.mean))


def data(samples=200, width=5, dtype=np.float64, mean=1.0, seed=0):
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(samples, width)) @ generator.normal(size=(width, width)) + mean).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("samples", [1, 2, 200])
def test_moments_equal_those_of_loops(samples, dtype):
    x = data(samples, dtype=dtype)
    if samples == 1:
        assert not np.abs(Moments.of(x).scatter).max() > np.finfo(dtype).eps ** 2 * np.abs(x).max() ** 2
    else:
        assert_same(Moments.of(x), x, 4 * samples * np.finfo(dtype).eps)


def test_covariance_is_that_of_numpy():
    x = data()
    np.testing.assert_allclose(Moments.of(x).covariance, np.cov(x.T, ddof=0), rtol=1e-12)
    np.testing.assert_allclose(Moments.of(x).second, x.T @ x / len(x), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_a_hundred_batches_are_one(mean, dtype):
    x = data(1000, dtype=dtype, mean=mean)
    merged = sum((Moments.of(batch) for batch in np.array_split(x, 100)[1:]), Moments.of(np.array_split(x, 100)[0]))
    assert_same(merged, x, 1e-6)
    assert_same(Moments.of(x), x, 1e-6)


def test_a_large_mean_costs_no_precision():
    """Variance 1 about a mean of 1e4 in float32: the second moment about zero would have lost all of it."""
    x = data(2000, mean=1e4, dtype=np.float32)
    assert_same(Moments.of(x), x, 2e-6)


def test_a_mean_that_the_dtype_rounds():
    """A standard deviation of 0.01 about 1e4 in float32, whose numbers are 0.001 apart there, as the mean's are."""
    x = (10000.000488 + 0.01 * np.random.default_rng(0).normal(size=(2000, 4))).astype(np.float32)
    assert_same(Moments.of(x), x, 2000 * np.finfo(np.float32).eps)


def test_uneven_batches_and_either_order():
    x = data(60)
    parts = Moments.of(x[:1]), Moments.of(x[1:50]), Moments.of(x[50:])
    assert_same(parts[0] + parts[1] + parts[2], x, 1e-12)
    assert_same(parts[2] + (parts[0] + parts[1]), x, 1e-12)


def test_any_leading_axes_count_vectors():
    x = data(24)
    assert_same(Moments.of(x.reshape(2, 3, 4, 5)), x, 1e-12)
    assert_same(Moments.of(x.reshape(2, 12, 5)), x, 1e-12)


@pytest.mark.parametrize("kind", [bool, int, np.float32])
def test_masked_vectors_do_not_count(kind):
    x = data(24).reshape(4, 6, 5)
    mask = np.random.default_rng(0).random((4, 6)) > 0.4
    x[~mask] = np.nan  # padding may hold anything
    assert_same(Moments.of(x, mask.astype(kind)), x[mask], 1e-12)


def test_nothing_changes_nothing():
    x = data(10)
    nothing = Moments.of(x[:0])
    assert nothing.count == 0
    assert not nothing.covariance.any()
    assert not nothing.second.any()
    for merged in (nothing + Moments.of(x), Moments.of(x) + nothing):
        assert_same(merged, x, 1e-12)
    assert (nothing + nothing).count == 0
    assert Moments.of(x, np.zeros(10, bool)).count == 0


def test_a_constant_feature_has_no_variance():
    x = data(100, dtype=np.float32)
    x[:, 2] = 0.1
    x[:, 3] = 0.0
    scatter = Moments.of(x).scatter
    assert abs(scatter[2, 2]) < 1e-9
    assert scatter[3, 3] == 0


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"needs the shape \(4, 6\) of the leading axes of x, got \(4,\)"):
        Moments.of(np.ones((4, 6, 5)), np.ones(4))
    with pytest.raises(ValueError, match="Moments of 5 and of 4 features do not add up"):
        Moments.of(np.ones((3, 5))) + Moments.of(np.ones((3, 4)))


def test_gradients_add_up_beside_the_inputs():
    x, g = data(width=3), data(width=2, seed=1)
    first = replace(Moments.of(x[:50]), gradients=Moments.of(g[:70]))
    second = replace(Moments.of(x[50:]), gradients=Moments.of(g[70:]))
    assert_same((first + second).gradients, g, 1e-12)
    assert_same(first + second, x, 1e-12)


def test_gradients_of_one_side_stay():
    """Gradients may be gathered on part of the data; no inputs at all count nothing."""
    x, g = data(width=3), data(width=2, seed=1)
    some = replace(Moments.of(x), gradients=Moments.of(g))
    for total in (some + Moments.of(x), Moments.of(x) + some, some + Moments.of(x[:0]), Moments.of(x[:0]) + some):
        assert total.gradients is some.gradients
    nothing = replace(Moments.of(x[:0]), gradients=Moments.of(g[:0]))
    assert (nothing + nothing).gradients.count == 0
    assert (Moments.of(x) + Moments.of(x)).gradients is None


# -- in place --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_gathering_is_the_sum_of_all(block, mean, dtype, monkeypatch):
    monkeypatch.setattr(moments_module, "BLOCK", block)
    monkeypatch.setattr(moments_module, "CORRECTIONS", 6)
    monkeypatch.setattr(linalg, "MIRRORED", 2)
    x = data(300, dtype=dtype, mean=mean)
    gathering = Gathering(5)
    for part in np.array_split(x, [0, 1, 1, 50, 53, 200]):
        gathering.add(part)
    assert_same(gathering.moments(), x, 1e-6)
    assert Gathering(5).moments().count == 0


def test_gathering_of_a_mean_that_moves():
    """A spread of 1 about means that go from -1e3 to 1e3."""
    x = (np.random.default_rng(0).normal(size=(3000, 3)) + np.linspace(-1e3, 1e3, 3000)[:, None]).astype(np.float32)
    gathering = Gathering(3)
    for part in np.array_split(x, 100):
        gathering.add(part)
    assert_same(gathering.moments(), x, 1e-6)


def test_spreads_add_up():
    x = data(90, width=4, mean=100.0)
    energy = math.fsum(((x - x.mean(axis=0)) ** 2).ravel())
    parts = [Spread.of(part) for part in np.array_split(x, [0, 13, 50])]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    assert (total.count, total.energy) == (90, pytest.approx(energy, rel=1e-10))
    np.testing.assert_allclose(total.mean, x.mean(axis=0))
    assert (parts[0] + parts[0]).energy == 0


def test_spreads_of_other_widths_are_of_numbers():
    first, second = data(10, width=4), data(20, width=3)
    numbers = np.concatenate([first.ravel(), second.ravel()])
    found = Spread.of(first) + Spread.of(second)
    assert (found.count, found.energy) == (100, pytest.approx(np.sum((numbers - numbers.mean()) ** 2)))
