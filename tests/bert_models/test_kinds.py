"""Kinds of attention and feed-forward maps as values: what is refused, what is suggested, what they build."""

import numpy as np
import pytest
from encoders import KINDS, config_of

from bert_models import BertConfig, ExpandCondense, LowRank, Networks, TalkingHeads, build_encoder
from bert_models.blocks.feed_forward import FeedForward
from bert_models.kinds import DenseMaps, MultiHead, attention_from_dict, feed_forward_from_dict, nearest_divisor
from tncompress.forms import kronecker


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: ExpandCondense(block_size=0), ValueError, ["block_size", "at least 1", "0"]),
        (lambda: ExpandCondense(multiplier=2.0), ValueError, ["multiplier", "whole number", "2.0"]),
        (lambda: LowRank(rank=True), ValueError, ["rank", "whole number", "True"]),
        (lambda: TalkingHeads(key_heads=-1), ValueError, ["key_heads", "at least 1", "-1"]),
        (lambda: config_of("dense", attention="talking"), TypeError, ["attention", "TalkingHeads(...)", "'talking'"]),
        (lambda: config_of("dense", feed_forward=LowRank), TypeError, ["feed_forward", "LowRank(...)"]),
        (lambda: config_of("dense", gated=1), TypeError, ["gated", "True or False", "1"]),
        (
            lambda: BertConfig(hidden_size=300, feed_forward=ExpandCondense()),
            ValueError,
            ["block_size 128", "hidden_size 300", "nearest", "150"],
        ),
        (
            lambda: BertConfig(intermediate_size=1536, feed_forward=ExpandCondense()),
            ValueError,
            ["intermediate_size 1536", "multiplier 4", "768"],
        ),
        (
            lambda: config_of("networks", intermediate_size=16),
            ValueError,
            ["widen", "8 features to 16", "8 to 15"],
        ),
        (
            lambda: config_of("dense", feed_forward=Networks(*[kronecker.spec((2, 4), (3, 5))] * 2)),
            ValueError,
            ["narrow", "15 features to 8", "8 to 15"],
        ),
        (lambda: config_of("dense", hidden_size=9), ValueError, ["9", "2 heads", "divides"]),
        (lambda: attention_from_dict({"kind": "none"}), ValueError, ["multi_head, talking_heads", "'none'"]),
        (lambda: feed_forward_from_dict({}), ValueError, ["expand_condense", "None"]),
    ],
)
def test_bad_kind_is_refused_in_one_sentence(make, kind, words):
    with pytest.raises(kind) as caught:
        make()
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(("hidden", "block"), [(300, 150), (312, 104), (384, 128), (7, 7), (1000, 125)])
def test_suggested_block_builds(hidden, block):
    assert nearest_divisor(hidden, 128) == block
    layer = FeedForward(BertConfig(hidden_size=hidden, num_heads=1, feed_forward=ExpandCondense(block)))
    assert layer(np.ones((1, 2, hidden), "float32")).shape == (1, 2, hidden)


def test_kinds_are_in_no_way_a_name_of_a_model():
    # Two configs that are equal build equal structures, whatever preset they were taken from.
    config = config_of("dense", attention=MultiHead(), feed_forward=DenseMaps())
    assert config == config_of("dense")
    encoders = [
        build_encoder(config_of("talkheads_ggelu")),
        build_encoder(config_of("dense", **KINDS["talkheads_ggelu"])),
    ]
    paths = [[(v.path, tuple(v.shape)) for v in encoder.trainable_variables] for encoder in encoders]
    assert paths[0] == paths[1]
