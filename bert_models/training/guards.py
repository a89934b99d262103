"""What ends a training that has failed, before more time is spent on it."""

import math
from collections.abc import Callable

import keras


class StopWhereNotFinite(keras.callbacks.Callback):
    """Ends `fit` with an error at the first batch whose loss is NaN or infinite.

    Args:
        first_step: steps that were made before `fit`, for the message.
        batches_per_step: batches whose gradients are accumulated for one step.
        kept: gives a last sentence for the message, e.g. `Record.kept`.

    Raises:
        FloatingPointError: from `fit`, with the step and what to lower.

    >>> StopWhereNotFinite(first_step=100).on_train_batch_end(0, {"loss": float("nan")})
    Traceback (most recent call last):
    FloatingPointError: the loss is nan at step 101: lower the learning rate, ...
    """

    def __init__(self, first_step: int = 0, batches_per_step: int = 1, kept: Callable[[], str] = lambda: ""):
        super().__init__()
        self._batches, self._batches_per_step = first_step * batches_per_step, batches_per_step
        self._kept = kept

    def on_train_batch_end(self, batch, logs=None):
        self._batches += 1
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            step = -(-self._batches // self._batches_per_step)
            raise FloatingPointError(
                f"the loss is {loss} at step {step:,}: lower the learning rate, lengthen the warm-up, or clip "
                f"gradients with global_clipnorm=1. {self._kept()}".rstrip()
            )
