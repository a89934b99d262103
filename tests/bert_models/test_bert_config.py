"""The configuration value and the import that stays light."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

import bert_models
from bert_models import BertConfig
from bert_models.checkpoints.config_json import ACTIVATIONS, bert_config


def test_config_survives_json():
    config = BertConfig(hidden_size=32, num_heads=4, activation="relu", hidden_dropout=0.0)
    assert BertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        BertConfig().hidden_size = 5


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"hidden_size": 10, "num_heads": 4}, ValueError, ["10", "4 heads", "divides"]),
        ({"num_layers": 0}, ValueError, ["num_layers", "at least 1", "0"]),
        ({"vocab_size": "30522"}, TypeError, ["vocab_size", "whole number", "'30522'"]),
        ({"vocab_size": True}, TypeError, ["vocab_size", "whole number"]),
        ({"hidden_dropout": 1.0}, ValueError, ["hidden_dropout", "less than 1"]),
        ({"layer_norm_epsilon": None}, TypeError, ["layer_norm_epsilon", "number", "None"]),
        ({"activation": "swish"}, ValueError, ["gelu_tanh", "'swish'"]),
    ],
)
def test_bad_config_is_refused_in_one_sentence(change, kind, words):
    with pytest.raises(kind) as caught:
        replace(BertConfig(), **change)
    assert all(word in str(caught.value) for word in words), caught.value


def test_unknown_field_is_named():
    with pytest.raises(ValueError, match=r"'hiden_size'.*fields are vocab_size"):
        BertConfig.from_dict({"hiden_size": 3})


@pytest.mark.parametrize(("theirs", "ours"), ACTIVATIONS.items())
def test_hugging_face_gelu_is_exact_and_its_tanh_forms_are_not(theirs, ours):
    assert bert_config({"model_type": "bert", "hidden_act": theirs}).activation == ours
    assert (ours == "gelu") == (theirs == "gelu")


def test_import_is_light():
    heavy = "['keras', 'tensorflow', 'jax', 'torch', 'tokenizers']"
    code = f"import bert_models, sys; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names_are_there():
    assert set(bert_models.__all__) <= set(dir(bert_models))
    assert all(getattr(bert_models, name) is not None for name in bert_models.__all__)
    with pytest.raises(AttributeError, match="no 'lode'"):
        bert_models.lode  # noqa: B018 - the access is what is tested
