"""How fast are the layers of other packages beside `TNDense` with the same network, and beside dense?

tensornetwork's own Keras layers (`tn_keras`; in TensorFlow's graph mode) and tensorly-torch's `FactorizedLinear` (in
PyTorch as it is, without gradients): each against a `TNDense` of the same equation and the same weights, whose outputs
are compared first, and against a dense layer, on the same backend. One CPU thread, processor time, interleaved in one
process, medians. t3f stands in planner_regret.py, Model Garden's layer in layer_latency.py.

    python benchmarks/peer_latency.py [--tokens 8 128 1024] [--json FILE]
    KERAS_BACKEND=torch python benchmarks/peer_latency.py       needs: pip install --no-deps tensorly tensorly-torch
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from measure import cpu_seconds, interleaved_medians, use_one_thread, write_json

use_one_thread()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402 - after the number of threads is set

TOLERANCE = 1e-5  # of the largest output, float32


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    args = _arguments()
    rows = [row for peer in peers() if args.only in peer.name for row in timed(peer, args.tokens, args.rounds)]
    show(rows)
    if args.json:
        write_json(args.json, "peer_latency", rows)


def peers() -> Iterator[Any]:
    """The peers of this backend; none, with a message, where the package is absent."""
    import keras
    from peers import networks

    backend = keras.backend.backend()
    if backend not in ("tensorflow", "torch"):
        sys.exit(f"There are peers for TensorFlow and PyTorch; KERAS_BACKEND is {backend}.")
    try:
        yield from networks.tn_keras() if backend == "tensorflow" else networks.tensorly_torch()
    except ImportError as error:
        needed = "tensornetwork" if backend == "tensorflow" else "--no-deps tensorly tensorly-torch"
        print(f"Skipped, {error}: pip install {needed}.", file=sys.stderr)


def timed(peer: Any, tokens: list[int], rounds: int) -> Iterator[dict[str, Any]]:
    """A peer, `TNDense` and dense at every number of tokens, as JSON can hold it."""
    import keras

    from tncompress.layers.dense import TNDense

    layer, cores = peer.make()
    ours = TNDense(peer.spec, use_bias=False)
    dense = keras.layers.Dense(peer.spec.out_dim, use_bias=False)
    for mine in (ours, dense):
        mine.build((None, peer.spec.in_dim))
    ours.set_weights(cores)
    for count in tokens:
        x = np.random.default_rng(0).normal(size=(count, peer.spec.in_dim)).astype("float32")
        calls = {name: compiled(made, x) for name, made in {"peer": layer, "ours": ours, "dense": dense}.items()}
        wanted, found = np.asarray(calls["peer"]()), np.asarray(calls["ours"]())
        if np.abs(wanted - found).max() > TOLERANCE * np.abs(wanted).max():
            sys.exit(f"{peer.name}: TNDense gives other outputs; its cores are not the peer's.")
        seconds = interleaved_medians({name: lambda c=call: cpu_seconds(c) for name, call in calls.items()}, rounds)
        yield {
            "peer": peer.name,
            "equation": str(peer.spec),
            "tokens": count,
            "seconds": seconds,
            "over peer": seconds["peer"] / seconds["ours"],
            "over dense": seconds["dense"] / seconds["ours"],
            "peer over dense": seconds["dense"] / seconds["peer"],
        }


def compiled(layer: Callable[[Any], Any], x: np.ndarray) -> Callable[[], Any]:
    """A call of the layer on x as the backend serves it."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)
        tensor = torch.from_numpy(x)

        def call() -> Any:
            with torch.inference_mode():
                return layer(tensor)

        return call
    import tensorflow as tf

    tensor = tf.constant(x)
    traced = tf.function(lambda x: layer(x)).get_concrete_function(tensor)
    return lambda: traced(tensor)


def show(rows: list[dict[str, Any]]) -> None:
    """A line for every peer and number of tokens."""
    from rich.console import Console
    from rich.table import Table

    table = Table("peer", "tokens", "peer, ms", "TNDense, ms", "dense, ms", "TNDense over peer", "over dense")
    for row in rows:
        times = (f"{1e3 * row['seconds'][name]:.3g}" for name in ("peer", "ours", "dense"))
        table.add_row(row["peer"], str(row["tokens"]), *times, f"{row['over peer']:.2f}x", f"{row['over dense']:.2f}x")
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 128, 1024], help="8 128 1024")
    parser.add_argument("--rounds", type=int, default=15, help="15")
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
