"""What XLA's own TPU compiler expects a computation to take, on any CPU: an estimate, not a measurement.

libtpu carries the compiler and needs no TPU to compile for one. Every fusion of the program that it makes is annotated
with `estimated_cycles`; their sum is the estimate. The compiler runs in a process of its own
(`tncompress.hardware.tpu_compiler`), one at a time on a machine, and what it said is kept in the user's cache folder.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tncompress.beside import beside
from tncompress.hardware.tpu_programs import Encoder, Maps

# A topology of each, and the type of machine that has it; one device of it is compiled for.
CHIPS = {
    "tpu-v2": ("v2:2x2", "v2-8"),
    "tpu-v3": ("v3:2x2", "v3-8"),
    "tpu-v4": ("v4:2x2x1", "v4-8"),
    "tpu-v5e": ("v5e:2x2", "v5litepod-4"),
    "tpu-v5p": ("v5p:2x2x1", "v5p-8"),
    "tpu-v6e": ("v6e:2x2", "v6e-4"),
}
DTYPE = "bfloat16"  # of all programs
PACKAGES = ("jax", "jaxlib", "libtpu")
SECONDS = 600.0  # a 12-layer encoder takes some 5 to 25
PROGRAMS = 2  # to be raised when `tpu_compiler` compiles something else for the same description
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class TPUCompilerError(RuntimeError):
    """The TPU compiler is not installed, failed, or took too long."""


def missing() -> str | None:
    """Why there is no compiler here, as a sentence; None if there is one.

    Loads neither package.
    """
    absent = [name for name in ("jax", "libtpu") if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    wanted = "the extra 'tpu': pip install 'tncompress[tpu]'"
    return f"The TPU compiler needs {' and '.join(absent)}; install {wanted}, or use judge='roofline'."


def check(device: str) -> None:
    """That there is a compiler for this device here.

    Raises:
        ValueError: if it is no TPU that the compiler knows.
        TPUCompilerError: if it is not installed.
    """
    if device not in CHIPS:
        raise ValueError(f"The TPU compiler knows {', '.join(CHIPS)}, not {device!r}; or use judge='roofline'.")
    if reason := missing():
        raise TPUCompilerError(reason)


def estimated_cycles(
    programs: Sequence[Maps | Encoder], device: str = "tpu-v5e", *, seconds: float = SECONDS
) -> list[int]:
    """The compiler's estimate for each program on one chip, in cycles of the chip.

    Args:
        programs: what is to be compiled.
        device: one of `CHIPS`.
        seconds: that the compiler may take for one program.

    Raises:
        ValueError: if there is no such TPU.
        TPUCompilerError: if the compiler is not installed, fails, or takes too long.

    Example:
        dense, low_rank = Spec.parse(...), Spec.parse(...)
        estimated_cycles([Maps((dense,), 8, 128), Maps((low_rank,), 8, 128)], "tpu-v5e")   # [..., ...]
    """
    check(device)
    asked = {_key(program, device): program for program in programs}
    known = _read_cache()
    if asked.keys() - known.keys():
        with _one_at_a_time():
            known = _read_cache()  # another process may have compiled the same meanwhile
            known = _compile({key: asked[key] for key in asked if key not in known}, device, seconds)
    return [known[_key(program, device)] for program in programs]


def cycles_in(text: str) -> int:
    """The sum of all `estimated_cycles` in the text of a compiled program.

    Raises:
        TPUCompilerError: if there are none.

    >>> cycles_in('a = fusion(), backend_config={"estimated_cycles":"40"}; b = copy(), {"estimated_cycles":"2"}')
    42
    """
    found = [int(number) for number in _CYCLES.findall(text)]
    if not found:
        raise TPUCompilerError("The compiled program says no estimated_cycles; another release of libtpu may.")
    return sum(found)


def _compile(wanted: Mapping[str, Maps | Encoder], device: str, seconds: float) -> dict[str, int]:
    """The cache with what was wanted added. What was compiled before a failure is kept."""
    if not wanted:
        return _read_cache()
    topology, accelerator = CHIPS[device]
    order = {"topology": topology, "programs": [program.to_config() for program in wanted.values()]}
    command = [sys.executable, "-m", "tncompress.hardware.tpu_compiler"]
    reason = None
    try:
        done = subprocess.run(
            command,
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=seconds * len(wanted),
            env=_environment(accelerator),
        )
        output, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        output, errors = late.stdout or b"", b""
        reason = f"it took more than {seconds:,g} seconds a program; allow more with seconds="
    answers = _answers(output.decode(errors="replace"))
    cycles = [answer["cycles"] for answer in answers if "cycles" in answer]
    known = {**_read_cache(), **dict(zip(wanted, cycles, strict=False))}
    _write_cache(known)
    if len(cycles) < len(wanted):
        reason = reason or next((a["error"] for a in answers if "error" in a), None) or _last_line(errors)
        raise TPUCompilerError(f"The TPU compiler failed after {len(cycles)} of {len(wanted)} programs: {reason}.")
    return known


def _environment(accelerator: str) -> dict[str, str]:
    """Of the compiler's process: no TPU is looked for, and flags meant for another device are left out."""
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")}
    return {
        **kept,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": accelerator,
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_LOG_DIR": "disabled",
        "TPU_MIN_LOG_LEVEL": "3",
    }


def _answers(output: str) -> list[dict]:
    """The compiler's lines of JSON; it is cut off in the middle of one if it was stopped."""
    answers = []
    for line in output.splitlines():
        with contextlib.suppress(ValueError):
            answers.append(json.loads(line))
    return [answer for answer in answers if isinstance(answer, dict)]


def _last_line(errors: bytes) -> str:
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "it ended without a word"


# -- one process at a time, and the cache ------------------------------------------------------------


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Only one process of a machine may hold libtpu."""
    import fcntl  # there is no libtpu where there is no fcntl

    with (_folder() / "libtpu.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process that uses the TPU compiler ({lock.name}).", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folder() -> Path:
    """The user's cache folder, or a temporary one where that cannot be written."""
    wanted = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache")) / "tncompress"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if os.access(wanted, os.W_OK):
            return wanted
    except OSError:
        pass
    return _temporary_folder()


@cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tncompress-"))


def _key(program: Maps | Encoder, device: str) -> str:
    versions = {name: version(name) for name in PACKAGES}
    text = json.dumps([PROGRAMS, versions, device, program.to_config()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read_cache() -> dict[str, int]:
    """What is known; a file that cannot be read is as good as none."""
    try:
        found = json.loads((_folder() / "tpu_cycles.json").read_text())
        return {key: cycles for key, cycles in found.items() if isinstance(cycles, int) and cycles > 0}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _write_cache(known: Mapping[str, int]) -> None:
    with beside(_folder() / "tpu_cycles.json") as place:
        place.write_text(json.dumps(known, indent=0))
