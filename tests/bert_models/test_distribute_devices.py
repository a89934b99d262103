"""One process with two devices trains as with one: data split, cores split, and TensorFlow's MirroredStrategy."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BEFORE = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import keras
import numpy as np
import test_pretraining_loop as tests
from bert_models.training import distribute

place = Path(sys.argv[1])
(place / "corpus.txt").write_text(tests.text())
tests.write_pretraining_data([place / "corpus.txt"], place / "pairs", tests.VOCABULARY, tests.PAIRS)


def trained(name, encoder=None, **given):
    model = tests.pretrain(encoder or tests.encoder(**rates), place / "pairs", place / name, tests.RECIPE,
                           every=6, held_out=place / "pairs", **given)
    rows = tests.curve.read(place / name / "curve.jsonl")
    weights = [v.numpy() for v in model.trainable_variables]
    return model, weights, [[row[k] for k in sorted(row) if k != "cpu_seconds"] for row in rows]


def compared(one, other):
    weights = max(float(abs(a - b).max()) for a, b in zip(one[1], other[1], strict=True))
    return {{"weights": weights, "curve": float(abs(np.array(one[2]) - np.array(other[2])).max())}}


def refusal(call):
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return str(error)
"""

JAX = """
rates, found = {}, {}
alone = trained("alone")
early = tests.encoder()
distribute.start()
found["place"] = str(distribute.place())
found["too early"] = refusal(lambda: tests.pretrain(early, place / "pairs", place / "no", tests.RECIPE))
found["data split"] = compared(alone, trained("data"))
odd = tests.replace(tests.RECIPE, batch_size=9)
found["odd"] = refusal(lambda: tests.pretrain(tests.encoder(), place / "pairs", place / "no", odd))
found["parts"] = refusal(lambda: distribute.split_cores(early.config, 3))
distribute.split_cores(early.config, 2)
model, *rest = trained("cores", steps=6)
model, *rest = trained("cores")  # resumed, with its cores split
found["cores split"] = compared(alone, (model, *rest))
found["split"], found["moments"] = (
    sorted(v.path for v in variables if v.value.sharding.shard_shape(v.value.shape) != tuple(v.value.shape))
    for variables in (model.trainable_variables, model.optimizer.variables)
)
found["saved"] = sorted(path.name for path in place.glob("no*"))
print(json.dumps(found))
"""

MIRRORED = """
import tensorflow as tf

cpus = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpus, [tf.config.LogicalDeviceConfiguration()] * 2)
# On both replicas Keras draws the same dropout, so that rows have other masks than in one batch.
rates, found = {"hidden_dropout": 0.0, "attention_dropout": 0.0}, {}
alone = trained("alone")
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    found["mirrored"] = compared(alone, trained("mirrored"))
    found["parts"] = refusal(lambda: trained("no", accumulate=2))
print(json.dumps(found))
"""


def found(script, place, **environment):
    code = BEFORE.format(tests=str(Path(__file__).parent)) + script
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, str(place)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(find_spec("jax") is None, reason="pip install jax")
def test_two_devices_of_jax(tmp_path):
    flags = "--xla_force_host_platform_device_count=2"
    made = found(JAX, tmp_path, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu", XLA_FLAGS=flags)
    assert made["place"] == "Place(process=0, processes=1, replicas=2)"
    for name in ("data split", "cores split"):
        assert max(made[name].values()) < 1e-5, made
    assert "is not on all 2 devices: build the encoder after distribute.start()" in made["too early"]
    assert "9 rows are computed at once, which 2 devices or groups of devices cannot share" in made["odd"]
    assert made["parts"] == "parts must divide the 2 devices of each process, got 3."
    assert made["saved"] == []
    # Of each map the core with the first hidden mode, and both of its moments.
    assert [path.split("feed_forward/")[1] for path in made["split"]] == ["intermediate/core_0", "output_dense/core_1"]
    assert len(made["moments"]) == 4


def test_two_replicas_of_tensorflow(tmp_path):
    made = found(MIRRORED, tmp_path, KERAS_BACKEND="tensorflow")
    assert max(made["mirrored"].values()) < 1e-5, made
    assert "under MirroredStrategy Keras 3 cannot accumulate gradients, got accumulate=2" in made["parts"]
