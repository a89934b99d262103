"""What `replace_dense` is called with, checked before any work: wanted, got, what to do."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

from tncompress.conversion.sites import Site
from tncompress.fitting.allocate import Choice, smallest_params
from tncompress.forms import get_form
from tncompress.forms.form import holds

Recipe = Mapping[str, Mapping] | str | os.PathLike

_NO_NETWORK = "no"  # how the reason begins that another form may mend


def check_keep(keep: float) -> None:
    """Refuse what is no fraction above 0."""
    if isinstance(keep, bool) or not isinstance(keep, Real) or not 0 < keep <= 1:
        raise ValueError(f"keep is the fraction of kernel parameters that stays, above 0 and at most 1, got {keep!r}.")


def checked_forms(form: str | Sequence[str]) -> list[str]:
    """The names of one or several forms."""
    names = [form] if isinstance(form, str) else form
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"form is the name of a factorisation, or several names, got {form!r}.")
    if not names:
        raise ValueError("form names no factorisation; give one such as 'low_rank', or several.")
    return [get_form(name).name for name in names]


def with_reasons(sites: Sequence[Site], keep: float, forms: Sequence[str]) -> list[Site]:
    """The sites, those with their reason for which no form has a network within the budget.

    Raises:
        ValueError: if none is left.
    """
    sites = [site if site.reason else replace(site, reason=_too_large(site, keep, forms)) for site in sites]
    if all(site.reason for site in sites):
        raise ValueError(_nothing_to_replace(sites, forms))
    return sites


def _too_large(site: Site, keep: float, forms: Sequence[str]) -> str | None:
    names = " or ".join(forms)
    smallest = smallest_params(forms, site.in_dim, site.out_dim)
    if smallest is None:
        return f"{_NO_NETWORK} {names} network of {site.in_dim}x{site.out_dim} is smaller than dense"
    if keep < 1 and smallest > keep * site.num_params:
        share = smallest / site.num_params
        return f"the smallest {names} network keeps {share:.1%} of the kernel, more than keep={keep}"
    return None


def _nothing_to_replace(sites: Sequence[Site], forms: Sequence[str]) -> str:
    if not sites:
        return "The model has no dense layer, so there is nothing to replace."
    reasons = "; ".join(f"{site.path}: {site.reason}" for site in sites[:5])
    more = f" (and {len(sites) - 5} more)" if len(sites) > 5 else ""
    message = f"No dense layer can be replaced: {reasons}{more}."
    if "low_rank" not in forms and any((site.reason or "").startswith(_NO_NETWORK) for site in sites):
        needs = " ".join(f"{name} needs {get_form(name).needs}." for name in forms)
        message += f" {needs} low_rank takes any dimensions."
    return message


def checked_recipe(recipe: Recipe, sites: Sequence[Site]) -> dict[str, Choice]:
    """The recipe by path of the site, every entry checked against the model."""
    known = {path: site for site in sites for path in (site.path, *site.aliases)}
    choices = {}
    for path, config in _read_recipe(recipe).items():
        site = known.get(path)
        if site is None:
            paths = ", ".join(list(known)[:12])
            raise ValueError(f"The recipe names the layer {path!r}, which the model does not have; it has {paths}.")
        try:
            choice = Choice.from_config(config)
            form = get_form(choice.form) if choice.form else None
        except (ValueError, TypeError, AttributeError) as error:  # a recipe may hold anything
            raise ValueError(f"The recipe for {path!r} is not valid: {error}") from None
        if (choice.spec.in_dim, choice.spec.out_dim) != (site.in_dim, site.out_dim):
            raise ValueError(
                f"The recipe for {path!r} maps {choice.spec.in_dim} to {choice.spec.out_dim} features, but the layer "
                f"maps {site.in_dim} to {site.out_dim}."
            )
        if form and not holds(form, choice.spec):
            raise ValueError(
                f"The recipe for {path!r} calls {choice.spec.equation!r} {choice.form}, which it is not; write "
                '"form": null to fit it by alternating least squares.'
            )
        if site.reason:
            raise ValueError(f"The recipe names {path!r}, which cannot be replaced: {site.reason}.")
        if choices.get(site.path, choice) != choice:
            raise ValueError(f"The recipe has two networks for the shared layer {site.path!r}; keep one of them.")
        choices[site.path] = choice
    if not choices:
        raise ValueError("The recipe is empty: it names no layer.")
    return choices


def _read_recipe(recipe: Recipe) -> Mapping[str, Any]:
    """The recipe as a dict, from a dict, JSON text or a JSON file."""
    read: Any = recipe
    if isinstance(recipe, (str, os.PathLike)):
        text = str(recipe)
        if not text.lstrip().startswith("{"):
            if not Path(text).is_file():
                raise ValueError(f"recipe={text!r} is neither JSON text nor the path of a JSON file.")
            text = Path(text).read_text()
        try:
            read = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"The recipe is not valid JSON: {error}.") from None
    if not isinstance(read, Mapping):
        raise ValueError(f"A recipe maps layer paths to a form and a spec, got {type(read).__name__}.")
    return read
