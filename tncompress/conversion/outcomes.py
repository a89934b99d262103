"""What became of every layer of a compressed model: plain values, and their way into a file and out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from tncompress.conversion.curves import Front, Spectrum
from tncompress.fitting.choice import Bands, Choice, choice_from_config
from tncompress.forms.low_rank import is_low_rank
from tncompress.limits import shown

ROOM = "the budget has room for it as it is"  # why a layer stayed dense that was chosen


class Times(NamedTuple):
    """Seconds of a layer as it was, and of the network in its place, measured side by side."""

    dense: float
    network: float


_NUMBER = int | float | None
# What the values of an outcome must be in a file, besides those that are checked where they are made
_KINDS = {
    "path": str,
    "in_dim": int,
    "out_dim": int,
    "method": str,
    "reason": str | None,
    "params": int | None,
    "is_table": bool,
    **dict.fromkeys(("weight_error", "output_error", "loss_error", "predicted_loss", "held_out_ratio"), _NUMBER),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one dense layer.

    Args:
        path: of the layer.
        in_dim, out_dim: features.
        choice: the network in its place; None if it stayed dense.
        method: how the cores were fitted.
        weight_error: ||W - W'|| / ||W||.
        output_error: relative error of the layer's outputs on the calibration data, if there were any.
        loss_error: the same weighted by what the outputs do to the objective, if there was one.
        predicted_loss: what this layer's error is expected to change about the objective, as a fraction of its
            variance, to first order and by itself.
        held_out_ratio: relative error on calibration inputs that were held out, over that on the others.
        reason: why it stayed as it was.
        params: of the kernel or the cores that it had; None: in_dim x out_dim.
        is_table: it is a table of embeddings, its dimensions are tokens and features.
        times: of the layer before and after, where they were measured.
        losses, codes: of each component of an elastic network, see `tncompress.conversion.elastic`.
        spectrum: singular values that a low-rank network cuts off at its rank.
    """

    path: str
    in_dim: int
    out_dim: int
    choice: Choice | Bands | None = None
    method: str = ""
    weight_error: float | None = None
    output_error: float | None = None
    loss_error: float | None = None
    predicted_loss: float | None = None
    held_out_ratio: float | None = None
    reason: str | None = None
    params: int | None = None
    is_table: bool = False
    times: Times | None = None
    losses: tuple[float, ...] = ()
    codes: tuple[float, ...] = ()
    spectrum: Spectrum | None = None

    def to_config(self) -> dict:
        """A JSON-able value from which `from_config` makes this outcome again."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        if self.spectrum:
            lists["spectrum"] = self.spectrum.to_config()
        return {**values, **lists, "choice": self.choice.to_config() if self.choice else None}

    @classmethod
    def from_config(cls, config: Mapping) -> "Outcome":
        """The outcome that `to_config` described.

        Raises:
            ValueError: if a value is of another kind, or an elastic network has other components.
        """
        for name, kinds in _KINDS.items():
            if name in config and not isinstance(config[name], kinds):
                raise ValueError(f"The outcome of {shown(config.get('path'))} has a {name} of {shown(config[name])}.")
        choice = config["choice"]
        tuples = {name: tuple(config.get(name, ())) for name in ("losses", "codes")}
        if config.get("times") is not None:
            tuples["times"] = Times(*config["times"])
        tuples["spectrum"] = Spectrum.from_config(config.get("spectrum"))
        made = cls(**{**config, **tuples, "choice": choice_from_config(choice) if choice else None})
        made._check_components()
        return made

    def _check_components(self) -> None:
        """An elastic network has a loss and a code for each of its components."""
        if not self.losses and not self.codes:
            return
        spec = self.choice.spec if isinstance(self.choice, Choice) else None
        rank = spec.core_shapes[0][-1] if spec and is_low_rank(spec) else 0
        if not len(self.losses) == len(self.codes) == rank or not np.isfinite([*self.losses, *self.codes]).all():
            raise ValueError(f"The outcome of {shown(self.path)} has other losses or codes than {rank} finite numbers.")


@dataclass(frozen=True)
class Compression:
    """How a compressed model came about.

    Args:
        dense: the config of the dense model.
        outcomes: what became of its layers.
        params: of the dense model; None if it is not known.
        measured_loss: what changed about the objective on calibration inputs that were held out, as a fraction of its
            variance; None without an objective.
        front: what the budget could have chosen; None where each layer had its own, or a recipe chose.
    """

    dense: Mapping
    outcomes: tuple[Outcome, ...]
    params: int | None = None
    measured_loss: float | None = None
    front: Front | None = None

    @property
    def recipe(self) -> dict[str, Choice | Bands]:
        """What was put where."""
        return {outcome.path: outcome.choice for outcome in self.outcomes if outcome.choice}
