"""Recipes: what every layer becomes, written down; each entry is checked against the model."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tncompress.conversion.sites import Site
from tncompress.fitting.choice import BANDS, NARROW, Bands, Choice, choice_from_config
from tncompress.forms import get_form
from tncompress.forms.form import holds
from tncompress.limits import json_object, parsed_json, shown

Recipe = Mapping[str, Mapping] | str | os.PathLike


def checked_recipe(recipe: Recipe, sites: Sequence[Site]) -> dict[str, Choice | Bands]:
    """The recipe by path of the site, every entry checked against the model."""
    known = {path: site for site in sites for path in (site.path, *site.aliases)}
    choices: dict[str, Choice | Bands] = {}
    for path, config in _read_recipe(recipe).items():
        site = known.get(path)
        if site is None:
            paths = ", ".join(list(known)[:12])
            raise ValueError(f"The recipe names the layer {path!r}, which the model does not have; it has {paths}.")
        try:
            choice = choice_from_config(config)
            form = get_form(choice.form) if choice.form and choice.form not in (NARROW, BANDS) else None
        except (ValueError, TypeError, AttributeError) as error:  # a recipe may hold anything
            raise ValueError(f"The recipe for {path!r} is not valid: {error}") from None
        if isinstance(choice, Bands) != site.is_table:
            kind = "a table of embeddings" if site.is_table else "a dense layer"
            raise ValueError(f"The recipe for {path!r}, {kind}, has the form {choice.form!r}, which is for the other.")
        fits = choice.dims == (site.in_dim, site.out_dim)
        if not fits and (site.is_table or choice.dims[0] > site.in_dim or choice.dims[1] > site.out_dim):
            raise ValueError(
                f"The recipe for {path!r} maps {choice.dims[0]} to {choice.dims[1]} features, but the layer "
                f"maps {site.in_dim} to {site.out_dim}."
            )
        if form and isinstance(choice, Choice) and not holds(form, choice.spec):
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
        try:
            read = parsed_json(text) if text.lstrip().startswith("{") else json_object(Path(text))
        except (OSError, UnicodeError):
            raise ValueError(f"recipe={shown(text)} is neither JSON text nor the path of a JSON file.") from None
        except ValueError as error:
            raise ValueError(f"The recipe is not valid JSON: {error}") from None
    if not isinstance(read, Mapping):
        raise ValueError(f"A recipe maps layer paths to a form and a spec, got {type(read).__name__}.")
    return read
