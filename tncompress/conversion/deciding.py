"""What every layer of a model shall become: all that `replace_dense` does before it fits."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tncompress.conversion.arguments import (
    NARROW_FORM,
    check_elastic,
    check_objective_data,
    checked_budget,
    checked_forms,
    checked_target,
    is_global,
    wants_pairs,
)
from tncompress.conversion.gathered import check_weights, moments_of, pairs_of
from tncompress.conversion.gradients import Objective
from tncompress.conversion.masks import Mask, check_mask
from tncompress.conversion.never_slower import settled
from tncompress.conversion.outcomes import Times
from tncompress.conversion.pairs import Pair
from tncompress.conversion.places import Places
from tncompress.conversion.planning import Plan, globally, uniform
from tncompress.conversion.recipes import Recipe, checked_recipe
from tncompress.conversion.shares import nearly_whole, shares
from tncompress.conversion.sites import Filter, Site, find_sites
from tncompress.fitting.budget import Budget, Target
from tncompress.forms import Form
from tncompress.hardware.device import Device


@dataclass(frozen=True, eq=False)
class Request:
    """What was asked for: arguments of `replace_dense`, checked."""

    budget: Budget
    forms: Sequence[Form]
    target: Target | None = None
    include: Filter | None = None
    exclude: Filter | None = None
    embeddings: bool = False
    calibration: Any = None
    objective: Objective | None = None
    mask: Mask = None
    allocation: str | None = None
    pivots: bool = True
    elastic: bool = False
    recipe: Recipe | None = None
    progress: bool | None = None


def requested(
    keep: float | None,
    budget: Budget | None = None,
    form: str | Form | Sequence[str | Form] = "low_rank",
    device: str | Device | None = None,
    tokens: int | Sequence[int] = 1024,
    *,
    calibration: Any = None,
    objective: Objective | None = None,
    elastic: bool = False,
    recipe: Recipe | None = None,
    **others: Any,
) -> Request:
    """The request of arguments as `replace_dense` takes them; what it has a default for may be left out.

    Raises:
        ValueError: if one is wrong, or two do not go together.
    """
    forms = checked_forms(form)
    check_objective_data(objective, calibration)
    check_mask(others.get("mask"))
    budget = checked_budget(keep, budget)
    check_elastic(elastic, forms)
    return Request(
        budget=budget,
        forms=forms,
        target=checked_target(device, tokens, recipe),
        calibration=calibration,
        objective=objective,
        elastic=elastic,
        recipe=recipe,
        **others,
    )


@dataclass(frozen=True, eq=False)
class Decision:
    """What shall become of every layer.

    Args:
        model: whose kernels and moments `places` are of.
        sites: all that the model has, with the reason for those that stay as they are.
        by_recipe: a recipe chose.
        places: kernels that were chosen, and what is known of them.
        moments: of their inputs.
        pairs: layers that share hidden units.
        plan: the networks.
        times: of layers and networks that were measured, by path.
    """

    model: keras.Model
    sites: Sequence[Site]
    by_recipe: bool
    places: Places
    moments: Mapping[str, Any]
    pairs: Sequence[Pair]
    plan: Plan
    times: Mapping[str, Times]

    @property
    def chosen(self) -> list[Site]:
        """The sites that are in the plan, in order."""
        return [site for site in self.sites if site.path in self.plan.choices]


def decide(model: keras.Model, request: Request, working: Callable[[keras.Model], keras.Model]) -> Decision:
    """Choose the network of every layer; nothing is fitted.

    Args:
        model: a built Keras model; it stays as it is.
        request: what is wanted.
        working: gives the model to work on, a copy or the same, once everything that is wrong has been refused.

    Raises:
        ValueError: if an argument is wrong, or no layer can be replaced. The message says what to do.
    """
    budget, forms, target = request.budget, request.forms, request.target
    over_all = is_global(
        request.allocation, forms, request.calibration, request.objective, budget, request.embeddings, target
    )
    fraction, asked = 1.0, []
    if request.recipe is None:
        sites = find_sites(model, request.include, request.exclude, embeddings=request.embeddings)
        fixed = model.count_params() - sum(site.num_params for site in sites if not site.reason)
        asked = [site for site in sites if not site.reason]
        if request.allocation is None and not request.elastic and not forms[0].fixed:
            over_all = over_all or nearly_whole(budget, asked, fixed)
        sites, fraction = shares(sites, budget, fixed, forms, over_all)
        chosen = [site for site in sites if not site.reason]
        choices = None
    else:
        sites = find_sites(model, embeddings=True, smallest_table=0)
        choices = checked_recipe(request.recipe, sites)
        chosen = [site for site in sites if site.path in choices]
    check_weights(model, chosen)
    model = working(model)
    moments = moments_of(
        model, chosen, request.calibration, request.objective, request.mask, request.progress, in_order=over_all
    )
    pairs = pairs_of(model, chosen, moments) if wants_pairs(forms, choices, chosen) else []
    times: dict[str, Times] = {}

    def shared_out(some: Sequence[Site], pairs: Sequence[Pair]) -> Plan:
        fixed = model.count_params() - sum(site.num_params for site in some)
        planned = {site.path for site in some}
        whole = [(site.in_dim, site.out_dim) for site in asked if site.path not in planned]
        menu = [form for form in forms if form is not NARROW_FORM]
        # Pivots put outputs in order one by one, which accelerators are slow at.
        identity = request.pivots and not request.elastic and (target is None or target.device.kind == "cpu")
        settings = {"pivots": identity, "elastic": request.elastic, "target": target, "progress": request.progress}
        return globally(Places(model, some, moments), budget, fixed, menu, pairs, whole=whole, **settings)

    if choices is not None:
        plan = Plan(choices, {})
    elif not over_all:
        plan = uniform(Places(model, chosen, moments), fraction, forms, request.progress)
    elif target is None or not target.is_here:
        plan = shared_out(chosen, pairs)
    else:
        again = budget.kind not in ("keep", "latency")
        plan, times, sites = settled(model, sites, pairs, target.tokens, shared_out, again, request.progress)
        chosen = [site for site in sites if not site.reason]
        pairs = [pair for pair in pairs if pair.second in plan.choices]
    if choices is None and all(choice is None for choice in plan.choices.values()):
        advice = "raise" if budget.kind == "max_loss" else "lower"
        warnings.warn(
            f"Nothing is compressed: within {budget} every chosen layer can stay as it is; {advice} it.", stacklevel=3
        )
    places = Places(model, chosen, moments)
    return Decision(model, sites, choices is not None, places, moments, pairs, plan, times)
