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

if keras.backend.backend() != "tensorflow" or sys.platform == "win32":
    pytest.skip("forks processes that export with TensorFlow", allow_module_level=True)

KEPT = ("0.3", "0.6")  # the two outputs that take turns
SOURCES = ("one.keras", "two.keras")
# Imports once, and forks for every kill; no operation runs before that, so that TensorFlow has no threads yet.
PROGRAM = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import tncompress.conversion.replace, tncompress.exporting.export, tncompress.reporting.report
import tncompress.cli.timing
from tncompress.cli import main

kind, kills, longest, seed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
calls = {
    "compress": [["compress", "stack.keras", "out.keras", "--keep", keep] for keep in ("0.3", "0.6")],
    "export": [["export", name, "out", "--to", "savedmodel"] for name in ("one.keras", "two.keras")],
}[kind]

def child():
    Path("started").touch()
    while True:
        for call in calls:
            try:
                main([*call, "--overwrite", "--quiet"], prog_name="tncompress")
            except SystemExit as error:
                assert not error.code, error.code
            Path("finished").touch()

random.seed(seed)
for number in range(kills):
    for mark in ("started", "finished"):
        Path(mark).unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        child()
    while not Path("started").exists():
        time.sleep(0.001)
    if number % 2:  # half of them in the first run, which traces; half where one output follows the other
        while not Path("finished").exists():
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the command failed"
            time.sleep(0.001)
    time.sleep(random.uniform(0, longest))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    out = Path("out.keras" if kind == "compress" else "out")
    copy = Path("left", f"{number:03}{out.suffix}")
    if out.is_dir():
        shutil.copytree(out, copy)
    elif out.exists():
        shutil.copy(out, copy)
"""


def killed(folder: Path, kind: str, kills: int, longest: float) -> list[Path]:
    """What was there after every kill."""
    (folder / "left").mkdir()
    seed = random.Random(kind).randrange(1000)
    arguments = [kind, str(kills), str(longest), str(seed)]
    result = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return sorted((folder / "left").iterdir())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stack(tmp_path / "stack.keras", (32, 64, 32))
    for seed, name in enumerate(SOURCES):
        write_stack(tmp_path / name, (8, 8), seed=seed)
    return tmp_path


def check_compressed(folder, kills):
    """Every file that was left is one of the two models, to the last weight."""
    for keep in KEPT:
        done("compress", "stack.keras", f"{keep}.keras", "--keep", keep)
    known = {_weights(f"{keep}.keras") for keep in KEPT}
    shutil.copy("0.3.keras", "out.keras")
    left = killed(folder, "compress", kills, longest=0.4)
    assert len(left) == kills
    assert {_weights(file) for file in left} <= known
    done("compress", "stack.keras", "out.keras", "--keep", "0.3", "--overwrite")
    assert _weights("out.keras") in known


def _weights(file) -> str:
    arrays = [weight.tobytes() for weight in tncompress.load(file).get_weights()]
    return hashlib.sha256(b"".join(arrays)).hexdigest()


def check_exported(folder, kills):
    """Every folder that was left computes what one of the two models does."""
    import tensorflow as tf

    x = np.linspace(-1, 1, 16).reshape(2, 8).astype("float32")
    wanted = [keras.saving.load_model(name).predict(x, verbose=0) for name in SOURCES]
    done("export", SOURCES[0], "out", "--to", "savedmodel")
    left = killed(folder, "export", kills, longest=0.8)
    assert len(left) == kills
    for place in left:
        signature = tf.saved_model.load(str(place)).signatures["serving_default"]
        (name,) = signature.structured_input_signature[1]
        (found,) = signature(**{name: tf.constant(x)}).values()
        assert min(float(np.max(np.abs(found.numpy() - one))) for one in wanted) < 1e-5
    done("export", SOURCES[0], "out", "--to", "savedmodel", "--overwrite")


def test_compress_killed_a_few_times(folder):
    check_compressed(folder, kills=6)


@pytest.mark.slow
def test_compress_killed_fifty_times(folder):
    check_compressed(folder, kills=50)


@pytest.mark.slow
def test_export_killed_fifty_times(folder):
    check_exported(folder, kills=50)
