"""What fine-tuning gives: a `Run` for each seed, and all of them as a `FineTuned`."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bert_models.finetuning.recipes import Recipe

Scores = dict[str, float]


@dataclass(frozen=True)
class Run:
    """One fine-tuning.

    Args:
        seed: of the head, the order of the examples and the dropout.
        scores: split -> metric -> points.
        trouble: why it has not converged; "": it has.
        epoch: the one whose weights were kept, counted from 1.
        losses: mean training loss of each epoch.
        seconds: wall time.
    """

    seed: int
    scores: dict[str, Scores]
    trouble: str
    epoch: int
    losses: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class FineTuned:
    """What `finetune` gives.

    Args:
        task: its name.
        recipe: as it was used.
        keep: "last" or "best", as given.
        runs: one for each seed.
        model: of the run with the best headline score on dev: the encoder's inputs -> logits or scores.
    """

    task: str
    recipe: Recipe
    keep: str
    runs: tuple[Run, ...]
    model: Any

    @property
    def mean(self) -> dict[str, Scores]:
        """Split -> metric -> mean over all runs, those that have not converged too."""
        return self._over_runs(lambda values: float(np.mean(values)))

    @property
    def spread(self) -> dict[str, Scores]:
        """Split -> metric -> standard deviation of the runs (n - 1); 0 for a single one."""
        return self._over_runs(lambda values: float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)

    def _over_runs(self, statistic) -> dict[str, Scores]:
        return {
            split: {name: statistic([run.scores[split][name] for run in self.runs]) for name in found}
            for split, found in self.runs[0].scores.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """All but the model, as JSON can hold it."""
        found = {"task": self.task, "keep": self.keep, "recipe": asdict(self.recipe)}
        return {**found, "runs": [asdict(run) for run in self.runs], "mean": self.mean, "spread": self.spread}

    def __str__(self) -> str:
        lines = [
            f"{self.task} {split}: "
            + ", ".join(f"{name} {value:.2f} ± {spread[name]:.2f}" for name, value in mean.items())
            for (split, mean), spread in zip(self.mean.items(), self.spread.values(), strict=True)
        ]
        good = sum(not run.trouble for run in self.runs)
        return "\n".join([*lines, f"{len(self.runs)} runs, {good} of them converged"])
