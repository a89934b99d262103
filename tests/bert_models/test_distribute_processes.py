"""Several processes and devices train as one does; a lost process ends the others in words, and a resume goes on."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bert_models.training import curve
from bert_models.training.launch import free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("jax") is None, reason="pip install jax")]

# Trains each kind that is named for 20 steps in a folder, and leaves its weights beside it. Makes the data if need be.
SCRIPT = """
import os, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np
import test_pretraining_loop as tests
from bert_models.kinds import DenseMaps
from bert_models.training import distribute

place, name, *kinds = sys.argv[1:]
place = Path(place)
(place / f"pid-{{distribute.place().process}}").write_text(str(os.getpid()))
made = {{
    "tn_bert": ({{}}, "pairs", {{"held_out": place / "pairs"}}),
    "dense": ({{"feed_forward": DenseMaps()}}, "pairs", {{}}),
    "dynamic": ({{}}, "dynamic", {{"tokenizer": tests.VOCABULARY, "accumulate": 2}}),
}}
if not (place / "corpus.txt").exists():
    (place / "corpus.txt").write_text(tests.text())
    for data, settings in (("pairs", tests.PAIRS), ("dynamic", tests.DYNAMIC)):
        tests.write_pretraining_data([place / "corpus.txt"], place / data, tests.VOCABULARY, settings)
for kind in kinds:
    fields, data, given = made[kind]
    recipe = tests.RECIPE.on(tests.DYNAMIC if data == "dynamic" else tests.PAIRS).scaled(20, batch_size=8)
    encoder = tests.encoder(num_layers=2, **fields)
    model = tests.pretrain(encoder, place / data, place / f"{{name}}-{{kind}}", recipe, every=1, **given)
    if distribute.place().process == 0:
        np.savez(place / f"{{name}}-{{kind}}.npz", *tests.weights(model))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with the script."""
    place = tmp_path_factory.mktemp("processes")
    (place / "script.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return place


def environment(**more):
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", **more}


def launched(place, *arguments, **more):
    command = [sys.executable, "-m", "bert_models.training.launch", "--processes", "2"]
    return subprocess.Popen(
        [*command, str(place / "script.py"), str(place), *arguments],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    """What the process said; it has to end well."""
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said[-3000:]
    return said


def weights(place, name):
    with np.load(place / f"{name}.npz") as arrays:
        return [arrays[key] for key in arrays.files]


def kill_after(place, folder, process, steps=3):
    """Kill that process, without a warning, when so many lines of the curve are there."""
    end = time.monotonic() + 300
    while time.monotonic() < end and len(curve.read(place / folder / "curve.jsonl")) < steps:
        time.sleep(0.005)
    os.kill(int((place / f"pid-{process}").read_text()), signal.SIGKILL)
    assert steps <= len(curve.read(place / folder / "curve.jsonl")) < 20


@pytest.fixture(scope="module")
def both(place):
    """The place, after one process and two processes have trained."""
    kinds = ("tn_bert", "dense", "dynamic")
    command = [sys.executable, str(place / "script.py"), str(place), "one", *kinds]
    finished(subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True))
    finished(launched(place, "two", *kinds))
    return place


@pytest.mark.parametrize("kind", ["tn_bert", "dense", "dynamic"])
def test_two_processes_train_as_one(both, kind):
    one, two = weights(both, f"one-{kind}"), weights(both, f"two-{kind}")
    assert len(one) == len(two) > 40
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    lines = [curve.read(both / f"{name}-{kind}" / "curve.jsonl") for name in ("one", "two")]
    assert [row["step"] for row in lines[1]] == list(range(1, 21))
    for name in set(lines[0][0]) - {"cpu_seconds"}:
        np.testing.assert_allclose(*([row[name] for row in rows] for rows in lines), rtol=1e-5, atol=1e-6)


def test_one_process_lost_the_other_says_so_and_a_resume_goes_on_exactly(both):
    """Started by hand, as a cluster starts them, without a launcher that watches."""
    address = f"127.0.0.1:{free_port()}"
    start = "from bert_models.training import distribute; distribute.start(); "
    script = start + f"exec(open({str(both / 'script.py')!r}).read())"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(both), "killed", "tn_bert"],
            env=environment(
                KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
                KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                KERAS_DISTRIBUTION_PROCESS_ID=str(number),
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    kill_after(both, "killed-tn_bert", 1)
    said = started[0].communicate(timeout=60)[1]  # long before JAX itself would notice
    assert started[1].wait() == -signal.SIGKILL
    assert started[0].returncode == 1
    assert "process 0 of 2 stops since another one ended or cannot be reached" in said
    assert "is kept, from which training can go on." in said
    assert "Traceback" not in said
    finished(launched(both, "killed", "tn_bert"))
    for a, b in zip(weights(both, "two-tn_bert"), weights(both, "killed-tn_bert"), strict=True):
        np.testing.assert_array_equal(a, b)
    found = [curve.read(both / f"{name}-tn_bert" / "curve.jsonl") for name in ("two", "killed")]
    assert [row["loss"] for row in found[0]] == [row["loss"] for row in found[1]]


def test_first_process_lost_the_launcher_says_so(both):
    process = launched(both, "first", "tn_bert")
    kill_after(both, "first-tn_bert", 0)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "process 0 of 2 was ended by SIGKILL, so all are stopped. Start the same command again" in said
