"""Expand and Condense, the feed-forward pair of TN-BERT: one core is shared by all blocks of the wide side.

Google's TN-BERT card; `TNExpandCondense` of TensorFlow Model Garden. Expand raises the width, Condense lowers it.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tncompress.forms.form import Form, block_size, divisors, largest_rank
from tncompress.linalg import balance, leading_eigenvectors, low_rank_factors
from tncompress.network.spec import Spec


def expand(in_dim: int, out_dim: int, blocks: int, bond: int) -> Spec:
    """`[in_dim] -> [blocks, bond] -> [blocks, out_dim / blocks]`, the last core shared by the blocks.

    TN-BERT: `expand(768, 3072, blocks=6, bond=128)`.

    >>> expand(768, 3072, blocks=6, bond=128).num_params
    655360
    """
    return Spec.parse("i, i c d, d e -> c e", i=in_dim, c=blocks, d=bond, e=block_size(out_dim, blocks))


def condense(in_dim: int, out_dim: int, blocks: int, bond: int) -> Spec:
    """`[blocks, in_dim / blocks] -> [blocks, bond] -> [out_dim]`, the first core shared by the blocks.

    >>> condense(3072, 768, blocks=6, bond=128).num_params
    655360
    """
    return Spec.parse("c e, e d, c d o -> o", c=blocks, e=block_size(in_dim, blocks), d=bond, o=out_dim)


def candidates(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
    """Two and more blocks of the wide side, few first (one block is low rank)."""
    for blocks in divisors(max(in_dim, out_dim))[1:]:
        yield from _largest(in_dim, out_dim, blocks, max_params)


def _largest(in_dim: int, out_dim: int, blocks: int, max_params: int) -> Iterator[Spec]:
    """The largest bond that fits and is of use."""
    narrow, wide = sorted((in_dim, out_dim))
    most = min(wide // blocks, narrow * blocks)
    return largest_rank(lambda bond: _make(in_dim, out_dim, blocks, bond), most, max_params)


def _make(in_dim: int, out_dim: int, blocks: int, bond: int) -> Spec:
    return (expand if out_dim >= in_dim else condense)(in_dim, out_dim, blocks, bond)


def decompose(kernel: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """The blocks stacked are a matrix whose rank is the bond: its truncated SVD is optimal."""
    if _is_condense(spec):
        c, e, d, o = spec.shape("cedo")
        stacked = kernel.reshape(c, e, o).transpose(1, 0, 2).reshape(e, c * o)
        left, right = balance(*low_rank_factors(stacked, d))
        return [left, np.ascontiguousarray(right.reshape(d, c, o).transpose(1, 0, 2))]
    i, c, d, e = spec.shape("icde")
    left, right = balance(*low_rank_factors(kernel.reshape(i * c, e), d))
    return [left.reshape(i, c, d), right]


def decompose_calibrated(kernel: np.ndarray, spec: Spec, metric: np.ndarray) -> list[np.ndarray] | None:
    """Expand in closed form: the same stack, all blocks of which see the same inputs. None for Condense."""
    if _is_condense(spec):
        return None
    i, c, d, e = spec.shape("icde")
    blocks = kernel.reshape(i, c, e)
    energy = np.sum([blocks[:, k].T @ metric @ blocks[:, k] for k in range(c)], axis=0)
    shared = leading_eigenvectors(energy, d)[1]  # [e, d]
    left, right = balance((blocks @ shared).reshape(i * c, d), shared.T)
    return [left.reshape(i, c, d), right]


def _is_condense(spec: Spec) -> bool:
    return len(spec.inputs) == 2


FORM = Form(
    "expand_condense",
    candidates,
    decompose,
    decompose_calibrated,
    optimal=True,
    needs="a wide side that is a product of two factors above 1",
    source="TN-BERT model card; TensorFlow Model Garden, tn_expand_condense.py",
)


def form(blocks: int, bond: int | None = None) -> Form:
    """Expand/Condense with this structure and no other, for `replace_dense(form=...)`.

    TN-BERT's own is `form(blocks=hidden // 128, bond=128)`.

    Args:
        blocks: of the wide side.
        bond: size of a block between the two cores; every layer gets it, and the budget is only a limit. None: the
            largest that the budget allows.

    Raises:
        ValueError: if blocks or bond is not a positive int.

    >>> spec = next(iter(form(blocks=6, bond=128).candidates(768, 3072, 768 * 3072)))
    >>> spec.equation, spec.core_shapes
    ('i, i c d, d e -> c e', ((768, 6, 128), (128, 512)))
    """
    for name, value in {"blocks": blocks, "bond": 1 if bond is None else bond}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive int, got {value!r}.")

    def of_this_structure(in_dim: int, out_dim: int, max_params: int) -> Iterator[Spec]:
        if max(in_dim, out_dim) % blocks:
            return
        specs = (
            _largest(in_dim, out_dim, blocks, max_params) if bond is None else [_make(in_dim, out_dim, blocks, bond)]
        )
        yield from (spec for spec in specs if spec.num_params <= max_params)

    needs = f"a wide side that {blocks} divides"
    return replace(FORM, candidates=of_this_structure, fixed=bond is not None, needs=needs)
