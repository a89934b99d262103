"""The page's sections that list: networks with their drawings, all layers, what stayed as it was, the recipe."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from tncompress.reporting.drawing import MOST_DRAWN, svg
from tncompress.reporting.grouping import order_of, spec_of
from tncompress.reporting.markup import folded, known, paragraph, section, shown, table

Data = Mapping[str, Any]

MOST_NETWORKS = 12  # that are in sight; more are folded away
MANY_LAYERS = 12  # of a network that are named in sight


def networks(data: Data) -> str:
    """Every network that is in the model, drawn once, with its contraction order."""
    cards = [_network(data, number) for number in range(len(data["networks"]))]
    if not cards:
        return ""
    note = (
        "Round nodes are cores; lines are modes with their sizes. Legs on the left are of the input, those on the "
        "right of the output; a dot is a mode that more than two tensors share. Numbers in circles are the steps that "
        "sum over a mode: the order with the fewest operations for many vectors at once."
    )
    more = ""
    if len(cards) > MOST_NETWORKS:
        more = folded("The other networks", f'<div class="networks">{"".join(cards[MOST_NETWORKS:])}</div>')
    first = f'<div class="networks">{"".join(cards[:MOST_NETWORKS])}</div>'
    return section("The networks", paragraph(note), first, more)


def _network(data: Data, number: int) -> str:
    network, here = data["networks"][number], f"networks/{number}"
    parts = [f"<h3>{shown(data, f'{here}/form', 'text')}</h3>"]
    if network["equation"]:
        spec = spec_of(network["equation"], network["sizes"])
        parts.append(f"<code>{shown(data, f'{here}/equation', 'text')}</code>")
        if len(spec.cores) <= MOST_DRAWN:
            drawing = svg(spec, order_of(spec, network["pivots"]))
            parts.append(f'<div class="scroll" role="region" tabindex="0" aria-label="drawing">{drawing}</div>')
        else:
            parts.append(paragraph("Too many cores for a drawing."))
        parts.append(_order(data, number))
        if network["pivots"]:
            note = "One core is stored without the identity block that it can have."
            parts.append(paragraph(note))
    else:
        parts.append(
            paragraph("Bands of tokens, each with its rank:", f"<code>{shown(data, f'{here}/sizes', 'text')}</code>")
        )
    cost = f"{shown(data, f'{here}/params')} parameters, {shown(data, f'{here}/flops')} FLOPs a vector, in"
    return f'<div class="network">{"".join(parts)}{paragraph(cost, _holders(data, number))}</div>'


def _order(data: Data, number: int) -> str:
    steps = []
    for k, step in enumerate(data["networks"][number]["steps"]):
        here = f"networks/{number}/steps/{k}"
        left, right, result = (
            f"<code>{shown(data, f'{here}/{name}', 'text')}</code>" for name in ("left", "right", "result")
        )
        over = " ".join(shown(data, f"{here}/summed/{j}", "text") for j in range(len(step["summed"])))
        over = f" over <code>{over}</code>" if over else ""
        steps.append(
            f"<li>{left} with {right}{over}: <code>[{result}]</code>, {shown(data, f'{here}/flops')} FLOPs</li>"
        )
    return f"<ol>{''.join(steps)}</ol>"


def _holders(data: Data, number: int) -> str:
    """The layers that have a network."""
    names = [
        f"<code>{shown(data, f'networks/{number}/layers/{k}', 'text')}</code>"
        for k in range(len(data["networks"][number]["layers"]))
    ]
    shown_first = ", ".join(names[:MANY_LAYERS])
    return shown_first + (folded("and more layers", ", ".join(names[MANY_LAYERS:])) if names[MANY_LAYERS:] else ".")


COLUMNS = {  # of the table of all layers: field and style by title
    "parameters before": ("params_before", "count"),
    "now": ("params_after", "count"),
    "FLOPs before": ("flops_before", "count"),
    "now ": ("flops_after", "count"),
    "time before": ("seconds_before", "ms"),
    "now  ": ("seconds_after", "ms"),
    "error of weights": ("weight_error", "short"),
    "of outputs": ("output_error", "short"),
    "of the objective": ("loss_error", "short"),
    "predicted loss": ("predicted_loss", "percent"),
    "held out / seen": ("held_out_ratio", "times"),
}


def layers(data: Data) -> str:
    """All layers that are networks, with every number; columns that nothing is known of are left out."""
    replaced = [number for number, row in enumerate(data["rows"]) if row["form"]]
    if not replaced:
        return ""
    columns = {title: where for title, where in COLUMNS.items() if known(data, replaced, where[0])}
    rows = [
        [
            f"<code>{shown(data, f'rows/{k}/layer', 'text')}</code>",
            *(shown(data, f"rows/{k}/{field}", "text") for field in ("form", "sizes")),
            *(shown(data, f"rows/{k}/{field}", style) for field, style in columns.values()),
            f'<span class="words">{shown(data, f"rows/{k}/method", "text")}</span>',
        ]
        for k in replaced
    ]
    head = ["layer", "form", "sizes", *(title.strip() for title in columns), "fitted by"]
    return section("Every network layer", table("Layers that are networks now", head, rows, numbers_from=3))


def left_dense(data: Data) -> str:
    """Layers that stayed as they were, by reason."""
    reasons: dict[int, list[int]] = {}
    texts = [row["reason"] for row in data["rows"]]
    for number, row in enumerate(data["rows"]):
        if not row["form"]:
            reasons.setdefault(texts.index(row["reason"]), []).append(number)
    items = "".join(_reason(data, first, rows) for first, rows in reasons.items())
    return section("Left as they are", items) if items else ""


def _reason(data: Data, first: int, rows: list[int]) -> str:
    cells = (
        [f"<code>{shown(data, f'rows/{k}/layer', 'text')}</code>", shown(data, f"rows/{k}/params_before")] for k in rows
    )
    return f"<h3>{shown(data, f'rows/{first}/reason', 'text')}</h3>" + table("", ["layer", "parameters"], cells)


def recipe(data: Data) -> str:
    """What went where, to be copied."""
    if not data["recipe"]:
        return ""
    lines = ",\n".join(f"  {json.dumps(path)}: {json.dumps(choice)}" for path, choice in data["recipe"].items())
    how = "Give this text, or a file of it, to <code>replace_dense(model, recipe=…)</code> to do the same again."
    text = escape("{\n" + lines + "\n}", quote=False)
    return section("The recipe", paragraph(how), f'<pre id="recipe" tabindex="0">{text}</pre>')
