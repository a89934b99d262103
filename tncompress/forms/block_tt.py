"""Block tensor train of two cores: blocks `[m1, n2]` of the kernel of low rank.   Qiu et al. 2024, arXiv:2406.06248."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from tncompress.forms.form import Form, factorizations, largest_rank
from tncompress.network.spec import Spec


def spec(inputs: Sequence[int], outputs: Sequence[int], rank: int) -> Spec:
    """in_dim = m1 m2, out_dim = n1 n2; the blocks are counted by m2 and n1.

    >>> spec((2, 3), (4, 5), rank=1).num_params
    84
    """
    (m1, m2), (n1, n2) = inputs, outputs
    return Spec.parse("m1 m2, m1 m2 n1 r, m2 n1 r n2 -> n1 n2", m1=m1, m2=m2, n1=n1, n2=n2, r=rank)


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """Every grid of blocks, few and large blocks first: they have the most ranks to choose from."""
    grids = product(factorizations(in_dim, 2), factorizations(out_dim, 2))
    for ins, outs in sorted(grids, key=lambda g: (g[0][1] * g[1][0], g)):
        most = min(ins[0], outs[1])
        yield from largest_rank(lambda rank, ins=ins, outs=outs: spec(ins, outs, rank), most, max_params)


def decompose(kernel: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """The best approximation of every block."""
    m1, m2, n1, n2, rank = spec.shape(("m1", "m2", "n1", "n2", "r"))
    blocks = kernel.reshape(m1, m2, n1, n2).transpose(1, 2, 0, 3)  # [m2, n1, m1, n2]
    left, values, right = np.linalg.svd(blocks, full_matrices=False)
    unused = ((0, 0), (0, 0), (0, 0), (0, max(0, rank - min(m1, n2))))  # a rank wider than the blocks have use for
    left, values = np.pad(left, unused), np.pad(values, unused[1:])
    right = np.pad(right, (*unused[:2], unused[3], (0, 0)))
    root = np.sqrt(values[..., :rank])
    left = left[..., :rank] * root[..., None, :]  # [m2, n1, m1, r]
    right = root[..., None] * right[..., :rank, :]  # [m2, n1, r, n2]
    return [np.ascontiguousarray(left.transpose(2, 0, 1, 3)), np.ascontiguousarray(right)]


FORM = Form(
    "block_tt",
    candidates,
    decompose,
    optimal=True,
    needs="two dimensions that are products of two factors above 1",
    source="Qiu et al. 2024, arXiv:2406.06248",
)
