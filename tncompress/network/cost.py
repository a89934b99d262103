"""What a compressed map costs: parameters, FLOPs, bytes. Counts, not times."""

import math
from dataclasses import dataclass

from tncompress.network.plan import BATCH, plan
from tncompress.network.spec import Spec


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass. Bias and activation are not included.

    Args:
        params: number of weights.
        flops: floating-point operations; a multiply-add counts as 2.
        bytes_moved: bytes read and written, if every step reads its operands and writes its result once.
        peak_bytes: bytes of the largest tensor that a step makes.
    """

    params: int
    flops: int
    bytes_moved: int
    peak_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.params:,} parameters, {self.flops:,} FLOPs, "
            f"{self.bytes_moved:,} bytes moved, {self.peak_bytes:,} bytes peak"
        )


def cost(spec: Spec, batch: int = 1, itemsize: int = 4) -> Cost:
    """The cost of applying `spec` to `batch` vectors along its planned order.

    Args:
        spec: the map.
        batch: number of vectors, i.e. the product of all leading axes.
        itemsize: bytes of one number; 4 for float32.

    >>> print(cost(Spec.parse("i, i o -> o", i=3, o=4), batch=2))
    12 parameters, 48 FLOPs, 104 bytes moved, 32 bytes peak
    """
    planned = plan(spec, batch)
    size = {**spec.size, BATCH: batch}
    moved = sum(
        math.prod(size[m] for m in modes)
        for step in planned.steps
        for modes in (step.left_modes, step.right_modes, step.result)
    )
    return Cost(spec.num_params, planned.flops, moved * itemsize, planned.peak_elements * itemsize)


def dense_spec(in_dim: int, out_dim: int) -> Spec:
    """The uncompressed map, for comparison.

    >>> dense_spec(3, 4).num_params
    12
    """
    return Spec.parse("i, i o -> o", i=in_dim, o=out_dim)
