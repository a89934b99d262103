"""How fast are the encoders on a GPU, and how much energy does a sequence take?

Whole 12-layer encoders in bfloat16, random weights, inference: dense BERT-base, TN-BERT, and low rank 128 in
feed-forward and attention. JAX (`jit`) or PyTorch (as it is, and with `--compile` through torch.compile). Encoders take
turns; a turn is as many calls as take about `--seconds`, timed to the end of the last one; medians. Energy is what NVML
counted for the whole board during a turn (nvidia-ml-py; left out where it is absent). TN-BERT's card says 22 % faster
and 15 % less energy, on hardware of its own.

    KERAS_BACKEND=jax python benchmarks/gpu_latency.py [--inputs 8x128 32x128 8x512] [--json FILE]
    KERAS_BACKEND=torch python benchmarks/gpu_latency.py --compile

Without a GPU it stops, unless `--anywhere` is given, to try the script; its figures then say nothing about GPUs.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import measure

if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from encoder_latency import size_of, token_ids
from encoder_models import KINDS, encoder

NO_GPU = 1  # exit code


def main() -> int:
    """Measure, print a table, and write JSON if asked."""
    args = _arguments()
    backend = Backend(args.compile)
    if args.compile and backend.name == "jax":
        sys.exit("--compile is for PyTorch; JAX always compiles.")
    gpu = backend.gpu()
    if gpu is None and not args.anywhere:
        print(f"{backend.name} sees no GPU; --anywhere runs the script without one.", file=sys.stderr)
        return NO_GPU
    is_compiled = args.compile or backend.name == "jax"
    results: dict[str, Any] = {"backend": backend.name, "gpu": gpu, "compiled": is_compiled, "rows": []}
    joules = energy_meter() if gpu else None
    models = {kind: _in_half_precision(kind, args) for kind in KINDS}
    for size in args.inputs:
        calls = {kind: backend.call(model, token_ids(size)) for kind, model in models.items()}
        results["rows"] += timed(calls, size, args, joules)
    show(results)
    if args.json:
        measure.write_json(args.json, "gpu_latency", results)
    return 0


def _in_half_precision(kind: str, args: argparse.Namespace):
    import keras

    keras.config.set_dtype_policy("bfloat16")
    return encoder(kind, args.layers, args.hidden)


class Backend:
    """What JAX and PyTorch do each in their own way."""

    def __init__(self, is_compiled: bool):
        import keras

        self.name = keras.backend.backend()
        self.is_compiled = is_compiled
        if self.name not in ("jax", "torch"):
            sys.exit(f"KERAS_BACKEND is {self.name}; this benchmark is for jax and torch.")

    def gpu(self) -> str | None:
        """Its name; None if there is none."""
        if self.name == "jax":
            import jax

            return jax.devices()[0].device_kind if jax.default_backend() == "gpu" else None
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None

    def call(self, model: Any, ids: dict[str, np.ndarray]) -> Callable[[int], None]:
        """A function that runs the model so many times and waits for the last result."""
        return self._jitted(model, ids) if self.name == "jax" else self._eager(model, ids)

    def _jitted(self, model: Any, ids: dict[str, np.ndarray]) -> Callable[[int], None]:
        import jax

        inputs = jax.device_put(ids)
        weights = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        function = jax.jit(lambda weights, x: model.stateless_call(*weights, x, training=False)[0]["sequence_output"])

        def run(times: int) -> None:
            for _ in range(times):
                y = function(weights, inputs)
            y.block_until_ready()

        return run

    def _eager(self, model: Any, ids: dict[str, np.ndarray]) -> Callable[[int], None]:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        inputs = {name: torch.from_numpy(array).to(device) for name, array in ids.items()}
        function = torch.compile(model) if self.is_compiled else model

        def run(times: int) -> None:
            with torch.inference_mode():
                for _ in range(times):
                    y = function(inputs, training=False)["sequence_output"]
            float(y[0, 0, 0])

        return run


def timed(
    calls: dict[str, Callable[[int], None]],
    size: tuple[int, int],
    args: argparse.Namespace,
    joules: Callable[[], float] | None,
) -> list[dict[str, Any]]:
    """Seconds, and joules if there is a meter, of one sequence, by encoder."""
    times = {kind: _times(call, args.seconds) for kind, call in calls.items()}
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in calls}
    for _ in range(args.rounds):
        for kind, call in calls.items():
            energy, start = joules() if joules else 0.0, time.perf_counter()
            call(times[kind])
            sequences = times[kind] * size[0]
            spent = (joules() if joules else 0.0) - energy
            found[kind].append(((time.perf_counter() - start) / sequences, spent / sequences))
    return [
        {
            "encoder": kind,
            "texts": size[0],
            "tokens": size[1],
            "seconds": statistics.median(seconds for seconds, _ in turns),
            "joules": statistics.median(spent for _, spent in turns) if joules else None,
        }
        for kind, turns in found.items()
    ]


def _times(call: Callable[[int], None], seconds: float) -> int:
    """How many calls take so long; the first ones compile."""
    call(2)
    start = time.perf_counter()
    call(3)
    return max(1, round(3 * seconds / (time.perf_counter() - start)))


def energy_meter() -> Callable[[], float] | None:
    """A function that reads the joules the first GPU has taken so far, if NVML can be asked."""
    try:
        import pynvml

        pynvml.nvmlInit()
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]  # a number or an identifier
        board = (
            pynvml.nvmlDeviceGetHandleByIndex(int(chosen))
            if chosen.isdecimal()
            else pynvml.nvmlDeviceGetHandleByUUID(chosen)
        )
        pynvml.nvmlDeviceGetTotalEnergyConsumption(board)
    except Exception as error:  # no package, no driver, or a board that does not count
        print(f"Energy is left out: {error}. It needs nvidia-ml-py and a board that counts.", file=sys.stderr)
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(board) / 1000


def show(results: dict[str, Any]) -> None:
    """Speed and energy over dense, a line for every encoder and input."""
    from rich.console import Console
    from rich.table import Table

    titles = ("inputs", "encoder", "ms a sequence", "speed", "mJ a sequence", "energy")
    table = Table(*titles, title=results["gpu"] or "no GPU")
    rows = results["rows"]
    dense = {(row["texts"], row["tokens"]): row for row in rows if row["encoder"] == KINDS[0]}
    for row in rows:
        base = dense[row["texts"], row["tokens"]]
        spent = [f"{1e3 * row['joules']:.3g}", f"{row['joules'] / base['joules'] - 1:+.0%}"] if row["joules"] else "--"
        inputs, speed = f"{row['texts']} x {row['tokens']}", base["seconds"] / row["seconds"]
        table.add_row(inputs, row["encoder"], f"{1e3 * row['seconds']:.3g}", f"{speed:.2f}x", *spent)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs = [(1, 128), (8, 128), (32, 128), (8, 512)]
    parser.add_argument("--inputs", nargs="+", type=size_of, default=inputs, metavar="BxT")
    parser.add_argument("--layers", type=int, default=12, help="12")
    parser.add_argument("--hidden", type=int, default=768, help="768; a multiple of 128")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn; 1")
    parser.add_argument("--rounds", type=int, default=7, help="7")
    parser.add_argument("--compile", action="store_true", help="PyTorch: through torch.compile")
    parser.add_argument("--anywhere", action="store_true", help="also without a GPU")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
