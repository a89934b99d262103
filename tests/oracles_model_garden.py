"""TensorFlow Model Garden's encoders as an independent truth, and weights by a rule that any process can repeat.

Model Garden is loaded when an encoder of its kind is built, not before: the rule serves without it too.
"""

import re
import zlib

import keras
import numpy as np
from keras import ops

from bert_models import BertConfig, MaskedLM, build_encoder
from bert_models.kinds import ExpandCondense, TalkingHeads

# The four cards' kinds at sizes that a test can afford; Expand/Condense needs more than one block of 128.
_ALL = {"vocab_size": 50, "num_layers": 2, "max_positions": 16}
SMALL = {
    "tn_bert": {**_ALL, "hidden_size": 256, "num_heads": 4},
    "small_bert/bert_en_uncased_L-12_H-512_A-8": {**_ALL, "hidden_size": 128, "num_heads": 2},
    "talkheads_ggelu_bert_en_base": {**_ALL, "hidden_size": 128, "num_heads": 4},
    "lambert_en_uncased_L-24_H-1024_A-16": {**_ALL, "hidden_size": 192, "num_heads": 3, "num_layers": 3},
}
FEATURES = slice(None, None, 5)  # of the hidden states, what the golden files keep: some of every head and block

TYPICAL = 0.02  # standard deviation of trained kernels, about
CORE_BOND = 128  # bond of the two cores that make one kernel of TN-BERT


def rule_weight(path: str, shape: tuple[int, ...], stddev: float = TYPICAL) -> np.ndarray:
    """The float32 array of that shape which the name of a weight stands for.

    Uniform numbers from SplitMix64, a counter-based generator of integer operations alone (Steele, Lea & Flood 2014),
    so they are the same bits on every machine and with every version of NumPy. Nothing is zero or one: an offset that
    is forgotten, or a scale, shows.

    Args:
        path: of our variable, e.g. "block_0/attention/query/kernel".
        shape: of our variable.
        stddev: of kernels and tables, and of the kernels that cores multiply out to.

    >>> rule_weight("pooler/bias", (2,)).tolist() == rule_weight("pooler/bias", (2,)).tolist()
    True
    """
    with np.errstate(over="ignore"):
        z = np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(zlib.crc32(path.encode()) << 32)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    # 23 bits and the sign: exact in float32 too.
    unit = ((z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - 1).reshape(shape)  # [-1, 1)
    leaf = path.rsplit("/", 1)[-1]
    if leaf == "gamma":
        return 1 + unit / 8
    if leaf.endswith(("beta", "bias")):
        return unit / 8
    if leaf.endswith("softmax"):
        stddev = shape[0] ** -0.5
    if leaf.startswith("core"):
        stddev = (stddev / CORE_BOND**0.5) ** 0.5
    return unit * np.float32(stddev * 3**0.5)


def apply_rule(model: keras.Model, stddev: float = TYPICAL) -> None:
    """Give every weight of our model the numbers of its name."""
    for variable in model.weights:
        variable.assign(rule_weight(variable.path, tuple(variable.shape), stddev))


def outputs_by_rule(config: BertConfig, batch: dict, stddev: float = TYPICAL) -> dict[str, np.ndarray]:
    """What our encoder and masked-LM head compute with those weights; arrays as of `model_garden_outputs`."""
    model = MaskedLM(build_encoder(config))
    apply_rule(model, stddev)
    outputs = model(batch, training=False)
    hidden = np.stack([ops.convert_to_numpy(x) for x in outputs.pop("encoder_outputs")])
    return {"encoder_outputs": hidden, **{name: ops.convert_to_numpy(x) for name, x in outputs.items()}}


def model_garden_outputs(config: BertConfig, batch: dict, stddev: float = TYPICAL) -> dict[str, np.ndarray]:
    """What Model Garden's encoder and masked-LM head compute, with the weights that `apply_rule` gives ours.

    Args:
        config: of one of the four cards' kinds, with the activation "gelu_tanh".
        batch: int32 arrays `input_word_ids`, `input_mask`, `input_type_ids` [B, S], `masked_lm_positions` [B, P].
        stddev: as in `rule_weight`.

    Returns:
        `sequence_output` [B, S, H], `pooled_output` [B, H], `encoder_outputs` [L, B, S, H], `mlm_logits` [B, P, V].
    """
    import tensorflow as tf
    import tf_keras
    from official.modeling import tf_utils
    from official.nlp.modeling import layers

    tf_keras.backend.clear_session()  # names of layers count from 0 again
    encoder = _encoder(config)
    _apply_rule(encoder.variables, stddev)
    tensors = {name: tf.constant(array) for name, array in batch.items()}
    positions = tensors.pop("masked_lm_positions")
    outputs = encoder(tensors, training=False)
    head = layers.MaskedLM(encoder.get_embedding_table(), activation=tf_utils.get_activation("gelu"))
    head(outputs["sequence_output"], positions)  # makes its variables
    _apply_rule([v for v in head.variables if v is not head.embedding_table], stddev)
    outputs["mlm_logits"] = head(outputs["sequence_output"], positions)
    outputs["encoder_outputs"] = tf.stack(outputs["encoder_outputs"])
    return {name: value.numpy() for name, value in outputs.items()}


def model_garden_expand_condense(x: np.ndarray, multiplier: int, stddev: float = TYPICAL) -> np.ndarray:
    """x [B, S, H] -> [B, S, H] by `TNExpandCondense`, with the weights that `apply_rule` gives our `feed_forward`.

    It computes in the dtype of x.
    """
    import tensorflow as tf
    import tf_keras
    from official.modeling import tf_utils
    from official.nlp.modeling.layers import tn_expand_condense

    tf_keras.backend.clear_session()
    layer = tn_expand_condense.TNExpandCondense(multiplier, activation=tf_utils.get_activation("gelu"), dtype=x.dtype)
    layer(tf.constant(x))  # makes its variables
    _apply_rule(layer.variables, stddev)
    return layer(tf.constant(x)).numpy()


def _encoder(config: BertConfig):
    import tf_keras
    from official.modeling import tf_utils
    from official.nlp.modeling import layers, networks

    assert config.activation == "gelu_tanh", "Model Garden's gelu is the tanh approximation"
    initializer, gelu = tf_keras.initializers.TruncatedNormal(stddev=0.02), tf_utils.get_activation("gelu")
    sizes = {"vocab_size": config.vocab_size, "hidden_size": config.hidden_size, "type_vocab_size": 2}
    block = {"num_attention_heads": config.num_heads, "kernel_initializer": initializer}
    if config.attention == TalkingHeads() and config.gated:
        cls = layers.TransformerScaffold
        kinds = {"attention_cls": layers.TalkingHeadsAttention, "feedforward_cls": layers.GatedFeedforward}
        block |= {"inner_dim": config.intermediate_size, "inner_activation": gelu, **kinds}
    elif isinstance(config.feed_forward, ExpandCondense):
        cls = layers.TNTransformerExpandCondense
        block |= {"intermediate_size": config.intermediate_size, "intermediate_activation": gelu}
    else:
        return networks.BertEncoder(
            **sizes,
            num_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            max_sequence_length=config.max_positions,
            inner_dim=config.intermediate_size,
            inner_activation=gelu,
            dict_outputs=True,
        )
    embedding = {"max_seq_length": config.max_positions, "initializer": initializer, "dropout_rate": 0.1}
    return networks.EncoderScaffold(
        config.hidden_size,
        embedding_cfg={**sizes, **embedding},
        num_hidden_instances=config.num_layers,
        hidden_cls=cls,
        hidden_cfg=block,
        return_all_layer_outputs=True,
        dict_outputs=True,
    )


# Owner of variables in Model Garden -> ours; the last part of the name, "kernel" and so on, is the same.
_OWNERS = {
    "word_embeddings": "embeddings/word",
    "position_embedding": "embeddings/position",
    "type_embeddings": "embeddings/segment",
    "embeddings/layer_norm": "embeddings/norm",
    "pooler_transform": "pooler",
    "cls_transform": "pooler",
    "masked_lm/transform/dense": "transform",
    "masked_lm/transform/LayerNorm": "norm",
    **{f"self_attention/{part}": f"attention/{part}" for part in ("query", "key", "value", "attention_output")},
    "self_attention_layer_norm": "attention_norm",
    "intermediate": "feed_forward/intermediate",
    "output": "feed_forward/output_dense",
    "output_layer_norm": "feed_forward_norm",
    "feedforward/intermediate_0": "feed_forward/intermediate",
    "feedforward/gate_0": "feed_forward/gate",
    "feedforward/output_0": "feed_forward/output_dense",
    "feedforward/output_layer_norm_0": "feed_forward_norm",
}
_WHOLE_NAMES = {
    "masked_lm/output_bias/bias": "masked_lm/output_bias",
    "self_attention/pre_softmax_weight": "attention/pre_softmax",
    "self_attention/post_softmax_weight": "attention/post_softmax",
    "tn_expand_condense/w1": "feed_forward/intermediate/core_0",
    "tn_expand_condense/w2": "feed_forward/intermediate/core_1",
    "tn_expand_condense/b": "feed_forward/intermediate/bias",
    "tn_expand_condense/w3": "feed_forward/output_dense/core_0",
    "tn_expand_condense/w4": "feed_forward/output_dense/core_1",
}
_BLOCK = re.compile(r"(?:transformer/layer_|(?:tn_transformer_expand_condense|transformer_scaffold)_?)(\d*)/(.+)")


def our_path(name: str) -> str:
    """The path of our variable for a name in Model Garden.

    >>> our_path("transformer_scaffold_1/self_attention/query/kernel:0")
    'block_1/attention/query/kernel'
    """
    name, prefix = name.split(":")[0], ""
    if block := _BLOCK.fullmatch(name):
        prefix, name = f"block_{block[1] or 0}/", block[2]
    if name in _WHOLE_NAMES:
        return prefix + _WHOLE_NAMES[name]
    owner, leaf = name.rsplit("/", 1)
    return f"{prefix}{_OWNERS[owner]}/{leaf}"


def _apply_rule(variables, stddev: float, prefix: str = "") -> None:
    for variable in variables:
        path = our_path(prefix + variable.name)
        shape = tuple(variable.shape)
        if path.endswith("intermediate/core_0"):  # w1 [c d, i] is our [i, c, d]
            variable.assign(rule_weight(path, shape[::-1], stddev).T)
        else:  # the same numbers, whatever way the axes are split
            variable.assign(rule_weight(path, shape, stddev).reshape(shape))
