"""`Device`: an accelerator or a processor as a handful of numbers, and those that are known by name."""

import math
from dataclasses import dataclass

from tncompress.hardware.devices import ROWS


@dataclass(frozen=True)
class Device:
    """What an estimate of time needs to know.

    Args:
        name: what users write, e.g. `"tpu-v5e"`.
        kind: `"cpu"`, `"gpu"` or `"tpu"`.
        rates: (dtype, floating-point operations per second of large matmuls); a multiply-add counts as 2.
        bytes_per_second: to and from main memory.
        overhead: seconds to start an operation.
        tiles: (dtype, the number of which the sides of a matmul should be multiples).
        source: where the numbers come from.

    >>> toy = Device("toy", "cpu", (("float32", 1e9),), 1e9, 0.0, (("float32", 8),))
    >>> toy.rate("float32"), toy.tile("float32")
    (1000000000.0, 8)
    """

    name: str
    kind: str
    rates: tuple[tuple[str, float], ...]
    bytes_per_second: float
    overhead: float
    tiles: tuple[tuple[str, int], ...]
    source: str = ""

    def rate(self, dtype: str) -> float:
        """Operations per second of large matmuls of a dtype."""
        return dict(self.rates)[self._known(dtype)]

    def tile(self, dtype: str) -> int:
        """Sides of a matmul are padded to multiples of this, or as good as."""
        return dict(self.tiles)[self._known(dtype)]

    def matmul_seconds(self, rows: int, summed: int, columns: int, dtype: str, batch: int = 1) -> float:
        """Of `[batch, rows, summed] @ [batch, summed, columns]`: the larger of work on whole tiles and traffic."""
        tile = self.tile(dtype)
        work = 2 * batch * rows * math.ceil(summed / tile) * tile * math.ceil(columns / tile) * tile
        moved = batch * (rows * summed + summed * columns + rows * columns)
        return max(work / self.rate(dtype), self.moving_seconds(moved, dtype)) + self.overhead

    def moving_seconds(self, elements: int, dtype: str) -> float:
        """To read or write so many numbers."""
        return elements * ITEMSIZE[dtype] / self.bytes_per_second

    def _known(self, dtype: str) -> str:
        known = [name for name, _ in self.rates]
        if dtype not in known:
            raise ValueError(f"{self.name} has figures for {', '.join(known)}, not for {dtype!r}; choose one of these.")
        return dtype


ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

DEVICES = {row[0]: Device(*row) for row in ROWS}


def device(name: "str | Device") -> Device:
    """The device of a name.

    Raises:
        ValueError: if there is none of that name; the message lists those there are.

    >>> device("tpu-v5e").kind
    'tpu'
    """
    if isinstance(name, Device):
        return name
    if name not in DEVICES:
        raise ValueError(f"device is one of {', '.join(DEVICES)}, or this; got {name!r}.")
    return DEVICES[name]
