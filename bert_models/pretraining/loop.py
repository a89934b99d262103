"""`pretrain`: an encoder, pretraining data and a recipe to a trained model, resumable at any time."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bert_models.heads import MaskedLM
from bert_models.pretraining.damage import told_in_words
from bert_models.pretraining.feeding import batches, checked_sources
from bert_models.pretraining.model import PretrainingModel
from bert_models.pretraining.recipes import RECIPES, Recipe
from bert_models.training import distribute
from bert_models.training.checkpointing import newest_checkpoint
from bert_models.training.fingerprint import fingerprint
from bert_models.training.guards import StopWhereNotFinite
from bert_models.training.optimizers import LAMB, AdamW
from bert_models.training.record import Record
from bert_models.training.schedules import WarmupDecay
from bert_models.training.together import agree, in_step, wait

_CHECKPOINTS = "checkpoints in the folder, which has to be on a disk that all share,"  # in a message of `agree`


def pretrain(
    encoder: keras.Model,
    data: str | Path | Sequence[str | Path],
    folder: str | Path,
    recipe: str | Recipe = "bert",
    *,
    held_out: str | Path | None = None,
    tokenizer: Any = None,
    teacher: MaskedLM | None = None,
    temperature: float = 1.0,
    label_share: float = 0.5,
    accumulate: int = 1,
    every: int = 1000,
    steps: int | None = None,
    seed: int = 0,
    keep: int = 2,
    progress: Callable[[dict[str, Any]], None] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> PretrainingModel:
    """Pretrain an encoder, or go on where an earlier call with the same folder stopped or was killed.

    Every `every` steps the folder gets a checkpoint and a line in `curve.jsonl`. What is drawn depends on the seed and
    on the step only, so training that was interrupted gives the losses that it would have given anyway.

    In several processes, see `bert_models.training.distribute`, all call this with the same arguments. Each reads its
    rows of every batch, and the first writes to the folder, which all have to see.

    Args:
        encoder: as `bert_models.build` makes it, or such a one compressed, or a `MaskedLM`; trained in place. With
            `dtype="mixed_bfloat16"` given to `build`, training computes in half precision.
        data: folder that `write_pretraining_data` made; one for each stage, if the recipe has more.
        folder: for checkpoints and the learning curve; made if there is none.
        recipe: a name in `RECIPES`, or a value such as `RECIPES["bert"].scaled(1000, batch_size=32)`.
        held_out: pretraining data to measure on, with every line of the curve.
        tokenizer: for data with dynamic masks.
        teacher: a trained `MaskedLM` whose soft labels count beside the tokens, see `PretrainingModel`.
        temperature, label_share: likewise.
        accumulate: in so many parts each batch is computed, for less memory; it divides the batch size.
        every: steps between checkpoints.
        steps: stop after so many steps in all, to go on another time; None: those of the recipe.
        seed: for the order of data and dynamic masks. Dropout has the seeds that the encoder was built with:
            `keras.utils.set_random_seed` sets these.
        keep: so many checkpoints stay.
        progress: called with every line of the curve.
        callbacks: more of Keras's, for `fit`; one that sets `model.stop_training` ends training.

    Returns:
        The trained model: `.mlm` is the encoder with its head, `.mlm.encoder` the encoder.

    Raises:
        FileNotFoundError: a folder of data is not complete.
        FloatingPointError: the loss or a weight is not finite: at which step, and what to lower. The last checkpoint
            stays.
        OSError: a checkpoint cannot be written; earlier ones are whole.
        TypeError: no encoder, or no `MaskedLM` as teacher.
        ValueError: data of another vocabulary, without the labels that the recipe wants, longer than the encoder's
            positions, cut or damaged; a checkpoint of another model, or of training with other settings or another
            teacher; a batch that the devices cannot share evenly; other arguments in another process.
        LostProcess: another process ended. Started again, all go on from the last checkpoint.

    Example:
        encoder = bert_models.build("tn_bert")
        recipe = RECIPES["tn_bert"].scaled(10_000, batch_size=64)
        model = pretrain(encoder, ["data-128", "data-512"], "run", recipe, accumulate=4)
    """
    recipe = _recipe(recipe)
    mlm = encoder if isinstance(encoder, MaskedLM) else MaskedLM(encoder)
    batch_size, where = _batch_size(recipe, accumulate, every), distribute.place()
    rows = where.rows(batch_size)
    distribute.check(mlm, accumulate)
    sources = checked_sources(data, recipe, mlm.encoder.config, tokenizer, batch_size)
    measured = None if held_out is None else _held_out(held_out, recipe, mlm, tokenizer, batch_size, seed, where)
    model = PretrainingModel(
        mlm, next_sentence=recipe.next_sentence, teacher=teacher, temperature=temperature, label_share=label_share
    )
    model.compile(optimizer=optimizer_of(recipe, accumulate))
    model.optimizer.build(model.trainable_variables)

    values = recipe.training_values() | {"seed": seed, "accumulate": accumulate, "data": [s.digest for s in sources]}
    if teacher is not None:
        values |= {"temperature": temperature, "label_share": label_share, "teacher": fingerprint(teacher)}
    without = () if teacher is None else (teacher,)
    folders = [source.folder for source in sources] + ([] if held_out is None else [held_out])
    record = Record(folder, values, keep=keep, without=without, progress=progress, writes=where.process == 0)
    last = recipe.total_steps if steps is None else steps
    newest = newest_checkpoint(folder)
    agree({"data or arguments": [values, every, last], _CHECKPOINTS: newest and newest.name})
    done = record.restore(model)
    for part in parts(recipe, every, done, last):
        source = sources[part.stage]
        guard = StopWhereNotFinite(part.first, accumulate, record.kept)
        with _without_warnings(), told_in_words(*folders), in_step(record.kept):
            model.fit(
                batches(source, tokenizer, batch_size, seed, start=part.in_stage * accumulate, rows=rows),
                epochs=part.times,
                steps_per_epoch=part.every * accumulate,
                validation_data=measured,
                callbacks=[guard, record.after(part.first, part.every), *callbacks],
                shuffle=False,
                verbose=0,
            )
        if model.stop_training:
            break
    wait()  # for the first process, which may still write
    return model


@dataclass(frozen=True)
class Part:
    """Steps that one call of `fit` makes.

    Attributes:
        stage: number of the recipe's stage.
        first: steps before it, in all; in_stage: in its stage.
        every: steps between checkpoints.
        times: checkpoints.
    """

    stage: int
    first: int
    in_stage: int
    every: int
    times: int


def parts(recipe: Recipe, every: int, first: int, last: int) -> Iterator[Part]:
    """What is left from step `first` to `last`, stage by stage; the rest of a stage is a part of its own.

    >>> [(part.first, part.every, part.times) for part in parts(RECIPES["bert"].scaled(100), 40, 10, 95)]
    [(10, 40, 2), (90, 5, 1)]
    """
    begin = 0
    for number, stage in enumerate(recipe.stages):
        end = min(begin + stage.steps, last)
        step = max(first, begin)
        whole = max(0, end - step) // every
        if whole:
            yield Part(number, step, step - begin, every, whole)
            step += whole * every
        if step < end:
            yield Part(number, step, step - begin, end - step, 1)
        begin += stage.steps


def optimizer_of(recipe: Recipe, accumulate: int = 1) -> keras.optimizers.Optimizer:
    kinds = {"adamw": AdamW, "lamb": LAMB}
    rate = WarmupDecay(recipe.peak, recipe.total_steps, recipe.warmup_steps, end=recipe.end)
    return kinds[recipe.optimizer](
        rate,
        weight_decay=recipe.weight_decay,
        beta_1=recipe.beta_1,
        beta_2=recipe.beta_2,
        epsilon=recipe.epsilon,
        global_clipnorm=recipe.global_clipnorm,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
    )


def _recipe(recipe: str | Recipe) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"recipe must be a Recipe or one of {', '.join(RECIPES)}, got {recipe!r}.")
    return RECIPES[recipe]


def _batch_size(recipe: Recipe, accumulate: int, every: int) -> int:
    """Examples that are computed at once."""
    if accumulate < 1 or recipe.batch_size % accumulate:
        raise ValueError(f"accumulate must divide the batch of {recipe.batch_size}, got {accumulate}.")
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}.")
    return recipe.batch_size // accumulate


def _held_out(
    folder, recipe: Recipe, mlm: MaskedLM, tokenizer, batch_size: int, seed: int, where: distribute.Place
) -> tf.data.Dataset:
    one_stage = replace(recipe, stages=recipe.stages[:1])
    (source,) = checked_sources(folder, one_stage, mlm.encoder.config, tokenizer, where.replicas)
    size = min(batch_size, source.examples // where.replicas * where.replicas)
    return batches(source, tokenizer, size, seed, once=True, rows=where.rows(size))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Without those that say nothing new."""
    with warnings.catch_warnings():
        # Without next-sentence prediction nothing trains the pooler; `PretrainingModel` says so.
        warnings.filterwarnings("ignore", "Gradients do not exist for variables .*pooler/kernel")
        yield
