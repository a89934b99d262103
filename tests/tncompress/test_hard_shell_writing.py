"""Several who write at once, and disks that are full: what was there stays whole."""

import json
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import pytest

from tncompress import load, replace_dense, report
from tncompress.hardware import machine

FIGURES = [1.0, 2.0, 3.0]


def test_threads_that_write_the_cache_at_once_leave_it_whole(tmp_path):
    """They must not share one name for the part that is written."""
    file = tmp_path / "machine.json"

    def write(number):
        machine._write(file, {str(number): FIGURES, "fill": ["x" * 20_000]})
        return machine._read(file)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(write, range(100)))
    assert all(len(one) == 2 for one in found)
    assert [path.name for path in tmp_path.iterdir()] == ["machine.json"]


WRITER = """
import sys
from pathlib import Path
from tncompress.hardware import machine
for number in range(200):
    machine._write(Path(sys.argv[1]), {str(number): [1.0, 2.0, 3.0], "fill": ["x" * 20_000]})
    assert len(machine._read(Path(sys.argv[1]))) == 2
"""


def test_processes_that_write_the_cache_at_once_leave_it_whole(tmp_path):
    file = tmp_path / "machine.json"
    command = [sys.executable, "-c", WRITER, str(file)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    told = [process.communicate()[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], told
    assert [path.name for path in tmp_path.iterdir()] == ["machine.json"]
    assert len(json.loads(file.read_text())) == 2


def limited(size: int, act) -> None:
    """What `act` does where no file can become larger than that, as on a full disk."""
    import signal

    old, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        act()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_leaves_the_cache_as_it_was(tmp_path):
    file = tmp_path / "machine.json"
    machine._write(file, {"a": FIGURES})
    limited(10, lambda: machine._write(file, {"b": FIGURES, "fill": ["x" * 20_000]}))
    assert machine._read(file) == {"a": FIGURES}
    assert [path.name for path in tmp_path.iterdir()] == ["machine.json"]


@pytest.fixture(scope="module")
def models():
    entry = keras.Input((16,))
    model = keras.Model(entry, keras.layers.Dense(16, name="b")(keras.layers.Dense(16, name="a")(entry)))
    return [replace_dense(model, keep=keep) for keep in (0.5, 0.9)]


def test_a_full_disk_leaves_the_saved_model_as_it_was(models, tmp_path):
    file = tmp_path / "small.keras"
    models[0].save(file)
    before = file.read_bytes()

    def save():
        with pytest.raises(OSError, match="File too large"):
            models[1].save(file)

    limited(1000, save)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["small.keras"]


def test_two_who_save_to_one_file_leave_one_of_the_two(models, tmp_path):
    file = tmp_path / "small.keras"
    wanted = [report(model).rows for model in models]
    models[0].save(file)
    with ThreadPoolExecutor(3) as pool:
        saved = [pool.submit(models[number % 2].save, file) for number in range(6)]
        found = [pool.submit(lambda: report(load(file)).rows) for _ in range(4)]
        assert all(one.result() is None for one in saved)
        assert all(one.result() in wanted for one in found)
    assert [path.name for path in tmp_path.iterdir()] == ["small.keras"]
