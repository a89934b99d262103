"""What README and docs/start.md say is typed, and does what they say, on small models."""

import os
import subprocess
import sys

import keras
import pytest
from cli import SIZES, TEXTS, WORDS, run, write_bert, write_texts, write_vectors
from pages import ROOT, blocks, console_calls, differs, words

README, START = ROOT / "README.md", ROOT / "docs" / "start.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LARGE = {  # what README says of MiniLM, for a model of some thousand parameters
    "budget=tncompress.Budget(params=10.7e6)": "budget=tncompress.Budget(params=0.8 * encoder.count_params())",
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with all that the pages' commands ask for."""
    write_bert(tmp_path / "my-bert")
    write_texts(tmp_path / "texts.txt")
    dense = [keras.layers.Dense(width, name=name) for name, width in (("wide", 128), ("back", 32), ("head", 2))]
    keras.Sequential([keras.Input((32,)), *dense], name="mine").save(tmp_path / "mine.keras")
    write_vectors(tmp_path / "inputs.npy", width=32)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [README, START], ids=lambda page: page.name)
def test_commands(workplace, page):
    calls = console_calls(page)
    assert len(calls) >= 4
    for command, wanted in calls:
        if "--to onnx" in command:
            pytest.importorskip("tf2onnx")
            pytest.importorskip("onnxruntime")
        program, *arguments = words(command)
        assert program == "tncompress"
        result = run(*arguments)
        assert result.exit_code == 0, f"{command}\n{result.output}"
        if wanted.strip():
            assert not differs(wanted, result.stdout), result.stdout


def test_python_of_the_readme(workplace):
    """The blocks without `>>>`, one after the other, with `folder` and `texts` as the text above them says."""
    names = {"folder": "my-bert", "texts": TEXTS * 100}
    found = [block for block in blocks(README) if block.kind == "python" and ">>>" not in block.text]
    assert len(found) == 2
    for block in found:
        text = block.text
        for large, small in LARGE.items():
            text = text.replace(large, small)
        exec(compile(text, str(block), "exec"), names)
    assert names["vectors"].shape == (1, SIZES["hidden_size"])
    assert names["small"].count_params() <= 0.8 * names["encoder"].count_params()
    assert len(WORDS) == names["encoder"].config.vocab_size


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_examples_print_what_their_pages_show(script):
    [shown] = [block.text for block in blocks(ROOT / "docs" / "examples" / f"{script.stem}.md") if block.kind == "text"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not differs(shown + "\n", done.stdout), done.stdout


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "myst_parser", "furo", "autoapi"):
        pytest.importorskip(package, reason="needs the extra docs: pip install 'tncompress[docs]'")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--builder", "html", "docs", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for script in EXAMPLES:
        assert "What it prints" in (tmp_path / "examples" / f"{script.stem}.html").read_text("utf-8")
