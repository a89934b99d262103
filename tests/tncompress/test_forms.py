"""Every form in FORMS: sizes, budgets, exact recovery and optimality, each against a formula of its own.

A new file in tncompress/forms takes part without a line here; a form with a known optimum adds a row to OPTIMA.
"""

import numpy as np
import pytest
from oracles import loop_kernel, output_error, svd_tail
from strategies import arrays

from tncompress import FORMS, Moments, Spec, fit, register_form, to_dense
from tncompress.fitting.als import als, random_cores
from tncompress.forms import (
    Form,
    block_diagonal,
    block_tt,
    butterfly,
    cp,
    expand_condense,
    get_form,
    kronecker,
    low_rank,
    monarch,
    tensor_ring,
    tt_matrix,
    tucker,
)
from tncompress.forms.form import holds

DIMS = [(12, 16), (16, 12), (8, 8), (24, 8), (30, 30)]
EVERY_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)


def kernel_of(in_dim, out_dim, seed=0):
    return np.random.default_rng(seed).normal(size=(in_dim, out_dim))


def relative(kernel, spec, cores):
    return float(np.linalg.norm(kernel - to_dense(spec, cores)) / np.linalg.norm(kernel))


# -- candidates ----------------------------------------------------------------------------------


@EVERY_FORM
@pytest.mark.parametrize(("in_dim", "out_dim"), DIMS)
def test_candidates_have_the_dimensions_and_respect_the_budget(form, in_dim, out_dim):
    largest = 0
    for fraction in np.linspace(0.02, 1, 25):
        budget = int(fraction * in_dim * out_dim)
        specs = list(form.candidates(in_dim, out_dim, budget))
        for spec in specs:
            assert (spec.in_dim, spec.out_dim) == (in_dim, out_dim)
            assert spec.num_params <= budget
            assert Spec.from_config(spec.to_config()) == spec
        before, largest = largest, max((spec.num_params for spec in specs), default=0)
        assert largest >= before, f"{form.name} gives {largest} parameters for {budget}, but {before} for less"


@EVERY_FORM
def test_candidates_of_a_large_layer(form):
    """BERT's feed-forward kernel at half its size: there is a candidate, and its budget is used to 90% at least."""
    budget = 768 * 3072 // 2
    used = max(spec.num_params for spec in form.candidates(768, 3072, budget))
    assert 0.9 * budget <= used <= budget


@EVERY_FORM
@pytest.mark.parametrize(("in_dim", "out_dim"), [(7, 13), (1, 1), (1, 8), (2, 2)])
def test_awkward_dimensions_give_valid_candidates_or_none(form, in_dim, out_dim):
    for spec in form.candidates(in_dim, out_dim, 10_000):
        assert (spec.in_dim, spec.out_dim) == (in_dim, out_dim)
        kernel = kernel_of(in_dim, out_dim)
        if form.decompose:
            assert np.isfinite(relative(kernel, spec, form.decompose(kernel, spec)))


@EVERY_FORM
def test_no_budget_no_candidates(form):
    assert list(form.candidates(12, 16, 0)) == []


@EVERY_FORM
def test_the_form_says_what_it_is(form):
    assert form.name == form.name.lower()
    assert form.needs
    assert form.source


# -- recovery ------------------------------------------------------------------------------------


@EVERY_FORM
@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_representable_kernels_are_recovered(form, fraction):
    """A kernel made from cores of the spec, on weights and on outputs."""
    if form.decompose is None and fraction > 0.3:
        pytest.skip("alternating least squares alone may end in a local minimum; see the best of many starts below")
    x = np.random.default_rng(3).normal(size=(200, 12)) @ kernel_of(12, 12, 4)
    moments = Moments.of(x)
    for spec in list(form.candidates(12, 16, int(fraction * 192)))[:3]:
        kernel = to_dense(spec, arrays(spec, 1)[1])
        plain = fit(kernel, spec, form=form.name)
        assert plain.weight_error == pytest.approx(relative(kernel, spec, plain.cores), abs=1e-12)
        assert plain.weight_error < 1e-6, str(spec)
        seen = fit(kernel, spec, moments, form=form.name)
        assert seen.output_error == pytest.approx(
            output_error(x, kernel, to_dense(spec, seen.cores), centred=True), abs=1e-9
        )
        assert seen.output_error < 1e-6, str(spec)


# Specs that can represent every kernel of their dimensions.
FULL = [
    ("low_rank", low_rank.spec(6, 8, rank=6)),
    ("low_rank", low_rank.spec(8, 6, rank=6)),
    ("low_rank", low_rank.spec(6, 8, rank=9)),
    ("kronecker", kronecker.spec((2, 3), (4, 2), rank=6)),
    ("block_tt", block_tt.spec((2, 3), (4, 2), rank=2)),
    ("monarch", monarch.spec(6, 8, in_blocks=6, out_blocks=8)),
    ("monarch", monarch.spec(6, 8, in_blocks=6, out_blocks=2)),
    ("block_diagonal", block_diagonal.spec(6, 8, blocks=1)),
    ("tt_matrix", tt_matrix.spec((6,), (8,), ranks=[])),
    ("tt_matrix", tt_matrix.spec((2, 3), (4, 2), ranks=100)),
    ("tt_matrix", tt_matrix.spec((2, 1, 3), (2, 4, 1), ranks=100)),
    ("tt_matrix", tt_matrix.spec((2, 3, 2), (2, 2, 3), ranks=100)),
    ("tt_matrix", tt_matrix.spec((2, 2, 3), (2, 2, 3), ranks=[7, 20])),
    ("tt_matrix", tt_matrix.spec((2, 2, 2, 2), (2, 1, 2, 3), ranks=100)),
    ("tucker", tucker.spec((2, 3), (4, 2), ranks=(2, 3, 4, 2))),
    ("expand_condense", expand_condense.expand(6, 8, blocks=2, bond=4)),
    ("expand_condense", expand_condense.condense(8, 6, blocks=2, bond=4)),
    ("butterfly", butterfly.spec((1, 6), (8, 1))),
]


@pytest.mark.parametrize(("name", "spec"), FULL, ids=[f"{name}-{k}" for k, (name, _) in enumerate(FULL)])
def test_any_kernel_is_recovered_at_full_rank(name, spec):
    kernel = kernel_of(spec.in_dim, spec.out_dim)
    assert fit(kernel, spec, form=name).weight_error < 1e-6
    # Every closed form puts the right numbers in the right place: the same map by a loop over all indices.
    cores = get_form(name).decompose(kernel, spec)
    np.testing.assert_allclose(loop_kernel(spec, cores), kernel, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_tensor_trains_of_any_length_and_sizes(count, rank):
    for seed in range(5):
        sizes = np.random.default_rng(seed).integers(1, 4, size=(2, count)).tolist()
        spec = tt_matrix.spec(*sizes, ranks=rank)
        kernel = to_dense(spec, arrays(spec, seed)[1])
        assert fit(kernel, spec, form="tt_matrix").weight_error < 1e-6


# -- optimality: squared errors by formulas of their own ------------------------------------------


def low_rank_optimum(kernel, spec):
    return svd_tail(kernel, spec.size["r"])


def kronecker_optimum(kernel, spec):
    """LAPACK's singular values of Van Loan's rearranged matrix, put together entry by entry."""
    a, b, p, q = spec.shape("abpq")
    rearranged = np.empty((a * p, b * q))
    for i, j, k, n in np.ndindex(a, b, p, q):
        rearranged[i * p + k, j * q + n] = kernel[i * b + j, k * q + n]
    return svd_tail(rearranged, spec.size["r"])


def block_diagonal_optimum(kernel, spec):
    g, i, o = spec.shape("gio")
    return sum(
        kernel[r, c] ** 2 for r in range(g * i) for c in range(g * o) if r // i != c // o
    )  # what lies outside of the blocks


def monarch_optimum(kernel, spec):
    a, b, c, d = spec.shape("abcd")
    blocks = [[[kernel[k * b + i, j * c + n] for j in range(d)] for i in range(b)] for k in range(a) for n in range(c)]
    return sum(svd_tail(block, 1) for block in blocks)


def block_tt_optimum(kernel, spec):
    m1, m2, n1, n2, rank = spec.shape(("m1", "m2", "n1", "n2", "r"))
    blocks = [
        [[kernel[i * m2 + k, n * n2 + j] for j in range(n2)] for i in range(m1)] for k in range(m2) for n in range(n1)
    ]
    return sum(svd_tail(block, rank) for block in blocks)


def expand_optimum(kernel, spec):
    """All blocks of the wide side stacked share one matrix."""
    if len(spec.inputs) == 2:
        return expand_optimum(kernel.T, spec.T)
    blocks, width = spec.size["c"], spec.size["e"]
    rows = [kernel[i, c * width : (c + 1) * width] for i in range(len(kernel)) for c in range(blocks)]
    return svd_tail(np.array(rows), spec.size["d"])


def two_core_train_optimum(kernel, spec):
    """The train of two cores is a Kronecker sum under other names."""
    (i0, i1), (o0, o1) = spec.shape(spec.inputs), spec.shape(spec.outputs)
    return kronecker_optimum(kernel, kronecker.spec((i0, i1), (o0, o1), rank=spec.size["r1"]))


OPTIMA = [
    ("low_rank", low_rank_optimum, [low_rank.spec(9, 14, r) for r in (1, 4, 8)] + [low_rank.spec(14, 9, 4)]),
    (
        "kronecker",
        kronecker_optimum,
        [kronecker.spec((3, 4), (2, 5), r) for r in (1, 2, 5)] + [kronecker.spec((2, 2), (8, 2), 3)],
    ),
    ("block_diagonal", block_diagonal_optimum, [block_diagonal.spec(6, 9, 3), block_diagonal.spec(8, 4, 2)]),
    ("monarch", monarch_optimum, [monarch.spec(12, 8, 3, 2), monarch.spec(8, 12, 2, 6), monarch.spec(9, 15, 3, 5)]),
    ("block_tt", block_tt_optimum, [block_tt.spec((4, 3), (2, 5), r) for r in (1, 2, 3)]),
    (
        "expand_condense",
        expand_optimum,
        [
            expand_condense.expand(5, 12, 3, 2),
            expand_condense.condense(12, 5, 3, 2),
            expand_condense.expand(4, 6, 2, 1),
        ],
    ),
    ("tt_matrix", two_core_train_optimum, [tt_matrix.spec((3, 4), (2, 5), r) for r in (1, 3, 5)]),
]
CASES = [(name, optimum, spec) for name, optimum, specs in OPTIMA for spec in specs]


@pytest.mark.parametrize(("name", "optimum", "spec"), CASES, ids=[f"{c[0]}-{k}" for k, c in enumerate(CASES)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_truncated_fits_are_optimal(name, optimum, spec, dtype):
    kernel = kernel_of(spec.in_dim, spec.out_dim, seed=5).astype(dtype)
    found = fit(kernel, spec, form=name)
    best = np.sqrt(optimum(kernel.astype(np.float64), spec)) / np.linalg.norm(kernel.astype(np.float64))
    assert best > 0.01, "the case is no truncation"
    assert best * (1 - 1e-6) <= found.weight_error <= 1.0001 * best
    assert found.weight_error == pytest.approx(relative(kernel, spec, found.cores), rel=1e-4)
    assert [core.dtype for core in found.cores] == [dtype] * len(spec.cores)


@EVERY_FORM
def test_forms_that_say_they_are_optimal_have_a_row_above(form):
    if form.optimal:
        assert form.name in {name for name, _, _ in OPTIMA}


@pytest.mark.parametrize("ranks", [1, 3, [2, 4], [4, 3]])
def test_tt_svd_keeps_its_bound(ranks):
    """Oseledets 2011, theorem 2.2: error^2 <= sum of the tails of all unfoldings, each of which bounds the optimum."""
    spec = tt_matrix.spec((2, 3, 2), (3, 2, 2), ranks)
    kernel = kernel_of(12, 12)
    tensor = kernel.reshape(2, 3, 2, 3, 2, 2).transpose(0, 3, 1, 4, 2, 5).reshape(6, 6, 4)
    tails = [
        svd_tail(tensor.reshape(6, 24), spec.size["r1"]),
        svd_tail(tensor.reshape(36, 4), spec.size["r2"]),
    ]
    error = np.linalg.norm(kernel - to_dense(spec, tt_matrix.decompose(kernel, spec))) ** 2
    assert error <= sum(tails) * (1 + 1e-9)
    improved = (fit(kernel, spec, form="tt_matrix").weight_error * np.linalg.norm(kernel)) ** 2
    assert max(tails) * (1 - 1e-9) <= improved <= error * (1 + 1e-9)


def test_tt_svd_measures_in_orthonormal_cores():
    """A first unfolding `[16, 8]` with more rows than columns: its left factor carries the singular values."""
    spec = tt_matrix.spec((4, 2, 2), (4, 2, 1), [6, 1])
    tensor = kernel_of(16, 8) @ np.diag(np.geomspace(1, 0.01, 8)) @ kernel_of(8, 8, 1)
    kernel = tensor.reshape(4, 4, 2, 2, 2, 1).transpose(0, 2, 4, 1, 3, 5).reshape(16, 8)
    tails = svd_tail(tensor, 6), svd_tail(tensor.reshape(64, 2), 1)
    error = np.linalg.norm(kernel - to_dense(spec, tt_matrix.decompose(kernel, spec))) ** 2
    assert error <= sum(tails) * (1 + 1e-9)


@pytest.mark.parametrize("spec", [tucker.spec((3, 4), (2, 5), (2, 2, 2, 2)), tucker.spec((2, 3), (4, 3), (2, 3, 1, 2))])
def test_hosvd_keeps_its_bound(spec):
    """De Lathauwer et al. 2000, property 10: error^2 <= sum of the tails of the four unfoldings."""
    kernel = kernel_of(spec.in_dim, spec.out_dim)
    tensor = kernel.reshape(spec.shape("abcd"))
    unfolded = [np.moveaxis(tensor, k, 0).reshape(tensor.shape[k], -1) for k in range(4)]
    tails = [svd_tail(matrix, rank) for matrix, rank in zip(unfolded, spec.shape("rspq"), strict=True)]
    error = np.linalg.norm(kernel - to_dense(spec, tucker.decompose(kernel, spec))) ** 2
    assert max(tails) * (1 - 1e-9) <= error <= sum(tails) * (1 + 1e-9)


SMALL = [
    ("butterfly", butterfly.spec((2, 2, 2), (2, 2, 2))),
    ("butterfly", butterfly.spec((2, 3), (3, 2))),
    ("cp", cp.spec((2, 3), (3, 2), rank=3)),
    ("tensor_ring", tensor_ring.spec((2, 2, 2), (2, 2, 2), ranks=2)),
    ("tucker", tucker.spec((2, 3), (3, 2), (1, 2, 2, 1))),
    ("tt_matrix", tt_matrix.spec((2, 2, 2), (2, 2, 2), ranks=2)),
    ("expand_condense", expand_condense.condense(12, 6, 3, 2)),
    ("low_rank", low_rank.spec(8, 8, 3)),
]


@pytest.mark.parametrize(("name", "spec"), SMALL, ids=[f"{name}-{k}" for k, (name, _) in enumerate(SMALL)])
@pytest.mark.parametrize("calibrated", [False, True])
def test_fits_are_near_the_best_of_many_starts(name, spec, calibrated):
    kernel = kernel_of(spec.in_dim, spec.out_dim)
    x = np.random.default_rng(2).normal(size=(300, spec.in_dim)) @ kernel_of(spec.in_dim, spec.in_dim, 3)
    moments = Moments.of(x) if calibrated else None
    metric = moments.covariance if moments else None
    found = fit(kernel, spec, moments, form=name)
    error = found.output_error if calibrated else found.weight_error
    starts = [als(kernel, spec, random_cores(spec, 100 + k), metric, sweeps=300)[1] for k in range(10)]
    assert error <= 1.05 * np.sqrt(min(starts))


@EVERY_FORM
def test_alternating_least_squares_does_not_worsen_a_closed_form(form):
    if form.decompose is None:
        pytest.skip("has no closed form")
    for spec in list(form.candidates(12, 16, 96))[:3]:
        kernel = kernel_of(12, 16)
        cores = form.decompose(kernel, spec)
        first = relative(kernel, spec, cores)
        improved, squared = als(kernel, spec, cores, sweeps=50)
        assert relative(kernel, spec, improved) == pytest.approx(np.sqrt(squared), rel=1e-9)
        assert np.sqrt(squared) <= first * (1 + 1e-9)
        if form.optimal:
            assert first <= np.sqrt(squared) * (1 + 1e-6)


# -- the table of forms --------------------------------------------------------------------------


def test_a_new_form_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr("tncompress.forms.FORMS", {**FORMS})
    new = Form("mine", lambda in_dim, out_dim, max_params: [low_rank.spec(in_dim, out_dim, 1)])
    assert register_form(new) is new
    assert get_form("mine") is new
    register_form(new)  # the same again is no conflict
    kernel = np.outer([1.0, 2.0], [3.0, 4.0, 5.0])
    assert fit(kernel, low_rank.spec(2, 3, 1), form="mine").weight_error < 1e-6
    with pytest.raises(ValueError, match="There is a form 'mine' already"):
        register_form(Form("mine", low_rank.candidates))


def test_an_unknown_form():
    with pytest.raises(ValueError, match=r"no form 'svd'; choose from .*low_rank.*tucker\.$"):
        get_form("svd")
    with pytest.raises(ValueError, match=r"tucker\. Did you mean low_rank\?$"):
        get_form("lowrank")


def test_all_files_are_found():
    ours = (block_diagonal, block_tt, butterfly, cp, expand_condense, kronecker)
    ours += (low_rank, monarch, tensor_ring, tt_matrix, tucker)
    assert all(FORMS[module.FORM.name] is module.FORM for module in ours)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tt_matrix.spec((2, 3), (4,), 2), "as many output modes as input modes"),
        (lambda: tt_matrix.spec((2, 3), (4, 5), [2, 2]), "2 cores have 1 bonds"),
        (lambda: tensor_ring.spec((2, 3), (4,), 2), "as many output modes"),
        (lambda: tensor_ring.spec((2, 3), (4, 5), [2]), "A ring of 2 cores has 2 bonds"),
        (lambda: butterfly.spec((2,), (4,)), "two or more input modes"),
    ],
)
def test_wrong_sizes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize(
    ("form", "spec"),
    [
        ("low_rank", low_rank.spec(6, 8, 9)),
        ("low_rank", low_rank.spec(8, 6, 9)),
        ("kronecker", kronecker.spec((2, 3), (4, 2), 9)),
        ("expand_condense", expand_condense.expand(6, 8, 2, 9)),
        ("expand_condense", expand_condense.condense(8, 6, 2, 9)),
        ("block_tt", block_tt.spec((2, 3), (4, 2), 5)),
        ("tucker", tucker.spec((2, 3), (4, 2), (5, 5, 5, 5))),
        ("tt_matrix", tt_matrix.spec((2, 3), (4, 2), (20,))),
    ],
    ids=str,
)
def test_ranks_wider_than_useful_are_exact(form, spec, calibrated):
    """Anything that the form can represent at all; here every kernel."""
    rng = np.random.default_rng(5)
    kernel = rng.normal(size=(spec.in_dim, spec.out_dim))
    moments = Moments.of(rng.normal(size=(50, spec.in_dim))) if calibrated else None
    assert fit(kernel, spec, moments, form=form).weight_error < 1e-6


@pytest.mark.parametrize(
    "make",
    [
        lambda: expand_condense.expand(768, 3072, 7, 8),
        lambda: expand_condense.condense(3072, 768, 7, 8),
        lambda: monarch.spec(7, 9, 2, 2),
        lambda: block_diagonal.spec(7, 9, 2),
    ],
)
def test_blocks_that_do_not_divide_are_refused(make):
    with pytest.raises(ValueError, match=r"do not split into \d equal blocks; choose one of"):
        make()


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.decompose])
def test_a_form_holds_its_own_specs_only(name):
    specs = {other: next(iter(form.candidates(48, 96, 2000))) for other, form in FORMS.items()}
    assert [other for other, spec in specs.items() if holds(FORMS[name], spec)] == [name]
