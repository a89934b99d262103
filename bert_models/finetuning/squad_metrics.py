"""SQuAD's metrics by its official scripts: exact match, F1, and the best threshold for no answer. Needs no Keras."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from bert_models.finetuning.squad import Question

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """An answer without capitals, ASCII punctuation, articles and additional spaces, in this order.

    >>> normalized("The  U.S. Army's  an-swer")
    'us armys answer'
    """
    text = re.sub(r"\b(a|an|the)\b", " ", answer.lower().translate(_PUNCTUATION))
    return " ".join(text.split())


def exact(prediction: str, answer: str) -> float:
    """1 where the two are the same once normalised, else 0.

    >>> exact("the Broncos.", "Broncos")
    1.0
    """
    return float(normalized(prediction) == normalized(answer))


def f1(prediction: str, answer: str, *, empty_agree: bool = True) -> float:
    """Harmonic mean of precision and recall over the words of the normalised texts, from 0 to 1.

    Args:
        empty_agree: two texts without words agree, as in the script of version 2.0; in that of 1.1 they do not.

    >>> f1("in the year 1066", "1066 AD")  # one word in common, of three and of two
    0.4
    """
    found, wanted = (normalized(text).split() for text in (prediction, answer))
    if not found or not wanted:
        return float(empty_agree and found == wanted)
    same = sum((Counter(found) & Counter(wanted)).values())
    return 2 * same / (len(found) + len(wanted))


def scores(
    questions: Sequence[Question],
    predictions: Mapping[str, str],
    no_answer_scores: Mapping[str, float] | None = None,
    *,
    unanswerable: bool = False,
) -> dict[str, float]:
    """Exact match and F1 in points, as the official scripts of version 1.1, or 2.0 with `unanswerable`.

    Args:
        questions: with their answers.
        predictions: id -> text; "" says that there is no answer.
        no_answer_scores: id -> how likely it is that there is none, on any scale. The text in `predictions` is then
            the best one that is not empty, and what is predicted is empty where the score is above a threshold.
        unanswerable: questions may have no answer; each prediction's score is that with the best fitting answer.

    Returns:
        "exact" and "f1", of the predictions as they are. With `no_answer_scores` also "best_exact" and "best_f1", the
        highest that a threshold gives, and "best_exact_threshold" and "best_f1_threshold": answer where the score is
        not above it. As in the official script the threshold is fitted to the very answers that are measured.

    Raises:
        ValueError: a question without a prediction. The scripts give it 0 (1.1), or leave it out (2.0).
    """
    if missing := [q.id for q in questions if q.id not in predictions]:
        raise ValueError(f"{len(missing)} of {len(questions)} questions have no prediction, e.g. {missing[0]!r}.")
    agreement = {
        "exact": lambda prediction, answer: exact(prediction, answer),
        "f1": lambda prediction, answer: f1(prediction, answer, empty_agree=unanswerable),
    }
    found: dict[str, float] = {}
    for name, agree in agreement.items():
        points = np.array(
            [max(agree(predictions[q.id], answer) for answer in _answers(q, unanswerable)) for q in questions]
        )
        found[name] = 100 * float(points.mean())
        if no_answer_scores is not None:
            best, threshold = best_threshold(
                points,
                np.array([no_answer_scores[q.id] for q in questions]),
                np.array([bool(q.answers) for q in questions]),
                np.array([bool(predictions[q.id]) for q in questions]),
            )
            found |= {f"best_{name}": best, f"best_{name}_threshold": threshold}
    return found


def best_threshold(
    points: np.ndarray, no_answer_scores: np.ndarray, has_answer: np.ndarray, predicted: np.ndarray
) -> tuple[float, float]:
    """The highest mean that is reached by answering only where the score of no answer is not above a threshold.

    The official script walks through the scores one by one, so where several are equal it may find a mean between them,
    which no threshold gives; here equal ones go together.

    Args:
        points: [n], from 0 to 1, of each prediction if it is given.
        no_answer_scores: [n].
        has_answer: [n], whether the question has an answer.
        predicted: [n], whether the prediction is not empty.

    Returns:
        100 times the mean, and the threshold: the lowest of the best, below all scores if nothing is to be answered.

    >>> best_threshold(np.array([1.0, 0.5, 0.0]), np.array([-3.0, 1.0, 4.0]), np.array([1, 1, 0]), np.ones(3))
    (83.33..., 1.0)
    """
    order = np.argsort(no_answer_scores, kind="stable")
    # What answering changes: an empty answer to a question that has none is right either way.
    gains = np.where(has_answer, points, -1.0 * np.asarray(predicted, bool))[order]
    thresholds = no_answer_scores[order]
    totals = np.sum(~np.asarray(has_answer, bool)) + np.concatenate([[0.0], np.cumsum(gains)])
    last_of_equals = np.concatenate([[True], np.append(thresholds[1:] != thresholds[:-1], True)])
    totals[~last_of_equals] = -np.inf
    best = int(np.argmax(totals))
    threshold = thresholds[best - 1] if best else thresholds[0] - 1.0
    return 100 * float(totals[best]) / len(points), float(threshold)


def _answers(question: Question, unanswerable: bool) -> list[str]:
    """The texts that are right; only "" if there is none. Version 2.0 ignores answers of articles and punctuation."""
    texts = [text for _, text in question.answers]
    if not unanswerable:
        return texts or [""]
    return [text for text in texts if normalized(text)] or [""]
