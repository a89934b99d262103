"""`evaluate`: a fine-tuned model's scores by the official metrics, and whether it has learnt anything at all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bert_models.finetuning import squad_metrics
from bert_models.finetuning.heads import check_outputs, encoder_in
from bert_models.finetuning.metrics import METRICS
from bert_models.finetuning.reading import files_of, read_split
from bert_models.finetuning.results import Scores
from bert_models.finetuning.rows import Rows, orders, text_rows
from bert_models.finetuning.spans import Answer, Spans, answers, spans
from bert_models.finetuning.tasks import Example, SpanTask, Task, task_of
from bert_models.sentence_embeddings import check_pair
from bert_models.text.tokenize import Tokenizer
from tncompress.progress import progress_bar

# A random guess of a piece of the text has an F1 of 4.3 on SQuAD 1.1 (Rajpurkar et al. 2016, table 5); twice that.
CHANCE_F1 = 8.6

Data = str | Path | Mapping[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """The tokenised examples of a split.

    Args:
        task, examples: as given.
        rows: what the model sees.
        spans: where the rows are windows, how they belong together; else None.
    """

    task: Task | SpanTask
    examples: Sequence[Any]
    rows: Rows
    spans: Spans | None = None


def evaluate(
    model: Any,
    task: str | Task | SpanTask,
    data: Data,
    *,
    tokenizer: Tokenizer,
    splits: Sequence[str] | None = None,
    batch_size: int = 32,
    progress: bool | None = None,
) -> dict[str, Scores]:
    """The scores of a fine-tuned model by the task's official metrics, in points: 100 is best.

    Args:
        model: `FineTuned.model`, or such a one saved and loaded.
        task: its name in `TASKS`, or a task of your own.
        data: the folder with the task's files, see `read_task`; or split -> list of examples.
        tokenizer: the encoder's.
        splits: which ones; None: all but "train".
        batch_size: rows that are computed at once.
        progress: show bars; None: in a terminal.

    Returns:
        Split -> metric -> points. SQuAD 2.0 also has "exact" and "f1" at a threshold of 0, and the best thresholds.

    Raises:
        FileNotFoundError, ValueError: see `read_task`; labels out of range; a model of another task or vocabulary.

    Example:
        evaluate(tuned.model, "mnli", "glue", tokenizer=tokenizer)["dev_matched"]["accuracy"]
    """
    task = task_of(task)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number from 1, got {batch_size!r}.")
    tokenizer = fitting(tokenizer, model)
    choose_compiler(model)
    wanted = [split for split in task.splits if split != "train"] if splits is None else list(splits)
    return {
        split: scores(split_data, predict(model, split_data, batch_size, progress=progress))
        for split, split_data in prepared(task, tokenizer, data, wanted).items()
    }


def prepared(
    task: Task | SpanTask, tokenizer: Tokenizer, data: Data, splits: Sequence[str] | None = None
) -> dict[str, Prepared]:
    """Split -> examples, read where they are files, checked and tokenised.

    Raises:
        FileNotFoundError, ValueError: see `read_task`; a split is missing; a label is out of range.
    """
    if isinstance(data, str | Path):
        # All files are looked for before the first one is read.
        read = {split: read_split(task, split, file) for split, file in files_of(task, data, splits).items()}
    else:
        wanted = list(data) if splits is None else splits
        if missing := [split for split in wanted if split not in data]:
            raise ValueError(f"{task.name}: the data has no split {missing[0]!r}, only {', '.join(data)}.")
        read = {split: data[split] for split in wanted}
    return {split: _prepare(task, tokenizer, examples, split) for split, examples in read.items()}


def _prepare(task: Task | SpanTask, tokenizer: Tokenizer, examples: Sequence[Any], split: str) -> Prepared:
    if not len(examples):
        raise ValueError(f"{task.name}: the split {split!r} has no examples.")
    if isinstance(task, SpanTask):
        found = spans(task, tokenizer, examples)
        return Prepared(task, examples, found.rows, found)
    for number, example in enumerate(examples):
        _check(task, example, f"{task.name}, {split} example {number}")
    return Prepared(task, examples, text_rows(task, tokenizer, examples))


def _check(task: Task, example: Example, where: str) -> None:
    if (example.second is None) != (len(task.texts) == 1):
        raise ValueError(f"{where}: the task has {len(task.texts)} texts, the example is {example}.")
    if task.labels is None:
        low, high = task.score_range or (-math.inf, math.inf)
        if not (low <= example.label <= high and math.isfinite(example.label)):
            raise ValueError(f"{where}: the score must be from {low} to {high}, got {example.label!r}.")
    elif example.label not in range(len(task.labels)):
        raise ValueError(
            f"{where}: the label must be from 0 to {len(task.labels) - 1} ({', '.join(task.labels)}), "
            f"got {example.label!r}."
        )


def fitting(tokenizer: Tokenizer, model: Any) -> Tokenizer:
    """The tokenizer with rows that are not longer than the model's encoder takes, where the encoder can be found.

    Raises:
        ValueError: it has more tokens than the encoder.
    """
    if (encoder := encoder_in(model)) is None:
        return tokenizer
    check_pair(encoder, tokenizer)
    longest = encoder.config.max_positions
    return tokenizer if tokenizer.max_length <= longest else Tokenizer(tokenizer.backend, longest)


def choose_compiler(model: Any) -> None:
    """On TensorFlow, XLA would compile a model anew for every length, as Keras lets it where nothing else was said."""
    if not getattr(model, "compiled", True):
        model.jit_compile = keras.backend.backend() == "jax"


def predict(
    model: Any, data: Prepared, batch_size: int = 32, *, progress: bool | None = False
) -> np.ndarray | list[Answer]:
    """Class indices [n], scores [n], or the answers to the questions, in the order of the examples.

    Raises:
        ValueError: the model is of another task.
    """
    rows = data.rows
    outputs: list[Any] = [None] * len(rows)
    for chosen in progress_bar(orders(rows, batch_size, None), "Measuring", shown=progress):
        found = model.predict_on_batch(rows.batch(chosen, model.jit_compile)[0])
        check_outputs(data.task, getattr(found, "shape", None))
        for i, output in zip(chosen, np.asarray(found), strict=True):
            outputs[i] = output
    if data.spans is not None:
        return answers(data.task, data.spans, outputs)
    logits = np.stack(outputs)
    return logits[:, 0] if data.task.labels is None else np.argmax(logits, axis=-1)


def scores(data: Prepared, predictions: Any) -> Scores:
    """Metric -> points."""
    if data.spans is None:
        return {name: METRICS[name](predictions, data.rows.targets) for name in data.task.metrics}
    ids = [question.id for question in data.examples]
    texts = {name: answer.text for name, answer in zip(ids, predictions, strict=True)}
    if not data.task.unanswerable:
        return squad_metrics.scores(data.examples, texts)
    differences = {name: answer.no_answer for name, answer in zip(ids, predictions, strict=True)}
    at_zero = {name: "" if differences[name] > 0 else text for name, text in texts.items()}
    return {
        **squad_metrics.scores(data.examples, texts, differences, unanswerable=True),
        **squad_metrics.scores(data.examples, at_zero, unanswerable=True),
    }


def headline(task: Task | SpanTask, split_scores: Mapping[str, Scores]) -> float:
    """The one number of a task: the mean of its metrics on its first split but "train".

    >>> headline(task_of("mrpc"), {"dev": {"f1": 90.0, "accuracy": 86.0}})
    88.0
    """
    first = next(iter(split_scores.values()))
    return float(np.mean([first[name] for name in task.metrics]))


def trouble(data: Prepared, predictions: Any) -> str:
    """Why a run has not converged, or "": the predictions are all the same, or as good as by chance.

    Accuracy by chance is that of the same predictions if they had nothing to do with the labels, two standard errors
    added; a correlation by chance is below two standard errors, 2 / sqrt(n). An F1 of SQuAD is compared with a random
    guess's, and in version 2.0 with never answering.
    """
    if isinstance(data.task, SpanTask):
        return _trouble_of_answers(data, predictions)
    labels, count = data.rows.targets, len(data.rows)
    if np.ptp(predictions) == 0:
        return f"it predicts {_name(data.task, predictions[0])} for each of the {count:,} examples"
    if data.task.labels is None:
        found, chance = METRICS["pearson"](predictions, labels), 200 / math.sqrt(count)
        name = "a correlation"
    else:
        found, name = METRICS["accuracy"](predictions, labels), "an accuracy"
        shares = (np.bincount(x, minlength=len(data.task.labels)) / count for x in (predictions, labels))
        agreement = float(np.prod(list(shares), axis=0).sum())
        chance = 100 * (agreement + 2 * math.sqrt(agreement * (1 - agreement) / count))
    return f"{name} of {found:.1f} is not above chance ({chance:.1f})" if found <= chance else ""


def _trouble_of_answers(data: Prepared, predictions: Sequence[Answer]) -> str:
    found, name = scores(data, predictions), data.task.metrics[-1]
    empty = 100 * float(np.mean([not question.answers for question in data.examples]))
    chance = max(CHANCE_F1, empty)
    if found[name] <= chance:
        what = "never answering" if empty >= CHANCE_F1 else "chance"
        return f"an F1 of {found[name]:.1f} is not above that of {what} ({chance:.1f})"
    return ""


def _name(task: Task, prediction: Any) -> str:
    return f"{prediction:.2f}" if task.labels is None else repr(task.labels[int(prediction)])
