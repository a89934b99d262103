"""Tensor ring: a tensor-train matrix whose ends are joined by a bond.   Zhao et al. 2016, arXiv:1606.05535."""

from collections.abc import Iterator, Sequence
from itertools import product

from tncompress.forms.form import Form, factorizations, imbalance, largest_ranks
from tncompress.network.spec import Spec


def spec(inputs: Sequence[int], outputs: Sequence[int], ranks: int | Sequence[int]) -> Spec:
    """A ring of cores `[r_k, i_k, o_k, r_k+1]`; as many bonds as cores. One number gives all bonds the same rank.

    >>> spec((2, 3, 4), (4, 3, 2), ranks=5).equation
    'i0 i1 i2, r0 i0 o0 r1, r1 i1 o1 r2, r2 i2 o2 r0 -> o0 o1 o2'
    """
    count = len(inputs)
    if len(outputs) != count or count < 2:
        raise ValueError(f"A ring needs two or more input modes and as many output modes, got {inputs}, {outputs}.")
    ranks = [ranks] * count if isinstance(ranks, int) else list(ranks)
    if len(ranks) != count:
        raise ValueError(f"A ring of {count} cores has {count} bonds, got the ranks {tuple(ranks)}.")
    cores = ", ".join(f"r{k} i{k} o{k} r{(k + 1) % count}" for k in range(count))
    modes = {letter: " ".join(f"{letter}{k}" for k in range(count)) for letter in "io"}
    named = (("i", inputs), ("o", outputs), ("r", ranks))
    return Spec.parse(
        f"{modes['i']}, {cores} -> {modes['o']}",
        {f"{letter}{k}": size for letter, sizes in named for k, size in enumerate(sizes)},
    )


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """Three cores in the most balanced split: with two, the two bonds would be one."""
    splits = product(factorizations(in_dim, 3)[:10], factorizations(out_dim, 3)[:10])
    by_balance = sorted(splits, key=lambda s: imbalance(*(i * o for i, o in zip(*s, strict=True))))
    for ins, outs in by_balance[:1]:
        # A core [r, i o, r'] can use ranks up to r r' = i o.
        most = max(i * o for i, o in zip(ins, outs, strict=True))
        yield from largest_ranks(lambda ranks, ins=ins, outs=outs: spec(ins, outs, ranks), [most] * 3, max_params)


FORM = Form(
    "tensor_ring",
    candidates,
    needs="two dimensions that are products of three factors above 1",
    source="Zhao et al. 2016, arXiv:1606.05535",
)
