"""Which network every site gets: one fraction for all, or one budget over all of them."""

from collections.abc import Mapping, Sequence

import keras

from tncompress.conversion.pairs import Pair
from tncompress.conversion.sites import Site, locate
from tncompress.fitting.allocate import Choice, choose, near_budget
from tncompress.fitting.fit import metrics_of
from tncompress.fitting.knapsack import Offer, knapsack
from tncompress.fitting.moments import Moments
from tncompress.fitting.offers import Place, Width, offers, pair_offers
from tncompress.forms import Form, low_rank
from tncompress.progress import progress_bar

Choices = dict[str, Choice | None]  # by path; None: the dense kernel stays

FLOOR = 0.3  # of the fraction that is kept on average: no place is left with less of its kernels


def kernel_of(layer: keras.layers.Dense):
    """The kernel `[in_dim, out_dim]`, float32 unless it is float64."""
    from keras import ops

    return ops.convert_to_numpy(ops.cast(layer.kernel, "float64" if layer.kernel.dtype == "float64" else "float32"))


def places_of(model: keras.Model, sites: Sequence[Site], moments: Mapping[str, Moments]) -> dict[str, Place]:
    """Kernels and what is known of them, by path."""
    layers = locate(model, [site.path for site in sites])
    return {site.path: Place(kernel_of(layers[site.path]), moments.get(site.path), site.use_bias) for site in sites}


def uniform(places: Mapping[str, Place], keep: float, forms: Sequence[Form], progress: bool | None) -> Choices:
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
    return choices


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
    places: Mapping[str, Place],
    keep: float,
    forms: Sequence[Form],
    pairs: Sequence[Pair],
    *,
    pivots: bool,
    progress: bool | None,
) -> tuple[Choices, float]:
    """One budget over all sites, spent where it saves most predicted loss; the choices, and that loss in sum.

    Args:
        places: by path.
        keep: fraction of all kernels' parameters that stays.
        forms: to choose from.
        pairs: places that are decided together, with their hidden units.
        pivots: low rank may store no identity, see `TNPivoted`.
        progress: show a bar.
    """
    paired = {path for pair in pairs for path in (*pair.first, pair.second)}
    groups = [(*pair.first, pair.second) for pair in pairs]
    groups += [(path,) for path in places if path not in paired]
    menus = []
    for group in progress_bar(groups, "Planning", shown=progress):
        members = [places[path] for path in group]
        if len(group) > 1:
            too = any(form.name == low_rank.FORM.name for form in forms)
            menu = pair_offers(members[:-1], members[-1], pivots=pivots, low_rank_too=too)
        else:
            menu = offers(members[0], forms, pivots=pivots)
        menus.append(_above_floor(menu, FLOOR * keep * sum(place.kernel.size for place in members)))
    chosen = knapsack(menus, keep * sum(place.kernel.size for place in places.values()))
    choices: Choices = {}
    for group, offer in zip(groups, chosen, strict=True):
        picked = offer.what.choices if isinstance(offer.what, Width) else (offer.what,)
        choices.update(zip(group, picked, strict=True))
    return choices, sum(offer.loss for offer in chosen)


def _above_floor(menu: Sequence[Offer], floor: float) -> Sequence[Offer]:
    kept = [offer for offer in menu if offer.cost >= floor]
    return kept or menu[-1:]
