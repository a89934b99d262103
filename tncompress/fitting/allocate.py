"""Which network a layer gets under a budget: from the forms asked for, the one of that size that fits best."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from tncompress.fitting.choice import Choice
from tncompress.fitting.fit import Metrics, quick_error
from tncompress.forms import Form

TRIALS = 8  # specs of a form that are tried on the kernel
NEAR = 0.98  # of the largest: fewer parameters than that would waste the budget


def choose(kernel: np.ndarray, metrics: Metrics, forms: Sequence[Form], max_params: int) -> Choice | None:
    """The best network for a kernel with at most `max_params` parameters; None if there is none so small.

    Every form gives its largest specs; where there are several they are compared on the kernel by their first
    approximation, under the metrics that there are.
    """
    in_dim, out_dim = kernel.shape
    found = [(form, choice) for form in forms for choice in near_budget(form, in_dim, out_dim, max_params)]
    if len(found) < 2:
        return found[0][1] if found else None
    return min(found, key=lambda pair: quick_error(kernel, pair[1].spec, pair[0], *metrics))[1]


def near_budget(form: Form, in_dim: int, out_dim: int, max_params: int) -> list[Choice]:
    """A few specs of a form that use the budget up."""
    specs = list(form.candidates(in_dim, out_dim, max_params))
    largest = max((spec.num_params for spec in specs), default=0)
    return [Choice(form.name, spec) for spec in specs if spec.num_params >= NEAR * largest][:TRIALS]


def smallest_params(forms: Sequence[Form], in_dim: int, out_dim: int) -> int | None:
    """Parameters of the smallest network below dense that any of the forms has for these dimensions; None for none."""
    return _smallest_params(tuple(forms), in_dim, out_dim)


@cache  # models have many layers of the same dimensions
def _smallest_params(forms: tuple[Form, ...], in_dim: int, out_dim: int) -> int | None:
    low, high = 0, in_dim * out_dim - 1
    if not _any_fits(forms, in_dim, out_dim, high):
        return None
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _any_fits(forms, in_dim, out_dim, middle) else (middle, high)
    return high


def _any_fits(forms: Sequence[Form], in_dim: int, out_dim: int, max_params: int) -> bool:
    return any(True for form in forms for _ in form.candidates(in_dim, out_dim, max_params))
