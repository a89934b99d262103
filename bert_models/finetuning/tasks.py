"""The tasks as values: their files, columns, labels and metrics. Needs no Keras."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tncompress.naming import nearest

TEXTS = 128  # tokens of a row, [CLS] and [SEP] included


@dataclass(frozen=True, slots=True)
class Example:
    """One text or a pair of them, and what is to be predicted.

    Args:
        first, second: the texts; `second` is None for tasks with one.
        label: index of the class, or the score of a regression task.
    """

    first: str
    second: str | None
    label: int | float


@dataclass(frozen=True, slots=True)
class Task:
    """A task in which a text, or a pair of them, gets a class or a score.

    Args:
        name: in `TASKS`.
        folder: its name in the zip file of GLUE.
        texts: columns of the first and, for pairs, the second text.
        label: column of the label.
        labels: the classes as they are written in the files; their order gives the indices. None: scores.
        metrics: names in `metrics.METRICS`; the mean of several is the task's score, as on GLUE's leaderboard.
        splits: name of the split -> its file; several splits but "train" are all measured.
        columns: of files without a heading line; None: the first line has their names.
        score_range: lowest and highest score, where there are no classes.
        skips_damaged: leave lines with another number of columns out, with a warning, instead of an error.
        max_length: tokens of a row, special ones included; longer pairs are cut.
    """

    name: str
    folder: str
    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...] | None = ("0", "1")
    metrics: tuple[str, ...] = ("accuracy",)
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train.tsv", "dev": "dev.tsv"}, hash=False)
    columns: tuple[str, ...] | None = None
    score_range: tuple[float, float] | None = None
    skips_damaged: bool = False
    max_length: int = TEXTS

    @property
    def outputs(self) -> int:
        """How many numbers the head gives: one for each class, or a score."""
        return len(self.labels) if self.labels else 1


@dataclass(frozen=True, slots=True)
class SpanTask:
    """A task in which the answer to a question is a piece of a text; SQuAD.

    Args:
        name, folder, splits: as in `Task`.
        unanswerable: some questions have no answer in their text.
        max_length: tokens of a window: question, piece of the text and special tokens.
        stride: tokens between the starts of two windows of a text.
        max_question: longer questions are cut to that many tokens.
        max_answer: longest answer in tokens.
        best: so many of the likeliest starts and ends are combined.

    Source: Devlin et al. 2018, arXiv:1810.04805, sections 4.2 and 4.3; the numbers are those of its released code.
    """

    name: str
    folder: str
    splits: Mapping[str, str] = field(hash=False)
    unanswerable: bool = False
    max_length: int = 384
    stride: int = 128
    max_question: int = 64
    max_answer: int = 30
    best: int = 20

    @property
    def metrics(self) -> tuple[str, ...]:
        """Exact match and F1; with unanswerable questions, those at the best threshold."""
        return ("best_exact", "best_f1") if self.unanswerable else ("exact", "f1")


_MNLI_SPLITS = {"train": "train.tsv", "dev_matched": "dev_matched.tsv", "dev_mismatched": "dev_mismatched.tsv"}
_ENTAILMENT = ("entailment", "not_entailment")
_ALL = (
    Task(
        "cola", "CoLA", ("sentence",), "label", metrics=("matthews",), columns=("source", "label", "mark", "sentence")
    ),
    Task("sst2", "SST-2", ("sentence",), "label"),
    Task("mrpc", "MRPC", ("#1 String", "#2 String"), "Quality", metrics=("f1", "accuracy")),
    Task("stsb", "STS-B", ("sentence1", "sentence2"), "score", None, ("pearson", "spearman"), score_range=(0.0, 5.0)),
    # The official file has lines that were broken in two.
    Task("qqp", "QQP", ("question1", "question2"), "is_duplicate", metrics=("f1", "accuracy"), skips_damaged=True),
    Task(
        "mnli",
        "MNLI",
        ("sentence1", "sentence2"),
        "gold_label",
        ("contradiction", "entailment", "neutral"),
        splits=_MNLI_SPLITS,
    ),
    Task("qnli", "QNLI", ("question", "sentence"), "label", _ENTAILMENT),
    Task("rte", "RTE", ("sentence1", "sentence2"), "label", _ENTAILMENT),
    Task("wnli", "WNLI", ("sentence1", "sentence2"), "label"),
    *(
        SpanTask(
            name,
            "SQuAD",
            {"train": f"train-v{version}.json", "dev": f"dev-v{version}.json"},
            unanswerable=version == "2.0",
        )
        for name, version in (("squad1", "1.1"), ("squad2", "2.0"))
    ),
)

TASKS: dict[str, Task | SpanTask] = {task.name: task for task in _ALL}


def task_of(task: str | Task | SpanTask) -> Task | SpanTask:
    """The task of this name; a task is given back.

    Raises:
        ValueError: no such task; the nearest names are given.

    >>> task_of("cola").metrics
    ('matthews',)
    >>> task_of("SST-2")
    Traceback (most recent call last):
    ValueError: there is no task 'SST-2'; did you mean sst2? All: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli,
    squad1, squad2.
    """
    if isinstance(task, Task | SpanTask):
        return task
    if isinstance(task, str) and task in TASKS:
        return TASKS[task]
    near = nearest(str(task).lower(), TASKS, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"there is no task {task!r}; {hint}All: {', '.join(TASKS)}.")
