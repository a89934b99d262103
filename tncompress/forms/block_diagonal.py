"""Block-diagonal: groups of features that do not see each other."""

import math
from collections.abc import Iterator

import numpy as np

from tncompress.forms.form import Form, block_size, divisors
from tncompress.network.spec import Spec


def spec(in_dim: int, out_dim: int, blocks: int) -> Spec:
    """`blocks` equal blocks on the diagonal of `[in_dim, out_dim]`.

    >>> spec(6, 9, blocks=3).num_params
    18
    """
    return Spec.parse("g i, g i o -> g o", g=blocks, i=block_size(in_dim, blocks), o=block_size(out_dim, blocks))


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """The fewest blocks that fit."""
    for blocks in divisors(math.gcd(in_dim, out_dim))[1:]:
        if in_dim * out_dim <= max_params * blocks:
            yield spec(in_dim, out_dim, blocks)
            return


def decompose(kernel: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """The blocks as they stand in the kernel."""
    g, i, o = spec.shape("gio")
    return [np.ascontiguousarray(np.einsum("gigo->gio", kernel.reshape(g, i, g, o)))]


FORM = Form(
    "block_diagonal",
    candidates,
    decompose,
    optimal=True,
    needs="dimensions with a common divisor above 1",
    source="grouped linear layers, e.g. Krizhevsky et al. 2012",
)
