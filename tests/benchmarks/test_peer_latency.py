"""Peers' layers beside ours: the same map on the same weights, and a run of one round."""

import json

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tn_keras is for TensorFlow")


def test_specs_and_cores_are_those_of_the_peers():
    from peers.networks import tn_keras

    from tncompress import contract, plan

    for peer in tn_keras():
        if peer.spec.in_dim > 1000 and "rank 32" in peer.name:
            continue  # as the other ranks, and slow
        layer, cores = peer.make()
        x = np.random.default_rng(0).normal(size=(2, *peer.spec.shape(peer.spec.inputs))).astype("float32")
        wanted = np.array(layer(x.reshape(2, -1)))
        found = contract(plan(peer.spec), x, cores, np).reshape(2, -1)
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_a_short_run(tmp_path, monkeypatch, capsys):
    import peer_latency

    path = tmp_path / "found.json"
    options = ["--only", "rank 32", "--only", "DenseDecomp, 768 -> 3072, rank 32", "--tokens", "8", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", ["peer_latency.py", *options, "--json", str(path)])
    peer_latency.main()
    (row,) = json.loads(path.read_text())["results"]
    assert row["tokens"] == 8
    assert row["over peer"] == pytest.approx(row["seconds"]["peer"] / row["seconds"]["ours"])
    assert row["over dense"] == pytest.approx(row["seconds"]["dense"] / row["seconds"]["ours"])
    assert "DenseDecomp" in capsys.readouterr().out


def test_other_weights_are_found_out(monkeypatch):
    import peer_latency
    from peers.networks import tn_keras

    peer = next(iter(tn_keras()))
    layer, cores = peer.make()
    wrong = type(peer)(peer.name, peer.spec, lambda: (layer, [2 * core for core in cores]))
    with pytest.raises(SystemExit, match="other outputs"):
        list(peer_latency.timed(wrong, [2], 1))
