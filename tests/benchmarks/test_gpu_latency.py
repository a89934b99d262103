"""The benchmark for GPUs, where there is none: it says so, and runs if it is told to."""

import json
import os
import subprocess
import sys

import pytest


def run(folder, backend, *options):
    command = [sys.executable, str(folder / "gpu_latency.py"), "--layers", "1", "--hidden", "128", *options]
    environment = {**os.environ, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_without_a_gpu(benchmark_folder, tmp_path, backend):
    pytest.importorskip(backend)
    refused = run(benchmark_folder, backend)
    assert refused.returncode == 1
    assert "sees no GPU" in refused.stderr
    path = tmp_path / "found.json"
    options = ["--inputs", "2x16", "--seconds", "0.02", "--rounds", "1", "--anywhere", "--json", str(path)]
    done = run(benchmark_folder, backend, *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["results"]["rows"]
    assert [row["encoder"] for row in rows] == ["dense", "TN-BERT", "low rank 128"]
    assert all(row["seconds"] > 0 and row["joules"] is None for row in rows)


def test_energy_and_time_are_of_one_sequence(monkeypatch):
    """A counter that rises by 3 J a call of 2 sequences, and a clock that rises by 4 s."""
    from types import SimpleNamespace

    import gpu_latency

    now = {"seconds": 0.0, "joules": 0.0}

    def call(times):
        now["seconds"] += 4 * times
        now["joules"] += 3 * times

    monkeypatch.setattr(gpu_latency.time, "perf_counter", lambda: now["seconds"])
    rows = gpu_latency.timed({"dense": call}, (2, 8), SimpleNamespace(seconds=20, rounds=3), lambda: now["joules"])
    assert rows == [{"encoder": "dense", "texts": 2, "tokens": 8, "seconds": 2.0, "joules": 1.5}]
