"""Every candidate plan is the same map, on every backend; the plans in place move no activations."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import CountingOps, einsum_map, rounding
from strategies import arrays, specs

from tncompress import FORMS, Spec, contract, plan
from tncompress.forms import low_rank, tt_matrix
from tncompress.network.plan import FEWEST, MOST_FLOPS, candidates

ROOT = Path(__file__).parents[2]
TRAIN = tt_matrix.spec((2, 3, 4), (4, 3, 2), ranks=5)


def assert_all_agree(spec, batch, seed):
    x, cores = arrays(spec, seed, batch)
    wanted, bound = einsum_map(spec, x, cores), 2 * rounding(spec, x, cores, np.float64)
    for name, found in candidates(spec, max(batch, 1)).items():
        y = contract(found, x, cores, np)
        assert y.shape == wanted.shape, name
        assert (np.abs(y - wanted) <= bound).all(), f"{name}: {found}"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(specs(), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_candidates_equal_einsum(spec, batch, seed):
    assert_all_agree(spec, batch, seed)


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_candidates_of_every_form_equal_einsum(form):
    for spec in list(form.candidates(12, 16, 150))[:3]:
        assert_all_agree(spec, 3, 0)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(specs(), st.sampled_from([1, 7, 1000]))
def test_no_two_are_equal_and_the_first_has_the_fewest_flops(spec, batch):
    found = candidates(spec, batch)
    assert next(iter(found)) == FEWEST
    assert found[FEWEST] == plan(spec, batch)
    assert len({p.steps for p in found.values()}) == len(found)
    fewest, peak = found[FEWEST].flops, found[FEWEST].peak_elements
    assert all(fewest <= p.flops for p in found.values())
    assert all(p.flops <= MOST_FLOPS * fewest or p.peak_elements < peak for p in found.values())


def test_ways_that_pay_somewhere_are_among_them():
    assert {"core by core", "fewest FLOPs, in place, bonds first"} <= set(candidates(TRAIN, 1))
    kernel = {*TRAIN.inputs, *TRAIN.outputs}
    assert any(set(p.steps[-1].right_modes) == kernel for p in candidates(TRAIN, 1000).values()), "cores first"
    assert set(candidates(Spec.parse("i, i o -> o", i=3, o=4), 5)) == {FEWEST}


@pytest.mark.parametrize(
    ("name", "transposes"),
    [("core by core, in place", 0), ("fewest FLOPs, in place, bonds first", 0), ("core by core", 3)],
)
def test_in_place_transposes_no_activations_of_a_tensor_train(name, transposes):
    ops = CountingOps()
    x, cores = arrays(TRAIN, 0, ops.batch)
    contract(candidates(TRAIN, 1)[name], x, cores, ops)
    assert ops.transposed == transposes


@pytest.mark.parametrize("batch", [0, -3])
def test_candidates_need_vectors(batch):
    with pytest.raises(ValueError, match=f"at least 1 vector, got {batch}"):
        candidates(low_rank.spec(6, 8, 3), batch)


BACKEND_CHECK = """
import sys
sys.path.insert(0, "tests")
import numpy as np
from keras import backend, ops
from oracles import einsum_map, rounding
from strategies import arrays, seeded_specs
from tncompress import contract
from tncompress.forms import tt_matrix
from tncompress.network.plan import candidates

count = 0
for spec in [tt_matrix.spec((2, 3, 2), (3, 2, 2), ranks=2), *seeded_specs(12, seed=3, max_size=2)]:
    x, cores = arrays(spec, count, 3, np.float32)
    tensors = [ops.convert_to_tensor(core) for core in cores]
    for name, found in candidates(spec, 3).items():
        y = ops.convert_to_numpy(contract(found, ops.convert_to_tensor(x), tensors, ops))
        if (np.abs(y - einsum_map(spec, x, cores)) > 2 * rounding(spec, x, cores, np.float32)).any():
            sys.exit(f"{backend.backend()}: {spec!r} by {name}")
        count += 1
print(backend.backend(), count)
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_every_backend_of_keras_agrees(backend):
    compiler = {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"}
    done = subprocess.run(
        [sys.executable, "-c", BACKEND_CHECK],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2", **compiler},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    name, count = done.stdout.split()[-2:]
    assert name == backend
    assert int(count) > 25
