"""The four cards' encoders against numbers that TensorFlow Model Garden computed once (tests/data/make_golden.py)."""

from pathlib import Path

import numpy as np
import pytest
from oracles_model_garden import FEATURES, SMALL, outputs_by_rule, rule_weight

from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME
from bert_models.presets import preset

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("name", SMALL)
def test_encoder_equals_the_golden_outputs(name):
    with np.load(DATA / f"golden_{name.split('/')[0]}.npz", allow_pickle=False) as file:
        golden = dict(file)
    batch = {key: golden[key] for key in (*INPUT_NAMES, POSITIONS_NAME)}
    found = outputs_by_rule(preset(name).config_with(**SMALL[name]), batch, float(golden["stddev"]))
    np.testing.assert_array_equal(found["sequence_output"], found["encoder_outputs"][-1])
    for key in ("encoder_outputs", "pooled_output"):
        np.testing.assert_allclose(found[key][..., FEATURES], golden[key], atol=1e-5, rtol=0, err_msg=key)
    np.testing.assert_allclose(found["mlm_logits"], golden["mlm_logits"], atol=1e-5, rtol=0)


def test_rule_is_the_one_of_the_files():
    # SplitMix64 by Python's integers, which have no overflow that could differ.
    state = (0x9E3779B97F4A7C15 * ((0x0EE18579 << 32) + 1)) % 2**64  # CRC-32 of the path
    z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    first = (z >> 40) / 2**23 - 1
    assert rule_weight("pooler/bias", (3,))[0] == first / 8
    assert rule_weight("pooler/kernel", (40, 50), 0.1).std() == pytest.approx(0.1, rel=0.03)
