"""Measurements of this machine: taken when asked for, kept, and none the worse for a broken file."""

import json
import subprocess
import sys
import time

import pytest

from tncompress.forms import low_rank
from tncompress.hardware import machine
from tncompress.hardware.device import DEVICES
from tncompress.hardware.roofline import fastest


@pytest.fixture(autouse=True)
def _no_memory(monkeypatch, tmp_path):
    """A cache folder of its own, and nothing remembered from or for other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(machine.VARIABLE, raising=False)
    forget()
    yield
    forget()


def forget():
    machine.this_machine.cache_clear()
    machine._of_variable.cache_clear()


@pytest.fixture
def measurements(monkeypatch):
    taken = []

    def measured():
        taken.append(1)
        return [1e10 + len(taken), 2e10, 3e-6]

    monkeypatch.setattr(machine, "_measured", measured)
    return taken


def test_measured_in_about_half_a_second():
    start = time.process_time()
    found = machine.this_machine()
    assert time.process_time() - start < 3
    assert 1e9 < found.rate("float32") < 1e13
    assert 1e9 < found.bytes_per_second < 1e12
    assert 1e-7 <= found.overhead < 1e-3
    kept = json.loads(machine.cache_file().read_text())
    assert list(kept.values()) == [[found.rate("float32"), found.bytes_per_second, found.overhead]]
    assert [path.name for path in machine.cache_file().parent.iterdir()] == ["machine.json"]


def test_measured_once(measurements):
    first = machine.this_machine()
    assert first is machine.this_machine()
    forget()  # as in another process
    assert machine.this_machine() == first
    assert len(measurements) == 1
    assert machine.this_machine(remeasure=True) != first
    forget()
    assert machine.this_machine().rate("float32") == 1e10 + 2
    assert fastest(low_rank.spec(6, 8, 2), 4).device.name == "this"


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"a"', "null", "\x00\xff"])
def test_a_broken_file_is_written_again(measurements, text):
    machine.cache_file().parent.mkdir(parents=True)
    machine.cache_file().write_text(text, encoding="latin-1")
    machine.this_machine()
    assert list(json.loads(machine.cache_file().read_text()).values()) == [[1e10 + 1, 2e10, 3e-6]]


@pytest.mark.parametrize("figures", [None, [], [1.0, 2.0], [1.0, -2.0, 3.0], [1.0, float("nan"), 1.0], ["a", 1.0, 1.0]])
def test_other_machines_stay_in_the_file_and_wrong_figures_do_not(measurements, figures):
    machine.cache_file().parent.mkdir(parents=True)
    machine.cache_file().write_text(json.dumps({machine._key(): figures, "another": [1.0, 2.0, 3.0]}))
    assert machine.this_machine().rate("float32") == 1e10 + 1
    assert json.loads(machine.cache_file().read_text())["another"] == [1.0, 2.0, 3.0]


def test_no_folder_to_write_to(measurements, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert machine.this_machine().overhead == 3e-6


def test_threads_and_versions_are_told_apart(measurements, monkeypatch):
    machine.this_machine()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    forget()
    machine.this_machine()
    assert len(measurements) == 2
    assert len(json.loads(machine.cache_file().read_text())) == 2


def test_layers_measure_nothing_unless_asked(measurements, monkeypatch):
    assert machine.known_machine() is DEVICES["cpu"]
    monkeypatch.setenv(machine.VARIABLE, "tpu-v5e")
    assert machine.known_machine() is DEVICES["tpu-v5e"]
    assert not measurements
    monkeypatch.setenv(machine.VARIABLE, "this")
    assert machine.known_machine().name == "this"
    assert len(measurements) == 1
    monkeypatch.setenv(machine.VARIABLE, "abacus")
    with pytest.raises(ValueError, match=r"device is one of .*got 'abacus'.*variable TNCOMPRESS_DEVICE"):
        machine.known_machine()


def test_without_tensorflow_none_is_loaded():
    code = "import sys; from tncompress.hardware.machine import this_machine; this_machine(); "
    code += "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
