"""`finetune`: an encoder on a task, by a recipe, with several seeds."""

import sys
import time
import warnings
from collections.abc import Sequence

import keras
import numpy as np

from bert_models.finetuning.evaluation import Data, Prepared, headline, predict, prepared, scores, trouble
from bert_models.finetuning.heads import loss_of, model_for
from bert_models.finetuning.recipes import Recipe, optimizer_of, recipe_of
from bert_models.finetuning.results import FineTuned, Run
from bert_models.finetuning.rows import stream
from bert_models.finetuning.tasks import SpanTask, Task, task_of
from bert_models.sentence_embeddings import check_pair as check_vocabulary
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
    progress: bool | None = None,
) -> FineTuned:
    """Fine-tune copies of an encoder on a task, one for each seed, and measure them on the task's dev split.

    All weights are trained, with plain `fit`. Every run starts from the given encoder, which stays as it is. A run that
    has not converged is reported with a warning, and counts in the mean.

    Args:
        encoder: as `bert_models.build` or `load` make it, or such a one compressed.
        task: its name in `TASKS`, e.g. "cola" or "squad2", or a task of your own.
        data: the folder with the task's files, see `read_task`; or split -> list of examples, among them "train".
        tokenizer: the encoder's.
        recipe: a name in `RECIPES` or a `Recipe`; None: "bert", for SQuAD "bert_squad".
        seeds: a run for each: another head, order of the examples and dropout.
        output: "pooled" or "mean", see `model_for`; a sentence encoder's pooler is not trained, so take "mean".
        keep: "last": the weights at the end of training, as usual. "best": those of the epoch that did best on dev,
            which makes the dev score look better than it is.
        progress: show bars; None: in a terminal.

    Raises:
        FileNotFoundError, ValueError: before any training, if files or arguments are wrong.
        FloatingPointError: the loss is NaN or infinite; at which step, and what to lower.

    Source: Devlin et al. 2018, arXiv:1810.04805, section 4; the cards.

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
    check_vocabulary(encoder, tokenizer)
    splits = prepared(task, tokenizer, data)
    for needed, found in (("train", "train" in splits), ("dev", len(splits) > 1)):
        if not found:
            raise ValueError(f"{task.name}: the data has no split {needed!r}, only {', '.join(splits)}.")
    train = splits.pop("train")
    best, runs = None, []
    for seed in seeds:
        model = model_for(task, copy_model(encoder), output=output, dropout=recipe.dropout, seed=seed)
        run = _run(model, train, splits, recipe, seed, keep, sys.stderr.isatty() if progress is None else progress)
        if run.trouble:
            warnings.warn(f"{task.name}, seed {seed}: this run has not converged: {run.trouble}. {ADVICE}")
        # On a tie the earlier one stays.
        if all(headline(task, run.scores) > headline(task, other.scores) for other in runs):
            best = model
        runs.append(run)
    return FineTuned(task.name, recipe, keep, tuple(runs), best)


def _run(
    model: keras.Model,
    train: Prepared,
    splits: dict[str, Prepared],
    recipe: Recipe,
    seed: int,
    keep: str,
    progress: bool,
) -> Run:
    """Train a model in place, and measure it."""
    started = time.monotonic()
    _start(model, train, seed)
    steps = -(-len(train.rows) // recipe.batch_size)
    # TensorFlow's XLA would compile every length of batch anew.
    compiled = keras.backend.backend() == "jax"
    model.compile(optimizer_of(recipe, steps * recipe.epochs), loss_of(train.task), jit_compile=compiled)
    keeper = KeepBest(next(iter(splits.values())))
    with warnings.catch_warnings():
        # Of a pooler that the head does not read.
        warnings.filterwarnings("ignore", r"Gradients do not exist for variables \['pooler/")
        curve = model.fit(
            stream(train.rows, recipe.batch_size, seed, compiled),
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


def _start(model: keras.Model, train: Prepared, seed: int) -> None:
    """Dropout by the seed, for a copy draws what its original would; and a score's head begins at the mean."""
    draw = np.random.default_rng(seed)
    for variable in model.non_trainable_variables:
        if variable.name == "seed_generator_state":
            variable.assign(draw.integers(2**31, size=variable.shape).astype("uint32"))
    if isinstance(train.task, Task) and train.task.labels is None:
        model.get_layer("head").bias.assign([train.rows.targets.mean()])


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best headline score.

    Attributes:
        weights: as `get_weights` gives them.
        epoch: counted from 1.
    """

    def __init__(self, data: Prepared):
        super().__init__()
        self._data, self._best = data, -np.inf
        self.weights: list[np.ndarray] = []
        self.epoch = 0

    def on_epoch_end(self, epoch, logs=None):
        score = headline(self._data.task, {"dev": scores(self._data, predict(self.model, self._data))})
        if score > self._best:
            self._best, self.epoch, self.weights = score, epoch + 1, self.model.get_weights()
