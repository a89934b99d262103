"""`tncompress bench`: how long a model takes here, and each network against the dense layer that it stands for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import click

from tncompress.cli.app import Output, milliseconds, table, with_output
from tncompress.cli.models import CONFIG, Found, model_argument, open_model
from tncompress.cli.random_input import check_length, has_length, random_inputs


@dataclass(frozen=True)
class Timed:
    """Layers of one shape.

    Args:
        layers: their paths.
        form, sizes: of the network.
        dense, network: seconds.
    """

    layers: tuple[str, ...]
    form: str
    sizes: str
    dense: float
    network: float


@click.command(short_help="How long a model takes here, layer by layer.")
@model_argument()
@click.option("--batch", type=int, default=8, show_default=True, help="Rows of random input.")
@click.option(
    "--length", type=int, default=128, show_default=True, help="Tokens of a row; layers are timed on rows x tokens."
)
@CONFIG
@with_output
def bench(model: Found, batch: int, length: int, config: str | None, output: Output) -> None:
    """Time MODEL here on random input; a compressed one beside the same model with dense layers, layer by layer.

    On a processor it is the processor time of this process. Fix the number of threads to compare (OMP_NUM_THREADS,
    TF_NUM_INTRAOP_THREADS).

    Example: tncompress bench small.keras --batch 8 --length 128
    """
    if batch < 1:
        raise ValueError(f"--batch is at least 1, got {batch}.")
    keras_model = open_model(model, config=config)
    check_length(keras_model, length)
    inputs = random_inputs(keras_model, batch, length)
    from tncompress.cli.timing import time_models
    from tncompress.conversion.replace import densify
    from tncompress.conversion.saving import compression_of

    compression = compression_of(keras_model)
    dense = densify(keras_model) if compression else None
    both = {"model": keras_model, **({"dense": dense} if dense is not None else {})}
    times = time_models(both, inputs)
    rows = [] if dense is None else _layers(keras_model, dense, compression.recipe, batch * length, output)
    value = {
        "model": model.name,
        "batch": batch,
        "length": length,
        "seconds": times["model"],
        "seconds_dense": times.get("dense"),
        "layers": [asdict(row) for row in rows],
    }
    taken = f"{batch} x {length} tokens" if has_length(keras_model) else f"{batch} rows"
    output.show(value, *_parts(model, value, rows, taken))


def _layers(model: Any, dense: Any, recipe: Mapping[str, Any], tokens: int, output: Output) -> list[Timed]:
    from tncompress.conversion.timing import time_layers
    from tncompress.conversion.walking import locate
    from tncompress.fitting.choice import Choice
    from tncompress.progress import progress_bar

    choices = {path: choice for path, choice in recipe.items() if isinstance(choice, Choice)}
    networks, kernels = locate(model, list(choices)), locate(dense, list(choices))
    alike: dict[tuple, list[str]] = {}
    for path, choice in choices.items():
        alike.setdefault((choice, tuple(kernels[path].kernel.shape)), []).append(path)
    found = []
    for (choice, _), paths in progress_bar(list(alike.items()), "Timing", shown=output.progress):
        times = time_layers({"dense": kernels[paths[0]], "network": networks[paths[0]]}, tokens)
        found.append(Timed(tuple(paths), choice.form or "own", choice.sizes, times["dense"], times["network"]))
    return found


def _parts(model: Found, value: Mapping[str, Any], rows: list[Timed], taken: str) -> list[Any]:
    now = f"{model.title}: {milliseconds(value['seconds'])} ms for {taken}"
    if value["seconds_dense"] is None:
        return [f"{now}. It was not compressed, so there is nothing to compare with."]
    faster = value["seconds_dense"] / value["seconds"]
    columns = {"layer": False, "form": False, "sizes": False, "dense ms": True, "ms": True, "speed": True}
    cells = (
        (
            row.layers[0] + (f" and {len(row.layers) - 1} more" if row.layers[1:] else ""),
            row.form,
            row.sizes,
            milliseconds(row.dense),
            milliseconds(row.network),
            f"{row.dense / row.network:.2f}x",
        )
        for row in rows
    )
    slower = sum(len(row.layers) for row in rows if row.network > row.dense)
    tokens = value["batch"] * value["length"]
    advice = (
        f"{slower} layer{' is' if slower == 1 else 's are'} slower than dense at {tokens:,} tokens: compress with "
        f"--device this --tokens {tokens}."
    )
    return [
        table(f"Layers, {value['batch']} x {value['length']} tokens (vectors) at once", columns, cells),
        f"{now}, {milliseconds(value['seconds_dense'])} ms with dense layers: {faster:.2f}x.",
        *([advice] if slower else []),
    ]
