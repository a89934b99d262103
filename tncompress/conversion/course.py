"""The course of a distillation: its batches, learning rate and held-out losses, and which weights are kept."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.distillation import Batch
from tncompress.progress import QUIET_SECONDS, progress_bar

EVALUATIONS = 5  # of the held-out loss, besides the one before training
PATIENCE = 3  # evaluations in a row none of which is lower than the one before, after which training stops
WARM_UP = 0.1  # of the training: the learning rate rises, as Adam knows the size of gradients from a few steps only


@dataclass(frozen=True)
class Pace:
    """How fast and how long; see `recover`."""

    learning_rate: float
    epochs: float
    minutes: float | None
    clock: Callable[[], float] = time.monotonic
    progress: bool | None = None

    def part(self, share: float) -> "Pace":
        """A share of the length, at the same speed."""
        return replace(self, epochs=share * self.epochs, minutes=self.minutes and share * self.minutes)


class Course(keras.callbacks.Callback):
    """Learning rate, held-out losses, best weights, and when to stop. What Keras calls an epoch here is one step."""

    def __init__(self, held_out: Sequence[Batch], pace: Pace, steps: int, started: float):
        super().__init__()
        self.held_out, self.pace, self.steps, self.started = held_out, pace, steps, started
        self.seconds = float("inf") if pace.minutes is None else 60 * pace.minutes
        self.curve: dict[str, list] = {"step": [], "loss": [], "val_loss": [], "seconds": []}
        self.losses: list[float] = []  # since the last evaluation
        self.evaluation_seconds = 0.0
        self.evaluated = 0.0  # how much was done at the last evaluation, of 1
        self.begin = started  # of the first step
        self.best: list[np.ndarray] = []
        self.bar: Any = progress_bar(range(steps), "Recovering", shown=pace.progress)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._evaluate(0)
        if not np.isfinite(self.curve["val_loss"][0]):
            raise ValueError(
                f"The held-out loss of the student as it was given is {self.curve['val_loss'][0]}; look for inputs or "
                "weights that are not finite."
            )
        self.begin = self.pace.clock()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        next(self.bar, None)
        warm = min(1.0, self._done(epoch + 1) / WARM_UP)
        self.model.optimizer.learning_rate = self.pace.learning_rate * warm * (1 - self._done(epoch))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        step, loss = epoch + 1, float((logs or {})["loss"])
        if not np.isfinite(loss):
            warnings.warn(
                f"The loss is {loss} at step {step}, so training stopped; the best weights before are kept. Lower "
                f"learning_rate={self.pace.learning_rate:g}, or look for inputs that are not finite."
            )
            self.model.stop_training = True
            return
        self.losses.append(loss)
        done = self._done(step)
        if done >= min(1, self.evaluated + 1 / EVALUATIONS):
            self._evaluate(step)
            self.evaluated = done
            self.model.stop_training = done >= 1 or self._is_stuck()

    def on_train_end(self, logs: dict | None = None) -> None:
        next(self.bar, None)
        self.bar.close()
        for variable, value in zip(self.model.trainable_variables, self.best, strict=True):
            variable.assign(value)
        if len(self.curve["step"]) > 1 and self._best() == 0:
            warnings.warn(
                f"Training did not lower the held-out loss of {self.curve['val_loss'][0]:.4g}, so the weights "
                f"stay as they were given; try a lower learning_rate than {self.pace.learning_rate:g}, or more data."
            )

    def _done(self, steps: int) -> float:
        """How much of the training is over after so many steps, in 0 ... 1: of the steps or of the time."""
        if self.seconds == float("inf"):
            return steps / self.steps
        # One more evaluation has to fit in.
        seconds = self.started + self.seconds - self.evaluation_seconds - self.begin
        return min(1.0, max(steps / self.steps, (self.pace.clock() - self.begin) / max(seconds, 1e-9)))

    def _evaluate(self, step: int) -> None:
        before = self.pace.clock()
        logs = self.model.evaluate(dataset(self.held_out), steps=len(self.held_out), verbose=0, return_dict=True)
        self.evaluation_seconds = self.pace.clock() - before
        line = (step, _mean(self.losses), float(logs["loss"]), self.pace.clock() - self.started)
        for values, value in zip(self.curve.values(), line, strict=True):
            values.append(value)
        self.losses = []
        if np.isfinite(line[2]) and self._best() == len(self.curve["step"]) - 1:
            # PyTorch's arrays share the memory that the optimizer goes on writing to.
            self.best = [np.array(ops.convert_to_numpy(variable)) for variable in self.model.trainable_variables]
        if self.pace.progress or (self.pace.progress is None and sys.stderr.isatty() and line[-1] > QUIET_SECONDS):
            print(f"step {step}: held-out loss {line[2]:.4g} (given: {self.curve['val_loss'][0]:.4g})", file=sys.stderr)

    def _best(self) -> int:
        """The first evaluation with the lowest loss."""
        return int(np.nanargmin(self.curve["val_loss"]))

    def _is_stuck(self) -> bool:
        """It no longer falls; a loss above the student's own may still be on its way down."""
        losses = self.curve["val_loss"][-1 - PATIENCE :]
        return len(losses) > PATIENCE and not any(after < before for before, after in pairwise(losses))


def _mean(losses: Sequence[float]) -> float | None:
    return float(np.mean(losses)) if losses else None


def dataset(batches: Sequence[Batch], draw: np.random.Generator | None = None) -> Any:
    """What `fit` and `evaluate` take: (inputs, mask), or (inputs,) without a mask.

    Args:
        batches: to give; endlessly, each time in a new order, if there is a `draw`.
    """

    def endless() -> Iterator[tuple]:
        while True:
            order = range(len(batches)) if draw is None else draw.permutation(len(batches))
            yield from (_without_none(batches[i]) for i in order)
            if draw is None:
                return

    if keras.backend.backend() != "tensorflow":
        return endless()
    import tensorflow

    # Keras's own adapter takes sizes for fixed that two batches happen to share.
    signature = keras.tree.map_structure(_signature, *map(_without_none, batches))
    return tensorflow.data.Dataset.from_generator(endless, output_signature=signature)


def _signature(*leaves: np.ndarray) -> Any:
    """The shape that all of these have, None where they differ, and a dtype that holds what is in any."""
    import tensorflow

    sizes = [set(axis) for axis in zip(*(leaf.shape for leaf in leaves), strict=True)]
    return tensorflow.TensorSpec([size.pop() if len(size) == 1 else None for size in sizes], np.result_type(*leaves))


def _without_none(batch: Batch) -> tuple:
    inputs, mask = batch
    inputs = tuple(inputs) if isinstance(inputs, list) else inputs  # a list would be stacked
    return (inputs,) if mask is None else (inputs, mask)
