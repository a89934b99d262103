"""The order in which a network is contracted, chosen on shapes alone, and the contraction itself.

`plan` and `candidates` see no arrays; `contract` makes no choices. Every step is reshape + matmul with the batch axis
first, so that activations are transposed only where a block mode or the network's own permutation asks for it.
"""

import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from tncompress.network.spec import Modes, Spec
from tncompress.network.steps import BATCH, Step, cores_first, flops_of, pairwise, path_of, steps_along


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
    size = _sizes(spec, batch)
    return _planned(spec, batch, pairwise(_terms(spec), _wanted(spec), tuple(size.items())))


def core_by_core(spec: Spec, batch: int = 1024) -> Plan:
    """The plan that takes x through one core after the other, the first one first, whatever it costs.

    >>> core_by_core(Spec.parse("i, i r, r o -> o", i=8, r=7, o=8), batch=1000).flops
    224000
    """
    return _planned(spec, batch, steps_along(_terms(spec), _forwards(len(spec.cores)), _wanted(spec)))


def _forwards(cores: int) -> list[tuple[int, int]]:
    """Positions of what is contracted in each step; a result is put at the end."""
    return [(0, 1), *[(0, left) for left in range(cores - 1, 0, -1)]]


FEWEST, FORWARDS, BACKWARDS, CORES_FIRST = "fewest FLOPs", "core by core", "core by core, last first", "cores first"
MOST_FLOPS = 30  # times the fewest: whatever the machine, that is not made up for
IN_PLACE = {"in place": False, "in place, bonds first": True}  # what `bonds_first` is


@lru_cache(maxsize=4096)
def candidates(spec: Spec, batch: int = 1024) -> Mapping[str, Plan]:
    """The ways to compute a spec that are worth comparing, by name; which is the fastest depends on the machine.

    Orders: the fewest FLOPs (the plan of `plan`), core by core from the first or the last, and all cores before x, i.e.
    the kernel made in every call. The first three also "in place": modes are summed where they stand, in many small
    matmuls instead of a transpose and a large one. No two of the plans are equal, and none needs 30 times the fewest
    FLOPs, unless its largest tensor is smaller.

    Raises:
        ValueError: if batch is not positive.

    >>> spec = Spec.parse("a b, a c r, r b d -> c d", a=4, b=4, c=4, d=4, r=2)
    >>> for name, found in candidates(spec, batch=1).items():
    ...     print(f"{name}: {found.flops}")
    fewest FLOPs: 512
    core by core: 512
    cores first: 1536
    core by core, in place: 512
    fewest FLOPs, in place, bonds first: 512
    core by core, in place, bonds first: 512
    """
    size, terms, wanted = _sizes(spec, batch), _terms(spec), _wanted(spec)
    backwards = [(0, len(terms) - 1), *[(left - 1, left) for left in range(len(terms) - 2, 0, -1)]]
    orders = {FEWEST: path_of(list(terms), wanted, size), FORWARDS: _forwards(len(terms) - 1), BACKWARDS: backwards}
    orders[CORES_FIRST] = cores_first(terms, wanted, size)
    found = {name: steps_along(terms, path, wanted) for name, path in orders.items()}
    for layout, bonds_first in IN_PLACE.items():
        for name in (FEWEST, FORWARDS, BACKWARDS):
            found[f"{name}, {layout}"] = steps_along(
                terms, orders[name], wanted, in_place=True, bonds_first=bonds_first
            )
    names = {steps: name for name, steps in reversed(found.items())}  # of equal ones the first name
    plans = {name: _planned(spec, batch, steps) for name, steps in found.items() if names[steps] == name}
    best = plans[FEWEST]
    return MappingProxyType(
        {
            name: found
            for name, found in plans.items()
            if found.flops <= MOST_FLOPS * best.flops or found.peak_elements < best.peak_elements
        }
    )


def _sizes(spec: Spec, batch: int) -> dict[str, int]:
    if batch < 1:
        raise ValueError(f"batch must be at least 1 vector, got {batch}.")
    return {**spec.size, BATCH: batch}


def _terms(spec: Spec) -> tuple[Modes, ...]:
    return ((BATCH, *spec.inputs), *spec.cores)


def _wanted(spec: Spec) -> Modes:
    return (BATCH, *spec.outputs)


def _planned(spec: Spec, batch: int, steps: tuple[Step, ...]) -> Plan:
    size = _sizes(spec, batch)
    flops = sum(flops_of(step, size) for step in steps)
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


def contract_unflattened(plan: Plan, x: Any, cores: Sequence[Any], einsum: Callable) -> Any:
    """The same, one einsum a step: `x [..., *input modes]` -> `[..., *output modes]`, no axes put together.

    For TPUs: the last two axes of their arrays are tiled, so that a reshape of `[batch, tokens, blocks, size]` to rows
    is a copy. Flattened, TN-BERT's feed-forward part takes 2.5 times as many cycles, by its compiler's estimate.

    Args:
        plan: from `plan`.
        x: array with any leading axes, then one axis for every input mode.
        cores: arrays of the shapes `plan.spec.core_shapes`.
        einsum: `numpy.einsum`, `jax.numpy.einsum`, `keras.ops.einsum`.

    >>> import numpy as np
    >>> spec = Spec.parse("i, i r, r o -> o", i=3, r=2, o=4)
    >>> contract_unflattened(plan(spec), np.ones((2, 5, 3)), [np.ones((3, 2)), np.ones((2, 4))], np.einsum).shape
    (2, 5, 4)
    """
    letter = {mode: string.ascii_letters[k] for k, mode in enumerate(plan.spec.size)} | {BATCH: "..."}
    operands = [x, *cores]
    for step in plan.steps:
        is_last = len(operands) == 2
        result = (BATCH, *plan.spec.outputs) if is_last else step.result
        terms = ("".join(letter[mode] for mode in modes) for modes in (step.left_modes, step.right_modes, result))
        made = einsum("{},{}->{}".format(*terms), operands[step.left], operands[step.right])
        operands = [o for k, o in enumerate(operands) if k not in (step.left, step.right)] + [made]
    return operands[0]


def to_dense(spec: Spec, cores: Sequence[Any]) -> np.ndarray:
    """The cores multiplied out: the kernel `[in_dim, out_dim]`.

    >>> to_dense(Spec.parse("i, i r, r o -> o", i=3, r=2, o=4), [np.ones((3, 2)), np.ones((2, 4))])[0]
    array([2., 2., 2., 2.])
    """
    cores = [np.asarray(core) for core in cores]
    units = np.eye(spec.in_dim, dtype=cores[0].dtype).reshape(spec.in_dim, *spec.shape(spec.inputs))
    return contract(plan(spec, spec.in_dim), units, cores, np).reshape(spec.in_dim, spec.out_dim)


def execute(steps: Sequence[Step], operands: Sequence[Any], wanted: Modes, size: dict[str, int], ops: Any) -> Any:
    """Carry out the steps of `pairwise` to the end; a size of -1 stands for one that is known only at run time."""
    return _transpose(carry_out(steps, operands, size, ops)[0], steps[-1].result, wanted, ops)


def carry_out(steps: Sequence[Step], operands: Sequence[Any], size: dict[str, int], ops: Any) -> list[Any]:
    """What is left of the operands after some steps; the last one's result at the end."""
    operands = list(operands)
    for step in steps:
        left = arrange(operands[step.left], step.left_modes, step.left_groups, size, ops)
        right = arrange(operands[step.right], step.right_modes, step.right_groups, size, ops)
        result = ops.matmul(right, left) if step.inner else ops.matmul(left, right)
        result = _reshape(result, tuple(size[m] for m in step.result), ops)
        operands = [o for i, o in enumerate(operands) if i not in (step.left, step.right)] + [result]
    return operands


def arrange(array: Any, modes: Modes, groups: tuple[Modes, ...], size: dict[str, int], ops: Any) -> Any:
    """The operand with its modes in groups, each flattened, e.g. `[shared, rows, columns]`; no axis for no shared."""
    array = _transpose(array, modes, tuple(m for group in groups for m in group), ops)
    shape = tuple(_product(size[m] for m in group) for group in groups)
    return _reshape(array, shape if groups[0] else shape[1:], ops)


def _product(sizes: Iterable[int]) -> int:
    sizes = tuple(sizes)
    return -1 if -1 in sizes else math.prod(sizes)


def _reshape(array: Any, shape: tuple[int, ...], ops: Any) -> Any:
    # A reshape to the shape it has would cost the start of an operation, and hide the bias from TensorFlow's fusion.
    found = tuple(array.shape)
    same = len(found) == len(shape) and all(a == b or b == -1 for a, b in zip(found, shape, strict=True))
    return array if same else ops.reshape(array, shape)


def _transpose(array: Any, modes: Modes, wanted: Modes, ops: Any) -> Any:
    return array if modes == wanted else ops.transpose(array, tuple(modes.index(m) for m in wanted))
