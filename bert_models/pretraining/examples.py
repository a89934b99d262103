"""How sentences share rows: the original BERT's pairs, and RoBERTa's rows of full sentences."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bert_models.pretraining.draws import below
from bert_models.pretraining.wordpieces import WordPieces
from bert_models.text.pack import kept_lengths

Sentence = list[int]  # ids of its tokens, at least one
Document = list[Sentence]  # at least one


@dataclass(frozen=True)
class Pair:
    """Two pieces of text, and whether the second is from elsewhere.

    Args:
        first, second: ids, without special tokens.
        is_random: the second does not follow the first: class 1 of next-sentence prediction, as in the original BERT.
    """

    first: Sentence
    second: Sentence
    is_random: bool


def sentence_pairs(
    documents: Sequence[Document], number: int, source: random.Random, budget: int, short_rate: float
) -> Iterator[Pair]:
    """The pairs that begin in one document, together at most `budget` tokens each.

    Sentences are gathered until there are enough for a pair and parted at a random place. In half of the cases, and
    where there is one sentence only, the second part comes from another document instead, and the one that it displaces
    is used in the next pair. A share `short_rate` of the documents aims at shorter pairs, of a length drawn for the
    document. What is too long loses tokens, the longer part first, from its front or its end by chance.

    Args:
        documents: where to take random parts from; if there is no other, they are from the same document.
        number: of the document.

    Source: Devlin et al. 2018, arXiv:1810.04805, appendix A.2; create_pretraining_data.py of google-research/bert.

    >>> for pair in sentence_pairs([[[1, 2], [3], [4, 5]], [[6], [7]]], 0, random.Random(1), budget=9, short_rate=0):
    ...     print(pair)
    Pair(first=[1, 2, 3], second=[4, 5], is_random=False)
    """
    document = documents[number]
    target = 2 + below(source, budget - 1) if source.random() < short_rate else budget
    start = 0
    while start < len(document):
        end = _end_of_chunk(document, start, target)
        count = end - start
        middle = start + (1 + below(source, count - 1) if count > 1 else 1)
        first = _joined(document[start:middle])
        is_random = count == 1 or source.random() < 0.5
        if is_random:
            second = _random_part(documents, number, source, target - len(first))
            start = middle
        else:
            second = _joined(document[middle:end])
            start = end
        kept = kept_lengths([len(first), len(second)], budget)
        yield Pair(_cut(first, kept[0], source), _cut(second, kept[1], source), is_random)


def _end_of_chunk(document: Document, start: int, target: int) -> int:
    """Behind the sentence with which there are `target` tokens or more, or behind the last."""
    length = 0
    for i in range(start, len(document)):
        length += len(document[i])
        if length >= target:
            return i + 1
    return len(document)


def _random_part(documents: Sequence[Document], number: int, source: random.Random, target: int) -> Sentence:
    if len(documents) > 1:
        other = below(source, len(documents) - 1)
        number = other + (other >= number)
    document = documents[number]
    start = below(source, len(document))
    return _joined(document[start : _end_of_chunk(document, start, target)])


def _cut(tokens: Sentence, kept: int, source: random.Random) -> Sentence:
    """The tokens without those that are too many; each of these is taken off the front or the end by chance."""
    front = sum(source.random() < 0.5 for _ in range(len(tokens) - kept))
    return tokens[front : front + kept]


def _joined(sentences: Sequence[Sentence]) -> Sentence:
    return [token for sentence in sentences for token in sentence]


def full_sentences(
    documents: Sequence[Document], separator: int, budget: int, *, fill: bool = False
) -> Iterator[Sentence]:
    """Rows of sentences that follow each other, over the ends of documents too, with a separator there.

    A row ends where the next sentence does not fit, and holds at most `budget` tokens. A sentence that fits in no row
    is cut in pieces.

    Args:
        separator: id of the token between documents.
        budget: tokens in a row, without the special tokens at its ends.
        fill: cut the sentence that does not fit, and go on with its rest in the next row. Then all rows but the last
            hold `budget` tokens, or one less if just the separator would fit.

    Source: FULL-SENTENCES in Liu et al. 2019, arXiv:1907.11692, section 4.2.

    >>> list(full_sentences([[[1, 2], [3, 4]], [[5, 6, 7]]], separator=0, budget=5))
    [[1, 2, 3, 4], [5, 6, 7]]
    >>> list(full_sentences([[[1, 2], [3, 4]], [[5, 6, 7]]], separator=0, budget=6, fill=True))
    [[1, 2, 3, 4, 0, 5], [6, 7]]
    """
    row: Sentence = []
    for document in documents:
        gap = [separator]
        for sentence in document:
            rest = sentence
            while rest:
                before = gap if row else []
                room = budget - len(row) - len(before)
                fits = len(rest) <= room or fill or not row
                if not fits or room <= 0:
                    yield row
                    row = []
                    continue
                row += before + rest[:room]
                rest = rest[room:]
                gap = []
    if row:
        yield row


def to_arrays(rows: Sequence[Pair | Sentence], pieces: WordPieces, max_length: int) -> dict[str, np.ndarray]:
    """Rows with their special tokens, padded: `[CLS] first [SEP] second [SEP]` or `[CLS] row [SEP]`.

    Returns:
        `input_word_ids`, `input_mask`, `input_type_ids`, int32 [rows, max_length], and for pairs
        `next_sentence_labels`, int32 [rows, 1], 1 where the second text is a random one.
    """
    ids = np.full((len(rows), max_length), pieces.pad, "int32")
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for i, row in enumerate(rows):
        is_pair = isinstance(row, Pair)
        first = [pieces.cls, *(row.first if is_pair else row), pieces.sep]
        second = [*row.second, pieces.sep] if is_pair else []
        length = len(first) + len(second)
        ids[i, :length] = first + second
        mask[i, :length] = 1
        types[i, len(first) : length] = 1
    arrays = {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}
    if rows and isinstance(rows[0], Pair):
        arrays["next_sentence_labels"] = np.array([[row.is_random] for row in rows], "int32")
    return arrays
