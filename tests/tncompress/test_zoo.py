"""What is promised of every architecture: close with nearly all kept, the budget met, exact files, reasons given."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import ops

import tncompress
from tncompress import Budget, find_sites, load, replace_dense, report

VOCABULARY, TOKENS, ROWS = 1100, 12, 24


def ids(*names, rows=ROWS):
    draw = np.random.default_rng(0)
    mask = (np.arange(TOKENS) < draw.integers(6, TOKENS + 1, (rows, 1))).astype("int32")
    found = np.minimum(draw.zipf(1.2, (rows, TOKENS)), VOCABULARY - 1).astype("int32") * mask
    given = {"segment": np.zeros_like(found), "type": np.zeros_like(found), "mask": mask, "ids": found}
    return {name: next(given[key] for key in given if key in name) for name in names}


def hub(name, *inputs, **arguments):
    def make():
        models = pytest.importorskip("keras_hub").models
        sizes = {"vocabulary_size": VOCABULARY, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 64}
        return getattr(models, name)(**{**sizes, **arguments}), ids(*inputs)

    return make


BERT_LIKE = {"num_heads": 2, "max_sequence_length": TOKENS, "dropout": 0.0}
BERT_INPUTS = ("token_ids", "padding_mask", "segment_ids")


def encoder(**options):
    def make():
        from bert_models import build_encoder

        return build_encoder(config(**options)), ids("input_word_ids", "input_mask", "input_type_ids")

    return make


def config(**options):
    import bert_models

    options = {name: value(bert_models) if callable(value) else value for name, value in options.items()}
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_heads": 2, "num_layers": 2, "max_positions": TOKENS}
    return bert_models.BertConfig(**{**sizes, "init_stddev": 0.2, **options})


def perceptron():
    layers = [keras.layers.Dense(width, "gelu", name=f"layer_{i}") for i, width in enumerate((48, 32, 48, 8))]
    return keras.Sequential([keras.Input((32,)), *layers]), np.random.default_rng(0).normal(size=(200, 32))


def after_convolution():
    layers = [
        keras.layers.Conv2D(6, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(40, "relu", name="hidden"),
        keras.layers.Dense(30, name="head"),
    ]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers]), np.random.default_rng(0).normal(size=(300, 8, 8, 3))


ZOO = {
    "small_bert": encoder(),
    "tn_bert": encoder(hidden_size=64, intermediate_size=256, feed_forward=lambda m: m.ExpandCondense(block_size=16)),
    "talking_heads": encoder(attention=lambda m: m.TalkingHeads(), gated=True),
    "lambert": encoder(num_layers=3),
    "BERT": hub("BertBackbone", *BERT_INPUTS, **BERT_LIKE),
    "RoBERTa": hub("RobertaBackbone", *BERT_INPUTS[:2], **BERT_LIKE),
    "DistilBERT": hub("DistilBertBackbone", *BERT_INPUTS[:2], **BERT_LIKE),
    "ALBERT": hub("AlbertBackbone", *BERT_INPUTS, embedding_dim=16, **BERT_LIKE),
    "Gemma": hub("GemmaBackbone", *BERT_INPUTS[:2], num_query_heads=2, num_key_value_heads=1, head_dim=16),
    "T5": hub(
        "T5Backbone",
        *(f"{side}_{name}" for side in ("encoder", "decoder") for name in BERT_INPUTS[:2]),
        num_heads=2,
        use_gated_activation=True,
        dropout=0.0,
    ),
    "perceptron": perceptron,
    "after_convolution": after_convolution,
}
LARGE = {"RoBERTa", "DistilBERT", "T5", "lambert"}  # seconds each


@dataclass
class Case:
    name: str
    model: keras.Model
    inputs: dict
    moments: tncompress.Calibration


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in ZOO]
)
def case(request):
    keras.utils.set_random_seed(0)
    model, inputs = ZOO[request.param]()
    draw = np.random.default_rng(0)
    for variable in model.trainable_variables:  # as in trained models
        if variable.path.endswith("bias"):
            variable.assign(draw.normal(0, 0.1, variable.shape))
    paths = [site.path for site in find_sites(model, embeddings=True) if not site.reason]
    return Case(request.param, model, inputs, tncompress.calibrate(model, paths, inputs, objective="outputs"))


def outputs(model, inputs):
    found = [ops.convert_to_numpy(y) for y in keras.tree.flatten(model(inputs, training=False))]
    return np.concatenate([y.reshape(-1) for y in found if y.dtype.kind == "f"])


def distance(model, small, inputs):
    before = outputs(model, inputs)
    return float(np.linalg.norm(outputs(small, inputs) - before) / np.linalg.norm(before - before.mean()))


def test_nearly_all_kept_changes_nearly_nothing(case):
    small = replace_dense(case.model, keep=0.99, embeddings=True, calibration=case.moments)
    assert report(small).replaced
    assert distance(case.model, small, case.inputs) < 0.05


@pytest.mark.parametrize("given", ["calibration", "nothing"])
def test_nearly_all_kept_is_one_budget(case, given):
    """Also where no objective tells which layers to shrink: equal shares cut the largest to half of their rank."""
    moments = case.moments.without_gradients() if given == "calibration" else None
    small, uniform = (
        replace_dense(case.model, keep=0.99, calibration=moments, allocation=allocation)
        for allocation in (None, "uniform")
    )
    assert distance(case.model, small, case.inputs) < max(0.6 * distance(case.model, uniform, case.inputs), 0.01)


def test_budgets_are_met_and_files_are_exact(case, tmp_path):
    whole = case.model.count_params()
    small = replace_dense(
        case.model,
        budget=Budget(params=0.6 * whole),
        form=("narrow", "low_rank"),
        embeddings=True,
        calibration=case.moments,
    )
    assert 0.59 * whole <= small.count_params() <= 0.6 * whole
    found = report(small)
    assert found.params_after == small.count_params()
    assert all(row.form or row.reason for row in found.rows)
    assert {row.layer for row in found.rows} == {site.path for site in find_sites(case.model)}
    small.save(tmp_path / "small.keras")
    np.testing.assert_array_equal(outputs(load(tmp_path / "small.keras"), case.inputs), outputs(small, case.inputs))
    dense = tncompress.densify(small)
    assert distance(small, dense, case.inputs) < 1e-5
    assert not hasattr(dense, "_compression")
