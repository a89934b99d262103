"""`preview`: what `replace_dense` would make of every layer. Nothing is fitted, nothing changed."""

from dataclasses import asdict, dataclass, fields
from typing import Any

import keras
import numpy as np

from tncompress.conversion.changes import Change, change_of, kept
from tncompress.conversion.deciding import Decision, Request, decide, requested
from tncompress.conversion.outcomes import ROOM
from tncompress.conversion.sites import Site
from tncompress.fitting.budget import Target
from tncompress.fitting.choice import NARROW, Bands, Choice
from tncompress.fitting.fit import quick_error
from tncompress.fitting.offers import spectrum
from tncompress.fitting.place import Place, Table
from tncompress.fitting.problem import squared_error
from tncompress.forms import FORMS, Form, low_rank
from tncompress.progress import progress_bar


@dataclass(frozen=True)
class Expected(Change):
    """One dense layer or table of embeddings, as it is and as it would be.

    Args:
        loss: what would be lost: with an objective the fraction of its variance that is expected to change; without
            one the error's share of the energy, of the outputs where the layer was calibrated, else of the weights.
            Of layers that share hidden units it stands at the last. None: only a fit can tell.
        seconds_before, seconds_after: estimated on the device, or measured; None where no device was named.
        reason: why it would stay as it is.
    """

    loss: float | None = None
    seconds_before: float | None = None
    seconds_after: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Preview:
    """What `replace_dense` would make of a model.

    Args:
        model: its name.
        rows: one for every layer and table.
        params_before, params_after: of the whole model.
        recipe: what goes where, for `replace_dense(recipe=...)`.
        objective: losses are fractions of an objective's variance.
        device, tokens: what the times are of; None and () where no device was named.
    """

    model: str
    rows: tuple[Expected, ...]
    params_before: int
    params_after: int
    recipe: dict[str, dict]
    objective: bool
    device: str | None = None
    tokens: tuple[int, ...] = ()

    @property
    def replaced(self) -> tuple[Expected, ...]:
        """The rows of layers that would be networks."""
        return tuple(row for row in self.rows if row.form)

    @property
    def keep(self) -> float:
        """Fraction of the replaced layers' parameters that would stay; 1 if none would be replaced."""
        return kept(self.replaced)

    @property
    def predicted_loss(self) -> float | None:
        """Of the objective, all layers together; None without one."""
        return sum(row.loss for row in self.rows if row.loss is not None) if self.objective else None

    def __str__(self) -> str:
        """A line for every layer, and one for the whole model."""
        whole = f"Whole model: {self.params_before:,} -> {self.params_after:,} parameters"
        return "\n".join([*map(_line, self.rows), whole])

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return {**asdict(self), "keep": self.keep, "predicted_loss": self.predicted_loss}


def _line(row: Expected) -> str:
    if not row.form:
        return f"{row.layer}: stays, {row.reason}"
    return f"{row.layer}: {row.form}, {row.sizes}, {row.params_before:,} -> {row.params_after:,} parameters"


def preview(model: keras.Model, keep: float | None = None, **wanted: Any) -> Preview:
    """What `replace_dense` would make of every layer, from shapes and singular values: nothing is fitted or changed.

    Calibration, if it is given, is gathered as `replace_dense` would do it.

    Args:
        model: a built Keras model.
        keep: as of `replace_dense`.
        wanted: its other arguments, without `refit` and `seed`, which come after the choice.

    Raises:
        ValueError: as `replace_dense`.
        TypeError: an argument that it does not have.

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256), keras.layers.Dense(64)], name="block")
    >>> expected = preview(model, keep=0.5)
    >>> print(expected)
    dense...: low_rank, i=64, o=256, r=25, 16,384 -> 8,000 parameters
    dense...: low_rank, i=256, o=64, r=26, 16,384 -> 8,320 parameters
    Whole model: 33,088 -> 16,640 parameters
    """
    known = [field.name for field in fields(Request) if field.name not in ("forms", "target")]
    known += ["form", "device", "tokens"]
    if unknown := sorted(set(wanted) - set(known)):
        raise TypeError(f"preview has no argument {unknown[0]!r}; it takes {', '.join(known)}.")
    request = requested(keep, **wanted)
    decision = decide(model, request, working=lambda same: same)
    rows = tuple(
        _row(site, decision, request) for site in progress_bar(decision.sites, "Estimating", shown=request.progress)
    )
    before = model.count_params()
    after = before - sum(row.params_before - row.params_after for row in rows) - _lost_biases(decision)
    chosen = {path: choice for path, choice in decision.plan.choices.items() if choice}
    recipe = {site.path: chosen[site.path].to_config() for site in decision.sites if site.path in chosen}
    target = request.target
    objective = any(getattr(seen, "gradients", None) is not None for seen in decision.moments.values())
    device = (target.device.name, target.tokens) if target else (None, ())
    return Preview(model.name, rows, before, after, recipe, objective, *device)


def _row(site: Site, decision: Decision, request: Request) -> Expected:
    choice = decision.plan.choices.get(site.path)
    before, after = _seconds(site, choice, decision, request.target)
    return Expected(
        **change_of(site.path, (site.in_dim, site.out_dim), site.num_params, choice, site.is_table),
        loss=_loss(site.path, decision, request) if site.path in decision.plan.choices else None,
        seconds_before=before,
        seconds_after=after,
        reason=None if choice else _reason(site, decision),
    )


def _reason(site: Site, decision: Decision) -> str:
    if site.reason:
        return site.reason
    return "not in the recipe" if site.path not in decision.plan.choices else ROOM


def _seconds(
    site: Site, choice: Choice | Bands | None, decision: Decision, target: Target | None
) -> tuple[float | None, float | None]:
    if site.path in decision.times:
        return tuple(decision.times[site.path])
    if target is None or site.reason:
        return None, None
    dims = site.in_dim, site.out_dim
    return target.seconds(None, dims, site.is_table), target.seconds(choice, dims, site.is_table)


def _lost_biases(decision: Decision) -> int:
    """Biases that go with hidden units."""
    sites = {site.path: site for site in decision.sites}
    choices = [(sites[path], choice) for path, choice in decision.plan.choices.items() if choice]
    return sum(site.out_dim - choice.dims[1] for site, choice in choices if site.use_bias and not site.is_table)


def _loss(path: str, decision: Decision, request: Request) -> float | None:
    """As the plan knows it, or else from the singular values, or from the form's first approximation."""
    if path in decision.plan.losses:
        return decision.plan.losses[path]
    choice = decision.plan.choices[path]
    if choice is None:
        return 0.0
    if any(path in pair.first for pair in decision.pairs) or isinstance(choice, Bands):
        return None
    place = decision.places[path]
    form = next((form for form in request.forms if form.name == choice.form), FORMS.get(choice.form or ""))
    if isinstance(place, Table) or choice.form == NARROW or form is None or choice.dims != place.dims:
        return None
    if form.name == low_rank.FORM.name:
        rank = choice.spec.core_shapes[0][-1]
        return float(spectrum(place)[rank:].sum()) * place.unit
    return _first_loss(place, choice, form)


def _first_loss(place: Place, choice: Choice, form: Form) -> float:
    inputs, outputs = place.metrics
    energy = squared_error(place.kernel.astype(np.float64), 0.0, inputs, outputs) * place.unit
    return energy * quick_error(place.kernel, choice.spec, form, inputs, outputs)
