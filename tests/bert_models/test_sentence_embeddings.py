"""Sentence embeddings: the mean over real tokens, whatever the batching."""

from pathlib import Path

import numpy as np
import pytest
from keras import ops

import bert_models

GOLDEN = Path(__file__).parent / "golden" / "minilm.npz"
SENTENCES = [
    "the cat sat on the mat.",
    "cat",
    "unable cats sat on mats .",
    "",
    "mat " * 30,
    "the cat",
]


@pytest.fixture
def encoder(small_folder):
    return bert_models.load(small_folder)


@pytest.fixture
def tokenizer(small_folder):
    return bert_models.load_tokenizer(small_folder)


def test_embedding_is_the_mean_over_the_tokens(encoder, tokenizer):
    vectors = bert_models.embed(encoder, tokenizer, SENTENCES)
    assert (vectors.dtype, vectors.shape) == (np.float32, (6, 8))
    for sentence, vector in zip(SENTENCES, vectors, strict=True):
        states = encoder(tokenizer([sentence]))["sequence_output"]  # [1, S, H], nothing padded
        np.testing.assert_allclose(vector, ops.convert_to_numpy(states)[0].mean(0), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_batch_size_does_not_matter(encoder, tokenizer, batch_size):
    expected = bert_models.embed(encoder, tokenizer, SENTENCES)
    found = bert_models.embed(encoder, tokenizer, SENTENCES, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_compiled_shapes_are_few_and_change_nothing(encoder, tokenizer, monkeypatch):
    expected = bert_models.embed(encoder, tokenizer, SENTENCES, batch_size=1)
    lengths = set()

    def predict(batch):
        lengths.add(batch["input_word_ids"].shape[1])
        return encoder.predict_on_batch(batch)

    class Compiled:
        jit_compile = True
        predict_on_batch = staticmethod(predict)

    found = bert_models.embed(Compiled(), tokenizer, SENTENCES, batch_size=1)
    assert lengths == {16, 20}  # a multiple of 16, or all the positions there are
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_order_of_the_sentences_is_kept(encoder, tokenizer):
    forwards = bert_models.embed(encoder, tokenizer, SENTENCES, batch_size=2)
    backwards = bert_models.embed(encoder, tokenizer, SENTENCES[::-1], batch_size=2)
    np.testing.assert_allclose(forwards, backwards[::-1], atol=1e-5)


def test_minilm_equals_the_golden_embeddings(minilm, minilm_tokenizer):
    golden = np.load(GOLDEN, allow_pickle=False)
    sentences = [str(sentence) for sentence in golden["sentences"]]
    vectors = bert_models.embed(minilm, minilm_tokenizer, sentences)
    np.testing.assert_allclose(vectors[:, ::32], golden["embeddings"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_goes_to_the_terminal_only(encoder, tokenizer, capsys, progress):
    bert_models.embed(encoder, tokenizer, SENTENCES, progress=progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("Embedding" in captured.err) == progress
    assert progress or captured.err == ""


@pytest.mark.parametrize(
    ("sentences", "options", "kind", "words"),
    [
        ("one", {}, TypeError, ["list of strings"]),
        ([], {}, ValueError, ["at least one"]),
        (["a", None], {}, TypeError, ["number 1"]),
        (["a"], {"batch_size": 0}, ValueError, ["batch_size", "0"]),
    ],
)
def test_bad_input_is_refused_in_one_sentence(encoder, tokenizer, sentences, options, kind, words):
    with pytest.raises(kind) as caught:
        bert_models.embed(encoder, tokenizer, sentences, **options)
    assert all(word in str(caught.value) for word in words), caught.value


def test_tokenizer_of_another_encoder_is_refused(encoder, minilm_tokenizer):
    with pytest.raises(ValueError, match=r"30,522 tokens.*only 14"):
        bert_models.embed(encoder, minilm_tokenizer, ["a"])
