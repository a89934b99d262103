"""`tncompress count`: parameters, operations and bytes of a model, by layer and by kind."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from tncompress.cli import bert
from tncompress.cli.app import Output, byte_size, number, table, with_output
from tncompress.cli.models import CONFIG, Found, check_config, model_argument, open_model

LENGTH = 128  # tokens, or as many as there are positions
FLOAT_BYTES = 4  # of a weight of an encoder that is not built


@dataclass(frozen=True)
class Counted:
    """A layer, or all layers of a kind.

    Args:
        layer: its path, or the kind.
        kind: what it is.
        params: numbers that it stores.
        flops: operations for one token, a multiply-add counting as 2; None where they are not counted.
        bytes: of its parameters.
    """

    layer: str
    kind: str
    params: int
    flops: int | None
    bytes: int


@click.command(short_help="Parameters, FLOPs and bytes by layer and kind.")
@model_argument()
@click.option("--length", type=int, help="Tokens of a text, for attention's FLOPs.  [128]")
@CONFIG
@with_output
def count(model: Found, length: int | None, config: str | None, output: Output) -> None:
    """Count parameters, FLOPs a token and bytes of MODEL, by layer and by kind.

    MODEL is a .keras file, a preset, a Hugging Face folder or a TensorFlow checkpoint. FLOPs are of dense layers,
    networks and, where MODEL is no .keras file, of attention between the tokens of a text.

    Example: tncompress count tn_bert
    """
    rows = _rows(model, length, config)
    kinds = by_kind(rows)
    total = _summed("all", "", rows)
    value = {
        "model": model.name,
        **{name: part for name, part in asdict(total).items() if name not in ("layer", "kind")},
        "kinds": [{key: part for key, part in asdict(row).items() if key != "layer"} for row in kinds],
        "layers": [asdict(row) for row in rows],
    }
    columns = {"layer": False, "kind": False, "parameters": True, "FLOPs a token": True, "bytes": True}
    of_kinds = {name: is_number for name, is_number in columns.items() if name != "layer"}
    output.show(
        value,
        table(f"{model.title}: layers", columns, (_cells(row, with_kind=True) for row in rows)),
        table(f"{model.title}: kinds", of_kinds, (_cells(row) for row in [*kinds, total])),
    )


def _rows(model: Found, length: int | None, config: str | None) -> list[Counted]:
    check_config(config, model)
    described = None
    if model.kind == "preset":
        described = bert.config_of_preset(model.name)
    elif model.kind == "checkpoint" and model.path is not None:
        described = bert.config_of_preset(config) if config else bert.config_beside(model.path)
    if described is None and length is not None:
        raise ValueError(
            "--length is for attention in presets, folders and checkpoints that say their architecture, which "
            f"{model.name} does not; leave it away."
        )
    if described is None:
        return counted(open_model(model, config=config))
    length = min(LENGTH, described.max_positions) if length is None else length
    return [Counted(*part, bytes=FLOAT_BYTES * part[2]) for part in bert.parts(described, length)]


def counted(model: Any) -> list[Counted]:
    """Every layer of a Keras model that has weights of its own."""
    import keras

    from tncompress.conversion.saving import compression_of
    from tncompress.conversion.sites import find_sites
    from tncompress.conversion.walking import walk

    owners: dict[int, str] = {}
    layers = dict(walk(model))
    for path, layer in layers.items():  # inner layers come later, and have the last word
        owners |= {id(weight): path for weight in layer.weights}
    weights: dict[str, list[Any]] = {}
    for weight in model.weights:
        weights.setdefault(owners.get(id(weight), ""), []).append(weight)
    sites = {site.path: site for site in find_sites(model, embeddings=True)}
    compression = compression_of(model)
    recipe = compression.recipe if compression else {}
    rows = []
    for path, own in weights.items():
        params = sum(int(keras.ops.size(weight)) for weight in own)
        size = sum(int(keras.ops.size(weight)) * _itemsize(weight) for weight in own)
        layer = layers.get(path, model)
        kind = ("embeddings" if sites[path].is_table else "dense") if path in sites else type(layer).__name__
        kind = "network" if hasattr(layer, "spec") else kind
        rows.append(Counted(path or model.name, kind, params, _flops(layer, sites.get(path), recipe.get(path)), size))
    return rows


def _itemsize(weight: Any) -> int:
    import keras

    bits = "".join(filter(str.isdigit, keras.backend.standardize_dtype(weight.dtype)))
    return max(1, int(bits or 8) // 8)


def _flops(layer: Any, site: Any, choice: Any) -> int | None:
    from tncompress.fitting.budget import flops_of
    from tncompress.fitting.choice import Choice
    from tncompress.layers.pivoted import TNPivoted

    if choice is None and hasattr(layer, "spec"):  # a network that was built, not put in
        own = Choice(None, layer.spec, isinstance(layer, TNPivoted))
        return int(flops_of(own, own.dims, is_table=False))
    return None if site is None else int(flops_of(choice, (site.in_dim, site.out_dim), site.is_table))


def by_kind(rows: Sequence[Counted]) -> list[Counted]:
    """Sums over the layers of a kind, in the order of their first.

    >>> [row.params for row in by_kind([Counted("a", "k", 1, 2, 4), Counted("b", "k", 2, None, 8)])]
    [3]
    """
    return [
        _summed(kind, kind, [row for row in rows if row.kind == kind]) for kind in dict.fromkeys(r.kind for r in rows)
    ]


def _summed(layer: str, kind: str, rows: Sequence[Counted]) -> Counted:
    flops = [row.flops for row in rows if row.flops is not None]
    return Counted(layer, kind, sum(r.params for r in rows), sum(flops) if flops else None, sum(r.bytes for r in rows))


def _cells(row: Counted, *, with_kind: bool = False) -> list[str]:
    names = [row.layer, row.kind] if with_kind else [row.layer]
    return [*names, number(row.params), number(row.flops), byte_size(row.bytes)]
