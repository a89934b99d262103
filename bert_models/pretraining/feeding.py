"""Folders of pretraining data to what `fit` is fed with: checked against recipe and encoder, and from any step on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from bert_models.config import BertConfig
from bert_models.pretraining.info import read_info
from bert_models.pretraining.reading import ALL, batched, num_examples, records
from bert_models.pretraining.recipes import Recipe
from bert_models.pretraining.settings import DataSettings
from bert_models.pretraining.wordpieces import WordPieces

PADDING = 128  # so many rows more than the vocabulary an embedding table may have, since tables are padded for tiles


@dataclass(frozen=True)
class Source:
    """A folder of pretraining data that was looked at.

    Attributes:
        folder: where it is.
        examples: how many there are.
        digest: short text that differs between data.
    """

    folder: Path
    examples: int
    digest: str


def checked_sources(
    data: str | Path | Sequence[str | Path], recipe: Recipe, config: BertConfig, tokenizer: Any, batch_size: int
) -> list[Source]:
    """The folders, one for each stage of the recipe.

    Args:
        batch_size: examples that each must have at least.

    Raises:
        FileNotFoundError: a folder is not complete.
        ValueError: another number of folders than stages; or a folder that does not fit recipe, encoder or tokenizer.
    """
    folders = [data] if isinstance(data, str | Path) else list(data)
    if len(folders) != len(recipe.stages):
        raise ValueError(
            f"the recipe has {len(recipe.stages)} stages, so it needs as many folders of data, got {len(folders)}; "
            "recipe.on(settings) makes it one stage."
        )
    return [_checked(Path(folder), recipe, config, tokenizer, batch_size) for folder in folders]


def _checked(folder: Path, recipe: Recipe, config: BertConfig, tokenizer: Any, batch_size: int) -> Source:
    info = read_info(folder)
    settings, vocabulary = DataSettings(**info["settings"]), info["vocabulary"]
    examples = num_examples(folder, info, batch_size)
    if recipe.next_sentence and settings.packing != "next_sentence":
        raise ValueError(
            f"{folder} has no next-sentence labels, which the recipe wants: write it with packing='next_sentence', or "
            "take recipe.on(DataSettings('full_sentences', ...))."
        )
    if settings.max_length > config.max_positions:
        raise ValueError(
            f"{folder} has rows of {settings.max_length} tokens, but the encoder has {config.max_positions} positions."
        )
    _check_vocabulary(folder, vocabulary, config, tokenizer)
    digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()[:16]
    return Source(folder, examples, digest)


def _check_vocabulary(folder: Path, vocabulary: dict[str, Any], config: BertConfig, tokenizer: Any) -> None:
    size = vocabulary["size"]
    if not size <= config.vocab_size < size + PADDING:
        raise ValueError(
            f"{folder} was made with a vocabulary of {size:,} tokens, but the encoder has {config.vocab_size:,}; build "
            f"it with vocab_size={size}, or write the data with its own tokenizer."
        )
    if tokenizer is not None and WordPieces.of(tokenizer).digest != vocabulary["digest"]:
        raise ValueError(
            f"{folder} was made with another vocabulary than the tokenizer's; write it again with this one."
        )


def batches(
    source: Source, tokenizer: Any, batch_size: int, seed: int, *, start: int = 0, once: bool = False, rows: slice = ALL
) -> tf.data.Dataset:
    """Batches of a source from number `start` on, for ever or once, as `reading.dataset` describes them.

    They depend on nothing but the arguments.

    Args:
        source: what `checked_sources` gave.
        tokenizer: for dynamic masks.
        batch_size: rows of a whole batch.
        start: batches that were seen before. How many records each shard has is known, so none of them is read.
        rows: those of each batch that are wanted here, where others are read elsewhere.
    """
    info = read_info(source.folder)
    examples = records(source.folder, info["shards"], seed, epochs=1 if once else None, first=start * batch_size)
    found = batched(examples, source.folder, info, batch_size, tokenizer, seed, first=start, rows=rows)
    if not once:
        return found
    # Keras warns at the end of data whose length it does not know.
    return found.apply(tf.data.experimental.assert_cardinality(source.examples // batch_size - start))
