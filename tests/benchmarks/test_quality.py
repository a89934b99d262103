"""What compression costs on real weights and real sentences: the figures that the README promises."""

import pytest


def test_forms_are_told_apart_by_their_text():
    import quality

    assert quality.form_of("low_rank") == ["low_rank"]
    assert quality.form_of("narrow+low_rank") == ["narrow", "low_rank"]
    two, literal = quality.form_of("expand_condense:2"), quality.form_of("expand_condense:6:64")
    assert (two.fixed, literal.fixed) == (False, True)
    [spec] = literal.candidates(384, 1536, 384 * 1536)
    assert spec.core_shapes == ((384, 6, 64), (64, 256))


def test_a_measurement_in_one_line_and_in_the_table(capsys):
    import quality

    dense = {"form": "dense", "keep": 1.0, "fit": "", "spearman": 86.72, "cosine": 1.0}
    two_sided = {"form": "expand_condense:2", "keep": 0.28, "fit": "two-sided", "spearman": 86.0, "cosine": 0.79}
    sizes = {"kept": 0.2778, "fit_seconds": 9.0, "output_error": 0.3, "loss_error": None}
    text = quality.line({**two_sided, **sizes})
    assert "two-sided" in text
    assert "cosine 0.790 kept 0.2778  fit 9 CPU-s  outputs 0.300" in text
    quality.print_table([dense, two_sided, {"form": "cp", "keep": 0.28, "fit": "calibrated", "error": "nothing"}])
    printed = capsys.readouterr().out
    assert "86.00 / 0.790" in printed
    assert "dense: 86.72" in printed


@pytest.mark.slow
def test_tn_berts_structure_from_trained_weights(stsb):
    """6 x (64 -> 256) in every feed-forward block, without training: each kind of fit beats the one before by far."""
    import minilm
    import quality

    import bert_models
    import tncompress

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    dev = minilm.read_pairs(stsb / "stsb-en-dev.csv")
    original = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
    sentences = quality.drawn(minilm.read_pairs(stsb / "stsb-en-train.csv"), 3000)
    paths = [site.path for site in tncompress.find_sites(encoder, "feed_forward") if not site.reason]
    fits = quality.gathered(encoder, paths, minilm.batches(tokenizer, sentences), quality.FITS)
    found = {
        fit: quality.measured(encoder, tokenizer, dev, original, "expand_condense:6:64", 1.0, calibration)
        for fit, calibration in fits.items()
    }
    assert {result["kept"] for result in found.values()} == {12 * 163_840 / 7_077_888}
    assert [result["cosine"] for result in found.values()] == pytest.approx([0.367, 0.625, 0.692], abs=0.015)
    assert found["two-sided"]["loss_error"] < 0.3
    assert found["two-sided"]["spearman"] >= 84.5


@pytest.mark.slow
def test_calibrated_low_rank_keeps_what_plain_svd_loses(stsb):
    import minilm
    import quality

    import bert_models
    import tncompress

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    dev = minilm.read_pairs(stsb / "stsb-en-dev.csv")
    original = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
    assert minilm.spearman(original, dev) == pytest.approx(86.7, abs=0.05)
    sentences = quality.drawn(minilm.read_pairs(stsb / "stsb-en-train.csv"), 3000)
    paths = [site.path for site in tncompress.find_sites(encoder, "feed_forward") if not site.reason]
    moments = tncompress.calibrate(encoder, paths, minilm.batches(tokenizer, sentences))

    plain = quality.measured(encoder, tokenizer, dev, original, "low_rank", 0.5, None)
    calibrated = quality.measured(encoder, tokenizer, dev, original, "low_rank", 0.5, moments)

    assert plain["spearman"] == pytest.approx(82.4, abs=0.3)
    assert plain["cosine"] == pytest.approx(0.60, abs=0.02)
    assert calibrated["spearman"] >= 85.8
    assert calibrated["cosine"] >= 0.87
    assert calibrated["kept"] <= 0.5
