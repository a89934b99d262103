"""Calibrated fits against whitening done with LAPACK, and against ||X (W - W')|| measured on the samples themselves."""

import numpy as np
import pytest
from oracles import output_error, svd_tail

from tncompress import FORMS, Moments, fit, to_dense
from tncompress.fitting.als import als, random_cores
from tncompress.forms import expand_condense, low_rank

EVERY_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)


def samples(count, in_dim, seed=0, mean=0.0):
    """Correlated vectors with features of very different sizes."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(in_dim, in_dim)) * np.geomspace(1, 0.03, in_dim)
    return generator.normal(size=(count, in_dim)) @ mixing.T + mean * generator.normal(size=in_dim)


def kernel_of(in_dim, out_dim, seed=1):
    return np.random.default_rng(seed).normal(size=(in_dim, out_dim))


def whitened_optimum(x, kernel, rank):
    """||X (W - W')|| of the best W' of that rank: with X^T X = L L^T (Cholesky), the tail of the SVD of L^T W."""
    lower = np.linalg.cholesky(x.T @ x)
    return np.sqrt(svd_tail(lower.T @ kernel, rank))


@pytest.mark.parametrize("dims", [(8, 14), (14, 8), (10, 10)])
@pytest.mark.parametrize("rank", [1, 3, 7])
@pytest.mark.parametrize("centred", [False, True])
def test_calibrated_low_rank_equals_the_whitened_svd(dims, rank, centred):
    x, kernel = samples(400, dims[0], mean=2.0), kernel_of(*dims)
    found = fit(kernel, low_rank.spec(*dims, rank), Moments.of(x), form="low_rank", centred=centred)
    seen = x - x.mean(axis=0) if centred else x
    best = whitened_optimum(seen, kernel, rank) / np.linalg.norm(seen @ kernel)
    assert found.output_error == pytest.approx(best, rel=1e-6)
    assert output_error(x, kernel, to_dense(low_rank.spec(*dims, rank), found.cores), centred=centred) == pytest.approx(
        best, rel=1e-6
    )


@EVERY_FORM
@pytest.mark.parametrize("dims", [(12, 16), (16, 12)])
@pytest.mark.parametrize("centred", [False, True])
def test_the_output_error_is_what_is_measured(form, dims, centred):
    x, kernel = samples(100, dims[0], mean=1.0), kernel_of(*dims)
    spec = next(iter(form.candidates(*dims, 96)))
    found = fit(kernel, spec, Moments.of(x), form=form.name, centred=centred)
    approximation = to_dense(spec, found.cores)
    assert found.output_error == pytest.approx(output_error(x, kernel, approximation, centred=centred), rel=1e-6)
    assert found.weight_error == pytest.approx(
        np.linalg.norm(kernel - approximation) / np.linalg.norm(kernel), rel=1e-9
    )
    if centred:  # with the bias, the mean output is kept exactly
        np.testing.assert_allclose(
            x.mean(axis=0) @ kernel, x.mean(axis=0) @ approximation + found.bias, atol=1e-10 * np.abs(x @ kernel).max()
        )
    else:
        assert found.bias is None


@EVERY_FORM
@pytest.mark.parametrize("dims", [(12, 16), (16, 12)])
def test_calibration_does_not_hurt(form, dims):
    """What is fitted to the samples is no worse on them than what is fitted to the weights."""
    x, kernel = samples(300, dims[0]), kernel_of(*dims)
    for spec in list(form.candidates(*dims, 96))[:2]:
        plain = fit(kernel, spec, form=form.name)
        seen = fit(kernel, spec, Moments.of(x), form=form.name)
        errors = [output_error(x, kernel, to_dense(spec, f.cores), centred=True) for f in (plain, seen)]
        assert errors[1] <= errors[0] * (1 + 1e-6), str(spec)


@EVERY_FORM
def test_centring_with_a_bias_is_no_worse_than_none(form):
    x, kernel = samples(300, 12, mean=3.0), kernel_of(12, 16)
    spec = next(iter(form.candidates(12, 16, 96)))
    centred, plain = (fit(kernel, spec, Moments.of(x), form=form.name, centred=c) for c in (True, False))
    with_bias = np.linalg.norm(x @ kernel - x @ to_dense(spec, centred.cores) - centred.bias)
    without = np.linalg.norm(x @ kernel - x @ to_dense(spec, plain.cores))
    assert with_bias <= without * (1 + 1e-6)


SINGULAR = {
    "fewer samples than features": samples(5, 12),
    "one sample": samples(1, 12),
    "a constant feature": np.where(np.arange(12) == 3, 0.7, samples(100, 12)),
    "a dead unit": np.where(np.arange(12) == 3, 0.0, samples(100, 12)),
    "only dead units": np.zeros((50, 12)),
    "nothing": np.zeros((0, 12)),
    "two equal features": samples(100, 12)[:, [0, 0, *range(2, 12)]],
    "tiny": 1e-18 * samples(100, 12),
    "huge": 1e18 * samples(100, 12),
}


@EVERY_FORM
@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("centred", [False, True])
def test_singular_moments(form, name, centred):
    x, kernel = SINGULAR[name], kernel_of(12, 16)
    spec = next(iter(form.candidates(12, 16, 96)))
    found = fit(kernel, spec, Moments.of(x), form=form.name, centred=centred)
    approximation = to_dense(spec, found.cores)
    assert np.isfinite(approximation).all()
    assert found.output_error <= 1 + 1e-9, "worse than the zero map"
    # What was never seen must not blow up: it decides outputs on other data.
    assert np.linalg.norm(approximation) <= 100 * np.linalg.norm(kernel)


@pytest.mark.parametrize("name", ["fewer samples than features", "a dead unit", "two equal features"])
@pytest.mark.parametrize("dims", [(12, 16), (12, 7)])
def test_calibrated_low_rank_is_optimal_on_singular_moments(name, dims):
    """No Cholesky there; the SVD of X W itself says what is possible (Eckart & Young on the outputs)."""
    x, kernel = SINGULAR[name], kernel_of(*dims)
    found = fit(kernel, low_rank.spec(*dims, 3), Moments.of(x), form="low_rank", centred=False)
    best = np.sqrt(svd_tail(x @ kernel, 3)) / np.linalg.norm(x @ kernel)
    assert found.output_error == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(
    "spec",
    [expand_condense.expand(8, 12, 3, 2), expand_condense.expand(6, 8, 2, 3), expand_condense.expand(5, 12, 2, 4)],
)
def test_calibrated_expand_is_no_worse_than_alternating_least_squares(spec):
    x, kernel = samples(200, spec.in_dim), kernel_of(spec.in_dim, spec.out_dim)
    moments = Moments.of(x)
    found = fit(kernel, spec, moments, form="expand_condense")
    assert found.method.startswith("closed form")
    starts = [als(kernel, spec, random_cores(spec, k), moments.covariance, sweeps=300)[1] for k in range(5)]
    assert found.output_error <= np.sqrt(min(starts)) * (1 + 1e-6)


@pytest.mark.parametrize("spec", [expand_condense.condense(12, 8, 3, 2), expand_condense.condense(8, 6, 2, 3)])
def test_calibrated_condense_is_near_the_best_of_many_starts(spec):
    x, kernel = samples(200, spec.in_dim), kernel_of(spec.in_dim, spec.out_dim)
    moments = Moments.of(x)
    found = fit(kernel, spec, moments, form="expand_condense")
    starts = [als(kernel, spec, random_cores(spec, k), moments.covariance, sweeps=300)[1] for k in range(10)]
    assert found.output_error <= 1.05 * np.sqrt(min(starts))


@EVERY_FORM
def test_without_a_form_alternating_least_squares_does_it(form):
    spec = min(form.candidates(8, 8, 48), key=lambda s: s.num_params)
    kernel = kernel_of(8, 8)
    found = fit(kernel, spec)
    assert found.method == "alternating least squares"
    assert [core.shape for core in found.cores] == list(spec.core_shapes)
    # Each core by itself is optimal, so what is left is at a right angle to what was found.
    approximation = to_dense(spec, found.cores)
    assert abs(np.vdot(approximation, kernel - approximation)) <= 1e-6 * np.vdot(kernel, kernel)


def test_the_kernels_dtype_is_kept():
    kernel = kernel_of(12, 16).astype(np.float32)
    for form in FORMS.values():
        spec = next(iter(form.candidates(12, 16, 96)))
        for moments in (None, Moments.of(samples(50, 12))):
            found = fit(kernel, spec, moments, form=form.name)
            assert {core.dtype for core in found.cores} == {np.dtype(np.float32)}
            assert moments is None or found.bias.dtype == np.float32


def test_a_kernel_of_zeros():
    for form in FORMS.values():
        spec = next(iter(form.candidates(12, 16, 96)))
        for moments in (None, Moments.of(samples(50, 12))):
            found = fit(np.zeros((12, 16)), spec, moments, form=form.name)
            assert found.weight_error == 0
            assert not np.abs(to_dense(spec, found.cores)).max() > 1e-12


@pytest.mark.parametrize(
    ("kernel", "moments", "form", "message"),
    [
        (np.ones((3, 4)), None, "low_rank", r"maps 4 to 3 features, but the kernel has the shape \(3, 4\)"),
        (np.full((4, 3), np.nan), None, "low_rank", "holds NaN or infinity"),
        (np.full((4, 3), np.inf), None, None, "holds NaN or infinity"),
        (np.ones((4, 3)), Moments.of(np.ones((2, 5))), "low_rank", "moments are of 5 features, but the kernel takes 4"),
        (np.ones((4, 3)), None, "svd", "no form 'svd'; choose from"),
    ],
)
def test_errors(kernel, moments, form, message):
    with pytest.raises(ValueError, match=message):
        fit(kernel, low_rank.spec(4, 3, 2), moments, form=form)
