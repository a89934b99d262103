"""Sentence embeddings: the mean of an encoder's last hidden states over the real tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bert_models.config import BertConfig
from bert_models.text.tokenize import Tokenizer, check_sentences
from tncompress.progress import progress_bar

if TYPE_CHECKING:
    import keras

# Where a program is compiled for each shape (XLA), rows are padded to one of few lengths.
# TensorFlow on a CPU takes any length in one program, so there it would only be work for nothing.
COMPILED_LENGTH_STEP = 16


def embed(
    encoder: "keras.Model",
    tokenizer: Tokenizer,
    sentences: Sequence[str],
    *,
    batch_size: int = 32,
    progress: bool | None = None,
) -> np.ndarray:
    """One vector per sentence: `sequence_output` averaged over the tokens that are not padding.

    The vectors are not normalised; divide by their length before taking cosines as dot products.

    Args:
        encoder: an encoder, compressed or not: a dict of int32 [B, S] in, `sequence_output` [B, S,
            H] out.
        tokenizer: the text side that belongs to it.
        sentences: the texts, in any order; similar lengths are put into one batch.
        batch_size: sentences per batch.
        progress: show a progress bar; if None, for long work at a terminal.

    Returns:
        float32 [n, H], in the order of the sentences.

    Raises:
        TypeError: sentences is not a list of strings.
        ValueError: no sentences, a batch_size below 1, or a tokenizer of another encoder.

    Source: Reimers & Gurevych 2019, arXiv:1908.10084, section 3 (MEAN strategy).

    Example:
        vectors = bert_models.embed(encoder, tokenizer, ["A cat.", "A kitten."])  # [2, H]
    """
    check_sentences(sentences)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    check_pair(encoder, tokenizer)
    order = np.argsort([-len(sentence) for sentence in sentences], kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rows = [
        _embed_batch(encoder, tokenizer([sentences[i] for i in batch]), tokenizer.max_length)
        for batch in progress_bar(batches, "Embedding", shown=progress)
    ]
    vectors = np.empty((len(sentences), rows[0].shape[-1]), "float32")
    vectors[order] = np.concatenate(rows)
    return vectors


def check_pair(encoder: "keras.Model", tokenizer: Tokenizer) -> None:
    config = getattr(encoder, "config", None)
    if isinstance(config, BertConfig) and tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, but the encoder knows only "
            f"{config.vocab_size:,}; load both from one folder."
        )


def _embed_batch(encoder: "keras.Model", batch: dict[str, np.ndarray], longest: int) -> np.ndarray:
    if encoder.jit_compile:
        batch = {name: _padded(array, longest) for name, array in batch.items()}
    states = encoder.predict_on_batch(batch)["sequence_output"]  # [B, S, H]
    return masked_mean(states, batch["input_mask"])


def _padded(array: np.ndarray, longest: int) -> np.ndarray:
    """[B, S] -> [B, S rounded up but not above longest], with zeros.

    >>> _padded(np.ones((1, 3)), longest=512).shape, _padded(np.ones((1, 3)), longest=9).shape
    ((1, 16), (1, 9))
    """
    length = array.shape[1]
    rounded = min(length + -length % COMPILED_LENGTH_STEP, longest)
    return np.pad(array, ((0, 0), (0, rounded - length)))


def masked_mean(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of states [B, S, H] over the positions where mask [B, S] is 1; zeros where it is never
    1.

    >>> masked_mean(np.array([[[1.0], [3.0], [99.0]]]), np.array([[1, 1, 0]])).tolist()
    [[2.0]]
    """
    weights = mask.astype("float32")[:, :, None]  # [B, S, 1]
    total = np.sum(np.asarray(states, "float32") * weights, axis=1)  # [B, H]
    return total / np.maximum(weights.sum(axis=1), 1)
