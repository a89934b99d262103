"""A kill -9 at any moment of `compress` or `export` leaves the old output or the new one, never a broken one."""

import hashlib
import random
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from cli import done, write_stack

import tncompress
from tncompress.exporting.formats import FORMATS
from tncompress.exporting.job import Job, signature_of

if keras.backend.backend() != "tensorflow" or sys.platform == "win32":
    pytest.skip("forks processes that export with TensorFlow", allow_module_level=True)

KEPT = ("0.3", "0.6")  # the two outputs that take turns
SOURCES = ("one.keras", "two.keras")
OUT = {"compress": "out.keras", "savedmodel": "out", "onnx": "out.onnx", "litert": "out.tflite", "openvino": "out"}
LONGEST = {"compress": 0.4, "export": 0.8}  # seconds until a kill, which reach into the next run
# Imports once, and forks for every kill; no operation runs before that, so that TensorFlow has no threads yet.
PROGRAM = """
import importlib, os, random, shutil, signal, sys, time
from pathlib import Path
import tncompress.conversion.replace, tncompress.exporting.export, tncompress.reporting.report
import tncompress.cli.timing
from tncompress.cli import main
from tncompress.exporting.formats import FORMATS

kind, out, kills, longest, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
if kind == "compress":
    calls = [["compress", "stack.keras", str(out), "--keep", keep] for keep in ("0.3", "0.6")]
else:
    calls = [["export", name, str(out), "--to", kind] for name in ("one.keras", "two.keras")]
    for package in FORMATS[kind].packages:
        importlib.import_module(package)

def child():
    Path("started").touch()
    while os.getppid() == parent:  # else it would go on for ever, and nobody would hear why
        for call in calls:
            try:
                main([*call, "--overwrite", "--quiet"], prog_name="tncompress")
            except SystemExit as error:
                assert not error.code, error.code
            Path("finished").touch()

def writing():
    try:
        return {file for file in Path().glob(".saving-*/new*") if file.parent not in cut}
    except FileNotFoundError:  # of a run that ended while this looked
        return set()

def wait(is_so, pid):
    end = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < end, "nothing is written beside the old output"
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the command failed"
        time.sleep(0.0005)

random.seed(seed)
parent = os.getpid()
cut = set()  # what kills have left of writing
for number in range(kills):
    for mark in ("started", "finished"):
        Path(mark).unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        child()
    wait(Path("started").exists, pid)
    # A third of them in the first run, which traces; a third where one output follows the other; a third in the moments
    # in which the new one is written and checked, beside the old one.
    if number % 3:
        wait(Path("finished").exists, pid)
    if number % 3 == 2:
        wait(writing, pid)
    time.sleep(random.uniform(0, 0.05 if number % 3 == 2 else longest))
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "the command failed"
    cut.update(Path().glob(".saving-*"))
    copy = Path("left", f"{number:03}{out.suffix}")
    if out.is_dir():
        shutil.copytree(out, copy)
    elif out.exists():
        shutil.copy(out, copy)
"""


def killed(folder: Path, kind: str, kills: int) -> list[Path]:
    """What was there after every kill."""
    (folder / "left").mkdir()
    seed = random.Random(kind).randrange(1000)
    arguments = [kind, OUT[kind], str(kills), str(LONGEST["compress" if kind == "compress" else "export"]), str(seed)]
    result = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert list(folder.glob(".saving-*"))  # some were killed while they wrote
    left = sorted((folder / "left").iterdir())
    assert len(left) == kills
    return left


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stack(tmp_path / "stack.keras", (32, 64, 32))
    for seed, name in enumerate(SOURCES):
        keras.utils.clear_session()  # so that the inputs of both have one name
        write_stack(tmp_path / name, (8, 8), seed=seed)
    return tmp_path


def check_compressed(folder, kills):
    """Every file that was left is one of the two models, to the last weight."""
    for keep in KEPT:
        done("compress", "stack.keras", f"{keep}.keras", "--keep", keep)
    known = {_weights(f"{keep}.keras") for keep in KEPT}
    shutil.copy("0.3.keras", "out.keras")
    assert {_weights(file) for file in killed(folder, "compress", kills)} <= known
    done("compress", "stack.keras", "out.keras", "--keep", "0.3", "--overwrite")
    assert _weights("out.keras") in known


def _weights(file) -> str:
    arrays = [weight.tobytes() for weight in tncompress.load(file).get_weights()]
    return hashlib.sha256(b"".join(arrays)).hexdigest()


def check_exported(folder, to, kills):
    """Every file or folder that was left computes what one of the two models does."""
    models = [keras.saving.load_model(name) for name in SOURCES]
    job, x = Job(models[0], signature_of(models[0])), np.linspace(-1, 1, 16).reshape(2, 8).astype("float32")
    wanted, out = [model.predict(x, verbose=0) for model in models], OUT[to]
    read = FORMATS[to].load().read

    def distances(place):
        (found,) = read(job, Path(place))(x).values()
        return [float(np.max(np.abs(found - one))) for one in wanted]

    done("export", SOURCES[0], out, "--to", to)
    for place in killed(folder, to, kills):
        assert min(distances(place)) < 1e-5
    done("export", SOURCES[1], out, "--to", to, "--overwrite")
    assert distances(out)[1] < 1e-5


def test_compress_killed_a_few_times(folder):
    check_compressed(folder, kills=6)


@pytest.mark.slow
def test_compress_killed_fifty_times(folder):
    check_compressed(folder, kills=50)


@pytest.mark.slow
@pytest.mark.parametrize("to", [kind for kind in OUT if kind != "compress"])
def test_export_killed_fifty_times(folder, to):
    for package in FORMATS[to].packages:
        pytest.importorskip(package)
    check_exported(folder, to, kills=50)
