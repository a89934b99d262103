"""Which network every site gets: one fraction for all, or one budget over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from tncompress.conversion.dense_maps import kernel_of
from tncompress.conversion.pairs import Pair
from tncompress.conversion.sites import Site
from tncompress.conversion.walking import locate
from tncompress.fitting.allocate import choose, near_budget
from tncompress.fitting.budget import Budget, Price
from tncompress.fitting.choice import BANDS, Bands, Choice
from tncompress.fitting.fit import metrics_of
from tncompress.fitting.frequencies import TokenCounts
from tncompress.fitting.knapsack import Offer, knapsack, pareto
from tncompress.fitting.moments import Moments
from tncompress.fitting.offers import offers, rank_step, table_offers
from tncompress.fitting.pair_offers import Width, pair_offers
from tncompress.fitting.place import Place, Table
from tncompress.forms import Form, low_rank
from tncompress.progress import progress_bar

Places = Mapping[str, Place | Table]
Choices = dict[str, Choice | Bands | None]  # by path; None: the kernel or table stays

FLOOR = 0.3  # of the fraction that is kept on average: no place is left with less of its own
BISECTIONS, TOLERANCE = 40, 1e-3  # of a budget that is looked for


@dataclass(frozen=True, eq=False)
class Plan:
    """What becomes of every site.

    Args:
        choices: by path.
        units: hidden units that stay, by the path of the layer that takes them; only where some leave.
    """

    choices: Choices
    units: Mapping[str, np.ndarray]


def places_of(model: keras.Model, sites: Sequence[Site], moments: Mapping[str, Moments | TokenCounts]) -> Places:
    """Kernels and tables, and what is known of them, by path."""
    layers = locate(model, [site.path for site in sites])
    energy = getattr(moments, "energy", None)
    places: dict[str, Place | Table] = {}
    for site in sites:
        seen, layer = moments.get(site.path), layers[site.path]
        gradients = None if seen is None else seen.gradients
        scale = 1.0 if gradients is None or not energy else gradients.count / energy
        if site.is_table:
            table = ops.convert_to_numpy(ops.cast(layer.embeddings, "float32"))
            assert isinstance(seen, TokenCounts)
            places[site.path] = Table(table, seen.counts, gradients, scale)
        else:
            assert not isinstance(seen, TokenCounts)
            held_out = getattr(moments, "held_out", {}).get(site.path)
            places[site.path] = Place(kernel_of(layer), seen, site.use_bias, scale, held_out)
    return places


def uniform(places: Mapping[str, Place], keep: float, forms: Sequence[Form], progress: bool | None) -> Plan:
    """The same fraction for every site. What one site leaves of its budget goes to the next."""
    choices: Choices = {}
    left = 0.0
    # The smallest last: its ranks come in the finest steps, so that they use up what the others left.
    largest_first = sorted(places, key=lambda path: -places[path].kernel.size)
    for path in progress_bar(largest_first, "Choosing", shown=progress):
        place = places[path]
        left += keep * place.kernel.size
        choices[path] = choice = _near(place, forms, left)
        left -= choice.num_params if choice else place.kernel.size
    return Plan(choices, {})


def _near(place: Place, forms: Sequence[Form], params: float) -> Choice | None:
    """The network for one site with so many parameters; None: they are enough for the dense kernel."""
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
    pivots: bool,
    elastic: bool = False,
    progress: bool | None,
) -> Plan:
    """One budget over all sites, spent where it saves most predicted loss.

    Args:
        places: by path.
        budget: for all of them together.
        fixed: parameters of the model besides these places, for a budget of all its parameters.
        forms: to choose from.
        pairs: places that are decided together, with their hidden units.
        pivots: low rank may store no identity, see `TNPivoted`.
        elastic: nothing stays whole if it can be low rank, so that all of it can be cut shorter.
        progress: show a bar.

    Raises:
        ValueError: if even the smallest networks are over the budget; the message tells the smallest that is possible.
    """
    price = budget.price()
    dense = {path: price(None, place.dims, isinstance(place, Table)) for path, place in places.items()}
    limit = _limit(budget, fixed, sum(dense.values()))
    paired = {path for pair in pairs for path in (*pair.first, pair.second)}
    groups = [(*pair.first, pair.second) for pair in pairs] + [(path,) for path in places if path not in paired]
    kernels = sum(place.dims[0] * place.dims[1] for place in places.values())
    fraction = min(1.0, limit / max(sum(dense.values()), 1e-300)) if limit is not None else 0.0
    menus = []
    for group in progress_bar(groups, "Planning", shown=progress):
        menu = _menu([places[path] for path in group], forms, pivots, (fraction or 0.5) * kernels)
        if elastic:
            menu = [offer for offer in menu if all(map(_has_components, _picked(offer)))] or menu
        menus.append(pareto([Offer(_price_of(offer, group, places, price), *offer[1:]) for offer in menu]))
    if limit is not None:
        smallest = sum(menu[0].cost for menu in menus)
        if smallest > limit:
            raise ValueError(_impossible(budget, fixed, smallest, sum(dense.values())))
        floors = [FLOOR * fraction * sum(dense[path] for path in group) for group in groups]
        fed = list(map(_above_floor, menus, floors))
        menus = fed if sum(menu[0].cost for menu in fed) <= limit else menus
    chosen = _within_loss(menus, budget.limit) if limit is None else knapsack(menus, limit)
    choices: Choices = {}
    units = {}
    for group, offer in zip(groups, chosen, strict=True):
        choices.update(zip(group, _picked(offer), strict=True))
        if isinstance(offer.what, Width) and len(offer.what.units) < places[group[-1]].dims[0]:
            units[group[-1]] = offer.what.units
    return Plan(choices, units)


def _menu(members: Sequence[Place | Table], forms: Sequence[Form], pivots: bool, total: float) -> list[Offer]:
    """What places that are decided together can be."""
    *first, last = members
    if isinstance(last, Table):
        return table_offers(last)
    step = min(rank_step(place.dims, total) for place in members)
    if not first:
        return offers(last, forms, pivots=pivots, step=step)
    too = any(form.name == low_rank.FORM.name for form in forms)
    return pair_offers(first, last, pivots=pivots, low_rank_too=too, step=step)  # type: ignore[arg-type]


def _has_components(choice: Choice | Bands | None) -> bool:
    return choice is not None and choice.form in (low_rank.FORM.name, BANDS)


def _picked(offer: Offer) -> tuple[Choice | Bands | None, ...]:
    return offer.what.choices if isinstance(offer.what, Width) else (offer.what,)


def _price_of(offer: Offer, group: Sequence[str], places: Places, price: Price) -> float:
    members = [places[path] for path in group]
    return sum(price(c, p.dims, isinstance(p, Table)) for c, p in zip(_picked(offer), members, strict=True))


def _above_floor(menu: Sequence[Offer], floor: float) -> Sequence[Offer]:
    kept = [offer for offer in menu if offer.cost >= floor]
    return kept or menu[-1:]


def _limit(budget: Budget, fixed: int, dense: float) -> float | None:
    """What all places together may cost, in the unit of the price; None: their loss is limited instead."""
    if budget.kind in ("keep", "latency"):
        return budget.limit * dense
    if budget.kind == "params":
        return budget.limit - fixed
    return budget.limit if budget.kind == "flops" else None


def _impossible(budget: Budget, fixed: int, smallest: float, dense: float) -> str:
    if budget.kind == "params":
        return (
            f"The smallest networks of the chosen layers make a model of {smallest + fixed:,.0f} parameters, more than "
            f"params={budget.limit:,.0f} ({fixed:,} are in what was not chosen); raise it or choose more layers."
        )
    if budget.kind == "flops":
        return (
            f"The smallest networks of the chosen layers take {smallest:,.0f} FLOPs a token, more than "
            f"flops={budget.limit:,.0f}; raise the budget."
        )
    return (
        f"The smallest networks of the chosen layers keep {smallest / dense:.2%} of "
        f"{'their time' if budget.kind == 'latency' else 'their parameters'}, more than {budget}; raise the budget."
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
