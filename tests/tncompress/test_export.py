"""Files for other engines compute what the model computes, in every format and for every kind of layer."""

import collections
import dataclasses
import json
import os
import sys

import keras
import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are exported by TensorFlow", allow_module_level=True)

import tensorflow as tf

import bert_models
import tncompress
from bert_models.inputs import INPUT_NAMES
from tncompress.beside import beside
from tncompress.conversion.saving import compression_of
from tncompress.exporting import onnx_file, onnx_lean
from tncompress.exporting.export import export
from tncompress.exporting.formats import FORMATS
from tncompress.exporting.job import Job, signature_of
from tncompress.exporting.onnx_file import _projection
from tncompress.exporting.onnx_int8 import inner_matmuls
from tncompress.fitting.choice import Bands, Choice
from tncompress.forms import block_tt, expand_condense, low_rank, tt_matrix
from tncompress.layers.folded import TNFolded, TNFoldedPivoted

TOLERANCE = 1e-4  # what is promised, in float32
TINY = {"vocab_size": 60, "num_layers": 2, "max_positions": 40}
PATHS = {"onnx": "model.onnx", "litert": "model.tflite"}
GENERAL = [name for name, one in FORMATS.items() if not one.encoders_only]


def needs(to):
    for package in FORMATS[to].packages:
        pytest.importorskip(package)


def token_batch(rows=3, length=7, seed=0):
    draw = np.random.default_rng(seed)
    mask = np.arange(length) < draw.integers(min(2, length), length + 1, (rows, 1))
    ids = draw.integers(1, TINY["vocab_size"], mask.shape) * mask
    return dict(zip(INPUT_NAMES, (x.astype("int32") for x in (ids, mask, ids % 2 * mask)), strict=True))


def randomised(model):
    """So that no bias or gain is left at the value which leaving it out would have too."""
    draw = np.random.default_rng(1)
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(weight + draw.normal(0, 0.1, weight.shape).astype("float32"))
    return model


def dense_encoder(**config):
    return randomised(
        bert_models.build_encoder(bert_models.BertConfig(**{**TINY, "hidden_size": 32, "num_heads": 2, **config}))
    )


@pytest.fixture(scope="module")
def of_all_kinds():
    """An encoder with bands of embeddings, projections of attention as networks, with pivots too."""
    recipe = {
        "embeddings/word": Bands(((10, None), (50, 4)), 32),
        "block_0/attention/_query_dense": Choice("low_rank", low_rank.spec(32, 32, 8)),
        "block_0/attention/_key_dense": Choice("low_rank", low_rank.spec(32, 32, 8), pivots=True),
        "block_0/attention/_output_dense": Choice("low_rank", low_rank.spec(32, 32, 8), pivots=True),
        "block_0/feed_forward/intermediate": Choice("low_rank", low_rank.spec(32, 128, 8), pivots=True),
        "block_0/feed_forward/output_dense": Choice("low_rank", low_rank.spec(128, 32, 8)),
        "block_1/feed_forward/intermediate": Choice("block_tt", block_tt.spec((4, 8), (8, 16), 2)),
        "block_1/feed_forward/output_dense": Choice("tt_matrix", tt_matrix.spec((4, 4, 8), (4, 4, 2), 3)),
    }
    configs = {path: choice.to_config() for path, choice in recipe.items()}
    model = tncompress.replace_dense(
        dense_encoder(), recipe=configs, calibration=[token_batch(rows=16)], progress=False
    )
    assert compression_of(model).recipe.keys() == recipe.keys()
    return model


@pytest.fixture(scope="module")
def feed_forward():
    """A block as in TN-BERT, and folded networks, of inputs with three axes."""
    entry = keras.Input((None, 16), name="x")
    pair = expand_condense.expand(16, 64, 2, 4), expand_condense.condense(64, 16, 2, 4)
    x = tncompress.TNFeedForward(*pair, activation="gelu")(entry)
    x = TNFolded(low_rank.spec(16, 8, 4), activation="tanh")(keras.layers.Add()([x, entry]))
    return randomised(keras.Model(entry, TNFoldedPivoted(low_rank.spec(8, 6, 3), activation="relu")(x)))


def check_sizes(job, folder, to, sizes):
    """The file gives what the model gives for other sizes than it was made with."""
    run = FORMATS[to].load().read(job, folder)
    for rows, length in sizes:
        arrays = job.arrays(token_batch(rows, length, seed=rows))
        found, wanted = run(arrays), job.call(arrays)
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("to", GENERAL)
def test_every_kind_of_layer_for_any_batch_and_length(of_all_kinds, to, tmp_path):
    needs(to)
    made = export(of_all_kinds, tmp_path / PATHS.get(to, "model"), to, check=token_batch())

    assert 0 < made.max_difference < TOLERANCE
    assert made.mean_cosine > 0.99999
    assert dict(made.inputs) == dict.fromkeys(INPUT_NAMES, (None, None))
    assert made.num_bytes == sum(file.stat().st_size for file in made.files)
    assert json.loads(json.dumps(made.to_config()))["version"] == made.version
    job = Job(of_all_kinds, signature_of(of_all_kinds))
    check_sizes(job, tmp_path / PATHS.get(to, "model"), to, [(1, 1), (5, 40)])
    assert [path.name for path in tmp_path.iterdir()] == [PATHS.get(to, "model")]  # nothing beside


@pytest.mark.parametrize("to", GENERAL)
def test_blocks_and_folded_kernels_and_an_output_without_a_name(feed_forward, to, tmp_path):
    needs(to)
    model = feed_forward
    x = np.random.default_rng(0).normal(0, 1, (3, 5, 16)).astype("float32")

    made = export(model, tmp_path / PATHS.get(to, "model"), to, check=x)

    assert made.max_difference < TOLERANCE
    assert dict(made.inputs) == {"x": (None, None, 16)}


@pytest.mark.parametrize("preset", ["tn_bert", "talkheads_ggelu_bert_en_base", "lambert_en_uncased_L-24_H-1024_A-16"])
@pytest.mark.parametrize(
    "to", ["litert", *(pytest.param(to, marks=pytest.mark.slow) for to in ("savedmodel", "openvino"))]
)
def test_encoders_of_the_cards(preset, to, tmp_path):
    needs(to)
    heads = {"hidden_size": 256, "num_heads": 4} if preset == "tn_bert" else {"hidden_size": 32, "num_heads": 2}
    model = randomised(bert_models.build(preset, **{**TINY, "num_layers": 1}, **heads))
    made = export(model, tmp_path / PATHS.get(to, "model"), to, check=token_batch())
    assert made.max_difference < TOLERANCE


@pytest.mark.parametrize("to", [name for name in GENERAL if FORMATS[name].can_int8])
def test_int8_is_smaller_and_near(to, tmp_path):
    needs(to)
    encoder = dense_encoder(hidden_size=64, intermediate_size=256, num_layers=1, vocab_size=4000)
    files = [tmp_path / f"{int8}{PATHS.get(to, '')}" for int8 in (False, True)]
    plain, small = (export(encoder, file, to, int8=bool(k), check=token_batch()) for k, file in enumerate(files))
    assert (plain.int8, small.int8) == (False, True)
    assert small.num_bytes < 0.5 * plain.num_bytes
    assert 0.99 < small.mean_cosine < 0.9999999


@pytest.mark.parametrize("head", [pytest.param(False, marks=pytest.mark.slow), True])
def test_hub_and_hugging_face_are_bert_models_own(head, tmp_path):
    model, batch = dense_encoder(num_layers=1), token_batch()
    if head:
        model = randomised(bert_models.MaskedLM(model))
        batch["masked_lm_positions"] = np.array([[1, 2]] * 3, "int32")
    for to in ("hub", "huggingface"):
        assert export(model, tmp_path / to, to, check=batch).max_difference < TOLERANCE
    assert bert_models.load(tmp_path / "huggingface").count_params()


@keras.saving.register_keras_serializable(package="tests")
class TwoTowers(keras.Model):
    """A subclass of two inputs in a list, with nested outputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.map = keras.layers.Dense(4)

    def call(self, inputs):
        first, second = (self.map(x) for x in inputs)
        return {"each": [first, second], "sum": first + second}


@pytest.mark.parametrize("to", ["savedmodel", "litert"])
def test_a_subclass_shows_by_check_what_it_takes(to, tmp_path):
    model = TwoTowers()
    batch = [np.ones((2, 3), "float32"), np.zeros((2, 3), "float32")]
    model(batch)
    path = tmp_path / PATHS.get(to, "model")
    with pytest.raises(ValueError, match="does not say what it takes; give a batch of its inputs as check"):
        export(model, path, to)

    made = export(model, path, to, check=batch, outputs=["sum", "each_1"])

    assert dict(made.inputs) == {"inputs_0": (None, 3), "inputs_1": (None, 3)}
    assert made.max_difference < 1e-6
    with pytest.raises(ValueError, match="no output 'product'; its outputs are each_0, each_1, sum"):
        export(model, tmp_path / f"b{path.suffix}", to, check=batch, outputs=["product"])
    assert not (tmp_path / f"b{path.suffix}").exists()


def test_inputs_in_a_list_may_be_given_by_their_names(tmp_path):
    """As Keras takes them; and single numbers have no cosine."""
    first, second = keras.Input((3,), name="a.b"), keras.Input((2,), name="c")
    model = keras.Model([first, second], keras.layers.Dense(1)(keras.layers.Concatenate()([first, second])))
    batch = {"c": np.ones((4, 2), "float32"), "a.b": np.zeros((4, 3), "float32")}
    made = export(model, tmp_path / "out", "savedmodel", check=batch)
    assert (set(made.inputs), made.mean_cosine) == ({"a_b", "c"}, None)
    assert made.max_difference < 1e-6
    with pytest.raises(ValueError, match="The inputs to check the file on are a_b and c; got a_b and d"):
        export(model, tmp_path / "other", "savedmodel", check={"a_b": batch["c"], "d": batch["c"]})


def small_model(**kwargs):
    return keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, **kwargs)])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"to": "pickle"}, ValueError, "There is no format 'pickle'; there are savedmodel, onnx, litert, openvino,"),
        ({"to": "savedmodel", "int8": True}, ValueError, "onnx, litert and openvino have int8"),
        ({"to": "litert", "path": "a.onnx"}, ValueError, r"LiteRT makes one file, \*.tflite; got the path"),
        ({"to": "savedmodel", "path": "a.keras"}, ValueError, "makes a folder, named without a suffix"),
        ({"to": "savedmodel", "path": "none/a"}, FileNotFoundError, "does not exist; make it first"),
        ({"to": "savedmodel", "path": "there"}, FileExistsError, "exists; choose another name or overwrite=True"),
        ({"path": "there", "overwrite": True}, FileExistsError, "is not what export to SavedModel makes, so it is not"),
        ({"to": "hub"}, TypeError, "takes an encoder of bert_models, compressed or not"),
        ({"to": "hub", "outputs": ["a"]}, ValueError, "writes all outputs"),
        ({"model": "x"}, TypeError, "export takes a Keras model, got str"),
        ({"model": keras.Sequential([keras.layers.Dense(2)])}, RuntimeError, "is not built, so it has no weights"),
        ({"check": np.ones((2, 5), "float32")}, ValueError, "expected axis -1 of input shape to have value 4"),
        ({"check": {"a": 1}}, ValueError, "The inputs to check the file on are x; got a"),
        ({"to": "tflite"}, ValueError, r"hub and huggingface\. Did you mean litert\?"),
        ({"to": "litert", "path": "a.tflite", "model": small_model(dtype="mixed_bfloat16")}, ValueError, "in bfloat16"),
    ],
)
def test_refusals_before_anything_is_written(arguments, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(error, match=message):
        export(**{"model": small_model(), "path": "a", "to": "savedmodel", **arguments})
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert not list((tmp_path / "there").iterdir())


def test_missing_packages_are_named_with_the_command(monkeypatch, tmp_path):
    needed = dataclasses.replace(FORMATS["onnx"], packages=("numpy", "not_a_package"))
    monkeypatch.setitem(FORMATS, "onnx", needed)
    with pytest.raises(ImportError, match=r"ONNX needs not_a_package, .* pip install 'tncompress\[onnx\]'"):
        export(small_model(), tmp_path / "a.onnx", "onnx")


def test_a_file_with_other_outputs_is_not_kept(monkeypatch, tmp_path):
    from tncompress.exporting import saved_model

    model, x = small_model(), np.ones((2, 4), "float32")
    export(model, tmp_path / "a", "savedmodel", check=x)
    before = (tmp_path / "a" / "saved_model.pb").read_bytes()
    for wrong in (0.01, np.nan):
        monkeypatch.setattr(saved_model, "read", lambda *_, wrong=wrong: lambda x: {"output": model(x) + wrong})
        with pytest.raises(RuntimeError, match="gives other outputs than the model, by up to"):
            export(model, tmp_path / "a", "savedmodel", check=x, overwrite=True)
    assert (tmp_path / "a" / "saved_model.pb").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_nan_in_any_output_is_found(monkeypatch, tmp_path):
    from tncompress.exporting import saved_model

    entry = keras.Input((4,), name="x")
    model, x = keras.Model(entry, {name: keras.layers.Dense(3)(entry) for name in "ab"}), np.ones((2, 4), "float32")
    for name in "ab":
        wrong = {name: np.nan}
        read = lambda x, wrong=wrong: {key: value + wrong.get(key, 0) for key, value in model(x).items()}  # noqa: E731
        monkeypatch.setattr(saved_model, "read", lambda *_, read=read: read)
        with pytest.raises(RuntimeError, match="by up to nan"):
            export(model, tmp_path / "a", "savedmodel", check=x)


def test_overwriting_replaces_the_whole_folder(tmp_path):
    model = small_model()
    export(model, tmp_path / "a", "savedmodel")
    (tmp_path / "a" / "more").write_text("of another time")
    export(model, tmp_path / "a", "savedmodel", overwrite=True)
    assert not (tmp_path / "a" / "more").exists()
    assert (tmp_path / "a" / "saved_model.pb").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="two folders change their names at once on Linux")
def test_a_folder_that_is_replaced_is_never_away(tmp_path, monkeypatch):
    target, real, seen = tmp_path / "a", os.replace, []

    def replace(*paths):
        try:
            real(*paths)
        finally:
            seen.append(target.exists())

    monkeypatch.setattr(os, "replace", replace)
    for text in ("old", "new"):
        with beside(target) as place:
            place.mkdir()
            (place / "file").write_text(text)
    assert seen
    assert all(seen)
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("large", [1000, onnx_lean.LARGE])  # kernels are hidden, or none
def test_tf2onnx_makes_the_same_in_less_memory(of_all_kinds, monkeypatch, large):
    needs("onnx")
    monkeypatch.setattr(onnx_lean, "LARGE", large)
    job = Job(of_all_kinds, signature_of(of_all_kinds))
    plain = onnx_file.traced(job)
    with onnx_lean.lean():
        found = onnx_file.traced(job)
    assert nodes(found) == nodes(plain)
    assert weights(found) == weights(plain)


def nodes(proto):
    return collections.Counter(node.op_type for node in proto.graph.node)


def weights(proto):
    """Every constant's bytes, without names."""
    return collections.Counter((*one.dims, one.raw_data) for one in proto.graph.initializer)


@given(st.data())
def test_projections_are_the_einsums_that_a_matmul_can_do(data):
    lead, summed, kept = (data.draw(st.integers(low, 2)) for low in (0, 0, 0))
    letters = data.draw(st.permutations("abcdefgh"))
    x, w = letters[: lead + summed], letters[lead : lead + summed + kept]
    y = data.draw(st.sampled_from([letters[:lead] + w[summed:], w[summed:] + letters[:lead]]))
    equation = f"{''.join(x)},{''.join(w)}->{''.join(y)}"
    found = _projection(equation)
    wanted = (lead, summed) if lead and summed and kept and y[:lead] == letters[:lead] else None
    assert found == wanted, equation


@pytest.mark.parametrize("to", ["onnx", "litert"])
def test_an_operation_that_the_format_lacks_is_named(to, tmp_path):
    needs(to)
    entry = keras.Input((4,))
    model = keras.Model(entry, keras.layers.Lambda(tf.math.bessel_i0e, output_shape=(4,))(entry))
    with pytest.raises(RuntimeError, match="BesselI0e"):
        export(model, tmp_path / PATHS[to], to)
    assert not list(tmp_path.iterdir())


def test_onnx_has_erfc_in_a_gelu_and_alone_and_other_einsums(tmp_path):
    needs("onnx")
    import onnx

    entry = keras.Input((3, 4), name="x")
    x = keras.layers.Lambda(tf.math.erfc, output_shape=(3, 4))(entry)
    x = keras.layers.EinsumDense("abc,cde->abde", (3, 2, 5), bias_axes="e", activation="gelu")(x)
    x = keras.layers.EinsumDense("abde,dec->abc", (3, 4))(x)
    model = randomised(keras.Model(entry, keras.layers.EinsumDense("abc,bd->adc", (2, 4))(x)))
    made = export(model, tmp_path / "a.onnx", "onnx", check=np.random.default_rng(0).normal(0, 1, (2, 3, 4)))
    assert made.max_difference < 1e-5
    kinds = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    assert kinds.count("Erf") == 2


def test_int8_of_onnx_keeps_what_passes_between_cores_in_float(of_all_kinds, tmp_path):
    needs("onnx")
    import onnx

    export(of_all_kinds, tmp_path / "a.onnx", "onnx")
    graph = onnx.load(tmp_path / "a.onnx").graph
    inner = inner_matmuls(graph)
    # The second cores of the five low-rank maps. Tensor trains of this size are fastest multiplied out.
    assert len(inner) == 5


@pytest.mark.parametrize(("kind", "to"), [("preprocessed", "savedmodel"), ("lazy", "onnx"), ("lazy", "savedmodel")])
def test_models_of_other_kinds(kind, to, tmp_path):
    """Strings that are looked up in a table, and a subclass whose input has no name."""
    needs(to)
    model, inputs = models.made(kind)
    made = export(model, tmp_path / PATHS.get(to, "model"), to, check=inputs)
    assert made.max_difference < 1e-5
    assert to != "savedmodel" or made.num_bytes < 4 * model.count_params() + 200_000
