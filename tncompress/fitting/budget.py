"""`Budget`: what a compressed model may cost, and the prices that places are compared by."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real

from tncompress.fitting.choice import Bands, Choice
from tncompress.fitting.machine import Machine, this_machine

VECTORS = 1024  # tokens at once for which FLOPs and times are taken

Price = Callable[["Choice | Bands | None", tuple[int, int], bool], float]


_MEANINGS = {
    "keep": "the fraction of parameters that stays",
    "params": "the number of parameters of the whole model",
    "flops": "the number of operations a token",
    "latency": "the fraction of time that stays",
    "max_loss": "the fraction of the objective's variance that may change",
}


@dataclass(frozen=True)
class Budget:
    """One limit for all chosen layers together, instead of a fraction for each. Give exactly one.

    Args:
        keep: fraction of the chosen layers' parameters that stays, in (0, 1].
        params: parameters of the whole model afterwards, as `model.count_params()` counts them.
        flops: floating-point operations a token of the chosen layers afterwards, a multiply-add counting as 2.
        latency: fraction of the time that the chosen layers take now, in (0, 1], as estimated for this machine at 1024
            tokens at once: by its rates for matmuls and memory, measured once in a second.
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
            raise ValueError(f"{self.kind} is {what}, got {value!r}.")

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

    def price(self) -> Price:
        """What a place costs in this budget's unit."""
        if self.kind == "flops":
            return flops_of
        return seconds_on(this_machine()) if self.kind == "latency" else params_of


def params_of(choice: Choice | Bands | None, dims: tuple[int, int], is_table: bool) -> float:
    """Stored numbers."""
    return dims[0] * dims[1] if choice is None else choice.num_params


def flops_of(choice: Choice | Bands | None, dims: tuple[int, int], is_table: bool) -> float:
    """Operations a token; rows that are looked up cost none."""
    if choice is None:
        return 0 if is_table else 2 * dims[0] * dims[1]
    return choice.flops(VECTORS) / VECTORS


def seconds_on(machine: Machine) -> Price:
    """Estimated seconds of `VECTORS` tokens."""

    def seconds(choice: Choice | Bands | None, dims: tuple[int, int], is_table: bool) -> float:
        if is_table or isinstance(choice, Bands):  # a row a token, and projections if there are any
            return machine.seconds(0 if choice is None else choice.flops(VECTORS), 8 * VECTORS * dims[1])
        return machine.choice_seconds(choice, VECTORS) if choice else machine.dense_seconds(*dims, VECTORS)

    return seconds
