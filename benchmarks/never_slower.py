"""Does `replace_dense(device="this")` keep its word: is a layer that it replaced slower than dense afterwards?

A model of layers from 64 to 4096 features is compressed for several numbers of tokens and saved; a fresh process loads
both models and times every replaced layer against its original. Processor time of one thread, side by side, medians.

    python benchmarks/never_slower.py [--keep 0.5] [--tokens 8 128 1024] [--json FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

measure.use_one_thread()

WIDTHS = (64, 256, 1024, 4096, 1024, 128, 512, 2048, 64)
FORMS = ("low_rank",)


def main() -> None:
    """Compress, measure in another process, print a line for every replaced layer."""
    args = _arguments()
    if args.measure:
        print(json.dumps(measured(Path(args.measure), args.tokens)))
        return
    import keras

    import tncompress

    keras.utils.set_random_seed(0)
    entry, *widths = WIDTHS
    layers = [keras.layers.Dense(width, "gelu", name=f"layer_{k}") for k, width in enumerate(widths)]
    dense = keras.Sequential([keras.Input((entry,)), *layers], name="mixed")
    small = tncompress.replace_dense(dense, args.keep, form=FORMS, device="this", tokens=args.tokens)
    report = tncompress.report(small)
    print(report)
    with tempfile.TemporaryDirectory() as folder:
        dense.save(f"{folder}/dense.keras")
        small.save(f"{folder}/small.keras")
        command = [sys.executable, __file__, "--measure", folder, "--tokens", *map(str, args.tokens)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    for name, ratio in results.items():
        print(f"{name}: {ratio:.3f} of the time of dense, measured in a fresh process")
    if args.json:
        measure.write_json(args.json, "never_slower", results)


def measured(folder: Path, tokens: list[int]) -> dict[str, float]:
    """Time over dense of every layer that is a network, summed over the numbers of tokens."""
    import tncompress
    from tncompress.conversion.timing import time_layers
    from tncompress.conversion.walking import locate

    dense, small = (tncompress.load(folder / f"{name}.keras") for name in ("dense", "small"))
    paths = list(tncompress.report(small).recipe)
    before, after = locate(dense, paths), locate(small, paths)
    ratios = {}
    for path in paths:
        times = [time_layers({"dense": before[path], "network": after[path]}, count) for count in tokens]
        ratios[path] = sum(t["network"] for t in times) / sum(t["dense"] for t in times)
    return ratios


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=float, default=0.5, help="0.5")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 128, 1024])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
