"""`Packed` against LAPACK's own conversions and plain products."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import lapack

from tncompress import linalg
from tncompress.fitting.packed import Packed


@given(st.integers(1, 40), st.integers(1, 9), st.booleans(), st.randoms(use_true_random=False))
def test_products_add_up_to_plain_ones(size, vectors, small_blocks, random):
    draw = np.random.default_rng(random.getrandbits(32))
    first, second = (draw.integers(-9, 9, (vectors, size)).astype("float32") for _ in range(2))
    packed = Packed(size)
    packed.add_products(first)
    packed.add_products(second, -2.0)
    expected = first.T @ first - 2 * second.T @ second  # whole numbers: exact
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linalg, "MIRRORED", 3 if small_blocks else 256)
        np.testing.assert_array_equal(np.asarray(packed), expected)
        assert np.array(packed, np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.asarray(packed + packed), 2 * expected)
    assert packed.any() == expected.any()
    assert packed.numbers.nbytes == 2 * size * (size + 1)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 17, 64])
def test_it_is_lapacks_format(size):
    draw = np.random.default_rng(size)
    square = draw.normal(size=(size, size)).astype("float32")
    square += square.T
    numbers, failed = lapack.strttf(square, transr="N", uplo="L")
    assert not failed
    np.testing.assert_array_equal(np.asarray(Packed(size, numbers)), square)
    assert np.asarray(Packed(size, numbers)).flags.c_contiguous


def test_nothing_is_zero():
    assert not Packed(3).any()
    assert not np.asarray(Packed(3)).any()
