"""Build the wheel and the sdist into a folder: `python release/build.py dist`. The same tree gives the same wheel.

Times in the wheel are those of the last commit (SOURCE_DATE_EPOCH, where it is not set already).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # setuptools changes the arguments
build_meta.build_sdist(folder)
print(build_meta.build_wheel(folder))
"""
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "shared")
FIRST_DAY = "315532800"  # 1980: zip files know no earlier one


def epoch() -> str:
    """Seconds of the last commit, or of the first day that a wheel can have."""
    asked = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return os.environ.get("SOURCE_DATE_EPOCH") or asked.stdout.strip() or FIRST_DAY


def build(folder: Path) -> Path:
    """The wheel and the sdist, built from a copy of the tree, so that nothing of an earlier build gets in.

    Returns:
        the wheel.

    Raises:
        subprocess.CalledProcessError: if setuptools fails; it says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        tree = shutil.copytree(ROOT, Path(place) / "tree", ignore=LEFT_OUT)
        command = [sys.executable, "-c", BUILD, str(folder.resolve())]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch()}
        done = subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return folder / done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
