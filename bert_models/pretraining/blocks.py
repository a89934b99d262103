"""The work in pieces: files to blocks of documents, a block to records. What runs these decides nothing about them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bert_models.pretraining import draws
from bert_models.pretraining.examples import Document, Pair, Sentence, full_sentences, sentence_pairs, to_arrays
from bert_models.pretraining.masking import MaskRule, mask_rows
from bert_models.pretraining.records import examples
from bert_models.pretraining.sentences import LAYOUTS, sentences
from bert_models.pretraining.settings import DataSettings
from bert_models.pretraining.wordpieces import WordPieces

# Duplicates of a block that are made together: so many that the text is not tokenised too often, and so few that
# their records fit in memory several times and a small corpus keeps several workers busy.
DUPLICATES_TOGETHER = 10


@dataclass(frozen=True)
class Block:
    """Documents that are handled together.

    Args:
        key: what randomness depends on, its place in the corpus.
        documents: each a list of paragraphs or sentences.
        num_bytes: about how much text that is.
    """

    key: str
    documents: list[list[str]]
    num_bytes: int


@dataclass(frozen=True)
class Task:
    """A block, and which of its duplicates to make: from `first` on, so many."""

    block: Block
    first: int
    count: int


def groups_of_files(sizes: Sequence[int], block_bytes: int) -> list[list[int]]:
    """Numbers of the files that are read one after the other: enough for a block, and two or more if there are two.

    Files may hold a document each, and pairs need two documents; so small files are read together. Empty ones are left
    out.

    >>> groups_of_files([90, 0, 5, 5, 5, 90], block_bytes=10), groups_of_files([20], block_bytes=10)
    ([[0, 2], [3, 4, 5]], [[0]])
    """
    groups: list[list[int]] = [[]]
    for i, size in enumerate(sizes):
        if not size:
            continue
        last = groups[-1]
        if len(last) >= 2 and sum(sizes[k] for k in last) >= block_bytes:
            groups.append([])
        groups[-1].append(i)
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    return [group for group in groups if group]


def blocks(documents: Iterable[list[str]], group: int, block_bytes: int) -> Iterator[Block]:
    """The documents of a group of files, block after block; each has two or more documents if there are two.

    >>> found = blocks([["aaa"], ["bbb"], ["ccc"], ["ddd"], ["eee"]], group=7, block_bytes=4)
    >>> [(block.key, len(block.documents)) for block in found]
    [('7.0', 2), ('7.1', 3)]
    """
    number, held, block, size = 0, [], [], 0
    for document in documents:
        block.append(document)
        size += _num_bytes(document)
        if size >= block_bytes and len(block) >= 2:
            if held:
                yield _block(group, number, held)
                number += 1
            held, block, size = block, [], 0
    if held and len(block) >= 2:
        yield _block(group, number, held)
        number, held = number + 1, []
    if held or block:
        yield _block(group, number, held + block)


def _block(group: int, number: int, documents: list[list[str]]) -> Block:
    return Block(f"{group}.{number}", documents, sum(map(_num_bytes, documents)))


def _num_bytes(document: list[str]) -> int:
    return sum(len(line.encode()) + 1 for line in document)


def tasks(block: Block, settings: DataSettings) -> Iterator[Task]:
    """The pieces of work of a block."""
    for first in range(0, settings.duplicates, DUPLICATES_TOGETHER):
        yield Task(block, first, min(DUPLICATES_TOGETHER, settings.duplicates - first))


@dataclass(frozen=True)
class Records:
    """What a task gives.

    Args:
        entries: (number of the shard, place in the shard as 16 bytes, record) of each example.
        counts: what was found in the text; its documents are counted with the first duplicates only.
    """

    entries: list[tuple[int, bytes, bytes]]
    counts: dict[str, int]


def records(task: Task, settings: DataSettings, pieces: WordPieces) -> Records:
    """Tokenise the documents of a block, share them out to rows, mask these, and say where they go."""
    layout = LAYOUTS[settings.layout]
    texts = (pieces.encode(sentences(document, layout)) for document in task.block.documents)
    # A sentence may have no tokens, if it is of control characters.
    documents = [document for text in texts if (document := [sentence for sentence in text if sentence])]
    entries, predictions = [], 0
    for duplicate in range(task.first, task.first + task.count):
        key = (settings.seed, task.block.key, duplicate)
        arrays = _arrays(documents, settings, pieces, key)
        predictions += int(arrays.get("masked_lm_weights", np.zeros(0)).sum())
        for i, example in enumerate(examples(arrays)):
            place = draws.digest("place", *key, i)
            shard = int.from_bytes(draws.digest("shard", *key, i), "little") % settings.num_shards
            entries.append((shard, place, example))
    tokens = sum(len(sentence) for document in documents for sentence in document)
    found = {
        "documents": len(documents),
        "sentences": sum(map(len, documents)),
        "tokens": tokens,
        "bytes": task.block.num_bytes,
    }
    is_first = task.first == 0
    counts = {name: count * is_first for name, count in found.items()}
    return Records(entries, counts | {"examples": len(entries), "predictions": predictions})


def _arrays(documents: list[Document], settings: DataSettings, pieces: WordPieces, key: tuple) -> dict[str, np.ndarray]:
    """Name -> array [rows, ...] of all that is in the records of one duplicate."""
    arrays = to_arrays(list(_rows(documents, settings, pieces, key)), pieces, settings.max_length)
    if settings.masking == "dynamic":
        return arrays
    rule = MaskRule(settings.mask_rate, settings.predictions, settings.whole_words)
    uniform = draws.uniform((3, *arrays["input_word_ids"].shape), "masks", *key)
    return arrays | mask_rows(arrays["input_word_ids"], pieces, rule, uniform)


def _rows(
    documents: list[Document], settings: DataSettings, pieces: WordPieces, key: tuple
) -> Iterator[Pair | Sentence]:
    if settings.packing == "full_sentences":
        yield from full_sentences(documents, pieces.sep, settings.max_length - 2, fill=settings.fill_rows)
        return
    for number in range(len(documents)):
        source = draws.numbers("pairs", *key, number)
        yield from sentence_pairs(documents, number, source, settings.max_length - 3, settings.short_rate)
