"""What `tncompress plan` of a large encoder takes: processor time and memory, of a process of its own.

python benchmarks/plan_large.py
python benchmarks/plan_large.py --model tn_bert --json found.json
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import write_json

CALL = [sys.executable, "-m", "tncompress", "plan"]


def measured(model: str, options: list[str]) -> dict[str, float | str]:
    """Processor seconds and the largest memory in bytes of one call."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*CALL, model, *options, "--quiet", "--out", str(Path(folder, "recipe.json"))], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"options": " ".join(options), "cpu_seconds": seconds, "peak_bytes": 1024 * after.ru_maxrss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="bert_en_uncased_L-24_H-1024_A-16")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    args = parser.parse_args()
    calls = (["--keep", "0.5"], ["--keep", "0.5", "--device", "tpu-v5e"])
    found = [measured(args.model, options) for options in calls]
    print(f"{args.model}: plan, one after the other; memory is the largest so far")
    for row in found:
        print(f"{row['options']:32} {row['cpu_seconds']:5.1f} CPU-seconds {row['peak_bytes'] / 1e9:5.2f} GB")
    if args.json:
        write_json(args.json, "plan_large", {"model": args.model, "rows": found})


if __name__ == "__main__":
    main()
