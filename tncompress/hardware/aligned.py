"""Ranks and networks that fill the tiles of a device, and the time they take by its roofline."""

import math
from functools import lru_cache
from itertools import islice

from tncompress.forms.form import Form
from tncompress.hardware.device import Device
from tncompress.hardware.roofline import plan_seconds
from tncompress.network.plan import plan
from tncompress.network.spec import Spec

SPECS = 8  # of a form that are looked at for a budget


def aligned_ranks(most: int, tile: int) -> list[int]:
    """Ranks up to `most` that are worth having, ascending: multiples of the tile, below it 1, 2, 3, 4, 6, 8, 12 ...

    A rank beyond a multiple of the tile costs as much as the next one. Below a tile little is lost by any rank; those
    of one or two leading binary ones leave no gap of more than a third.

    >>> aligned_ranks(400, 128)
    [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 384]
    """
    powers = [1 << k for k in range(max(0, (tile - 1).bit_length()))]
    small = {power * times // 2 for power in powers for times in (2, 3) if power * times % 2 == 0}
    return [rank for rank in sorted(small) if rank < tile and rank <= most] + list(range(tile, most + 1, tile))


def aligned(spec: Spec, tile: int) -> Spec:
    """The spec with every bond rounded down to an aligned rank; its inputs and outputs stay.

    >>> aligned(Spec.parse("i, i r, r o -> o", i=768, r=171, o=3072), 128).size["r"]
    128
    """
    sizes = {**spec.size, **{bond: aligned_ranks(spec.size[bond], tile)[-1] for bond in spec.bonds}}
    return Spec(spec.inputs, spec.cores, spec.outputs, tuple(sizes.items()))


@lru_cache(maxsize=4096)
def aligned_specs(form: Form, in_dim: int, out_dim: int, max_params: int, tile: int) -> tuple[Spec, ...]:
    """A few networks of a form with at most `max_params` parameters, as large as they can be, ranks aligned.

    A form with one structure only is left as it is.
    """
    found = islice(form.candidates(in_dim, out_dim, max_params), SPECS)
    return tuple(spec if form.fixed else aligned(spec, tile) for spec in found)


def fills(spec: Spec, tile: int) -> bool:
    """Whether the weights' sides of every matmul are multiples of the tile.

    >>> [fills(Spec.parse("i, i r, r o -> o", i=768, r=r, o=3072), 128) for r in (128, 171)]
    [True, False]
    """
    sides = (side for step in plan(spec).steps for side in (step.summed, step.kept_right))
    return all(math.prod(spec.shape(side)) % tile == 0 for side in sides)


@lru_cache(maxsize=1 << 14)
def seconds(spec: Spec, tokens: int, device: Device, dtype: str) -> float:
    """Estimated time of a map for so many vectors, along the plan with the fewest FLOPs.

    >>> from tncompress.hardware.device import device
    >>> round(seconds(Spec.parse("i, i o -> o", i=768, o=768), 8192, device("tpu-v5e"), "bfloat16") * 1e6)
    50
    """
    return plan_seconds(plan(spec, tokens), device, dtype)
