"""Parameter counts: the figures of the cards, and the arithmetic against built Keras models."""

import doctest
import json
import math
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from bert_configs import bert_configs
from hypothesis import HealthCheck, given, settings

from bert_models.counts import param_counts
from bert_models.presets import PRESETS

BASE = "bert_en_uncased_L-12_H-768_A-12"
SMALL = "small_bert/bert_en_uncased_L-12_H-512_A-8"
TALKING = "talkheads_ggelu_bert_en_base"
LAMBERT = "lambert_en_uncased_L-24_H-1024_A-16"

# Counted on TensorFlow Model Garden's own models: embeddings, attention, feed-forward, norms, pooler.
PARTS = {
    BASE: (23_835_648, 28_348_416, 56_669_184, 38_400, 590_592),
    "tn_bert": (23_835_648, 28_348_416, 15_765_504, 38_400, 590_592),
    SMALL: (15_890_432, 12_607_488, 25_196_544, 25_600, 262_656),
    TALKING: (23_835_648, 28_351_872, 85_017_600, 38_400, 590_592),
    LAMBERT: (31_780_864, 100_761_600, 201_449_472, 100_352, 1_049_600),
}
# Encoder with pooler; with masked-LM head.
TOTALS = {
    BASE: (109_482_240, 110_104_890),
    "tn_bert": (68_578_560, 69_201_210),
    SMALL: (53_982_720, 54_276_922),
    TALKING: (137_834_112, 138_456_762),
    LAMBERT: (335_141_888, 336_224_058),
}


@pytest.mark.parametrize("name", PARTS)
def test_presets_have_the_parameters_of_the_original_models(name):
    counts = param_counts(PRESETS[name].config)
    assert tuple(asdict(counts).values())[:5] == PARTS[name]
    assert (counts.encoder, counts.with_mlm_head) == TOTALS[name]


def test_tn_bert_has_as_many_fewer_as_its_card_says():
    import param_count

    row = param_count.counted(PRESETS["tn_bert"])
    assert row["percent_fewer"] == pytest.approx(37.36, abs=0.005)
    assert [(fact["says"], fact["counted"]) for fact in row["card"]] == [("69M", "69M"), ("37%", "37%")]
    assert param_count.disagreements(row) == []


@given(config=bert_configs())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_arithmetic_is_what_keras_builds(config):
    import param_count

    from bert_models import MaskedLM, build_encoder

    counts, model = param_counts(config), MaskedLM(build_encoder(config))
    assert param_count.counts_by_path(model) == {**asdict(counts), "other": 0}
    for part, expected in ((model.encoder, counts.encoder), (model, counts.with_mlm_head)):
        assert sum(math.prod(weight.shape) for weight in part.trainable_weights) == expected


def test_all_presets_are_printed_without_keras_in_a_hundred_columns(benchmark_folder):
    code = "import sys, param_count; code = param_count.main([]); sys.exit(code or 9 * ('keras' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=benchmark_folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in done.stdout
    for encoder, with_head in TOTALS.values():
        assert f"{encoder:,}" in done.stdout
        assert f"{with_head:,}" in done.stdout
    assert "69M met" in done.stdout
    assert "37% met" in done.stdout
    assert sum(line.strip().startswith("L-") for line in lines) == 24


def test_json_holds_the_presets_asked_for(tmp_path, capsys):
    import param_count

    assert param_count.main(["tn_bert", "small_bert/*H-512*", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert param_count.main(["small_bert/*H-512*", "google/tn_bert/1", "--json", str(tmp_path / "counts.json")]) == 0
    written = json.loads((tmp_path / "counts.json").read_text())
    assert "Parameters" in capsys.readouterr().out
    assert written["results"] == printed["results"]
    assert len(written["results"]) == 7
    assert written["benchmark"] == "param_count"
    assert "numpy" in written["environment"]["versions"]
    assert written["results"][0]["encoder"] == 68_578_560


def test_a_card_that_says_otherwise_ends_in_one(monkeypatch, capsys):
    import param_count
    import preset_tables

    facts = {"parameters": "70M", "fewer parameters than BERT-base": "37%"}
    monkeypatch.setattr(preset_tables, "chosen", lambda names: [replace(PRESETS["tn_bert"], facts=facts)])
    assert param_count.main([]) == 1
    said = capsys.readouterr()
    assert said.err == "tn_bert: the card says 70M parameters, the count gives 69M.\n"
    assert "70M NOT MET: 69M" in said.out


def test_a_built_model_that_differs_ends_in_one(monkeypatch, capsys):
    import param_count

    built = {**asdict(param_counts(PRESETS["tn_bert"].config)), "other": 5}
    monkeypatch.setattr(param_count, "built_counts", lambda config: built)
    assert param_count.main(["tn_bert", "--build"]) == 1
    said = capsys.readouterr()
    assert said.err == "tn_bert: the built model has 5 parameters in other, the count gives 0.\n"
    assert "0 of 1 built Keras models" in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tnbert"], "the nearest is tn_bert"),
        (["nothing*"], "no preset fits the pattern 'nothing*'"),
        (["--json", "tn_bert"], "write the presets before --json"),
        (["--json", "nowhere/counts.json"], "its folder is missing"),
        (["--unknown"], "--unknown"),
    ],
)
def test_a_wrong_argument_ends_in_two_with_one_sentence(arguments, words, capsys):
    import param_count

    with pytest.raises(SystemExit) as ended:
        param_count.main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("module", ["param_count", "preset_tables"])
def test_examples_in_the_script(module):
    found = doctest.testmod(__import__(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


@pytest.mark.slow
def test_the_built_models_of_the_cards_have_these_parameters(capsys):
    import param_count

    assert param_count.main(["tn_bert", SMALL, TALKING, LAMBERT, BASE, "--build"]) == 0
    assert "5 of 5 built Keras models" in capsys.readouterr().out
