"""`replace_dense`: a trained model in, a smaller model out. `densify`: the way back."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.arguments import (
    NARROW_FORM,
    Recipe,
    check_keep,
    checked_forms,
    checked_recipe,
    is_global,
    wants_pairs,
    with_reasons,
)
from tncompress.conversion.calibrate import Mask
from tncompress.conversion.fit_sites import (
    Fitted,
    check_kernels,
    check_objective_data,
    fit_all,
    moments_of,
    pairs_of,
)
from tncompress.conversion.gradients import Objective
from tncompress.conversion.planning import globally, places_of, uniform
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
from tncompress.fitting.allocate import Choice
from tncompress.forms import Form


def replace_dense(
    model: keras.Model,
    keep: float = 0.5,
    *,
    form: str | Form | Sequence[str | Form] = "low_rank",
    include: Filter | None = None,
    exclude: Filter | None = None,
    calibration: Any = None,
    objective: Objective | None = None,
    mask: Mask = None,
    allocation: str | None = None,
    pivots: bool = True,
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> keras.Model:
    """A new model whose dense layers are tensor networks fitted to the trained kernels; the given one is not changed.

    With `calibration` the networks are fitted to what the layers do on those inputs, which loses far less accuracy
    than fitting the weights alone; layers with a bias take up the mean error in it. With an `objective` besides, what
    layers do to that counts. `tncompress.report` tells what became of every layer.

    Args:
        model: a built Keras model of any kind: Functional, Sequential, subclassed, nested, from keras_hub.
        keep: fraction of the chosen layers' kernel parameters that stays, in (0, 1]; never exceeded, and met as
            closely as the ranks allow.
        form: a factorisation by name, see `tncompress.FORMS`, or a `Form`; of several, every layer gets the one that
            fits it best. A form of fixed structure, such as `tncompress.forms.expand_condense.form(blocks=6,
            bond=128)`, is taken as it is: keep is then only a limit. `"narrow"`, alone or among several, leaves out
            hidden units between two layers and lets the others stand in for them.
        include: only layers whose path contains this regular expression (or one of several, or for whose `Site`
            this function is true). None: all dense layers.
        exclude: not these layers, likewise.
        calibration: an iterable of batches of what the model takes as input, a `tf.data.Dataset`, or all inputs at
            once as an array or a dict of arrays; or the moments that `tncompress.calibrate` gave, to use them again.
            No labels are needed; a thousand real inputs do.
        objective: what about the model's outputs shall stay the same on the calibration inputs: `"outputs"`, the name
            of one, or a function of outputs and batch, see `tncompress.calibrate`. Moments that were gathered with an
            objective bring it along.
        mask: which positions of calibration inputs count, see `tncompress.calibrate`.
        allocation: `"uniform"`: every layer keeps the same fraction; `"global"`: one budget over all layers, spent
            where it saves most predicted loss, see docs/fitting.md. None: uniform, but global if `form` has "narrow".
        pivots: low rank may store no identity block where that saves parameters, see `TNPivoted`; global only.
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
    check_objective_data(objective, calibration)
    over_all = is_global(allocation, forms, calibration)
    if recipe is None:
        check_keep(keep)
        sites = with_reasons(find_sites(model, include, exclude), keep, forms, over_all)
        chosen = [site for site in sites if not site.reason]
        choices = None
    else:
        sites = find_sites(model)
        choices = checked_recipe(recipe, sites)
        chosen = [site for site in sites if site.path in choices]
    check_kernels(model, chosen)
    copy = copy_model(model)
    moments = moments_of(copy, chosen, calibration, objective, mask, progress)
    places = places_of(copy, chosen, moments)
    pairs = pairs_of(copy, chosen, moments) if wants_pairs(forms, choices, chosen) else []
    if choices is None and over_all:
        menu = [form for form in forms if form is not NARROW_FORM]
        choices, _ = globally(places, keep, menu, pairs, pivots=pivots, progress=progress)
    elif choices is None:
        choices = uniform(places, keep, forms, progress)
    outcomes, fitted = fit_all(copy, chosen, places, choices, pairs, forms, seed, progress)
    _install(copy, outcomes, fitted)
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
        # Hidden units that were left out come back as zeros, which the second kernel takes as nothing.
        layer.kernel.assign(_padded(networks[path].to_dense(), layer.kernel.shape))
        if layer.bias is not None:
            layer.bias.assign(_padded(ops.convert_to_numpy(networks[path].bias), layer.bias.shape))
    return dense


def _padded(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.pad(array, [(0, size - len_) for size, len_ in zip(shape, array.shape, strict=True)])


def _install(model: keras.Model, outcomes: Sequence[Outcome], fitted: Mapping[str, Fitted]) -> None:
    """Put the fitted networks into a fresh copy of the dense model."""
    networks = put_networks(model, {outcome.path: outcome.choice for outcome in outcomes if outcome.choice})
    for path, layer in networks.items():
        found = fitted[path]
        for variable, core in zip(layer.cores, found.cores, strict=True):
            variable.assign(core)
        if found.order is not None:
            layer.order.assign(found.order)
        if layer.bias is not None:
            layer.bias.assign(found.bias)


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
