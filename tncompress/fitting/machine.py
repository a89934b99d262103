"""A machine as three numbers: how fast it multiplies matrices, moves bytes, and starts an operation."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np

from tncompress.fitting.choice import Choice
from tncompress.network.cost import dense_spec
from tncompress.network.plan import BATCH, plan
from tncompress.network.spec import Spec

ROUNDS = 5
NARROW = 64  # a matmul with a side shorter than this does not reach the full rate; linear below


@dataclass(frozen=True)
class Machine:
    """An estimate of time: for every step the larger of work and traffic, and a start.

    Args:
        flops_per_second: of large float32 matmuls.
        bytes_per_second: read and written.
        overhead: seconds to start an operation.

    >>> Machine(1e9, 1e9, 0.0).dense_seconds(1000, 1000, 1)
    0.004008
    """

    flops_per_second: float
    bytes_per_second: float
    overhead: float

    def seconds(self, flops: float, moved: float, steps: int = 1) -> float:
        """Of one operation, or of several of the same size together."""
        return max(flops / self.flops_per_second, moved / self.bytes_per_second) + steps * self.overhead

    def dense_seconds(self, in_dim: int, out_dim: int, vectors: int) -> float:
        """Of a dense kernel for so many vectors."""
        return self._spec_seconds(dense_spec(in_dim, out_dim), vectors)

    def choice_seconds(self, choice: Choice, vectors: int) -> float:
        """Of a network for so many vectors."""
        found = self._spec_seconds(choice.spec, vectors)
        if choice.pivots:  # fewer columns in the second matmul, and the outputs put in order: read and written
            saved = choice.spec.num_params - choice.num_params
            moved = 8 * vectors * choice.spec.out_dim / self.bytes_per_second
            found += moved + self.overhead - 2 * vectors * saved / self.flops_per_second
        return found

    def _spec_seconds(self, spec: Spec, vectors: int) -> float:
        size = {**spec.size, BATCH: vectors}

        def volume(modes) -> int:
            return int(np.prod([size[mode] for mode in modes], dtype=np.float64))

        total = 0.0
        for step in plan(spec, vectors).steps:
            summed, left, right = volume(step.summed), volume(step.kept_left), volume(step.kept_right)
            work = 2 * volume(step.shared) * left * right * summed
            work /= min(1.0, min(left, right, summed) / NARROW) if min(left, right) > 1 else 1.0
            total += self.seconds(work, 4 * sum(map(volume, (step.left_modes, step.right_modes, step.result))))
        return total


@cache
def this_machine() -> Machine:
    """Measured in less than a second, once a process: numpy's matmul, a copy, and the call of a small matmul."""
    draw = np.random.default_rng(0)
    large = draw.normal(size=(1024, 1024)).astype("float32")
    small, long = large[:8, :8].copy(), draw.normal(size=(1 << 23)).astype("float32")
    matmul = _seconds(lambda: large @ large)
    copy = _seconds(lambda: long.copy())
    call = _seconds(lambda: [small @ small for _ in range(100)]) / 100
    return Machine(2 * 1024**3 / matmul, 2 * long.nbytes / copy, call)


def _seconds(work: Callable[[], object]) -> float:
    work()
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return median(found)
