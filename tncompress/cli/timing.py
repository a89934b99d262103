"""How long models take here, side by side."""

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from tncompress.conversion.timing import on_accelerator

ROUNDS = 7  # of which the median is taken
SLICE = 0.05  # seconds that one model runs at least in each round


def time_models(models: Mapping[str, Any], batch: Any) -> dict[str, float]:
    """Median seconds of a forward pass of each model on one batch, interleaved, so that a noisy moment hits all.

    On a processor it is the time that this process uses; on an accelerator the time until the result is there.

    Args:
        models: by any names; all take the batch.
        batch: what they take as input.
    """
    now = time.perf_counter if on_accelerator() else time.process_time
    repeats = {}
    for name, model in models.items():
        model.predict_on_batch(batch)  # compiled, into the cache
        start = now()
        model.predict_on_batch(batch)
        repeats[name] = max(1, round(SLICE / max(now() - start, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in models}
    for number in range(ROUNDS):
        for name in list(models) if number % 2 else reversed(list(models)):  # A B C, C B A
            start = now()
            for _ in range(repeats[name]):
                models[name].predict_on_batch(batch)
            found[name].append((now() - start) / repeats[name])
    return {name: median(times) for name, times in found.items()}
