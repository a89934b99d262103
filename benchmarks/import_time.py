"""What does `import tncompress` cost, compared with `import numpy`?

Processor time in fresh interpreters, interleaved; the interpreter's own start is measured and taken off.

    python benchmarks/import_time.py [--rounds 15] [--json FILE]
"""

import argparse

from measure import cpu_seconds_of_process, interleaved_medians, write_json

TASKS = {
    "python alone": "pass",
    "import numpy": "import numpy",
    "import tncompress": "import tncompress",
    "... and Spec": "from tncompress import Spec",
    "... and plan": "from tncompress import Spec, plan",
    "... and fit": "from tncompress import Spec, plan, fit",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    tasks = {name: lambda code=code: cpu_seconds_of_process(code) for name, code in TASKS.items()}
    seconds = interleaved_medians(tasks, options.rounds)
    alone = seconds.pop("python alone")
    numpy = seconds["import numpy"] - alone
    results = {name: {"cpu_ms": 1000 * (s - alone), "times_numpy": (s - alone) / numpy} for name, s in seconds.items()}
    print(f"{'':20}{'CPU ms':>10}{'x numpy':>10}   (python's own start, {1000 * alone:.0f} ms, is taken off)")
    for name, row in results.items():
        print(f"{name:20}{row['cpu_ms']:10.1f}{row['times_numpy']:10.2f}")
    if options.json:
        write_json(options.json, "import_time", {"rounds": options.rounds, "rows": results})


if __name__ == "__main__":
    main()
