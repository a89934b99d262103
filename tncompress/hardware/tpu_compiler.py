"""The process in which `tncompress.hardware.tpu` compiles: descriptions in, a line of JSON for each out.

    python -m tncompress.hardware.tpu_compiler < order.json

The order is `{"topology": "v5e:2x2", "programs": [...]}`, with the environment that `tpu` sets.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from tncompress.hardware.tpu import cycles_in
from tncompress.network.plan import contract_unflattened, plan
from tncompress.network.spec import Spec

DTYPE = jnp.bfloat16
EPSILON = 1e-12  # of BERT's LayerNorm

Shapes = Any  # a nest of dicts and lists of `jax.ShapeDtypeStruct`
Program = tuple[Callable[..., Any], Shapes, Shapes]  # function, shape of x, shapes of its parameters


def main() -> None:
    """Compile what is ordered, one after the other, and say the estimated cycles of each at once."""
    order = json.load(sys.stdin)
    topology = topologies.get_topology_desc(platform="tpu", topology_name=order["topology"])
    mesh = jax.sharding.Mesh(np.array(topology.devices[:1]), ("chip",))
    one_chip = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    for config in order["programs"]:
        print(json.dumps({"cycles": compiled_cycles(program(config), one_chip)}), flush=True)


def compiled_cycles(made: Program, sharding: Any) -> int:
    """The compiler's estimate for one call."""
    function, *shapes = made

    def placed(shape: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    compiled = jax.jit(function).lower(*jax.tree.map(placed, shapes)).compile()
    return cycles_in(compiled.as_text() or "")


def array(*shape: int, dtype: Any = DTYPE) -> jax.ShapeDtypeStruct:
    """An array of a program, without numbers."""
    return jax.ShapeDtypeStruct(shape, dtype)


def program(config: Mapping) -> Program:
    """What a description of `tpu` stands for."""
    return {"maps": maps, "encoder": encoder}[config["kind"]](config)


def maps(config: Mapping) -> Program:
    """See `tpu.Maps`."""
    specs = [Spec.from_config(spec) for spec in config["specs"]]

    def call(x: Any, params: Any) -> Any:
        for k, spec in enumerate(specs):
            x = linear(spec, gelu(x) if k else x, params[k])
        return x

    return call, array(config["batch"], config["tokens"], specs[0].in_dim), [map_shapes(spec) for spec in specs]


def encoder(config: Mapping) -> Program:
    """See `tpu.Encoder`."""
    attention = [Spec.from_config(spec) for spec in config["attention"]]
    feed_forward = [Spec.from_config(spec) for spec in config["feed_forward"]]
    hidden = attention[0].in_dim
    scale = array(hidden, dtype=jnp.float32)  # as mixed precision keeps it
    layer_shapes = {
        "attention": [map_shapes(spec) for spec in attention],
        "feed_forward": [map_shapes(spec) for spec in feed_forward],
        "norms": [{"scale": scale, "shift": scale}] * 2,
    }

    def call(x: Any, params: Any) -> Any:
        for layer in params:
            x = encoder_layer(x, layer, attention, feed_forward, config["heads"])
        return x

    return call, array(config["batch"], config["tokens"], hidden), [layer_shapes] * config["layers"]


def encoder_layer(x: Any, params: Any, attention: list[Spec], feed_forward: list[Spec], heads: int) -> Any:
    """BERT's: LayerNorm after each of the two sums. x `[batch, tokens, hidden]`."""
    query, key, value = (
        linear(spec, x, given).reshape(*x.shape[:2], heads, -1)
        for spec, given in zip(attention[:3], params["attention"][:3], strict=True)
    )
    # B batch, T and S tokens, N heads, K key size
    scores = jnp.einsum("btnk,bsnk->bnts", query, key) * DTYPE(query.shape[-1] ** -0.5)
    seen = jnp.einsum("bnts,bsnk->btnk", jax.nn.softmax(scores), value).reshape(*x.shape[:2], -1)
    x = layer_norm(x + linear(attention[3], seen, params["attention"][3]), params["norms"][0])
    units = gelu(linear(feed_forward[0], x, params["feed_forward"][0]))
    return layer_norm(x + linear(feed_forward[1], units, params["feed_forward"][1]), params["norms"][1])


def gelu(x: Any) -> Any:
    """By tanh, as in the original BERT."""
    return jax.nn.gelu(x, approximate=True)


def layer_norm(x: Any, params: Any) -> Any:
    """Over the last axis, in float32."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    normed = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return (normed * params["scale"] + params["shift"]).astype(x.dtype)


def linear(spec: Spec, x: Any, params: Any) -> Any:
    """A map with its bias, on the last axis of x."""
    lead = x.shape[:-1]
    planned, x = plan(spec, int(np.prod(lead))), x.reshape(*lead, *spec.shape(spec.inputs))
    y = contract_unflattened(planned, x, params["cores"], jnp.einsum)
    return y.reshape(*lead, spec.out_dim) + params["bias"]


def map_shapes(spec: Spec) -> Shapes:
    """Shapes of the parameters of `linear`."""
    return {"cores": [array(*shape) for shape in spec.core_shapes], "bias": array(spec.out_dim)}
