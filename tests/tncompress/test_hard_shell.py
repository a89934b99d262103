"""Equations, recipes and records of other people's: refused in one sentence, in little time and memory."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import MEGABYTE, error_of, jsons, refused, within

from tncompress.conversion.outcomes import Outcome
from tncompress.conversion.recipes import checked_recipe
from tncompress.conversion.sites import Site
from tncompress.fitting.choice import Choice, choice_from_config
from tncompress.forms import low_rank
from tncompress.network.plan import plan
from tncompress.network.spec import Spec

SITES = [Site("first", "Dense", 16, 32, True), Site("second", "Dense", 32, 8, False)]


@given(st.text("ir o,->_0\n", max_size=40) | st.text(max_size=20), st.integers(-1, 2**40))
def test_any_equation_is_read_or_refused(text, size):
    names = set(text.replace(",", " ").replace("->", " ").split())
    error_of(lambda: plan(Spec.parse(text, dict.fromkeys(names, size)), 2))


LONG = {
    "letters": "a" * MEGABYTE,
    "terms": "a, " * (MEGABYTE // 3) + "-> a",
    "modes": " ".join(f"i{k}" for k in range(100_000)) + ", i -> o",
    "arrows": "->" * (MEGABYTE // 2),
    "spaces": " " * MEGABYTE,
    "cores": "i, " + "i r, " * 1500 + "r -> o",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_long_equations_are_refused_at_once(text):
    names = set(text.replace(",", " ").replace("->", " ").split())
    refused(lambda: Spec.parse(text, dict.fromkeys(names, 2)))
    if names:
        refused(lambda: Spec.parse("i, i o -> o", dict.fromkeys([*names, "i", "o"], 2)))


def test_many_modes_and_cores_are_refused():
    modes = [f"m{k}" for k in range(300)]
    refused(lambda: Spec(tuple(modes), (tuple(modes),), ("m0",), tuple((m, 2) for m in modes)), "at most 50 cores")
    chain = [("i", "r0"), *((f"r{k}", f"r{k + 1}") for k in range(60)), ("r60", "o")]
    sizes = {"i": 2, "o": 2, **{f"r{k}": 2 for k in range(61)}}
    refused(lambda: Spec(("i",), tuple(chain), ("o",), tuple(sizes.items())), "at most 50 cores")
    within_limits = chain[:40]
    spec = Spec(("i",), tuple(within_limits), ("r39",), tuple((m, s) for m, s in sizes.items() if m in str(chain[:40])))
    with within(seconds=2):
        plan(spec, 8)


@given(jsons)
def test_any_json_for_a_recipe_is_read_or_refused(value):
    for recipe in (value, {"first": value}, {"first": {"form": None, "spec": value}}, json.dumps({"first": value})):
        error_of(lambda recipe=recipe: checked_recipe(recipe, SITES))


SIZES = {"i": 16, "r": 3, "o": 32}
BAD_RECIPES = {
    "deep": "{" + '"a":{' * 50_000,
    "number": '{"first": ' + "9" * 5000 + "}",
    "path of a megabyte": "x" * MEGABYTE,
    "path with a zero": "a\0b",
    "surrogate": {"first": {"form": "\ud800", "spec": {"equation": "i, i o -> o", "sizes": {"i": 16, "o": 32}}}},
    "size": {"first": {"form": None, "spec": {"equation": "i, i r, r o -> o", "sizes": {**SIZES, "r": 2**40}}}},
    "key of a megabyte": {"first": {"x" * MEGABYTE: 1}},
    "bands of a megabyte": {"first": {"form": "bands", "bands": [["x" * MEGABYTE, 1]], "dim": 3}},
}


@pytest.mark.parametrize("recipe", BAD_RECIPES.values(), ids=BAD_RECIPES)
def test_bad_recipes_are_refused(recipe):
    refused(lambda: checked_recipe(recipe, SITES))


OUTCOME = Outcome("a", 4, 6, Choice("low_rank", low_rank.spec(4, 6, 2)), losses=(1.0, 0.5), codes=(0.0, 1.0))
BAD_OUTCOMES = {
    "path": {"path": 3},
    "size": {"in_dim": "4"},
    "error": {"weight_error": [1]},
    "losses": {"losses": [1.0]},
    "not finite": {"codes": [0.0, float("nan")]},
    "no network": {"choice": None},
}


@pytest.mark.parametrize("change", BAD_OUTCOMES.values(), ids=BAD_OUTCOMES)
def test_bad_outcomes_are_refused(change):
    assert Outcome.from_config(OUTCOME.to_config()) == OUTCOME
    refused(lambda: Outcome.from_config({**OUTCOME.to_config(), **change}), "outcome of")


@given(jsons)
def test_any_json_for_a_choice_is_read_or_refused(value):
    for config in (value, {"form": "bands", "bands": value, "dim": 3}, {"form": value, "spec": value}):
        error_of(lambda config=config: choice_from_config(config))
