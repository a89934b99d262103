"""Tokenised examples, and how they become batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_models.finetuning.tasks import Example, Task
from bert_models.sentence_embeddings import COMPILED_LENGTH_STEP
from bert_models.text.tokenize import Tokenizer

CHUNK = 1024  # examples that are tokenised at once
POOL = 32  # batches among whose examples those of like length are put together

Batch = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Rows:
    """Token ids of rows of different lengths, and their targets.

    Args:
        ids: of each row its tokens, int32 [tokens].
        types: of each row the segments, int32 [tokens].
        targets: [rows] or [rows, 2]: a class, a score, or the first and last token of an answer.
        limit: no row is longer, nor are batches padded to more.
    """

    ids: Sequence[np.ndarray]
    types: Sequence[np.ndarray]
    targets: np.ndarray
    limit: int

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, chosen: Sequence[int], compiled: bool = False) -> tuple[Batch, np.ndarray]:
        """Inputs int32 [B, S] and targets of the chosen rows.

        Args:
            compiled: every S is compiled anew, so it is one of few, a multiple of 16; else that of the longest row.
        """
        longest = max(len(self.ids[i]) for i in chosen)
        rounded = longest + -longest % COMPILED_LENGTH_STEP
        shape = len(chosen), min(rounded, self.limit) if compiled else longest
        arrays = {name: np.zeros(shape, "int32") for name in ("input_word_ids", "input_mask", "input_type_ids")}
        for row, i in enumerate(chosen):
            length = len(self.ids[i])
            arrays["input_word_ids"][row, :length] = self.ids[i]
            arrays["input_mask"][row, :length] = 1
            arrays["input_type_ids"][row, :length] = self.types[i]
        return arrays, self.targets[np.asarray(chosen)]


def text_rows(task: Task, tokenizer: Tokenizer, examples: Sequence[Example]) -> Rows:
    """`[CLS] text [SEP]` or `[CLS] first [SEP] second [SEP]`, cut to `task.max_length`."""
    ids, types = [], []
    length = min(task.max_length, tokenizer.max_length)
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        pairs = None if chunk[0].second is None else [example.second for example in chunk]
        arrays = tokenizer([example.first for example in chunk], pairs=pairs, max_length=length)
        for row, count in enumerate(arrays["input_mask"].sum(axis=1)):
            ids.append(arrays["input_word_ids"][row, :count].copy())  # a view would keep the padding
            types.append(arrays["input_type_ids"][row, :count].copy())
    dtype = "int32" if task.labels else "float32"
    return Rows(ids, types, np.array([example.label for example in examples], dtype), length)


def orders(rows: Rows, batch_size: int, draw: np.random.Generator | None) -> list[np.ndarray]:
    """The rows of each batch of an epoch. All rows occur once; only the last batch may be smaller.

    Rows of like length go together, since padding is computed like any token.

    Args:
        draw: rows are mixed, sorted within pools of 32 batches, and the batches mixed again. None: sorted throughout,
            the longest first.
    """
    lengths = np.array([len(ids) for ids in rows.ids])
    if draw is None:
        order = np.argsort(-lengths, kind="stable")
        return np.split(order, range(batch_size, len(order), batch_size))
    order = draw.permutation(len(rows))
    size = POOL * batch_size
    pools = [order[start : start + size] for start in range(0, len(order), size)]
    order = np.concatenate([pool[np.argsort(-lengths[pool], kind="stable")] for pool in pools])
    batches = np.split(order, range(batch_size, len(order), batch_size))
    return [batches[i] for i in draw.permutation(len(batches))]


def stream(rows: Rows, batch_size: int, seed: int, compiled: bool) -> Any:
    """Batches without end, in a new order in every epoch, as `fit` takes them; `compiled` as in `Rows.batch`."""
    draw = np.random.default_rng(seed)

    def endless() -> Iterator[tuple[Batch, np.ndarray]]:
        while True:
            for chosen in orders(rows, batch_size, draw):
                yield rows.batch(chosen, compiled)

    import keras

    if keras.backend.backend() != "tensorflow":
        return endless()
    import tensorflow as tf

    # Keras's own adapter would take a length for fixed that two batches happen to share.
    inputs = {name: tf.TensorSpec([None, None], tf.int32) for name in rows.batch([0])[0]}
    targets = tf.TensorSpec([None, *rows.targets.shape[1:]], rows.targets.dtype)
    return tf.data.Dataset.from_generator(endless, output_signature=(inputs, targets)).prefetch(2)
