"""`plan` and `contract` against one `np.einsum`, explicit loops, tensornetwork, and all backends of Keras."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensornetwork
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import CountingOps, einsum_map, loop_kernel, rounding
from strategies import arrays, seeded_specs, specs

from tncompress import FORMS, Spec, contract, interop, plan, to_dense
from tncompress.forms import expand_condense, low_rank
from tncompress.network.plan import contract_unflattened

ROOT = Path(__file__).parents[2]
MANY = settings(max_examples=300, deadline=None, derandomize=True)
SOME = settings(max_examples=80, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def assert_same_map(spec, x, cores, result, dtype=np.float64):
    """Equal up to the rounding of the contraction and of the oracle's own sum in float64."""
    expected = einsum_map(spec, x, cores)
    assert result.shape == expected.shape
    excess = np.abs(np.asarray(result, np.float64) - expected) - 2 * rounding(spec, x, cores, dtype)
    assert excess.size == 0 or excess.max() <= 0, f"{spec!r}: off by {excess.max()} more than rounding explains"


@MANY
@given(specs(), st.integers(1, 5), seeds)
def test_contract_equals_einsum(spec, batch, seed):
    x, cores = arrays(spec, seed, batch)
    assert_same_map(spec, x, cores, contract(plan(spec), x, cores, np))


@MANY
@given(specs(), st.lists(st.integers(1, 3), max_size=3), seeds)
def test_unflattened_is_the_same_with_any_leading_axes(spec, lead, seed):
    batch = int(np.prod(lead))
    x, cores = arrays(spec, seed, batch)
    shaped = x.reshape(*lead, *x.shape[1:])
    found = contract_unflattened(plan(spec, batch), shaped, cores, np.einsum)
    assert found.shape == (*lead, *spec.shape(spec.outputs))
    assert_same_map(spec, x, cores, found.reshape(batch, *spec.shape(spec.outputs)))


@SOME
@given(specs(max_size=4), seeds)
def test_contract_equals_einsum_in_float32(spec, seed):
    x, cores = arrays(spec, seed, 3, np.float32)
    y = contract(plan(spec), x, cores, np)
    assert y.dtype == np.float32
    assert_same_map(spec, x, cores, y, np.float32)


@SOME
@given(specs(), seeds)
def test_one_plan_serves_every_batch_and_every_plan_gives_the_same(spec, seed):
    for batch in (0, 1, 2, 7):
        x, cores = arrays(spec, seed, batch)
        for planned in (1, 7, 4096):
            assert_same_map(spec, x, cores, contract(plan(spec, planned), x, cores, np))


@SOME
@given(specs(), seeds)
def test_contract_is_linear_in_x_and_in_every_core(spec, seed):
    x, cores = arrays(spec, seed, 2)
    other_x, other_cores = arrays(spec, seed + 1, 2)
    operands, others = [x, *cores], [other_x, *other_cores]
    planned = plan(spec)
    for k in range(len(operands)):
        with_other = [others[j] if j == k else o for j, o in enumerate(operands)]
        with_sum = [2 * o + 3 * others[j] if j == k else o for j, o in enumerate(operands)]
        y, y_other, y_sum = (contract(planned, o[0], o[1:], np) for o in (operands, with_other, with_sum))
        bounds = (rounding(spec, o[0], o[1:], np.float64) for o in (operands, with_other, with_sum))
        y_bound, other_bound, sum_bound = bounds
        # The factors 2 and 3 and the sums round too: two operations more than each contraction by itself.
        assert (np.abs(y_sum - 2 * y - 3 * y_other) <= 3 * (2 * y_bound + 3 * other_bound + sum_bound)).all()


@SOME
@given(specs(max_size=2), seeds)
def test_to_dense_equals_a_loop_over_all_indices(spec, seed):
    _, cores = arrays(spec, seed)
    x = np.eye(spec.in_dim).reshape(spec.in_dim, *spec.shape(spec.inputs))
    bound = 2 * rounding(spec, x, cores, np.float64).reshape(spec.in_dim, spec.out_dim)
    assert (np.abs(to_dense(spec, cores) - loop_kernel(spec, cores)) <= bound).all()


@SOME
@given(specs(), seeds)
def test_the_transposed_spec_is_the_transposed_kernel(spec, seed):
    _, cores = arrays(spec, seed)
    np.testing.assert_allclose(to_dense(spec.T, cores), to_dense(spec, cores).T, rtol=1e-10, atol=1e-10)


def tensornetwork_kernel(spec, cores):
    nodes, in_edges, out_edges = interop.to_nodes(spec, cores)
    tensor = tensornetwork.contractors.auto(nodes, [*in_edges, *out_edges]).tensor
    return np.asarray(tensor).reshape(spec.in_dim, spec.out_dim)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(specs(max_size=2), seeds)
def test_tensornetwork_agrees_on_any_network(spec, seed):
    _, cores = arrays(spec, seed)
    x = np.eye(spec.in_dim).reshape(spec.in_dim, *spec.shape(spec.inputs))
    bound = 2 * rounding(spec, x, cores, np.float64).reshape(spec.in_dim, spec.out_dim)
    assert (np.abs(to_dense(spec, cores) - tensornetwork_kernel(spec, cores)) <= bound).all()


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
@pytest.mark.parametrize("dims", [(8, 12), (12, 8)])
def test_tensornetwork_agrees_on_every_form(form, dims):
    tried = list(form.candidates(*dims, 90))
    assert tried
    for spec in tried:
        _, cores = arrays(spec, 0)
        expected = tensornetwork_kernel(spec, cores)
        np.testing.assert_allclose(to_dense(spec, cores), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


FAST_COMPILER = {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"}
BACKEND_CHECK = """
import sys
sys.path.insert(0, "tests")
import numpy as np
from keras import backend, ops
from oracles import einsum_map, rounding
from strategies import arrays, seeded_specs
from tncompress import contract, plan

count = 0
for spec in seeded_specs({count}, seed=7, max_size=2):  # few shapes: JAX compiles every operation for each of them
    for batch in (1, 3):
        x, cores = arrays(spec, count, batch, np.float32)
        tensors = [ops.convert_to_tensor(core) for core in cores]
        y = ops.convert_to_numpy(contract(plan(spec), ops.convert_to_tensor(x), tensors, ops))
        wanted = einsum_map(spec, x, cores)
        if y.shape != wanted.shape or (np.abs(y - wanted) > 2 * rounding(spec, x, cores, np.float32)).any():
            sys.exit(f"{{backend.backend()}}: {{spec!r}} with a batch of {{batch}}: {{y}} instead of {{wanted}}")
        count += 1
print(backend.backend(), count)
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_every_backend_of_keras_agrees(backend):
    count = 40 if backend == "jax" else 200
    done = subprocess.run(
        [sys.executable, "-c", BACKEND_CHECK.format(count=count)],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2", **FAST_COMPILER},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-2:] == [backend, str(2 * count)]


def test_the_generator_reaches_every_role():
    """Else the tests above would be about less than they say."""
    made = seeded_specs(300)
    assert sum(any(sum(m in core for core in s.cores) > 2 for m in s.bonds) for s in made) > 5, "hyper-edges"
    assert sum(any(not any(m in core for core in s.cores) for m in s.block_modes) for s in made) > 5, "unseen blocks"
    assert sum(any(sum(m in core for core in s.cores) > 1 for m in s.block_modes) for s in made) > 5, "shared blocks"
    assert sum(any(sum(m in core for core in s.cores) > 1 for m in s.inputs) for s in made) > 5, "shared inputs"
    assert sum(1 in s.size.values() for s in made) > 5, "modes of size one"
    assert sum(len(s.inputs) > 1 for s in made) > 5, "several inputs"
    assert {len(s.cores) for s in made} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("spec", "transposes"),
    [
        (low_rank.spec(6, 8, rank=3), 0),
        (expand_condense.expand(6, 8, blocks=2, bond=3), 0),
        (expand_condense.condense(8, 6, blocks=2, bond=3), 0),
        (Spec.parse("i, i o -> o", i=6, o=8), 0),
        # The counter counts: here the network itself asks for another order of the output modes.
        (Spec.parse("a b, a c, b d -> d c", a=2, b=3, c=4, d=5), 1),
    ],
    ids=["low_rank", "expand", "condense", "dense", "kronecker_flipped"],
)
def test_activations_are_not_transposed_without_need(spec, transposes):
    ops = CountingOps()
    x, cores = arrays(spec, 0, ops.batch)
    assert_same_map(spec, x, cores, contract(plan(spec), x, cores, ops))
    assert ops.transposed == transposes


def test_networks_too_large_for_the_exact_search():
    """Rings of six to nine cores: around the border between the two searches."""
    for count in (6, 7, 8, 9):
        spec = Spec.parse(
            f"{' '.join(f'i{k}' for k in range(count))}, "
            + ", ".join(f"r{k} i{k} o{k} r{(k + 1) % count}" for k in range(count))
            + f" -> {' '.join(f'o{k}' for k in range(count))}",
            {
                **{f"{letter}{k}": 1 + k % 2 for k in range(count) for letter in "io"},
                **{f"r{k}": 2 for k in range(count)},
            },
        )
        x, cores = arrays(spec, 0, 2)
        kernel = to_dense(spec, cores)
        np.testing.assert_allclose(kernel, tensornetwork_kernel(spec, cores), atol=1e-12 * np.abs(kernel).max())
        y = contract(plan(spec), x, cores, np).reshape(2, -1)
        np.testing.assert_allclose(y, x.reshape(2, -1) @ kernel, atol=1e-12 * np.abs(y).max())


def test_a_plan_prints_its_steps():
    assert str(plan(low_rank.spec(8, 8, 2), batch=4)).splitlines()[1:] == ["  * i, i r -> * r", "  * r, r o -> * o"]


def test_a_plan_is_made_once():
    assert plan(low_rank.spec(6, 8, 3), 10) is plan(low_rank.spec(6, 8, 3), 10)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_plan_needs_vectors(batch):
    with pytest.raises(ValueError, match=f"at least 1 vector, got {batch}"):
        plan(low_rank.spec(6, 8, 3), batch)
