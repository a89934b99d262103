"""What the benchmarks share: processor time, interleaved medians, and the heading of their JSON files."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_THREADS = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
ONE_THREAD = {f"{name}_THREADS": "1" for name in _THREADS}
PACKAGES = ("tncompress", "numpy", "scipy", "opt-einsum", "keras", "tensorflow")


def use_one_thread() -> None:
    """Limit BLAS and TensorFlow to one thread; call it before numpy is imported."""
    os.environ.update(ONE_THREAD)


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Processor time of one call, which other processes disturb less than wall-clock time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def cpu_seconds_of_process(code: str) -> float:
    """Processor time, user and system, of a fresh interpreter that runs `code`, its start included."""
    import resource  # not on Windows

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **ONE_THREAD})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def interleaved_medians(tasks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of what every task returns, each called once a round: a noisy moment then hits all of them."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()  # files into the cache, code compiled
    for _ in range(rounds):
        for name, task in tasks.items():
            found[name].append(task())
    return {name: statistics.median(values) for name, values in found.items()}


def environment() -> dict[str, Any]:
    """Machine and versions, for the heading of a JSON file."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def write_json(path: str, name: str, results: Any) -> None:
    """Write the results of a benchmark with machine and versions; a file that is there stays until all is written."""
    text = json.dumps({"benchmark": name, "environment": environment(), "results": results}, indent=2)
    part = Path(f"{path}.part")
    part.write_text(text + "\n")
    part.replace(path)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
