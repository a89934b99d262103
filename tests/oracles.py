"""Slow, independent truths: one einsum over integer sublists, loops over indices, LAPACK's decompositions."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from tncompress.network.spec import Spec


def einsum_map(spec: Spec, x: np.ndarray, cores: Sequence[np.ndarray]) -> np.ndarray:
    """x `[batch, *input modes]` -> y `[batch, *output modes]` by one `np.einsum`, in float64 at least."""
    number = {mode: k for k, (mode, _) in enumerate(spec.sizes, start=1)}
    number["batch"] = 0
    terms = [("batch", *spec.inputs), *spec.cores]
    wanted = ("batch", *spec.outputs)
    arguments = []
    for array, term in zip((x, *cores), terms, strict=True):
        arguments += [np.asarray(array, np.float64), [number[m] for m in term]]
    return np.einsum(*arguments, [number[m] for m in wanted])


def loop_kernel(spec: Spec, cores: Sequence[np.ndarray]) -> np.ndarray:
    """The kernel `[in_dim, out_dim]` by a loop over every assignment of values to modes."""
    names = [mode for mode, _ in spec.sizes]
    kernel = np.zeros((*spec.shape(spec.inputs), *spec.shape(spec.outputs)))
    for values in itertools.product(*(range(size) for _, size in spec.sizes)):
        at = dict(zip(names, values, strict=True))
        term = math.prod(core[tuple(at[m] for m in modes)] for core, modes in zip(cores, spec.cores, strict=True))
        kernel[tuple(at[m] for m in (*spec.inputs, *spec.outputs))] += term
    return kernel.reshape(spec.in_dim, spec.out_dim)


def rounding(spec: Spec, x: np.ndarray, cores: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    """A bound on the rounding error of any order of contraction in `dtype`, for every element of y.

    Every term of the sum is a product of len(cores) + 1 factors and passes through at most (number of terms) additions;
    each operation errs by at most eps relative to the sum of the absolute values (Higham 2002, section 3.1).
    """
    summed = [s for m, s in spec.sizes if m not in spec.outputs]
    operations = math.prod(summed) + len(cores) + 1
    magnitude = einsum_map(spec, np.abs(x), [np.abs(core) for core in cores])
    return operations * np.finfo(dtype).eps * magnitude


def svd_tail(matrix: np.ndarray, rank: int) -> float:
    """Squared Frobenius error of the best approximation of that rank: LAPACK's singular values (Eckart & Young)."""
    return float((np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)[rank:] ** 2).sum())


def output_error(x: np.ndarray, kernel: np.ndarray, approximation: np.ndarray, *, centred: bool = False) -> float:
    """||X (W - W')|| / ||X W||, measured on the samples `x [samples, in_dim]`."""
    x = x - x.mean(axis=0) if centred else x
    return float(np.linalg.norm(x @ (kernel - approximation)) / np.linalg.norm(x @ kernel))


class CountingOps:
    """numpy, but counting transposes of tensors that carry the batch; its size is a prime that nothing else has."""

    batch = 1009

    def __init__(self):
        self.transposed = 0

    def transpose(self, array, axes):
        self.transposed += array.size % self.batch == 0
        return np.transpose(array, axes)

    reshape = staticmethod(np.reshape)
    matmul = staticmethod(np.matmul)
