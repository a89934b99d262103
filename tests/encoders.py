"""Small encoders of every kind, with random weights and inputs, for whoever tests what stands on them."""

from typing import Any

import keras
import numpy as np
from keras import ops

from bert_models import BertConfig, ExpandCondense, LowRank, MaskedLM, Networks, TalkingHeads, build_encoder
from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME
from tncompress.forms import kronecker

# The kinds of the cards (lambert and small_bert are "dense"), then combinations that nobody has a card for.
CARDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "tn_bert": {"feed_forward": ExpandCondense(block_size=4), "output_bias": False},
    "talkheads_ggelu": {"attention": TalkingHeads(), "gated": True},
}
KINDS: dict[str, dict[str, Any]] = {
    **CARDS,
    "talking heads of three sizes": {"attention": TalkingHeads(key_heads=1, value_heads=3)},
    "talking heads, Expand/Condense": {"attention": TalkingHeads(), "feed_forward": ExpandCondense(2, multiplier=3)},
    "gated, low rank": {"gated": True, "feed_forward": LowRank(rank=3)},
    "gated, Expand/Condense": {"gated": True, "feed_forward": ExpandCondense(block_size=4, multiplier=2)},
    "networks": {
        "feed_forward": Networks(kronecker.spec((2, 4), (3, 5)), kronecker.spec((3, 5), (2, 4))),
        "activation": "relu",
    },
}


def config_of(kind: str, **changes: Any) -> BertConfig:
    """The small config of that kind."""
    sizes = {"vocab_size": 14, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "max_positions": 20}
    return BertConfig(**{**sizes, "activation": "gelu_tanh", **KINDS[kind], **changes})


def encoder_of(kind: str, *, dtype: Any = None, **changes: Any) -> keras.Model:
    """An encoder of that kind; every weight is noise, biases and norms too."""
    return randomised(build_encoder(config_of(kind, **changes), dtype=dtype))


def masked_lm_of(kind: str, *, dtype: Any = None, **changes: Any) -> MaskedLM:
    """A masked-LM model on such an encoder."""
    return randomised(MaskedLM(build_encoder(config_of(kind, **changes), dtype=dtype)))


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with normal noise as its weights, the same for every model of that structure."""
    draw = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        noise = draw.normal(0, 0.4, variable.shape)
        variable.assign(1 + noise / 2 if variable.name == "gamma" else noise)
    return model


def batch_of(lengths, longest: int, vocab_size: int = 14, seed: int = 0) -> dict[str, np.ndarray]:
    """A dict of int32 [B, longest] with random ids and types, and rows of the given lengths."""
    draw = np.random.default_rng(seed)
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype("int32")
    ids = draw.integers(5, vocab_size, mask.shape).astype("int32")
    types = draw.integers(0, 2, mask.shape).astype("int32")
    return dict(zip(INPUT_NAMES, (ids * mask, mask, types * mask), strict=True))


def with_positions(batch: dict[str, np.ndarray], count: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """The batch with `masked_lm_positions`, int32 [B, count], anywhere in the rows."""
    rows, longest = batch["input_mask"].shape
    positions = np.random.default_rng(seed).integers(0, longest, (rows, count)).astype("int32")
    return {**batch, POSITIONS_NAME: positions}


def outputs_of(model: keras.Model, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs as one flat list of arrays."""
    return [ops.convert_to_numpy(x) for x in keras.tree.flatten(model(batch, training=False))]
