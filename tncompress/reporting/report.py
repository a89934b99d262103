"""`report`: what became of every dense layer of a model, as a table, as JSON, and as the recipe to do it again."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras

from tncompress.conversion.saving import Outcome, compression_of
from tncompress.conversion.sites import Site, find_sites, walk
from tncompress.network.cost import cost, dense_spec

PER_VECTORS = 1024  # FLOPs of a vector are counted where many are computed at once


@dataclass(frozen=True)
class Row:
    """One dense layer, before and after.

    Args:
        layer: path of the layer.
        form: of the network in its place, `"own"` for a spec of no form; None if it stayed dense.
        equation: of the network.
        sizes: of the network's modes.
        params_before, params_after: of the kernel.
        flops_before, flops_after: of one vector; a multiply-add counts as 2.
        weight_error: ||W - W'|| / ||W||.
        output_error: relative error of the outputs on the calibration data.
        loss_error: the same weighted by what the outputs do to the objective.
        method: how the cores were fitted.
        reason: why it stayed dense.
    """

    layer: str
    form: str | None
    equation: str | None
    sizes: str | None
    params_before: int
    params_after: int
    flops_before: int
    flops_after: int
    weight_error: float | None
    output_error: float | None
    loss_error: float | None
    method: str
    reason: str | None


@dataclass(frozen=True)
class Report:
    """What became of a model. `print` it, or take `rows`, `recipe`, `to_json()`.

    Args:
        model: its name.
        rows: one for every dense layer.
        params_before, params_after: of the whole model.
        recipe: `{path: {"form": ..., "spec": ...}}`, for `replace_dense(recipe=...)`.
    """

    model: str
    rows: tuple[Row, ...]
    params_before: int
    params_after: int
    recipe: dict[str, dict]

    @property
    def replaced(self) -> tuple[Row, ...]:
        """The rows of layers that are networks now."""
        return tuple(row for row in self.rows if row.form)

    @property
    def keep(self) -> float:
        """Fraction of the replaced layers' kernel parameters that stayed; 1 if none was replaced."""
        before = sum(row.params_before for row in self.replaced)
        return sum(row.params_after for row in self.replaced) / before if before else 1.0

    def to_json(self) -> str:
        """The whole report for machines."""
        return json.dumps({**asdict(self), "keep": self.keep}, indent=2)

    def __str__(self) -> str:
        from rich.console import Console

        longest = max((len(row.layer) for row in self.rows), default=0)
        console = Console(width=max(128, longest + 100), force_terminal=False, color_system=None)
        with console.capture() as captured:
            for part in self.__rich_console__(console, None):
                console.print(part)
        return captured.get().rstrip()

    def __rich_console__(self, console: Any, options: Any) -> Any:
        """The table; layers that stayed dense stand below it with their reasons."""
        from rich.table import Table

        table = Table(title=f"{self.model}: {len(self.replaced)} of {len(self.rows)} dense layers are networks")
        for title in ("layer", "form", "sizes"):
            table.add_column(title, overflow="fold")
        for title in ("params", "FLOPs", "error: weights", "outputs", "objective"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in self.replaced:
            table.add_row(
                row.layer,
                row.form,
                row.sizes,
                f"{row.params_before:,} -> {row.params_after:,}",
                f"{row.flops_before:,} -> {row.flops_after:,}",
                _number(row.weight_error),
                _number(row.output_error),
                _number(row.loss_error),
            )
        yield table
        yield from dict.fromkeys(f"{row.form}: {row.equation}" for row in self.replaced)
        methods = Counter(row.method for row in self.replaced)
        yield from (f"Fitted by {method}: {count} layers." for method, count in methods.items())
        yield self.totals()
        yield from self._left_dense()

    def _left_dense(self) -> Iterator[Any]:
        """A paragraph for every reason, with the layers that it holds for."""
        from rich.padding import Padding
        from rich.text import Text

        reasons: dict[str | None, list[Row]] = {}
        for row in self.rows:
            if not row.form:
                reasons.setdefault(row.reason, []).append(row)
        for reason, rows in reasons.items():
            params = sum(row.params_before for row in rows)
            yield Text(f"Left dense ({params:,} parameters), {reason}:")
            yield Padding(Text(", ".join(row.layer for row in rows)), (0, 0, 0, 2), expand=False)

    def totals(self) -> str:
        """Kernels and whole model, before and after, in two lines."""
        kernels = [sum(getattr(row, name) for row in self.replaced) for name in ("params_before", "params_after")]
        flops = [sum(getattr(row, name) for row in self.replaced) for name in ("flops_before", "flops_after")]
        smaller = self.params_before / max(self.params_after, 1)
        return (
            f"Replaced kernels: {kernels[0]:,} -> {kernels[1]:,} parameters ({self.keep:.2%} kept), "
            f"{flops[0]:,} -> {flops[1]:,} FLOPs a token.\n"
            f"Whole model: {self.params_before:,} -> {self.params_after:,} parameters ({smaller:.2f}x smaller)."
        )


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
    return Report(model.name, rows, after + sum(row.params_before - row.params_after for row in rows), after, recipe)


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
    return Outcome(site.path, site.in_dim, site.out_dim, reason=site.reason or "not compressed", params=site.num_params)


def _row(outcome: Outcome) -> Row:
    dense = dense_spec(outcome.in_dim, outcome.out_dim) if outcome.in_dim else None
    params = outcome.params if outcome.params is not None else dense.num_params if dense else 0
    dense_flops = cost(dense, PER_VECTORS).flops // PER_VECTORS if dense else 0
    flops = outcome.choice.flops(PER_VECTORS) // PER_VECTORS if outcome.choice else dense_flops
    return Row(
        outcome.path,
        (outcome.choice.form or "own") if outcome.choice else None,
        outcome.choice.spec.equation if outcome.choice else None,
        ", ".join(f"{mode}={size}" for mode, size in outcome.choice.spec.sizes) if outcome.choice else None,
        params,
        outcome.choice.num_params if outcome.choice else params,
        dense_flops,
        flops,
        outcome.weight_error,
        outcome.output_error,
        outcome.loss_error,
        outcome.method,
        outcome.reason,
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
