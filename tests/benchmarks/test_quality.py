"""What compression costs on real weights and real sentences: the figures that the README promises."""

import pytest


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
