"""A layer beside the network in its place: what the rows of a preview and of a report have in common."""

from collections.abc import Collection
from dataclasses import dataclass

from tncompress.fitting.budget import flops_of
from tncompress.fitting.choice import Bands, Choice


@dataclass(frozen=True)
class Change:
    """One dense layer or table of embeddings, before and after.

    Args:
        layer: its path.
        form: of the network in its place, `"own"` for a spec of no form, `"bands"` for a table of embeddings; None if
            it stays as it is.
        equation: of the network; None for bands.
        sizes: of the network's modes; of bands, tokens x rank.
        params_before, params_after: of the kernel.
        flops_before, flops_after: of one vector; a multiply-add counts as 2.
        pivots: the network is stored without its identity block, see `TNPivoted`.
    """

    layer: str
    form: str | None
    equation: str | None
    sizes: str | None
    params_before: int
    params_after: int
    flops_before: int
    flops_after: int
    pivots: bool


def change_of(
    layer: str, dims: tuple[int, int], params: int, choice: Choice | Bands | None, is_table: bool
) -> dict[str, str | int | bool | None]:
    """The fields of a `Change`.

    >>> change_of("head", (4, 3), 12, None, is_table=False)["flops_after"]
    24
    """
    return {
        "layer": layer,
        "form": (choice.form or "own") if choice else None,
        "equation": choice.equation if choice else None,
        "sizes": choice.sizes if choice else None,
        "params_before": params,
        "params_after": choice.num_params if choice else params,
        "flops_before": int(flops_of(None, dims, is_table)),
        "flops_after": int(flops_of(choice, dims, is_table)),
        "pivots": isinstance(choice, Choice) and choice.pivots,
    }


def kept(replaced: Collection[Change]) -> float:
    """Fraction of the replaced layers' parameters that stays; 1 if none is replaced."""
    before = sum(row.params_before for row in replaced)
    return sum(row.params_after for row in replaced) / before if before else 1.0
