"""Budgets of every kind are kept, and used up as far as the ranks allow."""

import itertools
import re

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tncompress
from tncompress import Budget, replace_dense, report
from tncompress.fitting.budget import choice_seconds, dense_seconds
from tncompress.fitting.choice import Choice
from tncompress.forms import low_rank
from tncompress.hardware.device import Device
from tncompress.layers.pivoted import TNPivoted


def mlp(widths):
    layers = [keras.layers.Dense(width, "gelu", name=f"layer_{i}") for i, width in enumerate(widths[1:])]
    return keras.Sequential([keras.Input((widths[0],)), *layers], name="mlp")


def kernels(widths):
    return sum(a * b for a, b in itertools.pairwise(widths))


@settings(max_examples=100, deadline=None)
@example([12, 12, 12, 26, 17], 0.5, "global", False)  # the small layers are whole, the others' ranks are coarse
@given(
    st.lists(st.integers(12, 96), min_size=5, max_size=8),
    st.floats(0.2, 0.95),
    st.sampled_from(["uniform", "global"]),
    st.booleans(),
)
def test_never_exceeded_and_met_closely(widths, keep, allocation, of_all):
    model, total = mlp(widths), kernels(widths)
    rest = model.count_params() - total
    options = {"budget": Budget(params=keep * total + rest)} if of_all else {"keep": keep}
    small = replace_dense(model, allocation=allocation, **options)
    kept = small.count_params() - rest
    assert kept <= keep * total
    # No layer that is not whole has room for its next rank, unless that were less than 1 %.
    sizes = [config["spec"]["sizes"] for config in report(small).recipe.values()]
    next_rank = min(size["i"] + size["o"] for size in sizes)
    assert kept > keep * total - max(0.01 * keep * total, next_rank) - 1


def spent(small, kind):
    """What a budget of this kind limits, over all layers: none is left out here."""
    found = report(small)
    totals = {name: sum(getattr(row, name) for row in found.rows) for name in ("params_before", "params_after")}
    return {
        "params": small.count_params(),
        "keep": totals["params_after"] / totals["params_before"],
        "flops": sum(row.flops_after for row in found.rows),
    }[kind]


AWKWARD = (64, 64, 61, 64, 64, 32)  # no form of factors has a network of 64x61
FORMS = ["low_rank", "kronecker", "tt_matrix", "monarch", "block_diagonal"]


@settings(max_examples=60, deadline=None)
@example(list(AWKWARD), "params", 0.5, ["monarch"], None)
@given(
    st.lists(st.sampled_from([2, 12, 16, 21, 32, 37, 61, 64]), min_size=3, max_size=6),
    st.sampled_from(["params", "keep", "flops"]),
    st.floats(0.05, 1.0),
    st.lists(st.sampled_from(FORMS), min_size=1, max_size=2, unique=True),
    st.sampled_from([None, "uniform", "global"]),
)
def test_no_budget_is_exceeded_by_layers_without_a_network(widths, kind, share, forms, allocation):
    """And the least that is possible, where it is told, is."""
    model, total = mlp(widths), kernels(widths)
    limit = {"params": share * total + sum(widths[1:]), "keep": share, "flops": 2 * share * total}[kind]
    options = {"form": forms, "allocation": None if kind == "flops" else allocation}
    try:
        small = replace_dense(model, budget=Budget(**{kind: limit}), **options)
    except tncompress.BudgetError as error:
        number = re.search(
            r"(?:params=|keep=|model of |take |keep )([\d.,]*\d)(%?)(?: or more| param| FLOPs| of)", str(error)
        )
        least = float(number[1].replace(",", "")) / (100 if number[2] else 1)
        assert least > limit
        limit = least + (1e-4 if kind == "keep" else 1)  # as it is told, rounded
        small = replace_dense(model, budget=Budget(**{kind: min(limit, 1.0) if kind == "keep" else limit}), **options)
    except ValueError as error:
        if not re.search("No dense layer can be replaced: .* no .* network", str(error)):
            raise
        return
    assert spent(small, kind) <= limit * (1 + 1e-9)


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("form", ["kronecker", "tt_matrix", "monarch"])
@pytest.mark.parametrize("kind", ["params", "keep", "flops"])
def test_layers_without_a_network_count_as_they_are(kind, form, allocation):
    limit = {"params": 10_000, "keep": 0.55, "flops": 28_000}[kind]
    options = {} if kind == "flops" else {"allocation": allocation}
    small = replace_dense(mlp(AWKWARD), budget=Budget(**{kind: limit}), form=form, **options)
    assert [row.form for row in report(small).rows][1:3] == [None, None]
    assert 0.9 * limit < spent(small, kind) <= limit


def test_what_was_not_included_does_not_count():
    small = replace_dense(mlp(AWKWARD), keep=0.3, form="kronecker", exclude="layer_[12]")
    rows = [row for row in report(small).rows if row.layer not in ("layer_1", "layer_2")]
    assert 0.28 < sum(row.params_after for row in rows) / sum(row.params_before for row in rows) <= 0.3


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return mlp([48, 96, 48, 96, 24])


@pytest.fixture(scope="module")
def moments(model):
    draw = np.random.default_rng(0)
    x = (draw.normal(size=(500, 48)) @ draw.normal(size=(48, 48))).astype("float32")
    return tncompress.calibrate(model, [f"layer_{i}" for i in range(4)], x, objective="outputs")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_flops(model, moments, share):
    dense = 2 * kernels([48, 96, 48, 96, 24])
    small = replace_dense(model, budget=Budget(flops=share * dense), calibration=moments)
    flops = sum(row.flops_after for row in report(small).rows)
    assert 0.97 * share * dense <= flops <= share * dense
    for row in report(small).replaced:
        layer = small.get_layer(row.layer)
        if isinstance(layer, TNPivoted):  # its cores are never multiplied with each other
            assert row.flops_after == 2 * layer.spec.num_params


@pytest.mark.parametrize("most", [0.01, 0.05, 0.2])
def test_predicted_loss(model, moments, most):
    small = replace_dense(model, budget=Budget(max_loss=most), calibration=moments)
    found = report(small)
    assert 0.5 * most <= found.predicted_loss <= most * (1 + 1e-3)  # the fit damps S a little
    smaller = replace_dense(model, budget=Budget(params=0.97 * small.count_params()), calibration=moments)
    assert report(smaller).predicted_loss > found.predicted_loss


def processor(rate, bytes_per_second, overhead):
    return Device("toy", "cpu", (("float32", rate),), bytes_per_second, overhead, (("float32", 8),))


def test_time_by_a_machines_rates(model, moments, monkeypatch):
    device = processor(1e9, 1e12, 0.0)  # nothing but multiplications takes time
    monkeypatch.setattr("tncompress.fitting.budget.this_machine", lambda: device)
    small = replace_dense(model, budget=Budget(latency=0.8), calibration=moments)
    dims = dict(zip([f"layer_{i}" for i in range(4)], [(48, 96), (96, 48), (48, 96), (96, 24)], strict=True))
    dense = sum(dense_seconds(each, device, 1024) for each in dims.values())
    recipe = report(small).recipe
    assert set(recipe) <= set(dims)
    found = sum(choice_seconds(Choice.from_config(config), device, 1024) for config in recipe.values())
    found += sum(dense_seconds(each, device, 1024) for path, each in dims.items() if path not in recipe)
    assert 0.8 * 0.8 * dense <= found <= 0.8 * dense


def test_low_rank_of_small_rank_is_faster_than_dense_and_of_large_rank_slower():
    device = processor(1e11, 1e10, 1e-6)
    dense = dense_seconds((768, 3072), device, 1024)
    seconds = [choice_seconds(Choice("low_rank", low_rank.spec(768, 3072, r)), device, 1024) for r in (64, 256, 700)]
    assert seconds == sorted(seconds)
    assert seconds[1] < dense < seconds[2]


@pytest.mark.parametrize(("rank", "skipped"), [(128, 0), (700, 700)])
def test_pivots_save_the_square_of_a_large_rank_for_every_vector_and_cost_a_copy(rank, skipped):
    spec = low_rank.spec(2048, 1024, rank)
    plain, pivoted = Choice("low_rank", spec), Choice("low_rank", spec, pivots=True)
    vectors, rate = 1 << 14, 1e9
    slow = processor(rate, 1e15, 0.0)
    saved = choice_seconds(plain, slow, vectors) - choice_seconds(pivoted, slow, vectors)
    # A sum over 128 runs at 0.95 of the rate
    assert saved == pytest.approx(2 * vectors * skipped**2 / rate, rel=0.08, abs=1e-6)
    assert 2 * vectors * spec.num_params - pivoted.flops(vectors) == 2 * vectors * skipped**2
    starved = processor(1e15, 1e9, 0.0)
    assert choice_seconds(pivoted, starved, vectors) > choice_seconds(plain, starved, vectors)


@pytest.mark.parametrize("kind", ["params", "flops", "keep", "latency"])
def test_the_smallest_possible_is_told_and_possible(model, moments, kind):
    tiny = {"params": 300, "flops": 1.0, "keep": 1e-6, "latency": 1e-6}[kind]
    with pytest.raises(ValueError, match="raise") as caught:
        replace_dense(model, budget=Budget(**{kind: tiny}), calibration=moments)
    number = float(re.search(r"([\d,]+\.?\d*)(%? of|) (parameters|FLOPs|their)", str(caught.value))[1].replace(",", ""))
    if kind in ("keep", "latency"):
        number = number / 100 + 1e-4
    small = replace_dense(model, budget=Budget(**{kind: number}), calibration=moments)
    if kind == "params":
        assert small.count_params() <= number


@pytest.mark.parametrize(
    ("widths", "form"), [([16, 64, 16], "low_rank"), ([48, 96, 48, 12], "low_rank"), ([64, 64, 64], "monarch")]
)
def test_the_least_for_layers_of_one_share_is_told_and_possible(widths, form):
    """In parameters, which were given, and not as a fraction."""
    model = mlp(widths)
    least = sum(widths[1:]) + 1
    with pytest.raises(
        tncompress.BudgetError, match=rf"than the [\d.]+% that params={least} leaves; give par"
    ) as caught:
        replace_dense(model, budget=Budget(params=least), form=form)
    number = int(re.search(r"give params=(\d+) or more", str(caught.value))[1])
    small = replace_dense(model, budget=Budget(params=number), form=form)
    assert small.count_params() <= number
    with pytest.raises(tncompress.BudgetError, match=f"give params={number} or more"):
        replace_dense(model, budget=Budget(params=number - 1), form=form)


MANY = np.random.default_rng(0).normal(size=(400, 48)).astype("float32")


def test_a_layer_without_room_says_so_in_what_was_given():
    """Only the narrow one has none."""
    model = mlp([96, 96, 2])
    small = replace_dense(model, budget=Budget(params=3000))
    reasons = [row.reason for row in report(small).rows]
    assert reasons[0] is None
    assert re.search(r"more than the 3\d\.\d% that params=3000 leaves$", reasons[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keep": 1.0}, r"within Budget\(keep=1.0\) every chosen layer can stay as it is; lower it"),
        ({"budget": Budget(params=1e6)}, r"within Budget\(params=1000000.0\) every .* lower it"),
        (
            {"budget": Budget(max_loss=1e-12), "objective": "outputs", "calibration": MANY},
            r"within Budget\(max_loss=1e-12\) .* raise it",
        ),
    ],
)
def test_a_budget_for_all_that_there_is_warns(model, arguments, words):
    with pytest.warns(UserWarning, match=f"Nothing is compressed: {words}") as told:
        replace_dense(model, **arguments)
    assert next(found for found in told if "Nothing" in str(found.message)).filename == __file__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keep": 0.5, "budget": Budget(params=100)}, r"keep=0.5 and Budget\(params=100\) are two limits"),
        ({"budget": 0.5}, r"budget is a tncompress.Budget, such as Budget\(params=5e6\), got 0.5"),
        ({"budget": Budget(params=10)}, "less than the 264 parameters of the model that are not in chosen layers"),
        ({"budget": Budget(max_loss=0.1)}, "limits what happens to an objective: give objective="),
        ({"budget": Budget(flops=9e3), "allocation": "uniform"}, "leave allocation='uniform' away"),
        ({"embeddings": True}, "embeddings=True chooses ranks by how often tokens are seen: give calibration="),
    ],
)
def test_arguments_that_do_not_go(model, arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        replace_dense(model, **arguments)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "one limit, one of keep, params, flops, latency, max_loss; got none"),
        ({"keep": 0.5, "flops": 3}, "got keep, flops"),
        ({"keep": 1.5}, "above 0 and at most 1, got 1.5"),
        ({"latency": 0}, "above 0 and at most 1, got 0"),
        ({"params": float("nan")}, "the number of parameters of the whole model, above 0, got nan"),
        ({"flops": "many"}, "operations a token, above 0, got 'many'"),
    ],
)
def test_no_budget(given, words):
    with pytest.raises(ValueError, match=words):
        Budget(**given)
