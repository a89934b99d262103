"""How the learning rate runs: up in a line, then down."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bert_models")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to a peak, then linear or polynomial decay.

    For step t, counted from 0, of T = `total_steps`, of which W = `warmup_steps`:

        t < W:   peak * t / W
        t >= W:  end + (peak - end) * (1 - (t - W) / (T - W)) ^ power,  and `end` after T

    So the rate of the very first step is 0 if there is a warm-up, and the peak is that of step W.

    Args:
        peak: the highest rate.
        total_steps: updates of weights until the rate is `end`.
        warmup_steps: updates of weights until the rate is `peak`; 0: it starts there.
        power: 1 for linear decay, 0.5 for one by the root, 2 by the square.
        end: rate after the last step.
        decay_from_start: decay along the line from the peak at step 0 to `end` at step T, as if there were no warm-up:
            at its end the rate jumps from the peak down to that line. So do BERT's first release and TensorFlow Model
            Garden's `create_optimizer`.

    Raises:
        ValueError: numbers that make no such curve.

    Source: the cards' "warmup followed by linear decay"; Devlin et al. 2018, arXiv:1810.04805, appendix A.2.

    >>> rate = WarmupDecay(2.0, total_steps=10, warmup_steps=2)
    >>> [round(float(rate(step)), 2) for step in (0, 1, 2, 6, 10, 11)]
    [0.0, 1.0, 2.0, 1.0, 0.0, 0.0]
    """

    def __init__(
        self,
        peak: float,
        total_steps: int,
        warmup_steps: int = 0,
        power: float = 1.0,
        end: float = 0.0,
        decay_from_start: bool = False,
    ):
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                f"warmup_steps must be at least 0 and fewer than total_steps, got {warmup_steps} of {total_steps}; "
                "a tenth of them is usual."
            )
        if not 0 <= end <= peak:
            raise ValueError(f"The rate cannot decay from a peak of {peak} to an end of {end}; 0 <= end <= peak.")
        if not power > 0:
            raise ValueError(f"power must be positive, got {power}; 1 decays in a line.")
        self.peak, self.end, self.power = float(peak), float(end), float(power)
        self.total_steps, self.warmup_steps = int(total_steps), int(warmup_steps)
        self.decay_from_start = bool(decay_from_start)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        start = 0 if self.decay_from_start else self.warmup_steps
        left = ops.clip((self.total_steps - step) / (self.total_steps - start), 0.0, 1.0)
        rate = self.end + (self.peak - self.end) * ops.power(left, self.power)
        return ops.where(step < self.warmup_steps, self.peak * step / max(self.warmup_steps, 1), rate)

    def get_config(self) -> dict[str, Any]:
        names = ("peak", "total_steps", "warmup_steps", "power", "end", "decay_from_start")
        return {name: getattr(self, name) for name in names}
