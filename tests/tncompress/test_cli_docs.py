"""The console blocks of README and docs/command_line.md, run one after the other, print what stands there."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
from cli import run, write_bert, write_texts

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/command_line.md")
CHECKER = doctest.OutputChecker()
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def console_calls(page: Path) -> list[tuple[str, str]]:
    """Every `$ command` of the page's console blocks, with what it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    calls = [call for block in blocks for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [tuple(call.split("\n", 1)) for call in calls]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A working folder for every page, with a model and texts."""
    found = {page: tmp_path_factory.mktemp("docs") for page in PAGES}
    for folder in found.values():
        write_bert(folder / "my-bert")
        write_texts(folder / "texts.txt")
    return found


@pytest.mark.parametrize(
    ("page", "command", "wanted"),
    [(page, *call) for page in PAGES for call in console_calls(ROOT / page)],
    ids=lambda text: text[:40],
)
def test_console_blocks(folders, monkeypatch, page, command, wanted):
    """In the order of the page: later commands need the files of earlier ones."""
    monkeypatch.chdir(folders[page])
    monkeypatch.setattr("tncompress.cli.timing.SLICE", 1e-6)
    program, *arguments = shlex.split(command)
    assert program == "tncompress"
    if "onnx" in arguments:
        pytest.importorskip("tf2onnx")
    result = run(*arguments)
    if not wanted:  # README shows no output
        assert result.exit_code == 0, result.stderr
        return
    found = result.stdout + "".join(line for line in result.stderr.splitlines(True) if not line.startswith("Warning"))
    assert CHECKER.check_output(wanted, found, FLAGS), found
