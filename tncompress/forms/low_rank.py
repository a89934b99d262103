"""Low rank  W = U V.   Eckart & Young 1936; calibrated and inverse-free as in DRONE (Chen et al. 2021)."""

from collections.abc import Iterator

import numpy as np

from tncompress.forms.form import Form, largest_rank
from tncompress.linalg import balance, leading_eigenvectors, low_rank_factors, psd_root
from tncompress.network.spec import Spec


def spec(in_dim: int, out_dim: int, rank: int) -> Spec:
    """x U V with U `[in_dim, rank]` and V `[rank, out_dim]`.

    >>> spec(768, 3072, rank=64).num_params
    245760
    """
    return Spec.parse("i, i r, r o -> o", i=in_dim, r=rank, o=out_dim)


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """The largest rank that fits."""
    return largest_rank(lambda rank: spec(in_dim, out_dim, rank), min(in_dim, out_dim), max_params)


def decompose(kernel: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """The truncated singular value decomposition."""
    return list(balance(*low_rank_factors(kernel, spec.size[spec.bonds[0]])))


def decompose_calibrated(kernel: np.ndarray, spec: Spec, metric: np.ndarray) -> list[np.ndarray]:
    """The kernel projected on the leading directions of its outputs, optimal in the metric, which may be singular.

    With V the leading eigenvectors of K^T C K, the best kernel of that rank is K V V^T.
    """
    right = output_directions(kernel, metric, spec.size[spec.bonds[0]])
    return list(balance(kernel @ right, right.T))


def decompose_two_sided(kernel: np.ndarray, spec: Spec, metric: np.ndarray, out_metric: np.ndarray) -> list[np.ndarray]:
    """The same for the kernel K S^(1/2), and S^(1/2) taken off again; only S must have an inverse.

    tr((K - K')^T C (K - K') S) is the calibrated error of K' S^(1/2) for K S^(1/2).
    """
    rank = spec.size[spec.bonds[0]]
    found = _from_the_inputs if len(kernel) < kernel.shape[1] else _from_the_outputs
    left, right = found(kernel, metric, out_metric, min(rank, *kernel.shape))
    if left.shape[1] < rank:
        # Ranks that are left go to what was never seen; it stays unseen, as a projection of the outputs.
        rest = low_rank_factors(kernel - left @ right, rank - left.shape[1])
        left, right = np.hstack([left, rest[0]]), np.vstack([right, rest[1]])
    return list(balance(left, right))


def _from_the_outputs(
    kernel: np.ndarray, metric: np.ndarray, out_metric: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best factors of at most this rank by the roots of S, the smaller metric."""
    values, vectors = np.linalg.eigh(out_metric)
    root = np.sqrt(np.maximum(values, np.finfo(np.float64).tiny))
    seen = kernel @ (vectors * root)  # [in_dim, out_dim], K S^(1/2) but for a rotation of the outputs
    _, right = _seen_directions(seen.T @ metric @ seen, rank)
    return seen @ right, (right.T / root) @ vectors.T


def _from_the_inputs(
    kernel: np.ndarray, metric: np.ndarray, out_metric: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same by the root of C, the smaller metric, and nothing but products with S.

    With A = B S^(1/2) = C^(1/2) K S^(1/2) and L D^2 L^T = A A^T, A's right singular vectors are S^(1/2) B^T L D^-1, so
    the best kernel is (K S B^T L D^-2) (L^T B).
    """
    seen = psd_root(metric) @ kernel  # [in_dim, out_dim], B
    weighted = seen @ out_metric  # [in_dim, out_dim], B S
    energies, left = _seen_directions(weighted @ seen.T, rank)
    return kernel @ (weighted.T @ (left / energies)), left.T @ seen


def _seen_directions(gram: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading eigenvalues and eigenvectors, but for those that are within rounding of nothing."""
    energies, vectors = leading_eigenvectors(gram, rank)
    count = int(np.sum(energies > len(gram) * np.finfo(np.float64).eps * energies[0]))
    return energies[:count], vectors[:, :count]


def output_directions(kernel: np.ndarray, metric: np.ndarray, rank: int) -> np.ndarray:
    """Leading eigenvectors `[out_dim, rank]` of K^T C K, found on the smaller side."""
    in_dim, out_dim = kernel.shape
    if out_dim <= in_dim:
        return leading_eigenvectors(kernel.T @ metric @ kernel, rank)[1]
    seen = psd_root(metric) @ kernel  # [in_dim, out_dim], K^T C K = seen^T seen
    useful = min(rank, in_dim)
    left = leading_eigenvectors(seen @ seen.T, useful)[1]
    # Rows of left^T seen are singular value x right vector; QR makes them orthonormal without a division.
    return np.pad(np.linalg.qr(seen.T @ left)[0], ((0, 0), (0, rank - useful)))


def is_low_rank(spec: Spec) -> bool:
    """Whether a spec is `"i, i r, r o -> o"`, by whatever names, with a rank below its number of outputs."""
    if len(spec.cores) != 2 or len(spec.inputs) != 1 or len(spec.outputs) != 1:
        return False
    (first, bond), (second, last) = (core if len(core) == 2 else ("", "") for core in spec.cores)
    return bool(bond) and bond == second and (first, last) == (spec.inputs[0], spec.outputs[0])


# Moving a number to its place among the outputs, or in a core, takes as long as so many multiply-adds: on a CPU, with
# TensorFlow, by benchmarks/pivots.py. One of the outputs moves alone, those of a core in rows.
OUTPUT_MOVED, WEIGHT_MOVED = 250, 70


def skips_identity(spec: Spec, vectors: int) -> bool:
    """Whether a layer with pivots does best not to multiply by its identity block, for so many vectors at once.

    If it does not multiply, its outputs have to be put in order; if it does, the columns of the small core.

    >>> skips_identity(spec(768, 3072, 128), 1024), skips_identity(spec(768, 3072, 128), 8)
    (False, True)
    """
    (_, rank), out_dim = spec.core_shapes[0], spec.out_dim
    return vectors * out_dim * OUTPUT_MOVED < rank * out_dim * WEIGHT_MOVED + vectors * rank**2


FORM = Form(
    "low_rank",
    candidates,
    decompose,
    decompose_calibrated,
    decompose_two_sided,
    optimal=True,
    source="Eckart & Young 1936; Chen et al. 2021 (DRONE)",
)
