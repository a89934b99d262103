"""`cost` against loops that count, and against the figures of facts/bert_encoders.md."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import arrays, specs

from tncompress import FORMS, Spec, cost, plan
from tncompress.forms import expand_condense, low_rank
from tncompress.network.cost import dense_spec

SOME = settings(max_examples=100, deadline=None, derandomize=True)


def count_by_loops(spec, batch):
    """Operations, bytes moved in float64 and the largest result of a plan's order, carried out index by index."""
    size = {**spec.size, "batch": batch}
    operands = [("batch", *spec.inputs), *spec.cores]
    operations = moved = peak = 0
    for step in plan(spec, batch).steps:
        pair = [operands[step.left], operands[step.right]]
        operands = [o for k, o in enumerate(operands) if k not in (step.left, step.right)]
        later = {m for term in (*operands, ("batch", *spec.outputs)) for m in term}
        modes = sorted(set(pair[0]) | set(pair[1]))
        kept = [m for m in modes if m in later]
        sums = {}
        for values in itertools.product(*(range(size[m]) for m in modes)):
            at = tuple(v for m, v in zip(modes, values, strict=True) if m in kept)
            sums[at] = sums.get(at, 0) + 1
            operations += 1 if kept == modes else 2  # a product, and an addition where something is summed
        moved += sum(math.prod(size[m] for m in term) for term in pair) + len(sums)
        peak = max(peak, len(sums))
        operands.append(tuple(kept))
    return operations, 8 * moved, 8 * peak


@SOME
@given(specs(max_size=2), st.integers(1, 3))
def test_counts_equal_those_of_loops(spec, batch):
    counted = cost(spec, batch, itemsize=8)
    assert (counted.flops, counted.bytes_moved, counted.peak_bytes) == count_by_loops(spec, batch)


@SOME
@given(specs(), st.integers(1, 5))
def test_params_are_the_sizes_of_the_arrays(spec, batch):
    assert cost(spec, batch).params == spec.num_params == sum(core.size for core in arrays(spec, 0)[1])
    assert spec.T.num_params == spec.num_params


@SOME
@given(specs(min_size=2), st.integers(1, 5))
def test_a_plan_is_never_dearer_than_the_naive_sum(spec, batch):
    """One loop over all modes: len(cores) products for each of the terms, and an addition where something is summed.

    A step that sums halves what comes after it at least, so no pairwise order exceeds that, if no summed mode is of
    size one (those count as sums here as there, but halve nothing).
    """
    summed = any(m not in spec.outputs for m, _ in spec.sizes)
    naive = batch * math.prod(s for _, s in spec.sizes) * (len(spec.cores) + summed)
    assert plan(spec, batch).flops <= naive


@SOME
@given(specs(max_size=4), st.integers(1, 8))
def test_a_plan_is_as_cheap_as_any_order(spec, batch):
    assume(len(spec.cores) <= 3)
    assert plan(spec, batch).flops == cheapest((("batch", *spec.inputs), *spec.cores), spec, batch)


def cheapest(terms, spec, batch):
    """FLOPs of the best order, by trying every one."""
    if len(terms) == 1:
        return 0
    size, best = {**spec.size, "batch": batch}, math.inf
    for pair in itertools.combinations(range(len(terms)), 2):
        rest = [term for k, term in enumerate(terms) if k not in pair]
        needed = {m for term in (*rest, ("batch", *spec.outputs)) for m in term}
        modes = set(terms[pair[0]]) | set(terms[pair[1]])
        flops = math.prod(size[m] for m in modes) * (2 if modes - needed else 1)
        best = min(best, flops + cheapest((*rest, tuple(sorted(modes & needed))), spec, batch))
    return best


# facts/bert_encoders.md line 74: "TN FFN 4H^2 + 4*128*m*H (m=4, H=768: 2,359,296 + 1,572,864 = 3,932,160)" per token;
# design.md 3.7: 589,824 + 65,536 weights for each of the two maps; "dense FFN 16H^2".
FIGURES = [
    ("TN-BERT expand", expand_condense.expand(768, 3072, 6, 128), 655_360, (2_359_296 + 1_572_864) // 2),
    ("TN-BERT condense", expand_condense.condense(3072, 768, 6, 128), 655_360, (2_359_296 + 1_572_864) // 2),
    ("dense 768 to 3072", dense_spec(768, 3072), 768 * 3072, 16 * 768**2 // 2),
    ("low rank 64", low_rank.spec(768, 3072, 64), 64 * (768 + 3072), 2 * 64 * (768 + 3072)),
]


@pytest.mark.parametrize(("spec", "params", "flops_per_token"), [f[1:] for f in FIGURES], ids=[f[0] for f in FIGURES])
def test_known_figures(spec, params, flops_per_token):
    tokens = 1024
    assert cost(spec, tokens).params == params
    assert cost(spec, tokens).flops == flops_per_token * tokens


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_every_form_transposed_has_as_many_parameters(form):
    for spec in form.candidates(12, 16, 150):
        assert spec.T.num_params == spec.num_params == sum(np.prod(shape) for shape in spec.core_shapes)


def test_dense_is_one_matrix():
    assert dense_spec(3, 4) == Spec.parse("i, i o -> o", i=3, o=4)
