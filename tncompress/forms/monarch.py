"""Monarch: block-diagonal x permutation x block-diagonal.   Dao et al. 2022, arXiv:2204.00595."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from tncompress.forms.form import Form, block_size, divisors
from tncompress.network.spec import Spec


def spec(in_dim: int, out_dim: int, in_blocks: int, out_blocks: int) -> Spec:
    """`in_blocks` blocks of inputs, each to `out_blocks` values, which are regrouped and spread over the outputs.

    >>> spec(6, 8, in_blocks=2, out_blocks=4).num_params
    40
    """
    a, c = in_blocks, out_blocks
    return Spec.parse("a b, a b c, a c d -> d c", a=a, b=block_size(in_dim, a), c=c, d=block_size(out_dim, c))


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """Every pair of block counts, the largest networks first. There is no rank: sizes come in steps."""
    pairs = product(divisors(in_dim)[1:], divisors(out_dim)[1:])
    sized = ((in_dim * c + a * out_dim, a, c) for a, c in pairs)
    for _, a, c in sorted((s for s in sized if s[0] <= max_params), reverse=True):
        yield spec(in_dim, out_dim, a, c)


def decompose(kernel: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """For every pair of an input and an output block, the kernel's block is of rank one: its first singular pair."""
    a, b, c, d = spec.shape("abcd")
    blocks = kernel.reshape(a, b, d, c).transpose(0, 3, 1, 2)  # [a, c, b, d]
    left, values, right = np.linalg.svd(blocks, full_matrices=False)
    root = np.sqrt(values[..., :1])  # [a, c, 1]
    first = left[..., 0] * root  # [a, c, b]
    second = right[..., 0, :] * root  # [a, c, d]
    return [np.ascontiguousarray(first.transpose(0, 2, 1)), np.ascontiguousarray(second)]


FORM = Form(
    "monarch",
    candidates,
    decompose,
    optimal=True,
    needs="two dimensions that are not prime",
    source="Dao et al. 2022, arXiv:2204.00595",
)
