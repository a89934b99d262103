"""A test file run once more in a process of its own, on another backend of Keras."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import pytest

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the others are started from here")


def passes_on(backend: str, file: str, *arguments: str, **environment: str) -> None:
    """Assert that pytest finds tests in the file, and that they pass on that backend."""
    if find_spec(backend) is None:
        pytest.skip(f"pip install {backend}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file, *arguments],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
