"""Truncated decompositions by Gram matrix, eigenvectors and projection: no division by small singular values.

For a matrix A `[m, n]` with m <= n, the leading eigenvectors U of A A^T give the best approximation U (U^T A) of their
rank (Eckart & Young 1936). Singular values are never divided by, so rank-deficient input needs no care.
"""

import numpy as np

MIRRORED = 256  # rows of a matrix at a time, which take little memory


def leading_eigenvectors(symmetric: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest eigenvalues, descending, and their eigenvectors `[n, count]`; zeros beyond the n-th."""
    import scipy.linalg  # costs more to import than numpy itself

    n = len(symmetric)
    unused = max(0, count - n)
    first = n - (count - unused)
    values, vectors = scipy.linalg.eigh(symmetric, subset_by_index=(first, n - 1), check_finite=False)
    return np.pad(values[::-1], (0, unused)), np.pad(vectors[:, ::-1], ((0, 0), (0, unused)))


def low_rank_factors(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The best approximation `left [m, rank] @ right [rank, n]`, columns in order of importance.

    One factor has orthonormal columns (rows); the other carries the singular values. A float32 matrix is decomposed
    in float32 as long as that can resolve what is dropped, else in float64. A rank above that of the matrix's shape
    is filled up with zeros.
    """
    unused = rank - min(rank, *matrix.shape)
    if unused:
        left, right = low_rank_factors(matrix, rank - unused)
        return np.pad(left, ((0, 0), (0, unused))), np.pad(right, ((0, unused), (0, 0)))
    if matrix.dtype == np.float32:
        left, right, dropped = _project(matrix, rank)
        # A float32 Gram matrix knows energies to about 1e-7 of the largest; a smaller rest is noise.
        if dropped > 1e-4:
            return left, right
        left, right, _ = _project(matrix.astype(np.float64), rank)
        return left.astype(np.float32), right.astype(np.float32)
    left, right, _ = _project(matrix, rank)
    return left, right


def _project(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Left and right factor, and the fraction of the energy that is dropped."""
    rows, columns = matrix.shape
    if rows > columns:
        left, right, dropped = _project(matrix.T, rank)
        return right.T, left.T, dropped
    gram = matrix @ matrix.T
    values, vectors = leading_eigenvectors(gram, rank)
    energy = float(np.trace(gram))
    dropped = 1 - float(values.sum()) / energy if 0 < energy < np.inf else 0.0  # unknown where squares overflow
    return vectors, vectors.T @ matrix, dropped


def balance(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same product with equal norms of every column of `left` and row of `right`: kind to training and float16."""
    ratio = np.linalg.norm(right, axis=1) / np.maximum(np.linalg.norm(left, axis=0), np.finfo(left.dtype).tiny)
    scale = np.sqrt(np.where((ratio > 0) & np.isfinite(ratio), ratio, 1.0)).astype(left.dtype)
    return left * scale, right / scale[:, None]


def psd_root(symmetric: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semi-definite matrix; eigenvalues below zero count as rounding."""
    import scipy.linalg

    values, vectors = scipy.linalg.eigh(symmetric, check_finite=False)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def psd_inverse(symmetric: np.ndarray) -> np.ndarray:
    """The inverse of a positive definite matrix, by a third of the operations that any other takes.

    >>> psd_inverse(np.diag([4.0, 1.0])).tolist()
    [[0.25, 0.0], [0.0, 1.0]]
    """
    from scipy.linalg import lapack

    factor, failed = lapack.dpotrf(symmetric, lower=1)  # type: ignore[attr-defined]
    if failed:  # definite in exact arithmetic only
        return np.linalg.inv(symmetric)
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)  # type: ignore[attr-defined]
    mirror(inverse)
    return inverse.T  # columns first was LAPACK's order


def mirror(square: np.ndarray) -> None:
    """Make what is below the diagonal stand above it too, in place.

    >>> matrix = np.array([[1.0, 9.0], [2.0, 3.0]])
    >>> mirror(matrix)
    >>> matrix.tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    for start in range(0, len(square), MIRRORED):
        rows = slice(start, start + MIRRORED)
        square[:start, rows] = square[rows, :start].T
        block = square[rows, rows]
        block[:] = np.tril(block) + np.tril(block, -1).T
