"""Who reads which rows, where cores are split, and how the launcher ends: without many processes that compute."""

import subprocess
import sys
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_models import BertConfig
from bert_models.kinds import DenseMaps, ExpandCondense, LowRank, Networks
from bert_models.training import distribute, launch, together
from bert_models.training.core_layouts import core_layouts
from bert_models.training.distribute import Place
from bert_models.training.leaving import LostProcess
from tncompress.forms import kronecker

# Rows


@given(st.sampled_from([1, 2, 3, 4]), st.integers(1, 4), st.sampled_from([1, 2, 4]), st.integers(1, 3))
def test_processes_read_what_their_devices_compute(processes, devices, parts, rows):
    """Against the mesh itself: device by device, group by group."""
    if processes * devices % parts or (devices % parts and parts % devices):
        return  # a group of devices would belong to parts of processes
    owner = np.repeat(np.arange(processes), devices).reshape(-1, parts)  # [groups, parts]: process of each device
    batch_size = rows * len(owner)
    for process in range(processes):
        groups = np.flatnonzero((owner == process).any(1))
        expected = [row for group in groups for row in range(group * rows, (group + 1) * rows)]
        found = Place(process, processes, len(owner)).rows(batch_size)
        assert list(range(batch_size))[found] == expected


def test_rows_that_devices_cannot_share():
    with pytest.raises(ValueError, match=r"10 rows are computed at once, which 4 devices .* that 4 divides it"):
        Place(0, 2, 4).rows(10)


def test_alone_without_a_distribution():
    assert distribute.place() == Place()
    assert Place().rows(7) == slice(0, 7)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="is allowed there")
def test_other_backends_are_sent_to_jax():
    with pytest.raises(RuntimeError, match=r"need the JAX backend, this is .*KERAS_BACKEND=jax"):
        distribute.start()


# Meeting


@pytest.fixture
def two(monkeypatch):
    """A process that holds itself for the first of two; the distribution that it finds."""
    distribution = SimpleNamespace(auto_shard_dataset=True)
    monkeypatch.setattr(together, "place", lambda: Place(0, 2, 2))
    monkeypatch.setattr(keras.distribution, "distribution", lambda: distribution)
    return distribution


def test_processes_with_other_arguments_are_refused(two, monkeypatch):
    multihost_utils = pytest.importorskip("jax.experimental.multihost_utils")
    values = [{"seed": {"a": 1}, "data": ["x"]}, {"seed": {"a": 1}, "data": ["y"]}]

    def gathered(mine):  # what each process would send, as each of them makes it
        sent.append(mine)
        return np.stack(sent if len(sent) == 2 else [mine, mine])

    sent = []
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    together.agree(values[0])
    with pytest.raises(ValueError, match="process 1 was started with other data than process 0; start all alike"):
        together.agree(values[1])


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), LostProcess),
        (RuntimeError("DEADLINE_EXCEEDED: Barrier timed out"), LostProcess),
        (ValueError("labels out of range"), ValueError),
        (OSError("No space left on device"), OSError),
        (FloatingPointError("the loss is nan"), FloatingPointError),
    ],
)
def test_a_lost_process_is_told_from_other_errors(two, error, found):
    def step():
        with together.in_step(lambda: "That one is kept."):
            assert not two.auto_shard_dataset  # else Keras would split the rows of this process again
            raise error

    with pytest.raises(found) as raised:
        step()
    assert type(raised.value) is found
    assert two.auto_shard_dataset
    if found is LostProcess:
        assert str(raised.value).startswith("process 0 of 2 stops since another one ended")
        assert str(raised.value).endswith("That one is kept.")
        assert str(error) in str(raised.value)  # for it may be this process's own fault


# Cores

KINDS = {
    "expand_condense": ExpandCondense(block_size=4),  # 6 blocks
    "low_rank": LowRank(rank=5),
    "networks": Networks(kronecker.spec((4, 6), (8, 12)), kronecker.spec((8, 12), (4, 6))),
}


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_cores_compute_parts_of_the_map(kind, parts):
    """Each device contracts its parts; results of the widening map are put beside each other, of the other added up."""
    if kind == "networks" and parts == 3:
        pytest.skip("its first mode is not split, see below")
    config = BertConfig(hidden_size=24, num_heads=2, feed_forward=KINDS[kind])
    layouts = core_layouts(config, parts)
    draw = np.random.default_rng(0)
    widen, narrow = config.feed_forward.specs(24, config.intermediate_size)
    x, hidden = draw.normal(size=(3, 24)), draw.normal(size=(3, config.intermediate_size))
    for name, spec, values in (("(intermediate|gate)", widen, x), ("output_dense", narrow, hidden)):
        cores = [draw.normal(size=shape) for shape in spec.core_shapes]
        whole = contracted(spec, values, cores)
        axes = [layouts.get(f".*feed_forward/{name}/core_{i}", ()) for i in range(len(cores))]
        assert any(axes)
        own = [[split(core, where, parts)[i] for core, where in zip(cores, axes, strict=True)] for i in range(parts)]
        if name == "output_dense":
            found = sum(contracted(spec, np.split(values, parts, 1)[i], own[i]) for i in range(parts))
        else:
            found = np.concatenate([contracted(spec, values, own[i]) for i in range(parts)], 1)
        np.testing.assert_allclose(found, whole, rtol=1e-12, atol=1e-12)


def split(core, axes, parts):
    return np.split(core, parts, axes.index("model")) if "model" in axes else [core] * parts


def contracted(spec, values, cores):
    sizes = {
        mode: size
        for modes, core in zip(spec.cores, cores, strict=True)
        for mode, size in zip(modes, core.shape, strict=True)
    }
    x = values.reshape(-1, *(sizes.get(mode, spec.size[mode]) for mode in spec.inputs))
    numbers = {mode: i + 1 for i, mode in enumerate(spec.size)}
    terms = [x, [0, *(numbers[mode] for mode in spec.inputs)]]
    for modes, core in zip(spec.cores, cores, strict=True):
        terms += [core, [numbers[mode] for mode in modes]]
    return np.einsum(*terms, [0, *(numbers[mode] for mode in spec.outputs)]).reshape(len(values), -1)


def test_a_later_mode_is_split_where_the_first_cannot_be():
    config = BertConfig(hidden_size=24, num_heads=2, feed_forward=KINDS["networks"])
    layouts = core_layouts(config, 3)
    assert [path.rsplit("/", 1)[1] for path in layouts] == ["core_1", "core_1"]  # 8 is not split, but 12
    assert list(layouts.values()) == [(None, "model", None), ("model", None, None)]
    with pytest.raises(ValueError, match=r"cores cannot be split into 5 parts: it divides none of .*=8, .*=12"):
        core_layouts(config, 5)


def test_dense_kernels_are_split_too():
    config = BertConfig(hidden_size=24, num_heads=2, feed_forward=DenseMaps())
    assert list(core_layouts(config, 4).values()) == [(None, "model"), ("model", None)]
    with pytest.raises(ValueError, match="it does not divide intermediate_size=96"):
        core_layouts(config, 5)


# The launcher


@pytest.mark.parametrize(
    ("codes", "returned", "said"),
    [
        (["pass", "pass"], 0, ""),
        (
            ["pass", "raise SystemExit(3)"],
            1,
            "process 1 of 2 failed with exit code 3, so all are stopped. Look at what",
        ),
        (["import os; os.kill(os.getpid(), 9)"], 1, "the process was ended by SIGKILL. Start the same command again"),
        (["import os; os.abort()"], 1, "ended by SIGABRT, as JAX does where another process is lost. Start the same"),
    ],
)
def test_the_launcher_says_who_failed(capfd, codes, returned, said):
    command = [sys.executable, "-c", "import os, time; time.sleep(0.3); exec(os.environ['CODE'])"]
    assert launch.together(command, [{"CODE": code} for code in codes]) == returned
    assert said in capfd.readouterr().err


def test_the_one_that_was_killed_is_named_not_the_one_that_lost_it():
    for codes, found in (((1, -9), 1), ((None, 3, None), 1), ((0, 0), None)):
        started = [SimpleNamespace(poll=lambda code=code: code) for code in codes]
        assert launch._first_that_failed(started) == found


def test_the_launcher_ends_those_that_wait(capfd):
    command = [sys.executable, "-c", "import os; exec(os.environ['CODE'])"]
    since = time.monotonic()
    code = launch.together(
        command, [{"CODE": "import time; time.sleep(100)"}, {"CODE": "raise SystemExit(2)"}], patience=0.2
    )
    assert code == 1
    assert time.monotonic() - since < 50
    assert "process 1 of 2 failed with exit code 2" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--processes", "2", "nowhere.py"], "there is no script nowhere.py"),
        (["--processes", "0", __file__], "--processes takes a number from 1"),
        (
            ["--processes", "2", "--address", "a:1", "--count", "1", "--number", "0", __file__],
            "and no --address beside it",
        ),
        (["--address", "a:1", __file__], "--address, --count and --number go together"),
    ],
)
def test_wrong_commands(capsys, arguments, said):
    assert launch.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_the_launcher_is_light():
    code = "import sys, bert_models.training.launch; print({'keras', 'jax', 'tensorflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
