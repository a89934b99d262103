"""From choices to fits: cores, biases and tables for every site, and how far each is from what was there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tncompress.conversion.curves import Spectrum
from tncompress.conversion.dense_maps import bias_of
from tncompress.conversion.elastic import components
from tncompress.conversion.masks import Mask
from tncompress.conversion.outcomes import ROOM, Outcome
from tncompress.conversion.pairs import Pair
from tncompress.conversion.places import Places
from tncompress.conversion.planning import Plan
from tncompress.conversion.refit import refit
from tncompress.conversion.sites import Site
from tncompress.conversion.walking import locate
from tncompress.fitting.choice import NARROW, Bands, Choice
from tncompress.fitting.embedding import EmbeddingFit, fit_embedding
from tncompress.fitting.fit import fit
from tncompress.fitting.offers import spectrum
from tncompress.fitting.place import Place, Table, hidden_covariance, inputs_of, outputs_of
from tncompress.fitting.units import narrow
from tncompress.forms import Form, low_rank
from tncompress.layers.pivoted import pivoted
from tncompress.linalg import psd_root
from tncompress.progress import progress_bar

MOST_WORK = 1e10  # of a spectrum, some 0.4 s: 768 x 3072 has one, 1024 x 4096 has none


@dataclass(frozen=True, eq=False)
class Fitted:
    """What goes into the place of a dense layer.

    Args:
        cores: of the network, as the layer stores them.
        order: of a layer with pivots, see `TNPivoted`; else None.
        bias: `[out_dim]`, what the layer's bias becomes; None if it has none.
    """

    cores: list[np.ndarray]
    order: np.ndarray | None
    bias: np.ndarray | None


def fit_all(
    model: keras.Model,
    sites: Sequence[Site],
    places: Places,
    plan: Plan,
    pairs: Sequence[Pair],
    forms: Sequence[Form],
    seed: int,
    elastic: bool,
    progress: bool | None,
) -> tuple[list[Outcome], dict[str, Fitted | EmbeddingFit], dict[str, np.ndarray]]:
    """Fit the chosen network for every site.

    Returns:
        what became of the sites; what goes into their places, by path; and of layers that lost outputs those that
        stay, by path.
    """
    layers = locate(model, [site.path for site in sites])
    narrowed = _narrowed(places, plan, pairs)
    made = {path: found.units_out for path, found in narrowed.items() if found.units_out is not None}
    outcomes: list[Outcome] = []
    fitted: dict[str, Fitted | EmbeddingFit] = {}
    for site in progress_bar(sites, "Fitting", shown=progress):
        place, choice = places[site.path], plan.choices[site.path]
        if choice is None:
            outcomes.append(Outcome(site.path, site.in_dim, site.out_dim, reason=ROOM, is_table=site.is_table))
        elif isinstance(place, Table):
            fitted[site.path], outcome = _fit_table(site, place, choice)
            outcomes.append(outcome)
        else:
            # Forms that are given themselves need not be registered; a recipe has names.
            form = next((form for form in forms if form.name == choice.form), choice.form)
            bias = bias_of(layers[site.path])
            fitted[site.path], outcome = _fit_place(
                site, place, choice, narrowed.pop(site.path, None), bias, form, seed, elastic
            )
            outcomes.append(outcome)
    return outcomes, fitted, made


def refit_all(
    model: keras.Model,
    small: keras.Model,
    data: Any,
    outcomes: Sequence[Outcome],
    units: Mapping[str, np.ndarray],
    moments: Mapping[str, Any],
    mask: Mask,
    progress: bool | None,
) -> list[Outcome]:
    """Fit the networks once more in place, see `refit`; what became of them then."""
    paths = [outcome.path for outcome in outcomes if outcome.choice and not outcome.is_table]
    gradients = {path: moments[path].gradients for path in paths if path in moments and moments[path].gradients}
    done = refit(model, small, data, paths=paths, units=units, gradients=gradients, mask=mask, progress=progress)
    better = {path for path, result in done.items() if result.taken}
    return [replace(o, method=f"{o.method}, refitted") if o.path in better else o for o in outcomes]


def _fit_table(site: Site, table: Table, choice: Bands) -> tuple[EmbeddingFit, Outcome]:
    found = fit_embedding(table.table, table.frequencies, choice.bands, table.moment)
    has_objective = table.gradients is not None
    outcome = Outcome(
        site.path,
        site.in_dim,
        site.out_dim,
        choice,
        "bands by token frequency" + (", two-sided" if has_objective else ""),
        weight_error=found.weight_error,
        output_error=found.output_error,
        predicted_loss=found.loss * table.unit if has_objective else None,
        is_table=True,
    )
    return found, outcome


def _fit_place(
    site: Site,
    place: Place,
    choice: Choice,
    narrowed: "_Narrowed | None",
    bias: np.ndarray | None,
    form: Form | str | None,
    seed: int,
    elastic: bool,
) -> tuple[Fitted, Outcome]:
    if narrowed is not None and bias is not None:
        bias = narrowed.bias(bias)
    seen = place if narrowed is None else narrowed.place
    cores, shift, approximation, method = _fit(seen, choice, form, seed)
    if bias is not None and shift is not None:
        bias = bias + shift
    ordered = {}
    if elastic and choice.form == low_rank.FORM.name:
        mean = seen.moments.mean if seen.centred and seen.moments is not None else None
        ordered = components(*cores, seen.metrics, seen.unit, mean)
    curve = Spectrum.of(spectrum(seen)) if choice.form == low_rank.FORM.name and _is_quick(seen) else None
    if narrowed is not None and narrowed.units_in is not None:  # against all hidden units
        seen, approximation = place, _with_zeros(approximation, narrowed.units_in, len(place.kernel))
    errors = seen.errors(approximation)
    outcome = Outcome(
        site.path,
        site.in_dim,
        site.out_dim,
        choice,
        method,
        errors.weight,
        errors.output,
        errors.loss,
        predicted_loss=errors.predicted_loss,
        held_out_ratio=errors.held_out_ratio,
        spectrum=curve,
        **ordered,
    )
    stored, order = pivoted(*cores) if choice.pivots else (cores, None)
    return Fitted(stored, order, bias), outcome


def _is_quick(place: Place) -> bool:
    """Whether a spectrum, which nothing but the report shows, costs little beside the fit."""
    small, large = sorted(place.kernel.shape)
    return small * large**2 <= MOST_WORK


def _with_zeros(rows: np.ndarray, units: np.ndarray, count: int) -> np.ndarray:
    found = np.zeros((count, rows.shape[1]))
    found[units] = rows
    return found


def _fit(
    place: Place, choice: Choice, form: Form | str | None, seed: int
) -> tuple[list[np.ndarray], np.ndarray | None, np.ndarray, str]:
    """Cores, what is added to the bias, the kernel that they make, and how they were found."""
    if choice.form == NARROW:
        return [place.kernel], None, place.kernel, "hidden units chosen and folded"
    found = fit(place.kernel, choice.spec, place.moments, form=form, centred=place.centred, seed=seed)
    return found.cores, found.bias, found.approximation, found.method


@dataclass(frozen=True, eq=False)
class _Narrowed:
    """A kernel that lost hidden units: as inputs (then the others stand in for them) or as outputs."""

    place: Place
    units_in: np.ndarray | None
    units_out: np.ndarray | None
    shift: np.ndarray | None

    def bias(self, bias: np.ndarray) -> np.ndarray:
        bias = bias if self.units_out is None else bias[self.units_out]
        return bias if self.shift is None else (bias + self.shift).astype(bias.dtype)


def _narrowed(places: Places, plan: Plan, pairs: Sequence[Pair]) -> dict[str, _Narrowed]:
    """The narrower kernels of pairs whose choices have fewer hidden units than the model."""
    found: dict[str, _Narrowed] = {}
    for pair in pairs:
        second, choice = places.get(pair.second), plan.choices.get(pair.second)
        if not isinstance(second, Place) or choice is None or choice.dims[0] == len(second.kernel):
            continue
        units = plan.units.get(pair.second)
        if units is None:  # a recipe tells how many, not which
            covariance, moment = hidden_covariance(second), second.metrics[1]
            root = None if moment is None else psd_root(moment)
            units = narrow(second.kernel, covariance, root, [choice.dims[0]])[0].units
        narrower = inputs_of(second, units)
        for path in pair.first:
            found[path] = _Narrowed(outputs_of(places[path], units), None, units, None)  # type: ignore[arg-type]
        shift = None
        if second.moments is not None and second.centred:
            # What the lost units gave on average, less what the others already give for them.
            mean = second.moments.mean
            shift = mean @ second.kernel - mean[units] @ narrower.kernel
        found[pair.second] = _Narrowed(narrower, units, None, shift)
    return found
