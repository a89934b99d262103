"""The orders in which a network can be contracted, pair by pair, and how every pair is laid out for a matmul."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from tncompress.network.spec import Modes

EXACT_TERMS = 8  # their sets can be split in 3,000 ways, tried in some 10 ms; every further term makes it three times
BATCH = "*"  # the leading axis of x; not a legal mode name, so it never collides with one


@dataclass(frozen=True)
class Step:
    """One pairwise contraction: the operands at positions `left` and `right` become one, put at the end.

    The modes are grouped for a matmul: `left [shared, kept_left, summed] @ right [shared, summed, kept_right]`; or, if
    there are `inner` modes, with the weights in front: `right [kept_right, summed] @ left [kept_left, summed, inner]`,
    so that modes behind the summed ones stay where they are.
    """

    left: int
    right: int
    left_modes: Modes  # as the operand is stored
    right_modes: Modes
    shared: Modes
    kept_left: Modes
    kept_right: Modes
    summed: Modes
    inner: Modes = ()

    @property
    def left_groups(self) -> tuple[Modes, ...]:
        """Modes of the left operand as the matmul takes it, to be flattened group by group."""
        return (self.kept_left, self.summed, self.inner) if self.inner else (self.shared, self.kept_left, self.summed)

    @property
    def right_groups(self) -> tuple[Modes, ...]:
        """Modes of the right operand as the matmul takes it."""
        return (self.kept_right, self.summed) if self.inner else (self.shared, self.summed, self.kept_right)

    @property
    def result(self) -> Modes:
        """Modes of the result, as it is stored."""
        return (*self.shared, *self.kept_left, *self.kept_right, *self.inner)


@lru_cache(maxsize=4096)
def pairwise(terms: tuple[Modes, ...], wanted: Modes, sizes: tuple[tuple[str, int], ...]) -> tuple[Step, ...]:
    """Steps that contract `terms` to `wanted` with the fewest FLOPs. Every mode stands in two terms or is wanted."""
    return steps_along(terms, path_of(list(terms), wanted, dict(sizes)), wanted)


def path_of(terms: list[Modes], wanted: Modes, size: dict[str, int]) -> list[tuple[int, int]]:
    if len(terms) <= EXACT_TERMS:
        return _exact_path(terms, wanted, size)
    import opt_einsum  # as slow to import as numpy, and rarely needed

    symbol = {mode: opt_einsum.get_symbol(i) for i, mode in enumerate(size)}
    text = ["".join(symbol[m] for m in modes) for modes in (*terms, wanted)]
    shapes = [tuple(size[m] for m in term) for term in terms]
    path, _ = opt_einsum.contract_path(f"{','.join(text[:-1])}->{text[-1]}", *shapes, shapes=True, optimize="auto")
    return [(pair[0], pair[1]) for pair in path]


def _exact_path(terms: list[Modes], wanted: Modes, size: dict[str, int]) -> list[tuple[int, int]]:
    """The cheapest order, by dynamic programming over sets of terms (bits of an int).

    What remains of a set of terms does not depend on the order inside the set. (opt_einsum's "optimal" forgets that it
    does depend on the other terms where three share a mode, and then misses the optimum by up to a factor of two.)
    """
    everything = (1 << len(terms)) - 1
    holders = {m: sum(1 << k for k, term in enumerate(terms) if m in term) for term in terms for m in term}
    remains = {1 << k: frozenset(term) for k, term in enumerate(terms)}
    best = {1 << k: (0, 0) for k in range(len(terms))}  # FLOPs, then elements written
    halves = {}
    for group in range(1, everything + 1):
        if group in remains:
            continue
        needed = {m for m, held in holders.items() if held & ~group} | set(wanted)
        remains[group] = frozenset(m for m, held in holders.items() if held & group) & needed
        written = math.prod(size[m] for m in remains[group])
        half = (group - 1) & group
        while 2 * half > group:  # the half with the group's highest bit: every split once
            other = group ^ half
            modes = remains[half] | remains[other]
            flops = math.prod(size[m] for m in modes) * (1 if modes <= needed else 2)
            total = (best[half][0] + best[other][0] + flops, best[half][1] + best[other][1] + written)
            if group not in best or total < best[group]:
                best[group], halves[group] = total, (half, other)
            half = (half - 1) & group
    return _positions(halves, everything, len(terms))


def _positions(halves: dict[int, tuple[int, int]], everything: int, count: int) -> list[tuple[int, int]]:
    """The steps of a tree of groups, as positions in a list from which two are taken and to whose end one is put."""
    left, path = [1 << k for k in range(count)], []

    def visit(group: int) -> None:
        if group in halves:
            for half in halves[group]:
                visit(half)
            first, second = sorted(left.index(half) for half in halves[group])
            path.append((first, second))
            left[:] = [other for k, other in enumerate(left) if k not in (first, second)] + [group]

    visit(everything)
    return path


def cores_first(terms: tuple[Modes, ...], wanted: Modes, size: dict[str, int]) -> list[tuple[int, int]]:
    """The best order among the cores, then x."""
    x, *cores = terms
    open_modes = {*x, *wanted}
    kernel = tuple(dict.fromkeys(m for core in cores for m in core if m in open_modes))
    path = path_of(cores, kernel, size) if len(cores) > 1 else []
    return [*[(first + 1, second + 1) for first, second in path], (0, 1)]


def steps_along(
    terms: tuple[Modes, ...],
    path: Iterable[tuple[int, ...]],
    wanted: Modes,
    in_place: bool = False,
    bonds_first: bool = False,
) -> tuple[Step, ...]:
    left, steps = list(terms), []
    for pair in path:
        step = _step(left, pair, wanted, bonds_first)
        if in_place:
            step = _in_place(step)
        left = [term for i, term in enumerate(left) if i not in pair] + [step.result]
        steps.append(step)
    return tuple(steps)


def _in_place(step: Step) -> Step:
    """The same step without a transpose of its left operand, if the summed modes stand together in it."""
    modes, count = step.left_modes, len(step.summed)
    start = modes.index(step.summed[0]) if step.summed else 0
    inner = modes[start + count :]
    if not step.summed or step.shared or not inner or modes[start : start + count] != step.summed or modes[0] != BATCH:
        return step
    return replace(step, kept_left=modes[:start], inner=inner)


def _step(terms: list[Modes], pair: tuple[int, ...], wanted: Modes, bonds_first: bool = False) -> Step:
    # The operand that carries the batch goes left, so that the batch stays in front of the features.
    left, right = sorted(pair, key=lambda i: (BATCH not in terms[i], i))
    needed = {m for i, term in enumerate(terms) if i not in pair for m in term} | set(wanted)
    common = [m for m in terms[left] if m in terms[right]]
    only_right = [m for m in terms[right] if m not in terms[left]]
    # Wanted modes in the wanted order: the last step then needs no transpose of its result.
    order = {m: i for i, m in enumerate(wanted)}
    only_right.sort(key=lambda m: order.get(m, -1 if bonds_first else len(order)))
    return Step(
        left,
        right,
        left_modes=terms[left],
        right_modes=terms[right],
        shared=tuple(m for m in common if m in needed),
        kept_left=tuple(m for m in terms[left] if m not in common),
        kept_right=tuple(only_right),
        summed=tuple(m for m in common if m not in needed),
    )


def flops_of(step: Step, size: dict[str, int]) -> int:
    """Operations of one step; a multiply-add counts as 2."""
    products = math.prod(size[m] for m in (*step.result, *step.summed))
    return 2 * products if step.summed else products
