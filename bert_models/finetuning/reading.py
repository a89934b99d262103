"""A task's files: GLUE's tables as examples, with the file, line and byte of whatever is wrong in them."""

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from bert_models.finetuning.tasks import Example, SpanTask, Task, task_of


def read_task(task: str | Task | SpanTask, folder: str | Path) -> dict[str, list]:
    """All splits of a task: "train", "dev" ("dev_matched" and "dev_mismatched" for MNLI).

    Args:
        task: its name, see `bert_models.TASKS`, or a `Task` of your own.
        folder: the task's own folder, or the one of all of GLUE, in which the task's has its official name.

    Returns:
        Split -> list of `Example`, or of `squad.Question`.

    Raises:
        FileNotFoundError: files are missing; all expected ones are named.
        ValueError: what is in a file is not right; file and line, or byte.

    Example:
        read_task("cola", "glue")["dev"][0]  # Example(first='The sailors rode the breeze ...', second=None, label=1)
    """
    task = task_of(task)
    return {split: read_split(task, split, file) for split, file in files_of(task, folder).items()}


def read_split(task: Task | SpanTask, split: str, file: Path) -> list:
    """The examples of one file; see `read_task`."""
    if isinstance(task, SpanTask):
        from bert_models.finetuning.squad import read_questions

        return read_questions(file, answers_needed=split == "train" and not task.unanswerable)
    return read_examples(task, file)


def files_of(task: Task | SpanTask, folder: str | Path, splits: Sequence[str] | None = None) -> dict[str, Path]:
    """Split -> its file, all of them there.

    Args:
        splits: only these; None: all.

    Raises:
        FileNotFoundError: some are not there.
        ValueError: the task has no such split.
    """
    folder, wanted = Path(folder), list(task.splits if splits is None else splits)
    if unknown := [split for split in wanted if split not in task.splits]:
        raise ValueError(f"{task.name} has no split {unknown[0]!r}; it has {', '.join(task.splits)}.")
    names = [task.splits[split] for split in wanted]
    places = [place for place in (folder, folder / task.folder) if place.is_dir()]
    place = next((place for place in places if all((place / name).is_file() for name in names)), None)
    if place is None:
        # Of the two places, tell about the one that has the most.
        nearest = max(places, key=lambda p: sum((p / n).is_file() for n in names), default=folder)
        missing = [name for name in names if not (nearest / name).is_file()]
        raise FileNotFoundError(
            f"{task.name} needs {', '.join(names)} in {str(folder)!r} or its folder {task.folder!r}; "
            f"{'there is no such folder' if not places else 'missing: ' + ', '.join(missing)}."
        )
    return {split: place / name for split, name in zip(wanted, names, strict=True)}


def read_examples(task: Task, file: str | Path) -> list[Example]:
    """The examples of one table: tab-separated columns, one example a line.

    Quotation marks are text: GLUE's files are not quoted, and a reader of CSV would join lines at a lone mark.

    Raises:
        ValueError: not UTF-8 (with the byte), no example, a line with other columns than the heading, a label that
            is none of the task's, a score out of its range.
    """
    lines = read_text(file).split("\n")
    columns, first = task.columns, 1
    if columns is None:
        columns, first = tuple(lines[0].rstrip("\r").split("\t")), 2
        if lacking := [name for name in (*task.texts, task.label) if name not in columns]:
            raise ValueError(
                f"{file}, line 1: a heading with the columns {', '.join((*task.texts, task.label))} was expected, "
                f"but there is no {lacking[0]!r} in {', '.join(columns[:12])}."
            )
    at = [columns.index(name) for name in (*task.texts, task.label)]
    examples = []
    for number, row in _rows(lines[first - 1 :], first, columns, file, task.skips_damaged):
        *texts, label = (row[i] for i in at)
        where = f"{file}, line {number}"
        examples.append(Example(texts[0], texts[1] if len(texts) > 1 else None, label_of(task, label, where)))
    if not examples:
        raise ValueError(f"{file} has no examples; lines of {', '.join(columns)} were expected.")
    return examples


def _rows(
    lines: Sequence[str], first: int, columns: Sequence[str], file: str | Path, skips_damaged: bool
) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is not empty."""
    damaged = []
    for number, line in enumerate(lines, start=first):
        row = line.rstrip("\r").split("\t")
        if len(row) == len(columns):
            yield number, row
        elif row != [""] and skips_damaged:
            damaged.append(number)
        elif row != [""]:
            raise ValueError(
                f"{file}, line {number}: {len(columns)} columns ({', '.join(columns)}) were expected, got {len(row)}."
            )
    if damaged:
        warnings.warn(
            f"{file}: {len(damaged)} lines have not {len(columns)} columns and are left out, the first is "
            f"line {damaged[0]}."
        )


def label_of(task: Task, text: str, where: str) -> int | float:
    """Index of the class, or the score.

    Raises:
        ValueError: no label of the task; `where` begins the message.

    >>> label_of(task_of("rte"), "not_entailment", "dev.tsv, line 2")
    1
    >>> label_of(task_of("stsb"), "5.5", "dev.tsv, line 2")
    Traceback (most recent call last):
    ValueError: dev.tsv, line 2: score must be a number from 0.0 to 5.0, got '5.5'.
    """
    if task.labels is not None:
        if text not in task.labels:
            raise ValueError(f"{where}: {task.label} must be one of {', '.join(task.labels)}, got {text!r}.")
        return task.labels.index(text)
    low, high = task.score_range or (-math.inf, math.inf)
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not (low <= score <= high and math.isfinite(score)):
        raise ValueError(f"{where}: {task.label} must be a number from {low} to {high}, got {text!r}.")
    return score


def read_text(file: str | Path) -> str:
    """All of a file in UTF-8, without a byte order mark.

    Raises:
        ValueError: it is not UTF-8; with the first byte that is not, counted from 0, and its line.
    """
    data = Path(file).read_bytes()
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}: byte {error.start:,} (line {line:,}) is not UTF-8; convert the file, e.g. with iconv."
        ) from None
