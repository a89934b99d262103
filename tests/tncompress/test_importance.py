"""How much tokens of a table move an objective: gathered by `calibrate`, and what it makes of predictions."""

import keras
import numpy as np
import pytest
from keras import ops

from tncompress import calibrate
from tncompress.fitting.embedding import fit_embedding
from tncompress.fitting.frequencies import token_frequencies
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
