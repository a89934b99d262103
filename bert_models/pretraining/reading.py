"""Shards to batches: `dataset`, with new masks whenever a batch is read, if the shards have none."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bert_models.pretraining import draws
from bert_models.pretraining.info import read_info
from bert_models.pretraining.masking import MaskRule, mask_rows
from bert_models.pretraining.records import INPUTS, LABELS, PREDICTIONS
from bert_models.pretraining.settings import DataSettings
from bert_models.pretraining.wordpieces import WordPieces


def dataset(
    folder: str | Path,
    batch_size: int,
    tokenizer=None,
    *,
    seed: int = 0,
    epochs: int | None = 1,
    shuffle_records: int = 0,
) -> tf.data.Dataset:
    """Batches of pretraining data, the last incomplete one left out.

    Examples were put into shards and in order by chance when they were written; shards are read in another order in
    each epoch. The same arguments give the same batches, so after `skip(n)` training goes on where it was. In `fit`
    take `epochs=None` and `steps_per_epoch`: a dataset that ends is started again, and so are its dynamic masks.

    Args:
        folder: what `write_pretraining_data` made.
        batch_size: examples in a batch.
        tokenizer: for dynamic masking, that which the data was made with.
        seed: for the order of shards and dynamic masks.
        epochs: how often the data is gone through; None: for ever.
        shuffle_records: so many records are held, and drawn from by chance.

    Returns:
        Dicts of `input_word_ids`, `input_mask`, `input_type_ids`, int32 [batch, length]; `masked_lm_positions`,
        `masked_lm_ids`, int32, and `masked_lm_weights`, float32, [batch, predictions]; and, of pairs,
        `next_sentence_labels`, int32 [batch, 1].

    Raises:
        FileNotFoundError: the folder is not complete.
        ValueError: a shard was cut; there are fewer examples than a batch has; no tokenizer, or another vocabulary.
    """
    info = read_info(folder)
    settings = DataSettings(**info["settings"])
    total = sum(shard["records"] for shard in info["shards"])
    if total < batch_size:
        raise ValueError(f"{folder} has {total} examples, fewer than a batch of {batch_size}; lower batch_size.")
    files = tf.data.Dataset.from_tensor_slices([str(Path(folder, shard["name"])) for shard in info["shards"]])
    files = files.shuffle(len(info["shards"]), seed=seed, reshuffle_each_iteration=True).repeat(epochs)
    examples = tf.data.TFRecordDataset(files)
    if shuffle_records:
        examples = examples.shuffle(shuffle_records, seed=seed)
    batches = examples.batch(batch_size, drop_remainder=True)
    features = _features(settings)
    batches = batches.map(lambda texts: _parsed(texts, features), num_parallel_calls=tf.data.AUTOTUNE)
    if settings.masking == "dynamic":
        batches = dynamic_masks(batches, _pieces(tokenizer, info, folder), _rule(settings), seed)
    return batches.prefetch(tf.data.AUTOTUNE)


def _features(settings: DataSettings) -> dict[str, tf.io.FixedLenFeature]:
    features = {name: tf.io.FixedLenFeature([settings.max_length], tf.int64) for name in INPUTS}
    if settings.masking == "static":
        for name in PREDICTIONS:
            dtype = tf.float32 if name == "masked_lm_weights" else tf.int64
            features[name] = tf.io.FixedLenFeature([settings.predictions], dtype)
    if settings.packing == "next_sentence":
        features[LABELS] = tf.io.FixedLenFeature([1], tf.int64)
    return features


def _parsed(texts: tf.Tensor, features: dict[str, tf.io.FixedLenFeature]) -> dict[str, tf.Tensor]:
    values = tf.io.parse_example(texts, features)
    return {name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value for name, value in values.items()}


def dynamic_masks(batches: tf.data.Dataset, pieces: WordPieces, rule: MaskRule, seed: int = 0) -> tf.data.Dataset:
    """Batches with masks that are drawn when they are read: other ones in each epoch, since batches are counted.

    Args:
        batches: dicts with `input_word_ids`, int32 [batch, length]; repeated for all epochs.
    """

    def mask(number: np.ndarray, ids: np.ndarray):
        arrays = mask_rows(ids, pieces, rule, draws.uniform((3, *ids.shape), "dynamic masks", seed, int(number)))
        return tuple(arrays[name] for name in names)

    names = ("input_word_ids", *PREDICTIONS)
    dtypes = (tf.int32, tf.int32, tf.int32, tf.float32)

    def add(number: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        ids = batch["input_word_ids"]
        made = dict(zip(names, tf.numpy_function(mask, [number, ids], dtypes), strict=True))
        for name, value in made.items():
            value.set_shape([ids.shape[0], ids.shape[1] if name == "input_word_ids" else rule.predictions])
        return batch | made

    return batches.enumerate().map(add, num_parallel_calls=tf.data.AUTOTUNE)


def _rule(settings: DataSettings) -> MaskRule:
    return MaskRule(settings.mask_rate, settings.predictions, settings.whole_words)


def _pieces(tokenizer, info: dict[str, Any], folder: str | Path) -> WordPieces:
    if tokenizer is None:
        raise ValueError(f"{folder} has no masks in it: give dataset(..., tokenizer=) to draw them.")
    pieces = WordPieces.of(tokenizer)
    if pieces.digest != info["vocabulary"]["digest"]:
        raise ValueError(f"{folder} was made with another vocabulary of {info['vocabulary']['size']:,} tokens.")
    return pieces
