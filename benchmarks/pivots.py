"""What leaving an identity block out of low rank costs or saves in time: dense, low rank, and with pivots both ways.

Each layer as TensorFlow runs it on the CPU, in a graph with a known number of vectors, one thread. Printed are times as
fractions of dense: 2.0 is twice as fast. With pivots, the identity block is either multiplied by like the rest of the
core, or left out and the outputs put in order; `skips_identity` chooses, and is marked with a star.

    python benchmarks/pivots.py --json pivots.json
"""

import argparse
from typing import Any

import measure

SIZES = ((128, 128, 20), (128, 512, 81), (256, 256, 100), (384, 1536, 108), (1536, 384, 100), (1024, 1024, 600))
VECTORS = (1024, 128, 8)
WORK = 1e10  # operations of one sample, roughly
MOST_CALLS = 2000
ROUNDS = 7


def main() -> None:
    """A line for every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file to write results to")
    args = parser.parse_args()
    measure.use_one_thread()
    print("vectors    in   out  rank   low rank  multiplied  left out")
    rows = []
    for vectors in VECTORS:
        for in_dim, out_dim, rank in SIZES:
            rows.append(row := ratios(in_dim, out_dim, rank, vectors))
            star = ("", "*") if row["skips"] else ("*", "")
            print(
                f"{vectors:7} {in_dim:5} {out_dim:5} {rank:5} {row['low_rank']:10.2f} "
                f"{row['multiplied']:10.2f}{star[0]:1} {row['left_out']:8.2f}{star[1]:1}",
                flush=True,
            )
    if args.json:
        measure.write_json(args.json, "pivots", rows)


def ratios(in_dim: int, out_dim: int, rank: int, vectors: int) -> dict[str, Any]:
    """Dense's time over that of each other layer."""
    import keras
    import numpy as np

    from tncompress.forms import low_rank
    from tncompress.layers.dense import TNDense
    from tncompress.layers.pivoted import TNPivoted

    spec = low_rank.spec(in_dim, out_dim, rank)
    x = np.random.default_rng(0).normal(size=(vectors, in_dim)).astype("float32")
    calls = {
        "dense": compiled(keras.layers.Dense(out_dim), x),
        "low_rank": compiled(TNDense(spec), x),
        "multiplied": compiled(TNPivoted(spec), x, output_moved=1e9),
        "left_out": compiled(TNPivoted(spec), x, output_moved=0),
    }
    times = min(MOST_CALLS, max(1, round(WORK / (2 * vectors * in_dim * out_dim))))
    tasks = {
        name: lambda call=call: measure.cpu_seconds(lambda: [call() for _ in range(times)])
        for name, call in calls.items()
    }
    found = measure.interleaved_medians(tasks, ROUNDS)
    return {
        "in_dim": in_dim,
        "out_dim": out_dim,
        "rank": rank,
        "vectors": vectors,
        "skips": low_rank.skips_identity(spec, vectors),
        **{name: found["dense"] / seconds for name, seconds in found.items() if name != "dense"},
    }


def compiled(layer, x, output_moved: float | None = None):
    """The layer as a graph; with pivots as if to move an output took so long."""
    import tensorflow as tf

    from tncompress.forms import low_rank

    before = low_rank.OUTPUT_MOVED
    low_rank.OUTPUT_MOVED = before if output_moved is None else output_moved
    try:
        call = tf.function(layer).get_concrete_function(tf.TensorSpec(x.shape, tf.float32))
    finally:
        low_rank.OUTPUT_MOVED = before
    given = tf.constant(x)
    return lambda: call(given)


if __name__ == "__main__":
    main()
