"""`recover`: against closed-form optima and numpy, on all backends."""

import warnings
from itertools import count
from unittest import mock

import keras
import numpy as np
import pytest
from backends import passes_on
from keras import layers, ops
from models import largest_difference, made, outputs_of, token_batch, vectors

from tncompress import load, replace_dense, report
from tncompress.conversion import stages
from tncompress.conversion.course import Course, Pace
from tncompress.conversion.distillation import CONSTANT, Distillation
from tncompress.conversion.recover import _split, recover
from tncompress.conversion.walking import walk

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the other backends run below it")


def weights_of(*models):
    return [np.array(ops.convert_to_numpy(variable)) for model in models for variable in model.variables]


def pair(name="sequential", keep=0.5, **kwargs):
    """A teacher, its compressed student, and batches of inputs."""
    teacher, _ = made(name)
    if name == "encoder":
        batches = [token_batch(seed=seed) for seed in range(6)]
    else:
        batches = [vectors(seed, rows=16) for seed in range(10)]
    return replace_dense(teacher, keep, **kwargs), teacher, batches


def mlp(rank=None, name="model"):
    """8 -> 5, linear; through a bond of `rank` if there is one."""
    bond = [] if rank is None else [layers.Dense(rank, use_bias=False, name="bond")]
    return keras.Sequential([keras.Input((8,)), *bond, layers.Dense(5, name="out")], name=name)


# -- what is reached -------------------------------------------------------------


def test_a_linear_student_comes_near_the_optimum():
    keras.utils.set_random_seed(0)
    teacher, student = mlp(), mlp(rank=3)
    x = np.random.default_rng(0).normal(1, 1, (3000, 8)).astype("float32")
    unseen = x[2000:]
    wanted = outputs_of(teacher, unseen)[0].astype("float64")
    # The best outputs of rank 3 with a bias (Eckart-Young, 1936): no student can be nearer.
    tail = np.linalg.svd(wanted - wanted.mean(0), compute_uv=False)[3:]
    optimum = np.sum(tail**2) / wanted.size
    recovered = recover(student, teacher, x[:2000], validation=unseen, learning_rate=0.05, epochs=8)
    reached = np.mean((outputs_of(recovered, unseen)[0] - wanted) ** 2)
    assert optimum * (1 - 1e-5) <= reached <= 1.05 * optimum
    variance = np.mean([wanted[start : start + 32].var(0).mean() for start in range(0, 4 * 32, 32)])
    assert min(recovered.history.history["val_loss"]) == pytest.approx(reached / variance, rel=1e-3)


def test_compressed_models_are_won_back_and_reload_exactly(tmp_path):
    student, teacher, batches = pair("encoder")
    recovered = recover(student, teacher, batches, objective=sentence, learning_rate=3e-3, epochs=8)
    losses = recovered.history.history["val_loss"]
    assert min(losses) < 0.5 * losses[0]
    assert report(recovered).recipe == report(student).recipe
    assert type(recovered) is type(student)
    recovered.save(tmp_path / "recovered.keras")
    assert (
        largest_difference(
            outputs_of(load(tmp_path / "recovered.keras"), batches[0]), outputs_of(recovered, batches[0])
        )
        == 0
    )


def test_arguments_stay_as_they_are():
    student, teacher, batches = pair("frozen")
    teacher.compile("sgd", "mse")
    student.compile("sgd", "mse")
    before = weights_of(student, teacher)
    flags = [v.trainable for v in (*student.variables, *teacher.variables)]
    recovered = recover(student, teacher, batches, learning_rate=1e-2, epochs=2)
    np.testing.assert_equal(weights_of(student, teacher), before)
    assert [v.trainable for v in (*student.variables, *teacher.variables)] == flags
    assert [v.trainable for v in recovered.variables] == flags[: len(recovered.variables)]
    assert recovered.compiled
    recovered.fit(batches[0], np.zeros((16, 16), "float32"), verbose=0)
    np.testing.assert_equal(weights_of(student, teacher), before)
    teacher.fit(batches[0], np.zeros((16, 16), "float32"), verbose=0)
    kept = [
        not np.array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
        for a, b in zip(student.variables, recovered.variables, strict=True)
    ]
    assert kept == [variable.trainable for variable in student.variables]  # what is frozen is not trained


def test_another_precision_is_of_the_training_only():
    student, teacher, batches = pair("encoder")
    before = weights_of(student, teacher)
    masked = [(batch, batch["input_mask"].astype(bool)) for batch in batches]
    exact = Distillation(student, teacher, sentence)
    exact.prepare(masked[:4])
    losses = [float(exact.compute_loss(batch, mask, exact(batch))) for batch, mask in masked]
    seen, tensors = set(), Distillation.tensors

    def watched(self, model, inputs):
        seen.add((model is teacher, model.get_layer("pooler").compute_dtype))
        return tensors(self, model, inputs)

    arguments = {"objective": sentence, "learning_rate": 3e-3, "validation": batches}
    with mock.patch.object(Distillation, "tensors", watched):
        half = recover(student, teacher, batches, dtype="mixed_bfloat16", **arguments)
    assert seen == {(True, "bfloat16"), (False, "bfloat16")}
    given = half.history.history["val_loss"][0]
    assert given == pytest.approx(np.mean(losses), rel=0.02)  # numbers of 8 bits
    assert given != pytest.approx(np.mean(losses), rel=1e-6)
    np.testing.assert_equal(weights_of(student, teacher), before)
    for _, layer in (*walk(half), *walk(teacher)):
        assert (layer.compute_dtype, layer.variable_dtype) == ("float32", "float32")
    assert outputs_of(half, batches[0])[0].dtype == "float32"


@pytest.mark.parametrize(
    ("filters", "trained"),
    [
        ({}, {"first/core_0", "first/core_1", "first/bias", "second/core_0", "second/core_1", "second/bias"}),
        ({"include": "first", "exclude": None}, {"first/core_0", "first/core_1", "first/bias"}),
        ({"include": ["core_0", "core_1"], "exclude": "second"}, {"first/core_0", "first/core_1"}),
        ({"exclude": ["^embedding/", "first", "^second/core"]}, {"second/bias"}),
    ],
    ids=["by default", "one layer", "cores of one layer", "one variable"],
)
def test_filters_choose_variables(filters, trained):
    student, teacher, x = (
        pair("masked")[0],
        made("masked")[0],
        [token_batch(seed=s)["input_word_ids"] for s in range(4)],
    )
    recovered = recover(student, teacher, x, validation=x, learning_rate=1e-3, epochs=2, **filters)
    changed = set()
    for name in ("embedding", "first", "second"):
        for old, new in zip(student.get_layer(name).variables, recovered.get_layer(name).variables, strict=True):
            if not np.array_equal(ops.convert_to_numpy(old), ops.convert_to_numpy(new)):
                changed.add(f"{name}/{new.name}")
    assert changed == trained


# -- the loss --------------------------------------------------------------------


def loss_of(student, teacher, batch, seen=None):
    """The loss on one batch, with the variances of `seen`, without training."""
    distillation = Distillation(student, teacher, None)
    distillation.prepare([(b, b["input_mask"].astype(bool)) for b in seen or [batch]])
    return float(distillation.compute_loss(batch, batch["input_mask"], distillation(batch)))


def test_the_loss_is_the_relative_error_where_the_mask_is_one():
    student, teacher, batch = made("encoder", seed=2)[0], made("encoder")[0], token_batch()
    mask = batch["input_mask"].astype(bool)
    relative = []
    for found, wanted in zip(outputs_of(student, batch), outputs_of(teacher, batch), strict=True):
        rows = (found[mask], wanted[mask]) if found.ndim == 3 else (found, wanted)
        relative.append(np.mean((rows[0] - rows[1]) ** 2) / rows[1].var(axis=0).mean())
    assert len(relative) == 4
    assert loss_of(student, teacher, batch) == pytest.approx(np.mean(relative), rel=1e-4)


def test_padding_does_not_matter():
    student, teacher, batch = made("encoder", seed=2)[0], made("encoder")[0], token_batch()
    noise = np.random.default_rng(0).integers(1, 30, batch["input_mask"].shape)
    other = {**batch, "input_word_ids": np.where(batch["input_mask"] == 1, batch["input_word_ids"], noise)}
    other = {key: np.pad(value, ((0, 0), (0, 3))).astype("int32") for key, value in other.items()}
    assert loss_of(student, teacher, other, seen=[batch]) == pytest.approx(loss_of(student, teacher, batch), rel=1e-4)
    assert loss_of(student, teacher, batch, seen=[other]) == pytest.approx(loss_of(student, teacher, batch), rel=1e-4)


def test_what_is_as_wide_as_texts_are_long_has_no_positions():
    entry = keras.Input((None, 3))
    model = keras.Model(entry, layers.Dense(5)(layers.GlobalAveragePooling1D()(entry)))
    batches = [(np.ones((2, length, 3), "float32"), np.ones((2, length), bool)) for length in (7, 5)]
    for order in (batches, batches[::-1]):
        distillation = Distillation(model, model, None)
        distillation.prepare(order)
        assert not distillation._targets["output"].masked


def test_of_one_row_the_size_stands_for_the_variance():
    teacher, x = mlp(), vectors(rows=1)[:, :8]
    distillation = Distillation(mlp(), teacher, None)
    distillation.prepare([(x, None)])
    size = np.mean(outputs_of(teacher, x)[0] ** 2)
    assert distillation._targets["output"].variance == pytest.approx(CONSTANT * size, rel=1e-4)


def sentence(outputs, inputs):
    weights = ops.expand_dims(ops.cast(inputs["input_mask"], "float32"), -1)
    return ops.sum(outputs["sequence_output"] * weights, axis=1) / ops.sum(weights, axis=1)


def test_an_objective_of_vectors_counts_by_direction_and_similarity():
    student, teacher, batches = pair("encoder")
    distillation = Distillation(student, teacher, sentence)
    found = distillation.tensors(student, batches[0])
    sequence, weights = ops.convert_to_numpy(found["output/sequence_output"]), batches[0]["input_mask"][..., None]
    mean = (sequence * weights).sum(1) / weights.sum(1)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(ops.convert_to_numpy(found["objective"]), unit, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(found["similarity of objective"]), unit @ unit.T, atol=1e-5)


def test_an_objective_weighs_twice_an_output():
    """docs/recovering.md: outputs and similarities weigh 1 each, the direction of an objective's vectors 2."""
    keras.utils.set_random_seed(0)
    student, teacher = mlp(), mlp()
    x = vectors(rows=30)[:, :8]
    distillation = Distillation(student, teacher, lambda outputs, inputs: outputs)
    distillation.prepare([(x, None)])
    ours, theirs = (outputs_of(model, x)[0].astype("float64") for model in (student, teacher))
    expected = 0.0
    for weight, of in ((1, lambda y: y), (2, unit), (1, lambda y: unit(y) @ unit(y).T)):
        expected += weight * np.mean((of(ours) - of(theirs)) ** 2) / of(theirs).var(axis=0).mean()
    assert float(distillation.compute_loss(x, None, distillation(x))) == pytest.approx(expected, rel=1e-4)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_hidden_layers_are_matched():
    student, teacher, batches = pair()
    distillation = Distillation(student, teacher, None, ["first"])
    hidden = keras.Model(teacher.inputs, teacher.get_layer("first").output)
    found = ops.convert_to_numpy(distillation.tensors(teacher, batches[0])["layer first"])
    np.testing.assert_allclose(found, outputs_of(hidden, batches[0])[0], atol=1e-6)
    assert "call" not in vars(teacher.get_layer("first"))
    # What leads to the hidden layer only is trained towards it; the output alone could not tell it apart.
    arguments = {"validation": batches, "learning_rate": 3e-3, "epochs": 3, "include": "first", "exclude": None}
    plain, hidden = (recover(student, teacher, batches, layers=paths, **arguments) for paths in ((), ["first"]))
    errors = []
    for model in (student, plain, hidden):
        seen = Distillation(model, teacher, None, ["first"]).tensors(model, batches[0])
        errors.append(np.mean((ops.convert_to_numpy(seen["layer first"]) - found) ** 2))
    assert errors[2] < min(errors[:2])


# -- never worse, and when to stop -----------------------------------------------


# -- stages ----------------------------------------------------------------------


def chain(noise=0.0):
    """Three maps with a tanh after each; the student's are the teacher's and noise."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8,)), *(layers.Dense(8, "tanh", name=name) for name in "abc")])
    draw = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(variable + noise * draw.normal(size=variable.shape))
    return model


def test_stages_learn_one_after_another_then_the_whole():
    teacher, student = chain(), chain(noise=0.3)
    x = np.random.default_rng(0).normal(size=(320, 8)).astype("float32")
    seen = []

    def spy(distillation, chosen, batches, pace, started):
        before = weights_of(distillation.student)
        course = stages.train(distillation, chosen, batches, pace, started)
        changed = {
            variable.path.split("/")[-2]
            for variable, old in zip(distillation.student.variables, before, strict=True)
            if not np.array_equal(old, ops.convert_to_numpy(variable))
        }
        seen.append((changed, set(distillation._targets), pace.epochs, course.curve["val_loss"]))
        return course

    with mock.patch("tncompress.conversion.recover.train", spy):
        recovered = recover(student, teacher, x, stages=["a", "b", "c"], learning_rate=0.02, epochs=24)
    assert [sorted(changed) for changed, *_ in seen] == [["a"], ["b"], ["c"], ["a", "b", "c"]]
    assert [targets for _, targets, *_ in seen] == [{"layer a"}, {"layer b"}, {"layer c"}, {"output"}]
    assert [epochs for _, _, epochs, _ in seen] == [4, 4, 4, 12]
    assert all(min(losses) < 0.5 * losses[0] for *_, losses in seen[:3])
    given = recover(student, teacher, x, learning_rate=1e-9, epochs=0.1).history.history["val_loss"][0]
    curve = recovered.history.history["val_loss"]
    assert curve[0] < 0.5 * given
    assert min(curve) < curve[0]


def test_stages_that_make_the_whole_worse_are_undone():
    teacher, student = chain(), chain(noise=0.3)
    x = np.random.default_rng(0).normal(size=(320, 8)).astype("float32")

    def spoil(distillation, chosen, *arguments):
        if "output" in distillation._targets:
            return stages.train(distillation, chosen, *arguments)
        (variable,) = (v for v in distillation.student.variables if v.path.endswith("b/kernel"))
        variable.assign(variable + 1)

    before = weights_of(student)
    with (
        mock.patch("tncompress.conversion.recover.train", spoil),
        pytest.warns(UserWarning, match="stages did not lower the held-out loss .* goes on from what was given"),
    ):
        again = recover(student, teacher, x, stages=["b"], learning_rate=1e-9, epochs=0.2)
    for a, b in zip(before, weights_of(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_only_the_layers_may_be_matched():
    teacher, student = chain(), chain(noise=0.3)
    x = np.random.default_rng(0).normal(size=(320, 8)).astype("float32")
    recovered = recover(student, teacher, x, layers=["a"], outputs=False, learning_rate=0.02, epochs=8)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(m.get_layer("c").kernel) for m in (student, recovered)))
    assert min(recovered.history.history["val_loss"]) < 0.2 * recovered.history.history["val_loss"][0]


def test_an_absurd_learning_rate_gives_the_student_back():
    student, teacher, batches = pair()
    with pytest.warns(UserWarning, match="did not lower the held-out loss of .* lower learning_rate than 1000"):
        recovered = recover(student, teacher, batches, learning_rate=1e3)
    assert largest_difference(outputs_of(recovered, batches[0]), outputs_of(student, batches[0])) == 0


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best_weights():
    student, teacher, batches = pair()
    bad = [*batches, *[np.full_like(batches[0], np.nan)] * 10]
    with pytest.warns(UserWarning, match=r"The loss is nan at step \d+, so training stopped"):
        recovered = recover(student, teacher, bad, validation=batches[:2], epochs=9, learning_rate=1e-2)
    curve = recovered.history.history
    assert curve["step"][-1] < 9 * 20
    assert np.isfinite(outputs_of(recovered, batches[0])[0]).all()


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([5, 4, 1, 2, 3, 2], 2),
        ([5, 4, 3, 2, 1, 0], 5),
        ([1, 2, np.nan, 3], 0),
        ([2, 1, 3, 4, 5], 1),
        ([1, 5, 4, 3, 2, 0], 5),  # worse than the start for long, but on its way
    ],
)
def test_the_best_weights_are_kept_and_three_that_do_not_fall_end_it(losses, best):
    seen = []

    def scripted(distillation, *args, **kwargs):
        seen.append(weights_of(distillation.student))
        return {"loss": losses[len(seen) - 1]}

    batches = [vectors(seed)[:, :8] for seed in range(10)]
    with mock.patch.object(Distillation, "evaluate", scripted), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Training did not lower")
        recovered = recover(mlp(rank=3), mlp(), batches, epochs=4)
    assert len(seen) == len(losses)
    np.testing.assert_equal(weights_of(recovered), seen[best])
    assert not np.array_equal(seen[0][0], seen[-1][0])


def test_minutes_end_it():
    student, teacher = mlp(rank=3), mlp()
    ticks = count()
    batches = [vectors(seed)[:, :8] for seed in range(10)]
    recovered = recover(student, teacher, batches, epochs=1000, minutes=1, clock=lambda: next(ticks) / 4)
    curve = recovered.history.history
    assert 20 < curve["step"][-1] < 240  # every step looks at the clock at least once
    assert len(curve["step"]) == 6
    assert 55 < curve["seconds"][-1] <= 61  # a look at the clock takes a quarter of a second here


def test_a_part_of_a_pace_is_as_fast_and_shorter():
    assert Pace(1e-3, 4.0, 2.0).part(0.25) == Pace(1e-3, 1.0, 0.5)
    assert Pace(1e-3, 4.0, None).part(0.25) == Pace(1e-3, 1.0, None)


def test_the_learning_rate_warms_up_and_goes_down():
    rates = []

    class Recorded(Course):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            rates.append(float(self.model.optimizer.learning_rate))

    with mock.patch("tncompress.conversion.stages.Course", Recorded):
        recover(mlp(rank=3), mlp(), [vectors(seed)[:, :8] for seed in range(5)], learning_rate=0.1, epochs=10)
    expected = [0.1 * min(1, (step + 1) / 4) * (1 - step / 40) for step in range(40)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_the_same_seed_gives_the_same_curve():
    keras.utils.set_random_seed(0)
    student, teacher, batches = mlp(rank=3), mlp(), [vectors(seed)[:, :8] for seed in range(10)]
    curves = [recover(student, teacher, batches, seed=seed).history.history["val_loss"] for seed in (3, 3, 4)]
    assert curves[0] == curves[1] != curves[2]


def test_progress_is_shown_when_asked_for(capsys):
    student, teacher, batches = mlp(rank=3), mlp(), [vectors(seed)[:, :8] for seed in range(4)]
    recover(student, teacher, batches)
    assert capsys.readouterr().err == ""
    recover(student, teacher, batches, progress=True)
    assert "step 3: held-out loss" in capsys.readouterr().err


# -- data and errors -------------------------------------------------------------


@pytest.mark.parametrize(("share", "count"), [(0.1, 2), (0.5, 4), (0.01, 1)])
def test_what_is_held_out_is_not_trained_on(share, count):
    models, batches = {"student": mlp(), "teacher": mlp()}, [np.full((2, 8), number) for number in range(20)]
    training, held_out = _split(models, batches, None, share, np.random.default_rng(0))
    numbers = [[int(x[0, 0]) for x, _ in part] for part in (training, held_out)]
    assert len(held_out) == count
    assert sorted(number for part in numbers for number in part) == list(range(20))


@ON_TENSORFLOW
def test_data_may_be_a_dataset_or_one_array():
    import tensorflow as tf

    student, teacher, x = mlp(rank=3), mlp(), vectors(rows=320)[:, :8]
    as_array, as_dataset = (
        recover(student, teacher, data, learning_rate=1e-2, epochs=2).history.history["val_loss"]
        for data in (x, tf.data.Dataset.from_tensor_slices((x, x)).batch(32))
    )
    assert as_array == as_dataset


def test_batches_may_differ_in_length_however_they_are_ordered():
    student, teacher, _ = pair("masked")
    batches = [token_batch(seed=length)["input_word_ids"][:, :length] for length in (5, 5, 5, 5, 7, 6)]
    assert recover(student, teacher, batches, epochs=3, learning_rate=1e-3).history.history["step"][-1] == 15


def other(**changes):
    width, names = changes.get("width", 16), changes.get("names", ("a",))
    entry = keras.Input((16,))
    return keras.Model(entry, {name: layers.Dense(width)(entry) for name in names}, name="other")


def nan_later():
    """Gives what is no number where the inputs are large."""
    entry = keras.Input((16,))
    return keras.Model(entry, {"a": layers.Dense(16)(ops.sqrt(5 - entry))}, name="other")


def words():
    """Takes texts of any length, as ids of nine tokens."""
    entry = keras.Input((None,), dtype="int32", name="ids")
    return keras.Model(entry, layers.Dense(3)(layers.Embedding(9, 4)(entry)), name="words")


def untouched():
    return keras.Sequential([layers.Dense(16)])


@keras.saving.register_keras_serializable(package="tests")
class Either(keras.Model):
    """Takes vectors with any axes before."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(2)
        self(vectors())

    def call(self, x):
        return self.dense(x)


DATA = [vectors(seed) for seed in range(4)]
TEXTS = [np.arange(2 * length, dtype="int32").reshape(2, length) % 9 for length in (4, 5, 7)]


@pytest.mark.parametrize(
    ("student", "teacher", "data", "arguments", "words"),
    [
        (other(), other(), [], {}, "are empty: give at least one batch"),
        (other(), other(), DATA[:1], {}, "one batch, too few to hold any out"),
        (other(), other(), DATA, {"validation": 1.5}, "above 0 and below 1, got 1.5"),
        (other(), other(), DATA, {"learning_rate": 0}, "learning_rate is a number above 0, got 0"),
        (other(), other(), DATA, {"dtype": "int8"}, "dtype is a policy of floating-point numbers .* got 'int8'"),
        (other(), other(), DATA, {"dtype": 7}, "dtype is a policy of floating-point numbers .* got 7"),
        (other(), other(), DATA, {"minutes": -1}, "minutes is a number above 0, got -1"),
        (other(), other(width=8), DATA, {}, r"gives output/a of shape \(12, 16\), the teacher of shape \(12, 8\)"),
        (other(), other(names="ab"), DATA, {}, "only one of them has output/b"),
        (mlp(), other(), DATA, {}, r"student 'model' does not take training batch 0: .* and got float32 \[12, 16\]"),
        (other(), mlp(), DATA, {}, "The teacher 'model' does not take training batch 0: it takes "),
        (
            other(),
            other(),
            [*DATA * 5, DATA[0][:, :5]],
            {},
            r"training batch 20: .*\[any, 16\] and got float32 \[12, 5\]",
        ),
        (other(), other(), [*DATA, np.full((2, 16), "a")], {}, "training batch 4: .* texts have to be tokenised first"),
        (other(), other(), [*DATA, {"x": DATA[0]}], {}, "training batch 4: it takes .* got {x: "),
        (other(), other(), DATA, {"validation": [*DATA * 5, DATA[0][:, :5]]}, "not take validation batch 20: it takes"),
        pytest.param(
            *(words(), words(), [*TEXTS, TEXTS[0] + 9], {}, "training batch 3: it got int32 .* is not in "),
            marks=ON_TENSORFLOW,  # others take any id, or say it in other words
        ),
        (words(), words(), [*TEXTS, TEXTS[0] + 0.5], {}, "training batch 3: .* are whole numbers, and these are not"),
        (
            *(words(), words(), [*(text * 1.0 for text in TEXTS), TEXTS[0] + 0.5], {}),  # like another in all else
            "training batch 3: .* are whole numbers, and these are not",
        ),
        (
            Either(),
            Either(),
            [*DATA, DATA[0][None]],
            {},
            r"the same arrays, but training batch 4 is float32 \[1, 12, 16\]",
        ),
        (other(), other(), DATA, {"validation": 1}, "hold out, above 0 and below 1, got 1"),
        (other(), other(), DATA, {"validation": []}, "The validation data are empty"),
        (other(), other(), DATA, {"seed": "a"}, "seed is a whole number, 0 or more, got 'a'"),
        (other(), other(), DATA, {"objective": "b"}, r"objective='b' is no output of the model; it has \['a'\]"),
        (untouched(), other(), DATA, {}, "The student 'sequential.*' is not built: call it once"),
        (other(), other(), DATA, {"objective": lambda outputs, x: "a"}, "objective gives no floating-point tensor"),
        (other(), other(), DATA, {"layers": ["nowhere"]}, "nowhere"),
        (other(), other(), DATA, {"stages": ["nowhere"]}, "nowhere"),
        (other(), other(), DATA, {"stages": "dense"}, "stages is a list of paths of layers, got the text 'dense'"),
        (chain(), chain(), DATA, {"stages": ["a"], "include": "^b/"}, "The stage 'a' has no variable to train"),
        (other(), other(), DATA, {"outputs": False}, "nothing to match; name layers= or an objective"),
        (other(), other(), DATA, {"layers": "dense"}, "layers is a list of paths of layers, got the text 'dense'"),
        (other(), other(), DATA, {"include": "nowhere"}, "include='nowhere' matches no variable; the model has "),
        (other(), other(), DATA, {"include": "("}, r"include='\(' is not a regular expression"),
        (other(), other(), DATA, {"exclude": "dense"}, "No variable is left to train"),
        (other(), other(), [x * np.nan for x in DATA], {}, "gives NaN or infinity in output/a"),
        (nan_later(), other(), DATA, {"validation": [DATA[0], DATA[1] + 9]}, "as it was given is nan; look for inputs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_argument_is_answered_in_one_sentence(student, teacher, data, arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        recover(student, teacher, data, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"teacher": None}, "A Keras model was expected as teacher, got NoneType"),
        ({"student": None}, "A Keras model was expected as student, got NoneType"),
        ({"teacher": "big.keras"}, r"as teacher, got str; tncompress.load\('big.keras'\) gives it"),
        ({"data": "abc"}, "Training data are an iterable of what the model takes .* got str"),
        ({"validation": None}, "Validation data are an iterable of what the model takes .* got NoneType"),
        ({"objective": 3}, "objective is the name of an output, 'outputs' for all, or a function .* got 3"),
        ({"layers": 5}, "layers is a list of paths of layers, got 5"),
        ({"stages": 5}, "stages is a list of paths of layers, got 5"),
        ({"include": 5}, "include is a regular expression, or several of them, got 5"),
        ({"clock": 3}, "clock is a function that gives seconds, such as time.process_time, got 3"),
    ],
    ids=str,
)
def test_what_is_of_another_kind_is_answered_in_one_sentence(arguments, words):
    with pytest.raises(TypeError, match=words) as error:
        recover(**{"student": other(), "teacher": other(), "data": DATA, **arguments})
    assert "\n" not in str(error.value)


def test_what_the_models_take_is_taken():
    """Whole numbers among others, rows as lists, and lengths in any order."""
    student, teacher = mlp(rank=3), mlp()
    rows = [vectors(seed)[:, :8] for seed in range(5)]
    given = [np.round(9 * rows[0]).astype("int32"), rows[1].astype("float64"), rows[2].tolist(), *rows[3:]]
    as_floats = [np.asarray(x, "float32") for x in given]
    with mock.patch("tncompress.conversion.course.EVALUATIONS", 20):
        curves = [recover(student, teacher, x).history.history["loss"][1:] for x in (given, as_floats)]
    np.testing.assert_allclose(*curves, rtol=1e-5)


def test_an_objective_may_be_the_name_of_an_output():
    student, teacher = other(names="ab"), other(names="ab")
    curves = [
        recover(student, teacher, DATA, objective=objective, outputs=False).history.history["val_loss"]
        for objective in ("b", lambda outputs, inputs: outputs["b"])
    ]
    assert curves[0] == curves[1]


@ON_TENSORFLOW
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_pass_this_file(backend):
    passes_on(backend, __file__)
