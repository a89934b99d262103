"""What a model does with a table of embeddings besides looking rows up, such as logits, and what that does to a fit."""

import keras
import numpy as np
import pytest
from backends import passes_on
from keras import layers, ops

from tncompress import calibrate, replace_dense, report
from tncompress.fitting.frequencies import TableUses, token_frequencies
from tncompress.fitting.moments import Moments
from tncompress.fitting.place import Table

IN = 6
TOKENS, PLACES = 16, 2


@keras.saving.register_keras_serializable("test_table_uses")
class ByAttribute(keras.layers.Layer):
    """Logits with the table of another layer."""

    def __init__(self, table, **options):
        super().__init__(**options)
        self.table = table

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.table.embeddings))


def tied(how):
    """Hidden states from words, and logits with the table of words."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((PLACES,), dtype="int32")
    word = (layers.ReversibleEmbedding if how == "reversible" else layers.Embedding)(TOKENS, IN, name="word")
    hidden = layers.Dense(IN, "tanh", name="first")(word(ids))
    logits = {"reversible": lambda x: word(x, reverse=True), "attribute": ByAttribute(word), "not": lambda x: x}[how]
    model = keras.Model(ids, logits(hidden))
    word.embeddings.assign(np.random.default_rng(0).normal(size=(TOKENS, IN)).astype("float32"))
    return model, keras.Model(ids, hidden)


@pytest.mark.parametrize("how", ["reversible", "attribute"])
def test_other_uses_of_a_table(how):
    """A logit is h e^T: what an error of e does to it has the moment h^T h, and what it does to h is not in it."""
    model, until = tied(how)
    rows = TOKENS * PLACES  # of a Hadamard matrix: over so many the signs of places cancel out
    batches = [np.array([pair], "int32") for pair in ((3, 5), (7, 1)) for _ in range(rows)]
    found = calibrate(model, ["word", "first"], batches, objective="outputs")["word"].uses
    h = [ops.convert_to_numpy(until(batch))[0].astype("float64") for batch in batches]  # each [places, features]
    np.testing.assert_allclose(found.moment, TOKENS * sum(each.T @ each for each in h), atol=1e-2)
    np.testing.assert_allclose(found.energies, np.sum(np.square(h)), rtol=1e-5)


def test_a_table_that_is_only_looked_up_has_no_other_use():
    model, _ = tied("not")
    found = calibrate(model, ["word"], np.array([[3, 5], [1, 2]], "int32"), objective="outputs")
    assert found["word"].uses is None or not found["word"].uses.energies.any()
    assert found["word"].gradients.scatter.any()


def test_look_ups_and_other_uses_add_up_over_tokens_and_over_features():
    """Of errors that are the same for all tokens, and of those that are alike in all features, the loss is exact."""
    rng = np.random.default_rng(0)
    counts, gradients = rng.integers(1, 9, 300), Moments.of(rng.normal(size=(20, 8)) * np.geomspace(1, 0.1, 8))
    others = [rng.normal(size=(300, 8)) * np.geomspace(0.1, 1, 300)[:, None] for _ in range(3)]  # the objective's
    uses = sum((TableUses.of(each) for each in others[1:]), TableUses.of(others[0]))
    table = Table(rng.normal(size=(300, 8)), counts, gradients, 0.5, rng.exponential(size=300), uses)
    looked_up = 0.5 * float(token_frequencies(counts) @ table.importance)
    energy = gradients.count / 0.5

    def loss(error):
        return table.unit * float(table.frequencies @ np.einsum("ij,jk,ik->i", error, table.moment, error))

    same = np.tile(rng.normal(size=8), (300, 1))
    exact = looked_up * same[0] @ gradients.second @ same[0]
    exact += sum(np.sum((each @ same[0]) ** 2) for each in others) / energy
    assert loss(same) == pytest.approx(exact)

    sizes = rng.exponential(size=300)
    alike = [sizes[:, None] * np.eye(8)[k] for k in range(8)]
    exact = looked_up * np.trace(gradients.second) * float(token_frequencies(counts) @ sizes**2)
    exact += sum(np.sum(sizes[:, None] ** 2 * each**2) for each in others) / energy
    assert sum(map(loss, alike)) == pytest.approx(exact)
    np.testing.assert_allclose(table.frequencies.sum(), 1)


def test_a_table_that_makes_logits_is_not_given_away():
    """What it loses is foreseen, as what it does to the logits counts."""
    keras.utils.set_random_seed(0)
    draw = np.random.default_rng(0)
    ids = keras.Input((6,), dtype="int32")
    word = keras.layers.ReversibleEmbedding(1200, 24, name="word")
    hidden = keras.layers.Dense(24, "gelu", name="back")(keras.layers.Dense(96, "gelu", name="wide")(word(ids)))
    model = keras.Model(ids, word(hidden, reverse=True))
    word.embeddings.assign(draw.normal(size=(1200, 24)) * np.geomspace(1, 0.2, 24))
    x = np.minimum(draw.zipf(1.3, (400, 6)), 1199).astype("int32")
    small = replace_dense(model, 0.6, embeddings=True, calibration=x, objective="outputs")
    found = report(small)
    assert 0.4 * found.measured_loss < found.predicted_loss < 2.5 * found.measured_loss
    assert found.measured_loss < 0.3


# -- other backends --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="starts the others")
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_pass_this_file(backend):
    passes_on(backend, __file__)
