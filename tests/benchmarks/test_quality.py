"""What compression costs on real weights and real sentences: the figures that the README promises."""

import json
from unittest import mock

import pytest


def test_forms_are_told_apart_by_their_text():
    import quality

    assert quality.form_of("low_rank") == ["low_rank"]
    assert quality.form_of("narrow+low_rank") == ["narrow", "low_rank"]
    two, literal = quality.form_of("expand_condense:2"), quality.form_of("expand_condense:6:64")
    assert (two.fixed, literal.fixed) == (False, True)
    [spec] = literal.candidates(384, 1536, 384 * 1536)
    assert spec.core_shapes == ((384, 6, 64), (64, 256))


DENSE = {"method": "dense", "form": "dense", "keep": 1.0, "fit": "", "spearman": 86.72, "cosine": 1.0, "params": 100}
TWO_SIDED = {"form": "expand_condense:2", "keep": 0.28, "fit": "two-sided", "spearman": 86.0, "cosine": 0.79}


def row(method, params, cosine, **values):
    shared = {"form": method, "fit": "", "keep": params / 100, "spearman": 100 * cosine}
    return {"method": method, "params": params, "cosine": cosine, **shared, **values}


def test_a_measurement_in_one_line_and_in_the_table(capsys):
    import quality_table

    sizes = {"kept": 0.2778, "fit_seconds": 9.0, "output_error": 0.3, "loss_error": None, "predicted_loss": 0.25}
    text = quality_table.line({**TWO_SIDED, **sizes})
    assert "two-sided" in text
    assert "cosine 0.790 kept 0.2778  fit 9 CPU-s  outputs 0.300  predicted 0.250" in text
    absent = {"form": "t3f TT-SVD", "keep": 0.28, "fit": "", "error": "not installed (No module named 't3f')"}
    quality_table.print_table([DENSE, TWO_SIDED, absent])
    printed = capsys.readouterr().out
    assert "86.00 / 0.790" in printed
    assert "dense: 86.72" in printed
    assert "t3f TT-SVD: not installed (No module named 't3f')" in printed
    assert "Rank correlation" not in printed
    quality_table.print_table([DENSE, *(row("a", p, p / 100, predicted_loss=1 / p) for p in (30, 50, 70))])
    assert "Rank correlation of predicted loss and 1 - cosine over 3 results: 1.000" in capsys.readouterr().out


def test_files_are_joined_and_never_half_written(tmp_path):
    import measure
    import quality_table

    first, second = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    measure.write_json(first, "quality", [DENSE, row("a", 50, 0.9)])
    measure.write_json(second, "quality", [DENSE, row("b", 50, 0.8)])
    assert [r["method"] for r in quality_table.joined([first, second])] == ["dense", "a", "b"]
    with mock.patch("pathlib.Path.write_text", side_effect=OSError("disk full")), pytest.raises(OSError, match="full"):
        measure.write_json(first, "quality", [])
    assert len(json.loads((tmp_path / "a.json").read_text())["results"]) == 2
    assert len(list(tmp_path.iterdir())) == 2


# -- the picture ---------------------------------------------------------------------------------------------------


def test_the_front_holds_what_nothing_smaller_beats():
    import quality_plot

    rows = [row("a", 30, 0.5), row("b", 30, 0.6), row("a", 50, 0.55), row("b", 50, 0.8), row("a", 70, 0.8)]
    rows[0]["params"] = 28  # of the same budget, less used: no point of the front
    assert quality_plot.pareto_front(rows, "cosine") == [rows[1], rows[3]]
    assert list(quality_plot.by_accuracy(rows)) == ["b", "a"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_is_drawn(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    import quality_plot

    rows = [DENSE, row("a", 30, 0.5), row("a", 70, 0.9), {"form": "b", "error": "nothing"}, row("worst", 30, 0.1)]
    quality_plot.picture(str(tmp_path / f"quality.{suffix}"), rows)
    [drawn] = tmp_path.iterdir()
    assert drawn.name == f"quality.{suffix}"
    assert drawn.stat().st_size > 10_000


# -- on real weights -----------------------------------------------------------------------------------------------


def setting_of(stsb):
    """The setting of the benchmark, and its batches for calibration."""
    import minilm
    import quality

    import bert_models

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    dev = minilm.read_pairs(stsb / "stsb-en-dev.csv")
    original = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
    sentences = quality.drawn(minilm.sentences_of(minilm.read_pairs(stsb / "stsb-en-train.csv")), 3000)
    return quality.Setting(encoder, tokenizer, dev, original), minilm.batches(tokenizer, sentences)


@pytest.mark.slow
def test_tn_berts_structure_from_trained_weights(stsb):
    """6 x (64 -> 256) in every feed-forward block, without training: each kind of fit beats the one before by far."""
    import quality

    setting, batches = setting_of(stsb)
    fits = quality.gathered(setting.encoder, setting.kernels(), batches, quality.FITS)
    found = {fit: quality.measured(setting, "expand_condense:6:64", 1.0, given) for fit, given in fits.items()}
    assert {result["kept"] for result in found.values()} == {12 * 163_840 / 7_077_888}
    assert [result["cosine"] for result in found.values()] == pytest.approx([0.367, 0.625, 0.692], abs=0.015)
    assert found["two-sided"]["loss_error"] < 0.3
    assert found["two-sided"]["spearman"] >= 84.5


@pytest.mark.slow
def test_calibrated_low_rank_keeps_what_plain_svd_loses(stsb):
    import quality

    setting, batches = setting_of(stsb)
    assert quality.dense_result(setting)["spearman"] == pytest.approx(86.7, abs=0.05)
    fits = quality.gathered(setting.encoder, setting.kernels(), batches, ["calibrated"])

    plain = quality.measured(setting, "low_rank", 0.5, None)
    calibrated = quality.measured(setting, "low_rank", 0.5, fits["calibrated"])

    assert plain["spearman"] == pytest.approx(82.4, abs=0.3)
    assert plain["cosine"] == pytest.approx(0.60, abs=0.02)
    assert calibrated["spearman"] >= 85.8
    assert calibrated["cosine"] >= 0.87
    assert calibrated["kept"] <= 0.5


@pytest.mark.slow
def test_ours_beats_the_peers_at_the_same_budget(stsb):
    """At 28 %, with predictions that order the methods, and that are those of the report."""
    from dataclasses import replace

    import minilm
    import quality
    import quality_loss
    import quality_peers

    import tncompress

    setting, batches = setting_of(stsb)
    [two_sided] = quality.gathered(setting.encoder, setting.kernels(), batches, ["two-sided"]).values()
    setting = replace(setting, judge=two_sided)
    small = []
    compress = tncompress.replace_dense
    with mock.patch("tncompress.replace_dense", lambda *a, **k: small.append(compress(*a, **k)) or small[-1]):
        ours = quality.measured(setting, "narrow+low_rank", 0.28, two_sided)
    reported = sum(row.predicted_loss for row in tncompress.report(small[0]).rows if row.predicted_loss)
    assert ours["predicted_loss"] == pytest.approx(reported, rel=0.02)
    assert ours["cosine"] >= 0.89
    seen = quality_peers.look(setting.encoder, two_sided, batches, minilm.sentence_embedding)
    svds = ("SVD", "FWSVD", "ASVD", "SVD-LLM")
    peers = {name: quality.peer_measured(setting, name, 0.28, seen) for name in svds}
    assert all(ours["cosine"] > peer["cosine"] + 0.05 for peer in peers.values())
    assert peers["SVD"]["cosine"] == pytest.approx(0.46, abs=0.02)
    assert peers["SVD-LLM"]["cosine"] == pytest.approx(0.76, abs=0.03)
    assert quality_loss.rank_correlation([ours, *peers.values()])[0] >= 0.9
