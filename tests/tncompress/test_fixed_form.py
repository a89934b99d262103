"""`replace_dense` with a `Form` in place of a name: an exact structure, whatever the budget leaves."""

import keras
import numpy as np
import pytest
from keras import layers
from models import largest_difference, outputs_of

from tncompress import find_sites, load, replace_dense, report
from tncompress.fitting.allocate import smallest_params
from tncompress.forms import expand_condense, low_rank
from tncompress.forms.form import Form

WIDTH, BLOCK = 16, 4
EXPAND = [(WIDTH, WIDTH // BLOCK, BLOCK), (BLOCK, 4 * BLOCK)]
CONDENSE = [(4 * BLOCK, BLOCK), (WIDTH // BLOCK, BLOCK, WIDTH)]
PARAMS = 2 * (WIDTH * WIDTH + 4 * BLOCK * BLOCK)
FORM = expand_condense.form(blocks=WIDTH // BLOCK, bond=BLOCK)


def pair():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((WIDTH,)), layers.Dense(4 * WIDTH, "gelu", name="expand"), layers.Dense(WIDTH, name="condense")],
        name="pair",
    )


@pytest.mark.parametrize(
    ("dims", "blocks", "bond", "shapes", "params"),
    [
        ((384, 1536), 6, 64, [(384, 6, 64), (64, 256)], 163_840),  # MiniLM
        ((1536, 384), 6, 64, [(256, 64), (6, 64, 384)], 163_840),
        ((768, 3072), 6, 128, [(768, 6, 128), (128, 512)], 655_360),  # TN-BERT
        ((3072, 768), 6, 128, [(512, 128), (6, 128, 768)], 655_360),
        ((384, 1536), 2, 106, [(384, 2, 106), (106, 768)], 162_816),
    ],
)
def test_the_structure_is_the_one_asked_for(dims, blocks, bond, shapes, params):
    form = expand_condense.form(blocks, bond)
    for budget in (params, dims[0] * dims[1]):
        [spec] = form.candidates(*dims, budget)
        assert [list(spec.core_shapes), spec.num_params] == [shapes, params]
    assert list(form.candidates(*dims, params - 1)) == []
    assert smallest_params([form], *dims) == params


@pytest.mark.parametrize("keep", [0.4, 0.5, 1.0])
def test_keep_is_only_a_limit(keep):
    small = replace_dense(pair(), keep, form=FORM)
    assert [core.shape for core in small.get_layer("expand").cores] == EXPAND
    assert [core.shape for core in small.get_layer("condense").cores] == CONDENSE
    assert sum(row.params_after for row in report(small).replaced) == PARAMS
    np.testing.assert_array_equal(small.get_layer("condense").bias.shape, (WIDTH,))


def test_the_fraction_that_is_needed_is_named():
    needed = PARAMS / (2 * 4 * WIDTH * WIDTH)  # 0.3125
    with pytest.raises(ValueError, match=r"keeps 640 of the chosen kernels' 2,048 .* than keep=0.3; give keep=0.313"):
        replace_dense(pair(), 0.3, form=FORM)
    replace_dense(pair(), needed, form=FORM)


def test_kernels_that_the_structure_does_not_fit_stay_dense():
    model = keras.Sequential([keras.Input((WIDTH,)), layers.Dense(64, name="wide"), layers.Dense(1, name="head")])
    rows = report(replace_dense(model, form=FORM)).rows
    assert [row.form for row in rows] == ["expand_condense", None]
    assert rows[1].reason == "no expand_condense network of 64x1 is smaller than dense"
    with pytest.raises(ValueError, match="needs a wide side that 5 divides"):
        replace_dense(pair(), form=expand_condense.form(blocks=5, bond=1))


def test_blocks_alone_take_the_largest_bond_within_the_budget():
    small = replace_dense(pair(), 0.5, form=expand_condense.form(blocks=2))
    rows = report(small).rows
    assert {row.sizes for row in rows} == {"c=2, d=8, e=32, i=16", "c=2, d=8, e=32, o=16"}
    assert report(replace_dense(pair(), 1.0, form=expand_condense.form(blocks=2))).replaced == ()


def test_recipe_and_file(tmp_path):
    model = pair()
    small = replace_dense(model, form=FORM)
    recipe = report(small).recipe
    assert recipe["expand"]["form"] == "expand_condense"
    assert report(replace_dense(model, recipe=recipe)).recipe == recipe
    small.save(tmp_path / "small.keras")
    again = load(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(3, WIDTH)).astype("float32")
    assert largest_difference(outputs_of(again, x), outputs_of(small, x)) == 0.0
    assert report(again).to_json() == report(small).to_json()


def test_a_form_need_not_be_registered():
    """Its own closed form is used, and a name stands for it in the report."""

    def rank_one(in_dim, out_dim, max_params):
        if in_dim + out_dim <= max_params:
            yield low_rank.spec(in_dim, out_dim, 1)

    form = Form("zero", rank_one, lambda kernel, spec: [np.zeros(shape) for shape in spec.core_shapes], optimal=True)
    small = replace_dense(pair(), 0.9, form=form, include="expand")
    assert report(small).rows[0].form == "zero"
    assert not np.any(small.get_layer("expand").to_dense())


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_dense_encoder_becomes_one_of_expand_and_condense(calibrated):
    """blocks = hidden / block, bond = block: TN-BERT's cores in every block, and the output bias that TN-BERT lacks."""
    bert_models = pytest.importorskip("bert_models")
    config = bert_models.BertConfig(
        vocab_size=30, hidden_size=WIDTH, num_layers=2, num_heads=2, intermediate_size=4 * WIDTH, max_positions=12
    )
    encoder = bert_models.build_encoder(config)
    ids = np.random.default_rng(0).integers(1, 30, (20, 8)).astype("int32")
    batch = {"input_word_ids": ids, "input_mask": np.ones_like(ids), "input_type_ids": np.zeros_like(ids)}
    how = {"calibration": [batch], "objective": "sequence_output"} if calibrated else {}
    small = replace_dense(encoder, form=FORM, include="feed_forward", **how)
    blocks = [layer for layer in small.layers if layer.name.startswith("block_")]
    assert len(blocks) == 2
    for block in blocks:
        assert [core.shape for core in block.feed_forward.intermediate.cores] == EXPAND
        assert [core.shape for core in block.feed_forward.output_dense.cores] == CONDENSE
        assert block.feed_forward.output_dense.bias.shape == (WIDTH,)
    dense = sum(site.num_params for site in find_sites(encoder, "feed_forward") if not site.reason)
    assert encoder.count_params() - small.count_params() == dense - 2 * PARAMS


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: expand_condense.form(blocks=0), ValueError, "blocks must be a positive int, got 0"),
        (lambda: expand_condense.form(blocks=2, bond=1.5), ValueError, "bond must be a positive int, got 1.5"),
        (lambda: expand_condense.form(blocks=True), ValueError, "blocks must be a positive int, got True"),
        (lambda: replace_dense(pair(), form=[FORM, "low_rank"]), ValueError, "give it alone, not among expand_cond"),
        (lambda: replace_dense(pair(), form=[FORM, 3]), TypeError, "name of a factorisation or a Form, or several"),
    ],
    ids=["blocks", "bond", "bool", "several", "number"],
)
def test_bad_arguments(call, error, words):
    with pytest.raises(error, match=words):
        call()
