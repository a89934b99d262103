"""Tensor-train matrix, also called matrix product operator (MPO).   Novikov et al. 2015, arXiv:1509.06569.

TT-SVD: Oseledets 2011.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from tncompress.forms.form import Form, factorizations, imbalance, largest_ranks
from tncompress.linalg import low_rank_factors
from tncompress.network.spec import Spec


def spec(inputs: Sequence[int], outputs: Sequence[int], ranks: int | Sequence[int]) -> Spec:
    """One core `[rank, i_k, o_k, rank]` for every pair of an input and an output mode.

    Args:
        inputs: sizes of the input modes; in_dim is their product.
        outputs: sizes of the output modes, as many; out_dim is their product.
        ranks: sizes of the bonds, one fewer; or one number that caps them all (no bond is made larger than useful).

    >>> spec((2, 3, 4), (4, 3, 2), ranks=5).equation
    'i0 i1 i2, i0 o0 r1, r1 i1 o1 r2, r2 i2 o2 -> o0 o1 o2'
    """
    count = len(inputs)
    if len(outputs) != count:
        raise ValueError(f"A tensor-train matrix needs as many output modes as input modes, got {inputs}, {outputs}.")
    if isinstance(ranks, int):
        ranks = [min(ranks, most) for most in max_ranks(inputs, outputs)]
    if len(ranks) != count - 1:
        raise ValueError(f"{count} cores have {count - 1} bonds, got the ranks {tuple(ranks)}.")
    bonds = ["", *(f"r{k}" for k in range(1, count)), ""]
    cores = ", ".join(f"{bonds[k]} i{k} o{k} {bonds[k + 1]}" for k in range(count))
    modes = {letter: " ".join(f"{letter}{k}" for k in range(count)) for letter in "io"}
    sizes = {
        **{f"i{k}": size for k, size in enumerate(inputs)},
        **{f"o{k}": size for k, size in enumerate(outputs)},
        **{f"r{k}": rank for k, rank in enumerate(ranks, start=1)},
    }
    return Spec.parse(f"{modes['i']}, {cores} -> {modes['o']}", sizes)


def max_ranks(inputs: Sequence[int], outputs: Sequence[int]) -> list[int]:
    """The rank of every bond at which every kernel can be represented."""
    sizes = [i * o for i, o in zip(inputs, outputs, strict=True)]
    return [min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, len(sizes))]


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """Two cores, then three, then four, in their most balanced splits."""
    for count in (2, 3, 4):
        # Ten splits of each side hold the balanced ones; all of them would be thousands of pairs.
        splits = product(factorizations(in_dim, count)[:10], factorizations(out_dim, count)[:10])
        by_balance = sorted(splits, key=lambda s: imbalance(*(i * o for i, o in zip(*s, strict=True))))
        for ins, outs in by_balance[:2]:
            make = lambda ranks, ins=ins, outs=outs: spec(ins, outs, ranks)  # noqa: E731
            yield from largest_ranks(make, max_ranks(ins, outs), max_params)


def decompose(kernel: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """TT-SVD: one core after the other by truncated SVD; the error is at most sqrt(cores - 1) times the best one."""
    count = len(spec.cores)
    ins, outs = spec.shape(spec.inputs), spec.shape(spec.outputs)
    tensor = kernel.reshape(*ins, *outs).transpose([axis for k in range(count) for axis in (k, count + k)])
    rest = tensor.reshape(1, -1)
    cores = []
    for k in range(count - 1):
        matrix = rest.reshape(len(rest) * ins[k] * outs[k], -1)
        rank = spec.size[f"r{k + 1}"]
        left, right = low_rank_factors(matrix, min(rank, *matrix.shape))
        # What is dropped later is measured right only if all cores so far are orthonormal.
        left, triangle = np.linalg.qr(left)
        unused = rank - left.shape[1]  # a bond wider than the matrix has use for
        cores.append(np.pad(left, ((0, 0), (0, unused))))
        rest = np.pad(triangle @ right, ((0, unused), (0, 0)))
    return [core.reshape(shape) for core, shape in zip([*cores, rest], spec.core_shapes, strict=True)]


FORM = Form(
    "tt_matrix",
    candidates,
    decompose,
    needs="two dimensions that are products of as many factors above 1",
    source="Novikov et al. 2015, arXiv:1509.06569; Oseledets 2011",
)
