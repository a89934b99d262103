"""The four cards' encoders against TensorFlow Model Garden itself, with the same weights, on real token ids.

Rows of padding alone are not compared: there Model Garden attends to everything alike, and Keras 3 to nothing.
"""

from importlib.util import find_spec

import numpy as np
import pytest
from keras import ops
from oracles_model_garden import (
    CORE_BOND,
    SMALL,
    TYPICAL,
    apply_rule,
    model_garden_expand_condense,
    model_garden_outputs,
    outputs_by_rule,
)

from bert_models import BertConfig, ExpandCondense
from bert_models.blocks.feed_forward import FeedForward
from bert_models.presets import preset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("official") is None, reason="pip install --no-deps tf-models-official, and tf-keras"),
]

SENTENCES = [
    "A cat sat on the mat, and nobody knew why it had come.",
    "Tensor networks compress weights.",
    "Why?",
    "The unbelievably long antidisestablishmentarianism was tokenised into pieces.",
]
ANSWERS = ["It was warm there.", "Penrose drew them in 1971; physicists followed.", "", "So was this one!"]
VOCABULARY = {"vocab_size": 30522, "max_positions": 512}  # of the tokenizer


@pytest.fixture(scope="module")
def batch(minilm_tokenizer):
    arrays = minilm_tokenizer(SENTENCES, pairs=ANSWERS)
    wider = {name: np.pad(array, ((0, 0), (0, 3))) for name, array in arrays.items()}  # the longest row is padded too
    lengths = wider["input_mask"].sum(axis=1)
    positions = np.stack([lengths // 3, lengths - 2, 0 * lengths], axis=1).astype("int32")
    return {**wider, "masked_lm_positions": positions}


def test_batch_has_what_could_go_wrong(batch):
    assert batch["input_type_ids"].any(axis=1).all()
    assert len(set(batch["input_mask"].sum(axis=1).tolist())) == len(SENTENCES)
    assert batch["input_word_ids"].max() > 20_000


@pytest.mark.parametrize("sizes", ["small", "full"])
@pytest.mark.parametrize("name", SMALL)
def test_encoder_equals_model_garden(batch, name, sizes):
    config = preset(name).config_with(**{**SMALL[name], **VOCABULARY} if sizes == "small" else {})
    expected = model_garden_outputs(config, batch)
    found = outputs_by_rule(config, batch)
    assert set(found) == set(expected) == {"sequence_output", "pooled_output", "encoder_outputs", "mlm_logits"}
    for key, values in expected.items():
        assert values.std() > 0.1
        np.testing.assert_allclose(found[key], values, atol=1e-5, rtol=0, err_msg=key)


# Kernels with the entries of trained ones, in float64, for in float32 no two orders of summation agree to 1e-6 of
# outputs that reach 4; then in float32, with every core as the original starts it, standard deviation 0.02.
EXPAND_CONDENSE = {"float64": (TYPICAL, 1e-12), "float32": (0.02**2 * CORE_BOND**0.5, 1e-6)}


@pytest.mark.parametrize("dtype", EXPAND_CONDENSE)
@pytest.mark.parametrize(("hidden_size", "multiplier"), [(256, 2), (768, 4), (1024, 6)])
def test_expand_condense_equals_model_garden(hidden_size, multiplier, dtype):
    stddev, tolerance = EXPAND_CONDENSE[dtype]
    x = np.random.default_rng(0).normal(size=(2, 5, hidden_size)).astype(dtype)
    maps = ExpandCondense(multiplier=multiplier)
    config = BertConfig(
        hidden_size=hidden_size, num_heads=1, activation="gelu_tanh", feed_forward=maps, output_bias=False
    )
    layer = FeedForward(config, dtype=dtype, name="feed_forward")
    layer.build(x.shape)
    apply_rule(layer, stddev)
    expected = model_garden_expand_condense(x, multiplier, stddev)
    assert expected.std() > 1e3 * tolerance
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, atol=tolerance, rtol=0)
