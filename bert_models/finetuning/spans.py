"""SQuAD's texts as overlapping windows, and answers back from what the model says about the windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert_models.finetuning.rows import Rows
from bert_models.finetuning.squad import Question
from bert_models.finetuning.tasks import SpanTask
from bert_models.text.tokenize import Tokenizer

NOWHERE = (0, 0)  # [CLS] begins and ends the answer that a window does not have
_SPECIAL = 3  # [CLS] question [SEP] text [SEP]


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a question's text, as one row.

    Args:
        question: its index.
        first, count: which tokens of the text it has.
        prefix: tokens of the row before them.
    """

    question: int
    first: int
    count: int
    prefix: int


@dataclass(frozen=True, eq=False)
class Spans:
    """Questions, their windows as rows, and where the tokens of their texts are.

    Args:
        questions: as given.
        windows: of all questions, one after the other.
        rows: of the windows; targets int32 [windows, 2]: first and last token of the answer, in the row.
        offsets: of each question int [tokens, 2]: where each token of its text starts and ends, in characters.
    """

    questions: Sequence[Question]
    windows: Sequence[Window]
    rows: Rows
    offsets: Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Answer:
    """The best answer that is not empty, and how much likelier it is that there is none (a difference of logits)."""

    text: str
    no_answer: float


def spans(task: SpanTask, tokenizer: Tokenizer, questions: Sequence[Question]) -> Spans:
    """The windows of all questions, `[CLS] question [SEP] piece of the text [SEP]`.

    Raises:
        ValueError: the encoder takes fewer tokens than there must be for a long question and a piece of text.
    """
    backend, length = tokenizer.backend, min(task.max_length, tokenizer.max_length)
    if length < task.max_question + _SPECIAL + 1:
        raise ValueError(
            f"windows of {length} tokens have no room for a question of {task.max_question} and a text; set max_length "
            "and max_question of the task with dataclasses.replace."
        )
    texts = list(dict.fromkeys(question.context for question in questions))
    encoded = dict(zip(texts, backend.encode_batch(texts, add_special_tokens=False), strict=True))
    asked = backend.encode_batch([question.question for question in questions], add_special_tokens=False)
    cls, sep = (backend.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    windows, ids, types, targets, offsets = [], [], [], [], []
    for index, (question, query) in enumerate(zip(questions, asked, strict=True)):
        text = encoded[question.context]
        head = [cls, *query.ids[: task.max_question], sep]
        offsets.append(np.array(text.offsets, "int32").reshape(-1, 2))
        answer = answer_tokens(offsets[-1], question)
        for first, count in pieces(len(text), length - len(head) - 1, task.stride):
            windows.append(Window(index, first, count, len(head)))
            ids.append(np.array([*head, *text.ids[first : first + count], sep], "int32"))
            types.append(np.array([0] * len(head) + [1] * (count + 1), "int32"))
            targets.append(_within(answer, windows[-1]))
    return Spans(questions, windows, Rows(ids, types, np.array(targets, "int32"), length), offsets)


def pieces(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """First token and number of tokens of each window; the last one reaches the end.

    >>> pieces(10, room=6, stride=3)
    [(0, 6), (3, 6), (6, 4)]
    >>> pieces(6, room=6, stride=3)
    [(0, 6)]
    """
    starts = [0]
    while starts[-1] + room < tokens:
        starts.append(starts[-1] + min(stride, room))
    return [(start, min(room, tokens - start)) for start in starts]


def answer_tokens(offsets: np.ndarray, question: Question) -> tuple[int, int] | None:
    """First and last token of the first answer: all that it touches. None if there is no answer, or no token in it."""
    if not question.answers:
        return None
    start, text = question.answers[0]
    touched = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < start + len(text)))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def _within(answer: tuple[int, int] | None, window: Window) -> tuple[int, int]:
    """The answer's tokens in the row of a window that has all of it."""
    if answer is None or answer[0] < window.first or answer[1] >= window.first + window.count:
        return NOWHERE
    shift = window.prefix - window.first
    return answer[0] + shift, answer[1] + shift


def answers(task: SpanTask, spans: Spans, logits: Sequence[np.ndarray]) -> list[Answer]:
    """The answer to each question, from the logits of its windows.

    The likeliest pair of a start and an end of one window, by the sum of both logits; the answer is at most
    `task.max_answer` tokens long, and starts at a token only in the window where that has most context on both sides.
    That there is no answer is as likely as the least likely [CLS] of all windows.

    Args:
        logits: of each window [tokens of the row or more, 2].

    Source: google-research/bert, run_squad.py.
    """
    best: list[tuple[float, str]] = [(-np.inf, "")] * len(spans.questions)
    none = np.full(len(spans.questions), np.inf)
    owners = _owners(spans.windows)
    for number, (window, both) in enumerate(zip(spans.windows, logits, strict=True)):
        none[window.question] = min(none[window.question], both[0].sum())
        score, start, end = _best_pair(task, both[window.prefix : window.prefix + window.count], owners[number])
        if score > best[window.question][0]:
            at = spans.offsets[window.question]
            text = spans.questions[window.question].context[at[window.first + start, 0] : at[window.first + end, 1]]
            best[window.question] = score, text
    # A text without a token cannot have an answer.
    differences = [float(n - score) if np.isfinite(score) else 0.0 for n, (score, _) in zip(none, best, strict=True)]
    return [Answer(text, difference) for (_, text), difference in zip(best, differences, strict=True)]


def _best_pair(task: SpanTask, logits: np.ndarray, is_owner: np.ndarray) -> tuple[float, int, int]:
    """Score, first and last token of the best answer in a piece [tokens, 2] of text."""
    starts = np.where(is_owner, logits[:, 0], -np.inf)
    starts_at, ends_at = (np.argsort(-x, kind="stable")[: task.best] for x in (starts, logits[:, 1]))
    sums = starts[starts_at][:, None] + logits[ends_at, 1]  # [starts, ends]
    length = ends_at - starts_at[:, None] + 1
    sums = np.where((length > 0) & (length <= task.max_answer), sums, -np.inf)
    if not sums.size or not np.isfinite(sums.max()):
        return -np.inf, 0, 0
    row, column = np.unravel_index(np.argmax(sums), sums.shape)
    return float(sums[row, column]), int(starts_at[row]), int(ends_at[column])


def _owners(windows: Sequence[Window]) -> list[np.ndarray]:
    """Of each window bool [count]: whether a token has most context there, of all windows of its question."""
    groups: dict[int, list[int]] = {}
    for number, window in enumerate(windows):
        groups.setdefault(window.question, []).append(number)
    owners: list[np.ndarray] = [np.empty(0, bool)] * len(windows)
    for numbers in groups.values():
        total = max(windows[n].first + windows[n].count for n in numbers)
        context = np.full((len(numbers), total), -np.inf)  # [windows, tokens]
        for row, n in enumerate(numbers):
            count = windows[n].count
            places = np.arange(count)
            context[row, windows[n].first : windows[n].first + count] = np.minimum(places, count - 1 - places)
        # Of equals the first: it is no shorter than the others, and BERT's code prefers the longer.
        winner = context.argmax(axis=0) if total else np.empty(0, int)
        for row, n in enumerate(numbers):
            owners[n] = winner[windows[n].first : windows[n].first + windows[n].count] == row
    return owners
