"""Which of the chosen layers have a network within a budget, and what fraction of its kernel each of these may keep."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from tncompress.conversion.arguments import NARROW_FORM, listed
from tncompress.conversion.sites import Site
from tncompress.fitting.allocate import smallest_params
from tncompress.fitting.budget import Budget, BudgetError
from tncompress.forms import Form

WHOLE = 0.9  # of what was chosen: from there on one budget goes over all layers
_NO_NETWORK = "no"  # how the reason begins that another form may mend


def shares(
    given: Sequence[Site], budget: Budget, fixed: int, forms: Sequence[Form], over_all: bool
) -> tuple[list[Site], float]:
    """The sites, those without a network within the budget with their reason, and the fraction that the others keep.

    Whatever stays whole is within the budget too: the fraction is of what it leaves.

    Args:
        given: all sites.
        budget: as it was given.
        fixed: parameters of the model besides the chosen sites.
        forms: to choose from.
        over_all: one budget goes over all sites; there is no fraction, and 1 is returned.

    Raises:
        BudgetError: if the budget cannot be met; the message tells the least that can.
        ValueError: if no form has a network for any site, or a fixed structure needs more than the budget.
    """
    if budget.kind == "params" and budget.limit <= fixed:
        raise BudgetError(
            f"{budget} is less than the {fixed:,} parameters of the model that are not in chosen layers; raise it or "
            "choose more layers."
        )
    whole_fits = over_all and NARROW_FORM in forms  # then what has no pair stays as it is
    sites = [site if whole_fits or site.reason else replace(site, reason=_never_smaller(site, forms)) for site in given]
    if not any(not site.reason for site in sites):
        raise ValueError(_nothing_to_replace(sites, forms))
    if over_all:
        return sites, 1.0
    available = _size(given)
    limit = _limit(budget, fixed, available)
    if forms[0].fixed:
        _check_fixed(sites, budget, fixed, forms[0], limit, available)
        return sites, 1.0
    said = f"keep={budget.limit:.4g}" if budget.kind == "keep" and _size(sites) == available else None
    while True:
        # What stays whole leaves less to the others, which may then be too little for some of them.
        fraction = min(1.0, (limit - available + _size(sites)) / _size(sites))
        said = said or _left_by(budget, fraction)
        left = [
            site if site.reason else replace(site, reason=_too_large(site, fraction, forms, said)) for site in sites
        ]
        if left == sites:
            return sites, fraction
        if all(site.reason for site in left):
            raise BudgetError(_too_small(given, left, budget, fixed, forms, said))
        sites, said = left, None


def nearly_whole(budget: Budget, chosen: Sequence[Site], fixed: int) -> bool:
    """Whether so much is kept that most layers had better stay whole.

    At full rank the two cores of low rank have more parameters than the kernel: with nine tenths of these for itself, a
    square kernel loses more than half of its rank.
    """
    available = _size(chosen)
    return available > 0 and budget.kind in ("keep", "params") and _limit(budget, fixed, available) >= WHOLE * available


def _limit(budget: Budget, fixed: int, available: int) -> float:
    """Parameters that all chosen sites together may have."""
    return budget.limit * available if budget.kind == "keep" else budget.limit - fixed


def _size(sites: Sequence[Site]) -> int:
    """Parameters of those that are still chosen."""
    return sum(site.num_params for site in sites if not site.reason)


def _shown(budget: Budget) -> str:
    return f"keep={budget.limit:.4g}" if budget.kind == "keep" else f"params={budget.limit:.0f}"


def _left_by(budget: Budget, fraction: float) -> str:
    return f"the {max(fraction, 0):.1%} that {_shown(budget)} leaves"


def _check_fixed(sites: Sequence[Site], budget: Budget, fixed: int, form: Form, limit: float, available: int) -> None:
    """Refuse a structure that needs more than the limit, with the kernels that it does not fit."""
    total = _size(sites)
    networks = sum(smallest_params([form], site.in_dim, site.out_dim) or 0 for site in sites if not site.reason)
    whole = available - total
    if networks + whole <= limit + 1e-6:
        return
    others = f" and leaves {whole:,} in kernels that it does not fit" if whole else ""
    allowed = _shown(budget) if budget.kind == "keep" else _left_by(budget, limit / available)
    raise BudgetError(
        f"This structure of {form.name} keeps {networks:,} of the chosen kernels' {total:,} parameters{others}, more "
        f"than {allowed}; give {_advice(networks + whole, budget, fixed, available)}."
    )


def _advice(least: int | Fraction, budget: Budget, fixed: int, available: int) -> str:
    """The smallest budget that leaves so many parameters to all chosen sites."""
    if budget.kind == "params":
        return f"params={fixed + math.ceil(least)} or more"
    return f"keep={math.ceil(1000 * Fraction(least) / available) / 1000} or more"


def _too_small(
    given: Sequence[Site], left: Sequence[Site], budget: Budget, fixed: int, forms: Sequence[Form], said: str
) -> str:
    available = _size(given)
    advice = _advice(_least(given, forms), budget, fixed, available)
    smallest = sum(_smallest(site, forms) or site.num_params for site in given if not site.reason)
    if smallest <= _limit(budget, fixed, available):
        advice += ", or allocation='global', by which layers need not keep the same share"
    if budget.kind == "keep":
        return f"{_nothing_to_replace(left, forms)} Give {advice}."
    return f"No layer has a {listed(forms)} network that keeps no more of its kernel than {said}; give {advice}."


def _least(sites: Sequence[Site], forms: Sequence[Form]) -> Fraction:
    """The fewest parameters that all chosen sites can have if those that become networks keep the same fraction."""
    smallest = {site: _smallest(site, forms) for site in sites if not site.reason}
    fractions = sorted((Fraction(least, site.num_params), site.num_params) for site, least in smallest.items() if least)
    whole, networks = sum(site.num_params for site in smallest), 0
    found = []
    for fraction, params in fractions:  # these and all before as networks, the others whole
        whole, networks = whole - params, networks + params
        found.append(whole + fraction * networks)
    return min(found)


def _smallest(site: Site, forms: Sequence[Form]) -> int | None:
    return smallest_params(forms, site.in_dim, site.out_dim)


def _never_smaller(site: Site, forms: Sequence[Form]) -> str | None:
    if site.is_table or _smallest(site, forms) is not None:
        return None
    return f"{_NO_NETWORK} {listed(forms)} network of {site.in_dim}x{site.out_dim} is smaller than dense"


def _too_large(site: Site, keep: float, forms: Sequence[Form], limit: str) -> str | None:
    smallest = _smallest(site, forms)
    if smallest is not None and keep < 1 and smallest > keep * site.num_params + 1e-6:
        share = smallest / site.num_params
        return f"the smallest {listed(forms)} network keeps {share:.1%} of the kernel, more than {limit}"
    return None


def _nothing_to_replace(sites: Sequence[Site], forms: Sequence[Form]) -> str:
    if not sites:
        return "The model has no dense layer, so there is nothing to replace."
    reasons = "; ".join(f"{site.path}: {site.reason}" for site in sites[:5])
    more = f" (and {len(sites) - 5} more)" if len(sites) > 5 else ""
    message = f"No dense layer can be replaced: {reasons}{more}."
    takes_any = any(form.name == "low_rank" for form in forms)
    if not takes_any and any((site.reason or "").startswith(_NO_NETWORK) for site in sites):
        needs = " ".join(f"{form.name} needs {form.needs}." for form in forms)
        message += f" {needs} low_rank takes any dimensions."
    return message
