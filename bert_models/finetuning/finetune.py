"""`finetune`: an encoder on a task, by a recipe, with several seeds."""

import json
import sys
import time
import warnings
from collections.abc import Sequence

import keras
import numpy as np

from bert_models.finetuning.evaluation import Data, Prepared, fitting, headline, predict, prepared, scores, trouble
from bert_models.finetuning.heads import DROPOUT_NAME, has_head, loss_of, model_for
from bert_models.finetuning.lessons import Lesson, labels, soft_labels
from bert_models.finetuning.recipes import Recipe, optimizer_of, recipe_of
from bert_models.finetuning.results import FineTuned, Run
from bert_models.finetuning.rows import stream
from bert_models.finetuning.tasks import SpanTask, Task, task_of
from bert_models.text.tokenize import Tokenizer
from bert_models.training.guards import StopWhereNotFinite
from tncompress.conversion.surgery import copy_model

KEEPS = ("last", "best")
ADVICE = "Try other seeds, a lower learning rate, a longer warm-up, more epochs, or the optimizer lamb."


def finetune(
    encoder: keras.Model,
    task: str | Task | SpanTask,
    data: Data,
    *,
    tokenizer: Tokenizer,
    recipe: str | Recipe | None = None,
    seeds: Sequence[int] = (0,),
    output: str = "pooled",
    keep: str = "last",
    teacher: keras.Model | None = None,
    temperature: float = 1.0,
    label_share: float = 0.0,
    progress: bool | None = None,
) -> FineTuned:
    """Fine-tune copies of an encoder on a task, one for each seed, and measure them on the task's dev split.

    All weights are trained, with plain `fit`. Every run starts from the given encoder, which stays as it is. A run that
    has not converged is reported with a warning, and counts in the mean.

    With a teacher the encoder is distilled: it learns the teacher's answers to the training examples, as small BERTs do
    between pretraining and fine-tuning. What this gives may be fine-tuned again, and then goes on with its head.

    Args:
        encoder: as `bert_models.build` or `load` make it, or such a one compressed; or a model of this task, such as
            `FineTuned.model`, whose head is kept.
        task: its name in `TASKS`, e.g. "cola" or "squad2", or a task of your own.
        data: the folder with the task's files, see `read_task`; or split -> list of examples, among them "train".
        tokenizer: the encoder's.
        recipe: a name in `RECIPES` or a `Recipe`; None: "bert", for SQuAD "bert_squad".
        seeds: a run for each: another head, order of the examples and dropout.
        output: "pooled" or "mean", see `model_for`; a sentence encoder's pooler is not trained, so take "mean". A head
            that is kept goes on reading what it read.
        keep: "last": the weights at the end of training, as usual. "best": those of the epoch that did best on dev,
            which makes the dev score look better than it is.
        teacher: a model of this task, such as `FineTuned.model` of a larger encoder with the same vocabulary; it is
            set to not trainable.
        temperature, label_share: see `SoftLabels`; with a share of 0 the task's labels do not count.
        progress: show bars; None: in a terminal.

    Raises:
        FileNotFoundError, ValueError: before any training, if files or arguments are wrong.
        FloatingPointError: the loss is NaN or infinite; at which step, what to lower, and what earlier runs have given.

    Source: Devlin et al. 2018, arXiv:1810.04805, section 4; the cards. With a teacher: Turc et al. 2019,
    arXiv:1908.08962, section 3.

    Example:
        tuned = finetune(encoder, "cola", "glue", tokenizer=tokenizer, recipe="lambert", seeds=(0, 1, 2))
        print(tuned)  # cola dev: matthews 51.02 ± 1.20 ...
        tuned.model.save("cola.keras")
    """
    task = task_of(task)
    recipe = recipe_of(recipe if recipe is not None else "bert_squad" if isinstance(task, SpanTask) else "bert")
    if keep not in KEEPS:
        raise ValueError(f"keep must be {' or '.join(KEEPS)}, got {keep!r}.")
    if isinstance(seeds, int) or not len(seeds):
        raise ValueError(f"seeds must be a list of whole numbers, one for each run, got {seeds!r}.")
    tokenizer = fitting(tokenizer, encoder)
    splits = prepared(task, tokenizer if teacher is None else fitting(tokenizer, teacher), data)
    for needed, found in (("train", "train" in splits), ("dev", len(splits) > 1)):
        if not found:
            raise ValueError(f"{task.name}: the data has no split {needed!r}, only {', '.join(splits)}.")
    train = splits.pop("train")
    lesson = labels(train) if teacher is None else soft_labels(train, teacher, temperature, label_share)
    best, runs = None, []
    for seed in seeds:
        model = _beginning(encoder, train, output, recipe.dropout, seed)
        try:
            run = _run(model, lesson, splits, recipe, seed, keep, sys.stderr.isatty() if progress is None else progress)
        except FloatingPointError as error:
            raise FloatingPointError(_so_far(error, seed, runs)) from None
        if run.trouble:
            warnings.warn(f"{task.name}, seed {seed}: this run has not converged: {run.trouble}. {ADVICE}")
        # On a tie the earlier one stays.
        if all(headline(task, run.scores) > headline(task, other.scores) for other in runs):
            best = model
        runs.append(run)
    return FineTuned(task.name, recipe, keep, tuple(runs), best)


def _so_far(error: FloatingPointError, seed: int, runs: Sequence[Run]) -> str:
    done = "; ".join(f"seed {run.seed} {json.dumps(run.scores)}" for run in runs)
    return f"seed {seed}: {error}" + (f" Runs before it: {done}." if runs else "")


def _run(
    model: keras.Model,
    lesson: Lesson,
    splits: dict[str, Prepared],
    recipe: Recipe,
    seed: int,
    keep: str,
    progress: bool,
) -> Run:
    """Train a model in place, and measure it."""
    started = time.monotonic()
    rows = lesson.train.rows
    steps = -(-len(rows) // recipe.batch_size)
    # TensorFlow's XLA would compile every length of batch anew.
    compiled = keras.backend.backend() == "jax"
    model.compile(optimizer_of(recipe, steps * recipe.epochs), loss_of(lesson.train.task), jit_compile=compiled)
    trainee = lesson.trainee(model)
    if trainee is not model:
        trainee.compile(optimizer_of(recipe, steps * recipe.epochs), jit_compile=compiled)
    keeper = KeepBest(model, next(iter(splits.values())))
    with warnings.catch_warnings():
        # Of a pooler that the head does not read.
        warnings.filterwarnings("ignore", r"Gradients do not exist for variables \['pooler/")
        curve = trainee.fit(
            stream(rows, recipe.batch_size, seed, compiled),
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # it is done
            verbose="auto" if progress else 0,
            callbacks=[
                StopWhereNotFinite(kept=lambda: "The encoder is as it was."),
                *([keeper] if keep == "best" else []),
            ],
        ).history["loss"]
    if keep == "best":
        model.set_weights(keeper.weights)
    predictions = {split: predict(model, data) for split, data in splits.items()}
    found = {split: scores(data, predictions[split]) for split, data in splits.items()}
    first = next(iter(splits))
    epoch = keeper.epoch if keep == "best" else recipe.epochs
    seconds = time.monotonic() - started
    return Run(seed, found, trouble(splits[first], predictions[first]), epoch, tuple(curve), seconds)


def _beginning(given: keras.Model, train: Prepared, output: str, dropout: float, seed: int) -> keras.Model:
    """A copy of the given model, with a new head if it is an encoder."""
    task = train.task
    if has_head(given, task):
        model = copy_model(given)
        drop = next((layer for layer in model.layers if layer.name == DROPOUT_NAME), None)
        if drop is not None and drop.rate > 0:  # without dropout it was made without what draws the numbers
            drop.rate = dropout
    else:
        model = model_for(task, copy_model(given), output=output, dropout=dropout, seed=seed)
        if isinstance(task, Task) and task.labels is None:
            model.get_layer("head").bias.assign([train.rows.targets.mean()])  # a score's head begins at the mean
    _seed_dropout(model, seed)
    return model


def _seed_dropout(model: keras.Model, seed: int) -> None:
    """Dropout by the seed, for a copy draws what its original would."""
    draw = np.random.default_rng(seed)
    for variable in model.non_trainable_variables:
        if variable.name == "seed_generator_state":
            variable.assign(draw.integers(2**31, size=variable.shape).astype("uint32"))


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best headline score.

    Args:
        model: what is measured, be it fitted itself or taught.
        data: on which.

    Attributes:
        weights: as `get_weights` gives them.
        epoch: counted from 1.
    """

    def __init__(self, model: keras.Model, data: Prepared):
        super().__init__()
        self._measured, self._data, self._best = model, data, -np.inf
        self.weights: list[np.ndarray] = []
        self.epoch = 0

    def on_epoch_end(self, epoch, logs=None):
        score = headline(self._data.task, {"dev": scores(self._data, predict(self._measured, self._data))})
        if score > self._best:
            self._best, self.epoch, self.weights = score, epoch + 1, self._measured.get_weights()
