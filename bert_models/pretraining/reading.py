"""Shards to batches: `dataset`, with new masks whenever a batch is read, if the shards have none.

What is read depends on the arguments only. TensorFlow's own shuffling would also depend on its global seed, which may
be another when training goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
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

ALL = slice(None)


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
        shuffle_records: so many records that follow each other are put in order by chance; 0: none.

    Returns:
        Dicts of `input_word_ids`, `input_mask`, `input_type_ids`, int32 [batch, length]; `masked_lm_positions`,
        `masked_lm_ids`, int32, and `masked_lm_weights`, float32, [batch, predictions]; and, of pairs,
        `next_sentence_labels`, int32 [batch, 1].

    Raises:
        FileNotFoundError: the folder is not complete.
        ValueError: a shard was cut; there are fewer examples than a batch has; no tokenizer, or another vocabulary.
            What is found while batches are read is told by `damage.told_in_words`.
    """
    info = read_info(folder)
    num_examples(folder, info, batch_size)
    found = records(folder, info["shards"], seed, epochs=epochs)
    if shuffle_records:
        groups = found.batch(shuffle_records).enumerate()
        found = groups.map(lambda number, texts: _shuffled(texts, seed, number)).unbatch()
    return batched(found, folder, info, batch_size, tokenizer, seed)


def num_examples(folder: str | Path, info: Mapping[str, Any], batch_size: int) -> int:
    """How many examples the shards have; fewer than a batch are refused."""
    total = sum(shard["records"] for shard in info["shards"])
    if total < batch_size:
        raise ValueError(f"{folder} has {total} examples, fewer than a batch of {batch_size}; lower batch_size.")
    return total


def _shuffled(texts: tf.Tensor, seed: int, number: tf.Tensor) -> tf.Tensor:
    return tf.random.experimental.stateless_shuffle(texts, tf.stack([tf.cast(seed, tf.int64), number]))


def records(
    folder: str | Path, shards: Sequence[Mapping[str, Any]], seed: int, *, epochs: int | None = None, first: int = 0
) -> tf.data.Dataset:
    """Serialised examples, shard after shard, in another order of shards in each epoch.

    Args:
        shards: as `pretraining_data.json` lists them.
        epochs: how often all are gone through; None: for ever.
        first: so many records, of all epochs together, are left out. Only of the shard in which reading begins are they
            passed over, by their lengths.
    """
    places = tf.data.Dataset.from_generator(
        lambda: visits(shards, seed, epochs, first),
        output_signature=(tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64)),
    )
    place = str(folder)
    return places.flat_map(
        lambda name, passed: tf.data.TFRecordDataset(tf.strings.join([place, name], "/")).skip(passed)
    )


def visits(
    shards: Sequence[Mapping[str, Any]], seed: int, epochs: int | None = None, first: int = 0
) -> Iterator[tuple[str, int]]:
    """Names of the shards in the order in which they are read, and how many records of each are left out.

    >>> shards = [{"name": "a", "records": 3}, {"name": "b", "records": 2}]
    >>> list(visits(shards, seed=0, epochs=2)), list(visits(shards, seed=0, epochs=2, first=4))
    ([('a', 0), ('b', 0), ('a', 0), ('b', 0)], [('b', 1), ('a', 0), ('b', 0)])
    """
    whole, left = divmod(first, sum(shard["records"] for shard in shards))  # epochs that are over; records to leave out
    for epoch in count(whole) if epochs is None else range(whole, epochs):
        for number in np.argsort(draws.uniform((len(shards),), "order of shards", seed, epoch), kind="stable"):
            shard = shards[number]
            if left < shard["records"]:
                yield shard["name"], left
            left = max(0, left - shard["records"])


def batched(
    examples: tf.data.Dataset,
    folder: str | Path,
    info: Mapping[str, Any],
    batch_size: int,
    tokenizer: Any,
    seed: int,
    *,
    first: int = 0,
    rows: slice = ALL,
) -> tf.data.Dataset:
    """Batches of serialised examples, as `dataset` describes them.

    Args:
        folder, info: where they are from, and the content of `pretraining_data.json` there.
        first: number of the first batch, on which its dynamic masks depend.
        rows: those of each batch that are wanted; others are not parsed. They are the same whatever else is wanted.
    """
    settings = DataSettings(**info["settings"])
    wanted = features(settings)
    found = examples.batch(batch_size, drop_remainder=True)
    found = found.map(lambda texts: parsed(texts[rows], wanted), num_parallel_calls=tf.data.AUTOTUNE)
    if settings.masking == "dynamic":
        rule = MaskRule(settings.mask_rate, settings.predictions, settings.whole_words)
        pieces = _pieces(tokenizer, info, folder)
        found = dynamic_masks(found, pieces, rule, seed, first=first, rows=rows, batch_size=batch_size)
    return found.prefetch(tf.data.AUTOTUNE)


def features(settings: DataSettings) -> dict[str, tf.io.FixedLenFeature]:
    """What a record holds, as `tf.io.parse_example` wants it."""
    found = {name: tf.io.FixedLenFeature([settings.max_length], tf.int64) for name in INPUTS}
    if settings.masking == "static":
        for name in PREDICTIONS:
            dtype = tf.float32 if name == "masked_lm_weights" else tf.int64
            found[name] = tf.io.FixedLenFeature([settings.predictions], dtype)
    if settings.packing == "next_sentence":
        found[LABELS] = tf.io.FixedLenFeature([1], tf.int64)
    return found


def parsed(texts: tf.Tensor, wanted: dict[str, tf.io.FixedLenFeature]) -> dict[str, tf.Tensor]:
    """Records as batches have them, but for masks that are drawn."""
    values = tf.io.parse_example(texts, wanted)
    return {name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value for name, value in values.items()}


def dynamic_masks(
    batches: tf.data.Dataset,
    pieces: WordPieces,
    rule: MaskRule,
    seed: int = 0,
    *,
    first: int = 0,
    rows: slice = ALL,
    batch_size: int | None = None,
) -> tf.data.Dataset:
    """Batches with masks that are drawn when they are read: other ones in each epoch, since batches are counted.

    Args:
        batches: dicts with `input_word_ids`, int32 [batch, length]; repeated for all epochs.
        first: number of the first batch.
        rows: where only some rows of each batch are given: which. They get the masks that they have in the whole batch.
        batch_size: rows of a whole batch; None: all are given.
    """

    def mask(number: np.ndarray, ids: np.ndarray):
        shape = (3, batch_size or len(ids), ids.shape[1])
        drawn = draws.uniform(shape, "dynamic masks", seed, first + int(number))[:, rows]
        arrays = mask_rows(ids, pieces, rule, drawn)
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


def _pieces(tokenizer, info: Mapping[str, Any], folder: str | Path) -> WordPieces:
    if tokenizer is None:
        raise ValueError(f"{folder} has no masks in it: give dataset(..., tokenizer=) to draw them.")
    pieces = WordPieces.of(tokenizer)
    if pieces.digest != info["vocabulary"]["digest"]:
        raise ValueError(f"{folder} was made with another vocabulary of {info['vocabulary']['size']:,} tokens.")
    return pieces
