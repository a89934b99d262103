"""Layers of a report put together: those of one kind, and those that hold the same network."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tncompress.conversion.changes import Change
from tncompress.fitting.budget import VECTORS
from tncompress.forms.low_rank import skips_identity
from tncompress.network.plan import Plan, core_by_core, plan
from tncompress.network.spec import Spec
from tncompress.network.steps import BATCH, flops_of

MOST_KINDS = 8  # as many colours as can be told apart
OTHERS, REST = "other layers", "everything else"


def kind_of(path: str) -> str:
    """What layers are that differ in numbers only.

    >>> kind_of("encoder/block_11/attention/query")
    'encoder/block_*/attention/query'
    """
    return re.sub(r"\d+", "*", path)


def kinds_of(rows: Sequence[Change], before: int, after: int) -> list[dict[str, Any]]:
    """Parameters by kind of layer, in the order of the model; small kinds in one, what is no dense layer at the end.

    Args:
        rows: of a report.
        before, after: parameters of the whole model.
    """
    found: dict[str, list[Change]] = {}
    for row in rows:
        found.setdefault(kind_of(row.layer), []).append(row)
    if len(found) > MOST_KINDS:
        largest = sorted(found, key=lambda kind: -sum(row.params_before for row in found[kind]))[: MOST_KINDS - 1]
        named = {kind: found[kind] for kind in found if kind in largest}
        found = {**named, OTHERS: [row for kind in found if kind not in largest for row in found[kind]]}
    kinds = [
        {
            "kind": kind,
            "layers": len(some),
            "params_before": sum(row.params_before for row in some),
            "params_after": sum(row.params_after for row in some),
        }
        for kind, some in found.items()
    ]
    left = [
        total - sum(kind[name] for kind in kinds)
        for total, name in ((before, "params_before"), (after, "params_after"))
    ]
    return [*kinds, {"kind": REST, "layers": None, "params_before": left[0], "params_after": left[1]}]


def networks_of(rows: Iterable[Change]) -> list[dict[str, Any]]:
    """Every network that is in a model, once, with the layers that have it and the order it is contracted in."""
    found: dict[tuple, list[Change]] = {}
    for row in rows:
        if row.form:
            key = (row.form, row.equation, row.sizes, row.params_after, row.flops_after, row.pivots)
            found.setdefault(key, []).append(row)
    return [
        {
            "form": form,
            "equation": equation,
            "sizes": sizes,
            "params": params,
            "flops": flops,
            "layers": [row.layer for row in some],
            "pivots": pivots,
            "steps": steps_of(spec_of(equation, sizes), pivots) if equation else [],
        }
        for (form, equation, sizes, params, flops, pivots), some in found.items()
    ]


def spec_of(equation: str, sizes: str) -> Spec:
    """The network of a row.

    >>> spec_of("i, i o -> o", "i=3, o=4")
    Spec.parse('i, i o -> o', i=3, o=4)
    """
    pairs = (pair.split("=") for pair in sizes.split(", "))
    return Spec.parse(equation, {mode: int(size) for mode, size in pairs})


def order_of(spec: Spec, pivots: bool) -> Plan:
    """The order in which a layer contracts its network: that with the fewest operations for many vectors at once.

    Args:
        pivots: it is a `TNPivoted`, whose cores cannot be multiplied with each other.
    """
    return core_by_core(spec, VECTORS) if pivots else plan(spec, VECTORS)


def steps_of(spec: Spec, pivots: bool = False) -> list[dict[str, Any]]:
    """The contraction order of a layer in words; operations are of one vector.

    >>> steps_of(Spec.parse("i, i r, r o -> o", i=8, r=2, o=8))[0]
    {'left': 'x', 'right': 'core 1', 'summed': ['i'], 'result': 'batch r', 'flops': 32}
    """
    order = order_of(spec, pivots)
    size = {**spec.size, BATCH: VECTORS}
    names = ["x", *(f"core {k + 1}" for k in range(len(spec.cores)))]
    found = []
    for number, step in enumerate(order.steps, start=1):
        left, right = names[step.left], names[step.right]
        names = [name for k, name in enumerate(names) if k not in (step.left, step.right)] + [f"result {number}"]
        flops = flops_of(step, size) / VECTORS
        if pivots and number == len(order.steps) and skips_identity(spec, VECTORS):
            flops -= 2 * math.prod(size[mode] for mode in step.summed) ** 2
        found.append(
            {
                "left": left,
                "right": right,
                "summed": list(step.summed),
                "result": " ".join("batch" if mode == BATCH else mode for mode in step.result),
                "flops": int(flops) if flops == int(flops) else flops,
            }
        )
    return found
