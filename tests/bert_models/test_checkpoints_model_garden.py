"""Checkpoints that Model Garden itself wrote, converted or exported, and what it computes with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import bert_encoder_v2, garden_config, model_garden_keys, tf1_tensors, write_tf1
from encoders import CARDS, batch_of, randomised, with_positions
from keras import ops

from bert_models import MaskedLM, build_encoder
from bert_models.checkpoints.loading import load, load_mlm

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden" / "model_garden_keys.json"
TOLERANCE = 1e-5  # float32, outputs up to 4
BATCH = with_positions(batch_of([7, 4, 1], longest=7))
ENCODER_BATCH = {name: ids for name, ids in BATCH.items() if name != "masked_lm_positions"}


@pytest.fixture(autouse=True)
def model_garden():
    """Looked for when a test runs: even finding it takes seconds."""
    pytest.importorskip("official.nlp.modeling", reason="pip install --no-deps tf-models-official")
    pytest.importorskip("tf_keras").backend.clear_session()  # names of layers count from 0 again


def test_golden_keys_are_still_those(tmp_path):
    assert model_garden_keys(tmp_path) == json.loads(GOLDEN.read_text())


def pretrainer_of(encoder):
    """Model Garden's masked-LM model on its encoder, every variable random."""
    import tensorflow as tf
    from official.modeling import tf_utils
    from official.nlp.modeling import models

    pretrainer = models.BertPretrainerV2(encoder_network=encoder, mlm_activation=tf_utils.get_activation("gelu"))
    pretrainer({name: tf.constant(ids) for name, ids in BATCH.items()})  # makes its variables
    draw = np.random.default_rng(0)
    for variable in pretrainer.variables:
        variable.assign(variable + draw.normal(0, 0.1, variable.shape))
    return pretrainer


def their_outputs(pretrainer) -> dict[str, np.ndarray]:
    import tensorflow as tf

    outputs = pretrainer({name: tf.constant(ids) for name, ids in BATCH.items()}, training=False)
    return {name: np.array(outputs[name]) for name in ("sequence_output", "pooled_output", "mlm_logits")}


def check_same(mlm, expected):
    ours = mlm(BATCH, training=False)
    for name, theirs in expected.items():
        np.testing.assert_allclose(ops.convert_to_numpy(ours[name]), theirs, atol=TOLERANCE, rtol=0)


def garden_encoder(kind):
    from oracles_model_garden import _encoder

    config = garden_config("dense" if kind == "BertEncoderV2" else kind, num_layers=2)
    return config, bert_encoder_v2(config) if kind == "BertEncoderV2" else _encoder(config)


@pytest.mark.parametrize("kind", [*CARDS, "BertEncoderV2"])
def test_training_checkpoint_of_every_kind(tmp_path, kind):
    import tensorflow as tf
    import tf_keras

    config, encoder = garden_encoder(kind)
    pretrainer = pretrainer_of(encoder)
    expected = their_outputs(pretrainer)
    for optimizer in (tf_keras.optimizers.Adam(), tf_keras.optimizers.legacy.Adam()):
        step = optimizer.iterations
        optimizer.apply_gradients([(tf.zeros_like(v), v) for v in pretrainer.trainable_variables])  # makes slots
        expected = their_outputs(pretrainer)
        items = {"model": pretrainer, "optimizer": optimizer, "global_step": step, **pretrainer.checkpoint_items}
        prefix = tf.train.Checkpoint(**items).save(str(tmp_path / type(optimizer).__module__ / "ckpt"))
        check_same(load_mlm(prefix, config=config), expected)
        encoder_alone = load(Path(prefix).parent, config=config)
        assert len(encoder_alone.weights) == len(encoder.weights)


@pytest.mark.parametrize("with_mlm", [False, True])
def test_saved_model_of_its_exporter(tmp_path, with_mlm):
    import tensorflow as tf
    from official.legacy.bert import configs
    from official.nlp.tools import export_tfhub_lib

    config, encoder = garden_encoder("dense")
    pretrainer = pretrainer_of(encoder)
    prefix = tf.train.Checkpoint(**pretrainer.checkpoint_items).save(str(tmp_path / "ckpt"))
    (tmp_path / "vocab.txt").write_text("".join(f"{i}\n" for i in range(config.vocab_size)))
    export_tfhub_lib.export_model(
        str(tmp_path / "saved"),
        bert_config=legacy_config(configs, config),
        model_checkpoint_path=prefix,
        with_mlm=with_mlm,
        vocab_file=str(tmp_path / "vocab.txt"),
        do_lower_case=True,
    )
    expected = their_outputs(pretrainer)
    if with_mlm:
        check_same(load_mlm(tmp_path / "saved", config=config), expected)
    sequence = load(tmp_path / "saved", config=config)(ENCODER_BATCH)["sequence_output"]
    np.testing.assert_allclose(sequence, expected["sequence_output"], atol=TOLERANCE, rtol=0)


def legacy_config(configs, config):
    return configs.BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_positions,
        type_vocab_size=config.type_vocab_size,
    )


def test_its_converter_understands_our_tf1_checkpoint_as_we_do(tmp_path):
    """An independent reader of the format: TensorFlow 1 names -> Model Garden's, then both files give one encoder."""
    from official.legacy.bert import configs
    from official.nlp.tools import tf2_bert_encoder_checkpoint_converter as converter

    config = garden_config("dense", num_layers=2)
    mlm = randomised(MaskedLM(build_encoder(config)))
    prefix = write_tf1(tmp_path / "tf1", tf1_tensors(mlm), config)
    converter.convert_checkpoint(
        bert_config=legacy_config(configs, config),
        output_path=str(tmp_path / "tf2" / "ckpt"),
        v1_checkpoint=str(prefix),
        converted_model="pretrainer",
    )
    converted = load_mlm(tmp_path / "tf2", config=config)
    expected = {name: ops.convert_to_numpy(x) for name, x in mlm(BATCH).items() if name != "encoder_outputs"}
    check_same(converted, expected)
    check_same(load_mlm(prefix), expected)
