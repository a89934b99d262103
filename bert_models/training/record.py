"""`Record`: a folder with a learning curve and checkpoints, kept while `fit` runs, from which it can go on."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from bert_models.training import curve
from bert_models.training.checkpointing import newest_checkpoint, restore_checkpoint, save_checkpoint

CURVE_NAME = "curve.jsonl"


class Record(keras.callbacks.Callback):
    """Writes a line of the curve and a checkpoint at the end of what `fit` takes for an epoch.

    A line has the step, all that `fit` tells, the learning rate, and `cpu_seconds`, the processor time of training
    without that of measuring on held-out data.

    Args:
        folder: made when the first line is written.
        settings: what must be the same when training goes on, see `save_checkpoint`.
        keep: so many checkpoints stay.
        without: parts of the model that do not change.
        progress: called with every line.
        writes: False: state is restored, but nothing written or told. Of several processes the first one writes.

    Example:
        record = Record("run", {"batch_size": 32})
        step = record.restore(model)
        model.fit(data, epochs=10, steps_per_epoch=100, callbacks=[record.after(step, 100)])
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        *,
        keep: int = 2,
        without: Sequence[keras.Model] = (),
        progress: Callable[[dict[str, Any]], None] | None = None,
        writes: bool = True,
    ):
        super().__init__()
        self._folder, self._settings, self._keep, self._without = Path(folder), dict(settings), keep, tuple(without)
        self._progress, self._writes = progress, writes
        self._first, self._every = 0, 1
        self._seconds, self._since = 0.0, None

    @property
    def curve_file(self) -> Path:
        """Where the lines are."""
        return self._folder / CURVE_NAME

    def restore(self, model: keras.Model) -> int:
        """Steps that are done; the newest checkpoint's state is put into the model, and later lines are removed.

        Raises:
            ValueError: see `restore_checkpoint`.
        """
        newest = newest_checkpoint(self._folder)
        step = restore_checkpoint(newest, model, self._settings, without=self._without) if newest else 0
        if self._writes:
            curve.trim(self.curve_file, step)
        self._seconds = max((row.get("cpu_seconds") or 0.0 for row in curve.read(self.curve_file)), default=0.0)
        return step

    def after(self, step: int, every: int) -> "Record":
        """This callback, for a `fit` that begins after so many steps and has `every` of them in what it takes for an
        epoch."""
        self._first, self._every = step, every
        return self

    def kept(self) -> str:
        """A sentence on what is there if training fails."""
        newest = newest_checkpoint(self._folder)
        return f"{newest} is kept, from which training can go on." if newest else "No checkpoint was written yet."

    def on_epoch_begin(self, epoch, logs=None):
        self._since = time.process_time()

    def on_test_begin(self, logs=None):
        self._count_time()

    def on_epoch_end(self, epoch, logs=None):
        self._count_time()
        if not self._writes:
            return
        step = self._first + (epoch + 1) * self._every
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"step": step, **{name: float(value) for name, value in (logs or {}).items()}, "learning_rate": rate}
        row["cpu_seconds"] = round(self._seconds, 3)
        self._folder.mkdir(parents=True, exist_ok=True)
        # The line first: without its checkpoint it is removed when training goes on, and written again.
        curve.append(self.curve_file, row)
        save_checkpoint(self._folder, step, self.model, self._settings, keep=self._keep, without=self._without)
        if self._progress:
            self._progress(row)

    def _count_time(self) -> None:
        """Add the processor time since the epoch began, once."""
        if self._since is not None:
            self._seconds += time.process_time() - self._since
        self._since = None
