"""From sites to fits: which moments there are for them, which network each gets, and its cores."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.calibrate import Calibration, Mask, calibrate
from tncompress.conversion.gradients import Objective
from tncompress.conversion.pairs import Pair, find_pairs
from tncompress.conversion.planning import Choices, kernel_of
from tncompress.conversion.saving import Outcome
from tncompress.conversion.sites import Site, locate
from tncompress.fitting.allocate import Choice
from tncompress.fitting.fit import Fit, fit, relative_error
from tncompress.fitting.moments import Moments
from tncompress.fitting.offers import NARROW, Place, inputs_of, outputs_of
from tncompress.fitting.units import narrow
from tncompress.forms import Form
from tncompress.layers.pivoted import pivoted
from tncompress.linalg import psd_root
from tncompress.network.plan import to_dense
from tncompress.progress import progress_bar


@dataclass(frozen=True, eq=False)
class Fitted:
    """What goes into the place of a dense layer.

    Args:
        cores: of the network, as the layer stores them.
        order: of a layer with pivots, see `TNPivoted`; else None.
        bias: what the layer's bias becomes; None if it has none.
    """

    cores: list[np.ndarray]
    order: np.ndarray | None
    bias: np.ndarray | None


def fit_all(
    model: keras.Model,
    sites: Sequence[Site],
    places: Mapping[str, Place],
    choices: Choices,
    pairs: Sequence[Pair],
    forms: Sequence[Form],
    seed: int,
    progress: bool | None,
) -> tuple[list[Outcome], dict[str, Fitted]]:
    """Fit the chosen network for every site."""
    layers = locate(model, [site.path for site in sites])
    biases = {path: None if layer.bias is None else ops.convert_to_numpy(layer.bias) for path, layer in layers.items()}
    hidden = _hidden_units(places, choices, pairs)
    outcomes, fitted = [], {}
    for site in progress_bar(sites, "Fitting", shown=progress):
        place, choice = places[site.path], choices[site.path]
        if choice is None:
            reason = "the budget has room for the dense kernel"
            outcomes.append(Outcome(site.path, site.in_dim, site.out_dim, reason=reason))
            continue
        narrowed = hidden.get(site.path)
        bias = biases[site.path]
        if narrowed is not None and bias is not None:
            bias = narrowed.bias(bias)
        place = place if narrowed is None else narrowed.place
        # Forms that are given themselves need not be registered; a recipe has names.
        form = next((form for form in forms if form.name == choice.form), choice.form)
        found = _fit(place, choice, form, seed)
        if bias is not None and found.bias is not None:
            bias = bias + found.bias
        cores, order = pivoted(*found.cores) if choice.pivots else (found.cores, None)
        fitted[site.path] = Fitted(cores, order, bias)
        errors = (found.weight_error, found.output_error, found.loss_error)
        if narrowed is not None and narrowed.units_in is not None:
            errors = _errors_with_lost_units(places[site.path], narrowed.units_in, choice, found)
        outcomes.append(Outcome(site.path, site.in_dim, site.out_dim, choice, found.method, *errors))
    return outcomes, fitted


def _fit(place: Place, choice: Choice, form: Form | str | None, seed: int) -> Fit:
    if choice.form != NARROW:
        return fit(place.kernel, choice.spec, place.moments, form=form, centred=place.centred, seed=seed)
    none = None if place.moments is None else 0.0
    return Fit([place.kernel], None, 0.0, none, none, "hidden units chosen and folded")


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


def _hidden_units(places: Mapping[str, Place], choices: Choices, pairs: Sequence[Pair]) -> dict[str, _Narrowed]:
    """The narrower kernels of pairs whose choices have fewer hidden units than the model."""
    found: dict[str, _Narrowed] = {}
    for pair in pairs:
        second, choice = places.get(pair.second), choices.get(pair.second)
        if second is None or choice is None or choice.spec.in_dim == len(second.kernel):
            continue
        covariance, moment = second.metrics
        root = None if moment is None else psd_root(moment)
        units = narrow(second.kernel, covariance, root, [choice.spec.in_dim])[0].units
        narrower = inputs_of(second, units)
        for path in pair.first:
            found[path] = _Narrowed(outputs_of(places[path], units), None, units, None)
        shift = None
        if second.moments is not None and second.centred:
            # What the lost units gave on average, less what the others already give for them.
            mean = second.moments.mean
            shift = mean @ second.kernel - mean[units] @ narrower.kernel
        found[pair.second] = _Narrowed(narrower, units, None, shift)
    return found


def _errors_with_lost_units(place: Place, units: np.ndarray, choice: Choice, found: Fit) -> tuple:
    """The errors of a second kernel against all of its hidden units."""
    approximation = np.zeros(place.kernel.shape)
    approximation[units] = to_dense(choice.spec, found.cores)
    inputs, outputs = place.metrics
    return (
        relative_error(place.kernel, approximation),
        None if inputs is None else relative_error(place.kernel, approximation, inputs),
        None if outputs is None else relative_error(place.kernel, approximation, inputs, outputs),
    )


def pairs_of(model: keras.Model, sites: Sequence[Site], moments: Mapping[str, Moments]) -> list[Pair]:
    """Which of the sites share hidden units.

    Raises:
        ValueError: there are no inputs to try it on.
    """
    if not isinstance(moments, Calibration):
        raise ValueError(
            "Hidden units can be left out only where the model's inputs are known: give calibration= batches, or what "
            "tncompress.calibrate returned."
        )
    return find_pairs(model, sites, moments.sample)


def check_objective_data(objective: Objective | None, calibration: Any) -> None:
    if objective is None:
        return
    if calibration is None:
        raise ValueError("An objective needs inputs on which to look at it; give calibration= batches of real inputs.")
    if _are_moments(calibration):
        raise ValueError("The moments are gathered already; give the objective to tncompress.calibrate instead.")


def _are_moments(calibration: Any) -> bool:
    return isinstance(calibration, Mapping) and any(isinstance(given, Moments) for given in calibration.values())


def moments_of(
    model: keras.Model,
    sites: Sequence[Site],
    calibration: Any,
    objective: Objective | None,
    mask: Mask,
    progress: bool | None,
) -> Mapping[str, Moments]:
    """Moments of the sites' inputs: gathered now, gathered before, or none."""
    if calibration is None:
        return {}
    if _are_moments(calibration):
        moments = calibration
        for site in sites:
            _check_moments(moments.get(site.path), site)
    else:
        paths = [site.path for site in sites]
        moments = calibrate(model, paths, calibration, objective=objective, mask=mask, progress=progress)
    few = [site for site in sites if moments[site.path].count < site.in_dim]
    if few:
        warnings.warn(
            f"{len(few)} layers saw fewer vectors than they have features (e.g. {few[0].path!r}: "
            f"{moments[few[0].path].count} for {few[0].in_dim}); calibrate on more inputs.",
            stacklevel=3,
        )
    return moments


def _check_moments(moments: Moments | None, site: Site) -> None:
    if moments is None:
        raise ValueError(f"The calibration moments lack the layer {site.path!r}; gather them for all chosen layers.")
    if len(moments.mean) != site.in_dim or not moments.count:
        raise ValueError(
            f"The calibration moments of {site.path!r} are of {moments.count} vectors of {len(moments.mean)} features, "
            f"but the layer takes {site.in_dim}; gather them on this model."
        )
    if moments.gradients is not None and len(moments.gradients.mean) != site.out_dim:
        raise ValueError(
            f"The calibration moments of {site.path!r} have gradients of {len(moments.gradients.mean)} features, but "
            f"the layer makes {site.out_dim}; gather them on this model."
        )
    arrays = [a for m in (moments, moments.gradients) if m is not None for a in (m.mean, m.scatter)]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"The calibration moments of {site.path!r} hold NaN or infinity; gather them again.")


def check_kernels(model: keras.Model, sites: Sequence[Site]) -> None:
    for path, layer in locate(model, [site.path for site in sites]).items():
        if not np.isfinite(kernel_of(layer)).all():
            raise ValueError(f"The kernel of the layer {path!r} holds NaN or infinity; repair or exclude it.")
