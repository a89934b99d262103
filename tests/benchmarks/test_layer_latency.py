"""The benchmark of layers: a run of one round, and Model Garden's operations against its layer."""

import json
from importlib.util import find_spec

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="times TensorFlow here")


def test_a_short_run(tmp_path, capsys):
    import layer_latency

    path = tmp_path / "found.json"
    layer_latency.main(["--tokens", "512", "--rounds", "1", "--only", "Expand", "--json", str(path)])
    found = json.loads(path.read_text())["results"]
    assert found["mode"] == "TensorFlow, graph mode"
    assert [(row["layer"], row["layers"]) for row in found["rows"]] == [("dense", 2), ("Expand/Condense", 2)]
    dense, small = found["rows"]
    assert dense["over dense"] == 1
    assert small["over dense"] == pytest.approx(dense["seconds"] / small["seconds"])
    assert 0.01 < small["of peak"] < 2
    assert "Expand/Condense" in capsys.readouterr().out


def test_flops_are_those_of_the_matmuls():
    import layer_latency

    assert layer_latency.flops("dense", 10) == 2 * 10 * 2 * 768 * 3072
    assert layer_latency.flops("Model Garden", 10) == layer_latency.flops("Expand/Condense", 10) == 10 * 3_932_160


@pytest.mark.parametrize("tokens", ["0", "-4"])
def test_no_tokens(tokens, capsys):
    import layer_latency

    with pytest.raises(SystemExit):
        layer_latency.main(["--tokens", tokens])
    assert f"--tokens are positive numbers, got {tokens}" in capsys.readouterr().err


def test_the_operations_are_those_of_the_layer():
    if find_spec("official") is None:
        pytest.skip("needs tf-models-official: make .venv/oracle")
    import tensorflow as tf
    from peers import model_garden

    name, layer = model_garden.layer(256, 4, keras.activations.gelu)
    assert name == "Model Garden"
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 256)).astype("float32"))
    expected = layer(x)
    found = model_garden.expand_condense(x, layer.w1, layer.w2, layer.w3, layer.w4, layer.bias, keras.activations.gelu)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    made = model_garden.operations(256, 4, keras.activations.gelu)
    assert made(x).shape == expected.shape
