"""Decompositions against LAPACK's singular values."""

import numpy as np
import pytest
from oracles import svd_tail

from tncompress.linalg import balance, leading_eigenvectors, low_rank_factors, psd_inverse, psd_root


def with_singular_values(values, rows, columns, seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(generator.normal(size=(rows, len(values))))[0]
    right = np.linalg.qr(generator.normal(size=(columns, len(values))))[0]
    return ((left * values) @ right.T).astype(dtype)


MATRICES = {
    "wide": np.random.default_rng(0).normal(size=(6, 11)),
    "tall": np.random.default_rng(1).normal(size=(11, 6)),
    "square": np.random.default_rng(2).normal(size=(7, 7)),
    "one row": np.random.default_rng(3).normal(size=(1, 9)),
    "one column": np.random.default_rng(4).normal(size=(9, 1)),
    "one number": np.array([[3.0]]),
    "zero": np.zeros((4, 5)),
    "rank deficient": with_singular_values([3.0, 2.0], 6, 8),
    "equal singular values": with_singular_values([2.0] * 5, 6, 8),
    "tiny": 1e-20 * np.random.default_rng(5).normal(size=(5, 6)),
    "huge": 1e20 * np.random.default_rng(6).normal(size=(5, 6)),
    "graded": with_singular_values(10.0 ** -np.arange(8.0), 9, 12),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MATRICES)
def test_low_rank_factors_are_optimal(name, dtype):
    matrix = MATRICES[name].astype(dtype)
    norm = np.linalg.norm(matrix.astype(np.float64))
    for rank in range(1, min(matrix.shape) + 1):
        left, right = low_rank_factors(matrix, rank)
        assert (left.shape, right.shape) == ((matrix.shape[0], rank), (rank, matrix.shape[1]))
        assert left.dtype == right.dtype == dtype
        assert np.isfinite(left).all()
        assert np.isfinite(right).all()
        error = np.linalg.norm(matrix.astype(np.float64) - left.astype(np.float64) @ right.astype(np.float64))
        # A Gram matrix in float64 knows energies to n eps of the largest; the factors are rounded to dtype: rank + 1
        # roundings of entries whose squares sum up to norm^2.
        gram = matrix.size * np.finfo(np.float64).eps * norm**2
        factors = 4 * (rank + 1) * np.finfo(dtype).eps * norm
        assert error <= 1.00005 * np.sqrt(svd_tail(matrix, rank) + gram) + factors


@pytest.mark.parametrize("tail", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_float32_resolves_small_tails(tail):
    """Relative error of `tail`, whose square a float32 Gram matrix cannot hold below 3e-4."""
    matrix = with_singular_values([1.0] * 8 + [tail / 4] * 16, 40, 60, dtype=np.float32)
    left, right = low_rank_factors(matrix, 8)
    error = np.linalg.norm(matrix.astype(np.float64) - left.astype(np.float64) @ right.astype(np.float64))
    rounding = 4 * 9 * np.finfo(np.float32).eps * np.sqrt(8)
    assert error <= 1.0001 * np.sqrt(svd_tail(matrix, 8)) + rounding


def test_a_rank_above_the_shape_is_filled_up_with_zeros():
    matrix = MATRICES["wide"]
    left, right = low_rank_factors(matrix, 9)
    assert (left.shape, right.shape) == ((6, 9), (9, 11))
    np.testing.assert_allclose(left @ right, matrix, atol=1e-13)
    assert not left[:, 6:].any()


def test_columns_come_in_order_of_importance():
    matrix = MATRICES["wide"]
    left, right = low_rank_factors(matrix, 6)
    for rank in range(1, 7):
        error = np.linalg.norm(matrix - left[:, :rank] @ right[:rank]) ** 2
        assert error == pytest.approx(svd_tail(matrix, rank), rel=1e-10, abs=1e-12)


def test_leading_eigenvectors():
    symmetric = MATRICES["wide"] @ MATRICES["wide"].T
    values, vectors = leading_eigenvectors(symmetric, 4)
    np.testing.assert_allclose(values, np.linalg.svd(MATRICES["wide"], compute_uv=False)[:4] ** 2, rtol=1e-12)
    np.testing.assert_allclose(symmetric @ vectors, vectors * values, atol=1e-12 * values[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-13)


@pytest.mark.parametrize("name", ["wide", "tall", "zero", "rank deficient", "graded", "one row"])
def test_psd_root(name):
    symmetric = MATRICES[name] @ MATRICES[name].T
    symmetric -= 1e-16 * np.trace(symmetric) * np.eye(len(symmetric))  # rounding makes eigenvalues negative
    root = psd_root(symmetric)
    np.testing.assert_array_equal(np.isfinite(root), True)
    np.testing.assert_allclose(root, root.T, atol=1e-13 * np.abs(root).max())
    np.testing.assert_allclose(root @ root, symmetric, atol=1e-14 * max(np.trace(symmetric), 1e-300))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_balance_keeps_the_product_and_evens_the_norms(scale, dtype):
    generator = np.random.default_rng(0)
    left = (scale * generator.normal(size=(5, 3))).astype(dtype)
    right = (generator.normal(size=(3, 7)) / scale).astype(dtype)
    new_left, new_right = balance(left, right)
    assert new_left.dtype == new_right.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(new_left @ new_right, left @ right, atol=20 * eps * np.abs(left @ right).max())
    np.testing.assert_allclose(np.linalg.norm(new_left, axis=0), np.linalg.norm(new_right, axis=1), rtol=20 * eps)


def test_balance_leaves_zeros_alone():
    left, right = np.array([[1.0, 0.0, 2.0]]), np.array([[0.0], [1.0], [0.0]])
    new_left, new_right = balance(left, right)
    assert np.isfinite(new_left).all()
    assert np.isfinite(new_right).all()
    assert not (new_left @ new_right).any()


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6])
def test_psd_inverse(condition):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    symmetric = (basis * np.geomspace(condition, 1, 12)) @ basis.T
    inverse = psd_inverse(symmetric)
    np.testing.assert_array_equal(inverse, inverse.T)
    np.testing.assert_allclose(inverse @ symmetric, np.eye(12), atol=1e-14 * condition)


def test_psd_inverse_of_what_rounding_made_indefinite():
    symmetric = np.diag([1.0, 2.0, -1e-9])
    np.testing.assert_allclose(psd_inverse(symmetric), np.linalg.inv(symmetric))
