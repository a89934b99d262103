"""SQuAD's files: every question with its text and answers."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_models.finetuning.reading import read_text
from tncompress.limits import shown


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a text.

    Args:
        id: of the question, unique in its file.
        question, context: the texts.
        answers: where each answer starts in the context, in characters, and the answer. Empty: there is none.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[int, str], ...]


def read_questions(file: str | Path, *, answers_needed: bool = False) -> list[Question]:
    """All questions of a file of SQuAD 1.1 or 2.0.

    Args:
        answers_needed: refuse questions without an answer, as there are none in version 1.1.

    Raises:
        ValueError: not UTF-8, not JSON, other keys than SQuAD's, an id that occurs twice, an answer that is not in its
            text at the place that is said; with the file and the place in it.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, and 2018, arXiv:1806.03822.
    """
    text = read_text(file)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {error.lineno}: this is not JSON ({error.msg}).") from None
    except RecursionError:
        raise ValueError(f"{file}: this JSON is nested too deeply for SQuAD's.") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{file}: this is not JSON that can be read ({error}).") from None
    questions = list(_questions(data, file))
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ValueError(f"{file}: the id {shown(question.id)} occurs twice.")
        seen.add(question.id)
        if answers_needed and not question.answers:
            raise ValueError(
                f"{file}: question {shown(question.id)} has no answer; is this version 2.0? Its task is squad2."
            )
    if not questions:
        raise ValueError(f"{file} has no questions.")
    return questions


def _questions(data: Any, file: str | Path) -> Iterator[Question]:
    for number, article in enumerate(_list(data, "data", str(file))):
        for index, paragraph in enumerate(_list(article, "paragraphs", f"{file}, article {number}")):
            where = f"{file}, article {number}, paragraph {index}"
            context = _value(paragraph, "context", str, where)
            for qa in _list(paragraph, "qas", where):
                name = _value(qa, "id", str, where)
                where_question = f"{file}, question {shown(name)}"
                question = _value(qa, "question", str, where_question)
                # Version 2.0 has plausible answers beside the answers of a question that has none.
                answers = tuple(_answer(one, context, where_question) for one in _list(qa, "answers", where_question))
                yield Question(name, question, context, answers)


def _answer(value: Any, context: str, where: str) -> tuple[int, str]:
    start, text = _value(value, "answer_start", int, where), _value(value, "text", str, where)
    if not text or start < 0 or context[start : start + len(text)] != text:
        found = context[max(start, 0) : max(start, 0) + len(text)]
        raise ValueError(
            f"{where}: the answer {shown(text)} should start at character {start}, but there is {shown(found)}."
        )
    return start, text


def _list(value: Any, key: str, where: str) -> list:
    return _value(value, key, list, where)


def _value(value: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get(key), kind):
        raise ValueError(
            f"{where}: an object with {key!r}, of type {kind.__name__}, was expected, as in SQuAD's files."
        )
    if kind is str and not value[key].isascii() and re.search("[\ud800-\udfff]", value[key]):
        raise ValueError(f"{where}: {key!r} holds half of a character (a lone surrogate); write the whole one.")
    return value[key]
