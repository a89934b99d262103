"""How `recover` trains: a whole model, or before that its parts one after another."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.course import Course, Pace, dataset
from tncompress.conversion.distillation import Batch, Distillation, frozen
from tncompress.conversion.walking import locate

HELD_OUT = 4  # batches at most, where a fraction is held out; from as many the teacher's variances are taken
GRADIENT_NORM = 1.0  # over all variables; longer gradients are shortened
MEMORY = 0.98  # of the size of gradients, about fifty steps: there are few hundred


@dataclass(frozen=True)
class Batches:
    """What is trained on, in an order that `draw` gives anew each time, and what is held out."""

    training: Sequence[Batch]
    held_out: Sequence[Batch]
    draw: np.random.Generator


def train(distillation: Distillation, chosen: set[int], batches: Batches, pace: Pace, started: float) -> Course:
    """Train the student's chosen variables in place, and leave it with the weights that did best on held-out data.

    Args:
        distillation: student, teacher and what is matched.
        chosen: ids of the variables.
        batches: to train on, and to measure on.
        pace: how fast and how long.
        started: when the time began that counts, by the clock of the pace.
    """
    student = distillation.student
    fixed = [variable for variable in student.trainable_variables if id(variable) not in chosen]
    with frozen(distillation.teacher, fixed):
        distillation.prepare(batches.held_out[:HELD_OUT])
        distillation.compile(
            keras.optimizers.Adam(pace.learning_rate, beta_2=MEMORY, global_clipnorm=GRADIENT_NORM),
            # TensorFlow would compile every length of batch anew.
            jit_compile=keras.backend.backend() == "jax",
        )
        # Else TensorFlow traces the first step twice, once to make the optimizer's variables: seconds.
        distillation.optimizer.build(distillation.trainable_variables)
        steps = max(1, round(pace.epochs * len(batches.training)))
        course = Course(batches.held_out, pace, steps, started)
        distillation.fit(
            dataset(batches.training, batches.draw),
            # One step is an epoch to Keras: only between epochs may callbacks change state on every backend.
            steps_per_epoch=1,
            epochs=steps,
            shuffle=False,  # it is done
            callbacks=[course],
            verbose=0,
        )
    return course


def parts_of(
    student: keras.Model, teacher: keras.Model, stages: Sequence[str], chosen: set[int]
) -> dict[str, set[int]]:
    """By path of a stage: ids of the chosen variables in it.

    Raises:
        ValueError: stages are no list of paths, a model lacks one, or nothing in it is trained.
    """
    if isinstance(stages, str):
        raise ValueError(f"stages is a list of paths of layers, got the text {stages!r}; write [{stages!r}].")
    locate(teacher, list(stages))
    found = {}
    for path, layer in locate(student, list(stages)).items():
        found[path] = {id(variable) for variable in layer.trainable_variables} & chosen
        if not found[path]:
            raise ValueError(
                f"The stage {path!r} has no variable to train; leave it out, or choose others by include= and exclude=."
            )
    return found


def check(parts: Sequence[tuple[Distillation, set[int]]], batches: Batches) -> None:
    """Refuse parts whose outputs do not match, before any of them is trained.

    Raises:
        ValueError: see `Distillation.prepare`.
    """
    for distillation, _ in parts:
        distillation.prepare(batches.held_out[:1])


def never_worse(whole: Distillation, chosen: set[int], batches: Batches, change: Callable[[], Any]) -> None:
    """Let the student change, and undo it, with a warning, where the held-out loss of the whole rises."""
    variables = [variable for variable in whole.student.trainable_variables if id(variable) in chosen]
    before, weights = _loss(whole, batches.held_out), [np.array(ops.convert_to_numpy(v)) for v in variables]
    change()
    after = _loss(whole, batches.held_out)
    if after < before:
        return
    warnings.warn(
        f"The stages did not lower the held-out loss of the whole model ({before:.4g} before, {after:.4g} after), so "
        "it goes on from what was given."
    )
    for variable, weight in zip(variables, weights, strict=True):
        variable.assign(weight)


def _loss(distillation: Distillation, held_out: Sequence[Batch]) -> float:
    distillation.prepare(held_out[:HELD_OUT])
    distillation.compile(jit_compile=keras.backend.backend() == "jax")
    return float(distillation.evaluate(dataset(held_out), steps=len(held_out), verbose=0, return_dict=True)["loss"])
