"""Presets: the cards' parameter counts, their names, and the nearest name for one that does not exist."""

import re

import keras
import pytest

import bert_models
from bert_models import PRESETS, MaskedLM
from bert_models.presets import preset

# Encoder with pooler, and with the masked-LM head besides; measured on TensorFlow Model Garden.
COUNTS = {
    "bert_en_uncased_L-12_H-768_A-12": (109_482_240, 110_104_890),
    "tn_bert": (68_578_560, 69_201_210),  # card: "69M params, or 37% fewer"
    "small_bert/bert_en_uncased_L-12_H-512_A-8": (53_982_720, 54_276_922),
    "talkheads_ggelu_bert_en_base": (137_834_112, 138_456_762),
    "lambert_en_uncased_L-24_H-1024_A-16": (335_141_888, 336_224_058),
    "bert_en_uncased_L-24_H-1024_A-16": (335_141_888, 336_224_058),
}


@pytest.fixture
def unallocated():
    """Models that are built while it lasts have shapes but no numbers."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()  # or Keras would fill the variables when the next such scope ends


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_on_the_card(unallocated, name):
    encoder = bert_models.build(name)
    assert (encoder.count_params(), MaskedLM(encoder).count_params()) == COUNTS[name]


def test_tn_bert_has_37_percent_fewer():
    dense, networked = COUNTS["bert_en_uncased_L-12_H-768_A-12"][0], COUNTS["tn_bert"][0]
    assert round(1 - networked / dense, 4) == 0.3736
    assert PRESETS["tn_bert"].facts["fewer parameters than BERT-base"] == "37%"


def test_small_family_has_24_sizes():
    pattern = re.compile(r"small_bert/bert_en_uncased_L-(\d+)_H-(\d+)_A-(\d+)")
    sizes = {tuple(map(int, found.groups())): item for name, item in PRESETS.items() if (found := pattern.match(name))}
    assert len(sizes) == 24
    for (layers, hidden, heads), item in sizes.items():
        config = item.config
        assert (config.num_layers, config.hidden_size, config.num_heads) == (layers, hidden, heads)
        assert (config.head_size, config.intermediate_size) == (64, 4 * hidden)


@pytest.mark.parametrize("item", PRESETS.values(), ids=PRESETS)
def test_preset_is_an_uncased_bert_with_its_sources(item):
    config = item.config
    assert (config.vocab_size, config.max_positions, config.type_vocab_size) == (30522, 512, 2)
    assert config.activation == "gelu_tanh"  # the first BERT's; the exact one is Hugging Face's
    assert item.card.startswith("https://tfhub.dev/")
    assert item.card.rpartition("/")[0].endswith(item.name)  # then the version
    assert all(re.fullmatch(r"\d{4}\.\d{5}", paper) for paper in item.papers)


@pytest.mark.parametrize(
    "name", ["tn_bert", "tn_bert/1", "google/tn_bert/1", "google/tn_bert", "https://tfhub.dev/google/tn_bert/1"]
)
def test_publisher_and_version_do_not_matter(name):
    assert preset(name) is PRESETS["tn_bert"]


def test_overrides_change_the_config_only():
    encoder = bert_models.build("talkheads_ggelu_bert_en_base", num_layers=1, hidden_size=8, num_heads=2, vocab_size=9)
    assert (encoder.config.num_layers, encoder.config.intermediate_size, encoder.config.gated) == (1, 32, True)
    assert PRESETS["talkheads_ggelu_bert_en_base"].config.num_layers == 12


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"name": "tnbert"}, ValueError, ["'tnbert'", "nearest is tn_bert", "PRESETS"]),
        ({"name": "lambert"}, ValueError, ["'lambert'", "lambert_en_uncased_L-24_H-1024_A-16"]),
        ({"name": "talkheads"}, ValueError, ["talkheads_ggelu_bert_en_base"]),
        ({"name": "bert_en_uncased_L-12_H-512_A-8"}, ValueError, ["small_bert/bert_en_uncased_L-12_H-512_A-8"]),
        ({"name": "xyzzy"}, ValueError, ["'xyzzy'", "none is near", "PRESETS", "29"]),
        ({"name": None}, TypeError, ["string", "NoneType", "PRESETS"]),
        ({"name": "tn_bert", "layers": 2}, ValueError, ["'layers'", "num_layers"]),
        ({"name": "tn_bert", "hidden_size": 300, "num_heads": 3}, ValueError, ["128", "300", "150"]),
        ({"name": "tn_bert", "hidden_size": 509, "num_heads": 1}, ValueError, ["128", "509", "no block size of use"]),
    ],
)
def test_bad_name_is_refused_with_the_nearest(arguments, kind, words):
    with pytest.raises(kind) as caught:
        bert_models.build(**arguments)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_name_in_the_place_of_a_config_is_refused():
    for function in (bert_models.build_encoder, bert_models.param_counts):
        with pytest.raises(TypeError, match="BertConfig, got 'tn_bert'"):
            function("tn_bert")
    with pytest.raises(TypeError, match="seq_length must be a whole number"):
        bert_models.flops_per_token(PRESETS["tn_bert"].config, 128.0)
