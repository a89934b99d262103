"""LAMB and AdamW against the equations in float64 numpy, under `fit`. Runs on every backend: see the last test."""

import re
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from backends import passes_on
from encoders import CARDS, KINDS, config_of, masked_lm_of
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from bert_models import build_encoder
from bert_models.training.exclusions import NORMS_AND_BIASES, checked_patterns, excluded, useless
from bert_models.training.optimizers import LAMB, AdamW
from bert_models.training.schedules import WarmupDecay

BACKEND = keras.backend.backend()
ON_TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="needs the TensorFlow backend")
STEPS, RATE = 50, 1e-2
TOLERANCE = 2e-6  # of weights of about 1 after 50 steps: a dozen roundings of float32

# Path -> shape of what the probe trains: kinds of variables that encoders have, and one that starts at zero.
SHAPES = {
    "block/core_0": (4, 3),
    "block/order/core_1": (3, 2, 2),
    "block/bias": (5,),
    "block/norm/gamma": (3,),
    "block/norm/beta": (3,),
    "output_bias": (4,),
    "zero/kernel": (2, 2),
}
BIASES, NORMS = {"block/bias", "output_bias"}, {"block/norm/gamma", "block/norm/beta"}


@keras.saving.register_keras_serializable(package="test")
class Probe(keras.layers.Layer):
    """Output <w, x> for the weights w of all its variables and an input x, which therefore is the gradient."""

    def build(self, input_shape):
        self.parts = [
            self.add_weight(name=path.rsplit("/", 1)[-1], shape=shape, initializer="zeros")
            for path, shape in SHAPES.items()
        ]
        for variable, path in zip(self.parts, SHAPES, strict=True):
            variable._path = path

    def call(self, x):
        w = ops.concatenate([ops.reshape(ops.convert_to_tensor(part), (-1,)) for part in self.parts])
        return ops.matmul(x, ops.expand_dims(w, -1))


def probe(optimizer, start, dtype=None, **compiled):
    model = keras.Sequential([keras.Input((sum(int(np.prod(s)) for s in SHAPES.values()),)), Probe(dtype=dtype)])
    for variable, value in zip(model.trainable_variables, start.values(), strict=True):
        variable.assign(value)
    model.compile(optimizer, loss=lambda y, p: ops.sum(ops.cast(p, "float32")) / ops.shape(p)[0], **compiled)
    return model


def weights_of(model):
    """Path -> array."""
    return dict(zip(SHAPES, (ops.convert_to_numpy(v) for v in model.trainable_variables), strict=True))


def problem(steps=STEPS, seed=0):
    """Weights at the start, and gradients [steps, ...] that are exact in half precision too."""
    draw = np.random.default_rng(seed)
    start = {path: draw.normal(0, 0.5, shape).astype("float32") for path, shape in SHAPES.items()}
    start["zero/kernel"] = np.zeros(SHAPES["zero/kernel"], "float32")
    scales = 2.0 ** -np.arange(len(SHAPES))
    gradients = {
        path: np.clip(np.round(draw.normal(0.2, 0.5, (steps, *shape)) * 64), -96, 96) / 64 * scale
        for scale, (path, shape) in zip(scales, SHAPES.items(), strict=True)
    }
    return start, gradients


def rows(gradients, repeat=1):
    """The inputs [steps, features] with which the probe has these gradients."""
    flat = np.concatenate([g.reshape(len(g), -1) for g in gradients.values()], axis=1)
    return np.repeat(flat, repeat, axis=0).astype("float32")


def train(model, x, batch_size=1):
    model.fit(x, np.zeros((len(x), 1), "float32"), batch_size=batch_size, shuffle=False, verbose=0)
    return weights_of(model)


def by_the_paper(start, gradients, *, rate, beta_1, beta_2, epsilon, decay, kept, clip=None, unscaled=None):
    """The weights after all steps, in float64: LAMB's algorithm 2, or AdamW's for `unscaled` of all variables.

    Args:
        rate: of a step counted from 1.
        kept, unscaled: paths without decay, and with a trust ratio of 1.
    """
    weights = {path: value.astype("float64") for path, value in start.items()}
    m = {path: np.zeros_like(w) for path, w in weights.items()}
    v = {path: np.zeros_like(w) for path, w in weights.items()}
    for t in range(1, len(next(iter(gradients.values()))) + 1):
        g = {path: values[t - 1].astype("float64") for path, values in gradients.items()}
        total = np.sqrt(sum((values**2).sum() for values in g.values()))
        for path, w in weights.items():
            slope = g[path] * min(1, clip / total) if clip else g[path]
            m[path] = beta_1 * m[path] + (1 - beta_1) * slope
            v[path] = beta_2 * v[path] + (1 - beta_2) * slope**2
            r = (m[path] / (1 - beta_1**t)) / (np.sqrt(v[path] / (1 - beta_2**t)) + epsilon)
            if path not in kept:
                r = r + decay * w
            trust = 1.0
            if path not in unscaled and np.linalg.norm(w) > 0 and np.linalg.norm(r) > 0:
                trust = np.linalg.norm(w) / np.linalg.norm(r)
            weights[path] = w - rate(t) * trust * r
    return weights


def constant(t):
    return RATE


def triangle(t):
    """Up in 10 steps from 0, then down to 0.1 RATE at step 40, in float64."""
    t = t - 1
    return RATE * t / 10 if t < 10 else RATE * (0.1 + 0.9 * max(0, (40 - t) / 30) ** 2)


TRIANGLE = {"peak": RATE, "total_steps": 40, "warmup_steps": 10, "power": 2.0, "end": RATE / 10}

# What the optimizer is told -> what the equations are told. The sets of paths are written by hand.
CASES = {
    "lamb, as on the card": (
        lambda **more: LAMB(RATE, **more),
        {"beta_2": 0.99, "decay": 0.01, "kept": BIASES | NORMS, "unscaled": BIASES | NORMS},
    ),
    "lamb, two lists, clipped": (
        lambda **more: LAMB(
            RATE,
            weight_decay=0.3,
            beta_1=0.8,
            beta_2=0.999,
            epsilon=1e-3,
            exclude_from_weight_decay=["bias$", "core_1"],
            exclude_from_layer_adaptation=["^block/norm", "^output_bias$"],
            global_clipnorm=0.7,
            **more,
        ),
        {
            "beta_1": 0.8,
            "beta_2": 0.999,
            "epsilon": 1e-3,
            "decay": 0.3,
            "clip": 0.7,
            "kept": {"block/bias", "output_bias", "block/order/core_1"},
            "unscaled": {"block/norm/gamma", "block/norm/beta", "output_bias"},
        },
    ),
    "lamb, nothing excluded, schedule": (
        lambda **more: LAMB(
            WarmupDecay(**TRIANGLE), 0.1, exclude_from_weight_decay=[], exclude_from_layer_adaptation=[], **more
        ),
        {"rate": triangle, "beta_2": 0.99, "decay": 0.1, "kept": set(), "unscaled": set()},
    ),
    "adamw, as for BERT": (
        lambda **more: AdamW(RATE, **more),
        {"beta_2": 0.999, "decay": 0.01, "clip": 1.0, "kept": BIASES | NORMS, "unscaled": set(SHAPES)},
    ),
    "adamw, own list, not clipped, schedule": (
        lambda **more: AdamW(
            WarmupDecay(**TRIANGLE),
            weight_decay=0.5,
            beta_2=0.98,
            exclude_from_weight_decay=["/norm/"],
            global_clipnorm=None,
            **more,
        ),
        {"rate": triangle, "beta_2": 0.98, "decay": 0.5, "kept": NORMS, "unscaled": set(SHAPES)},
    ),
}
every_case = pytest.mark.parametrize("case", CASES)


def truth(case, start, gradients):
    return by_the_paper(start, gradients, **{"rate": constant, "beta_1": 0.9, "epsilon": 1e-6, **CASES[case][1]})


def assert_close(found, expected, tolerance=TOLERANCE):
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=0, atol=tolerance, err_msg=path)


# -- the equations ----------------------------------------------------------------


@every_case
def test_equals_the_paper(case):
    start, gradients = problem()
    found = train(probe(CASES[case][0](), start), rows(gradients))
    expected = truth(case, start, gradients)
    assert_close(found, expected)
    assert all(np.abs(expected[path] - start[path]).max() > 100 * TOLERANCE for path in SHAPES)


def test_every_argument_of_a_case_matters():
    """What the truth is told shows in it far above the tolerance, so that an optimizer deaf to it would fail."""
    case = "lamb, two lists, clipped"
    start, gradients = problem()
    expected, told = truth(case, start, gradients), CASES[case][1]
    defaults = {"beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-6, "decay": 0.01, "clip": None}
    for name, value in {**defaults, "kept": BIASES | NORMS, "unscaled": BIASES | NORMS}.items():
        others = by_the_paper(start, gradients, **{"rate": constant, **told, name: value})
        assert max(np.abs(others[path] - expected[path]).max() for path in SHAPES) > 100 * TOLERANCE, name


@pytest.mark.parametrize("case", ["lamb, nothing excluded, schedule", "adamw, as for BERT"])
def test_accumulated_batches_are_one_larger_batch(case):
    """Also for the schedule: it counts updates. Pairs of gradients with the mean of a step."""
    start, gradients = problem()
    x = rows(gradients, repeat=2)
    x[0::2] += 0.5
    x[1::2] -= 0.5
    found = train(probe(CASES[case][0](gradient_accumulation_steps=2), start), x)
    assert_close(found, truth(case, start, gradients))


@pytest.mark.parametrize("case", ["lamb, two lists, clipped", "adamw, as for BERT"])
def test_mixed_precision_skips_overflow(case):
    """Under a float16 policy Keras wraps the optimizer and scales the loss; a step that is not finite is no step."""
    start, gradients = problem()
    x = np.insert(rows(gradients), 20, np.inf, axis=0)
    model = probe(CASES[case][0](), start, dtype="mixed_float16")
    if not isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        model.compile(keras.optimizers.LossScaleOptimizer(CASES[case][0]()), loss=model.loss)
    found = train(model, x)
    assert int(model.optimizer.inner_optimizer.iterations) == STEPS
    assert_close(found, truth(case, start, gradients))


def test_half_precision_variables_are_updated_in_float32():
    """The squares of a thousand weights of 300 have a sum of 9e7, and float16 ends at 65504."""
    variable = keras.Variable(np.full(1000, 300.0), dtype="float16", name="kernel")
    LAMB(0.1, weight_decay=0.0).apply([ops.ones(1000, "float16")], [variable])
    np.testing.assert_allclose(ops.convert_to_numpy(variable), 270, rtol=2**-11)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_repeated_tokens_are_summed(clip):
    """TensorFlow hands over one slice for each time that a token occurs; squares and norms are of their sum.

    Epsilon is large, so that the size of the gradient matters.
    """
    table = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), keras.layers.Embedding(5, 3)])
    model.set_weights([table])
    model.compile(AdamW(RATE, 0.1, epsilon=0.5, global_clipnorm=clip), loss=lambda y, p: ops.sum(p * y))
    tokens, g = np.array([[1, 2, 1, 1]]), np.random.default_rng(1).normal(size=(1, 4, 3)).astype("float32")
    for _ in range(2):
        model.fit(tokens, g, verbose=0)
    gradient = np.zeros((5, 3))
    np.add.at(gradient, tokens[0], g[0])
    told = {"rate": constant, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 0.5, "decay": 0.1, "clip": clip}
    expected = by_the_paper({"t": table}, {"t": np.stack([gradient] * 2)}, **told, kept=set(), unscaled={"t"})
    np.testing.assert_allclose(model.get_weights()[0], expected["t"], rtol=0, atol=TOLERANCE)


# -- schedules ----------------------------------------------------------------


@settings(deadline=None)  # the first operation of a backend may take seconds
@given(
    peak=st.floats(1e-6, 10),
    warmup=st.integers(0, 50),
    decay=st.integers(1, 50),
    power=st.floats(0.3, 3),
    end=st.floats(0, 1),
    from_start=st.booleans(),
    step=st.integers(0, 120),
)
def test_schedule_equals_its_equation(peak, warmup, decay, power, end, from_start, step):
    total, end = warmup + decay, end * peak
    rate = WarmupDecay(peak, total, warmup, power, end, from_start)
    start = 0 if from_start else warmup
    expected = end + (peak - end) * max(0.0, (total - step) / (total - start)) ** power
    if step < warmup:
        expected = peak * step / warmup
    assert float(rate(step)) == pytest.approx(expected, rel=1e-5, abs=1e-6 * peak)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
    assert again.get_config() == rate.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total_steps": 10, "warmup_steps": 10}, "fewer than total_steps, got 10 of 10"),
        ({"total_steps": 10, "warmup_steps": -1}, "got -1 of 10"),
        ({"total_steps": 10, "end": 2.0}, "from a peak of 1.0 to an end of 2.0"),
        ({"total_steps": 10, "power": 0}, "power must be positive, got 0"),
    ],
)
def test_schedules_that_make_no_curve(arguments, message):
    with pytest.raises(ValueError, match=message):
        WarmupDecay(1.0, **arguments)


# -- exclusions ----------------------------------------------------------------


# Ends of all paths that our models have -> whether LAMB decays and adapts them by default.
ENDS = {
    "kernel": True,
    "embeddings": True,
    "core": True,
    "pre_softmax": True,
    "post_softmax": True,
    "table": True,
    "projection": True,
    "gamma": False,
    "beta": False,
    "bias": False,
    "output_bias": False,
}


def compressed(form, **arguments):
    from tncompress import replace_dense

    encoder = build_encoder(config_of("dense", hidden_size=16))
    return replace_dense(encoder, form=form, **arguments)


def expand_condensed():
    from tncompress.forms import expand_condense

    return compressed(expand_condense.form(blocks=2, bond=4), include="feed_forward")


def sorted_layers():
    """Layers that hold integers, which are not trained."""
    from tncompress.forms import low_rank
    from tncompress.layers.embedding import TNEmbedding
    from tncompress.layers.pivoted import TNPivoted

    layers = [TNEmbedding(9, 6, [(4, None), (5, 2)]), TNPivoted(low_rank.spec(6, 8, 3)), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *layers, keras.layers.LayerNormalization()])
    assert any("int" in v.dtype for v in model.non_trainable_variables)
    return model


MODELS = {
    **{f"encoder, {kind}": lambda kind=kind: build_encoder(config_of(kind)) for kind in CARDS},
    **{f"masked LM, {kind}": lambda kind=kind: masked_lm_of(kind) for kind in KINDS},
    "compressed, expand_condense": expand_condensed,
    "compressed, low_rank": lambda: compressed("low_rank", keep=0.6),
    "layers with orders": sorted_layers,
}


def by_layers(model):
    """Ids of LayerNorms' variables and of all biases: by the layers that own them, not by names."""
    found = set()
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.LayerNormalization):
            found |= {id(v) for v in layer.variables}
        found |= {id(v) for v in (getattr(layer, "bias", None), getattr(layer, "output_bias", None)) if v is not None}
    return found


@ON_TENSORFLOW
@pytest.mark.parametrize("name", MODELS)
def test_which_variables_are_decayed_and_adapted(name):
    model = MODELS[name]()
    optimizer = LAMB()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.build(model.trainable_variables)
    owned = by_layers(model)
    assert owned
    for variable in model.trainable_variables:
        expected = ENDS[re.sub(r"(_\d+)+$", "", variable.path.rsplit("/", 1)[-1])]
        assert expected == (id(variable) not in owned), variable.path
        assert optimizer.decays(variable) == optimizer.adapts(variable) == expected, variable.path


@pytest.mark.parametrize("kind", [LAMB, AdamW])
def test_patterns_that_match_nothing_are_reported(kind):
    start, _ = problem(1)
    model = probe(kind(exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"], name="mine"), start)
    message = (
        r"mine: found in none of the 7 variables' paths: 'LayerNorm', 'layer_norm', given as exclude_from_weight_d"
    )
    with pytest.warns(UserWarning, match=message + "ecay; the paths end in beta, bias, core_0, core_1, gamma"):
        model.optimizer.build(model.trainable_variables)
    with pytest.warns(UserWarning, match="'nowhere', given as exclude_from_layer_adaptation"):
        LAMB(exclude_from_layer_adaptation=["nowhere"]).build(model.trainable_variables)


def test_no_weight_decay_leaves_adaptation_excluded():
    start, _ = problem(1)
    variables = dict(zip(SHAPES, probe(LAMB(), start).trainable_variables, strict=True))
    optimizer = LAMB(weight_decay=None)
    optimizer.build(list(variables.values()))
    assert not any(optimizer.decays(v) for v in variables.values())
    assert {path for path, v in variables.items() if not optimizer.adapts(v)} == BIASES | NORMS


WRONG = {
    "text": (lambda: LAMB(exclude_from_weight_decay="bias"), TypeError, r"write \['bias'\]"),
    "no list": (lambda: AdamW(exclude_from_weight_decay=3), TypeError, "list of regular expressions, got 3"),
    "no texts": (lambda: LAMB(exclude_from_layer_adaptation=[1]), TypeError, r"exclude_from_layer_adaptation.*\[1\]"),
    "no pattern": (lambda: LAMB(exclude_from_weight_decay=["(x"]), ValueError, r"'\(x' is no regular expression"),
    "beta": (lambda: LAMB(beta_2=1.0), ValueError, "beta_2 must be at least 0 and below 1, got 1.0"),
    "decay": (lambda: AdamW(weight_decay=-0.1), ValueError, "weight_decay must not be negative, got -0.1"),
    "epsilon": (lambda: AdamW(epsilon=-1), ValueError, "epsilon must not be negative"),
    "method": (lambda: LAMB().exclude_from_weight_decay(var_names=["bias"]), ValueError, r"write LAMB\(exclude_from"),
    "unknown": (lambda: LAMB(weight_decay_rate=0.1), ValueError, "weight_decay_rate"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    make, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        make()


PIECES = st.text("ab/_", min_size=1, max_size=5)


@given(st.lists(PIECES, min_size=1), st.lists(PIECES))
def test_plain_texts_are_found_anywhere(paths, pieces):
    patterns = checked_patterns(pieces, "pieces")
    assert excluded(paths, patterns) == {i for i, path in enumerate(paths) if any(p in path for p in pieces)}
    assert set(useless(paths, patterns)) == {p for p in pieces if all(p not in path for path in paths)}
    assert useless(paths, NORMS_AND_BIASES) == ()


# -- files ----------------------------------------------------------------


def small_model(optimizer, name="whole"):
    layers = [keras.layers.Dense(3, "tanh", name="wide"), keras.layers.LayerNormalization(name="norm")]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2, name="head")], name=name)
    model.compile(optimizer, loss="mse")
    return model


def excluded_ends(model, test):
    """The last two parts of the paths of excluded variables."""
    left = [v for v in model.trainable_variables if not getattr(model.optimizer, test)(v)]
    return {"/".join(v.path.split("/")[-2:]) for v in left}


@pytest.mark.parametrize("kind", [LAMB, AdamW])
def test_a_saved_model_goes_on_as_if_it_had_not_been_saved(kind, tmp_path):
    """Exclusions, moments, the count of steps and the schedule. A pattern names the model, as paths do at first."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(8, 4)).astype("float32"), draw.normal(size=(8, 2)).astype("float32")
    told = {"exclude_from_weight_decay": ["^whole/head/", "gamma$"]}
    if kind is LAMB:
        told["exclude_from_layer_adaptation"] = ["wide/kernel"]
    model = small_model(kind(WarmupDecay(**TRIANGLE), 0.2, **told))
    model.fit(x, y, batch_size=4, epochs=3, verbose=0)
    model.save(tmp_path / "m.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = keras.models.load_model(tmp_path / "m.keras")
    assert type(again.optimizer) is kind
    assert again.optimizer.get_config() == model.optimizer.get_config()
    assert again.layers[0].kernel.path == "wide/kernel"  # Keras has dropped the model's name
    assert excluded_ends(again, "decays") == {"norm/gamma", "head/kernel", "head/bias"}
    if kind is LAMB:
        assert excluded_ends(again, "adapts") == {"wide/kernel"}
    for one in (model, again):
        one.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_config_serves_another_model_too():
    """Its patterns are then looked for in the other's paths."""
    first = LAMB(exclude_from_weight_decay=["^whole/head/", "^other/wide/"])
    with pytest.warns(UserWarning, match=r"'\^other/wide/', given as exclude_from_weight_decay"):
        first.build(small_model(first).trainable_variables)
    second = LAMB.from_config(first.get_config())
    other = small_model(second, name="other")
    with pytest.warns(UserWarning, match=r"'\^whole/head/', given as exclude_from_weight_decay"):
        second.build(other.trainable_variables)
    assert excluded_ends(other, "decays") == {"wide/kernel", "wide/bias"}
    half = keras.optimizers.LossScaleOptimizer(first)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(half))
    assert again.inner_optimizer.get_config() == first.get_config()


def test_adapting_all_is_not_forgotten():
    """[] and None differ, in files too."""
    for patterns in ([], None):
        config = keras.optimizers.serialize(LAMB(exclude_from_layer_adaptation=patterns))
        again = keras.optimizers.deserialize(config)
        assert again.get_config()["exclude_from_layer_adaptation"] == patterns


@ON_TENSORFLOW
@pytest.mark.parametrize("name", ["masked LM, tn_bert", "compressed, low_rank"])
def test_a_loaded_encoder_has_the_same_exclusions(name, tmp_path):
    """By position, since Keras may give the variables of a loaded model other paths."""
    model = MODELS[name]()
    model.compile(LAMB(), loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert isinstance(again.optimizer, LAMB)
    again.optimizer.build(again.trainable_variables)
    for test in ("decays", "adapts"):
        flags = [[getattr(m.optimizer, test)(v) for v in m.trainable_variables] for m in (model, again)]
        assert flags[0] == flags[1]
        assert len(set(flags[0])) == 2


# -- Model Garden, other backends -----------------------------------------------------


GARDEN = pytest.mark.skipif(find_spec("official") is None, reason="pip install --no-deps tf-models-official")
CARD_LIST = ["LayerNorm", "layer_norm", "bias"]


def trained_by_the_garden(optimizer, start, gradients):
    import tensorflow as tf

    variables = {path: tf.Variable(value, name=path) for path, value in start.items()}
    for t in range(STEPS):
        slopes = [tf.constant(values[t].astype("float32")) for values in gradients.values()]
        optimizer.apply_gradients(zip(slopes, variables.values(), strict=True))
    return {path: variable.numpy() for path, variable in variables.items()}


@pytest.mark.slow
@GARDEN
@ON_TENSORFLOW
@pytest.mark.parametrize("kind", ["lamb", "adamw"])
@pytest.mark.parametrize("lists", ["ours", "of the card"])
def test_equals_model_garden(kind, lists):
    """Its `create_optimizer`: decay 0.01, warm-up and decay of the rate, AdamW clipped to 1.

    Its AdamW adds epsilon before the correction, ours after it, as in the paper: there epsilon is all but zero.
    """
    from official.nlp import optimization

    start, gradients = problem()
    theirs = optimization.create_optimizer(RATE, 60, 10, optimizer_type=kind, poly_power=2.0)
    theirs.epsilon = {"lamb": 1e-6, "adamw": 1e-12}[kind]
    patterns = list(NORMS_AND_BIASES) if lists == "ours" else CARD_LIST
    for name in ("exclude_from_weight_decay", "_exclude_from_weight_decay", "exclude_from_layer_adaptation"):
        if hasattr(theirs, name):
            setattr(theirs, name, [pattern.rstrip("$") for pattern in patterns])  # its names may end in ":0"
    expected = trained_by_the_garden(theirs, start, gradients)
    rate = WarmupDecay(RATE, 60, 10, power=2.0, decay_from_start=True)
    ours = {"lamb": LAMB, "adamw": AdamW}[kind](
        rate, beta_2=0.999, epsilon=theirs.epsilon, exclude_from_weight_decay=patterns
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the card's patterns find no LayerNorm among these paths
        found = train(probe(ours, start), rows(gradients))
    assert_close(found, expected)
    assert all(np.abs(expected[path] - start[path]).max() > 100 * TOLERANCE for path in SHAPES)


@pytest.mark.slow
@GARDEN
@ON_TENSORFLOW
def test_model_garden_excludes_the_card_s_list_from_both():
    """Its lists apart: what the fall-back of one on the other means."""
    from official.modeling.optimization.lamb import LAMB as THEIRS

    start, gradients = problem()
    told = {"exclude_from_weight_decay": ["gamma"], "exclude_from_layer_adaptation": ["core_1", "bias"]}
    theirs = THEIRS(RATE, beta_2=0.99, weight_decay_rate=0.2, **told)
    found = train(probe(LAMB(RATE, 0.2, **told), start), rows(gradients))
    assert_close(found, trained_by_the_garden(theirs, start, gradients))


REPLICAS = """
import keras, numpy as np, tensorflow as tf
from bert_models.training.optimizers import LAMB, AdamW

two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
draw = np.random.default_rng(0)
x, y = draw.normal(size=(32, 4)).astype("float32"), draw.normal(size=(32, 2)).astype("float32")

def trained(devices, kind):
    keras.utils.set_random_seed(0)
    with tf.distribute.MirroredStrategy(devices).scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)])
        model.compile(kind(1e-2, 0.1, epsilon=0.1, global_clipnorm=0.1), loss="mse")
    model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    return model.get_weights()

for kind in (LAMB, AdamW):
    for a, b in zip(trained(["CPU:0"], kind), trained(["CPU:0", "CPU:1"], kind)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
"""


@pytest.mark.slow
@ON_TENSORFLOW
def test_two_replicas_are_one():
    """TensorFlow's MirroredStrategy, clipping included. Devices must be set up before TensorFlow starts."""
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


FEW = "paper and card or goes_on and LAMB"


@ON_TENSORFLOW
@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("which", [FEW, pytest.param("test", marks=pytest.mark.slow)], ids=["few", "all"])
def test_other_backends_pass_this_file(backend, which):
    passes_on(backend, __file__, "-k", which)
