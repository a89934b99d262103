"""How much tokens of a table move an objective: gathered by `calibrate`, and what it makes of predictions."""

import keras
import numpy as np
import pytest
from keras import ops

from tncompress import calibrate, replace_dense, report
from tncompress.fitting.embedding import fit_embedding
from tncompress.fitting.frequencies import TableUses, token_frequencies
from tncompress.fitting.moments import Moments
from tncompress.fitting.offers import table_offers
from tncompress.fitting.place import Table

TOKENS, DIM = 40, 6
SCALES = np.linspace(0.5, 2, TOKENS).astype("float32")
IDS = np.random.default_rng(0).integers(0, TOKENS // 2, (30, 7)).astype("int32")
MASK = np.random.default_rng(1).integers(0, 2, IDS.shape).astype("int32")
MASK[:, 0] = 1


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("ids", "input_mask")}
    return keras.Model(inputs, keras.layers.Embedding(TOKENS, DIM, name="word")(inputs["ids"]))


def objective(outputs, x):
    """Its gradient at a token is the token's scale times signs."""
    scales = ops.take(ops.convert_to_tensor(SCALES), x["ids"], axis=0) * ops.cast(x["input_mask"], "float32")
    return ops.sum(outputs * scales[..., None], axis=1)


def batches(size):
    return [{"ids": IDS[k : k + size], "input_mask": MASK[k : k + size]} for k in range(0, len(IDS), size)]


@pytest.mark.parametrize("size", [30, 7, 1])
def test_energies_of_tokens(model, size):
    seen = calibrate(model, ["word"], batches(size), objective=objective)["word"]
    counts = np.bincount(IDS[MASK == 1], minlength=TOKENS)
    np.testing.assert_array_equal(seen.counts, counts)
    np.testing.assert_array_equal(seen.observed, counts)  # all rows give gradients: there are few
    np.testing.assert_allclose(seen.energies, counts * SCALES**2 * DIM, rtol=1e-5)
    total = np.trace(seen.gradients.second) * seen.gradients.count
    assert seen.energies.sum() == pytest.approx(total, rel=1e-5)


def test_without_an_objective_all_are_alike(model):
    assert calibrate(model, ["word"], batches(10))["word"].importance is None


def test_predicted_losses_of_offers_by_loops():
    """Tokens to come weigh as much more than those that were seen as their gradients have more energy."""
    rng = np.random.default_rng(0)
    table, counts, importance = rng.normal(size=(300, 8)), rng.integers(1, 9, 300), rng.exponential(size=300)
    gradients, chances = Moments.of(rng.normal(size=(20, 8))), token_frequencies(counts)
    offers = table_offers(Table(table, counts, gradients, 0.5, importance))
    for offer in (offers[0], offers[len(offers) // 2]):
        lost = table - fit_embedding(table, chances, offer.what.bands, gradients.second).to_dense()
        by_token = [chance * row @ gradients.second @ row for chance, row in zip(chances, lost, strict=True)]
        factor = sum(chance * energy for chance, energy in zip(chances, importance, strict=True))
        assert offer.loss == pytest.approx(0.5 * factor * sum(by_token), rel=1e-6)


# -- other uses than look-ups ------------------------------------------------------------------------


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
