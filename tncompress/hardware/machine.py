"""This machine as a `Device`: measured in half a second when somebody asks, and remembered in a file."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tncompress.beside import beside
from tncompress.hardware.device import DEVICES, Device, device

VARIABLE = "TNCOMPRESS_DEVICE"  # environment variable: the device that layers are planned for
ROUNDS = 7
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def known_machine() -> Device:
    """The device that layers are planned for when a model runs: nothing is measured unless the user asked for it.

    It is the one that the environment variable TNCOMPRESS_DEVICE names ("this": this machine, measured), else a
    processor in general: the same plans, and so the same roundings, in every process.
    """
    return _of_variable(os.environ.get(VARIABLE) or "cpu")


@lru_cache(maxsize=8)
def _of_variable(name: str) -> Device:
    try:
        return this_machine() if name == "this" else device(name)
    except ValueError as error:
        raise ValueError(f'{error} The name is in the environment variable {VARIABLE}; "this" measures.') from None


@lru_cache(maxsize=2)
def this_machine(remeasure: bool = False) -> Device:
    """Rates of this processor: matmuls of numpy, a copy in memory, the start of an operation in a graph.

    Measured in about half a second and kept in `cache_file()`, by processor, cores, threads and versions. A file that
    cannot be read or written is as good as none.

    Args:
        remeasure: measure, whatever the file says.
    """
    path, key = cache_file(), _key()
    kept = _read(path)
    figures = None if remeasure else _figures(kept.get(key))
    if figures is None:
        figures = _measured()
        _write(path, {**_read(path), key: figures})  # read again: another process may have added its own
    rate, moved, overhead = figures
    rates = (("float32", rate), ("bfloat16", rate))  # what bfloat16 gains differs from operation to operation
    return Device("this", "cpu", rates, moved, overhead, DEVICES["cpu"].tiles, f"measured: {key}")


def cache_file() -> Path:
    """Where measurements are kept: in XDG_CACHE_HOME, or the user's folder for caches."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache")
    return Path(folder) / "tncompress" / "machine.json"


def _key() -> str:
    threads = ",".join(os.environ.get(name, "") for name in _THREADS)
    packages = ["numpy", *(["tensorflow"] if "tensorflow" in sys.modules else [])]
    versions = " ".join(f"{name} {version(name)}" for name in packages)
    return f"{_processor()}, {_cores()} cores, threads {threads}, {versions}"


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _measured() -> list[float]:
    """Operations per second, bytes per second, seconds of a start."""
    draw = np.random.default_rng(0)
    large = draw.normal(size=(1024, 1024)).astype("float32")
    long = np.ones(1 << 24, np.float32)
    target = np.empty_like(long)
    matmul = _seconds(lambda: large @ large)
    copy = _seconds(lambda: np.copyto(target, long))
    return [2 * 1024**3 / matmul, 2 * long.nbytes / copy, _overhead()]


def _overhead() -> float:
    """Of one operation in a graph of TensorFlow if that is loaded; a library's own start tells nothing about it."""
    if "tensorflow" not in sys.modules:
        return DEVICES["cpu"].overhead
    import tensorflow as tf

    def chain(x: Any, count: int) -> Any:
        for _ in range(count):
            x = tf.matmul(x, x)
        return x

    with tf.init_scope():  # not in a graph that is being traced
        x = tf.zeros((8, 8))
        calls = {n: tf.function(lambda x, n=n: chain(x, n)).get_concrete_function(x) for n in (1, 101)}
        return max(1e-7, (_seconds(lambda: calls[101](x)) - _seconds(lambda: calls[1](x))) / 100)


def _seconds(work: Callable[[], object]) -> float:
    work()
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)  # other processes only ever add


def _figures(found: Any) -> list[float] | None:
    """Three positive numbers, or None for anything else that a file may hold."""
    is_list = isinstance(found, list) and len(found) == 3
    return found if is_list and all(isinstance(x, float) and 0 < x < float("inf") for x in found) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write(path: Path, kept: dict[str, Any]) -> None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as place:
            place.write_text(json.dumps(kept, indent=1))
