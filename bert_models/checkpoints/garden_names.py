"""The name tables of TensorFlow Model Garden's encoders.

A name is the way from object to object in a TF2 checkpoint. It begins with `encoder` or `masked_lm`, the objects that
hold the layers, wherever they are in the checkpoint, and goes on with a layer: `word`, `position`, `segment`, `norm`,
`block_0` ..., `pooler`, whatever that is called there (see `LAYER_NAMES`). Axes as in `names.py`.

Source: TensorFlow Model Garden 2.20, official/nlp/modeling: networks/bert_encoder.py, networks/encoder_scaffold.py,
layers/transformer_encoder_block.py, layers/tn_transformer_expand_condense.py, layers/gated_feedforward.py.
"""

from bert_models.checkpoints.names import TENSORFLOW_SPELLING, Names, Row, rows
from bert_models.config import BertConfig
from bert_models.kinds import DenseMaps, ExpandCondense, MultiHead, TalkingHeads


def functional_names(layers: list[str]) -> dict[str, str]:
    """In `BertEncoder` and `EncoderScaffold` layers are counted in the order of use."""
    return {layer: f"layer_with_weights-{i}" for i, layer in enumerate(layers)}


def attribute_names(layers: list[str]) -> dict[str, str]:
    """In `BertEncoderV2` layers are attributes."""
    known = {
        "word": "_embedding_layer",
        "position": "_position_embedding_layer",
        "segment": "_type_embedding_layer",
        "norm": "_embedding_norm_layer",
        "pooler": "_pooler_layer",
    }
    return {layer: known.get(layer) or layer.replace("block_", "_transformer_layers/") for layer in layers}


# The kinds of encoder object: a path by which one is known, and how its layers are called
LAYER_NAMES = {
    "layer_with_weights-4/_attention_layer/_query_dense/kernel": functional_names,
    "_transformer_layers/0/_attention_layer/_query_dense/kernel": attribute_names,
}
# By these a masked-LM head is known, in encoders of all kinds.
HEAD_PATHS = ("embedding_table", "dense/kernel", "layer_norm/gamma", "bias")


def layers_of(config: BertConfig) -> list[str]:
    """The layers with weights, in the order of use.

    >>> layers_of(BertConfig(num_layers=2))
    ['word', 'position', 'segment', 'norm', 'block_0', 'block_1', 'pooler']
    """
    blocks = [f"block_{i}" for i in range(config.num_layers)]
    return ["word", "position", "segment", "norm", *blocks, "pooler"]


_EMBEDDINGS = rows(
    TENSORFLOW_SPELLING,
    ("encoder/word/embeddings", "embeddings/word/embeddings", "VH"),
    ("encoder/position/embeddings", "embeddings/position/embeddings", "PH"),
    ("encoder/segment/embeddings", "embeddings/segment/embeddings", "TH"),
    ("encoder/norm", "embeddings/norm", "H H"),
)
_ATTENTION = rows(
    TENSORFLOW_SPELLING,
    ("encoder/block_{i}/_attention_layer/_query_dense", "block_{i}/attention/query", "HNK NK"),
    ("encoder/block_{i}/_attention_layer/_key_dense", "block_{i}/attention/key", "HNK NK"),
    ("encoder/block_{i}/_attention_layer/_value_dense", "block_{i}/attention/value", "HNK NK"),
    ("encoder/block_{i}/_attention_layer/_output_dense", "block_{i}/attention/attention_output", "NKH H"),
    ("encoder/block_{i}/_attention_layer_norm", "block_{i}/attention_norm", "H H"),
)
_TALKING_HEADS = rows(
    TENSORFLOW_SPELLING,
    ("encoder/block_{i}/_attention_layer/pre_softmax_weight", "block_{i}/attention/pre_softmax", "NN"),
    ("encoder/block_{i}/_attention_layer/post_softmax_weight", "block_{i}/attention/post_softmax", "NN"),
)
_DENSE = rows(
    TENSORFLOW_SPELLING,
    ("encoder/block_{i}/_intermediate_dense", "block_{i}/feed_forward/intermediate", "HF F"),
    ("encoder/block_{i}/_output_dense", "block_{i}/feed_forward/output_dense", "FH H"),
    ("encoder/block_{i}/_output_layer_norm", "block_{i}/feed_forward_norm", "H H"),
)
_GATED = rows(
    TENSORFLOW_SPELLING,
    ("encoder/block_{i}/_feedforward_block/_intermediate_dense/0", "block_{i}/feed_forward/intermediate", "HF F"),
    ("encoder/block_{i}/_feedforward_block/_gate_dense/0", "block_{i}/feed_forward/gate", "HF F"),
    ("encoder/block_{i}/_feedforward_block/_output_dense/0", "block_{i}/feed_forward/output_dense", "FH H"),
    ("encoder/block_{i}/_feedforward_block/_output_layer_norm/0", "block_{i}/feed_forward_norm", "H H"),
)
_EXPAND_CONDENSE = (
    # w1 is [C D, H]: out before in
    Row("encoder/block_{i}/_output_dense/w1", "block_{i}/feed_forward/intermediate/core_0", "HH", transposed=True),
    *rows(
        TENSORFLOW_SPELLING,
        ("encoder/block_{i}/_output_dense/w2", "block_{i}/feed_forward/intermediate/core_1", "DE"),
        ("encoder/block_{i}/_output_dense/b", "block_{i}/feed_forward/intermediate/bias", "C1E"),
        ("encoder/block_{i}/_output_dense/w3", "block_{i}/feed_forward/output_dense/core_0", "ED"),
        ("encoder/block_{i}/_output_dense/w4", "block_{i}/feed_forward/output_dense/core_1", "CDH"),
        ("encoder/block_{i}/_output_layer_norm", "block_{i}/feed_forward_norm", "H H"),
    ),
)
_POOLER = rows(TENSORFLOW_SPELLING, ("encoder/pooler", "pooler", "HH H"))
_HEAD = rows(
    TENSORFLOW_SPELLING,
    ("masked_lm/dense", "transform", "HH H"),
    ("masked_lm/layer_norm", "norm", "H H"),
    ("masked_lm/bias", "output_bias", "V"),
)


def garden_names(config: BertConfig) -> Names:
    """The tables for an encoder of that config.

    Raises:
        ValueError: Model Garden has no such encoder.
    """
    attention = {MultiHead(): (), TalkingHeads(): _TALKING_HEADS}.get(config.attention)
    maps = config.feed_forward
    feed_forward = {  # by: networks instead of kernels, gated, bias at the end
        (False, False, True): _DENSE,
        (False, True, True): _GATED,
        (True, False, False): _EXPAND_CONDENSE,
    }.get((isinstance(maps, ExpandCondense), config.gated, config.output_bias))
    if attention is None or feed_forward is None or not isinstance(maps, DenseMaps | ExpandCondense):
        raise ValueError(
            f"Model Garden has no encoder with attention={config.attention}, feed_forward={maps}, gated={config.gated} "
            f"and output_bias={config.output_bias}; give the config of one that it has."
        )
    encoder = (*_EMBEDDINGS, *_ATTENTION, *attention, *feed_forward, *_POOLER)
    return Names(encoder, _HEAD, tied={"masked_lm/embedding_table": "encoder/word/embeddings"})
