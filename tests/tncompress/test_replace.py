"""`replace_dense` and `densify`: budgets, recipes, repeated use, compiled models, bad arguments."""

import json
from itertools import pairwise

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from models import WIDTH, Subclassed, full_recipe, largest_difference, made, outputs_of, vectors

from tncompress import FORMS, Moments, Spec, TNDense, calibrate, densify, find_sites, load, replace_dense, report
from tncompress.conversion.walking import locate
from tncompress.forms import low_rank


def stack(widths, **kwargs):
    """A Sequential of Dense layers `dense_0` ... from widths[0] to widths[-1]."""
    return keras.Sequential(
        [keras.Input((widths[0],)), *(layers.Dense(n, name=f"dense_{k}") for k, n in enumerate(widths[1:]))], **kwargs
    )


def core_parameters(model):
    return sum(int(np.prod(core.shape)) for layer in model.layers if isinstance(layer, TNDense) for core in layer.cores)


# -- how much stays ------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([48, 60, 64, 72]), min_size=5, max_size=7), st.floats(0.15, 0.95))
def test_low_rank_uses_the_budget_up(widths, keep):
    """What is left is less than one more rank of the smallest layer, the finest step there is."""
    sizes = list(pairwise(widths))
    small = replace_dense(stack(widths), keep=keep)
    dense = sum(int(np.prod(layer.kernel.shape)) for layer in small.layers if isinstance(layer, layers.Dense))
    left = keep * sum(a * b for a, b in sizes) - core_parameters(small) - dense
    assert -1e-6 <= left < sum(min(sizes, key=np.prod)) + 1


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.77])
def test_several_layers_meet_the_budget_within_a_hundredth(keep):
    small = replace_dense(stack([128, 384, 128, 384, 128]), keep=keep)
    assert 0.99 * keep <= core_parameters(small) / (4 * 128 * 384) <= keep


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([6, 8, 12, 15, 16, 24]), min_size=2, max_size=4),
    st.floats(0.05, 1.0),
    st.lists(
        st.sampled_from(["low_rank", "kronecker", "monarch", "tt_matrix", "block_diagonal"]), min_size=1, max_size=2
    ),
)
def test_budget_is_never_exceeded(widths, keep, form):
    model = stack(widths)
    try:
        small = replace_dense(model, keep=keep, form=form)
    except ValueError as error:
        if "No dense layer can be replaced" not in str(error):
            raise
        return
    found = report(small)
    before, after = (sum(getattr(row, name) for row in found.rows) for name in ("params_before", "params_after"))
    assert after <= keep * before + 1e-6
    assert sum(row.params_after for row in found.replaced) == core_parameters(small)
    assert found.params_after == small.count_params()
    assert found.params_before == model.count_params()


def test_keep_one_leaves_everything_dense():
    model, inputs = made("sequential")
    small = replace_dense(model, keep=1)
    assert report(small).replaced == ()
    assert largest_difference(outputs_of(small, inputs), outputs_of(model, inputs)) == 0.0


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form(form, tmp_path):
    model = stack([16, 24], name="one")
    small = replace_dense(model, keep=0.6, form=form)
    assert [row.form for row in report(small).rows] == [form]
    assert report(small).keep <= 0.6
    small.save(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(0, 1, (3, 16)).astype("float32")
    assert largest_difference(outputs_of(load(tmp_path / "small.keras"), x), outputs_of(small, x)) == 0.0


def test_of_several_forms_each_layer_gets_what_fits_it():
    model = stack([16, 24, 36])
    first, second = model.layers
    draw = np.random.default_rng(0)
    first.kernel.assign(np.kron(draw.normal(0, 1, (4, 6)), draw.normal(0, 1, (4, 4))))
    second.kernel.assign(draw.normal(0, 1, (24, 3)) @ draw.normal(0, 1, (3, 36)))
    rows = report(replace_dense(model, keep=0.5, form=["low_rank", "kronecker"])).rows
    assert [row.form for row in rows] == ["kronecker", "low_rank"]
    assert max(row.weight_error for row in rows) < 1e-5


def test_weight_error_is_the_distance_of_the_kernels():
    model, _ = made("sequential")
    small = replace_dense(model, keep=0.5)
    for row in report(small).rows:
        kernel = np.asarray(model.get_layer(row.layer).kernel)
        cores = [np.asarray(core, "float64") for core in small.get_layer(row.layer).cores]
        expected = np.linalg.norm(kernel - cores[0] @ cores[1]) / np.linalg.norm(kernel)
        singular = np.linalg.svd(kernel, compute_uv=False)
        assert row.weight_error == pytest.approx(expected, rel=1e-4)
        rank = cores[0].shape[1]
        assert expected == pytest.approx(np.linalg.norm(singular[rank:]) / np.linalg.norm(singular), rel=1e-4)


# -- what is carried over ---------------------------------------------------------------------


def test_layer_properties_are_carried_over():
    model, _ = made("regularized")
    small = replace_dense(model, keep=0.6)
    first, second = small.layers
    assert first.core_regularizer.get_config() == model.layers[0].kernel_regularizer.get_config()
    assert first.bias_regularizer.get_config() == model.layers[0].bias_regularizer.get_config()
    assert first.activity_regularizer.get_config() == model.layers[0].activity_regularizer.get_config()
    assert first.activation is keras.activations.relu
    assert second.core_constraint.get_config() == model.layers[1].kernel_constraint.get_config()
    assert second.bias is None
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]


def test_frozen_layers_stay_frozen(tmp_path):
    small = replace_dense(made("frozen")[0], keep=0.6)
    small.save(tmp_path / "small.keras")
    for model in (small, load(tmp_path / "small.keras")):
        assert [layer.trainable for layer in model.layers] == [False, True]
        assert len(model.trainable_variables) == 3


def test_what_was_frozen_after_it_was_made_stays_frozen():
    model, _ = made("subclassed")
    model.items[0].trainable = False
    small = replace_dense(model, keep=0.6)
    assert isinstance(small.items[0], TNDense)
    assert not small.items[0].trainable
    assert densify(small).items[0].trainable is False
    assert small.items[1][0].trainable


def test_shared_layers_are_shared():
    model, _ = made("subclassed")
    small = replace_dense(model, keep=0.6)
    assert small.attribute is small.again
    assert isinstance(small.attribute, TNDense)


def test_half_precision_stays():
    small = replace_dense(made("half_precision")[0], keep=0.6)
    assert small.get_layer("first").dtype_policy.name == "mixed_bfloat16"


def test_compiled_as_before():
    model, inputs = made("sequential")
    targets = np.zeros((12, WIDTH))
    model.compile(keras.optimizers.Adam(0.0123), loss="mae", metrics=["mse"], jit_compile=True, steps_per_execution=1)
    model.fit(inputs, targets, verbose=0)
    stale = model.predict(inputs, verbose=0)
    iterations, slots = int(model.optimizer.iterations), [np.asarray(v) for v in model.optimizer.variables]
    small = replace_dense(model, keep=0.3)
    assert small.compiled
    assert float(small.optimizer.learning_rate) == pytest.approx(0.0123)
    assert small.loss == "mae"
    assert small.jit_compile is True
    assert int(small.optimizer.iterations) == 0
    assert np.abs(small.predict(inputs, verbose=0) - stale).max() > 1e-3
    assert largest_difference([small.predict(inputs, verbose=0)], outputs_of(small, inputs)) < 1e-5
    assert len(small.evaluate(inputs, targets, verbose=0)) == 2
    # and the given model goes on as if nothing had been
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), stale)
    assert int(model.optimizer.iterations) == iterations
    for before, after in zip(slots, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(before, np.asarray(after))


def test_optimizer_that_cannot_be_copied_is_a_warning():
    model, inputs = made("sequential")
    model.compile("adam", loss=lambda y, p: keras.ops.mean((y - p) ** 2))
    with pytest.warns(UserWarning, match="could not be compiled as the given one"):
        small = replace_dense(model)
    assert not small.compiled
    small.predict(inputs, verbose=0)


# -- again and back ----------------------------------------------------------------------------


def test_replacing_twice(tmp_path):
    model, inputs = made("functional_of_models")
    once = replace_dense(model, keep=0.6, include="^inner")
    twice = replace_dense(once, keep=0.5, include="head|block", form="kronecker")
    forms = {row.layer: row.form for row in report(twice).rows}
    assert {path for path, form in forms.items() if form == "low_rank"} == {p for p in forms if p.startswith("inner")}
    assert (forms["head"], forms["block/dense"], forms["graph/hidden"]) == ("kronecker", "kronecker", None)
    assert report(twice).params_before == model.count_params()
    assert report(twice).params_after == twice.count_params()
    twice.save(tmp_path / "twice.keras")
    again = load(tmp_path / "twice.keras")
    assert largest_difference(outputs_of(again, inputs), outputs_of(twice, inputs)) == 0.0
    assert report(again) == report(twice)
    for path, layer in locate(once, ["inner/attribute"]).items():
        for before, after in zip(layer.cores, locate(twice, [path])[path].cores, strict=True):
            np.testing.assert_array_equal(before, after)
    assert replace_dense(model, recipe=report(twice).recipe).count_params() == twice.count_params()


@pytest.mark.parametrize(
    "name", ["functional", "lazy", "sequential_of_models", "regularized", "preprocessed", "encoder"]
)
def test_densify_is_the_way_back(name, tmp_path):
    model, inputs = made(name)
    small = replace_dense(model, keep=0.6, calibration=[inputs])
    dense = densify(small)
    assert type(dense) is type(model)
    assert dense.count_params() == model.count_params()
    expected = outputs_of(small, inputs)
    scale = max(1.0, *(float(np.abs(y).max()) for y in expected))
    assert largest_difference(outputs_of(dense, inputs), expected) < 2**-24 * 64 * scale
    assert not {id(v) for v in dense.variables} & {id(v) for v in small.variables}
    dense.save(tmp_path / "dense.keras")
    assert largest_difference(outputs_of(load(tmp_path / "dense.keras"), inputs), outputs_of(dense, inputs)) == 0.0
    kinds = {type(layer) for layer in locate(dense, [site.path for site in find_sites(dense)]).values()}
    assert TNDense not in kinds


def test_densify_after_loading_and_training(tmp_path):
    model, inputs = made("subclassed")
    small = replace_dense(model, keep=0.6)
    small.save(tmp_path / "small.keras")
    again = load(tmp_path / "small.keras")
    again.compile("sgd", loss="mse")
    again.fit(inputs, inputs, verbose=0)
    assert type(densify(again)) is Subclassed
    assert largest_difference(outputs_of(densify(again), inputs), outputs_of(again, inputs)) < 1e-5


@pytest.mark.parametrize("make", [lambda: made("sequential")[0], lambda: layers.Dense(3), lambda: "x"])
def test_densify_needs_a_compressed_model(make):
    with pytest.raises(ValueError, match="holds no networks made by replace_dense"):
        densify(make())


# -- recipes ---------------------------------------------------------------------------------


def test_recipe_in_every_form_makes_the_same_model(tmp_path):
    model, inputs = made("subclassed")
    small = replace_dense(model, keep=0.6, include="items|left")
    recipe = report(small).recipe
    assert set(recipe) == {"items/0", "items/1/0", "named/left"}
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe))
    for given_as in (recipe, json.dumps(recipe), json.dumps(recipe, indent=2), file, str(file)):
        again = replace_dense(model, recipe=given_as)
        assert largest_difference(outputs_of(again, inputs), outputs_of(small, inputs)) == 0.0
        assert report(again).recipe == recipe
        assert {row.reason for row in report(again).rows} == {None, "not in the recipe"}


def test_recipe_overrides_the_other_arguments():
    model, _ = made("sequential")
    recipe = {"second": full_recipe(model)["second"]}
    small = replace_dense(model, keep=0.1, form="kronecker", include="first", recipe=recipe)
    assert report(small).recipe == recipe


def test_recipe_may_name_a_shared_layer_by_any_of_its_paths():
    model, _ = made("subclassed")
    choice = full_recipe(model)["attribute"]
    assert report(replace_dense(model, recipe={"again": choice})).recipe == {"attribute": choice}


def choice(in_dim=WIDTH, out_dim=32, form="low_rank"):
    return {"form": form, "spec": low_rank.spec(in_dim, out_dim, 2).to_config()}


BAD_RECIPES = {
    "unknown path": ({"third": choice()}, "layer 'third', which the model does not have; it has first, second"),
    "other dimensions": (
        {"first": choice(out_dim=33)},
        "recipe for 'first' maps 16 to 33 features, but the layer maps 16 to 32",
    ),
    "unknown form": ({"first": choice(form="svd")}, "recipe for 'first' is not valid: There is no form 'svd'"),
    "no form": ({"first": {"spec": choice()["spec"]}}, "recipe for 'first' is not valid: .* keys 'form' and 'spec'"),
    "no spec": ({"first": {"form": "low_rank", "spec": 3}}, "recipe for 'first' is not valid: .*spec"),
    "bad equation": (
        {"first": {"form": "low_rank", "spec": {"equation": "i, i r -> o", "sizes": {"i": 16, "r": 2, "o": 32}}}},
        "recipe for 'first' is not valid: .* appears once only",
    ),
    "equation of a number": (
        {"first": {"form": "low_rank", "spec": {"equation": 3, "sizes": {}}}},
        "recipe for 'first' is not valid",
    ),
    "form of a list": ({"first": {"form": ["low_rank"], "spec": choice()["spec"]}}, "recipe for 'first' is not valid"),
    "sizes of a list": (
        {"first": {"form": "low_rank", "spec": {"equation": "i, i o -> o", "sizes": [1]}}},
        "recipe for 'first' is not valid",
    ),
    "empty": ({}, "recipe is empty"),
    "empty text": ("{}", "recipe is empty"),
    "a list": ([1], "A recipe maps layer paths to a form and a spec, got list"),
    "broken JSON": ('{"first": ', "recipe is not valid JSON"),
    "no file": ("nowhere.json", "'nowhere.json' is neither JSON text nor the path of a JSON file"),
}


@pytest.mark.parametrize(("recipe", "words"), BAD_RECIPES.values(), ids=BAD_RECIPES)
def test_bad_recipes_in_one_sentence(recipe, words):
    refuses(made("sequential")[0], ValueError, words, recipe=recipe)


def test_recipe_for_a_layer_that_cannot_be_replaced():
    small = replace_dense(made("sequential")[0], include="first")
    refuses(
        small,
        ValueError,
        "recipe names 'first', which cannot be replaced: a network already",
        recipe={"first": choice()},
    )


# -- bad arguments ------------------------------------------------------------------------------


class NeverAsked:
    def __iter__(self):
        raise AssertionError("the calibration data were asked for")


def refuses(model, error, words, **arguments):
    """One sentence, no work, nothing changed."""
    weights = model.get_weights() if isinstance(model, keras.Model) else []
    with pytest.raises(error, match=words) as caught:
        replace_dense(model, **{"calibration": NeverAsked(), **arguments})
    assert "\n" not in str(caught.value)
    for before, after in zip(weights, model.get_weights() if weights else [], strict=True):
        np.testing.assert_array_equal(before, after)


BAD_ARGUMENTS = {
    **{
        f"keep {keep}": ({"keep": keep}, f"fraction of parameters that stays, above 0 and at most 1, got {keep!r}")
        for keep in (0, -0.5, 1.5, float("nan"), float("inf"), True, "half")
    },
    "keep in percent": ({"keep": 50}, r"at most 1, got 50; 50% is 0\.5\.$"),
    "unknown form": ({"form": "svd"}, "There is no form 'svd'; choose from .*low_rank"),
    "one unknown form": ({"form": ["low_rank", "svd"]}, "There is no form 'svd'"),
    "no form": ({"form": []}, "form names no factorisation"),
    "form of a number": ({"form": 3}, "form"),
    "include": ({"include": "third"}, "include='third' matches no layer; its dense layers are first, second"),
    "exclude": ({"exclude": "third"}, "exclude='third' matches no layer"),
    "everything excluded": ({"exclude": "."}, "No dense layer can be replaced: first: in exclude; second: in exclude"),
    "too small": (
        {"keep": 0.01},
        r"No dense layer can be replaced: first: the smallest low_rank network keeps 9.4% of the kernel",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_in_one_sentence(arguments, words):
    refuses(made("sequential")[0], (ValueError, TypeError), words, **arguments)


def spoilt(value):
    model, _ = made("sequential")
    kernel = np.array(model.get_layer("second").kernel)
    kernel[0, 3] = value
    model.get_layer("second").kernel.assign(kernel)
    return model


class Unserialisable(keras.Model):
    def __init__(self, function):
        super().__init__()
        self.function, self.dense = function, layers.Dense(WIDTH)

    def call(self, x):
        return self.function(self.dense(x))


class ForgetsAnArgument(keras.Model):
    """Its get_config() leaves the width out, so that a copy gets another one."""

    def __init__(self, width=4, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.dense = layers.Dense(width), layers.Dense(WIDTH)

    def call(self, x):
        return self.dense(self.hidden(x))


class ForgetsALayer(ForgetsAnArgument):
    def __init__(self, deep=False, **kwargs):
        super().__init__(**kwargs)
        self.deeper = layers.Dense(4) if deep else None

    def call(self, x):
        x = self.hidden(x)
        return self.dense(x if self.deeper is None else self.deeper(x))

    def get_config(self):
        return {"name": self.name}


class CannotBeBuiltAgain(keras.Model):
    """Its constructor demands what its get_config() leaves out."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(width)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {"name": self.name}


def called(model):
    model(vectors())
    return model


BAD_MODELS = {
    "not a model": (lambda: "my.keras", TypeError, r"Keras model was expected, got str; tncompress.load\('my.keras'\)"),
    "not built": (
        lambda: keras.Sequential([layers.Dense(3)], name="raw"),
        ValueError,
        "'raw' is not built: call it once",
    ),
    "no dense layer": (
        lambda: keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 2)]),
        ValueError,
        "has no dense layer, so there is nothing to replace",
    ),
    "NaN in a kernel": (lambda: spoilt(np.nan), ValueError, "kernel of the layer 'second' holds NaN or infinity"),
    "infinity in a kernel": (lambda: spoilt(-np.inf), ValueError, "kernel of the layer 'second' holds NaN or infinity"),
    "constructor with a function": (
        lambda: called(Unserialisable(lambda x: x)),
        ValueError,
        "model 'unserialisable.*' cannot be copied .* Give its class Unserialisable a get_config",
    ),
    "other sizes": (
        lambda: called(ForgetsAnArgument(width=6)),
        ValueError,
        "The layer 'hidden' made from its own config takes other weights|cannot be copied",
    ),
    "other layers": (
        lambda: called(ForgetsALayer(deep=True)),
        ValueError,
        r"has other layers \(deeper\); its get_config",
    ),
    "constructor that fails": (
        lambda: called(CannotBeBuiltAgain(WIDTH)),
        ValueError,
        r"cannot be made from its own config \(.*get_config\(\)",
    ),
}


@pytest.mark.parametrize(("make", "error", "words"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_bad_models_in_one_sentence(make, error, words):
    refuses(make(), error, words)


@pytest.mark.parametrize(
    ("form", "widths", "words"),
    [
        (
            "kronecker",
            [7, 11],
            "no kronecker network of 7x11 is smaller than dense.* kronecker needs .*low_rank takes any",
        ),
        ("monarch", [7, 11], "monarch needs "),
        ("block_diagonal", [7, 11], "block_diagonal needs "),
        (["kronecker", "monarch"], [7, 11], "no kronecker or monarch network of 7x11"),
        ("low_rank", [2, 2], "no low_rank network of 2x2 is smaller than dense"),
    ],
)
def test_form_that_does_not_fit_the_dimensions(form, widths, words):
    refuses(stack(widths), ValueError, words, form=form)


def test_layers_that_a_form_does_not_fit_stay_dense_with_the_reason():
    small = replace_dense(stack([16, 24, 7]), keep=0.5, form="monarch")
    first, second = report(small).rows
    assert first.form == "monarch"
    assert second.reason == "no monarch network of 24x7 is smaller than dense"


def drawn(rows, width):
    return np.random.default_rng(rows).normal(size=(rows, width)).astype("float32")


def nan_moments(model):
    given = calibrate(model, ["dense_0", "dense_1"], drawn(40, 8))
    return {**given, "dense_1": Moments(40, np.full(12, np.nan), np.eye(12))}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda m: {"recipe": {"dense_0": {"form": "monarch", "spec": low_rank.spec(8, 12, 3).to_config()}}}, "is not"),
        (lambda m: {"recipe": {"dense_0": {"form": "svd", "spec": low_rank.spec(8, 12, 3).to_config()}}}, "no form"),
        (lambda m: {"calibration": nan_moments(m)}, "'dense_1' hold NaN"),
        (lambda m: {"calibration": {"dense_0": Moments.of(drawn(40, 8))}}, "lack the layer 'dense_1'"),
        (lambda m: {"calibration": {p: Moments.of(drawn(40, 8)) for p in ("dense_0", "dense_1")}}, "takes 12"),
        (lambda m: {"calibration": {}}, "empty"),
        (lambda m: {"calibration": [drawn(4, 5)]}, "expected axis -1"),
        (lambda m: {"include": 5}, "regular expression, several, or a function"),
        (lambda m: {"include": []}, "regular expression, several, or a function"),
    ],
)
def test_more_bad_input_in_one_sentence(arguments, words):
    model = stack([8, 12, 16])
    with pytest.raises(ValueError, match=r"\w") as caught:
        replace_dense(model, **arguments(model))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_may_hold_a_spec_of_no_form():
    spec = Spec.parse("g i, g i r, g r o -> o", g=2, i=4, r=3, o=12)
    recipe = {"dense_0": {"form": None, "spec": spec.to_config()}}
    model = stack([8, 12, 16])
    found = report(replace_dense(model, recipe=recipe, calibration=drawn(100, 8)))
    assert found.replaced[0].equation == spec.equation
    assert found.recipe == recipe


def test_numpy_numbers_are_numbers():
    assert report(replace_dense(stack([8, 12, 16]), np.float32(0.5))).keep <= 0.5


def test_calibration_without_variation_fits_the_weights():
    model = stack([8, 12])
    plain = replace_dense(model, 0.6)
    with pytest.warns(UserWarning, match="fewer vectors"):
        still = replace_dense(model, 0.6, calibration=np.ones((3, 8), "float32"))
    assert largest_difference(still.layers[0].to_dense(), plain.layers[0].to_dense()) == 0.0
    # the one input that was seen is computed exactly: the bias takes up the error
    ones = np.ones((1, 8), "float32")
    assert largest_difference(outputs_of(still, ones), outputs_of(model, ones)) < 1e-5


def test_a_compressed_part_is_reported_in_the_whole(tmp_path):
    small = replace_dense(stack([8, 12, 16], name="part"), 0.5)
    whole = keras.Sequential([keras.Input((8,)), small, layers.Dense(4, name="head")])
    found = report(whole)
    assert [row.layer for row in found.replaced] == ["part/dense_0", "part/dense_1"]
    assert found.params_after == whole.count_params()
    assert found.params_before == densify(small).count_params() + 16 * 4 + 4
    with pytest.raises(ValueError, match="but for its part 'part'"):
        densify(whole)
    both = replace_dense(whole, 0.5, include="head")
    both.save(tmp_path / "both.keras")
    assert report(load(tmp_path / "both.keras")).rows == report(both).rows
    assert len(report(both).replaced) == 3


def test_losses_of_the_users_own_are_compiled_again():
    def my_loss(truth, guess):
        return keras.ops.mean((truth - guess) ** 2)

    model = stack([8, 12, 4])
    model.compile("adam", my_loss)
    small = replace_dense(model, 0.5)
    assert small.compiled
    small.fit(drawn(8, 8), drawn(8, 4), verbose=0)
