"""`replace_dense`: a trained model in, a smaller model out. `densify`: the way back."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.arguments import Recipe, check_keep, checked_forms, checked_recipe, with_reasons
from tncompress.conversion.calibrate import Mask, calibrate
from tncompress.conversion.saving import Compression, Outcome, compression_of, remember
from tncompress.conversion.sites import Filter, Site, find_sites, locate, walk
from tncompress.conversion.surgery import (
    classes_of,
    copy_model,
    copy_weights,
    first_line,
    model_config,
    put_networks,
    rebuilt,
)
from tncompress.fitting.allocate import Choice, choose
from tncompress.fitting.fit import Fit, fit
from tncompress.fitting.moments import Moments
from tncompress.progress import progress_bar


def replace_dense(
    model: keras.Model,
    keep: float = 0.5,
    *,
    form: str | Sequence[str] = "low_rank",
    include: Filter | None = None,
    exclude: Filter | None = None,
    calibration: Any = None,
    mask: Mask = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> keras.Model:
    """A new model whose dense layers are tensor networks fitted to the trained kernels; the given one is not changed.

    With `calibration` the networks are fitted to what the layers do on those inputs, which loses far less accuracy
    than fitting the weights alone; layers with a bias take up the mean error in it. `tncompress.report` tells what
    became of every layer.

    Args:
        model: a built Keras model of any kind: Functional, Sequential, subclassed, nested, from keras_hub.
        keep: fraction of the chosen layers' kernel parameters that stays, in (0, 1]; never exceeded, and met as
            closely as the ranks allow.
        form: a factorisation by name, see `tncompress.FORMS`; of several, every layer gets the one that fits it best.
        include: only layers whose path contains this regular expression (or one of several, or for whose `Site`
            this function is true). None: all dense layers.
        exclude: not these layers, likewise.
        calibration: an iterable of batches of what the model takes as input, a `tf.data.Dataset`, or all inputs at
            once as an array or a dict of arrays; or the moments that `tncompress.calibrate` gave, to use them again.
            No labels are needed; a thousand real inputs do.
        mask: which positions of calibration inputs count, see `tncompress.calibrate`.
        recipe: what to put where, as `report(model).recipe` gives it: a dict, JSON text, or a JSON file. It overrides
            keep, form, include and exclude.
        seed: of random starts, for forms without a closed form.
        progress: show bars; None: if it runs long in a terminal.

    Returns:
        A model of the same class, compiled as the given one (with a new optimizer state).

    Raises:
        ValueError: before any work, if an argument is wrong or no layer can be replaced. The message says what to do.

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(64)])
    >>> small = replace_dense(model, keep=0.5)
    >>> model.count_params(), small.count_params()
    (33088, 16640)
    """
    forms = checked_forms(form)
    if recipe is None:
        check_keep(keep)
        sites = with_reasons(find_sites(model, include, exclude), keep, forms)
        chosen = [site for site in sites if not site.reason]
        choices = None
    else:
        sites = find_sites(model)
        choices = checked_recipe(recipe, sites)
        chosen = [site for site in sites if site.path in choices]
    _check_kernels(model, chosen)
    copy = copy_model(model)
    moments = _moments(copy, chosen, calibration, mask, progress)
    outcomes, fits = _fit_all(copy, chosen, choices, keep, forms, moments, seed, progress)
    _install(copy, outcomes, fits)
    done = {outcome.path: outcome for outcome in outcomes}
    skipped = {site.path: _skipped(site, choices) for site in sites if site.path not in done}
    small = _remembered(model, copy, [done.get(site.path) or skipped[site.path] for site in sites])
    _compile_like(small, model)
    return small


def densify(model: keras.Model) -> keras.Model:
    """The way back: a model of the original class whose Dense layers have the cores multiplied out as kernels.

    It computes what the compressed model computes, up to rounding.

    Raises:
        ValueError: if the model is not one that `replace_dense` made.
    """
    compression = compression_of(model)
    if compression is None:
        parts = [path for path, layer in walk(model) if compression_of(layer)] if isinstance(model, keras.Model) else []
        advice = f" but for its part {parts[0]!r}: densify that" if parts else ""
        raise ValueError(
            f"The model {getattr(model, 'name', model)!r} holds no networks made by replace_dense{advice}."
        )
    dense = rebuilt(compression.dense, classes_of(model), trusted=True)
    networks = locate(model, list(compression.recipe))
    copy_weights(model, dense, skip=networks.values())
    for path, layer in locate(dense, list(networks)).items():
        layer.kernel.assign(networks[path].to_dense())
        if layer.bias is not None:
            layer.bias.assign(networks[path].bias)
    return dense


# -- fitting ---------------------------------------------------------------------------------------


def _fit_all(
    model: keras.Model,
    sites: Sequence[Site],
    choices: Mapping[str, Choice] | None,
    keep: float,
    forms: Sequence[str],
    moments: Mapping[str, Moments],
    seed: int,
    progress: bool | None,
) -> tuple[list[Outcome], dict[str, Fit]]:
    """Choose and fit a network for every site. What one site leaves of its budget goes to the next."""
    layers = locate(model, [site.path for site in sites])
    outcomes, fits = [], {}
    left = 0.0
    # The smallest last: its ranks come in the finest steps, so that they use up what the others left.
    largest_first = sorted(sites, key=lambda site: -site.num_params)
    for site in progress_bar(largest_first, "Fitting", shown=progress):
        kernel, seen = kernel_of(layers[site.path]), moments.get(site.path)
        if choices is not None:
            choice = choices[site.path]
        else:
            left += keep * site.num_params
            choice = None
            if left + 1e-6 < site.num_params:
                metric = None if seen is None else seen.covariance if site.use_bias else seen.second
                choice = choose(kernel, metric, forms, int(left + 1e-6))
            left -= choice.spec.num_params if choice else site.num_params
        if choice is None:
            reason = "the budget has room for the dense kernel"
            outcomes.append(Outcome(site.path, site.in_dim, site.out_dim, reason=reason))
            continue
        found = fit(kernel, choice.spec, seen, form=choice.form, centred=site.use_bias, seed=seed)
        fits[site.path] = found
        outcomes.append(
            Outcome(site.path, site.in_dim, site.out_dim, choice, found.method, found.weight_error, found.output_error)
        )
    return outcomes, fits


def _moments(
    model: keras.Model, sites: Sequence[Site], calibration: Any, mask: Mask, progress: bool | None
) -> Mapping[str, Moments]:
    """Moments of the sites' inputs: gathered now, gathered before, or none."""
    if calibration is None:
        return {}
    if isinstance(calibration, Mapping) and any(isinstance(given, Moments) for given in calibration.values()):
        moments = calibration
        for site in sites:
            _check_moments(moments.get(site.path), site)
    else:
        moments = calibrate(model, [site.path for site in sites], calibration, mask=mask, progress=progress)
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
    if not (np.isfinite(moments.mean).all() and np.isfinite(moments.scatter).all()):
        raise ValueError(f"The calibration moments of {site.path!r} hold NaN or infinity; gather them again.")


def _install(model: keras.Model, outcomes: Sequence[Outcome], fits: Mapping[str, Fit]) -> None:
    """Put the fitted networks into a fresh copy of the dense model."""
    replaced = {outcome.path: outcome.choice.spec for outcome in outcomes if outcome.choice}
    biases = {path: layer.bias for path, layer in locate(model, list(replaced)).items()}
    biases = {path: None if bias is None else ops.convert_to_numpy(bias) for path, bias in biases.items()}
    for path, layer in put_networks(model, replaced).items():
        for variable, core in zip(layer.cores, fits[path].cores, strict=True):
            variable.assign(core)
        if layer.bias is not None:
            shift = fits[path].bias
            layer.bias.assign(biases[path] if shift is None else biases[path] + shift)


def kernel_of(layer: keras.layers.Dense) -> np.ndarray:
    """The kernel `[in_dim, out_dim]`, float32 unless it is float64."""
    return ops.convert_to_numpy(ops.cast(layer.kernel, "float64" if layer.kernel.dtype == "float64" else "float32"))


def _check_kernels(model: keras.Model, sites: Sequence[Site]) -> None:
    for path, layer in locate(model, [site.path for site in sites]).items():
        if not np.isfinite(kernel_of(layer)).all():
            raise ValueError(f"The kernel of the layer {path!r} holds NaN or infinity; repair or exclude it.")


def _remembered(model: keras.Model, copy: keras.Model, outcomes: Sequence[Outcome]) -> keras.Model:
    earlier = compression_of(copy)
    if earlier is None:
        return remember(copy, Compression(model_config(model), tuple(outcomes)))
    # Compressed once more: the same dense model, and what was a network already stays as it was described then.
    before = {outcome.path: outcome for outcome in earlier.outcomes if outcome.path in earlier.recipe}
    return remember(copy, Compression(earlier.dense, tuple(before.get(o.path, o) for o in outcomes)))


def _compile_like(small: keras.Model, model: keras.Model) -> None:
    if not model.compiled:
        return
    try:
        with keras.saving.custom_object_scope(_own_objects(model)):
            small.compile_from_config(model.get_compile_config())
    except Exception as error:
        reason = first_line(error)
        warnings.warn(
            f"The new model could not be compiled as the given one ({reason}); compile it yourself.", stacklevel=3
        )


def _own_objects(model: keras.Model) -> dict[str, Any]:
    """Losses and metrics that the model was compiled with, by name: a user's need not be registered."""
    config = getattr(model._compile_config, "config", {})
    given = [config.get(argument) for argument in ("loss", "metrics", "weighted_metrics")]
    found = [item for item in keras.tree.flatten(given) if callable(item)]
    return {getattr(f, "__name__", type(f).__name__): f if hasattr(f, "__name__") else type(f) for f in found}


def _skipped(site: Site, choices: Mapping[str, Choice] | None) -> Outcome:
    reason = site.reason or ("not in the recipe" if choices is not None else None)
    return Outcome(site.path, site.in_dim, site.out_dim, reason=reason, params=site.num_params)
