"""Alternating least squares against LAPACK's least squares, and its properties on any network."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import arrays, specs

from tncompress import FORMS, Moments, Spec, fit, to_dense
from tncompress.fitting.als import _best_core, als, random_cores
from tncompress.fitting.problem import Problem, squared_error
from tncompress.forms import block_diagonal, expand_condense, low_rank, tt_matrix

SOME = settings(max_examples=60, deadline=None, derandomize=True)


def metric_of(in_dim, seed, samples=50):
    x = np.random.default_rng(seed).normal(size=(samples, in_dim))
    return x.T @ x / samples


def metrics_for(spec, sides, seed):
    """Of no side, of the inputs, of both."""
    return [metric_of(dim, seed + k) if k < sides else None for k, dim in enumerate((spec.in_dim, spec.out_dim))]


@SOME
@given(specs(), st.integers(0, 2), st.integers(0, 1000))
def test_the_error_never_grows(spec, sides, seed):
    """Sweep by sweep, on any network, hyper-edges and unseen block modes too."""
    kernel = np.random.default_rng(seed).normal(size=(spec.in_dim, spec.out_dim))
    metrics = metrics_for(spec, sides, seed)
    energy = squared_error(kernel, np.zeros_like(kernel), *metrics)
    cores, before = random_cores(spec, seed), np.inf
    for _ in range(5):
        cores, error = als(kernel, spec, cores, *metrics, sweeps=1)
        assert error == pytest.approx(squared_error(kernel, to_dense(spec, cores), *metrics) / energy, abs=1e-12)
        assert error <= before + 1e-9
        before = error
    assert error <= 1 + 1e-9


@SOME
@given(specs(max_size=2), st.integers(0, 2), st.integers(0, 1000))
def test_a_single_unknown_core_is_the_least_squares_solution(spec, sides, seed):
    """LAPACK's lstsq on the design matrix, whose columns are the maps of unit cores."""
    index = len(spec.cores) - 1
    kernel = np.random.default_rng(seed).normal(size=(spec.in_dim, spec.out_dim))
    metrics = metrics_for(spec, sides, seed)
    cores = random_cores(spec, seed)
    found = list(cores)
    found[index] = _best_core(Problem(spec, kernel, *metrics), cores, index)
    left, right = (
        np.eye(dim) if metric is None else np.linalg.cholesky(metric + 1e-12 * np.eye(dim))
        for dim, metric in zip((spec.in_dim, spec.out_dim), metrics, strict=True)
    )
    columns = []
    for unit in np.eye(cores[index].size):
        columns.append((left.T @ to_dense(spec, [*cores[:-1], unit.reshape(cores[index].shape)]) @ right).ravel())
    solution = np.linalg.lstsq(np.array(columns).T, (left.T @ kernel @ right).ravel(), rcond=None)[0]
    best = to_dense(spec, [*cores[:-1], solution.reshape(cores[index].shape)])
    energy = squared_error(kernel, np.zeros_like(kernel), *metrics)
    expected = squared_error(kernel, best, *metrics) / energy
    assert squared_error(kernel, to_dense(spec, found), *metrics) / energy == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("sides", [0, 1, 2])
def test_the_squared_error_by_loops(sides):
    spec = low_rank.spec(3, 4, 2)
    kernel, approximation = np.random.default_rng(0).normal(size=(2, 3, 4))
    metric, out_metric = (
        np.eye(dim) if given is None else given for dim, given in zip((3, 4), metrics_for(spec, sides, 5), strict=True)
    )
    d = kernel - approximation
    looped = sum(
        d[i, o] * metric[i, j] * d[j, p] * out_metric[p, o]
        for i in range(3)
        for j in range(3)
        for o in range(4)
        for p in range(4)
    )
    assert squared_error(kernel, approximation, *metrics_for(spec, sides, 5)) == pytest.approx(looped, rel=1e-12)


@pytest.mark.parametrize("dims", [(12, 20), (20, 12)])
def test_low_rank_under_both_metrics_reaches_the_doubly_whitened_svd(dims):
    """L^T K R with C = L L^T and S = R R^T: Eckart & Young there."""
    spec = low_rank.spec(*dims, 5)
    kernel, metrics = np.random.default_rng(0).normal(size=dims), metrics_for(spec, 2, 3)
    left, right = (np.linalg.cholesky(metric) for metric in metrics)
    values = np.linalg.svd(left.T @ kernel @ right, compute_uv=False)
    best = (values[5:] ** 2).sum() / (values**2).sum()
    _, error = als(kernel, spec, random_cores(spec, 0), *metrics, sweeps=2000, tolerance=1e-10)
    assert error == pytest.approx(best, rel=1e-4)
    closed = low_rank.decompose_two_sided(kernel, spec, *metrics)
    energy = squared_error(kernel, 0.0, *metrics)
    assert squared_error(kernel, to_dense(spec, closed), *metrics) / energy == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_block_diagonal_under_a_metric_is_least_squares_block_by_block(centred):
    """Each output of block g is regressed on the inputs of block g: y_g = X_g V_g."""
    x = np.random.default_rng(0).normal(size=(80, 12)) @ np.random.default_rng(1).normal(size=(12, 12)) + 2
    kernel = np.random.default_rng(2).normal(size=(12, 9))
    seen = x - x.mean(axis=0) if centred else x
    blocks = [
        np.linalg.lstsq(seen[:, 4 * g : 4 * g + 4], (seen @ kernel)[:, 3 * g : 3 * g + 3], rcond=None)[0]
        for g in range(3)
    ]
    spec = block_diagonal.spec(12, 9, blocks=3)
    cores, _ = als(kernel, spec, random_cores(spec, 0), seen.T @ seen / len(x))
    np.testing.assert_allclose(cores[0], blocks, atol=1e-8)
    expected = np.zeros((12, 9))
    for g, block in enumerate(blocks):
        expected[4 * g : 4 * g + 4, 3 * g : 3 * g + 3] = block
    best = np.linalg.norm(seen @ (kernel - expected)) / np.linalg.norm(seen @ kernel)
    found = fit(kernel, spec, Moments.of(x), form="block_diagonal", centred=centred)
    # fit damps the metric by 1e-4: that moves the optimum by as much, its error by the square of it.
    assert found.output_error == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_a_gauge_on_any_bond_changes_nothing(form):
    """Q on one side of a bond and its inverse on the other leave the map as it is."""
    spec = next(iter(form.candidates(12, 16, 96)))
    _, cores = arrays(spec, 0)
    for bond in spec.bonds:
        owners = [k for k, core in enumerate(spec.cores) if bond in core]
        if len(owners) != 2:
            continue  # a hyper-edge has the freedom to scale and permute only
        gauge = np.random.default_rng(1).normal(size=(spec.size[bond],) * 2) + 3 * np.eye(spec.size[bond])
        changed = list(cores)
        for k, matrix in zip(owners, (gauge, np.linalg.inv(gauge).T), strict=True):
            axis = spec.cores[k].index(bond)
            changed[k] = np.moveaxis(np.tensordot(cores[k], matrix, (axis, 0)), -1, axis)
        dense = to_dense(spec, cores)
        np.testing.assert_allclose(to_dense(spec, changed), dense, atol=1e-10 * np.abs(dense).max())


def test_the_given_cores_are_not_changed():
    spec = low_rank.spec(6, 8, 2)
    cores = random_cores(spec, 0)
    before = [core.copy() for core in cores]
    als(np.ones((6, 8)), spec, cores)
    for core, old in zip(cores, before, strict=True):
        np.testing.assert_array_equal(core, old)


def test_low_rank_reaches_eckart_and_young():
    kernel = np.random.default_rng(0).normal(size=(12, 20))
    tail = np.linalg.svd(kernel, compute_uv=False)[5:]
    _, error = als(kernel, low_rank.spec(12, 20, 5), random_cores(low_rank.spec(12, 20, 5), 0), sweeps=500)
    assert error == pytest.approx((tail**2).sum() / np.vdot(kernel, kernel), rel=1e-4)


def test_conjugate_gradients_agree_with_the_direct_solution(monkeypatch):
    spec = tt_matrix.spec((3, 4), (4, 3), 3)
    kernel = np.random.default_rng(0).normal(size=(12, 12))
    for sides in (0, 1, 2):
        metrics = metrics_for(spec, sides, 1)
        direct = als(kernel, spec, random_cores(spec, 0), *metrics, sweeps=300, tolerance=1e-9)[1]
        with monkeypatch.context() as patched:
            patched.setattr("tncompress.fitting.als.DIRECT_ENTRIES", 0)
            steps = als(kernel, spec, random_cores(spec, 0), *metrics, sweeps=300, tolerance=1e-9)[1]
        assert steps == pytest.approx(direct, rel=1e-3)


def test_a_block_mode_in_no_core_repeats_the_map():
    """W = V (x) I: the best V is the mean of the blocks on the diagonal."""
    spec = Spec.parse("a g, a b -> b g", a=2, b=3, g=4)
    kernel = np.random.default_rng(0).normal(size=(8, 12))
    cores, _ = als(kernel, spec, random_cores(spec, 0))
    mean = np.mean([kernel.reshape(2, 4, 3, 4)[:, g, :, g] for g in range(4)], axis=0)
    np.testing.assert_allclose(cores[0], mean, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        low_rank.spec(768, 3072, 64),
        expand_condense.condense(3072, 768, 6, 128),
        tt_matrix.spec((24, 32), (48, 64), 32),
    ],
    ids=["low_rank", "condense", "tt_matrix"],
)
def test_alternating_least_squares_at_the_size_of_bert(spec):
    """Two sweeps from a random start beat the zero map by far on a kernel with a decaying spectrum."""
    generator = np.random.default_rng(0)
    width = min(spec.in_dim, spec.out_dim)
    kernel = generator.normal(size=(spec.in_dim, width)) * np.geomspace(1, 0.01, width)
    kernel = kernel @ generator.normal(size=(width, spec.out_dim))
    before = 1.0
    cores = random_cores(spec, 0)
    for _ in range(2):
        cores, error = als(kernel, spec, cores, sweeps=1)
        assert error < before
        before = error
