"""How fast is the default decomposition, and how far from the optimum?

A kernel of 1024 x 4096 at rank 128 in float32 against `np.linalg.svd` in the same run, and 24 kernels of 768 x 3072 (as
many as BERT-base has in its feed-forward parts) through `fit`. Processor time, one thread.

    python benchmarks/decomposition.py [--rounds 3] [--json FILE]
"""

import argparse

from measure import cpu_seconds, interleaved_medians, use_one_thread, write_json

use_one_thread()

import numpy as np  # noqa: E402 - after the number of threads is set

from tncompress import fit, to_dense  # noqa: E402
from tncompress.forms import low_rank  # noqa: E402


def weights(rows: int, columns: int, seed: int) -> np.ndarray:
    """A kernel like a trained one: noise, and singular values that fall off as 1 / sqrt(k)."""
    generator = np.random.default_rng(seed)
    scale = 1 / np.sqrt(np.arange(1, rows + 1))
    mixing = generator.normal(size=(rows, rows)) * scale
    kernel = mixing @ generator.normal(size=(rows, columns)) + generator.normal(size=(rows, columns))
    return (kernel / np.linalg.norm(kernel) * np.sqrt(rows)).astype(np.float32)


def svd_cores(kernel: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The same two factors from LAPACK."""
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    return left[:, :rank] * values[:rank], right[:rank]


def against_svd(rounds: int) -> dict[str, float]:
    """Time and error of both ways to rank 128."""
    kernel, spec = weights(1024, 4096, seed=0), low_rank.spec(1024, 4096, rank=128)
    seconds = interleaved_medians(
        {
            "fit": lambda: cpu_seconds(lambda: fit(kernel, spec, form="low_rank")),
            "svd": lambda: cpu_seconds(lambda: svd_cores(kernel, 128)),
        },
        rounds,
    )
    exact = kernel.astype(np.float64)
    tail = np.linalg.svd(exact, compute_uv=False)[128:]
    optimum = float(np.sqrt((tail**2).sum()))
    found = fit(kernel, spec, form="low_rank")
    error = float(np.linalg.norm(exact - to_dense(spec, [core.astype(np.float64) for core in found.cores])))
    return {
        "fit_cpu_s": seconds["fit"],
        "svd_cpu_s": seconds["svd"],
        "speed_ratio": seconds["svd"] / seconds["fit"],
        "relative_error": error / float(np.linalg.norm(exact)),
        "error_over_optimum": error / optimum,
    }


def many_kernels(count: int = 24) -> dict[str, float]:
    """Total time of `fit` over the kernels of one encoder."""
    kernels = [weights(768, 3072, seed=k) for k in range(4)]
    spec = low_rank.spec(768, 3072, rank=176)
    total = cpu_seconds(lambda: [fit(kernels[k % 4], spec, form="low_rank") for k in range(count)])
    return {"kernels": count, "total_cpu_s": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    one, many = against_svd(options.rounds), many_kernels()
    print("1024 x 4096 at rank 128, float32, CPU seconds of one thread")
    times = f"fit {one['fit_cpu_s']:.3f} s, np.linalg.svd {one['svd_cpu_s']:.3f} s"
    print(f"  {times}: {one['speed_ratio']:.1f} times as fast")
    print(f"  relative error {one['relative_error']:.5f}, {one['error_over_optimum']:.7f} of the optimum")
    print(f"{many['kernels']} kernels of 768 x 3072 at rank 176: {many['total_cpu_s']:.2f} s")
    if options.json:
        write_json(options.json, "decomposition", {"against_svd": one, "many_kernels": many})


if __name__ == "__main__":
    main()
