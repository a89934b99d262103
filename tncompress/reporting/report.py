"""`report`: what became of every dense layer of a model, as a table, a page, JSON, and the recipe to do it again."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import keras

from tncompress.conversion.changes import Change, change_of, kept
from tncompress.conversion.curves import Front, Spectrum
from tncompress.conversion.held_out import EVERY_OF_FEW
from tncompress.conversion.outcomes import ROOM, Outcome
from tncompress.conversion.saving import compression_of
from tncompress.conversion.sites import Site, find_sites
from tncompress.conversion.walking import walk
from tncompress.fitting.choice import Choice
from tncompress.fitting.place import FEWEST
from tncompress.forms import low_rank
from tncompress.reporting.grouping import kinds_of, networks_of
from tncompress.reporting.table import parts_of, percent, text_of

# What a row takes from its layer's outcome as it is
SAME = (
    "weight_error",
    "output_error",
    "loss_error",
    "predicted_loss",
    "held_out_ratio",
    "method",
    "reason",
    "spectrum",
)
FAR_ABOVE = 1.5  # held-out errors over those of the fit that call for more calibration data


@dataclass(frozen=True)
class Row(Change):
    """One dense layer, before and after, and what it cost.

    Args:
        weight_error: ||W - W'|| / ||W||.
        output_error: relative error of the outputs on the calibration data.
        loss_error: the same weighted by what the outputs do to the objective.
        predicted_loss: what it is expected to change about the objective, as a fraction of its variance.
        held_out_ratio: relative error on calibration inputs that were held out, over that on the others.
        method: how the cores were fitted.
        reason: why it stayed dense.
        seconds_before, seconds_after: of the layer and of its network, measured side by side where it was asked for.
        rank: of a low-rank network.
        spectrum: the singular values that it was cut from, as inputs and objective weight them.
    """

    weight_error: float | None
    output_error: float | None
    loss_error: float | None
    predicted_loss: float | None
    held_out_ratio: float | None
    method: str
    reason: str | None
    seconds_before: float | None = None
    seconds_after: float | None = None
    rank: int | None = None
    spectrum: Spectrum | None = None


@dataclass(frozen=True)
class Report:
    """What became of a model. `print` it, or take `rows`, `recipe`, `to_json()`.

    Args:
        model: its name.
        rows: one for every dense layer.
        params_before, params_after: of the whole model.
        recipe: `{path: {"form": ..., "spec": ...}}`, for `replace_dense(recipe=...)`.
        measured_loss: what changed about the objective on held-out calibration inputs, as a fraction of its variance.
        front: what the budget could have chosen; None where each layer had its own, or a recipe chose.
    """

    model: str
    rows: tuple[Row, ...]
    params_before: int
    params_after: int
    recipe: dict[str, dict]
    measured_loss: float | None = None
    front: Front | None = None

    @property
    def predicted_loss(self) -> float | None:
        """What all layers together are expected to change about the objective; None without one."""
        losses = [row.predicted_loss for row in self.rows if row.predicted_loss is not None]
        return sum(losses) if losses else None

    @property
    def is_blind(self) -> bool:
        """Whether kernels were replaced, and none was fitted to inputs."""
        kernels = [row for row in self.replaced if row.equation]
        return bool(kernels) and all(row.output_error is None for row in kernels)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know before trusting the figures."""
        if self.is_blind:
            return (
                "Fitted to the weights alone, so what the outputs lose is not known, and the weights' errors do not "
                "tell it: give calibration inputs, with which far less is lost, and compare the models on your inputs.",
            )
        ratios = [row.held_out_ratio for row in self.replaced if row.held_out_ratio is not None]
        if not ratios and any(row.output_error for row in self.replaced if row.equation):
            return (
                "Not checked on held-out inputs, for which the calibration data were too few, so the errors may be "
                f"larger on other inputs: calibrate on {FEWEST * EVERY_OF_FEW} inputs or more.",
            )
        if not ratios or (typical := median(ratios)) <= FAR_ABOVE:
            return ()
        return (
            f"On held-out calibration inputs the layers' error is {typical:.1f} times that on the others: calibrate on "
            "more inputs, and on such as the model will see.",
        )

    @property
    def replaced(self) -> tuple[Row, ...]:
        """The rows of layers that are networks now."""
        return tuple(row for row in self.rows if row.form)

    @property
    def keep(self) -> float:
        """Fraction of the replaced layers' kernel parameters that stayed; 1 if none was replaced."""
        return kept(self.replaced)

    @property
    def keep_of_chosen(self) -> float:
        """The same, over the layers besides for which the budget had room as they are."""
        return kept([row for row in self.rows if row.form or row.reason == ROOM])

    def _sums(self) -> dict[str, int]:
        """Of the replaced layers."""
        names = ("params_before", "params_after", "flops_before", "flops_after")
        return {name: sum(getattr(row, name) for row in self.replaced) for name in names}

    def to_json(self) -> str:
        """The whole report for machines, with what the page shows besides: totals, kinds of layers, networks once."""
        more = {
            "keep": self.keep,
            "smaller": self.params_before / max(self.params_after, 1),
            "predicted_loss": self.predicted_loss,
            "warnings": self.warnings,
            "replaced": {"layers": len(self.replaced), "of": len(self.rows), **self._sums()},
            "kinds": kinds_of(self.rows, self.params_before, self.params_after),
            "networks": networks_of(self.rows),
        }
        return json.dumps({**asdict(self), **more}, indent=2)

    def save_html(self, path: str | os.PathLike) -> Path:
        """Write the one-page report, a file that needs nothing else; an older one stays until this one is whole.

        Args:
            path: of the file.

        Raises:
            FileNotFoundError: its folder does not exist.
            IsADirectoryError: it is a folder.
        """
        from tncompress.reporting.page import page, write

        return write(path, page(self.to_json()))

    def __str__(self) -> str:
        return text_of(self)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        return parts_of(self)

    def totals(self) -> str:
        """Kernels and whole model, before and after, and what is known of the objective: two lines or three."""
        sums = self._sums()
        smaller = self.params_before / max(self.params_after, 1)
        found = (
            f"Replaced kernels: {sums['params_before']:,} -> {sums['params_after']:,} parameters "
            f"({self.keep:.2%} kept{self._left_whole()}), "
            f"{sums['flops_before']:,} -> {sums['flops_after']:,} FLOPs a token.\n"
            f"Whole model: {self.params_before:,} -> {self.params_after:,} parameters ({smaller:.2f}x smaller)."
        )
        if self.predicted_loss is None:
            return found
        loss = self.measured_loss
        measured = "not checked" if loss is None else f"{percent(loss)} measured"
        predicted = f"{percent(self.predicted_loss)} of its variance predicted to change"
        return f"{found}\nObjective: {predicted}, {measured} on held-out inputs."

    def _left_whole(self) -> str:
        whole = sum(row.reason == ROOM for row in self.rows)
        return f"; {self.keep_of_chosen:.2%} with the {whole} that the budget left dense" if whole else ""


def report(model: keras.Model) -> Report:
    """What became of every dense layer of a model, also after saving and loading; of an uncompressed one, what it has.

    >>> from tncompress import replace_dense
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, name="hidden")], name="tiny")
    >>> print(report(replace_dense(model, keep=0.5)).totals())
    Replaced kernels: 4,096 -> 2,048 parameters (50.00% kept), 8,192 -> 4,096 FLOPs a token.
    Whole model: 4,160 -> 2,112 parameters (1.97x smaller).
    """
    compression = compression_of(model)
    recipe = {path: choice.to_config() for path, choice in compression.recipe.items()} if compression else {}
    rows = tuple(map(_row, _outcomes(model)))
    after = model.count_params()
    before = compression.params if compression else None
    if before is None:  # what a larger model, or a part of this one, remembers
        before = after + sum(row.params_before - row.params_after for row in rows)
    known = (compression.measured_loss, compression.front) if compression else ()
    return Report(model.name, rows, before, after, recipe, *known)


def _outcomes(model: keras.Model) -> list[Outcome]:
    """What became of every layer, also of those in parts of the model that were compressed before."""
    compression = compression_of(model)
    outcomes = compression.outcomes if compression else map(_as_it_is, find_sites(model))
    found = {outcome.path: outcome for outcome in outcomes}
    for path, layer in walk(model):
        if part := compression_of(layer):
            inner = {f"{path}/{o.path}": replace(o, path=f"{path}/{o.path}") for o in part.outcomes if o.choice}
            found.update({name: outcome for name, outcome in inner.items() if name in found})
    return list(found.values())


def _as_it_is(site: Site) -> Outcome:
    reason = site.reason or "not compressed"
    return Outcome(site.path, site.in_dim, site.out_dim, reason=reason, params=site.num_params, is_table=site.is_table)


def _row(outcome: Outcome) -> Row:
    choice, dims = outcome.choice, (outcome.in_dim, outcome.out_dim)
    params = dims[0] * dims[1] if outcome.params is None else outcome.params
    before, after = outcome.times or (None, None)
    is_low_rank = isinstance(choice, Choice) and choice.form == low_rank.FORM.name
    return Row(
        **change_of(outcome.path, dims, params, choice, outcome.is_table),
        **{name: getattr(outcome, name) for name in SAME},
        seconds_before=before,
        seconds_after=after,
        rank=choice.spec.core_shapes[0][-1] if is_low_rank else None,
    )
