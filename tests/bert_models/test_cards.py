"""The usage code of the models' cards runs as it is, but for the handles, in a fresh process with legacy Keras."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)
if not all(map(find_spec, ("tensorflow_hub", "tensorflow_text", "tf_keras"))):
    pytest.skip("the cards' code needs the extra [hub]", allow_module_level=True)

from bert_models.encoder import build
from bert_models.heads import MaskedLM
from bert_models.hub_export import export
from bert_models.kinds import ExpandCondense
from bert_models.text.preprocessor import Preprocessor

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "(", ")", "!", "your", "text", "here", "this", "is", "sequence"]

# From the cards, with ENCODER and PREPROCESSOR for the handles.

# google/tn_bert/1, "Example use"
TN_BERT = """
import tensorflow as tf
import tensorflow_hub as hub
import tensorflow_text as text  # Required by bert_en_uncased_preprocess/3
import numpy as np

text_input = tf.keras.layers.Input(shape=(), dtype=tf.string)
preprocessor = hub.KerasLayer(
    "PREPROCESSOR")
encoder_inputs = preprocessor(text_input)
encoder = hub.KerasLayer(
    "ENCODER",
    trainable=True)
outputs = encoder(encoder_inputs)
pooled_output = outputs["pooled_output"]      # [batch_size, 768].
sequence_output = outputs["sequence_output"]  # [batch_size, seq_length, 768].

model = tf.keras.Model(inputs=text_input, outputs=sequence_output)

# Inference
model(np.array(['This is a text sequence!']))
      # <tf.Tensor: shape=(1, seq_length, 768), dtype=float32>
"""

IMPORTS = """
import tensorflow as tf
import tensorflow_hub as hub
import tensorflow_text as text
"""

# The three others are alike: "Basic usage"
BASIC = """
text_input = tf.keras.layers.Input(shape=(), dtype=tf.string)
preprocessor = hub.KerasLayer(
    "PREPROCESSOR")
encoder_inputs = preprocessor(text_input)
encoder = hub.KerasLayer(
    "ENCODER",
    trainable=True)
outputs = encoder(encoder_inputs)
pooled_output = outputs["pooled_output"]      # [batch_size, 1024].
sequence_output = outputs["sequence_output"]  # [batch_size, seq_length, 1024].
"""

PRINTING = """
embedding_model = tf.keras.Model(text_input, pooled_output)
sentences = tf.constant(["(your text here)"])
print(embedding_model(sentences))
"""

# "Advanced topics"
KERAS_INPUTS = """
encoder_inputs = dict(
    input_word_ids=tf.keras.layers.Input(shape=(seq_length,), dtype=tf.int32),
    input_mask=tf.keras.layers.Input(shape=(seq_length,), dtype=tf.int32),
    input_type_ids=tf.keras.layers.Input(shape=(seq_length,), dtype=tf.int32),
)
"""

# "Masked Language Model"
MLM = """
mlm_inputs = dict(
    input_word_ids=tf.keras.layers.Input(shape=(seq_length,), dtype=tf.int32),
    input_mask=tf.keras.layers.Input(shape=(seq_length,), dtype=tf.int32),
    input_type_ids=tf.keras.layers.Input(shape=(seq_length,), dtype=tf.int32),
    masked_lm_positions=tf.keras.layers.Input(shape=(num_predict,), dtype=tf.int32),
)

encoder = hub.load("ENCODER")
mlm = hub.KerasLayer(encoder.mlm, trainable=True)
mlm_outputs = mlm(mlm_inputs)
mlm_logits = mlm_outputs["mlm_logits"]  # [batch_size, num_predict, vocab_size]
# ...plus pooled_output, sequence_output and encoder_outputs as above.
"""

# Ours: what the cards say in words, and a step of training on what their code has made.
BEFORE = """
import json
import numpy as np
seq_length, num_predict, found = 6, 2, {}


def changed_by_a_step(layer, inputs, outputs, values, targets, losses):
    before = [w.numpy() for w in layer.trainable_weights]
    model = tf.keras.Model(inputs, outputs)
    model.compile("adam", losses)
    model.fit(values, targets, verbose=0)
    after = [w.numpy() for w in layer.trainable_weights]
    return [len(before), sum(not np.array_equal(*pair) for pair in zip(before, after))]
"""

AFTER_TN_BERT = """
found["TN-BERT shape"] = model(np.array(['This is a text sequence!'])).shape.as_list()
"""

AFTER_BASIC = """
found["pooled"] = embedding_model(sentences).numpy().tolist()
found["shapes"] = [[x.shape[-1] for x in outputs["encoder_outputs"]], pooled_output.shape[-1]]
states = tf.keras.Model(text_input, [outputs["encoder_outputs"][-1], sequence_output, outputs["encoder_outputs"][0]])
last, sequence, first = states(sentences)
found["last is sequence_output"] = bool(tf.reduce_all(last == sequence))
found["first is not"] = bool(tf.reduce_any(first != sequence))
found["fine-tuned"] = changed_by_a_step(
    encoder, text_input, tf.keras.layers.Dense(1)(pooled_output),
    tf.constant(["this is", "your text !"]), np.array([[1.0], [-2.0]]), "mse")
"""

AFTER_INPUTS = """
again = tf.keras.Model(encoder_inputs, encoder(encoder_inputs)["pooled_output"])
found["from ids"] = again(hub.load("PREPROCESSOR").bert_pack_inputs(
    [hub.load("PREPROCESSOR").tokenize(sentences)], seq_length=seq_length)).shape.as_list()
"""

AFTER_MLM = """
ids = dict(input_word_ids=[[2, 11, 4, 4, 3, 0]] * 2, input_mask=[[1] * 5 + [0]] * 2,
           input_type_ids=[[0, 0, 0, 1, 1, 0]] * 2, masked_lm_positions=[[2, 3]] * 2)
found["mlm"] = changed_by_a_step(
    mlm, mlm_inputs, [mlm_logits, tf.keras.layers.Dense(1)(mlm_outputs["pooled_output"])],
    {name: np.array(value, "int32") for name, value in ids.items()},
    [np.array([[12, 13], [9, 8]]), np.array([[1.0], [-2.0]])],
    [tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"])
found["mlm outputs"] = sorted(mlm_outputs)
found["logits"] = mlm(dict((name, tf.constant(value)) for name, value in ids.items()))["mlm_logits"].shape.as_list()
"""

AT_THE_END = """
print(json.dumps(found))
"""


def in_a_fresh_process(code, folder, working_folder):
    code = code.replace("PREPROCESSOR", str(folder / "preprocess")).replace("ENCODER", str(folder))
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=working_folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.splitlines()


def check_cards_code(name, tmp_path, parts, **overrides):
    encoder = build(name, **overrides)
    export(encoder, tmp_path / "encoder", mlm=MaskedLM(encoder), preprocessor=Preprocessor(VOCAB, seq_length=8))
    layers, width = encoder.config.num_layers, encoder.config.hidden_size
    pooled = encoder(Preprocessor(VOCAB, seq_length=8)(["(your text here)"]))["pooled_output"]
    variables, rows = len(encoder.trainable_variables), encoder.config.vocab_size
    del encoder
    *printed, found = in_a_fresh_process(BEFORE + "".join(parts) + AT_THE_END, tmp_path / "encoder", tmp_path)
    found = json.loads(found)
    if BASIC in parts:
        assert printed[0].startswith("tf.Tensor(")
        assert found.pop("pooled")[0] == pytest.approx(pooled.numpy()[0].tolist(), abs=1e-5)
    expected = {
        AFTER_TN_BERT: {"TN-BERT shape": [1, 8, width]},
        AFTER_BASIC: {
            "shapes": [[width] * layers, width],
            "last is sequence_output": True,
            "first is not": True,
            "fine-tuned": [variables, variables],
        },
        AFTER_INPUTS: {"from ids": [1, width]},
        AFTER_MLM: {
            "mlm": [variables + 5, variables + 5],
            "mlm outputs": ["encoder_outputs", "mlm_logits", "pooled_output", "sequence_output"],
            "logits": [2, 2, rows],
        },
    }
    assert found == {key: value for part in parts for key, value in expected.get(part, {}).items()}


ALL_OF_THREE = (IMPORTS, BASIC, PRINTING, AFTER_BASIC, KERAS_INPUTS, AFTER_INPUTS, MLM, AFTER_MLM)
OF_TN_BERT = (TN_BERT, AFTER_TN_BERT)
SIZES = {"vocab_size": len(VOCAB), "hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_positions": 16}


def test_a_small_model(tmp_path):
    settings = {**SIZES, "feed_forward": ExpandCondense(block_size=8)}
    check_cards_code("tn_bert", tmp_path, OF_TN_BERT + ALL_OF_THREE, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("tn_bert", OF_TN_BERT + ALL_OF_THREE),
        ("small_bert/bert_en_uncased_L-12_H-512_A-8", ALL_OF_THREE),
        ("talkheads_ggelu_bert_en_base", ALL_OF_THREE),
        ("lambert_en_uncased_L-24_H-1024_A-16", ALL_OF_THREE),
    ],
)
def test_the_card_of_each_model(name, parts, tmp_path):
    try:
        check_cards_code(name, tmp_path, parts)
    finally:
        shutil.rmtree(tmp_path)  # up to 2.7 GB, which pytest would keep
