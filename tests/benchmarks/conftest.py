"""Where the benchmarks lie, and the data that some of them need."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.fixture
def benchmark_folder() -> Path:
    return ROOT / "benchmarks"


@pytest.fixture
def stsb() -> Path:
    """Folder with stsb-en-train.csv and stsb-en-dev.csv; skips where there is none."""
    folder = Path(os.environ.get("TNCOMPRESS_STSB", ROOT.parent / "shared" / "data" / "stsb"))
    if not (folder / "stsb-en-train.csv").is_file():
        pytest.skip("set TNCOMPRESS_STSB to a folder with the STS benchmark for this test")
    return folder
