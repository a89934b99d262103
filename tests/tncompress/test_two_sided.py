"""Fits under moments of inputs and of gradients against LAPACK on kernels whitened from both sides, and loops."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from oracles import output_error, svd_tail

from tncompress import FORMS, Moments, fit, to_dense
from tncompress.fitting import problem
from tncompress.fitting.als import als, random_cores
from tncompress.forms import expand_condense, low_rank

EVERY_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)


def samples(count, width, seed=0, mean=0.0):
    """Correlated vectors with features of very different sizes."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(width, width)) * np.geomspace(1, 0.03, width)
    return generator.normal(size=(count, width)) @ mixing.T + mean * generator.normal(size=width)


def kernel_of(in_dim, out_dim, seed=1):
    return np.random.default_rng(seed).normal(size=(in_dim, out_dim))


def with_gradients(x, g):
    return replace(Moments.of(x), gradients=Moments.of(g))


def damped(g):
    """What `fit` weights outputs with: their second moment over its mean, and 1e-4 of that for all directions."""
    second = g.T @ g
    return second / np.trace(second) * len(second) + 1e-4 * np.eye(len(second))


@pytest.mark.parametrize("dims", [(8, 14), (14, 8), (10, 10)])
@pytest.mark.parametrize("centred", [False, True])
def test_two_sided_low_rank_equals_the_doubly_whitened_svd(dims, centred):
    x, g, kernel = samples(400, dims[0], mean=2.0), samples(300, dims[1], seed=5), kernel_of(*dims)
    found = fit(kernel, low_rank.spec(*dims, 3), with_gradients(x, g), form="low_rank", centred=centred)
    assert found.method == f"closed form, calibrated{' and centred' if centred else ''}, two-sided"
    seen = x - x.mean(axis=0) if centred else x
    whitened = np.linalg.cholesky(seen.T @ seen).T @ kernel @ np.linalg.cholesky(damped(g))
    best = np.sqrt(svd_tail(whitened, 3) / np.vdot(whitened, whitened))
    assert found.loss_error == pytest.approx(best, rel=1e-6)


@EVERY_FORM
def test_the_loss_error_is_what_is_measured_and_less_than_one_sided(form):
    """Every sample with every gradient: the mean of (x (W - W') g)^2, and the damping."""
    x, g, kernel = samples(60, 8, mean=1.0), samples(50, 12, seed=5), kernel_of(8, 12)
    spec = next(iter(form.candidates(8, 12, 60)))
    found = fit(kernel, spec, with_gradients(x, g), form=form.name)

    def loss(matrix):
        outputs = (x - x.mean(axis=0)) @ matrix
        moved = sum((row @ gradient) ** 2 for row in outputs for gradient in g)
        return moved / np.trace(g.T @ g) * len(g.T) + 1e-4 * np.vdot(outputs, outputs)

    measured = np.sqrt(loss(kernel - to_dense(spec, found.cores)) / loss(kernel))
    assert found.loss_error == pytest.approx(measured, rel=1e-6)
    error = output_error(x, kernel, to_dense(spec, found.cores), centred=True)
    assert found.output_error == pytest.approx(error, rel=1e-6)

    one_sided = fit(kernel, spec, Moments.of(x), form=form.name)
    assert one_sided.loss_error is None
    assert measured < 0.95 * np.sqrt(loss(kernel - to_dense(spec, one_sided.cores)) / loss(kernel))
    assert found.output_error >= one_sided.output_error * (1 - 1e-3)


@pytest.mark.parametrize("dims", [(8, 12), (12, 8)])
def test_equal_gradients_change_nothing(dims):
    """With S = identity the two-sided error is the one-sided."""
    x, kernel = samples(200, dims[0]), kernel_of(*dims)
    g = np.sqrt(dims[1]) * np.eye(dims[1])
    for form in ("low_rank", "expand_condense", "kronecker"):
        spec = next(iter(FORMS[form].candidates(*dims, 60)))
        one_sided = fit(kernel, spec, Moments.of(x), form=form)
        two_sided = fit(kernel, spec, with_gradients(x, g), form=form)
        assert two_sided.loss_error == pytest.approx(two_sided.output_error, rel=1e-9)
        assert two_sided.output_error == pytest.approx(one_sided.output_error, rel=1e-2)


@pytest.mark.parametrize("spec", [expand_condense.expand(12, 64, 4, 3), expand_condense.condense(64, 12, 4, 3)])
def test_two_sided_expand_and_condense_are_near_the_best_of_many_starts(spec):
    dims = (spec.in_dim, spec.out_dim)
    x, g, kernel = samples(300, dims[0]), samples(300, dims[1], seed=5), kernel_of(*dims)
    found = fit(kernel, spec, with_gradients(x, g), form="expand_condense")
    metrics = (Moments.of(x).covariance, damped(g))
    starts = [als(kernel, spec, random_cores(spec, k), *metrics, sweeps=100)[1] for k in range(5)]
    assert found.loss_error <= 1.05 * np.sqrt(min(starts))


SINGULAR_GRADIENTS = {
    "fewer gradients than features": samples(5, 16),
    "one gradient": samples(1, 16),
    "an output without effect": np.where(np.arange(16) == 3, 0.0, samples(100, 16)),
    "tiny": 1e-18 * samples(100, 16),
    "huge": 1e18 * samples(100, 16),
}


@pytest.mark.parametrize("form", ["low_rank", "expand_condense", "kronecker"])
@pytest.mark.parametrize("name", SINGULAR_GRADIENTS)
def test_singular_moments_of_gradients(form, name):
    x, kernel = samples(5 if name.startswith("fewer") else 100, 12), kernel_of(12, 16)
    spec = next(iter(FORMS[form].candidates(12, 16, 96)))
    found = fit(kernel, spec, with_gradients(x, SINGULAR_GRADIENTS[name]), form=form)
    approximation = to_dense(spec, found.cores)
    assert found.loss_error <= 1 + 1e-9, "worse than the zero map"
    assert np.linalg.norm(approximation) <= 100 * np.linalg.norm(kernel)


def test_gradients_of_zero_leave_the_one_sided_fit():
    x, kernel = samples(100, 12), kernel_of(12, 16)
    found = fit(kernel, low_rank.spec(12, 16, 3), with_gradients(x, np.zeros((9, 16))), form="low_rank")
    one_sided = fit(kernel, low_rank.spec(12, 16, 3), Moments.of(x), form="low_rank")
    assert (found.method, found.loss_error) == (one_sided.method, None)
    np.testing.assert_array_equal(found.cores[0], one_sided.cores[0])


def test_gradients_of_another_layer():
    moments = with_gradients(np.ones((2, 4)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="moments of gradients are of 4 features, but the kernel makes 3"):
        fit(np.ones((4, 3)), low_rank.spec(4, 3, 2), moments, form="low_rank")


@pytest.mark.parametrize("dims", [(8, 14), (14, 8)])
def test_ranks_beyond_what_was_seen_go_to_the_weights(dims):
    """Three samples vary in two directions: rank 2 is exact there, and of 5 three are free for the rest."""
    x, g, kernel = samples(3, dims[0]), samples(300, dims[1], seed=5), kernel_of(*dims)
    found = {
        rank: fit(kernel, low_rank.spec(*dims, rank), with_gradients(x, g), form="low_rank") for rank in (1, 2, 5, 8)
    }
    assert found[1].loss_error > 1e-2
    for rank in (2, 5, 8):
        assert found[rank].loss_error < 1e-6
        assert found[rank].output_error < 1e-6
    assert found[8].weight_error < found[5].weight_error < found[2].weight_error
    rest = kernel - to_dense(low_rank.spec(*dims, 2), found[2].cores)
    best = np.sqrt(svd_tail(rest, 3) / np.vdot(kernel, kernel))
    assert found[5].weight_error == pytest.approx(best, rel=1e-6)


def test_wide_kernels_need_no_eigenvectors_of_the_outputs(monkeypatch):
    """The larger side's metric is only multiplied with."""
    x, g, kernel = samples(100, 6), samples(100, 40, seed=5), kernel_of(6, 40)
    sizes = []

    def counted(eigh):
        def count(a, *args, **kwargs):
            sizes.append(len(a))
            return eigh(a, *args, **kwargs)

        return count

    for module in (np.linalg, scipy.linalg):
        monkeypatch.setattr(module, "eigh", counted(module.eigh))
    for matrix, moments in ((kernel, with_gradients(x, g)), (kernel.T, with_gradients(g, x))):
        fit(matrix, low_rank.spec(*matrix.shape, 3), moments, form="low_rank")
    assert set(sizes) == {6}


@pytest.mark.parametrize("scale", [1.0, 1e-60])
@pytest.mark.parametrize("large", [False, True])
def test_squared_errors_are_the_traces(large, scale, monkeypatch):
    """Of large kernels by float32, also where an objective's gradients are smaller than float32 can say."""
    if large:
        monkeypatch.setattr(problem, "LARGE", 1)
    rng = np.random.default_rng(0)
    difference = rng.normal(size=(30, 20)) * 1e-3
    metric, out = (a @ a.T * s for a, s in ((rng.normal(size=(30, 9)), 1.0), (rng.normal(size=(20, 7)), scale)))
    found = problem.squared_errors(difference, [None, metric], out)
    for (plain, weighted), inner in zip(found, (np.eye(30), metric), strict=True):
        assert plain == pytest.approx(np.trace(difference.T @ inner @ difference), rel=1e-5 if large else 1e-12)
        assert weighted == pytest.approx(
            np.trace(difference.T @ inner @ difference @ out), rel=1e-5 if large else 1e-12
        )
    assert problem.squared_errors(0 * difference, [metric], out) == [(0.0, 0.0)]
