"""What a training step of TN-BERT takes against dense BERT-base: processor time and the most memory.

A step is forward, backward and Adam on 8 texts of 128 random tokens, compiled as `fit` compiles it; the loss is the
mean square of the last hidden states. Times are of one thread, the encoders interleaved in one process, medians.
Memory (on Linux) is the most that a process of its own held during three steps, above what it held before.

    python benchmarks/training_step.py [--texts 8] [--tokens 128] [--rounds 5] [--json FILE]
    python benchmarks/training_step.py --layers 2 --hidden 128 --texts 2 --tokens 16
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import measure

measure.use_one_thread()

import numpy as np  # noqa: E402
from encoder_latency import interleaved, token_ids  # noqa: E402
from encoder_models import encoder  # noqa: E402

KINDS = ("dense", "TN-BERT")


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    args = _arguments()
    if args.memory_of:
        print(json.dumps(most_memory(args.memory_of, args)))
        return
    trained = {kind: compiled(kind, args) for kind in KINDS}
    batch = examples(args)
    seconds = interleaved(
        {kind: lambda model=model: step(model, batch) for kind, model in trained.items()}, args.rounds
    )
    results = {
        kind: {
            "parameters": model.count_params(),
            "cpu_seconds": seconds[kind],
            "megabytes": _in_process_of_its_own(kind, sys.argv[1:]),
        }
        for kind, model in trained.items()
    }
    show(results)
    if args.json:
        measure.write_json(args.json, "training_step", results)


def compiled(kind: str, args: argparse.Namespace):
    """An encoder that can be trained."""
    import keras

    model = encoder(kind, args.layers, args.hidden)
    lean = keras.Model(model.input, model.output["sequence_output"])
    lean.compile(keras.optimizers.Adam(1e-4), "mse", jit_compile=False)
    return lean


def step(model, batch) -> None:
    """One step of training."""
    model.train_on_batch(*batch)


def examples(args: argparse.Namespace) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs and what is wanted of the last hidden states."""
    size = (args.texts, args.tokens)
    return token_ids(size), np.zeros((*size, args.hidden), "float32")


def most_memory(kind: str, args: argparse.Namespace) -> float:
    """Megabytes that this process needs for three steps, above what TensorFlow takes."""
    import tensorflow as tf

    import bert_models  # noqa: F401

    tf.constant(0.0)
    before = held_megabytes()
    model, batch = compiled(kind, args), examples(args)
    for _ in range(3):
        step(model, batch)
    return peak_megabytes() - before


def peak_megabytes() -> float:
    """The most that this process held so far; its parent's peak, which getrusage passes on, is not in it."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def held_megabytes() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _in_process_of_its_own(kind: str, arguments: list[str]) -> float:
    command = [sys.executable, __file__, *arguments, "--memory-of", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The process that measured memory failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(results: dict[str, dict[str, Any]]) -> None:
    """Parameters, time and memory by encoder."""
    from rich.console import Console
    from rich.table import Table

    table = Table("encoder", "parameters", "CPU s a step", "speed", "MB", "memory", title="Training step")
    dense = results[KINDS[0]]
    for kind, row in results.items():
        speed, memory = dense["cpu_seconds"] / row["cpu_seconds"], row["megabytes"] / dense["megabytes"] - 1
        table.add_row(
            kind,
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['cpu_seconds']:.2f}",
            f"{speed:.2f}x",
            f"{row['megabytes']:,.0f}",
            f"{memory:+.0%}",
        )
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=8, help="8")
    parser.add_argument("--tokens", type=int, default=128, help="128")
    parser.add_argument("--layers", type=int, default=12, help="12")
    parser.add_argument("--hidden", type=int, default=768, help="768; a multiple of 128")
    parser.add_argument("--rounds", type=int, default=5, help="5")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--memory-of", choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
