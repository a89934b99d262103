"""What a release holds: the wheel, its name and version, what it asks for. `make wheel-test` installs and tries it."""

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
from pages import ROOT

import tncompress

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def script(name: str):
    """A script of the folder `release`, as a module."""
    spec = importlib.util.spec_from_file_location(f"release_{name}", ROOT / "release" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_version_is_semantic_and_in_the_changelog():
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[\w.]+)?", tncompress.__version__)
    assert re.search(r"^## .*(Unreleased|\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_every_dependency_has_an_oldest_version_that_can_be_installed():
    oldest = script("oldest")
    for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        asked = [text for text in requirements if not text.startswith("tncompress[") and text != "setuptools<82"]
        assert len(oldest.oldest(asked)) == len(asked)


def test_a_dependency_without_an_oldest_version_is_refused():
    with pytest.raises(ValueError, match="'click' has no lowest version"):
        script("oldest").oldest(["click"])


def test_classifiers_and_requires_python_agree():
    named = {text.rsplit(" ", 1)[1] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)}
    least, most = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert named == {f"3.{minor}" for minor in range(int(least), int(most))}
    assert "Typing :: Typed" in PROJECT["classifiers"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheel, built twice."""
    pytest.importorskip("setuptools", minversion="77")
    places = [tmp_path_factory.mktemp("wheel") for _ in range(2)]
    builder = script("build")
    return [builder.build(place) for place in places]


def test_wheel_is_the_same_every_time(wheels):
    first, second = wheels
    assert first.name == second.name == f"tncompress-{tncompress.__version__}-py3-none-any.whl"
    assert first.read_bytes() == second.read_bytes()


def test_wheel_holds_the_packages_and_nothing_else(wheels):
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
    info = f"tncompress-{tncompress.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"tncompress", "bert_models", info}
    assert {"tncompress/py.typed", "bert_models/py.typed", f"{info}/licenses/LICENSE"} <= names
    here = {
        str(file.relative_to(ROOT))
        for package in ("tncompress", "bert_models")
        for file in (ROOT / package).rglob("*.py")
    }
    assert here == {name for name in names if name.endswith(".py")}


def test_sdist_makes_the_same_wheel(wheels, tmp_path):
    [archive] = wheels[0].parent.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(tmp_path, filter="data")
    [tree] = tmp_path.iterdir()
    builder = script("build")
    command = [sys.executable, "-c", builder.BUILD, str(tmp_path)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": builder.epoch()}
    subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True)
    assert (tmp_path / wheels[0].name).read_bytes() == wheels[0].read_bytes()
