"""README and docs say what is true of the code: names, arguments, commands, links, drawings, licences.

Blocks with `>>>` are run by doctest, console blocks by the tests of their pages; here is what is left.
"""

import ast
import importlib
import importlib.metadata
import inspect
import re
import sys
import tomllib

import pytest
from pages import ROOT, Block, all_blocks, is_shell, pages, words

import bert_models
import tncompress

sys.path.insert(0, str(ROOT / "docs"))
import drawings
import licences

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
KNOWN = {"python", "console", "toml", "text", "indented", "{eval-rst}", "{toctree}"}
NOT_RUN = [block for block in all_blocks() if ">>>" not in block.text and block.kind in ("python", "indented")]
PYTHON = [block for block in NOT_RUN if not is_shell(block)]
SHELL = [block for block in NOT_RUN if is_shell(block)]


def test_every_block_is_of_a_kind_that_is_checked():
    assert {block.kind for block in all_blocks()} <= KNOWN


def _names(block: Block) -> dict[str, object]:
    """What a block's names stand for: its imports of our packages, and what the text around it has imported."""
    names: dict[str, object] = {name: getattr(tncompress, name) for name in tncompress.__all__}
    names |= {"tncompress": tncompress, "bert_models": bert_models}
    for node in ast.walk(ast.parse(block.text)):
        ours = getattr(node, "module", None) or ""
        if isinstance(node, ast.ImportFrom) and ours.split(".")[0] in ("tncompress", "bert_models"):
            module = importlib.import_module(ours)
            names |= {alias.asname or alias.name: _part(module, alias.name, ours) for alias in node.names}
    return names


def _part(module, name, path):
    try:
        return getattr(module, name)
    except AttributeError:
        return importlib.import_module(f"{path}.{name}")


def _called(node: ast.expr, names: dict[str, object]):
    """What is called, or None where the text does not tell."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _called(node.value, names)
        return None if owner is None else getattr(owner, node.attr)  # no such name: an error, as for a reader
    return None


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_that_is_not_run_calls_what_there_is(block):
    if block.page == "docs/pretraining_data.md":
        pytest.importorskip("apache_beam")
    names = _names(block)
    for call in ast.walk(ast.parse(block.text)):
        if isinstance(call, ast.Call) and (function := _called(call.func, names)) is not None:
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(function).bind_partial(*call.args, **keywords)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_shell_commands_name_targets_and_extras_that_there_are(block):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for line in block.text.splitlines():
        typed = words(line)
        if typed[0] == "make":
            assert typed[1] in targets, line
        if typed[0] == "python":
            assert (ROOT / typed[1]).is_file(), line
        if typed[:2] == ["pip", "install"]:
            asked = re.fullmatch(r"(?:\.|tncompress)(?:\[(.*)\])?", typed[2])
            assert asked, line
            assert set((asked[1] or "jax").split(",")) <= set(PROJECT["optional-dependencies"]), line


def test_targets_that_pages_name_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for page in pages():
        assert set(re.findall(r"`make ([a-z-]+)", page.read_text("utf-8"))) <= set(targets), page


def test_commands_of_bert_models_are_understood():
    from bert_models.cli import main

    found = [block for block in all_blocks() if block.kind == "console" and "python -m bert_models" in block.text]
    assert found
    for block in found:
        for line in block.text.splitlines():
            name, *rest = words(line.removeprefix("$ "))[3:]
            main.commands[name].make_context(name, rest)


def test_links_lead_somewhere():
    for page in pages():
        text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith(("http", "#")):
                assert (page.parent / target.split("#")[0]).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_scripts_that_pages_name_exist():
    for page in pages():
        for name in re.findall(
            r"`(?:python )?((?:benchmarks|examples|docs|tests|release)/[\w/]+\.\w+)", page.read_text("utf-8")
        ):
            assert (ROOT / name).exists(), f"{page.relative_to(ROOT)}: {name}"


@pytest.mark.parametrize("package", [tncompress, bert_models], ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference(package):
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    shown = dict(reversed(path.rsplit(".", 1)) for path in re.findall(rf"auto\w+:: ({package.__name__}[\w.]+)", text))
    for name in package.__all__:
        assert name in shown, f"docs/api.md has no {package.__name__}.{name}"
        assert getattr(importlib.import_module(shown[name]), name) is getattr(package, name)


@pytest.mark.parametrize("name", tncompress.FORMS)
def test_every_form_has_a_page_and_its_drawing(name):
    spec = drawings.DRAWN[name]
    drawn = (ROOT / "docs" / "forms" / f"{name}.svg").read_text("utf-8")
    assert drawn == drawings.svg(spec, tncompress.plan(spec)) + "\n", "run python docs/drawings.py"
    page = (ROOT / "docs" / "forms" / f"{name}.md").read_text("utf-8")
    assert spec.equation in page
    assert f"{name}.svg" in page
    assert {"## Equation and cost", "## Good when", "## Not when"} <= set(page.splitlines())


def test_licences_are_those_of_pyproject():
    assert licences.PAGE.read_text("utf-8") == licences.page(), "run python docs/licences.py"
    assert set(licences.LICENCES) == set(licences.requirements())


@pytest.mark.parametrize("name", licences.LICENCES)
def test_licences_are_those_that_packages_state(name):
    try:
        found = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    stated = " ".join([found.get("License-Expression") or found.get("License") or "", *found.get_all("Classifier", [])])
    first = re.match("Apache|MIT|BSD|MPL|PSF|Google", licences.LICENCES[name])[0]
    assert re.search({"PSF": "PSF|Python Software", "MPL": "MPL|Mozilla"}.get(first, first), stated), stated[:200]
