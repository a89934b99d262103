"""Fits of tables in bands against LAPACK's SVD and explicit loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tncompress.fitting.embedding import checked_bands, fit_embedding, num_params
from tncompress.fitting.embedding_options import embedding_options
from tncompress.fitting.frequencies import TokenCounts, token_counts, token_frequencies, token_importance, token_order

quick = settings(max_examples=60, deadline=None)


@st.composite
def problems(draw):
    """A table, counts, bands and a moment, which may be singular, of zeros, or None."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    dim, rows = draw(st.integers(1, 6)), draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    bands = tuple((n, draw(st.sampled_from([None, *range(1, dim + 1)]))) for n in rows)
    table = rng.normal(size=(sum(rows), dim)) @ rng.normal(size=(dim, dim))
    frequencies = 0.1 + rng.poisson(rng.exponential(3, len(table)))
    samples = draw(st.sampled_from([None, 0, 1, dim - 1, 3 * dim]))
    moment = None
    if samples is not None:
        x = rng.normal(size=(samples, dim))
        moment = x.T @ x
    return table, frequencies, bands, moment


def loss_by_loops(table, approximation, weights, moment):
    total = 0.0
    for row, other, weight in zip(table, approximation, weights, strict=True):
        difference = row - other
        total += weight * sum(
            difference[i] * moment[i, j] * difference[j] for i in range(len(moment)) for j in range(len(moment))
        )
    return total


def best_loss(table, weights, moment, rank):
    """By LAPACK's SVD of the weighted rows in the moment's own coordinates."""
    values, vectors = np.linalg.eigh(moment)
    weighted = np.sqrt(weights)[:, None] * table @ (vectors * np.sqrt(np.clip(values, 0, None)))
    return float(np.sum(np.linalg.svd(weighted, compute_uv=False)[rank:] ** 2))


def worths(table, frequencies, metric):
    """What every token would cost if it were all zeros."""
    return [loss_by_loops([row], [0 * row], [weight], metric) for row, weight in zip(table, frequencies, strict=True)]


def floor(table, frequencies, metric):
    """Ten times what the floor under the moment's eigenvalues, 1e-10 of the largest, may count."""
    return 1e-9 * np.linalg.eigvalsh(metric)[-1] * np.sum(frequencies[:, None] * table**2)


def metric_of(moment, dim):
    return np.eye(dim) if moment is None or not moment.any() else moment


@quick
@given(problems())
def test_every_band_is_the_best_of_its_rank(problem):
    table, frequencies, bands, moment = problem
    fit = fit_embedding(table, frequencies, bands, moment)
    metric, order = metric_of(moment, table.shape[1]), np.argsort(fit.position)
    falling = np.array(worths(table, frequencies, metric))[order]
    assert (np.diff(falling) <= 1e-9 * np.max(falling)).all()
    dense, tolerance, first = fit.to_dense(), floor(table, frequencies, metric), 0
    for rows, rank in bands:
        tokens, first = order[first : first + rows], first + rows
        reached = loss_by_loops(table[tokens], dense[tokens], frequencies[tokens], metric)
        best = best_loss(table[tokens], frequencies[tokens], metric, table.shape[1] if rank is None else rank)
        assert best - tolerance <= reached <= best + tolerance


@quick
@given(problems())
def test_losses_are_what_they_say(problem):
    table, frequencies, bands, moment = problem
    fit = fit_embedding(table, frequencies, bands, moment)
    metric, chances = metric_of(moment, table.shape[1]), frequencies / frequencies.sum()
    lost = loss_by_loops(table, fit.to_dense(), chances, metric)
    size = loss_by_loops(table, 0 * table, chances, metric)
    rounding = 1e-5 * floor(table, chances, metric)
    assert fit.loss == pytest.approx(lost, rel=1e-9, abs=rounding)
    assert fit.output_error**2 == pytest.approx(lost / size, rel=1e-9, abs=rounding / size)
    weights = np.sum((table - fit.to_dense()) ** 2) / np.sum(table**2)
    assert fit.weight_error**2 == pytest.approx(weights, rel=1e-9, abs=1e-14)


@quick
@given(problems(), st.data())
def test_predicted_losses_are_those_of_fits(problem, data):
    table, frequencies, _, moment = problem
    options = embedding_options(table, frequencies, moment, cuts=range(1, len(table), 5))
    metric = metric_of(moment, table.shape[1])
    tolerance = floor(table, frequencies / frequencies.sum(), metric)
    for option in data.draw(st.lists(st.sampled_from(options), min_size=1, max_size=4)):
        fit = fit_embedding(table, frequencies, option.bands, moment)
        assert option.predicted_loss == pytest.approx(fit.loss, rel=1e-9, abs=tolerance)
        arrays = [*fit.tables, *(p for p in fit.projections if p is not None)]
        assert option.num_params == sum(array.size for array in arrays)
    assert options[-1].predicted_loss <= tolerance


def test_options_are_a_front():
    table = np.random.default_rng(0).normal(size=(300, 16)) * np.geomspace(1, 0.1, 16)
    frequencies = 1 / np.arange(1, 301)
    options = embedding_options(table, frequencies)
    assert [option.num_params for option in options] == sorted({option.num_params for option in options})
    losses = [option.predicted_loss for option in options]
    assert losses == sorted(losses, reverse=True)
    assert options[-1].bands == ((300, None),)
    assert {len(option.bands) for option in options} == {1, 2, 3}
    assert {len(option.bands) for option in embedding_options(table, frequencies, max_bands=2)} == {1, 2}


def test_what_the_moment_does_not_see_is_fitted_last():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(40, 6))
    moment = np.diag([1.0, 1.0, 0, 0, 0, 0])
    fit = fit_embedding(table, np.ones(40), ((40, 4),), moment)
    np.testing.assert_allclose(fit.to_dense()[:, :2], table[:, :2], atol=1e-6)
    # Two ranks say all that is seen, and what of the rest follows from it; two are left for the other four features.
    seen, unseen = table[:, :2], table[:, 2:]
    residual = unseen - seen @ np.linalg.lstsq(seen, unseen, rcond=None)[0]
    best = np.sum(np.linalg.svd(residual, compute_uv=False)[2:] ** 2)
    assert np.sum((table - fit.to_dense()) ** 2) == pytest.approx(best, rel=1e-4)


def test_rare_tokens_take_what_is_left():
    rng = np.random.default_rng(0)
    table = np.concatenate([rng.normal(size=(10, 1)) @ rng.normal(size=(1, 4)), rng.normal(size=(10, 4))])
    fit = fit_embedding(table, np.repeat([1, 1e-9], 10), ((20, 2),))
    np.testing.assert_allclose(fit.to_dense()[:10], table[:10], atol=1e-3)
    assert 0.1 < fit.weight_error < 0.9  # two directions of four


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_dtype_stays_and_a_large_table_is_read_in_blocks(dtype):
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(9000, 3)) @ rng.normal(size=(3, 8))).astype(dtype)
    fit = fit_embedding(table, rng.integers(1, 9, 9000), ((4500, None), (4500, 3)))
    assert {array.dtype for array in (*fit.tables, fit.projections[1])} == {np.dtype(dtype)}
    np.testing.assert_allclose(fit.to_dense(), table, atol=40 * np.finfo(dtype).eps)
    assert fit.position.dtype == np.int32


def test_counts_against_loops():
    rng = np.random.default_rng(0)
    batches = [(rng.integers(0, 9, shape), None) for shape in ((4,), (2, 3), (2, 3, 4), ())]
    batches += [
        (ids := rng.integers(0, 9, (5, 7)), rng.integers(0, 2, ids.shape)),
        (np.full((2, 2), 3), np.ones((2, 2))),
    ]
    expected = [0] * 9
    for ids, mask in batches:
        for token, counts in zip(np.ravel(ids), np.ravel(np.ones_like(ids) if mask is None else mask), strict=True):
            expected[token] += int(counts)
    assert token_counts(batches, 9).tolist() == expected
    assert token_counts([(np.array([[99, 1]]), np.array([[0, 1]]))], 2).tolist() == [0, 1]  # padding may be anything


def test_unseen_tokens_share_what_good_and_turing_give_them():
    counts = np.array([50, 30, 10, 4, 2, 1, 1, 1, 1, 0, 0, 0])
    found = token_frequencies(counts, other_texts=0)
    assert found.sum() == pytest.approx(1)
    # What is added to all counts, as a fraction of the whole, is the fraction of those that occurred once.
    assert len(counts) * found[-1] == pytest.approx(4 / counts.sum())
    assert found[0] - found[1] == pytest.approx(20 / counts.sum() * (1 - 4 / counts.sum()))
    np.testing.assert_allclose(token_frequencies(counts, other_texts=0.25), 0.75 * found + 0.25 / 12)
    assert token_frequencies(np.zeros(4)).tolist() == [0.25] * 4


def test_order():
    table = np.array([[1.0], [-3.0], [2.0], [9.0], [1.0], [9.0]])
    assert token_order(np.array([1, 1, 1, 5, 7, 5]), table, np.eye(1)).tolist() == [3, 5, 1, 4, 2, 0]
    assert token_order(np.ones(6), table, np.eye(1)).tolist() == [3, 5, 1, 2, 0, 4]


def test_neighbouring_ids_share_what_is_unseen():
    rng = np.random.default_rng(0)
    chances = np.repeat([8.0, 1.0], 2000)  # a vocabulary whose first half is more common
    chances /= chances.sum()
    counts = rng.multinomial(3000, chances)
    found = token_frequencies(counts, other_texts=0)
    unseen = counts == 0
    first, last = found[:2000][unseen[:2000]].mean(), found[2000:][unseen[2000:]].mean()
    assert first > 2 * last > 0
    more = rng.multinomial(10**6, chances) / 1e6  # what comes next: nearer than where all tokens are alike
    alike = token_frequencies(counts, smoothing=float(np.mean(counts == 1)), other_texts=0)
    assert np.abs(found - more)[unseen].sum() < 0.9 * np.abs(alike - more)[unseen].sum()


def test_importance_against_loops():
    rng = np.random.default_rng(0)
    counts = np.array([9, 7, 5, 3, 3, 2, 1, 1, 0, 0])
    seen = [(token, rng.exponential()) for token in range(8) for _ in range(min(3, counts[token]))]
    energies, observed = np.zeros(10), np.zeros(10)
    for token, energy in seen:
        energies[token], observed[token] = energies[token] + energy, observed[token] + 1
    overall = np.mean([energy for _, energy in seen])
    groups = [{0}, {1, 2}, {3, 4}, {5}, {6, 7, 8, 9}]  # 9; 5 to 8; 3 and 4; 2; 1 and fewer
    for group in groups:
        usual = np.mean([energy for token, energy in seen if token in group])
        for token in group:
            own = [energy for other, energy in seen if other == token] + [usual]
            assert token_importance(counts, energies, observed)[token] == pytest.approx(np.mean(own) / overall)


def test_importance_of_streams_that_are_joined():
    one = TokenCounts(np.array([2, 1, 0]), None, np.array([2.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    both = one + TokenCounts(np.array([1, 0, 1]))
    np.testing.assert_array_equal(both.energies, one.energies)
    np.testing.assert_array_equal((one + one).observed, [2, 2, 0])
    assert TokenCounts(np.array([1, 2])).importance is None
    assert both.importance is not None
    np.testing.assert_allclose(
        (one + one).importance, token_importance(2 * one.counts, 2 * one.energies, 2 * one.observed)
    )


def test_parameters_by_hand():
    bands = checked_bands([[2, 4], (3, 1)], 5, 4)
    assert bands == ((2, None), (3, 1))
    assert num_params(bands, 4) == 2 * 4 + 3 * 1 + 1 * 4


TABLE = np.ones((5, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checked_bands([(4, 2)], 5, 4), "5 in all, got 4"),
        (lambda: checked_bands([(5, 2), (0, 1)], 5, 4), "at least a token each"),
        (lambda: checked_bands([(5, 5)], 5, 4), "from 1 to 4, or None"),
        (lambda: checked_bands([(5, 0)], 5, 4), "from 1 to 4, or None"),
        (lambda: checked_bands([5], 5, 4), "pairs of"),
        (lambda: fit_embedding(TABLE, np.ones(4), ((5, 2),)), "5 tokens and needs as many frequencies"),
        (lambda: fit_embedding(TABLE, np.arange(5), ((5, 2),)), "above zero; token_frequencies"),
        (lambda: fit_embedding(TABLE, np.ones(5) * np.inf, ((5, 2),)), "finite and above zero"),
        (lambda: token_frequencies(-np.ones(5)), "none below zero"),
        (lambda: fit_embedding(TABLE * np.nan, np.ones(5), ((5, 2),)), "not finite"),
        (lambda: fit_embedding(TABLE[0], np.ones(5), ((5, 2),)), r"\[tokens, dim\], got the shape \(4,\)"),
        (lambda: fit_embedding(TABLE, np.ones(5), ((5, 2),), np.eye(3)), r"shape \(4, 4\), got \(3, 3\)"),
        (lambda: embedding_options(TABLE, np.ones(5), max_bands=4), "1, 2 or 3, got 4"),
        (lambda: token_counts([(np.array([5]), None)], 5), "from 0 to 4, got 5"),
        (lambda: token_counts([(np.array([-1]), None)], 5), "from 0 to 4, got -1"),
        (lambda: token_counts([(np.array([1]), np.ones((1, 1)))], 5), r"shape \(1,\) of its ids, got \(1, 1\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
