"""The gauge with a stored identity, and layers whose features have several axes."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tncompress.forms import kronecker, low_rank
from tncompress.forms.low_rank import is_low_rank
from tncompress.layers.dense import TNDense
from tncompress.layers.pivoted import TNPivoted, pivoted
from tncompress.network.spec import Spec


def layer_with(left, right, **settings):
    spec = low_rank.spec(left.shape[0], right.shape[1], left.shape[1])
    layer = TNPivoted(spec, **settings)
    layer.build((None, spec.in_dim))
    cores, order = pivoted(left, right)
    for variable, value in zip([*layer.cores, layer.order], [*cores, order], strict=True):
        variable.assign(value)
    return layer


@given(st.integers(1, 12), st.integers(2, 12), st.booleans(), st.data())
@settings(max_examples=40, deadline=None)
def test_it_is_the_product_of_the_two_cores(in_dim, out_dim, skips, data):
    rank = data.draw(st.integers(1, out_dim - 1))
    draw = np.random.default_rng(in_dim * 100 + out_dim)
    left, right = draw.normal(size=(in_dim, rank)), draw.normal(size=(rank, out_dim))
    layer = layer_with(left.astype("float32"), right.astype("float32"))
    assert sum(int(np.prod(v.shape)) for v in layer.cores) == rank * (in_dim + out_dim) - rank**2
    x = draw.normal(size=(3, 2, in_dim)).astype("float32")
    expected = x @ left @ right
    scale = np.abs(expected).max() * 10 ** np.log10(np.linalg.cond(right) + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_rank, "OUTPUT_MOVED", 0 if skips else 1e9)
        assert low_rank.skips_identity(layer.spec, 6) is skips
        y = layer(x)
    np.testing.assert_allclose(ops.convert_to_numpy(y), expected, atol=1e-6 * scale + 1e-5)
    np.testing.assert_allclose(layer.to_dense(), left @ right, atol=1e-6 * scale + 1e-5)


def test_it_trains_saves_and_loads(tmp_path):
    draw = np.random.default_rng(0)
    layer = layer_with(draw.normal(size=(6, 2)), draw.normal(size=(2, 5)), activation="tanh", name="p")
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile("sgd", "mse")
    x = draw.normal(size=(32, 6)).astype("float32")
    before = [ops.convert_to_numpy(v) for v in layer.weights]
    model.fit(x, np.zeros((32, 5)), verbose=0)
    moved = [not np.array_equal(a, ops.convert_to_numpy(b)) for a, b in zip(before, layer.weights, strict=True)]
    assert dict(zip([v.name for v in layer.weights], moved, strict=True)) == {
        "core_0": True,
        "core_1": True,
        "bias": True,
        "order": False,
    }
    model.save(tmp_path / "p.keras")
    again = keras.saving.load_model(tmp_path / "p.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_weights_between_the_pivots_stay_small():
    # Outputs that are nearly alike: pivots among the nearly equal would need huge weights.
    draw = np.random.default_rng(1)
    right = np.repeat(draw.normal(size=(4, 8)), 4, axis=1) + 1e-6 * draw.normal(size=(4, 32))
    (_, rest), _ = pivoted(draw.normal(size=(16, 4)), right)
    assert np.abs(rest).max() < 10


def test_only_low_rank_has_pivots():
    assert is_low_rank(low_rank.spec(4, 3, 2))
    assert not is_low_rank(Spec.parse("i, i o -> o", i=4, o=3))
    assert not is_low_rank(Spec.parse("a b, a c, b d -> c d", a=2, b=2, c=2, d=2))
    with pytest.raises(ValueError, match="only a low-rank spec has pivots"):
        TNPivoted(Spec.parse("i, i o -> o", i=4, o=3))


@pytest.mark.parametrize(("in_shape", "out_shape"), [(None, (3, 4)), ((2, 6), None), ((2, 6), (4, 3))])
def test_features_over_several_axes(in_shape, out_shape, tmp_path):
    flat = TNDense(kronecker.spec((3, 4), (4, 3)))
    flat.build((None, 12))
    shaped = TNDense(flat.spec, in_shape=in_shape, out_shape=out_shape, name="shaped")
    inputs = keras.Input((None, *(in_shape or (12,))))
    model = keras.Model(inputs, shaped(inputs))
    shaped.set_weights(
        [ops.convert_to_numpy(v).reshape(w.shape) for v, w in zip(flat.weights, shaped.weights, strict=True)]
    )
    x = np.random.default_rng(0).normal(size=(2, 5, *(in_shape or (12,)))).astype("float32")
    expected = ops.convert_to_numpy(flat(x.reshape(2, 5, 12))).reshape(2, 5, *(out_shape or (12,)))
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)
    model.save(tmp_path / "s.keras")
    again = keras.saving.load_model(tmp_path / "s.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_shapes_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"has 3 features, not \(2, 2\)"):
        TNDense(low_rank.spec(4, 3, 2), out_shape=(2, 2))
    with pytest.raises(ValueError, match=r"but the input has \(4, 3\)"):
        TNDense(low_rank.spec(12, 3, 2), in_shape=(3, 4)).build((None, 4, 3))
