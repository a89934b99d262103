"""Blocks against their formulas in loops; every kind trains, saves, and starts with the variance of a dense one."""

import itertools

import keras
import numpy as np
import pytest
from encoders import CARDS, KINDS, batch_of, config_of, encoder_of, outputs_of
from keras import ops

from bert_models import BertConfig, ExpandCondense, LowRank, Networks, build_encoder
from bert_models.blocks.attention import TalkingHeadsAttention
from bert_models.blocks.feed_forward import FeedForward
from bert_models.kinds import DenseMaps
from tncompress.forms import kronecker, tt_matrix

# JAX has no float64 unless it is told so; TensorFlow rounds a constant of GELU to float32 even in float64.
FLOAT, TOLERANCE = ("float32", 1e-4) if keras.backend.backend() == "jax" else ("float64", 1e-8)
GELU = {
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
}


def arrays_of(layer):
    """Path within the layer -> float64 array, for every trainable weight; all of them normal noise from here on."""
    draw = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign(draw.normal(0, 0.5, variable.shape))
    inside = layer.path + "/"
    return {v.path.removeprefix(inside): ops.convert_to_numpy(v) for v in layer.trainable_variables}


# --- talking heads


def talking_heads_by_loops(w, query, value, mask, sizes):
    """One output vector at a time. sizes: h, h_k, h_v; mask [B, T, S] of truth values."""
    heads, key_heads, value_heads = sizes
    (batch, queries, _), keys = query.shape, value.shape[1]
    y = np.tile(w["attention_output/bias"], (batch, queries, 1)).astype(float)
    for b, t in itertools.product(range(batch), range(queries)):
        scores = np.zeros((key_heads, keys))
        for n, s in np.ndindex(key_heads, keys):
            q = query[b, t] @ w["query/kernel"][:, n] + w["query/bias"][n]
            k = value[b, s] @ w["key/kernel"][:, n] + w["key/bias"][n]
            scores[n, s] = sum(q * k) / len(q) ** 0.5
        probabilities = np.zeros((heads, keys))
        for m in range(heads):
            mixed = [sum(scores[n, s] * w["pre_softmax"][n, m] for n in range(key_heads)) for s in range(keys)]
            weights = np.exp(mixed) * mask[b, t]
            probabilities[m] = weights / weights.sum()
        for v, s in np.ndindex(value_heads, keys):
            weight = sum(probabilities[m, s] * w["post_softmax"][m, v] for m in range(heads))
            seen = value[b, s] @ w["value/kernel"][:, v] + w["value/bias"][v]
            y[b, t] += weight * (seen @ w["attention_output/kernel"][v])
    return y


@pytest.mark.parametrize("masked", ["no mask", "one mask for all queries", "a mask for each query"])
@pytest.mark.parametrize("sizes", [(3, 2, 4), (2, 2, 2), (1, 3, 1)], ids=str)
def test_talking_heads_are_the_formula(sizes, masked):
    heads, key_heads, value_heads = sizes
    draw = np.random.default_rng(1)
    query, value = draw.normal(size=(2, 3, 6)), draw.normal(size=(2, 4, 6))
    mask = draw.random((2, {"one mask for all queries": 1}.get(masked, 3), 4)) < 0.6
    mask[..., 1] = True  # every query sees something
    layer = TalkingHeadsAttention(heads, 5, key_heads, value_heads, dtype=FLOAT, name="attention")
    layer.build(query.shape, value.shape)
    weights = arrays_of(layer)
    given = None if masked == "no mask" else mask
    seen = np.ones((2, 3, 4)) if given is None else np.broadcast_to(mask, (2, 3, 4))
    expected = talking_heads_by_loops(weights, query, value, seen, sizes)
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(query, value, attention_mask=given)), expected, atol=TOLERANCE
    )


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")  # of one token
def test_talking_heads_drop_weights_after_both_mixings():
    layer = TalkingHeadsAttention(num_heads=2, head_size=1, value_heads=3, dropout=0.5)
    x = np.ones((40, 1, 3), "float32")  # one token: its probability is 1 in every head
    layer.build(x.shape)
    layer.post_softmax.assign([[1.0, 2.0, 4.0], [0.5, 0.25, 8.0]])
    layer.value.kernel.assign(np.ones((3, 3, 1)) / 3)
    layer.attention_output.kernel.assign(np.eye(3)[:, None])
    y = ops.convert_to_numpy(layer(x, x, training=True))[:, 0]
    for column, whole in zip(y.T, (1.5, 2.25, 12.0), strict=True):
        assert set(np.round(column, 4).tolist()) == {0.0, 2 * whole}


def test_talking_heads_start_as_calm_as_ordinary_heads():
    keras.utils.set_random_seed(0)
    layer = TalkingHeadsAttention(num_heads=64, head_size=2, key_heads=48, value_heads=32)
    layer.build((None, None, 8))
    # The mixings keep the variance of what they mix; the sampling error of 64 * 32 numbers squared is 3 %.
    for matrix in (layer.pre_softmax, layer.post_softmax):
        assert np.mean(np.sum(np.square(matrix), axis=0)) == pytest.approx(1, rel=0.1)


# --- feed-forward


def feed_forward(kind, x, **changes):
    """The layer of that kind, its arrays by name, and what it makes of x in float64."""
    layer = FeedForward(config_of(kind, **changes), dtype=FLOAT, name="feed_forward")
    layer.build(x.shape)
    weights = arrays_of(layer)
    return weights, ops.convert_to_numpy(layer(x))


@pytest.mark.parametrize("activation", GELU)
def test_gate_is_linear_and_its_partner_activated(activation):
    x = np.random.default_rng(1).normal(size=(2, 3, 8))
    w, found = feed_forward("talkheads_ggelu", x, activation=activation)
    activated = GELU[activation](x @ w["intermediate/kernel"] + w["intermediate/bias"])
    wide = activated * (x @ w["gate/kernel"] + w["gate/bias"])
    expected = wide @ w["output_dense/kernel"] + w["output_dense/bias"]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize("output_bias", [False, True])
@pytest.mark.parametrize(("block_size", "multiplier"), [(4, 4), (2, 3), (8, 1)])
def test_expand_condense_is_the_formula(block_size, multiplier, output_bias):
    x = np.random.default_rng(1).normal(size=(2, 3, 8))
    maps = ExpandCondense(block_size, multiplier)
    w, found = feed_forward("tn_bert", x, feed_forward=maps, output_bias=output_bias)
    wide = block_size * multiplier
    expected = np.zeros_like(x)
    for block in range(8 // block_size):
        narrow = np.zeros((2, 3, block_size))
        for i, d in np.ndindex(8, block_size):
            narrow[..., d] += x[..., i] * w["intermediate/core_0"][i, block, d]
        bias = w["intermediate/bias"][block * wide : (block + 1) * wide]
        hidden = GELU["gelu_tanh"](narrow @ w["intermediate/core_1"] + bias)  # the core is shared by all blocks
        narrow = hidden @ w["output_dense/core_0"]  # likewise
        expected += narrow @ w["output_dense/core_1"][block]
    if output_bias:
        expected += w["output_dense/bias"]
    assert ("output_dense/bias" in w) == output_bias
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


# Kernels of width 256, wide enough for the sampling error of the smallest core, 2 / sqrt(2 * 32 * 32), to stay at 5 %.
WIDE_KINDS = {
    "Expand/Condense": ExpandCondense(block_size=128),
    "Expand/Condense, small blocks": ExpandCondense(block_size=32),
    "low rank": LowRank(rank=40),
    "Kronecker": Networks(kronecker.spec((16, 16), (32, 32), 3), kronecker.spec((32, 32), (16, 16), 3)),
    "tensor train": Networks(tt_matrix.spec((16, 16), (32, 32), 9), tt_matrix.spec((32, 32), (16, 16), 9)),
}


@pytest.mark.parametrize("maps", WIDE_KINDS.values(), ids=WIDE_KINDS)
def test_networks_start_with_the_variance_of_dense_kernels(maps):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(300, 256)).astype("float32")
    deviations = {}
    for name, kind in {"dense": DenseMaps(), "network": maps}.items():
        layer = FeedForward(BertConfig(hidden_size=256, num_heads=4, feed_forward=kind))
        layer.build(x.shape)
        wide = layer.intermediate(x)
        deviations[name] = [ops.convert_to_numpy(y).std() for y in (wide, layer.output_dense(wide), layer(x))]
    np.testing.assert_allclose(deviations["network"], deviations["dense"], rtol=0.1)


# --- every kind


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_weights_start_alike(kind):
    # An initializer that two layers share would give both the same numbers.
    starts = {v.path: ops.convert_to_numpy(v).ravel() for v in build_encoder(config_of(kind)).trainable_variables}
    drawn = {path: x for path, x in starts.items() if np.ptp(x) > 0}
    alike = [
        p for p, q in itertools.combinations(drawn, 2) if drawn[p].size == drawn[q].size and drawn[p][0] == drawn[q][0]
    ]
    assert alike == []


@pytest.mark.parametrize("kind", KINDS)
def test_keras_file_gives_the_same_numbers(kind, tmp_path):
    encoder, batch = encoder_of(kind), batch_of([3, 5], 5)
    encoder.save(tmp_path / "encoder.keras")
    again = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    assert again.config == encoder.config == BertConfig.from_dict(encoder.config.to_dict())
    for before, after in zip(outputs_of(encoder, batch), outputs_of(again, batch), strict=True):
        np.testing.assert_array_equal(before, after)


def still_after_training(encoder, steps):
    """Paths of the weights that some steps with Adam left where they were."""
    before = [ops.convert_to_numpy(v) for v in encoder.trainable_variables]
    head = keras.Model(encoder.input, ops.sum(ops.cast(encoder.output["pooled_output"], "float32"), axis=-1))
    head.compile("adam", "mse", run_eagerly=keras.backend.backend() != "jax")
    for _ in range(steps):
        loss = head.train_on_batch(batch_of([3, 5, 9], 9), np.ones(3, "float32"))
    assert np.isfinite(loss)
    after = [ops.convert_to_numpy(v) for v in encoder.trainable_variables]
    assert all(np.isfinite(array).all() for array in after)
    paths = [v.path for v in encoder.trainable_variables]
    # Attention scores do not change when one number is added to all keys of a head.
    paired = zip(paths, before, after, strict=True)
    return [p for p, old, new in paired if np.array_equal(old, new) and not p.endswith("attention/key/bias")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_moves_every_weight(kind):
    assert still_after_training(encoder_of(kind, num_layers=1), steps=1) == []


@pytest.mark.parametrize(("policy", "half"), [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")])
@pytest.mark.parametrize("kind", CARDS)
def test_mixed_precision_trains_and_keeps_states_in_float32(kind, policy, half):
    encoder = encoder_of(kind, num_layers=1, dtype=policy)
    outputs = encoder(batch_of([3, 0], 5))
    kinds = {name: keras.backend.standardize_dtype(x.dtype) for name, x in outputs.items() if name != "encoder_outputs"}
    assert kinds == {"sequence_output": "float32", "pooled_output": half}
    assert np.isfinite(ops.convert_to_numpy(outputs["sequence_output"])).all()
    assert {keras.backend.standardize_dtype(v.dtype) for v in encoder.trainable_variables} == {"float32"}
    assert still_after_training(encoder, steps=3) == []


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_is_near_float32(kind, policy):
    batch = batch_of([4, 7], 7)
    exact = outputs_of(encoder_of(kind), batch)
    half = outputs_of(encoder_of(kind, dtype=policy), batch)
    # Two blocks of some five roundings each, of numbers of about 1; bfloat16 has 8 bits, float16 has 11.
    allowed = 16 * 2.0 ** (-8 if policy == "mixed_bfloat16" else -11)
    for one, other in zip(exact, half, strict=True):
        assert np.sqrt(np.mean((one - other.astype("float32")) ** 2)) < allowed


@pytest.mark.parametrize("kind", CARDS)
def test_dropout_is_where_the_rates_say(kind):
    batch = batch_of([4, 7], 7)
    for rates, changes in {(0.0, 0.0): False, (0.5, 0.0): True, (0.0, 0.5): True}.items():
        encoder = encoder_of(kind, hidden_dropout=rates[0], attention_dropout=rates[1])
        trained = ops.convert_to_numpy(encoder(batch, training=True)["sequence_output"])
        used = ops.convert_to_numpy(encoder(batch, training=False)["sequence_output"])
        assert (np.abs(trained - used).max() > 0.01) == changes
