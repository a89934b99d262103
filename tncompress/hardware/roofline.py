"""Seconds of a plan on a device, and the plan with the fewest.

A step takes the larger of work and traffic, and a start; a transpose is traffic and a start. The work of a matmul whose
sides are short is done below the full rate.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from tncompress.hardware.device import ITEMSIZE, Device, device
from tncompress.hardware.machine import this_machine
from tncompress.network.cost import dense_spec
from tncompress.network.plan import Plan, candidates, plan
from tncompress.network.spec import Modes, Spec
from tncompress.network.steps import BATCH, Step

FOLDED = "folded once"  # the dense kernel, multiplied out beforehand

# Of processors, fitted to 400 measured plans on an AMD EPYC (benchmarks/planner_regret.py). A matmul with so many rows,
# summed numbers or columns reaches half the full rate; one of a batch does at others, and takes a start of its own.
_HALF_RATE = {False: (11.0, 6.9, 1.4), True: (8.0, 17.1, 1.9)}
_START_IN_BATCH = 3e-8
# How fast a processor moves numbers, against the bandwidth of its memory: from memory, and in the cache.
_CACHE_BYTES = 4e6  # what moves less at once stays in the cache
_MOVING, _TRANSPOSING = (1.0, 2.5), (0.77, 1.17)


@dataclass(frozen=True)
class Estimate:
    """One way to compute a spec.

    Args:
        name: of the candidate, see `candidates`.
        plan: its steps.
        seconds: predicted.
        peak_bytes: of the largest tensor that a step makes; of a fold the kernel that is kept, if it is larger.
    """

    name: str
    plan: Plan
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Ranking:
    """Candidates for a spec and a number of vectors, the fastest first; those above the bound on memory at the end.

    Prints as a table.
    """

    estimates: tuple[Estimate, ...]
    device: Device
    dtype: str

    @property
    def plan(self) -> Plan:
        """The fastest."""
        return self.estimates[0].plan

    @property
    def name(self) -> str:
        """Of the fastest."""
        return self.estimates[0].name

    @property
    def seconds(self) -> float:
        """Of the fastest."""
        return self.estimates[0].seconds

    def __str__(self) -> str:
        plan, width = self.plan, max(len(found.name) for found in self.estimates)
        lines = [f"{plan.spec}  for {plan.batch} vectors, {self.dtype} on {self.device.name}"]
        lines.append(f"  {'':{width}}  {'FLOPs':>16}  {'peak bytes':>14}  {'predicted us':>12}")
        for k, found in enumerate(self.estimates):
            figures = f"{found.plan.flops:>16,}  {found.peak_bytes:>14,}  {found.seconds * 1e6:>12,.1f}"
            lines.append(f"  {found.name:{width}}  {figures}{'  chosen' if k == 0 else ''}")
        return "\n".join(lines)


def fastest(
    spec: Spec,
    batch: int,
    device: str | Device = "this",
    dtype: str = "float32",
    peak_bytes: int | None = None,
    fold: bool = False,
) -> Ranking:
    """The plan that is predicted to take the least time, with all others.

    Args:
        spec: the map.
        batch: number of vectors at once.
        device: a name from `DEVICES`, a `Device`, or "this": this machine, measured once (see `this_machine`).
        dtype: of the arrays.
        peak_bytes: the largest tensor that a step may make; None: any.
        fold: the kernel, multiplied out once and kept, may be chosen too.

    Raises:
        ValueError: if batch is not positive, the device or its figures for the dtype are not known, or no plan keeps
            within `peak_bytes`; the message says what the smallest needs.

    >>> print(fastest(Spec.parse("i, i r, r o -> o", i=768, r=64, o=768), 128, "cpu"))
    i, i r, r o -> o  (i=768, o=768, r=64)  for 128 vectors, float32 on cpu
                           FLOPs      peak bytes  predicted us
      fewest FLOPs        25,165,824         393,216         302.5  chosen
      cores first        226,492,416       2,359,296       2,517.4
    """
    return _ranked(spec, batch, _resolved(device), dtype, peak_bytes, fold)


def plan_seconds(plan: Plan, device: Device, dtype: str = "float32") -> float:
    """Predicted seconds of a plan for the batch it was made for.

    >>> from tncompress.hardware.device import DEVICES
    >>> round(1e6 * plan_seconds(plan(Spec.parse("i, i o -> o", i=768, o=768), 128), DEVICES["cpu"]))
    1662
    """
    size = {**plan.spec.size, BATCH: plan.batch}
    steps = sum(_step_seconds(step, size, device, dtype) for step in plan.steps)
    return steps + _transpose_seconds(plan.steps[-1].result, (BATCH, *plan.spec.outputs), size, device, dtype)


@lru_cache(maxsize=4096)
def _ranked(spec: Spec, batch: int, device: Device, dtype: str, peak_bytes: int | None, fold: bool) -> Ranking:
    device.rate(dtype)  # says so if there is none
    plans = dict(candidates(spec, batch))
    if fold:
        plans[FOLDED] = plan(dense_spec(spec.in_dim, spec.out_dim), batch)
    found = []
    for name, planned in plans.items():
        kept = spec.in_dim * spec.out_dim if name == FOLDED else 0
        peak = max(planned.peak_elements, kept) * ITEMSIZE[dtype]
        found.append(Estimate(name, planned, plan_seconds(planned, device, dtype), peak))
    smallest = min(estimate.peak_bytes for estimate in found)
    if peak_bytes is not None and peak_bytes < smallest:
        raise ValueError(
            f"{spec} for {batch} vectors makes a tensor of {smallest:,} bytes at least, more than peak_bytes="
            f"{peak_bytes:,}; raise peak_bytes, or compute fewer vectors at once."
        )
    found.sort(key=lambda e: (peak_bytes is not None and e.peak_bytes > peak_bytes, e.seconds))
    return Ranking(tuple(found), device, dtype)


def _resolved(name: str | Device) -> Device:
    return this_machine() if name == "this" else device(name)


def _step_seconds(step: Step, size: dict[str, int], device: Device, dtype: str) -> float:
    def volume(modes: Modes) -> int:
        return math.prod(size[mode] for mode in modes)

    summed = volume(step.summed)
    if step.inner:
        batch, rows, columns = volume(step.kept_left), volume(step.kept_right), volume(step.inner)
    else:
        batch, rows, columns = volume(step.shared), volume(step.kept_left), volume(step.kept_right)
    moved = volume(step.left_modes) + volume(step.right_modes) + volume(step.result)
    seconds = _matmul_seconds(batch, rows, summed, columns, moved, device, dtype)
    for modes, groups in ((step.left_modes, step.left_groups), (step.right_modes, step.right_groups)):
        wanted = tuple(mode for group in groups for mode in group)
        seconds += _transpose_seconds(modes, wanted, size, device, dtype)
    return seconds


def _matmul_seconds(batch: int, rows: int, summed: int, columns: int, moved: int, device: Device, dtype: str) -> float:
    if device.kind != "cpu":
        return device.matmul_seconds(rows, summed, columns, dtype, batch)
    rate = device.rate(dtype)
    for side, half in zip((rows, summed, columns), _HALF_RATE[batch > 1], strict=True):
        rate *= side / (side + half)
    work = 2 * batch * rows * summed * columns / rate + (batch * _START_IN_BATCH if batch > 1 else 0)
    return max(work, _moving_seconds(moved, device, dtype)) + device.overhead


def _transpose_seconds(modes: Modes, wanted: Modes, size: dict[str, int], device: Device, dtype: str) -> float:
    # An axis of length one may stand anywhere: a reshape moves it.
    if [mode for mode in modes if size[mode] > 1] == [mode for mode in wanted if size[mode] > 1]:
        return 0.0
    elements = 2 * math.prod(size[mode] for mode in modes)  # read and written
    return _moving_seconds(elements, device, dtype, _TRANSPOSING) + device.overhead


def _moving_seconds(elements: int, device: Device, dtype: str, speeds: tuple[float, float] = _MOVING) -> float:
    seconds = device.moving_seconds(elements, dtype)
    return seconds / speeds[elements * ITEMSIZE[dtype] < _CACHE_BYTES] if device.kind == "cpu" else seconds
