"""Writes checkpoints in the formats of other people, for whoever tests reading them."""

import json
from pathlib import Path

import numpy as np
from encoders import config_of
from keras import ops

from bert_models import ExpandCondense
from bert_models.checkpoints.garden_names import functional_names, garden_names, layers_of
from bert_models.checkpoints.names import TF1, Row, weights
from bert_models.checkpoints.source import named_weights
from bert_models.heads import MaskedLM
from bert_models.inputs import INPUT_NAMES

ENDING = "/.ATTRIBUTES/VARIABLE_VALUE"

# What TensorFlow 1 stores beside the weights when it trains with Adam on both tasks of pretraining
ADAM_SLOTS = ("adam_m", "adam_v")
OTHERS = {
    "global_step": np.int64(7),
    "cls/seq_relationship/output_weights": np.zeros((2, 8), "float32"),
    "cls/seq_relationship/output_bias": np.zeros(2, "float32"),
}


def tensors_of(model, table: tuple[Row, ...]) -> dict[str, np.ndarray]:
    """The weights of an encoder or a `MaskedLM` that a table lists, as they are in a file."""
    found = named_weights(model)
    config = model.encoder.config if isinstance(model, MaskedLM) else model.config
    return {weight.name: weight.to_file(ops.convert_to_numpy(found[weight.path])) for weight in weights(table, config)}


def tf1_tensors(mlm: MaskedLM) -> dict[str, np.ndarray]:
    """The variables of the first BERT, with slots of the optimizer, counters and both heads."""
    tensors = tensors_of(mlm, (*TF1.encoder, *TF1.head))
    slots = {f"{name}/{slot}": np.zeros_like(x) for name, x in tensors.items() for slot in ADAM_SLOTS}
    return {**tensors, **slots, **OTHERS}


def write_tf1(folder: Path, tensors: dict[str, np.ndarray], config, name: str = "bert_model.ckpt") -> Path:
    """A checkpoint as TensorFlow 1 writes it, with its `bert_config.json`; gives its prefix."""
    import tensorflow as tf

    values = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.type_vocab_size,
        "hidden_act": {"gelu_tanh": "gelu"}.get(config.activation, config.activation),
    }
    folder.mkdir(exist_ok=True)
    (folder / "bert_config.json").write_text(json.dumps(values))
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(folder / name),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )
    return folder / name


def garden_tensors(model, naming=functional_names) -> dict[str, np.ndarray]:
    """Path from object to object -> tensor, as in a checkpoint of Model Garden's."""
    config = model.encoder.config if isinstance(model, MaskedLM) else model.config
    names, layers = garden_names(config), naming(layers_of(config))
    found = {}
    for name, array in tensors_of(model, names.encoder).items():
        owner, layer, *rest = name.split("/")
        found["/".join([owner, layers[layer], *rest])] = array
    if isinstance(model, MaskedLM):
        found |= tensors_of(model, names.head)
    return found


def write_objects(prefix: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A TF2 checkpoint whose objects have these paths; gives its prefix."""
    import tensorflow as tf

    root = tf.train.Checkpoint()
    variables = {}
    for path, array in tensors.items():
        *owners, leaf = path.split("/")
        node = root
        for owner in owners:
            if not hasattr(node, owner):
                setattr(node, owner, tf.train.Checkpoint())
            node = getattr(node, owner)
        variables[path] = tf.Variable(array)
        setattr(node, leaf, variables[path])
    if hasattr(root, "masked_lm"):  # the head holds the table of the encoder
        root.masked_lm.embedding_table = next(v for path, v in variables.items() if path.startswith("encoder/"))
    return Path(root.write(str(prefix)))


GARDEN_SIZES = {"vocab_size": 14, "hidden_size": 128, "num_heads": 2, "num_layers": 1, "max_positions": 20}


def model_garden_keys(folder: Path) -> dict[str, dict[str, list]]:
    """Kind of encoder -> key of a tensor in Model Garden's checkpoint -> name and shape of the variable; needs it."""
    import tensorflow as tf
    import tf_keras
    from oracles_model_garden import _encoder
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    found = {}
    for kind in ("dense", "tn_bert", "talkheads_ggelu", "BertEncoderV2"):
        tf_keras.backend.clear_session()
        encoder = bert_encoder_v2(garden_config("dense")) if kind == "BertEncoderV2" else _encoder(garden_config(kind))
        prefix = tf.train.Checkpoint(encoder=encoder).write(str(folder / kind))
        reader = tf.train.load_checkpoint(prefix)
        graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        names = {item.checkpoint_key: item.full_name for node in graph.nodes for item in node.attributes}
        shapes = reader.get_variable_to_shape_map()
        keys = sorted(key for key in shapes if key.startswith("encoder/"))
        found[kind] = {
            key.removesuffix(ENDING): [names[key].removeprefix(f"{encoder.name}/"), shapes[key]] for key in keys
        }
    return found


def garden_config(kind: str, **changes):
    """A small config that Model Garden can build too: its Expand/Condense needs 128 features."""
    changes = {**GARDEN_SIZES, **changes}
    if kind == "tn_bert":
        return config_of(kind, feed_forward=ExpandCondense(), **changes)
    return config_of(kind, intermediate_size=24, **changes)


def bert_encoder_v2(config):
    """Model Garden's newer class for the same encoder; it names its layers in another way."""
    import tensorflow as tf
    from official.modeling import tf_utils
    from official.nlp.modeling import networks

    encoder = networks.BertEncoderV2(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        max_sequence_length=config.max_positions,
        type_vocab_size=config.type_vocab_size,
        inner_dim=config.intermediate_size,
        inner_activation=tf_utils.get_activation("gelu"),
    )
    encoder({name: tf.ones((1, 3), tf.int32) for name in INPUT_NAMES})  # makes its variables
    return encoder
