"""Random networks and their arrays: one generator, driven by hypothesis or by a seeded numpy generator."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from tncompress.network.spec import Spec

Integer = Callable[[int, int], int]  # (low, high) -> an int from low to high, both included


def draw_spec(integer: Integer, *, min_size: int = 1, max_size: int = 3) -> Spec:
    """Any network: up to four cores with input, output, block and bond modes, each in any admissible set of terms.

    Among them hyper-edges, input modes in several cores, block modes in no core, modes of size one, unconnected cores.
    """
    cores = [[] for _ in range(integer(1, 4))]
    blocks = [f"g{k}" for k in range(integer(0, 2))]
    inputs = [f"i{k}" for k in range(integer(0 if blocks else 1, 2))]
    outputs = [f"o{k}" for k in range(integer(0 if blocks else 1, 2))]
    bonds = [f"r{k}" for k in range(integer(0, 3) if len(cores) > 1 else 0)]
    for modes, fewest in ((blocks, 0), (inputs, 1), (outputs, 1), (bonds, 2)):
        for mode in modes:
            # Few terms are usual, many possible.
            count = min(len(cores), fewest + max(0, integer(-3, 2)))
            for k in _permutation(integer, len(cores))[:count]:
                cores[k].append(mode)
    everything = [*blocks, *inputs, *outputs, *bonds]
    for core in cores:
        if not core:
            core.append(everything[integer(0, len(everything) - 1)])
    used = [m for m in everything if m in (*blocks, *inputs, *outputs) or any(m in core for core in cores)]
    terms = [[*inputs, *blocks], *cores, [*blocks, *outputs]]
    first, *middle, last = [tuple(term[k] for k in _permutation(integer, len(term))) for term in terms]
    return Spec(first, tuple(middle), last, tuple((m, integer(min_size, max_size)) for m in used))


def _permutation(integer: Integer, count: int) -> list[int]:
    left = list(range(count))
    return [left.pop(integer(0, len(left) - 1)) for _ in range(count)]


@st.composite
def specs(draw: st.DrawFn, **limits: int) -> Spec:
    """`draw_spec`, driven (and its failures made small) by hypothesis."""
    return draw_spec(lambda low, high: draw(st.integers(low, high)), **limits)


def seeded_specs(count: int, seed: int = 0, **limits: int) -> list[Spec]:
    """`count` specs of `draw_spec`, the same in every process."""
    generator = np.random.default_rng(seed)
    return [draw_spec(lambda low, high: int(generator.integers(low, high + 1)), **limits) for _ in range(count)]


def arrays(spec: Spec, seed: int, batch: int = 1, dtype: type = np.float64) -> tuple[np.ndarray, list[np.ndarray]]:
    """x `[batch, *input modes]` and cores of normal entries."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(batch, *spec.shape(spec.inputs))).astype(dtype)
    return x, [generator.normal(size=shape).astype(dtype) for shape in spec.core_shapes]
