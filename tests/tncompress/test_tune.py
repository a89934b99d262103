"""Tuning: aligned, within the budget, and the fastest there is of what was tried."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tncompress.forms import FORMS
from tncompress.forms import expand_condense as ec
from tncompress.forms.form import Form
from tncompress.hardware import tpu, tune_encoder
from tncompress.hardware.aligned import aligned, aligned_ranks, aligned_specs, fills, seconds
from tncompress.hardware.device import DEVICES, device
from tncompress.hardware.tune import SPEND, tune
from tncompress.network.cost import dense_spec
from tncompress.network.plan import plan
from tncompress.network.spec import Spec

V5E = device("tpu-v5e")
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@given(st.integers(1, 5000), st.sampled_from([1, 4, 8, 16, 24, 32, 64, 70, 128, 256]))
def test_aligned_ranks(most, tile):
    ranks = aligned_ranks(most, tile)
    assert ranks == sorted(set(ranks))
    assert ranks[0] == 1 or tile == 1
    assert 1 <= ranks[-1] <= most
    assert all(rank % tile == 0 for rank in ranks if rank >= tile)
    assert list(range(tile, most + 1, tile)) == [rank for rank in ranks if rank >= tile]
    # Below a tile every rank is a third at most above the one that stands for it.
    small = [rank for rank in ranks if rank < tile]
    for rank in range(1, min(most, tile - 1) + 1):
        assert max(s for s in small if s <= rank) > rank * 2 / 3


@every_form
@pytest.mark.parametrize("dims", [(768, 3072), (3072, 768), (96, 60)], ids=str)
@pytest.mark.parametrize("tile", [16, 128])
def test_networks_of_every_form_are_aligned_and_small_enough(form, dims, tile):
    for limit in (dims[0] * dims[1] // 2, dims[0] * dims[1] // 20):
        for spec in aligned_specs(form, *dims, limit, tile):
            assert (spec.in_dim, spec.out_dim) == dims
            assert spec.num_params <= limit
            for bond in spec.bonds:
                assert spec.size[bond] in aligned_ranks(spec.size[bond], tile)


def test_alignment_keeps_everything_but_the_ranks():
    spec = Spec.parse("a b, a p r, b q r -> p q", a=24, b=32, p=64, q=48, r=300)
    rounded = aligned(spec, 128)
    assert rounded == Spec.parse("a b, a p r, b q r -> p q", a=24, b=32, p=64, q=48, r=256)
    assert aligned(rounded, 128) == rounded


def slow_seconds(spec, tokens):
    """The matmuls of it, one number after the other; transposes are tested with the roofline."""
    size, total = {**spec.size, "*": tokens}, 0.0
    for step in plan(spec, tokens).steps:
        batch, rows, summed, columns = (
            math.prod([size[m] for m in modes]) for modes in (step.shared, step.kept_left, step.summed, step.kept_right)
        )
        padded = -(-summed // 128) * 128 * -(-columns // 128) * 128
        moved = 2 * batch * (rows * summed + summed * columns + rows * columns)
        total += max(2 * batch * rows * padded / 197e12, moved / 819e9) + 1e-6
    return total


@every_form
def test_seconds(form):
    for spec in list(aligned_specs(form, 192, 384, 192 * 384 // 3, 32))[:2]:
        for tokens in (1, 1000):
            found, matmuls = seconds(spec, tokens, V5E, "bfloat16"), slow_seconds(spec, tokens)
            assert found >= matmuls * (1 - 1e-9)
            if form.name in ("low_rank", "expand_condense"):  # which need no transpose
                assert found == pytest.approx(matmuls)


def test_a_rank_beyond_a_tile_costs_the_next_tile():
    """Where work and not traffic is what takes the time."""

    def at(rank):
        spec = Spec.parse("i, i r, r o -> o", i=8192, r=rank, o=8192)
        return seconds(spec, 8192, device("tpu-v2"), "bfloat16")

    assert at(129) == at(256) > 1.9 * at(128)
    assert not fills(Spec.parse("i, i r, r o -> o", i=8192, r=129, o=8192), 128)


@given(
    st.sampled_from([(768, 3072), (64, 96), (100, 30)]),
    st.floats(0.1, 0.9),
    st.sampled_from(["tpu-v5e", "tpu-v6e", "gpu-a100", "gpu-t4", "cpu"]),
    st.sampled_from([1, 256, 8192]),
)
@settings(max_examples=25, deadline=None)
def test_the_best_is_the_fastest_that_uses_the_budget(dims, budget, name, tokens):
    found = tune(*dims, budget, name, tokens=tokens)
    limit = int(budget * dims[0] * dims[1])
    assert all(option.num_params <= limit for option in found.options)
    assert [o.seconds for o in found.options] == sorted(o.seconds for o in found.options)
    known = device(name)
    dtype = known.rates[0][0]
    tried = {s for form in FORMS.values() for s in aligned_specs(form, *dims, limit, known.tile(dtype))}
    enough = [spec for spec in tried if spec.num_params >= SPEND * limit] or tried
    assert found.best.seconds == pytest.approx(min(seconds(spec, tokens, known, dtype) for spec in enough))
    assert found.best.spec in tried


def test_a_new_form_takes_part_by_itself(monkeypatch):
    def candidates(in_dim, out_dim, max_params):
        spec = Spec.parse("i, i a, a b, b o -> o", i=in_dim, a=7, b=5, o=out_dim)
        return [spec] if spec.num_params <= max_params else []

    monkeypatch.setitem(FORMS, "mine", Form("mine", candidates))
    found = tune(64, 64, 900, "cpu")
    assert [option.spec.num_params for option in found.options if option.form == "mine"] == [64 * 6 + 6 * 4 + 4 * 64]


def test_the_table():
    lines = str(tune(768, 3072, 600_000, "gpu-a100", tokens=4096, forms=["low_rank"])).splitlines()
    assert lines[0] == "768 -> 3072 for 4,096 tokens on gpu-a100 in bfloat16, estimated by roofline"
    assert [line.split()[0] for line in lines[1:]] == ["form", "dense", "low_rank"]
    assert "r=128" in lines[-1]  # 156 fits, 64 is the tile
    assert lines[2].endswith("1.00")


BAD = {
    "device": ({"device": "tpu-v9"}, ValueError, r"device is one of .*tpu-v5e.*got 'tpu-v9'"),
    "negative": ({"budget": -5}, ValueError, r"budget is a number of parameters.*2,359,296.*got -5"),
    "nothing": ({"budget": 0}, ValueError, "above 0, got 0"),
    "no number": ({"budget": float("nan")}, ValueError, "got nan"),
    "true": ({"budget": True}, ValueError, "got True"),
    "too small": (
        {"budget": 3000, "forms": ["low_rank"]},
        ValueError,
        "at most 3,000 parameters; the smallest has 3,840",
    ),
    "no tokens": ({"tokens": 0}, ValueError, "at least 1, got 0"),
    "judge": ({"judge": "me"}, ValueError, "judge is one of roofline, compiler, got 'me'"),
    "dtype": ({"dtype": "float64"}, ValueError, "figures for bfloat16, float32, int8, not for 'float64'"),
    "form": ({"forms": ["nice"]}, ValueError, "no form 'nice'"),
    "compiler of another": ({"device": "gpu-a100", "judge": "compiler"}, ValueError, "knows tpu-v2.*not 'gpu-a100'"),
}


@pytest.mark.parametrize(("arguments", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(arguments, kind, message):
    with pytest.raises(kind, match=message):
        tune(**{"in_dim": 768, "out_dim": 3072, "budget": 0.3, "device": "tpu-v5e", **arguments})


def test_the_nearest_budget_can_be_met():
    with pytest.raises(ValueError, match=r"the smallest has 3,840, a budget of 0.00163"):
        tune(768, 3072, 100, "cpu", forms=["low_rank"])
    assert tune(768, 3072, 3840, "cpu", forms=["low_rank"]).best.num_params == 3840


def test_no_form_fits_the_dimensions():
    with pytest.raises(ValueError, match="monarch needs two dimensions that are not prime"):
        tune(7, 11, 0.5, "cpu", forms=["monarch"])


def test_the_compiler_judges_the_last_candidates(monkeypatch):
    """Whom the roofline ranks last among them, the compiler may rank first."""
    asked = []

    def cycles(programs, name):
        asked.extend(programs)
        return [10_000, *range(7_000, 7_000 - len(programs) + 1, -1)]

    monkeypatch.setattr(tpu, "check", lambda name: None)
    monkeypatch.setattr(tpu, "estimated_cycles", cycles)
    by_roofline = tune(768, 3072, 0.3, "tpu-v5e")
    found = tune(768, 3072, 0.3, "tpu-v5e", judge="compiler")
    assert asked[0].specs == (dense_spec(768, 3072),)
    assert [o.spec for o in reversed(found.options)] == [o.spec for o in by_roofline.options[: len(found.options)]]
    assert found.best.speedup(found.dense) == 10_000 / found.best.cycles
    assert "cycles" in str(found)


# -- encoders ----------------------------------------------------------------------------------------

SMALL = tpu.Encoder.dense(128, 512, heads=4, layers=2, batch=4, tokens=32)
BASE = tpu.Encoder.dense(768, 3072, heads=12, layers=12, batch=32, tokens=128)


def test_encoder_parameters():
    """BERT-base has 109,482,240 parameters with embeddings (23,837,184) and pooler (590,592)."""
    assert BASE.num_params == 109_482_240 - 23_837_184 - 590_592
    pair = ec.expand(768, 3072, 6, 128), ec.condense(3072, 768, 6, 128)
    # TN-BERT has no bias after Condense.
    assert BASE.with_maps(feed_forward=pair).num_params == 68_578_560 - 23_837_184 - 590_592 + 12 * 768


@pytest.mark.parametrize("budget", [0.9, 0.5, 0.25, 150_000])
def test_the_best_encoder(budget):
    found = tune_encoder.tune_encoder(SMALL, budget, "tpu-v5e")
    limit = budget * SMALL.num_params if budget < 1 else budget
    assert all(option.num_params <= limit for option in found.options)
    assert found.best.num_params >= tune_encoder.SPEND * limit
    assert [o.seconds for o in found.options] == sorted(o.seconds for o in found.options)
    for option in found.options:
        assert option.program.num_params == option.num_params
        specs = (*option.program.attention, *option.program.feed_forward)
        assert [(s.in_dim, s.out_dim) for s in specs[:4]] == [(128, 128)] * 4
        assert specs[4].out_dim == specs[5].in_dim


def test_bert_base_within_the_parameters_of_tn_bert():
    """By the roofline too, fewer dense hidden units or low rank beat Expand/Condense; widths are whole tiles."""
    best = tune_encoder.tune_encoder(BASE, 44_150_784, "tpu-v5e", forms=["low_rank", "expand_condense"]).best
    assert best.program.feed_forward[0].out_dim % 128 == 0
    assert best.num_params <= 44_150_784


def test_an_encoder_budget_that_nothing_meets():
    with pytest.raises(
        ValueError, match=r"at most 10 parameters in its layers; the smallest that was tried has [\d,]+"
    ):
        tune_encoder.tune_encoder(SMALL, 10, "tpu-v5e", forms=["low_rank"])


def test_every_device_can_be_tuned_for(monkeypatch):
    monkeypatch.setattr("tncompress.hardware.tune.this_machine", lambda: DEVICES["cpu"])
    for name in (*DEVICES, "this"):
        assert tune(256, 512, 0.5, name, forms=["low_rank"]).best.num_params
