"""Targets: equations, recipes, records of compressions, a cache."""

import json

from fuzz import mutators
from fuzz.target import Target, only_own_errors, written

EQUATIONS = ["i, i r, r o -> o", "a b, a p r, b q r -> p q", "g i, g i o -> g o", "i0 i1, i0 o0 r1, r1 i1 o1 -> o0 o1"]


def run_spec(data: bytes) -> None:
    """An equation as text, and what is done with its spec first."""
    from tncompress.network.plan import plan
    from tncompress.network.spec import Spec

    text = data.decode("utf-8", "replace")
    names = set(text.replace(",", " ").replace("->", " ").split())
    with only_own_errors():
        spec = Spec.parse(text, {name: 1 + len(name) for name in names})
        assert Spec.from_config(spec.to_config()) == spec == spec.T.T
        plan(spec, 4)


def run_choice(data: bytes) -> None:
    """What a recipe holds for one layer."""
    from tncompress.fitting.choice import choice_from_config
    from tncompress.limits import parsed_json

    with only_own_errors():
        choice = choice_from_config(parsed_json(data))
        assert choice_from_config(choice.to_config()) == choice


def run_recipe(data: bytes) -> None:
    """A recipe as a file and as text, for a model of two layers."""
    from tncompress.conversion.recipes import checked_recipe
    from tncompress.conversion.sites import Site

    sites = [Site("first", "Dense", 16, 32, True), Site("second", "Dense", 32, 8, False, aliases=("again",))]
    for recipe in (written("recipe.json", data), data.decode("utf-8", "replace")):
        with only_own_errors():
            checked_recipe(recipe, sites)


def run_outcome(data: bytes) -> None:
    """The record of a compression in a `.keras` file."""
    from tncompress.conversion.outcomes import Outcome
    from tncompress.limits import parsed_json

    with only_own_errors():
        value = parsed_json(data)
        try:
            outcome = Outcome.from_config(value)
        except (KeyError, AttributeError, TypeError):  # `load` makes them one sentence
            return
        json.dumps(outcome.to_config())


def run_cache(data: bytes) -> None:
    """What is kept of this machine: never an error."""
    from tncompress.hardware import machine

    for value in machine._read(written("machine.json", data)).values():
        machine._figures(value)


def choice_seeds() -> list[bytes]:
    sizes = {"i": 16, "r": 3, "o": 32}
    low = {"form": "low_rank", "spec": {"equation": EQUATIONS[0], "sizes": sizes}, "pivots": True}
    bands = {"form": "bands", "bands": [[10, None], [90, 3]], "dim": 8}
    return [json.dumps(value).encode() for value in (low, bands, {**low, "form": None})]


def recipe_seeds() -> list[bytes]:
    first = json.loads(choice_seeds()[0])
    again = {**first, "spec": {"equation": EQUATIONS[0], "sizes": {"i": 32, "r": 3, "o": 8}}}
    return [json.dumps({"first": first}).encode(), json.dumps({"first": first, "again": again}).encode()]


def outcome_seeds() -> list[bytes]:
    from tncompress.conversion.curves import Spectrum
    from tncompress.conversion.outcomes import Outcome, Times
    from tncompress.fitting.choice import Choice
    from tncompress.forms import low_rank

    choice, spectrum = Choice("low_rank", low_rank.spec(4, 6, 2)), Spectrum((0, 1), (0.8, 0.6))
    outcomes = (
        Outcome("a", 4, 6, choice, "svd", 0.5, 0.25, times=Times(1.0, 2.0), losses=(1.0, 0.5), codes=(0.0, 1.0)),
        Outcome("b", 4, 6, reason="in exclude", spectrum=spectrum),
    )
    return [json.dumps(outcome.to_config()).encode() for outcome in outcomes]


VALUES = {
    "spec": Target(run_spec, lambda: [text.encode() for text in EQUATIONS]),
    "choice": Target(run_choice, choice_seeds, mutators.json_text),
    "cache": Target(run_cache, lambda: [b'{"x": [1.0, 2.0, 3.0]}'], mutators.json_text),
    "recipe": Target(run_recipe, recipe_seeds, mutators.json_text),
    "outcome": Target(run_outcome, outcome_seeds, mutators.json_text),
}
