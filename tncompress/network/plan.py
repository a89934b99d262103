"""The order in which a network is contracted, chosen on shapes alone, and the contraction itself.

`plan` sees no arrays; `contract` makes no choices. Every step is reshape + matmul with the batch axis first, so that
activations are transposed only where a block mode or the network's own permutation asks for it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tncompress.network.spec import Modes, Spec

EXACT_TERMS = 8  # their sets can be split in 3,000 ways, tried in some 10 ms; every further term makes it three times
BATCH = "*"  # the leading axis of x; not a legal mode name, so it never collides with one


@dataclass(frozen=True)
class Step:
    """One pairwise contraction: the operands at positions `left` and `right` become one, put at the end.

    The modes are grouped for a matmul: `left [shared, kept_left, summed] @ right [shared, summed, kept_right]`.
    """

    left: int
    right: int
    left_modes: Modes  # as the operand is stored
    right_modes: Modes
    shared: Modes
    kept_left: Modes
    kept_right: Modes
    summed: Modes

    @property
    def result(self) -> Modes:
        """Modes of the result, as it is stored."""
        return (*self.shared, *self.kept_left, *self.kept_right)


@dataclass(frozen=True)
class Plan:
    """How to compute a spec: pairwise steps, and what they cost.

    Args:
        spec: the map.
        batch: number of vectors that the plan was made for.
        steps: pairwise contractions, in order.
        flops: floating-point operations of one pass over `batch` vectors; a multiply-add counts as 2.
        peak_elements: elements of the largest tensor that a step makes.
    """

    spec: Spec
    batch: int
    steps: tuple[Step, ...]
    flops: int
    peak_elements: int

    def __str__(self) -> str:
        lines = [f"{self.spec}  for {self.batch} vectors: {self.flops:,} FLOPs, peak {self.peak_elements:,} elements"]
        for step in self.steps:
            left, right = (" ".join(modes) for modes in (step.left_modes, step.right_modes))
            lines.append(f"  {left}, {right} -> {' '.join(step.result)}")
        return "\n".join(lines)


@lru_cache(maxsize=4096)
def plan(spec: Spec, batch: int = 1024) -> Plan:
    """The pairwise order with the fewest FLOPs for `batch` vectors at once; the very best for up to seven cores.

    Args:
        spec: the map.
        batch: number of vectors, i.e. the product of all leading axes.

    Raises:
        ValueError: if batch is not positive.

    >>> print(plan(Spec.parse("i, i r, r o -> o", i=8, r=2, o=8), batch=4))
    i, i r, r o -> o  (i=8, o=8, r=2)  for 4 vectors: 256 FLOPs, peak 32 elements
      * i, i r -> * r
      * r, r o -> * o
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1 vector, got {batch}.")
    size = {**spec.size, BATCH: batch}
    steps = pairwise(((BATCH, *spec.inputs), *spec.cores), (BATCH, *spec.outputs), tuple(size.items()))
    flops = sum(_flops(step, size) for step in steps)
    peak = max(math.prod(size[m] for m in step.result) for step in steps)
    return Plan(spec, batch, steps, flops, peak)


def contract(plan: Plan, x: Any, cores: Sequence[Any], ops: Any) -> Any:
    """Compute the planned map: `x [batch, *input modes]` -> `[batch, *output modes]`.

    Args:
        plan: from `plan`; any batch may be given, the one planned for is merely the one it is best for.
        x: array with a leading batch axis, then one axis for every input mode.
        cores: arrays of the shapes `plan.spec.core_shapes`.
        ops: a namespace with `reshape`, `transpose` and `matmul`: numpy, jax.numpy, keras.ops.

    >>> import numpy as np
    >>> spec = Spec.parse("i, i r, r o -> o", i=3, r=2, o=4)
    >>> contract(plan(spec), np.ones((5, 3)), [np.ones((3, 2)), np.ones((2, 4))], np).shape
    (5, 4)
    """
    size = {**plan.spec.size, BATCH: -1}
    return execute(plan.steps, [x, *cores], (BATCH, *plan.spec.outputs), size, ops)


def to_dense(spec: Spec, cores: Sequence[Any]) -> np.ndarray:
    """The cores multiplied out: the kernel `[in_dim, out_dim]`.

    >>> to_dense(Spec.parse("i, i r, r o -> o", i=3, r=2, o=4), [np.ones((3, 2)), np.ones((2, 4))])[0]
    array([2., 2., 2., 2.])
    """
    cores = [np.asarray(core) for core in cores]
    units = np.eye(spec.in_dim, dtype=cores[0].dtype).reshape(spec.in_dim, *spec.shape(spec.inputs))
    return contract(plan(spec, spec.in_dim), units, cores, np).reshape(spec.in_dim, spec.out_dim)


@lru_cache(maxsize=4096)
def pairwise(terms: tuple[Modes, ...], wanted: Modes, sizes: tuple[tuple[str, int], ...]) -> tuple[Step, ...]:
    """Steps that contract `terms` to `wanted` with the fewest FLOPs. Every mode stands in two terms or is wanted."""
    size = dict(sizes)
    left = list(terms)
    steps = []
    for pair in _path(left, wanted, size):
        step = _step(left, pair, wanted)
        left = [term for i, term in enumerate(left) if i not in pair] + [step.result]
        steps.append(step)
    return tuple(steps)


def execute(steps: Sequence[Step], operands: Sequence[Any], wanted: Modes, size: dict[str, int], ops: Any) -> Any:
    """Carry out the steps of `pairwise`; a size of -1 stands for the one that is known only at run time."""
    operands = list(operands)
    for step in steps:
        left, right = operands[step.left], operands[step.right]
        left = _arrange(left, step.left_modes, (step.shared, step.kept_left, step.summed), size, ops)
        right = _arrange(right, step.right_modes, (step.shared, step.summed, step.kept_right), size, ops)
        result = ops.reshape(ops.matmul(left, right), tuple(size[m] for m in step.result))
        operands = [o for i, o in enumerate(operands) if i not in (step.left, step.right)] + [result]
    return _transpose(operands[0], steps[-1].result, wanted, ops)


def _path(terms: list[Modes], wanted: Modes, size: dict[str, int]) -> list[tuple[int, int]]:
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


def _step(terms: list[Modes], pair: tuple[int, int], wanted: Modes) -> Step:
    # The operand that carries the batch goes left, so that the batch stays in front of the features.
    left, right = sorted(pair, key=lambda i: (BATCH not in terms[i], i))
    needed = {m for i, term in enumerate(terms) if i not in pair for m in term} | set(wanted)
    common = [m for m in terms[left] if m in terms[right]]
    only_right = [m for m in terms[right] if m not in terms[left]]
    # Wanted modes first and in the wanted order: the last step then needs no transpose of its result.
    order = {m: i for i, m in enumerate(wanted)}
    only_right.sort(key=lambda m: order.get(m, len(order)))
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


def _flops(step: Step, size: dict[str, int]) -> int:
    products = math.prod(size[m] for m in (*step.result, *step.summed))
    return 2 * products if step.summed else products


def _arrange(array: Any, modes: Modes, groups: tuple[Modes, Modes, Modes], size: dict[str, int], ops: Any) -> Any:
    """The operand with its modes in three groups, each flattened: `[shared, rows, columns]`."""
    array = _transpose(array, modes, tuple(m for group in groups for m in group), ops)
    shape = tuple(_product(size[m] for m in group) for group in groups)
    return ops.reshape(array, shape if groups[0] else shape[1:])


def _product(sizes: Iterable[int]) -> int:
    sizes = tuple(sizes)
    return -1 if -1 in sizes else math.prod(sizes)


def _transpose(array: Any, modes: Modes, wanted: Modes, ops: Any) -> Any:
    return array if modes == wanted else ops.transpose(array, tuple(modes.index(m) for m in wanted))
