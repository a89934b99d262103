"""`TNEmbedding` against rows of the table it stands for, alone and in models. Runs on every backend."""

import keras
import numpy as np
import pytest
from backends import passes_on
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from tncompress import find_sites
from tncompress.conversion.embeddings import put_embeddings
from tncompress.conversion.sites import NOT_ASKED
from tncompress.conversion.surgery import become
from tncompress.conversion.walking import walk
from tncompress.fitting.embedding import fit_embedding
from tncompress.layers.embedding import EMBEDDING_STDDEV, TNEmbedding, TNReversibleEmbedding

BACKEND = keras.backend.backend()
ON_TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="needs the TensorFlow backend")
TOKENS, DIM = 20, 6
BANDS = ((4, None), (5, 3), (11, 2))
CASES = {"three": BANDS, "one": ((TOKENS, 2),), "whole": ((TOKENS, DIM),), "whole_last": ((7, 1), (13, None))}
every_case = pytest.mark.parametrize("bands", CASES.values(), ids=CASES)
IDS = np.random.default_rng(0).integers(0, TOKENS, (3, 7)).astype("int32")


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def filled(layer, seed=0):
    """The layer, built, in a random order; entries around 1."""
    rng = np.random.default_rng(seed)
    layer.build((None,))
    layer.position.assign(rng.permutation(layer.input_dim))
    for weight in layer.trainable_variables:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def made(bands=BANDS, cls=TNEmbedding, tokens=TOKENS, dim=DIM, **kwargs):
    return filled(cls(tokens, dim, bands, **kwargs))


def dense_table(layer):
    """Row by row, in float64, from the weights alone."""
    rows = []
    for place in to_numpy(layer.position).astype(int):
        for (count, _), table, projection in zip(layer.bands, layer.tables, layer.projections, strict=True):
            if place < count:
                row = to_numpy(table).astype("float64")[place]
                rows.append(row if projection is None else row @ to_numpy(projection).astype("float64"))
                break
            place -= count
    return np.array(rows)


def close(tensor, expected, eps=2**-23):
    """Sums of at most `DIM` products of numbers up to about 3, twice."""
    np.testing.assert_allclose(to_numpy(tensor), expected, rtol=0, atol=64 * eps * max(1, np.abs(expected).max()))


# -- values ---------------------------------------------------------------------------


@settings(max_examples=40 if BACKEND == "tensorflow" else 8, deadline=None)  # JAX compiles for every shape
@given(st.data())
def test_lookup_is_take(data):
    dim = data.draw(st.integers(1, 5))
    ranks = st.sampled_from([None, *range(1, dim + 1)])
    bands = data.draw(st.lists(st.tuples(st.integers(1, 6), ranks), min_size=1, max_size=4))
    layer = made(bands, tokens=sum(rows for rows, _ in bands), dim=dim)
    shape = data.draw(st.lists(st.integers(0, 3), max_size=4))
    ids = np.random.default_rng(1).integers(0, layer.input_dim, shape)
    dtype = data.draw(st.sampled_from(["int32", "int64"]))
    found = layer(ops.convert_to_tensor(ids, dtype=dtype))
    assert tuple(found.shape) == (*shape, dim) == tuple(layer.compute_output_shape(tuple(shape)))
    if ids.size:
        close(found, np.take(dense_table(layer), ids, axis=0))


@every_case
def test_table_and_logits(bands):
    layer = made(bands)
    table = dense_table(layer)
    close(layer.embeddings, table)
    for lead in ((), (5,), (2, 3)):
        x = np.random.default_rng(1).normal(size=(*lead, DIM)).astype("float32")
        close(layer.logits(x), x.astype("float64") @ table.T)


def test_float_ids_count_as_in_keras():
    layer = made()
    np.testing.assert_array_equal(to_numpy(layer(IDS.astype("float32"))), to_numpy(layer(IDS)))


def test_any_length_in_one_program():
    entry = keras.Input((None,), dtype="int32")
    model = keras.Model(entry, made()(entry))
    assert model.output_shape == (None, None, DIM)
    for shape in ((1, 2), (3, 7), (2, 1)):
        ids = np.random.default_rng(2).integers(0, TOKENS, shape)
        close(model.predict(ids, verbose=0), dense_table(model.layers[-1])[ids])


@pytest.mark.parametrize(("policy", "eps"), [("mixed_bfloat16", 2**-8), ("mixed_float16", 2**-11)])
def test_mixed_precision(policy, eps):
    layer = made(cls=TNReversibleEmbedding, dtype=policy)
    found = layer(IDS)
    assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype == policy.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(v.dtype) for v in layer.trainable_variables} == {"float32"}
    assert keras.backend.standardize_dtype(layer.position.dtype) == "int32"
    expected = dense_table(layer)[IDS]
    np.testing.assert_allclose(to_numpy(found), expected, rtol=0, atol=8 * eps * np.abs(expected).max())
    assert np.abs(to_numpy(found) - expected).max() > 0  # computed in half precision indeed
    x = ops.cast(np.ones((2, DIM)), layer.compute_dtype)
    assert keras.backend.standardize_dtype(layer.logits(x).dtype) == layer.compute_dtype
    dense = layers.ReversibleEmbedding(TOKENS, DIM, dtype=policy)
    dense.build()
    assert layer(x, reverse=True).dtype == dense(x, reverse=True).dtype


def test_starts_as_large_as_keras_does():
    layer = TNEmbedding(4000, 32, ((1000, None), (1000, 16), (2000, 4)))
    layer.build()
    found = to_numpy(layer.embeddings)
    for rows in (found[:1000], found[1000:2000], found[2000:]):
        assert rows.std() == pytest.approx(EMBEDDING_STDDEV, rel=0.15)
    keras_table = layers.Embedding(4000, 32)
    keras_table.build()
    assert to_numpy(keras_table.embeddings).std() == pytest.approx(EMBEDDING_STDDEV, rel=0.02)


def test_factors_of_one_initializer_differ():
    layer = TNEmbedding(40, 8, ((20, 4), (20, 4)), factor_initializer="glorot_uniform")
    layer.build()
    first, second = map(to_numpy, layer.tables)
    assert not np.array_equal(first, second)


# -- masks ----------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [TNEmbedding, TNReversibleEmbedding])
def test_mask_of_id_zero(cls):
    ids = np.array([[3, 4, 0, 0], [5, 6, 7, 8]], "int32")
    layer = made(cls=cls, mask_zero=True)
    assert layer.supports_masking
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.compute_mask(ops.convert_to_tensor(ids))), ids != 0)
    entry = keras.Input((None,), dtype="int32")
    states = layer(entry)
    model = keras.Model(entry, [states, layers.GlobalAveragePooling1D()(states)])
    states, mean = model.predict(ids, verbose=0)
    np.testing.assert_allclose(mean[0], states[0, :2].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(mean[1], states[1].mean(axis=0), atol=1e-6)
    assert made(cls=cls).compute_mask(ids) is None


def test_no_mask_backwards():
    layer = made(cls=TNReversibleEmbedding, mask_zero=True)
    assert getattr(layer(np.zeros((2, 3, DIM), "float32"), reverse=True), "_keras_mask", None) is None
    with pytest.raises(ValueError, match="ids must be integers"):
        layer(np.zeros((2, 3), "float32"))


# -- backwards ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"logit_soft_cap": 2.0}, {"tie_weights": False}, {"reverse_dtype": "float64"}])
def test_reverse_is_that_of_keras(options):
    dense = layers.ReversibleEmbedding(TOKENS, DIM, **options)
    dense.build((None,))
    layer = made(cls=TNReversibleEmbedding, **options)
    dense._embeddings.assign(dense_table(layer))
    if "tie_weights" in options:
        dense.reverse_embeddings.assign(layer.reverse_embeddings)
    x = np.random.default_rng(1).normal(size=(2, 3, DIM)).astype("float32")
    expected = dense(x, reverse=True)
    found = layer(x, reverse=True)
    assert found.dtype == expected.dtype
    close(found, to_numpy(expected))
    close(layer(IDS), to_numpy(dense(IDS)))
    entry = keras.Input((None, DIM))
    assert tuple(layer(entry, reverse=True).shape) == (None, None, TOKENS)


# -- training -------------------------------------------------------------------------


@every_case
def test_step_against_gradients_by_hand(bands):
    """Of half the sum of squares of the rows that are looked up; so dY is Y."""
    layer = made(bands)
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layer])
    model.compile(keras.optimizers.SGD(0.1), loss=lambda _, y: ops.sum(y * y) / 2)
    table, place = dense_table(layer), to_numpy(layer.position).astype(int)
    before = [[to_numpy(w) if w is not None else None for w in ws] for ws in (layer.tables, layer.projections)]
    model.train_on_batch(IDS, np.zeros((3, 7, DIM), "float32"))
    first = 0
    for k, ((rows, _), codes, projection) in enumerate(zip(layer.bands, *before, strict=True)):
        to_codes, to_projection = np.zeros(codes.shape), 0.0
        for token in IDS.ravel():
            row = place[token] - first
            if 0 <= row < rows:
                to_codes[row] += table[token] if projection is None else projection @ table[token]
                to_projection = to_projection + np.outer(codes[row], table[token])
        np.testing.assert_allclose(to_numpy(layer.tables[k]), codes - 0.1 * to_codes, rtol=1e-4, atol=1e-5)
        if projection is not None:
            np.testing.assert_allclose(
                to_numpy(layer.projections[k]), projection - 0.1 * to_projection, rtol=1e-4, atol=1e-5
            )
        first += rows
    np.testing.assert_array_equal(to_numpy(layer.position), place)


class Tied(layers.Layer):
    """Logits from the attribute that tied heads read."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.table.embeddings))


def test_gradients_flow_through_the_table_and_the_logits():
    updates = []
    for head in (lambda layer: Tied(layer), lambda layer: layers.Lambda(layer.logits, output_shape=(TOKENS,))):
        layer = made()
        x = np.random.default_rng(1).normal(size=(4, DIM)).astype("float32")
        y = head(layer)
        before = [to_numpy(v) for v in layer.trainable_variables]

        class Model(keras.Model):
            def __init__(self, layer, y):
                super().__init__()
                self.layer, self.head = layer, y

            def call(self, inputs):
                return self.head(inputs)

        model = Model(layer, y)
        model.compile(keras.optimizers.SGD(0.1), loss=lambda _, z: ops.sum(z * z) / 2)
        model.train_on_batch(x, np.zeros((4, TOKENS), "float32"))
        updates.append([to_numpy(v) - b for v, b in zip(layer.trainable_variables, before, strict=True)])
        assert all(np.abs(update).max() > 1e-3 for update in updates[-1])
    for one, other in zip(*updates, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_regularizers_constraints_and_frozen_layers():
    layer = made(factor_regularizer=keras.regularizers.L2(0.5), factor_constraint="non_neg")
    expected = 0.5 * sum(np.sum(to_numpy(w) ** 2) for w in layer.trainable_variables)
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-5)
    assert len(layer.trainable_variables) == 5
    assert len(made(trainable=False).trainable_variables) == 0
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layer])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    model.train_on_batch(IDS, np.zeros((3, 7, DIM), "float32"))
    assert min(to_numpy(w).min() for w in layer.trainable_variables) >= 0


# -- config and files -----------------------------------------------------------------


@pytest.mark.parametrize("cls", [TNEmbedding, TNReversibleEmbedding])
def test_config_and_file(cls, tmp_path):
    layer = made(cls=cls, mask_zero=True, factor_initializer="he_normal", name="table", dtype="mixed_bfloat16")
    again = cls.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.bands == layer.bands
    entry = keras.Input((None,), dtype="int32")
    model = keras.Model(entry, layers.Dense(3)(made(cls=cls)(entry)))
    model.save(tmp_path / "table.keras")
    loaded = keras.saving.load_model(tmp_path / "table.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(IDS, verbose=0), model.predict(IDS, verbose=0))


def test_weights_before_build_and_twice():
    layer = TNEmbedding(TOKENS, DIM, BANDS)
    with pytest.raises(AttributeError):
        _ = layer.embeddings
    layer.build()
    layer.build((None, 3))
    assert len(layer.weights) == 6
    np.testing.assert_array_equal(to_numpy(layer.position), np.arange(TOKENS))
    with pytest.raises(ValueError, match=f"{TOKENS} in all, got 19"):
        TNEmbedding(TOKENS, DIM, ((19, 2),))


# -- in models ------------------------------------------------------------------------


def test_fit_becomes_a_layer():
    table = np.random.default_rng(0).normal(size=(TOKENS, DIM)).astype("float32")
    fit = fit_embedding(table, np.arange(1, TOKENS + 1), BANDS)
    layer = TNEmbedding(TOKENS, DIM, BANDS)
    layer.build()
    layer.assign(fit)
    close(layer(np.arange(TOKENS)), fit.to_dense())
    with pytest.raises(ValueError, match="but the fit has"):
        TNEmbedding(TOKENS, DIM, ((TOKENS, 2),), name="other").assign(fit)


def exact_bands(model, path):
    """Put bands at a path and fill them so that nothing is lost: rows whole or of full rank by themselves."""
    layer = dict(walk(model))[path]
    table = to_numpy(layer.embeddings)
    half = layer.input_dim // 2
    bands = ((half, None), (layer.input_dim - half, layer.output_dim - 1))
    # One feature depends on the others, so that one rank less loses nothing.
    table[:, -1] = table[:, :-1].sum(axis=1)
    layer._embeddings.assign(table)
    return table, bands


def outputs(model, batch):
    """All of them, one after the other."""
    model.predict_function = None
    return np.concatenate([values.ravel() for values in keras.tree.flatten(model.predict(batch, verbose=0))])


def bert_encoder():
    import bert_models

    config = bert_models.BertConfig(
        vocab_size=30, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, max_positions=12
    )
    encoder = bert_models.build_encoder(config)
    ids = np.random.default_rng(0).integers(1, 30, (2, 5)).astype("int32")
    batch = {"input_word_ids": ids, "input_mask": np.ones_like(ids), "input_type_ids": 0 * ids}
    return encoder, batch, "embeddings/word"


def hub_backbone():
    keras_hub = pytest.importorskip("keras_hub")
    model = keras_hub.models.BertBackbone(30, 1, 2, 8, 16, max_sequence_length=12)
    ids = np.random.default_rng(0).integers(1, 30, (2, 5)).astype("int32")
    return model, {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": 0 * ids}, "token_embedding"


def hub_position_embedding():
    keras_hub = pytest.importorskip("keras_hub")
    entry = keras.Input((None,), dtype="int32")
    both = keras_hub.layers.TokenAndPositionEmbedding(30, 12, 8, mask_zero=True, name="both")
    model = keras.Model(entry, layers.GlobalAveragePooling1D()(both(entry)))
    return model, np.array([[5, 6, 0, 0], [1, 2, 3, 29]], "int32"), "both/token_embedding"


@pytest.mark.parametrize("make", [bert_encoder, hub_backbone, hub_position_embedding])
def test_bands_take_the_place_of_tables(make):
    model, batch, path = make()
    table, bands = exact_bands(model, path)
    before, params, own = outputs(model, batch), model.count_params(), dict(walk(model))[path].path
    layer = put_embeddings(model, {path: bands})[path]
    assert layer.path == own
    layer.assign(fit_embedding(table, np.arange(1, 31), bands))
    after = outputs(model, batch)
    np.testing.assert_allclose(after, before, atol=1e-5)
    place = dict(walk(model))[path]
    assert isinstance(place, TNEmbedding)
    assert vars(place) is vars(layer)
    assert place.trainable
    assert model.count_params() == params + 30 + (8 - 1) * (15 + 8) - 8 * 15  # and the places
    for part in layer.tables:
        part.assign(0 * part)
    assert np.abs(outputs(model, batch) - after).max() > 1e-4


def test_become_alone():
    """What `put_embeddings` rests on, in a graph that looks up the same table twice."""
    entry, other = keras.Input((None,), dtype="int32"), keras.Input((3,), dtype="int32")
    table = layers.Embedding(TOKENS, DIM, name="table")
    model = keras.Model([entry, other], [table(entry), table(other)])
    layer = made(name="table")
    become(table, layer)
    close(model.predict([IDS, IDS[:, :3]], verbose=0)[1], dense_table(layer)[IDS[:, :3]])
    again = keras.Model.from_config(model.get_config())
    assert type(again.get_layer("table")) is TNEmbedding


def test_tied_masked_lm_goes_on_working():
    import bert_models

    encoder, batch, path = bert_encoder()
    table, bands = exact_bands(encoder, path)
    mlm = bert_models.MaskedLM(encoder)
    batch = {**batch, "masked_lm_positions": np.array([[1, 2], [0, 4]], "int32")}
    before = to_numpy(mlm(batch)["mlm_logits"])
    layer = put_embeddings(mlm, {f"encoder/{path}": bands})[f"encoder/{path}"]
    layer.assign(fit_embedding(table, np.arange(1, 31), bands))
    np.testing.assert_allclose(to_numpy(mlm(batch)["mlm_logits"]), before, atol=1e-5)


def test_keras_hubs_masked_lm_calls_it_in_reverse():
    keras_hub = pytest.importorskip("keras_hub")
    backbone, batch, _ = hub_backbone()
    mlm = keras_hub.models.BertMaskedLM(backbone)
    [site] = [site for site in tables(mlm, smallest=30).values() if site.reason is None]
    table, bands = exact_bands(mlm, site.path)
    batch = {**batch, "mask_positions": np.array([[1, 2], [0, 4]], "int32")}
    before = outputs(mlm, batch)
    layer = put_embeddings(mlm, {site.path: bands})[site.path]
    layer.assign(fit_embedding(table, np.arange(1, 31), bands))
    assert type(layer) is TNReversibleEmbedding
    np.testing.assert_allclose(outputs(mlm, batch), before, atol=1e-5)


# -- sites ----------------------------------------------------------------------------


def tables(model, smallest):
    found = find_sites(model, embeddings=True, smallest_table=smallest)
    return {site.path: site for site in found if site.is_table}


def test_sites_of_an_encoder():
    encoder, _, _ = bert_encoder()
    found = tables(encoder, smallest=20)
    assert {path: site.reason for path, site in found.items()} == {
        "embeddings/word": None,
        "embeddings/position": "a small table: 12 tokens, fewer than 20",
        "embeddings/segment": "a small table: 2 tokens, fewer than 20",
    }
    word = found["embeddings/word"]
    assert (word.in_dim, word.out_dim, word.num_params, word.is_table) == (30, 8, 240, True)
    assert {site.reason is None for site in tables(encoder, smallest=1000).values()} == {False}
    asked = find_sites(encoder, smallest_table=20)
    assert [site.reason for site in asked if site.path == "embeddings/word"] == [NOT_ASKED]


class Scaled(layers.Embedding):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Borrowing(layers.Layer):
    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.borrowed = table._embeddings

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.borrowed))


def reasons():
    entry = keras.Input((None,), dtype="int32")
    plain, twice, scaled, lora, lent, banded = (
        layers.Embedding(TOKENS, DIM, name="plain"),
        layers.ReversibleEmbedding(TOKENS, DIM, name="twice"),
        Scaled(TOKENS, DIM, name="scaled"),
        layers.Embedding(TOKENS, DIM, name="lora", lora_rank=2),
        layers.Embedding(TOKENS, DIM, name="lent"),
        TNEmbedding(TOKENS, DIM, BANDS, name="banded"),
    )
    states = [layer(entry) for layer in (plain, twice, scaled, lora, lent, banded)]
    model = keras.Model(entry, [twice(states[1], reverse=True), *states, Borrowing(lent, name="thief")(states[0])])
    return model, {
        "plain": None,
        "twice": None,
        "scaled": "Scaled is a subclass of Embedding and may compute something else",
        "lora": "has LoRA weights: merge them first",
        "lent": "'thief' uses its table too",
        "banded": "in bands already",
    }


def test_reasons_and_refusals():
    model, expected = reasons()
    assert {path: site.reason for path, site in tables(model, smallest=0).items()} == expected
    with pytest.raises(ValueError, match="no layer 'thieves'; its dense layers are twice, plain"):
        put_embeddings(model, {"plain": BANDS, "thieves": BANDS})
    with pytest.raises(ValueError, match=f"{TOKENS} in all, got 3"):
        put_embeddings(model, {"plain": BANDS, "twice": ((3, 1),)})
    assert type(model.get_layer("plain")) is layers.Embedding  # nothing is done by halves
    with pytest.raises(ValueError, match="not built"):
        find_sites(keras.Sequential([layers.Embedding(TOKENS, DIM)]))


def test_options_of_the_layer_stay():
    table = layers.Embedding(
        TOKENS,
        DIM,
        mask_zero=True,
        embeddings_regularizer="l2",
        embeddings_constraint="non_neg",
        activity_regularizer="l1",
        dtype="mixed_bfloat16",
        name="table",
    )
    untied = layers.ReversibleEmbedding(
        TOKENS, DIM, tie_weights=False, reverse_dtype="float64", logit_soft_cap=3.0, name="untied"
    )
    entry = keras.Input((None,), dtype="int32")
    model = keras.Model(entry, [table(entry), untied(untied(entry), reverse=True)])
    table.trainable = False
    reverse = to_numpy(untied.reverse_embeddings)
    new = put_embeddings(model, {"table": BANDS, "untied": BANDS})
    assert (new["table"].mask_zero, new["table"].trainable, new["table"].name) == (True, False, "table")
    assert type(new["table"].factor_regularizer) is keras.regularizers.L2
    assert type(new["table"].factor_constraint) is keras.constraints.NonNeg
    assert type(new["table"].activity_regularizer) is keras.regularizers.L1
    assert new["table"].dtype_policy.name == "mixed_bfloat16"
    back = new["untied"]
    assert (back.tie_weights, back.reverse_dtype, back.logit_soft_cap) == (False, "float64", 3.0)
    np.testing.assert_array_equal(to_numpy(new["untied"].reverse_embeddings), reverse)


# -- other backends -------------------------------------------------------------------


@ON_TENSORFLOW
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize(
    "some", ["logits or step or mask_of", pytest.param("", marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_other_backends_pass_this_file(backend, some):
    passes_on(backend, __file__, "-k", some)
