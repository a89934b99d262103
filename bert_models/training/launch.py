"""Run a training script in several processes: `python -m bert_models.training.launch [options] script.py [...]`.

With `--processes 2` so many are started on this machine, to try on CPUs what is meant for a cluster. A cluster starts
one process on every machine itself, so leave it out there: each then joins the others by what the cluster tells it, or
by `--address`, `--count` and `--number`. In every process `distribute.start()` is called, and then the script is run.

If a process fails, the others are stopped, and a sentence says which one it was. The exit code is 0 if all ended well,
1 otherwise, and 2 where the command itself was wrong.
"""

import argparse
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Keras's own names.
ADDRESS, PROCESSES, PROCESS = (
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)


def main(arguments: Sequence[str]) -> int:
    """What the command does; returns the exit code.

    Args:
        arguments: without the name of the program.
    """
    given = _parser().parse_args(arguments)
    if wrong := _wrong(given):
        print(wrong, file=sys.stderr)
        return 2
    if given.inside:
        return _inside(given)
    command = [sys.executable, "-m", "bert_models.training.launch", "--inside", "--seed", str(given.seed)]
    if given.processes is None:
        places = [_place(given.address, given.count, given.number)]
        command += ["--cluster"] if given.address is None else []
    else:
        address = f"127.0.0.1:{free_port()}"
        places = [
            {"JAX_PLATFORMS": "cpu", **_place(address, given.processes, number)} for number in range(given.processes)
        ]
    return together([*command, given.script, *given.arguments], places)


def _wrong(given: argparse.Namespace) -> str | None:
    """What is wrong with the arguments."""
    if not Path(given.script).is_file():
        return f"there is no script {given.script}."
    if len({part is None for part in (given.address, given.count, given.number)}) > 1:
        return "--address, --count and --number go together."
    if given.processes is not None and (given.processes < 1 or given.address):
        return "--processes takes a number from 1, and no --address beside it."
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bert_models.training.launch",
        description="Run a training script in several processes that train one model together (JAX backend).",
        epilog="Example, two processes on this machine: "
        "python -m bert_models.training.launch --processes 2 train.py --steps 1000",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="start N processes on the CPUs of this machine")
    parser.add_argument("--address", metavar="HOST:PORT", help="where process 0 is; default: what the cluster tells")
    parser.add_argument("--count", type=int, metavar="N", help="how many processes there are, with --address")
    parser.add_argument("--number", type=int, metavar="I", help="which one this is, from 0, with --address")
    parser.add_argument("--seed", type=int, default=0, help="for weights and dropout; default: %(default)s")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cluster", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("script", help="a Python file that builds a model and trains it")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script is given")
    return parser


def _place(address: str | None, processes: int | None, number: int | None) -> dict[str, str]:
    """What a process finds in its environment."""
    values = {ADDRESS: address, PROCESSES: processes, PROCESS: number}
    return {"KERAS_BACKEND": "jax"} | {name: str(value) for name, value in values.items() if value is not None}


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _inside(given: argparse.Namespace) -> int:
    """Join, and run the script, as `python script.py arguments` would."""
    from bert_models.training.distribute import start
    from bert_models.training.leaving import leave

    start(cluster=given.cluster, seed=given.seed)
    sys.argv = [given.script, *given.arguments]
    sys.path.insert(0, str(Path(given.script).resolve().parent))
    try:
        runpy.run_path(given.script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            leave(end.code if isinstance(end.code, int) else 1)
    return 0


def together(command: Sequence[str], places: Sequence[Mapping[str, str]], patience: float = 20) -> int:
    """Start a process for each place, and wait until all have ended or one has failed.

    Args:
        command: of every process.
        places: what each finds in its environment, besides what is there.
        patience: seconds that the others have to say what they have to say, and to end, if one has failed.

    Returns:
        0 if all ended well, else 1, and then it was said which process failed.
    """
    started = [subprocess.Popen(command, env={**os.environ, **place}) for place in places]

    def pass_on(number, frame):
        for process in started:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        failed = _first_that_failed(started)
        if failed is None:
            return 0
        print(_sentence(failed, started[failed].returncode, len(started)), file=sys.stderr, flush=True)
        return 1
    finally:
        _stop(started, patience)
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_that_failed(started: Sequence[subprocess.Popen]) -> int | None:
    while True:
        codes = [process.poll() for process in started]
        for number, code in enumerate(codes):
            if code:
                # One that was killed from outside is the cause; others fail since they lost it.
                killed = [i for i, code in enumerate(codes) if code == -signal.SIGKILL]
                return killed[0] if killed else number
        if None not in codes:
            return None
        time.sleep(0.1)


def _sentence(number: int, code: int, processes: int) -> str:
    """What is said of a process that failed.

    >>> _sentence(1, -9, 2)
    'process 1 of 2 was ended by SIGKILL, so all are stopped. Start the same command again to go on from the last ...
    """
    who, others = (
        ("the process", "") if processes == 1 else (f"process {number} of {processes}", ", so all are stopped")
    )
    if code > 0:
        return f"{who} failed with exit code {code}{others}. Look at what it said above."
    name = signal.Signals(-code).name
    why = ", as JAX does where another process is lost" if name == "SIGABRT" else ""
    advice = "Start the same command again to go on from the last checkpoint."
    return f"{who} was ended by {name}{why}{others}. {advice}"


def _stop(started: Sequence[subprocess.Popen], patience: float) -> None:
    """End those that still run, after a time in which they can say why they stop themselves."""
    end = time.monotonic() + patience
    while time.monotonic() < end and any(process.poll() is None for process in started):
        time.sleep(0.1)
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
