"""`replace_dense`: a trained model in, a smaller model out. `densify`: the way back."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tncompress.conversion.curves import Front
from tncompress.conversion.deciding import decide, requested
from tncompress.conversion.dense_maps import bias_of, dense_map, put_kernel
from tncompress.conversion.fit_sites import Fitted, fit_all, refit_all
from tncompress.conversion.gradients import Objective
from tncompress.conversion.masks import Mask
from tncompress.conversion.probe import Probe
from tncompress.conversion.recipes import Recipe
from tncompress.conversion.refit_data import check_fits, refit_data
from tncompress.conversion.saving import Compression, Outcome, compression_of, put_choices, remember
from tncompress.conversion.sites import Filter, Site
from tncompress.conversion.surgery import (
    classes_of,
    copy_model,
    copy_weights,
    first_line,
    model_config,
    rebuilt,
)
from tncompress.conversion.walking import locate, walk
from tncompress.fitting.budget import Budget
from tncompress.fitting.embedding import EmbeddingFit
from tncompress.forms import Form
from tncompress.hardware.device import Device
from tncompress.layers.embedding import TNEmbedding


def replace_dense(
    model: keras.Model,
    keep: float | None = None,
    *,
    budget: Budget | None = None,
    form: str | Form | Sequence[str | Form] = "low_rank",
    include: Filter | None = None,
    exclude: Filter | None = None,
    embeddings: bool = False,
    calibration: Any = None,
    objective: Objective | None = None,
    mask: Mask = None,
    allocation: str | None = None,
    pivots: bool = True,
    elastic: bool = False,
    refit: Any = False,
    device: str | Device | None = None,
    tokens: int | Sequence[int] = 1024,
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
            closely as the ranks allow. None: half, if there is no budget.
        budget: another limit instead: parameters of the whole model, FLOPs, time, or predicted loss, see `Budget`.
        form: a factorisation by name, see `tncompress.FORMS`, or a `Form`; of several, every layer gets the one that
            fits it best. A form of fixed structure, such as `tncompress.forms.expand_condense.form(blocks=6,
            bond=128)`, is taken as it is: keep is then only a limit. `"narrow"`, alone or among several, leaves out
            hidden units between two layers and lets the others stand in for them.
        include: only layers whose path contains this regular expression (or one of several, or for whose `Site`
            this function is true). None: all dense layers, also those of attention.
        exclude: not these layers, likewise.
        embeddings: large tables of embeddings too, as bands of low rank by how often tokens are seen, see
            `TNEmbedding`. Needs calibration.
        calibration: an iterable of batches of what the model takes as input, a `tf.data.Dataset`, or all inputs at
            once as an array or a dict of arrays; or the moments that `tncompress.calibrate` gave, to use them again.
            No labels are needed; a thousand real inputs do.
        objective: what about the model's outputs shall stay the same on the calibration inputs: `"outputs"`, the name
            of one, or a function of outputs and batch, see `tncompress.calibrate`. Moments that were gathered with an
            objective bring it along.
        mask: which positions of calibration inputs count, see `tncompress.calibrate`.
        allocation: `"uniform"`: every layer keeps the same fraction; `"global"`: one budget over all layers, spent
            where it saves most predicted loss, see docs/fitting.md. None: global with an objective, with "narrow",
            embeddings, a budget of anything but parameters, or one that keeps nine tenths and more; else uniform.
        pivots: low rank may store no identity block where that saves parameters, see `TNPivoted`; global only.
        elastic: low-rank networks remember what each of their components is worth, so that the saved file can be loaded
            smaller: `tncompress.load(path, keep=0.3)`. Without pivots, which mix the components.
        refit: afterwards fit the networks once more, one after the other, on what they get in the smaller model,
            against the original, see docs/fitting.md. True: on the calibration data; or batches, or all inputs at once:
            a thousand do. The first batch and, of a list, the others are tried before anything is calibrated.
            A layer that does no better on held-out batches stays as it was.
        device: what the model is to run on, a name from `tncompress.hardware.device.DEVICES` such as "tpu-v5e", or
            "this": ranks and widths fill its tiles, and no layer is estimated to take more time than it did, if the
            budget allows that. On this machine every layer is measured, and left dense if it loses.
        tokens: vectors at once that layers will see there, e.g. 8 texts of 128 tokens; or several such numbers.
        recipe: what to put where, as `report(model).recipe` gives it: a dict, JSON text, or a JSON file. It overrides
            keep, budget, form, include, exclude and embeddings.
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
    request = requested(
        keep,
        budget,
        form,
        device,
        tokens,
        include=include,
        exclude=exclude,
        embeddings=embeddings,
        calibration=calibration,
        objective=objective,
        mask=mask,
        allocation=allocation,
        pivots=pivots,
        elastic=elastic,
        recipe=recipe,
        progress=progress,
    )
    if refit is True and isinstance(calibration, Iterator):
        calibration = list(calibration)  # gone over again
        request = replace(request, calibration=calibration)
    refitted_on = refit_data(refit, calibration, elastic)

    def copied(given: keras.Model) -> keras.Model:
        if refitted_on is not None and refit is not True:
            check_fits(given, refitted_on)
        return copy_model(given)

    decision = decide(model, request, copied)
    copy, chosen, plan, pairs = decision.model, decision.chosen, decision.plan, decision.pairs
    moments = decision.moments
    outcomes, fitted, units = fit_all(
        copy, chosen, decision.places, plan, pairs, request.forms, seed, elastic, progress
    )
    _install(copy, outcomes, fitted)
    if refitted_on is not None:
        outcomes = refit_all(model, copy, refitted_on, outcomes, units, moments, mask, progress)
    done = {outcome.path: outcome for outcome in outcomes}
    skipped = {site.path: _skipped(site, decision.by_recipe) for site in decision.sites if site.path not in done}
    measured_loss = _measured_loss(getattr(moments, "probe", None), model, copy)
    found = [done.get(site.path) or skipped[site.path] for site in decision.sites]
    found = [replace(outcome, times=decision.times.get(outcome.path)) for outcome in found]
    small = _remembered(model, copy, found, measured_loss, plan.front)
    compile_like(small, model)
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
        network = networks[path]
        if isinstance(network, TNEmbedding):
            layer.embeddings.assign(network.embeddings)
            if hasattr(layer, "reverse_embeddings"):
                layer.reverse_embeddings.assign(network.reverse_embeddings)
            continue
        # Hidden units that were left out come back as zeros, which the second kernel takes as nothing.
        found = dense_map(layer)
        kernel = _padded(network.to_dense(), (found.in_dim, found.out_dim))
        bias = None if network.bias is None else _padded(bias_of(network), (found.out_dim,))
        put_kernel(layer, kernel, bias)
    return dense


def _padded(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.pad(array, [(0, size - len_) for size, len_ in zip(shape, array.shape, strict=True)])


def _install(model: keras.Model, outcomes: Sequence[Outcome], fitted: Mapping[str, Fitted | EmbeddingFit]) -> None:
    """Put the fitted networks into a fresh copy of the dense model."""
    networks = put_choices(model, {outcome.path: outcome.choice for outcome in outcomes if outcome.choice})
    for path, layer in networks.items():
        found = fitted[path]
        if isinstance(found, EmbeddingFit):
            layer.assign(found)
            continue
        for variable, core in zip(layer.cores, found.cores, strict=True):
            variable.assign(core)
        if found.order is not None:
            layer.order.assign(found.order)
        if layer.bias is not None:
            layer.bias.assign(found.bias.reshape(layer.bias.shape))


def _measured_loss(probe: Probe | None, model: keras.Model, copy: keras.Model) -> float | None:
    """What really changed about the objective; None where that is not known, which is no reason to lose the fit."""
    try:
        return None if probe is None else probe.changed(model, copy)
    except ValueError as error:
        warnings.warn(f"What was lost of the objective is not measured: {error}", stacklevel=3)
        return None


def _remembered(
    model: keras.Model,
    copy: keras.Model,
    outcomes: Sequence[Outcome],
    measured_loss: float | None,
    front: Front | None,
) -> keras.Model:
    earlier = compression_of(copy)
    if earlier is None:
        compression = Compression(model_config(model), tuple(outcomes), model.count_params(), measured_loss, front)
        return remember(copy, compression)
    # Compressed once more: the same dense model, and what was a network already stays as it was described then.
    before = {outcome.path: outcome for outcome in earlier.outcomes if outcome.path in earlier.recipe}
    found = tuple(before.get(o.path, o) for o in outcomes)
    return remember(copy, Compression(earlier.dense, found, earlier.params, measured_loss))


def compile_like(small: keras.Model, model: keras.Model) -> None:
    """Compile a model as another one is, with a new optimizer; warn if that is not possible."""
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


def _skipped(site: Site, by_recipe: bool) -> Outcome:
    reason = site.reason or ("not in the recipe" if by_recipe else None)
    return Outcome(site.path, site.in_dim, site.out_dim, reason=reason, params=site.num_params, is_table=site.is_table)
