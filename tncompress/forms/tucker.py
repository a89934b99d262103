"""Tucker: a small core tensor with a factor matrix for every mode.   Tucker 1966; De Lathauwer et al. 2000."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from tncompress.forms.form import Form, factorizations, largest_ranks
from tncompress.linalg import leading_eigenvectors
from tncompress.network.spec import Spec


def spec(inputs: Sequence[int], outputs: Sequence[int], ranks: Sequence[int]) -> Spec:
    """in_dim = a b, out_dim = c d; `ranks` are those of the modes a, b, c, d.

    >>> spec((2, 3), (4, 5), ranks=(1, 2, 3, 4)).num_params
    64
    """
    (a, b), (c, d), (r, s, p, q) = inputs, outputs, ranks
    return Spec.parse("a b, a r, b s, r s p q, p c, q d -> c d", a=a, b=b, c=c, d=d, r=r, s=s, p=p, q=q)


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """The most balanced split of both dimensions."""
    for ins, outs in product(factorizations(in_dim, 2)[:1], factorizations(out_dim, 2)[:1]):
        yield from largest_ranks(lambda ranks, ins=ins, outs=outs: spec(ins, outs, ranks), (*ins, *outs), max_params)


def decompose(kernel: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """HOSVD: leading directions of every mode, and the kernel seen in them; at most twice the best error."""
    tensor = kernel.reshape(spec.shape("abcd"))
    factors = []
    for axis, rank in enumerate(spec.shape("rspq")):
        unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
        factors.append(leading_eigenvectors(unfolded @ unfolded.T, rank)[1])
    a, b, c, d = factors
    return [a, b, np.einsum("abcd,ar,bs,cp,dq->rspq", tensor, *factors, optimize=True), c.T, d.T]


FORM = Form(
    "tucker",
    candidates,
    decompose,
    needs="two dimensions that are products of two factors above 1",
    source="Tucker 1966; De Lathauwer et al. 2000",
)
