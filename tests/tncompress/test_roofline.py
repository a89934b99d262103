"""Predicted times: worked out by hand, charged for what `contract` does, and what is chosen by them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import arrays, specs

from tncompress import Spec, contract, plan
from tncompress.forms import low_rank, tt_matrix
from tncompress.hardware.device import DEVICES, Device
from tncompress.hardware.roofline import FOLDED, fastest, plan_seconds
from tncompress.network.plan import candidates

# Of no processor: with whole tiles of one, time is the larger of work and traffic alone.
TOY = Device("toy", "gpu", (("float32", 1e9), ("bfloat16", 2e9)), 1e9, 1e-3, (("float32", 1), ("bfloat16", 1)))
TRAIN = tt_matrix.spec((8, 8, 12), (12, 16, 16), ranks=8)


def test_one_matmul_by_hand():
    dense = plan(Spec.parse("i, i o -> o", i=100, o=200), 50)
    work, traffic = 2 * 50 * 100 * 200 / 1e9, 4 * (50 * 100 + 100 * 200 + 50 * 200) / 1e9
    assert plan_seconds(dense, TOY) == pytest.approx(max(work, traffic) + 1e-3)
    assert plan_seconds(dense, replace(TOY, bytes_per_second=1e6)) == pytest.approx(1e3 * traffic + 1e-3)
    assert plan_seconds(dense, TOY, "bfloat16") == pytest.approx(work / 2 + 1e-3)


def test_a_transpose_is_traffic_and_a_start():
    summed_first = plan(Spec.parse("a b, a c -> b c", a=4, b=5, c=6), 10)  # [10, 4, 5] -> [10, 5, 4] before the matmul
    free = replace(TOY, rates=(("float32", math.inf),))
    matmul, transpose = 10 * 4 * 5 + 4 * 6 + 10 * 5 * 6, 2 * 10 * 4 * 5
    assert plan_seconds(summed_first, free) == pytest.approx(4 * (matmul + transpose) / 1e9 + 2e-3)
    one = plan(Spec.parse("a b, a c -> b c", a=4, b=1, c=6), 10)  # a reshape
    assert plan_seconds(one, free) == pytest.approx(4 * (10 * 4 + 4 * 6 + 10 * 6) / 1e9 + 1e-3)


class Counting:
    """numpy, but counting matmuls, and transposes that change the order of numbers."""

    def __init__(self):
        self.count = 0

    def transpose(self, array, axes):
        long = [axis for axis in axes if array.shape[axis] > 1]
        self.count += long != sorted(long)
        return np.transpose(array, axes)

    def matmul(self, left, right):
        self.count += 1
        return np.matmul(left, right)

    reshape = staticmethod(np.reshape)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(specs(), st.integers(1, 3))
def test_every_operation_of_contract_is_charged_a_start_and_no_other(spec, batch):
    starts = Device("starts", "gpu", (("float32", math.inf),), math.inf, 1.0, (("float32", 1),))
    x, cores = arrays(spec, 0, batch)
    for found in candidates(spec, batch).values():
        ops = Counting()
        contract(found, x, cores, ops)
        assert plan_seconds(found, starts) == ops.count


@settings(max_examples=60, deadline=None, derandomize=True)
@given(specs(max_size=5), st.integers(1, 3000), st.sampled_from(["cpu", "tpu-v5e", "gpu-a100"]), st.booleans())
def test_the_fastest_is_first_and_all_are_there(spec, batch, device, fold):
    found = fastest(spec, batch, device, "bfloat16", fold=fold)
    seconds = [each.seconds for each in found.estimates]
    assert seconds == sorted(seconds)
    assert min(seconds) > 0
    assert {each.name for each in found.estimates} == {*candidates(spec, batch), *([FOLDED] if fold else [])}
    text = str(found)
    assert text.count("chosen") == 1
    assert all(each.name in text for each in found.estimates)


def test_one_layer_has_other_plans_for_one_token_than_for_many():
    one, many = (fastest(tt_matrix.spec((8, 8, 12), (12, 16, 16), 32), n, "cpu", fold=True) for n in (1, 4096))
    assert one.name != many.name == FOLDED
    assert fastest(TRAIN, 4096, "cpu", fold=True).name != FOLDED


def test_more_of_anything_takes_no_less_time():
    for name, found in candidates(TRAIN, 128).items():
        more = candidates(TRAIN, 256)
        cpu = DEVICES["cpu"]
        if name in more:
            assert plan_seconds(more[name], cpu) > plan_seconds(found, cpu)
        for worse in (replace(cpu, bytes_per_second=1e9), replace(cpu, rates=(("float32", 1e9),))):
            assert plan_seconds(found, worse) > plan_seconds(found, cpu)


def test_memory_is_bounded():
    free = fastest(TRAIN, 4096, "cpu")
    assert free.estimates[0].peak_bytes > 4096 * TRAIN.out_dim * 4
    smallest = min(each.peak_bytes for each in free.estimates)
    bound = fastest(TRAIN, 4096, "cpu", peak_bytes=smallest)
    assert bound.estimates[0].peak_bytes == smallest
    assert bound.seconds >= free.seconds
    with pytest.raises(
        ValueError, match=f"of {smallest:,} bytes at least, more than peak_bytes={smallest - 1:,}; raise"
    ):
        fastest(TRAIN, 4096, "cpu", peak_bytes=smallest - 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch": 0}, "at least 1 vector, got 0"),
        ({"device": "abacus"}, "one of .*tpu-v5e.*got 'abacus'"),
        ({"dtype": "float8"}, "cpu has figures for float32, bfloat16, not for 'float8'"),
    ],
)
def test_what_there_is_no_time_for(arguments, words):
    arguments = {"batch": 8, "device": "cpu", **arguments}
    with pytest.raises(ValueError, match=words):
        fastest(low_rank.spec(6, 8, 2), **arguments)
