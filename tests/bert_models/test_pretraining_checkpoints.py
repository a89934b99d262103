"""Checkpoints and learning curves: whole, complete, and refused where they do not belong."""

import os
import resource
import signal

import keras
import numpy as np
import pytest
from corrupting import corrupted
from hypothesis import given
from hypothesis import strategies as st
from refusals import error_of
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from bert_models.training import curve
from bert_models.training.checkpointing import newest_checkpoint, restore_checkpoint, save_checkpoint
from bert_models.training.optimizers import LAMB

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = X[:, :2] - X[:, 1:]


def model(units=2, optimizer=None, hidden=16, seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((3,)), keras.layers.Dense(hidden), keras.layers.Dropout(0.5), keras.layers.Dense(units)]
    made = keras.Sequential(layers)
    made.compile(optimizer or LAMB(0.01), "mse")
    made.optimizer.build(made.trainable_variables)
    return made


def state(made):
    variables = [*made.variables, *made.optimizer.variables]
    return [keras.ops.convert_to_numpy(v.value) for v in variables]


def restore(made, values):
    for variable, value in zip([*made.variables, *made.optimizer.variables], values, strict=True):
        variable.assign(value)


def assert_same(ones, others):
    for a, b in zip(ones, others, strict=True):
        np.testing.assert_array_equal(a, b)


def train(made, steps):
    return [float(made.train_on_batch(X, Y)) for _ in range(steps)]


def test_goes_on_as_if_never_stopped(tmp_path):
    whole = model()
    expected = train(whole, 6)
    first = model()
    train(first, 3)
    file = save_checkpoint(tmp_path, 3, first)
    second = model(seed=9)  # other weights, another state of dropout
    assert restore_checkpoint(file, second) == 3
    assert train(second, 3) == expected[3:]
    assert_same(state(whole), state(second))


def test_keeps_the_newest_and_removes_what_a_killed_process_left(tmp_path):
    made = model()
    (tmp_path / ".saving-x").mkdir()
    (tmp_path / ".saving-x" / "new.safetensors").write_text("half")
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, step, made, keep=2)
    assert [file.name for file in sorted(tmp_path.iterdir())] == [
        "checkpoint-00000010.safetensors",
        "checkpoint-00000100.safetensors",
    ]
    assert newest_checkpoint(tmp_path).name == "checkpoint-00000100.safetensors"
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for step in (99_999_999, 100_000_000):  # with a digit more than names are filled up to
        assert newest_checkpoint(tmp_path) != save_checkpoint(tmp_path, step, made) == newest_checkpoint(tmp_path)


def test_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr("os.fsync", lambda _: done.append("written"))
    monkeypatch.setattr("os.replace", lambda *paths: (done.append("renamed"), replace(*paths)))
    save_checkpoint(tmp_path, 1, model())
    assert done == ["written", "renamed"]


def test_disk_full_leaves_the_old_one_whole(tmp_path):
    small = model()
    old = save_checkpoint(tmp_path, 1, small)
    content = old.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, limits[1]))  # the system refuses to write more
    try:
        with pytest.raises(OSError, match=r"step 2, .* could not be written .*checkpoint-00000001\.\w+ is whole"):
            save_checkpoint(tmp_path, 2, small)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [file.name for file in tmp_path.iterdir()] == [old.name]
    assert old.read_bytes() == content
    assert restore_checkpoint(old, model(seed=1)) == 1


@pytest.mark.parametrize(
    ("other", "settings", "message"),
    [
        (
            lambda: model(units=4),
            {"batch": 8},
            r"another model: it has .*kernel \[16, 2\] where this one has .*\[16, 4\]",
        ),
        (lambda: model(optimizer=keras.optimizers.SGD(0.1)), {"batch": 8}, "is of another model: it has"),
        (model, {"batch": 16}, "trained with batch=8, now it is 16: go on with the same, or give another folder"),
        (model, {}, "trained with batch=8, now it is None"),
        (model, {"batch": 8, "seed": 1}, "trained with seed=None, now it is 1"),
    ],
)
def test_refuses_what_does_not_belong(tmp_path, other, settings, message):
    file = save_checkpoint(tmp_path, 1, model(), {"batch": 8})
    given_model = other()
    before = state(given_model)
    with pytest.raises(ValueError, match=message):
        restore_checkpoint(file, given_model, settings)
    assert_same(before, state(given_model))


@pytest.mark.parametrize(("saved", "now"), [(0.0, 0.9), (0.9, 0.0)])
def test_refuses_an_optimizer_that_has_more_or_fewer_variables_at_its_end(tmp_path, saved, now):
    made, other = (model(optimizer=keras.optimizers.SGD(0.1, momentum)) for momentum in (saved, now))
    file = save_checkpoint(tmp_path, 1, made)
    before = [np.array(value) for value in state(other)]
    with pytest.raises(ValueError, match=rf"it has {len(state(made))} variables, this one has {len(state(other))}\. B"):
        restore_checkpoint(file, other)
    assert_same(before, state(other))


def test_refuses_a_damaged_file_and_one_of_something_else(tmp_path):
    file = save_checkpoint(tmp_path, 1, model())
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"is damaged .* remove it to go on from the checkpoint before it"):
        restore_checkpoint(file, model())
    good = {"format": "1", "step": "1", "settings": "{}"}
    bad = *({name: "["} for name in good), {"settings": "[]"}, {"step": "-1"}, {"format": "3"}
    for metadata in (None, {"format": "1"}, *({**good, **change} for change in bad)):
        save_file({"a": X}, file, metadata)
        with pytest.raises(ValueError, match="is no checkpoint of training in format 1 or 2"):
            restore_checkpoint(file, model())
    save_file({"a": X}, file, good)
    with pytest.raises(ValueError, match="is of another model"):
        restore_checkpoint(file, model())


def test_a_hundred_damaged_checkpoints_are_refused_or_restored_exactly(tmp_path):
    made, other = model(), model(seed=1)
    file = save_checkpoint(tmp_path, 3, made, {"batch": 8})
    content, wanted, before = file.read_bytes(), state(made), state(other)
    header = 8 + int.from_bytes(content[:8], "little")
    heads = (data + content[header:] for data in corrupted(content[:header], 100, seed=1))
    exact = 0
    for data in (*corrupted(content, 100), *heads):
        file.write_bytes(data)
        if error := error_of(lambda: restore_checkpoint(file, other, {"batch": 8})):
            assert str(file) in str(error)
            assert_same(before, state(other))
            continue
        exact += 1
        assert_same(wanted, state(other))
        restore(other, before)
    assert exact < 100  # what may change is white space


def test_a_changed_number_or_kind_is_noticed(tmp_path):
    file = save_checkpoint(tmp_path, 3, model(), {"batch": 8})
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    last = content[:-1] + bytes([content[-1] ^ 1])
    kind = content[:header].replace(b"F32", b"I32", 1) + content[header:]
    step = content[:header].replace(b'"step":"3"', b'"step":"4"', 1) + content[header:]
    for data in (last, kind, step):
        assert data != content
        file.write_bytes(data)
        with pytest.raises(
            ValueError, match=r"damaged \(its checksum is another one than when it was written\); remove"
        ):
            restore_checkpoint(file, model(), {"batch": 8})


def test_checkpoints_without_a_checksum_are_read_as_before(tmp_path):
    made, other = model(), model(seed=1)
    file = save_checkpoint(tmp_path, 3, made)
    with safe_open(file, "np") as opened:
        arrays, metadata = load_file(file), opened.metadata()
    save_file(arrays, file, {**metadata, "format": "1", "sha256": "of an earlier version"})
    assert restore_checkpoint(file, other) == 3
    assert_same(state(made), state(other))
    save_file(arrays, file, {name: text for name, text in metadata.items() if name != "sha256"})
    with pytest.raises(ValueError, match="its checksum is another one"):
        restore_checkpoint(file, other)


def test_values_that_are_not_finite_are_not_saved(tmp_path):
    made = model()
    save_checkpoint(tmp_path, 1, made)
    made.layers[0].bias.assign(np.full(16, np.nan, "float32"))
    with pytest.raises(FloatingPointError, match=r"bias holds values that are not finite at step 2, .* lower the"):
        save_checkpoint(tmp_path, 2, made)
    assert newest_checkpoint(tmp_path).name == "checkpoint-00000001.safetensors"


def test_teacher_is_left_out(tmp_path):
    student, teacher = model(), model(hidden=64)
    both = keras.Sequential([keras.Input((3,)), student, keras.layers.Dense(3), teacher])
    teacher.trainable = False
    both.compile(LAMB(0.01), "mse")
    both.optimizer.build(both.trainable_variables)
    file = save_checkpoint(tmp_path, 1, both, without=[teacher])
    assert save_checkpoint(tmp_path, 2, both).stat().st_size - file.stat().st_size > 4 * teacher.count_params()
    kept = keras.ops.convert_to_numpy(student.layers[0].kernel)
    for part in (student, teacher):
        part.layers[0].kernel.assign(0 * part.layers[0].kernel)
    assert restore_checkpoint(file, both, without=[teacher]) == 1
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(student.layers[0].kernel), kept)
    assert not keras.ops.any(teacher.layers[0].kernel)


@given(st.lists(st.integers(0, 50), unique=True), st.integers(0, 50), st.integers(0, 40))
def test_curve_trims_to_a_step_whatever_was_cut_off(tmp_path_factory, steps, last, cut):
    file = tmp_path_factory.mktemp("curve") / "curve.jsonl"
    for step in steps:
        curve.append(file, {"step": step, "loss": float("nan") if step % 3 == 0 else step / 7})
    if steps:
        whole = file.read_text()
        file.write_text(whole[: len(whole) - min(cut, len(whole.splitlines()[-1]))] if cut else whole)
    kept = steps[:-1] if steps and cut else steps
    curve.trim(file, last)
    assert [row["step"] for row in curve.read(file)] == [step for step in kept if step <= last]


DAMAGED = [
    '{"step"}',
    "[]",
    '{"step": "2"}',
    '{"step": true}',
    '{"step": 2, "loss": [1]}',
    '{"step": 2, "loss": NaN}',
    f'{{"step": 2, "loss": {10**400}}}',
    "[" * 100_000,
    "\udcff",
]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_curve_says_which_line_is_damaged(tmp_path, line):
    (tmp_path / "c").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n', "utf-8", "surrogateescape")
    for read in (curve.read, lambda file: curve.trim(file, 1)):
        error = error_of(lambda read=read: read(tmp_path / "c"))
        assert "c, line 2: a JSON object with a step was expected, got " in str(error)
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_a_hundred_damaged_curves_are_read_or_refused(tmp_path):
    for step in range(5):
        curve.append(tmp_path / "c", {"step": step, "loss": step / 7})
    for data in corrupted((tmp_path / "c").read_bytes(), 100):
        (tmp_path / "c").write_bytes(data)
        error_of(lambda: curve.trim(tmp_path / "c", 3))
