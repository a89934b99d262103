"""`replace_dense(device=)`: shapes that fill tiles, and no layer that takes more time than it did."""

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import made

import tncompress
from tncompress import Budget, replace_dense, report
from tncompress.conversion import never_slower
from tncompress.conversion.never_slower import settled, slower, timed
from tncompress.conversion.outcomes import Times
from tncompress.conversion.pairs import Pair
from tncompress.conversion.planning import Plan
from tncompress.conversion.sites import find_sites
from tncompress.fitting.budget import Target, choice_seconds, dense_seconds
from tncompress.fitting.choice import Choice, choice_from_config
from tncompress.forms import low_rank
from tncompress.hardware.device import DEVICES

WIDTHS = (512, 1024, 256, 640)


def model(widths=WIDTHS, seed=0):
    keras.utils.set_random_seed(seed)
    entry, *rest = widths
    return keras.Sequential(
        [keras.Input((entry,)), *(keras.layers.Dense(w, "relu", name=f"to_{w}") for w in rest)], name="mixed"
    )


@pytest.fixture
def measured(monkeypatch):
    """What is measured: twice as fast as dense, but for the layers in this set, which are twice as slow."""
    losers, asked = set(), []

    def times(model, choices, tokens, progress):
        asked.append(tuple(tokens))
        chosen = [path for path, choice in choices.items() if choice]
        return {path: Times(1e-3, 2e-3 if path in losers else 5e-4) for path in chosen}

    monkeypatch.setattr(never_slower, "timed", times)
    return losers, asked


@pytest.mark.parametrize("name", ["tpu-v5e", "gpu-a100", "gpu-t4"])
def test_ranks_fill_tiles_and_nothing_is_slower(name):
    small = replace_dense(model((1024, 2048, 1024)), 0.4, device=name, tokens=[1024, 8192])
    device = DEVICES[name]
    target = Target(device, (1024, 8192))
    rows = report(small).replaced
    assert rows
    assert report(small).keep <= 0.4
    for row in rows:
        choice = choice_from_config(report(small).recipe[row.layer])
        rank, step = choice.spec.size["r"], target.step([choice.dims])
        assert rank % step == 0 or rank & (rank - 1) == 0 or (rank % 3 == 0 and rank < step)
        assert not choice.pivots
        dtype = device.rates[0][0]
        assert sum(choice_seconds(choice, device, n, dtype) for n in target.tokens) <= sum(
            dense_seconds(choice.dims, device, n, dtype) for n in target.tokens
        )


def test_a_budget_that_costs_time_is_met_with_a_warning():
    with pytest.warns(UserWarning, match="some layers are slower on tpu-v5e than dense, by estimate"):
        small = replace_dense(model((64, 128, 64)), 0.4, device="tpu-v5e", tokens=8)
    assert report(small).keep <= 0.4


@given(st.sampled_from(sorted(DEVICES)), st.integers(16, 4096), st.integers(16, 4096))
def test_steps_are_tiles_or_parts_of_them(name, in_dim, out_dim):
    step = Target(DEVICES[name]).step([(in_dim, out_dim)])
    tile = DEVICES[name].tile(DEVICES[name].rates[0][0])
    assert tile % step == 0
    assert step == tile or step == 1 or 2 * step * 4 > min(in_dim, out_dim) >= 4 * step


@settings(max_examples=5, deadline=None)
@given(st.floats(0.7, 0.95), st.sampled_from(["cpu", "tpu-v5e", "gpu-t4"]))
def test_a_latency_budget_is_of_the_device(fraction, name):
    dense = model((1024, 2048, 1024))
    target = Target(DEVICES[name], (8192,))
    small = replace_dense(dense, budget=Budget(latency=fraction), device=name, tokens=8192)
    recipe = report(small).recipe
    before = after = 0.0
    for site in find_sites(dense):
        dims = (site.in_dim, site.out_dim)
        before += target.seconds(None, dims, False)
        after += target.seconds(choice_from_config(recipe[site.path]) if site.path in recipe else None, dims, False)
    assert after <= fraction * before * (1 + 1e-9)


def test_a_layer_that_loses_stays_dense_and_the_others_keep_their_networks(measured, tmp_path):
    losers, asked = measured
    planned = report(replace_dense(model(), 0.5, device="this", tokens=(8, 64))).recipe
    losers.add("to_1024")
    asked.clear()
    with pytest.warns(UserWarning, match="1 of 3 layers stay dense, because they are slower here"):
        small = replace_dense(model(), 0.5, device="this", tokens=(8, 64))
    found = report(small)
    rows = {row.layer: row for row in found.rows}
    assert rows["to_1024"].reason == "slower than dense here: 2 ms against 1 ms"
    assert rows["to_1024"].seconds_after == 2e-3
    assert {row.layer for row in found.replaced} == {"to_256", "to_640"}
    assert found.recipe == {path: planned[path] for path in ("to_256", "to_640")}
    assert all((row.seconds_before, row.seconds_after) == (1e-3, 5e-4) for row in found.replaced)
    assert "1 -> 0.5" in str(found)
    assert asked == [(8, 64)]
    small.save(tmp_path / "small.keras")
    assert report(tncompress.load(tmp_path / "small.keras")).rows == found.rows


def test_all_of_a_model_counts_where_a_layer_stays_dense(measured):
    measured[0].add("to_1024")
    limit = 800_000
    with pytest.warns(UserWarning, match="1 of 3 layers stay dense"):
        small = replace_dense(model(), budget=Budget(params=limit), device="this")
    assert 0.98 * limit < small.count_params() <= limit


def test_operations_of_a_layer_that_stays_dense_count(measured):
    measured[0].add("to_1024")
    limit = 1_500_000
    with pytest.warns(UserWarning, match="1 of 3 layers stay dense, .*; the budget is met all the same"):
        small = replace_dense(model(), budget=Budget(flops=limit), device="this")
    assert 0.95 * limit < sum(row.flops_after for row in report(small).rows) <= limit


def test_a_budget_that_cannot_be_met_without_a_layer_says_so(measured):
    measured[0].add("to_1024")
    with pytest.raises(ValueError, match=r"make a model of .* \(1 of 3 layers stay dense, because they are slower"):
        replace_dense(model(), budget=Budget(params=530_000), device="this")


def test_elastic_on_another_device():
    small = replace_dense(model((64, 128, 64)), 0.5, device="tpu-v5e", elastic=True)
    assert report(small).keep <= 0.5


def test_other_forms_fill_tiles():
    small = replace_dense(model((512, 1024, 512)), 0.3, form=["tt_matrix", "kronecker"], device="tpu-v5e", tokens=8192)
    for config in report(small).recipe.values():
        spec = choice_from_config(config).spec
        ranks = [spec.size[bond] for bond in spec.bonds]
        assert all(rank % 128 == 0 or bin(rank).count("1") <= 2 for rank in ranks)


def test_nothing_to_win(measured):
    measured[0].update({"to_1024", "to_256", "to_640"})
    with pytest.raises(
        ValueError, match=r"No layer would be faster as a network here at 1024 tokens .*2 ms against 1 ms"
    ):
        replace_dense(model(), 0.5, device="this")


def test_hidden_units_go_together():
    pairs = [Pair(("a",), "b")]
    times = {"a": Times(1e-3, 0.2e-3), "b": Times(1e-3, 1.5e-3), "c": Times(1e-3, 1.1e-3)}
    assert slower(times, [("a", "b"), ("c",)]) == {"c": "slower than dense here: 1.1 ms against 1 ms"}
    times["a"] = Times(1e-3, 0.6e-3)
    lost = slower(times, [("a", "b")])
    assert lost.keys() == {"a", "b"}
    assert lost["a"] == "slower than dense here: 2.1 ms against 2 ms, with 1 that it shares hidden units with"
    assert pairs[0].second in lost
    assert slower({"a": Times(1e-3, 1e-3)}, [("a",)]) == {}


def test_pairs_of_layers_that_stay_dense_are_not_planned(monkeypatch):
    dense, _ = made("sequential")
    sites = find_sites(dense)
    pairs, seen = [Pair((sites[0].path,), sites[1].path)], []
    monkeypatch.setattr(
        never_slower, "timed", lambda model, choices, tokens, progress: dict.fromkeys(choices, Times(1, 2))
    )

    def plan_for(chosen, left):
        seen.append((len(chosen), len(left)))
        return Plan({site.path: Choice("low_rank", low_rank.spec(site.in_dim, site.out_dim, 1)) for site in chosen}, {})

    for again in (True, False):
        with pytest.raises(ValueError, match="No layer would be faster"):
            settled(dense, sites, pairs, (4,), plan_for, again, False)
    assert seen == [(2, 1), (2, 1)]
    dense, found = model((8, 6, 4, 2)), {"to_6": Times(1, 2), "to_4": Times(1, 2), "to_2": Times(2, 1)}
    monkeypatch.setattr(never_slower, "timed", lambda _, choices, *__: {path: found[path] for path in choices})
    with pytest.warns(UserWarning, match="2 of 3 layers stay dense"):
        _, measured, _ = settled(dense, find_sites(dense), [Pair(("to_6",), "to_4")], (4,), plan_for, True, False)
    assert seen[2:] == [(3, 1), (1, 0)]
    assert measured == found  # also of those that are not in the last plan


def test_what_was_to_stay_whole_is_not_cut_in_the_place_of_what_loses(monkeypatch):
    """A small head behind layers that all lose would have to meet a fraction alone, at rank 1."""
    dense, _ = made("sequential")
    first, *rest = find_sites(dense)
    losing = Choice("low_rank", low_rank.spec(first.in_dim, first.out_dim, 1))
    monkeypatch.setattr(never_slower, "timed", lambda *_: {first.path: Times(1, 2)})
    plan = Plan({first.path: losing, **{site.path: None for site in rest}}, {})
    with pytest.raises(ValueError, match="No layer would be faster as a network here at 4 tokens"):
        settled(dense, [first, *rest], [], (4,), lambda *_: plan, False, False)


def test_equal_layers_are_measured_once(monkeypatch):
    calls = []

    def times(layers, tokens):
        calls.append(tokens)
        return {"dense": 3.0, "network": 1.0}

    monkeypatch.setattr(never_slower, "time_layers", times)
    others = [keras.layers.Dense(64, "relu", name="d"), keras.layers.Dense(64, use_bias=False, name="e")]
    dense = keras.Sequential([keras.Input((64,)), *(keras.layers.Dense(64, name=name) for name in "abc"), *others])
    choice = Choice("low_rank", low_rank.spec(64, 64, 4))
    other = Choice("low_rank", low_rank.spec(64, 64, 8))
    found = timed(dense, {"a": choice, "b": choice, "c": other, "d": choice, "e": choice}, (2, 3), False)
    assert found == dict.fromkeys("abcde", Times(6.0, 2.0))
    assert calls == [2, 3] * 4  # a and b are alike


def test_measured_for_real():
    dense = keras.Sequential([keras.Input((32,)), keras.layers.Dense(64, name="layer")])
    found = timed(dense, {"layer": Choice("low_rank", low_rank.spec(32, 64, 2))}, (16, 4), False)["layer"]
    assert 0 < found.network < 10
    assert 0 < found.dense < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu-v9"}, "device is one of tpu-v2, .*, or this; got 'tpu-v9'"),
        ({"device": "tpu-v5e", "tokens": 0}, "tokens is the number of vectors at once, at least 1, .* got 0"),
        ({"device": "tpu-v5e", "tokens": []}, "tokens is the number of vectors at once"),
        ({"device": "tpu-v5e", "tokens": "many"}, "tokens is the number of vectors at once"),
        ({"device": "tpu-v5e", "allocation": "uniform"}, "device= shares one budget out by itself"),
        ({"device": "tpu-v5e", "recipe": {}}, "A recipe says what every layer becomes; leave device= away"),
        ({"device": "tpu-v5e", "budget": Budget(latency=1e-6)}, "The smallest networks of the chosen layers keep"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        replace_dense(model((64, 64)), **arguments)
