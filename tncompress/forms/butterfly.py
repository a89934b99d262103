"""Butterfly: a sparse factor for every mode, as in the fast Fourier transform.   Dao et al. 2019, arXiv:1903.05895."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from tncompress.forms.form import Form, factorizations
from tncompress.network.spec import Spec


def spec(inputs: Sequence[int], outputs: Sequence[int]) -> Spec:
    """Stage k turns input mode k into output mode k; all other modes are blocks of it.

    Args:
        inputs: sizes of the input modes, two or more; in_dim is their product.
        outputs: sizes of the output modes, as many; out_dim is their product.

    >>> spec((2, 2, 2), (2, 2, 2)).equation
    'i0 i1 i2, i0 i1 i2 o0, i1 i2 o0 o1, i2 o0 o1 o2 -> o0 o1 o2'
    """
    count = len(inputs)
    if len(outputs) != count or count < 2:
        raise ValueError(
            f"A butterfly needs two or more input modes and as many output modes, got {inputs}, {outputs}."
        )
    ins, outs = [f"i{k}" for k in range(count)], [f"o{k}" for k in range(count)]
    cores = ", ".join(" ".join([*ins[k:], *outs[: k + 1]]) for k in range(count))
    return Spec.parse(
        f"{' '.join(ins)}, {cores} -> {' '.join(outs)}",
        {**dict(zip(ins, inputs, strict=True)), **dict(zip(outs, outputs, strict=True))},
    )


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """Three and two stages of every split, the largest networks first. There is no rank: sizes come in steps."""
    sized = []
    for count in (3, 2):
        for ins, outs in product(factorizations(in_dim, count), factorizations(out_dim, count)):
            params = num_params(ins, outs)
            if params <= max_params:
                sized.append((params, ins, outs))
    for _, ins, outs in sorted(sized, reverse=True):
        yield spec(ins, outs)


def num_params(inputs: Sequence[int], outputs: Sequence[int]) -> int:
    """Parameters of `spec(inputs, outputs)`, without making it.

    >>> num_params((2, 3), (3, 2)), spec((2, 3), (3, 2)).num_params
    (36, 36)
    """
    total, width = 0, int(np.prod(inputs))
    for i, o in zip(inputs, outputs, strict=True):
        total += width * o
        width = width // i * o
    return total


def decompose(kernel: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """Stage by stage, every block a matrix of rank one: its first singular pair (Le et al. 2022, arXiv:2110.01230)."""
    ins, outs = spec.shape(spec.inputs), spec.shape(spec.outputs)
    # rest [i_k, later inputs, earlier outputs, o_k, later outputs], peeled of one input mode a turn
    rest = kernel.reshape(ins[0], -1, 1, outs[0], kernel.shape[1] // outs[0])
    cores = []
    for k in range(len(ins) - 1):
        _, later, earlier, o, after = rest.shape
        blocks = rest.transpose(1, 2, 3, 0, 4)  # [later, earlier, o, i, after]
        left, right = _rank_one(blocks)  # [later, earlier, o, i], [later, earlier, o, after]
        cores.append(left.transpose(3, 0, 1, 2))
        rest = right.reshape(ins[k + 1], later // ins[k + 1], earlier * o, outs[k + 1], after // outs[k + 1])
    cores.append(rest)
    return [np.ascontiguousarray(core).reshape(shape) for core, shape in zip(cores, spec.core_shapes, strict=True)]


def _rank_one(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First singular pair of every matrix `[..., m, n]`: left of norm one, right with the singular value."""
    left = np.linalg.eigh(blocks @ blocks.swapaxes(-1, -2))[1][..., -1]  # [..., m]
    return left, (left[..., None, :] @ blocks)[..., 0, :]


FORM = Form(
    "butterfly",
    candidates,
    decompose,
    needs="two dimensions that are products of as many factors above 1",
    source="Dao et al. 2019, arXiv:1903.05895",
)
