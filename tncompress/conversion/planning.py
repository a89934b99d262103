"""Which network every site gets: one fraction for all, or one budget over all of them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tncompress.conversion.curves import Front, front_of
from tncompress.conversion.pairs import Pair
from tncompress.conversion.places import Places
from tncompress.fitting.allocate import choose, near_budget
from tncompress.fitting.budget import Budget, BudgetError, Price, Target
from tncompress.fitting.choice import Bands, Choice
from tncompress.fitting.fit import metrics_of
from tncompress.fitting.knapsack import Offer, knapsack, pareto
from tncompress.fitting.offers import offers, rank_step, table_offers
from tncompress.fitting.pair_offers import Width, pair_offers
from tncompress.fitting.place import Place, Table
from tncompress.forms import Form, low_rank
from tncompress.progress import progress_bar

Choices = dict[str, Choice | Bands | None]  # by path; None: the kernel or table stays

FLOOR = 0.3  # of the fraction that is kept on average: no place is left with less of its own
BISECTIONS, TOLERANCE = 40, 1e-3  # of a budget that is looked for


@dataclass(frozen=True, eq=False)
class Plan:
    """What becomes of every site.

    Args:
        choices: by path.
        units: hidden units that stay, by the path of the layer that takes them; only where some leave.
        losses: what places lose, by path; of places that were decided together, by that of the last. Empty where
            sizes alone decided.
        front: what the budget could have chosen; None where each place had its own.
    """

    choices: Choices
    units: Mapping[str, np.ndarray]
    losses: Mapping[str, float] = field(default_factory=dict)
    front: Front | None = None


def uniform(places: Places, keep: float, forms: Sequence[Form], progress: bool | None) -> Plan:
    """The same fraction for every site. What one site leaves of its budget goes to the next."""
    choices: Choices = {}
    left = 0.0
    # The smallest last: its ranks come in the finest steps, so that they use up what the others left.
    largest_first = sorted(places, key=lambda path: -places.size(path))
    for path in progress_bar(largest_first, "Choosing", shown=progress):
        left += keep * places.size(path)
        choices[path] = choice = _near(places[path], forms, left)
        left -= choice.num_params if choice else places.size(path)
    return Plan(choices, {})


def _near(place: Place | Table, forms: Sequence[Form], params: float) -> Choice | None:
    """The network for one site with so many parameters; None: they are enough for the dense kernel."""
    assert isinstance(place, Place)
    in_dim, out_dim = place.kernel.shape
    if forms[0].fixed:  # that all of them together are within the budget is known
        return next(iter(near_budget(forms[0], in_dim, out_dim, place.kernel.size)))
    if params + 1e-6 >= place.kernel.size:
        return None
    metrics = (None, None) if place.moments is None else metrics_of(place.moments, place.centred)
    return choose(place.kernel, metrics, forms, int(params + 1e-6))


def globally(
    places: Places,
    budget: Budget,
    fixed: int,
    forms: Sequence[Form],
    pairs: Sequence[Pair],
    *,
    whole: Sequence[tuple[int, int]] = (),
    pivots: bool,
    elastic: bool = False,
    target: Target | None = None,
    progress: bool | None,
) -> Plan:
    """One budget over all sites, spent where it saves most predicted loss.

    Args:
        places: by path.
        budget: for all of them together.
        fixed: parameters of the model besides these places, for a budget of all its parameters.
        forms: to choose from.
        pairs: places that are decided together, with their hidden units.
        whole: dimensions of kernels that were chosen too and stay as they are: the budget is of these also.
        pivots: low rank may store no identity, see `TNPivoted`.
        elastic: nothing stays whole if it can be low rank, so that all of it can be cut shorter; but for a limit of the
            loss that cannot be met else.
        target: what the model is to run on: ranks and widths fill its tiles, and nothing is taken that it is estimated
            to compute more slowly than what is there, if the budget allows that.
        progress: show a bar.

    Raises:
        BudgetError: if even the smallest networks are over it; the message tells the smallest that is possible.
    """
    price = budget.price(target)
    dense = {path: price(None, places.dims(path), places.is_table(path)) for path in places}
    staying = sum(price(None, dims, False) for dims in whole)
    limit = _limit(budget, fixed, sum(dense.values()), staying)
    order = {path: number for number, path in enumerate(places)}
    paired = {path for pair in pairs for path in (*pair.first, pair.second)}
    groups = [(*pair.first, pair.second) for pair in pairs] + [(path,) for path in places if path not in paired]
    groups.sort(key=lambda group: order[group[0]])  # so that moments may be streamed
    kernels = sum(map(places.size, places))
    fraction = min(1.0, limit / max(sum(dense.values()), 1e-300)) if limit is not None else 0.0
    menus: list[list[Offer]] = []
    faster: list[list[Offer]] = []
    loss = "objective"
    estimated = target is not None and not target.is_here  # else it is measured, later
    for group in progress_bar(groups, "Planning", shown=progress):
        members = [places[path] for path in group]
        loss = next((place.loss for place in members if place.loss != "objective"), loss)
        dims = [place.dims for place in members]
        step = target.step(dims) if target else min(rank_step(pair, (fraction or 0.5) * kernels) for pair in dims)
        menu = _menu(members, forms, pivots, elastic, step)
        menus.append(_priced(menu, group, places, price))
        faster.append(_priced(_no_slower(menu, group, places, target), group, places, price) if estimated else [])
    if estimated:
        menus = _if_enough(faster, menus, limit, target)
    if limit is None and elastic and _loss([menu[-1] for menu in menus]) > budget.limit:
        # Only now: what stays whole cannot be cut shorter.
        whole_too = [Offer(sum(dense[path] for path in group), 0.0, _as_it_is(group, places)) for group in groups]
        menus = [pareto([*menu, offer]) for menu, offer in zip(menus, whole_too, strict=True)]
    if limit is not None:
        smallest = sum(menu[0].cost for menu in menus)
        if smallest > limit:
            raise BudgetError(_impossible(budget, fixed, smallest, sum(dense.values()), staying))
        floors = [FLOOR * fraction * sum(dense[path] for path in group) for group in groups]
        fed = list(map(_above_floor, menus, floors))
        menus = fed if sum(menu[0].cost for menu in fed) <= limit else menus
    chosen = _within_loss(menus, budget.limit) if limit is None else knapsack(menus, limit)
    choices: Choices = {}
    units = {}
    for group, offer in zip(groups, chosen, strict=True):
        choices.update(zip(group, _picked(offer), strict=True))
        if isinstance(offer.what, Width) and len(offer.what.units) < places.dims(group[-1])[0]:
            units[group[-1]] = offer.what.units
    losses = {group[-1]: offer.loss for group, offer in zip(groups, chosen, strict=True)}
    return Plan(choices, units, losses, front_of(menus, chosen, budget.kind, loss))


def _menu(
    members: Sequence[Place | Table], forms: Sequence[Form], pivots: bool, elastic: bool, step: int
) -> list[Offer]:
    """What places that are decided together can be."""
    *first, last = members
    if isinstance(last, Table):
        return table_offers(last, elastic=elastic)
    options = {"pivots": pivots, "elastic": elastic, "step": step}
    if not first:
        return offers(last, forms, **options)
    too = any(form.name == low_rank.FORM.name for form in forms)
    return pair_offers(first, last, low_rank_too=too, **options)  # type: ignore[arg-type]


def _as_it_is(group: Sequence[str], places: Places) -> Width | None:
    if len(group) == 1:
        return None
    return Width(np.arange(places.dims(group[-1])[0]), (None,) * len(group))


def _priced(menu: Sequence[Offer], group: Sequence[str], places: Places, price: Price) -> list[Offer]:
    return pareto([Offer(_price_of(offer, group, places, price), *offer[1:]) for offer in menu])


def _if_enough(
    faster: list[list[Offer]], menus: list[list[Offer]], limit: float | None, target: Target
) -> list[list[Offer]]:
    """The offers that lose no time, if they can meet the budget; else all, with a warning."""
    if limit is None or sum(menu[0].cost for menu in faster) <= limit:
        return faster
    warnings.warn(
        f"Within this budget some layers are slower on {target.device.name} than dense, by estimate; keep more, "
        "choose fewer layers, or more tokens at once.",
        stacklevel=6,
    )
    return menus


def _no_slower(menu: Sequence[Offer], group: Sequence[str], places: Places, target: Target) -> list[Offer]:
    """Without the offers that would take more time than what is there; all, if these are all there are."""
    now = sum(target.seconds(None, places.dims(path), places.is_table(path)) for path in group)
    return [offer for offer in menu if _price_of(offer, group, places, target.seconds) <= now] or list(menu)


def _picked(offer: Offer) -> tuple[Choice | Bands | None, ...]:
    return offer.what.choices if isinstance(offer.what, Width) else (offer.what,)


def _price_of(offer: Offer, group: Sequence[str], places: Places, price: Price) -> float:
    picked = zip(_picked(offer), group, strict=True)
    return sum(price(choice, places.dims(path), places.is_table(path)) for choice, path in picked)


def _above_floor(menu: Sequence[Offer], floor: float) -> Sequence[Offer]:
    kept = [offer for offer in menu if offer.cost >= floor]
    return kept or menu[-1:]


def _limit(budget: Budget, fixed: int, dense: float, staying: float) -> float | None:
    """What all places together may cost, in the unit of the price; None: their loss is limited instead.

    Args:
        budget: of the places, and of what stays.
        fixed: parameters of all the rest of the model.
        dense: cost of the places as they are.
        staying: cost of kernels that were chosen too, and stay as they are.
    """
    if budget.kind in ("keep", "latency"):
        return budget.limit * (dense + staying) - staying
    if budget.kind == "params":
        return budget.limit - fixed
    return budget.limit - staying if budget.kind == "flops" else None


def _impossible(budget: Budget, fixed: int, smallest: float, dense: float, staying: float) -> str:
    if budget.kind == "params":
        where = "what was not chosen or has no network" if staying else "what was not chosen"
        return (
            f"The smallest networks of the chosen layers make a model of {smallest + fixed:,.0f} parameters, more than "
            f"params={budget.limit:,.0f} ({fixed:,} are in {where}); raise it or choose more layers."
        )
    advice = f"raise the budget{' or exclude layers without a network, which count as they are' if staying else ''}."
    if budget.kind == "flops":
        return (
            f"The smallest networks of the chosen layers take {smallest + staying:,.0f} FLOPs a token, more than "
            f"flops={budget.limit:,.0f}; {advice}"
        )
    return (
        f"The smallest networks of the chosen layers keep {(smallest + staying) / (dense + staying):.2%} of "
        f"{'their time' if budget.kind == 'latency' else 'their parameters'}, more than {budget}; {advice}"
    )


def _within_loss(menus: Sequence[Sequence[Offer]], most: float) -> list[Offer]:
    """The cheapest offers that together lose at most so much: the smallest budget for which that holds, bisected."""

    def at(budget: float) -> list[Offer]:
        return knapsack(menus, budget)

    low, high = sum(menu[0].cost for menu in menus), sum(menu[-1].cost for menu in menus)
    best = at(high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = at(middle)
        if _loss(found) <= most:
            best, high = found, sum(offer.cost for offer in found)
        else:
            low = middle
        if high - low <= TOLERANCE * high:
            break
    return best


def _loss(chosen: Sequence[Offer]) -> float:
    return sum(offer.loss for offer in chosen)
