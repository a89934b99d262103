"""Canonical polyadic (CP): a sum of rank-one terms, joined by one hyper-edge.   Hitchcock 1927; Lebedev et al. 2015."""

from collections.abc import Iterator, Sequence
from itertools import product

from tncompress.forms.form import Form, factorizations, largest_rank
from tncompress.network.spec import Spec


def spec(inputs: Sequence[int], outputs: Sequence[int], rank: int) -> Spec:
    """in_dim = a b, out_dim = p q, one factor `[mode, rank]` for every mode.

    >>> spec((2, 3), (4, 5), rank=6).num_params
    84
    """
    (a, b), (p, q) = inputs, outputs
    return Spec.parse("a b, a r, b r, p r, q r -> p q", a=a, b=b, p=p, q=q, r=rank)


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """The most balanced split of both dimensions."""
    for ins, outs in product(factorizations(in_dim, 2)[:1], factorizations(out_dim, 2)[:1]):
        most = in_dim * out_dim // max(*ins, *outs)  # the largest rank that a tensor of these sizes can have
        yield from largest_rank(lambda rank, ins=ins, outs=outs: spec(ins, outs, rank), most, max_params)


FORM = Form(
    "cp",
    candidates,
    needs="two dimensions that are products of two factors above 1",
    source="Hitchcock 1927; Lebedev et al. 2015, arXiv:1412.6553",
)
