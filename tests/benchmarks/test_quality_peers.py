"""The peers of `quality.py` against their definitions, and predicted losses against outputs of real rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tncompress
from tncompress.fitting.moments import Moments

KERNEL = np.random.default_rng(0).normal(size=(24, 16))
MIXED = np.random.default_rng(1).normal(size=(500, 24)) @ np.random.default_rng(2).normal(size=(24, 24))
ROWS = MIXED * np.linspace(0.1, 3, 24) + 0.3


def seen_of(rows):
    import quality_peers

    return quality_peers.Seen(rows.T @ rows / len(rows), np.abs(rows).mean(0), np.linspace(0, 2, rows.shape[1]))


@pytest.mark.parametrize(
    ("name", "distance"),
    [
        ("SVD", lambda error: np.sum(error**2)),
        ("ASVD", lambda error: np.sum((np.abs(ROWS).mean(0)[:, None] ** 0.5 * error) ** 2)),
        ("FWSVD", lambda error: np.sum(np.linspace(0, 2, 24)[:, None] * error**2)),
        ("SVD-LLM", lambda error: np.sum((ROWS @ error) ** 2) / len(ROWS)),
    ],
)
def test_every_svd_is_the_best_in_its_own_metric(name, distance):
    import quality_peers

    seen, losses = seen_of(ROWS), {}
    for other in ("SVD", "ASVD", "FWSVD", "SVD-LLM"):
        found = quality_peers.PEERS[other](KERNEL, seen, 0.5)
        assert np.linalg.matrix_rank(found.kernel) == 4  # 4 x (24 + 16) = 160 of at most 192
        assert (found.params, found.flops) == (160, 320)
        losses[other] = distance(found.kernel - KERNEL)
    assert min(losses, key=losses.get) == name


def test_whitening_takes_singular_moments():
    import quality_peers

    few = ROWS[:10]
    kernel = quality_peers.PEERS["SVD-LLM"](KERNEL, seen_of(few), 0.9).kernel
    assert np.isfinite(kernel).all()
    root = quality_peers.whitening(seen_of(few).second)
    np.testing.assert_allclose(root.T @ root, seen_of(few).second, atol=1e-5)


@pytest.mark.parametrize("shape", [(384, 96), (96, 384)])
@pytest.mark.parametrize("name", ["tensorly-torch BlockTT", "tensorly-torch Tucker", "t3f TT-SVD"])
def test_packages_approximate_under_the_budget(name, shape):
    import quality_peers

    pytest.importorskip("t3f" if name.startswith("t3f") else "tltorch")
    kernel = np.random.default_rng(0).normal(size=shape)
    errors = []
    for keep in (0.3, 0.6):
        found, _ = quality_peers.approximated(name, {"a": kernel}, {"a": None}, keep)
        assert found["a"].kernel.shape == shape
        assert found["a"].params <= 1.25 * keep * kernel.size  # tensorly-torch rounds
        assert found["a"].flops > 0
        errors.append(np.linalg.norm(found["a"].kernel - kernel) / np.linalg.norm(kernel))
    assert errors[1] < errors[0] < 1


def test_a_package_that_is_missing_or_fails_says_so(monkeypatch):
    import quality_peers

    def fails(kernel, seen, keep):
        raise AttributeError("module 'numpy' has no attribute 'int'.\nMore.")

    def misses(kernel, seen, keep):
        import no_such_package  # noqa: F401

    monkeypatch.setitem(quality_peers.PEERS, "a", fails)
    monkeypatch.setitem(quality_peers.PEERS, "b", misses)
    with pytest.raises(RuntimeError, match=r"fails with these versions: module 'numpy' has no attribute 'int'\.$"):
        quality_peers.approximated("a", {"x": KERNEL}, {"x": None}, 0.5)
    with pytest.raises(RuntimeError, match=r"not installed .*no_such_package"):
        quality_peers.approximated("b", {"x": KERNEL}, {"x": None}, 0.5)


def test_magnitudes_and_squared_gradients_are_of_the_tokens_that_count():
    """One sentence and one value, so that a sign changes nothing: the gradient's square is exact."""
    import quality_peers
    import tensorflow as tf
    from models import made, token_batch

    encoder, _ = made("encoder")
    batch = {name: array[:1] for name, array in token_batch().items()}
    batch["input_mask"] = np.array([[1] * (batch["input_mask"].shape[1] - 2) + [0, 0]], "int32")
    [path] = [s.path for s in tncompress.find_sites(encoder, "feed_forward/inter") if not s.reason][:1]

    def value(outputs, x):
        return outputs["sequence_output"][:, 0, :1]

    calibration = tncompress.calibrate(encoder, [path], [batch])
    seen = quality_peers.look(encoder, calibration, [batch], value, every=1)[path]
    layer = encoder.get_layer(path.split("/")[0]).feed_forward.intermediate
    with tf.GradientTape() as tape:
        found = value(encoder(batch, training=False), batch)
    expected = np.sum(tape.gradient(found, layer.kernel.value).numpy() ** 2, axis=1)
    assert expected.any()
    np.testing.assert_allclose(seen.fisher, expected, rtol=1e-4)
    shown = []
    call = layer.call
    layer.call = lambda x, **kwargs: shown.append(np.asarray(x)) or call(x, **kwargs)
    encoder(batch, training=False)
    del layer.call
    rows = shown[0].reshape(-1, shown[0].shape[-1])[batch["input_mask"].ravel() > 0]
    np.testing.assert_allclose(seen.magnitude, np.abs(rows).mean(0), rtol=1e-5)


# -- predicted losses ----------------------------------------------------------------------------------------------


class Calibration(dict):
    """Moments by path, with the objective's energy as `tncompress.calibrate` gives it."""

    energy = 7.0


def test_predicted_loss_is_that_of_the_rows():
    import quality_loss

    draw = np.random.default_rng(2)
    gradients = draw.normal(size=(300, 16)) + 0.5
    moments = Moments(
        *(getattr(Moments.of(ROWS), name) for name in ("count", "mean", "scatter")), Moments.of(gradients)
    )
    worse, bias = KERNEL + 0.1 * draw.normal(size=KERNEL.shape), draw.normal(size=16)
    errors = ROWS @ (worse - KERNEL) + bias  # of all outputs [rows, 16]
    expected = np.mean((errors @ gradients.T) ** 2) * 300 / 7.0
    found = quality_loss.predicted_loss(
        {"a": (KERNEL, np.zeros(16)), "b": (KERNEL, bias)},
        {"a": (worse, bias), "b": (KERNEL, bias)},
        Calibration(a=moments, b=moments),
    )
    assert found == pytest.approx(expected, rel=1e-9)
    assert quality_loss.predicted_loss({}, {}, None) is None


@given(st.integers(0, 1000), st.integers(1, 12))
def test_columns_are_found_again(seed, count):
    import quality_loss

    draw = np.random.default_rng(seed)
    kernel = draw.normal(size=(16, 12))
    columns = np.sort(draw.permutation(12)[:count])
    near = kernel[:, columns] + 0.1 * draw.normal(size=(16, count))
    root = draw.normal(size=(16, 16))
    np.testing.assert_array_equal(quality_loss.matching_columns(kernel, near, np.eye(16)), columns)
    found = quality_loss.matching_columns(kernel, kernel[:, columns], root @ root.T)
    np.testing.assert_array_equal(found, columns)


def test_every_column_is_found_once():
    """Where units do the same, the nearest alone would be the same unit twice."""
    import quality_loss

    kernel = KERNEL[:, [0, 1, 1, 2, 2]]
    np.testing.assert_array_equal(
        quality_loss.matching_columns(kernel, kernel[:, [1, 2, 3, 4]], np.eye(24)), [1, 2, 3, 4]
    )
    twice = quality_loss.matching_columns(kernel, kernel[:, [0, 1, 1, 2]], np.eye(24))
    assert list(np.diff(twice) > 0) == [True] * 3


def test_narrower_weights_compute_the_same_among_all_units():
    import quality_loss

    draw = np.random.default_rng(3)
    up, down = (KERNEL, draw.normal(size=16)), (draw.normal(size=(16, 24)), draw.normal(size=24))
    units = np.array([1, 4, 5, 9, 15])
    small = {"up": (up[0][:, units] + 0.01, up[1][units] + 1), "down": (draw.normal(size=(5, 24)), down[1])}
    full = quality_loss.of_all_units({"up": up, "down": down}, small, {"up": Moments.of(ROWS)})

    def outputs(weights):
        return np.tanh(ROWS @ weights["up"][0] + weights["up"][1]) @ weights["down"][0] + weights["down"][1]

    np.testing.assert_allclose(outputs(full), outputs(small), atol=1e-12)
    lost = np.setdiff1d(np.arange(16), units)
    np.testing.assert_array_equal(full["up"][0][:, lost], KERNEL[:, lost])


def test_weights_are_those_of_networks_multiplied_out():
    import quality_loss
    from models import made

    encoder, _ = made("encoder")
    paths = [site.path for site in tncompress.find_sites(encoder, "feed_forward") if not site.reason]
    small = tncompress.replace_dense(encoder, 0.5, include="feed_forward")
    again = quality_loss.weights_of(tncompress.densify(small), paths)
    for path, (kernel, bias) in quality_loss.weights_of(small, paths).items():
        np.testing.assert_allclose(kernel, again[path][0], atol=1e-6)
        np.testing.assert_array_equal(bias, again[path][1])
