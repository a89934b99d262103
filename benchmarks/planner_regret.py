"""How far is the planner's choice from the best way there is?

Networks for a kernel of 768 x 3072 (tensor-train matrices, MPO, of 2 to 4 cores, low rank, Monarch, block tensor train)
for 1 to 4096 tokens at once, in TensorFlow's graph mode on one CPU thread. Every candidate plan, the dense kernel (what
a fold that is kept would run) and t3f's `matmul` are timed side by side; then the planner chooses by its model.

    python benchmarks/planner_regret.py                     all cases; ten minutes
    python benchmarks/planner_regret.py --tokens 1 128 --only "low rank" --rounds 5
    python benchmarks/planner_regret.py --json FILE

Regret: time of the chosen plan over that of the fastest. "with fold": the dense kernel may be chosen too.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from measure import cpu_seconds, interleaved_medians, use_one_thread, write_json

use_one_thread()

import numpy as np  # noqa: E402 - after the number of threads is set

from tncompress.forms import block_tt, low_rank, monarch, tt_matrix  # noqa: E402
from tncompress.hardware.roofline import FOLDED, fastest  # noqa: E402
from tncompress.network.cost import dense_spec  # noqa: E402
from tncompress.network.plan import Plan, candidates, contract, plan  # noqa: E402
from tncompress.network.spec import Spec  # noqa: E402

IN_DIM, OUT_DIM = 768, 3072
TOKENS = (1, 16, 128, 1024, 4096)
MODES = {2: ((24, 32), (48, 64)), 3: ((8, 8, 12), (12, 16, 16)), 4: ((4, 4, 6, 8), (6, 8, 8, 8))}
T3F = "t3f"
MOST_FLOPS = 4  # times those of the best plan and of the dense kernel: what needs more is not timed
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Case:
    """A network and a number of tokens."""

    name: str
    spec: Spec
    tokens: int
    layers: int  # with weights of their own, one after another: a model does not find its weights in the cache


def cases(tokens: tuple[int, ...], only: str = "") -> Iterator[Case]:
    """The grid."""
    specs = {
        f"MPO {count} cores, rank {rank}": tt_matrix.spec(*MODES[count], rank)
        for count in MODES
        for rank in (8, 32, 128)
    }
    specs |= {f"low rank {rank}": low_rank.spec(IN_DIM, OUT_DIM, rank) for rank in (16, 128, 512)}
    specs |= {f"Monarch {a} x {c}": monarch.spec(IN_DIM, OUT_DIM, a, c) for a, c in ((4, 4), (16, 16))}
    specs |= {f"block TT, rank {rank}": block_tt.spec((24, 32), (48, 64), rank) for rank in (2, 6)}
    for name, spec in specs.items():
        if only in name:
            yield from (Case(name, spec, count, min(8, max(1, 1024 // count))) for count in tokens)


def graph(make: Callable[[], Callable[[Any], Any]], case: Case) -> Callable[[], Any]:
    """A call of a traced function that computes a layer `case.layers` times, each with weights of its own."""
    import tensorflow as tf

    layers = [make() for _ in range(case.layers)]
    x = tf.constant(np.random.default_rng(0).normal(size=(case.tokens, IN_DIM)).astype("float32"))
    traced = tf.function(lambda x: [layer(x) for layer in layers]).get_concrete_function(x)
    return lambda: traced(x)


def layer_of(planned: Plan) -> Callable[[Any], Any]:
    """A plan with random weights."""
    import tensorflow as tf
    from keras import ops

    draw = np.random.default_rng(1)
    cores = [tf.Variable(draw.normal(0, 0.1, shape).astype("float32")) for shape in planned.spec.core_shapes]
    shape = planned.spec.shape(planned.spec.inputs)

    def layer(x):
        y = contract(planned, ops.reshape(x, (x.shape[0], *shape)), [tf.convert_to_tensor(c) for c in cores], ops)
        return ops.reshape(y, (x.shape[0], OUT_DIM))

    return layer


def dense_layer() -> Callable[[Any], Any]:
    """The kernel multiplied out beforehand."""
    return layer_of(plan(dense_spec(IN_DIM, OUT_DIM)))


def t3f_layer(spec: Spec) -> Callable[[Any], Any]:
    """`t3f.matmul` of the same tensor-train matrix."""
    import t3f
    import tensorflow as tf

    draw, count = np.random.default_rng(1), len(spec.cores)
    cores = []
    for k, shape in enumerate(spec.core_shapes):
        shape = (*([1] if k == 0 else []), *shape, *([1] if k == count - 1 else []))
        cores.append(tf.Variable(draw.normal(0, 0.1, shape).astype("float32")))
    return lambda x: t3f.matmul(x, t3f.TensorTrain([tf.convert_to_tensor(core) for core in cores]))


def timed(case: Case, rounds: int, peers: bool) -> dict[str, float]:
    """Seconds of one layer, by way of computing it."""
    plans = candidates(case.spec, case.tokens)
    most = MOST_FLOPS * max(min(p.flops for p in plans.values()), 2 * case.tokens * IN_DIM * OUT_DIM)
    makers: dict[str, Callable[[], Callable[[Any], Any]]] = {
        name: lambda found=found: layer_of(found)
        for name, found in plans.items()
        if found.flops <= most and 4 * found.peak_elements <= MOST_BYTES
    }
    makers[FOLDED] = dense_layer
    if peers and case.name.startswith("MPO"):
        makers[T3F] = lambda: t3f_layer(case.spec)
    calls = {name: graph(make, case) for name, make in makers.items()}
    tasks = {name: lambda call=call: cpu_seconds(call) / case.layers for name, call in calls.items()}
    return interleaved_medians(tasks, rounds)


def judged(case: Case, seconds: dict[str, float], device: str) -> dict[str, Any]:
    """What the planner chooses and what that costs, as JSON can hold it."""
    row = {"case": case.name, "tokens": case.tokens, "seconds": seconds}
    for fold in (False, True):
        own = {name: found for name, found in seconds.items() if name != T3F and (fold or name != FOLDED)}
        ranked = fastest(case.spec, case.tokens, device, fold=fold).estimates
        chosen = next(found.name for found in ranked if found.name in own)
        best = min(own, key=own.__getitem__)
        key = "with fold" if fold else "without fold"
        row[key] = {"chosen": chosen, "best": best, "regret": own[chosen] / own[best]}
        row[key]["over dense"] = seconds[FOLDED] / own[chosen]
        if T3F in seconds:
            row[key]["over t3f"] = seconds[T3F] / own[chosen]
    return row


def summary(rows: list[dict[str, Any]], key: str) -> str:
    """One line over all cases."""
    regrets = [row[key]["regret"] for row in rows]
    worst = max(rows, key=lambda row: row[key]["regret"])
    text = f"{key}: {len(rows)} cases, regret median {statistics.median(regrets):.2f}, at most {max(regrets):.2f}"
    text += (
        f" ({worst['case']}, {worst['tokens']} tokens); over dense at least {min(_all(rows, key, 'over dense')):.2f}"
    )
    peers = _all(rows, key, "over t3f")
    return text + (f"; over t3f median {statistics.median(peers):.2f}, at least {min(peers):.2f}" if peers else "")


def _all(rows: list[dict[str, Any]], key: str, what: str) -> list[float]:
    return [row[key][what] for row in rows if what in row[key]]


def show(rows: list[dict[str, Any]]) -> None:
    """A table, and the lines over all cases."""
    from rich.console import Console
    from rich.table import Table

    table = Table("case", "tokens", "chosen, with fold", "regret", "without fold", "regret", "over dense", "over t3f")
    for row in rows:
        fold, plain = row["with fold"], row["without fold"]
        peer = f"{fold['over t3f']:.2f}" if "over t3f" in fold else ""
        figures = (fold["chosen"], f"{fold['regret']:.2f}", plain["chosen"], f"{plain['regret']:.2f}")
        table.add_row(row["case"], str(row["tokens"]), *figures, f"{fold['over dense']:.2f}", peer)
    console = Console(width=150)
    console.print(table)
    for key in ("with fold", "without fold"):
        console.print(summary(rows, key))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS)
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help='what the planner thinks it plans for; "this": measured')
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    grid = list(cases(tuple(options.tokens), options.only))
    if not grid:
        sys.exit(f"planner_regret.py: no case is named like {options.only!r}.")

    from tncompress.progress import progress_bar

    peers = find_spec("t3f") is not None
    if not peers:
        print("t3f is not installed (pip install --no-deps t3f): its column is left out.")
    rows = [judged(c, timed(c, options.rounds, peers), options.device) for c in progress_bar(grid, "timing")]
    show(rows)
    if options.json:
        write_json(options.json, "planner_regret", rows)


if __name__ == "__main__":
    main()
