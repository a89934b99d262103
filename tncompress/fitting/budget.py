"""`Budget`: what a compressed model may cost, and the prices that places are compared by."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Real

from tncompress.fitting.choice import Bands, Choice
from tncompress.forms import low_rank
from tncompress.hardware.device import Device
from tncompress.hardware.machine import this_machine
from tncompress.hardware.roofline import fastest, plan_seconds
from tncompress.network.cost import dense_spec
from tncompress.network.plan import core_by_core, plan

VECTORS = 1024  # tokens at once for which FLOPs and times are taken
DTYPE = "float32"

Price = Callable[["Choice | Bands | None", tuple[int, int], bool], float]


_MEANINGS = {
    "keep": "the fraction of parameters that stays",
    "params": "the number of parameters of the whole model",
    "flops": "the number of operations a token",
    "latency": "the fraction of time that stays",
    "max_loss": "the fraction of the objective's variance that may change",
}


class BudgetError(ValueError):
    """Even the smallest networks of the chosen layers are over a budget."""


@dataclass(frozen=True)
class Budget:
    """One limit for all chosen layers together, instead of a fraction for each. Give exactly one.

    Args:
        keep: fraction of the chosen layers' parameters that stays, in (0, 1].
        params: parameters of the whole model afterwards, as `model.count_params()` counts them.
        flops: floating-point operations a token of the chosen layers afterwards, a multiply-add counting as 2.
        latency: fraction of the time that the chosen layers take now, in (0, 1], as estimated for this machine at 1024
            tokens at once: by its rates for matmuls and memory, see `tncompress.hardware.machine.this_machine`.
        max_loss: the smallest model that is predicted to change the objective by at most this fraction of its variance
            (a tenth of the variance is 0.1). Needs `objective=`.

    Raises:
        ValueError: if none or several are given, or one is out of range.

    >>> Budget(params=69e6)
    Budget(params=69000000.0)
    """

    keep: float | None = None
    params: float | None = None
    flops: float | None = None
    latency: float | None = None
    max_loss: float | None = None

    def __post_init__(self):
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) != 1:
            names = ", ".join(field.name for field in fields(self))
            raise ValueError(f"A budget is one limit, one of {names}; got {', '.join(given) or 'none'}.")
        value = given[self.kind]
        is_fraction = self.kind in ("keep", "latency")
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and 0 < float(value) <= (1 if is_fraction else sys.float_info.max)):
            what = f"{_MEANINGS[self.kind]}, above 0" + (" and at most 1" if is_fraction else "")
            in_percent = is_fraction and is_number and 1 < float(value) <= 100
            advice = f"; {float(value):g}% is {float(value) / 100:g}" if in_percent else ""
            raise ValueError(f"{self.kind} is {what}, got {value!r}{advice}.")

    @property
    def kind(self) -> str:
        """Which limit is given."""
        return next(field.name for field in fields(self) if getattr(self, field.name) is not None)

    @property
    def limit(self) -> float:
        """Its value."""
        return getattr(self, self.kind)

    def __repr__(self) -> str:
        return f"Budget({self.kind}={self.limit!r})"

    def price(self, target: "Target | None" = None) -> Price:
        """What a place costs in this budget's unit; times are of the target, or of 1024 tokens here."""
        if self.kind == "flops":
            return flops_of
        if self.kind != "latency":
            return params_of
        return target.seconds if target else seconds_on(this_machine())


@dataclass(frozen=True)
class Target:
    """What a compressed model is to run on.

    Args:
        device: the machine.
        tokens: vectors at once that it will see; times are summed over several such numbers.

    >>> from tncompress.hardware.device import DEVICES
    >>> Target(DEVICES["tpu-v5e"]).step([(768, 3072)]), Target(DEVICES["tpu-v5e"]).step([(64, 256)])
    (128, 16)
    """

    device: Device
    tokens: tuple[int, ...] = (VECTORS,)

    @property
    def is_here(self) -> bool:
        """Whether it can be measured on."""
        return self.device.name == "this"

    @property
    def seconds(self) -> Price:
        """Estimated time of a place, in the dtype that the device is made for."""
        return seconds_on(self.device, self.tokens, self.device.rates[0][0])

    def step(self, dims: Sequence[tuple[int, int]]) -> int:
        """Ranks and widths of maps of such dimensions are multiples of this: a tile, if they hold several."""
        step, shortest = self.device.tile(self.device.rates[0][0]), min(map(min, dims))
        while step > 1 and 4 * step > shortest:
            step //= 2
        return step


def params_of(choice: Choice | Bands | None, dims: tuple[int, int], is_table: bool) -> float:
    """Stored numbers."""
    return dims[0] * dims[1] if choice is None else choice.num_params


def flops_of(choice: Choice | Bands | None, dims: tuple[int, int], is_table: bool) -> float:
    """Operations a token; rows that are looked up cost none."""
    if choice is None:
        return 0 if is_table else 2 * dims[0] * dims[1]
    return choice.flops(VECTORS) / VECTORS


def seconds_on(device: Device, tokens: Sequence[int] = (VECTORS,), dtype: str = DTYPE) -> Price:
    """Estimated seconds of so many tokens at once, over all the numbers that are given together."""

    def seconds(choice: Choice | Bands | None, dims: tuple[int, int], is_table: bool) -> float:
        return sum(_seconds(choice, dims, is_table, device, count, dtype) for count in tokens)

    return seconds


def _seconds(
    choice: Choice | Bands | None, dims: tuple[int, int], is_table: bool, device: Device, count: int, dtype: str
) -> float:
    if is_table or isinstance(choice, Bands):  # a row a token, and projections if there are any
        work = 0 if choice is None else choice.flops(count) / device.rate(dtype)
        return work + device.moving_seconds(2 * count * dims[1], dtype) + device.overhead
    return choice_seconds(choice, device, count, dtype) if choice else dense_seconds(dims, device, count, dtype)


def dense_seconds(dims: tuple[int, int], device: Device, vectors: int, dtype: str = DTYPE) -> float:
    """Of a dense kernel for so many vectors."""
    return plan_seconds(plan(dense_spec(*dims), vectors), device, dtype)


def choice_seconds(choice: Choice, device: Device, vectors: int, dtype: str = DTYPE) -> float:
    """Of a network for so many vectors, by the fastest of its plans.

    >>> from tncompress.hardware.device import DEVICES
    >>> small = Choice("low_rank", low_rank.spec(768, 3072, 64))
    >>> choice_seconds(small, DEVICES["cpu"], 1024) < dense_seconds((768, 3072), DEVICES["cpu"], 1024)
    True
    """
    if not choice.pivots:
        return fastest(choice.spec, vectors, device, dtype).seconds
    (in_dim, rank), (_, out_dim) = choice.spec.core_shapes
    if low_rank.skips_identity(choice.spec, vectors):
        # The second core has `rank` columns fewer; then the outputs are joined and put in order, or else the weights.
        planned, moved = core_by_core(low_rank.spec(in_dim, max(1, out_dim - rank), rank), vectors), vectors * out_dim
    else:
        planned, moved = core_by_core(choice.spec, vectors), rank * out_dim
    return plan_seconds(planned, device, dtype) + device.moving_seconds(4 * moved, dtype) + 2 * device.overhead
