"""`Form`: a family of specs, and what the forms share: how to find the largest member within a budget."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from tncompress.network.plan import to_dense
from tncompress.network.spec import Spec

Candidates = Callable[[int, int, int], Iterable[Spec]]
Decompose = Callable[[np.ndarray, Spec], list[np.ndarray]]
DecomposeCalibrated = Callable[[np.ndarray, Spec, np.ndarray], list[np.ndarray] | None]
DecomposeTwoSided = Callable[[np.ndarray, Spec, np.ndarray, np.ndarray], list[np.ndarray] | None]


@dataclass(frozen=True)
class Form:
    """A factorisation. A new one is one file in this folder with a `FORM`, or a call of `register_form`.

    Args:
        name: what users write, e.g. `"low_rank"`.
        candidates: `(in_dim, out_dim, max_params)` -> the specs of that size worth trying, best guess first, each as
            large as fits into `max_params`. None at all if the form does not fit the dimensions.
        decompose: `(kernel [in_dim, out_dim], spec)` -> cores; leave it out where only alternating least squares helps.
        decompose_calibrated: `(kernel, spec, metric [in_dim, in_dim])` -> cores, optimal for the error
            tr((W - W')^T metric (W - W')); None for specs that have no closed form.
        decompose_two_sided: `(kernel, spec, metric, out_metric [out_dim, out_dim])` -> cores, optimal for the error
            tr((W - W')^T metric (W - W') out_metric), where out_metric is positive definite; None likewise.
        optimal: `decompose` gives the global optimum, so nothing is left to improve.
        fixed: `candidates` gives one structure, whatever the budget, which is then only a limit.
        needs: what dimensions the form asks for, for error messages.
        source: where the form comes from.
    """

    name: str
    candidates: Candidates
    decompose: Decompose | None = None
    decompose_calibrated: DecomposeCalibrated | None = None
    decompose_two_sided: DecomposeTwoSided | None = None
    optimal: bool = False
    fixed: bool = False
    needs: str = "any dimensions"
    source: str = ""


def holds(form: Form, spec: Spec) -> bool:
    """Whether a spec is of the form: its closed form, if it has one, finds the cores of a network like it again."""
    if form.decompose is None:
        return True
    like = Spec(spec.inputs, spec.cores, spec.outputs, tuple((mode, 2) for mode, _ in spec.sizes))
    generator = np.random.default_rng(0)
    kernel = to_dense(like, [generator.normal(size=shape) for shape in like.core_shapes])
    try:
        cores = form.decompose(kernel, like)
        return [core.shape for core in cores] == list(like.core_shapes) and np.allclose(to_dense(like, cores), kernel)
    except (KeyError, IndexError, ValueError):  # it looked for modes that the spec does not have
        return False


def block_size(number: int, blocks: int) -> int:
    """The size of one of `blocks` equal blocks of `number` features.

    Raises:
        ValueError: if it does not divide evenly.

    >>> block_size(3072, 6)
    512
    """
    if blocks < 1 or number % blocks:
        raise ValueError(
            f"{number} features do not split into {blocks} equal blocks; choose one of {divisors(number)}."
        )
    return number // blocks


@cache
def factorizations(number: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """All ordered ways to write `number` as a product of `parts` factors, each at least 2; most balanced first.

    >>> factorizations(12, 2)
    ((3, 4), (4, 3), (2, 6), (6, 2))
    """
    if parts == 1:
        return ((number,),) if number > 1 else ()
    found = [
        (first, *rest)
        for first in range(2, number // 2 + 1)
        if number % first == 0
        for rest in factorizations(number // first, parts - 1)
    ]
    return tuple(sorted(found, key=lambda factors: (max(factors) / min(factors), factors)))


def divisors(number: int) -> list[int]:
    """All divisors, ascending.

    >>> divisors(6)
    [1, 2, 3, 6]
    """
    return [d for d in range(1, number + 1) if number % d == 0]


def largest_rank(make: Callable[[int], Spec], max_rank: int, max_params: int) -> Iterator[Spec]:
    """The spec of the largest rank with at most `max_params` parameters, which must grow with the rank; or none."""
    low, high = 0, max_rank
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if make(middle).num_params <= max_params else (low, middle - 1)
    if low:
        yield make(low)


def largest_ranks(make: Callable[[Sequence[int]], Spec], max_ranks: Sequence[int], max_params: int) -> Iterator[Spec]:
    """The same for several ranks: alike fractions of their largest values, then single steps while they fit."""

    def at(level: int) -> list[int]:
        return [max(1, round(level * most / steps)) for most in max_ranks]

    steps = max(max_ranks)
    low, high = 0, steps
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if make(at(middle)).num_params <= max_params else (low, middle - 1)
    ranks = at(low)
    if make(ranks).num_params > max_params:
        return
    grown = True
    while grown:
        grown = False
        for k in sorted(range(len(ranks)), key=lambda k: ranks[k] / max_ranks[k]):
            more = [r + (j == k) for j, r in enumerate(ranks)]
            if more[k] <= max_ranks[k] and make(more).num_params <= max_params:
                ranks, grown = more, True
                break
    yield make(ranks)


def imbalance(*sizes: int) -> float:
    """How far sizes are from equal: 0 if they are, growing with their ratio."""
    return math.log(max(sizes) / min(sizes))
