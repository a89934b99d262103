"""Recipes against what cards and papers say."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_models.presets import PRESETS
from bert_models.pretraining.recipes import RECIPES, Stage
from bert_models.pretraining.settings import DataSettings

LAMBERT, BERT = RECIPES["lambert"], RECIPES["bert"]


@pytest.mark.parametrize(
    ("found", "stated"),
    [
        # Card of Lambert: "the LAMB optimizer for 200,000 steps with a peak learning rate of 2.5e-3, beta_2=0.99 and a
        # batch size of 8192", "duplicate the training dataset 100 times", FULL-SENTENCES "up to 512 tokens", no NSP.
        ((LAMBERT.optimizer, LAMBERT.total_steps, LAMBERT.peak), ("lamb", 200_000, 2.5e-3)),
        ((LAMBERT.beta_2, LAMBERT.batch_size, LAMBERT.next_sentence), (0.99, 8192, False)),
        ((LAMBERT.stages[0].data.duplicates, LAMBERT.stages[0].data.max_length), (100, 512)),
        (LAMBERT.stages[0].data.packing, "full_sentences"),
        # Devlin et al. 2018, appendix A.2: "batch size of 256 sequences", "1,000,000 steps", "learning rate of 1e-4",
        # betas 0.9 and 0.999, decay 0.01, "warmup over the first 10,000 steps"; 90 % of the steps with 128 tokens.
        ((BERT.batch_size, BERT.total_steps, BERT.peak), (256, 1_000_000, 1e-4)),
        ((BERT.beta_1, BERT.beta_2, BERT.weight_decay, BERT.warmup_steps), (0.9, 0.999, 0.01, 10_000)),
        ([(stage.steps, stage.data.max_length) for stage in BERT.stages], [(900_000, 128), (100_000, 512)]),
        ((BERT.next_sentence, RECIPES["tn_bert"].stated), (True, frozenset())),
        # Card of the small BERTs: "the fine-tuning labels are produced by a larger and more accurate teacher".
        ([stage.labels for stage in RECIPES["small_bert"].after], ["teacher", "task"]),
    ],
)
def test_as_stated(found, stated):
    assert found == stated


@pytest.mark.parametrize("name", RECIPES)
def test_presets_exist_and_stated_fields_too(name):
    recipe = RECIPES[name]
    assert recipe.preset in PRESETS
    assert all(hasattr(recipe, field) for field in recipe.stated)
    assert recipe.source


@given(st.integers(2, 3_000_000))
def test_scaled_keeps_proportions(steps):
    small = BERT.scaled(steps)
    assert abs(small.total_steps - steps) <= 2
    assert small.stages[0].steps == pytest.approx(0.9 * steps, abs=1)
    assert small.warmup_steps == pytest.approx(0.01 * steps, abs=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": ()}, "needs stages of at least one step"),
        ({"optimizer": "sgd"}, "optimizer must be adamw or lamb, got 'sgd'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"stages": (*BERT.stages, Stage(1, DataSettings("full_sentences")))}, "all stages must be of one packing"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(BERT, **fields)


def test_recipes_need_no_keras():
    code = "import sys, bert_models.pretraining.recipes; assert not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
