"""Which dense layers are found, under which paths, and which are to be replaced."""

import keras
import numpy as np
import pytest
from keras import layers
from models import KINDS, WIDTH, made

from tncompress import find_sites, replace_dense
from tncompress.conversion.walking import locate, walk


def reasons(model, **filters):
    return {site.path: site.reason for site in find_sites(model, **filters)}


@pytest.mark.parametrize(
    ("filters", "chosen"),
    [
        ({}, {"graph/hidden", "block/dense", "head", "inner"}),
        ({"include": "inner"}, {"inner"}),
        ({"include": "^head$|block"}, {"head", "block/dense"}),
        ({"include": ["^head$", "graph"]}, {"head", "graph/hidden"}),
        ({"include": lambda site: site.out_dim == 8}, {"head"}),
        ({"exclude": "inner"}, {"graph/hidden", "block/dense", "head"}),
        ({"exclude": ["inner", "graph"]}, {"block/dense", "head"}),
        ({"include": "dense|head", "exclude": lambda site: site.in_dim == site.out_dim}, {"head"}),
        ({"include": "inner/again"}, {"inner/attribute"}),  # another path to the same layer
    ],
)
def test_filters(filters, chosen):
    model, _ = made("functional_of_models")
    inner = {path for path in KINDS["functional_of_models"].paths if path.startswith("inner")}
    chosen = {path for one in chosen for path in (inner if one == "inner" else [one])}
    found = reasons(model, **filters)
    assert {path for path, reason in found.items() if reason is None} == chosen
    assert set(found.values()) - {None} <= {"not in include", "in exclude"}


def test_sites_tell_sizes():
    model, _ = made("regularized")
    first, second = find_sites(model)
    assert (first.path, first.kind, first.in_dim, first.out_dim, first.use_bias) == ("first", "Dense", WIDTH, 24, True)
    assert (second.num_params, second.use_bias) == (24 * WIDTH, False)


def test_shared_layer_is_one_site():
    model, _ = made("subclassed")
    site = find_sites(model)[0]
    assert (site.path, site.aliases) == ("attribute", ("again",))


def test_automatic_names_are_counted_within_the_model():
    """Paths must be the same in a process that has made other layers before."""
    paths = [[site.path for site in find_sites(made("lazy")[0])] for _ in range(2)]
    assert paths[0] == paths[1]
    assert {"graph/dense", "sequence/dense", "sequence/dense_1"} <= set(paths[0])


class CallingItDifferently(layers.Dense):
    pass


class HoldsParent(keras.Model):
    def __init__(self):
        super().__init__()
        self.child = layers.Dense(4)
        self.child.parent = self

    def call(self, x):
        return self.child(x)


def never_called():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(4), layers.Dense(4)

        def call(self, x):
            return self.used(x)

    model = Model()
    model(np.zeros((1, 8), "float32"))
    return model


def with_attention():
    entry = keras.Input((5, 8))
    return keras.Model(entry, layers.MultiHeadAttention(2, 3, name="attention")(entry, entry))


def quantized(mode):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="dense")])
    model.quantize(mode)
    return model


def with_lora():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="dense")])
    model.layers[0].enable_lora(2)
    return model


class Diagonal(layers.EinsumDense):
    pass


EINSUMS = {
    "swapped": None,  # the kernel's axes are in another order than the input's
    "any_rank": None,
    "heads": None,
    "blocks": "its equation 'bhi,hio->bho' is no map from the last axes of the input to the last of the output",
    "not_last": "its equation 'bti,ts->bsi' is no map from the last axes of the input to the last of the output",
    "summed_twice": "its equation 'bti,io->bo' is no map from the last axes of the input to the last of the output",
    "part_of_a_bias": "its bias is not of all outputs ('bi,ihk->bhk', bias_axes 'k')",
    "subclass": "Diagonal is a subclass of EinsumDense and may compute something else",
}


def with_einsums():
    x = keras.Input((3, 4))
    y = layers.EinsumDense("...x,yx->...y", 5, name="any_rank")(x)
    y = layers.EinsumDense("btx,hyx->bthy", (3, 3, 6), bias_axes="hy", name="swapped")(y)
    y = layers.EinsumDense("bthy,yhx->btx", (3, 4), name="heads")(y)
    z = layers.EinsumDense("bhi,hio->bho", (3, 4), name="blocks")(y)
    z = layers.EinsumDense("bti,ts->bsi", (2, 4), name="not_last")(z)
    z = layers.EinsumDense("bti,io->bo", 4, name="summed_twice")(z)
    z = layers.EinsumDense("bi,ihk->bhk", (2, 4), bias_axes="k", name="part_of_a_bias")(z)
    return keras.Model(x, Diagonal("bhk,ko->bho", (2, 3), name="subclass")(z))


LEFT_DENSE = {
    "subclass": (
        lambda: keras.Sequential([keras.Input((8,)), CallingItDifferently(6, name="dense")]),
        {"dense": "CallingItDifferently is a subclass of Dense and may compute something else"},
    ),
    "int8": (lambda: quantized("int8"), {"dense": "quantized to int8: replace first, quantize afterwards"}),
    "int4": (lambda: quantized("int4"), {"dense": "quantized to int4: replace first, quantize afterwards"}),
    "lora": (with_lora, {"dense": "has LoRA weights: merge them first"}),
    "unused": (never_called, {"used": None, "unused": "not built: the model never calls it"}),
    "attention": (
        with_attention,
        {f"attention/_{part}_dense": None for part in ("query", "key", "value", "output")},
    ),
    "einsums": (with_einsums, EINSUMS),
}


@pytest.mark.parametrize(("make", "expected"), LEFT_DENSE.values(), ids=LEFT_DENSE)
def test_reasons_to_stay_dense(make, expected):
    assert reasons(make()) == expected


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_dimensions_of_quantized_layers(mode):
    site = find_sites(quantized(mode))[0]
    assert (site.in_dim, site.out_dim) == (8, 6)


def test_attention_dimensions():
    dims = {site.path.split("_")[1]: (site.in_dim, site.out_dim) for site in find_sites(with_attention())}
    assert dims == {"query": (8, 6), "key": (8, 6), "value": (8, 6), "output": (6, 8)}


def test_replaced_layers_are_not_replaced_again():
    small = replace_dense(made("sequential")[0], include="first")
    assert reasons(small) == {"first": "a network already", "second": None}


def test_sublayer_that_holds_its_parent():
    model = HoldsParent()
    model(np.zeros((1, 4), "float32"))
    assert [path for path, _ in walk(model)] == ["child"]


def test_locate():
    model, _ = made("lazy")
    paths = ["inner/items/1/0", "sequence/dense_1"]
    first, second = locate(model, paths).values()
    assert first is model.inner.items[1][0]
    assert second is model.sequence.layers[1]


def unbuilt():
    return keras.Sequential([layers.Dense(3)], name="raw")


BAD = {
    "not a model": (lambda: find_sites(layers.Dense(3)), TypeError, "Keras model was expected, got Dense"),
    "not built": (lambda: find_sites(unbuilt()), ValueError, "'raw' is not built: call it once"),
    "include": (
        lambda: find_sites(made("sequential")[0], include="third"),
        ValueError,
        "include='third' matches no layer; its dense layers are first, second",
    ),
    "one of several": (
        lambda: find_sites(made("sequential")[0], exclude=["first", "third"]),
        ValueError,
        "exclude='third' matches no layer",
    ),
    "function": (
        lambda: find_sites(made("sequential")[0], include=lambda site: False),
        ValueError,
        "function given as include accepts no layer; its dense layers are first, second",
    ),
    "syntax": (
        lambda: find_sites(made("sequential")[0], include="("),
        ValueError,
        r"include='\(' is not a regular expression",
    ),
    "number": (
        lambda: find_sites(made("sequential")[0], include=[3]),
        ValueError,
        "include=3 is not a regular expression",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD)
def test_bad_arguments_in_one_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_kernel_that_another_layer_uses_stays():
    model = keras.Sequential([keras.Input((16,)), layers.SpectralNormalization(layers.Dense(32)), layers.Dense(16)])
    found = find_sites(model)
    assert [site.reason is None for site in found] == [False, True]
    assert "uses its kernel too" in found[0].reason


def test_a_network_has_the_parameters_of_its_cores():
    model = replace_dense(made("sequential")[0], keep=0.5)
    for site in find_sites(model):
        assert site.num_params == locate(model, [site.path])[site.path].spec.num_params


def test_a_shared_layer_needs_filters_that_agree():
    model, _ = made("subclassed")
    with pytest.raises(ValueError, match=r"'attribute' is shared \(also again\): include chooses"):
        find_sites(model, include="attribute", exclude="again")
    specs = [{"equation": "i, i r, r o -> o", "sizes": {"i": WIDTH, "r": rank, "o": WIDTH}} for rank in (2, 3)]
    first, second = ({"form": "low_rank", "spec": spec} for spec in specs)
    with pytest.raises(ValueError, match="two networks for the shared layer 'attribute'"):
        replace_dense(model, recipe={"attribute": first, "again": second})
