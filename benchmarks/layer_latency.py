"""How much faster is a compressed feed-forward layer than the dense one, and than Model Garden's?

768 - 3072 - 768 with GELU between: dense, TN-BERT's Expand/Condense (`TNFeedForward`), low rank with as many
parameters, and Model Garden's layer for the same network. One CPU thread, processor time, interleaved, with a large
matmul in every round: "of peak" is the layer's FLOP/s over that matmul's.

    python benchmarks/layer_latency.py                          TensorFlow's graph mode; two minutes
    python benchmarks/layer_latency.py --jit --tokens 1 8       with XLA
    KERAS_BACKEND=jax python benchmarks/layer_latency.py        jax.jit
    python benchmarks/layer_latency.py --json FILE

Few tokens are sent through a chain of up to 12 layers with weights of their own, as in an encoder: one layer called
again and again would find its weights in the cache, which in a model it does not.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from measure import cpu_seconds, interleaved_medians, use_one_thread, write_json

use_one_thread()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")  # JAX's threads

import numpy as np  # noqa: E402 - after the number of threads is set

from tncompress.forms import expand_condense, low_rank  # noqa: E402
from tncompress.network.plan import plan  # noqa: E402

WIDTH, WIDE, BLOCKS, BOND = 768, 3072, 6, 128
TOKENS = (1, 8, 128, 1024, 4096)
MOST_LAYERS = 12
PEAK, PEAK_SIDE = "peak", 1536
RANK = 170  # as many parameters as Expand/Condense
SPECS = {
    "Expand/Condense": (
        expand_condense.expand(WIDTH, WIDE, BLOCKS, BOND),
        expand_condense.condense(WIDE, WIDTH, BLOCKS, BOND),
    ),
    f"low rank {RANK}": (low_rank.spec(WIDTH, WIDE, RANK), low_rank.spec(WIDE, WIDTH, RANK)),
}


def makers(activation: str) -> dict[str, Callable[[], Callable[[Any], Any]]]:
    """New layers by name."""
    import keras

    from tncompress.layers.feed_forward import TNFeedForward

    function = activations()[activation]

    def dense():
        wide = keras.layers.Dense(WIDE, activation=function, bias_initializer="glorot_uniform")
        return built(keras.Sequential([keras.Input((WIDTH,)), wide, keras.layers.Dense(WIDTH)]))

    found = {"dense": dense}
    for name, specs in SPECS.items():
        found[name] = lambda specs=specs: built(TNFeedForward(*specs, activation=function, use_output_bias=False))
    if keras.backend.backend() == "tensorflow":
        from peers import model_garden

        name, _ = model_garden.layer(WIDTH, WIDE // WIDTH, function)
        found[name] = lambda: model_garden.layer(WIDTH, WIDE // WIDTH, function)[1]
    return found


def activations() -> dict[str, Callable[[Any], Any]]:
    """GELU as it is and as TN-BERT has it."""
    import keras

    return {
        "gelu": lambda x: keras.activations.gelu(x),
        "gelu_tanh": lambda x: keras.activations.gelu(x, approximate=True),
    }


def built(layer: Any) -> Any:
    """A layer with weights; biases of other numbers than zero."""
    layer.build((None, WIDTH))
    for weight in layer.weights:
        if weight.path.endswith("bias"):
            weight.assign(np.random.default_rng(0).normal(0, 0.1, weight.shape))
    return layer


def flops(name: str, tokens: int) -> int:
    """Of one layer's matmuls."""
    specs = SPECS.get("Expand/Condense" if name.startswith("Model Garden") else name)
    return sum(plan(s, tokens).flops for s in specs) if specs else 4 * tokens * WIDTH * WIDE


def timed(tokens: int, activation: str, rounds: int, jit: bool, only: Sequence[str]) -> list[dict[str, Any]]:
    """Every layer at one number of tokens, as JSON can hold it."""
    layers = min(MOST_LAYERS, max(1, 1024 // tokens))
    x = np.random.default_rng(0).normal(size=(tokens, WIDTH)).astype("float32")
    square = np.random.default_rng(0).normal(size=(PEAK_SIDE, PEAK_SIDE)).astype("float32")
    names = [name for name in makers(activation) if name == "dense" or not only or any(part in name for part in only)]
    calls = {name: compiled([makers(activation)[name]() for _ in range(layers)], x, jit) for name in names}
    calls[PEAK] = compiled([lambda y: y @ y], square, jit)
    tasks = {name: lambda call=call: cpu_seconds(call) for name, call in calls.items()}
    seconds = interleaved_medians(tasks, rounds)
    peak = 2 * PEAK_SIDE**3 / seconds.pop(PEAK)
    return [
        {
            "tokens": tokens,
            "layers": layers,
            "layer": name,
            "seconds": found / layers,
            "over dense": seconds["dense"] / found,
            "of peak": layers * flops(name, tokens) / found / peak,
        }
        for name, found in seconds.items()
    ]


def compiled(layers: Sequence[Callable[[Any], Any]], x: np.ndarray, jit: bool) -> Callable[[], Any]:
    """A call of the backend's compiled function that sends x through layers one after another."""
    import keras

    if keras.backend.backend() == "jax":
        return _compiled_by_jax(layers, x)
    import tensorflow as tf

    def chain(y: Any) -> Any:
        for layer in layers:
            y = layer(y)
        return y

    x = tf.constant(x)
    chain(x)  # layers that are not built yet make their weights
    traced = tf.function(chain, jit_compile=jit).get_concrete_function(x)
    return lambda: traced(x)


def _compiled_by_jax(layers: Sequence[Any], x: np.ndarray) -> Callable[[], Any]:
    import jax

    with_weights = [layer for layer in layers if hasattr(layer, "stateless_call")]
    # Weights are arguments: as constants of the program they would be multiplied out when it is compiled.
    weights = [[v.value for v in layer.variables] for layer in with_weights]

    def chain(y: Any, weights: Any) -> Any:
        for layer, values in zip(with_weights, weights, strict=True):
            y, _ = layer.stateless_call(values, [], y)
        return y if with_weights else layers[0](y)

    function, x = jax.jit(chain), jax.numpy.asarray(x)
    return lambda: function(x, weights).block_until_ready()


def show(rows: Sequence[dict[str, Any]], title: str) -> None:
    """A table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("tokens", "layer", "us a layer", "over dense", "of peak", title=title)
    for row in rows:
        figures = (f"{row['seconds'] * 1e6:,.0f}", f"{row['over dense']:.2f}", f"{row['of peak']:.2f}")
        table.add_row(str(row["tokens"]), row["layer"], *figures, end_section=row is rows[-1])
    Console(width=100).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS)
    parser.add_argument(
        "--activation", choices=("gelu", "gelu_tanh"), default="gelu_tanh", help="TN-BERT's is gelu_tanh"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jit", action="store_true", help="TensorFlow with jit_compile=True")
    parser.add_argument("--only", nargs="+", default=(), help="parts of names of layers, beside dense")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    if min(options.tokens) < 1:
        parser.error(f"--tokens are positive numbers, got {min(options.tokens)}")
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        sys.exit("layer_latency.py: runs on TensorFlow and JAX; set KERAS_BACKEND to one of these.")
    if backend == "tensorflow":
        import tensorflow as tf

        tf.autograph.set_verbosity(0)
    rows = []
    for tokens in options.tokens:
        rows += timed(tokens, options.activation, options.rounds, options.jit, options.only)
    mode = "jax.jit" if backend == "jax" else "TensorFlow with XLA" if options.jit else "TensorFlow, graph mode"
    show(rows, f"{mode}, {options.activation}, float32, one thread")
    if options.json:
        write_json(options.json, "layer_latency", {"mode": mode, "activation": options.activation, "rows": rows})


if __name__ == "__main__":
    main()
