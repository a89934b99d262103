"""Sum of Kronecker products  W = sum_r A_r (x) B_r.   Van Loan & Pitsianis 1993."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from tncompress.forms.form import Form, factorizations, imbalance, largest_rank
from tncompress.linalg import balance, low_rank_factors
from tncompress.network.spec import Spec


def spec(inputs: Sequence[int], outputs: Sequence[int], rank: int = 1) -> Spec:
    """`rank` terms A `[a, p]` (x) B `[b, q]`, with in_dim = a b and out_dim = p q.

    >>> spec((2, 3), (4, 5), rank=2).equation
    'a b, a p r, b q r -> p q'
    """
    (a, b), (p, q) = inputs, outputs
    return Spec.parse("a b, a p r, b q r -> p q", a=a, b=b, p=p, q=q, r=rank)


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """Every split of both dimensions, those first whose two factors are of equal size."""
    splits = product(factorizations(in_dim, 2), factorizations(out_dim, 2))
    # Equal factors have the most terms for their parameters; among them, factors that are nearly square.
    ordered = sorted(
        splits,
        key=lambda s: (
            imbalance(s[0][0] * s[1][0], s[0][1] * s[1][1]),
            imbalance(s[0][0] * s[1][1], s[0][1] * s[1][0]),
        ),
    )
    for ins, outs in ordered:
        most = min(ins[0] * outs[0], ins[1] * outs[1])
        yield from largest_rank(lambda rank, ins=ins, outs=outs: spec(ins, outs, rank), most, max_params)


def decompose(kernel: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """The nearest sum of Kronecker products: rearranged, it is a matrix of that rank."""
    a, b, p, q, rank = spec.shape("abpqr")
    rearranged = kernel.reshape(a, b, p, q).transpose(0, 2, 1, 3).reshape(a * p, b * q)
    left, right = balance(*low_rank_factors(rearranged, rank))
    return [left.reshape(a, p, rank), right.T.reshape(b, q, rank)]


FORM = Form(
    "kronecker",
    candidates,
    decompose,
    optimal=True,
    needs="two dimensions that are products of two factors above 1",
    source="Van Loan & Pitsianis 1993",
)
