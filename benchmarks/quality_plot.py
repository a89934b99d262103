"""The picture of `quality.py`: accuracy against parameters, one line a method; the Pareto front stands out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

PANELS = (("cosine", "mean cosine to the original's embeddings"), ("spearman", "STS-B dev, Spearman x 100"))
LOWEST = {"cosine": 0.4, "spearman": 76.0}  # what is worse would squeeze all that matters together
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#666666",
    "#8c510a",
    "#7b3294",
    "#000000",
    "#a6761d",
    "#b2abd2",
)
MARKERS = "osD^vPX<>*hd"


def picture(path: str, results: Sequence[Mapping]) -> None:
    """Write it; the suffix tells the format (svg, png, pdf).

    Args:
        path: of the file.
        results: of `quality.py`, with their "method", "params", "cosine" and "spearman"; the first is the dense model.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    dense, *others = [result for result in results if "error" not in result]
    methods = by_accuracy(others)
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
    for axis, (key, title) in zip(axes, PANELS, strict=True):
        for number, (method, line) in enumerate(methods.items()):
            params, values = [r["params"] / 1e6 for r in line], [r[key] for r in line]
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            style["linestyle"] = "-" if line[0]["fit"] else "--"  # others' methods have no choice of fits
            axis.plot(params, values, label=method, linewidth=2.6 if number == 0 else 1.3, markersize=5, **style)
        front = pareto_front(others, key)
        axis.plot(
            [r["params"] / 1e6 for r in front],
            [r[key] for r in front],
            color="0.85",
            linewidth=9,
            zorder=0,
            solid_capstyle="round",
            label="Pareto front",
        )
        axis.axhline(dense[key], color="0.5", linewidth=0.8, linestyle=":")
        axis.plot(dense["params"] / 1e6, dense[key], "*", color="0.2", markersize=11, label="dense")
        axis.set_xlabel("parameters of the replaced kernels, million")
        axis.set_title(title, loc="left", fontsize=11)
        shown = [r[key] for r in others if r[key] >= LOWEST[key]]
        room = 0.04 * (dense[key] - min(shown, default=LOWEST[key])) or 1
        axis.set_ylim(min(shown, default=LOWEST[key]) - room, dense[key] + room)
        axis.grid(color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    suffix = Path(path).suffix
    part = Path(path).with_name(f"{Path(path).stem}.part{suffix}")
    figure.savefig(part, dpi=150)
    pyplot.close(figure)
    part.replace(path)


def by_accuracy(results: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """Results of every method by size; the method with the highest cosines first."""
    lines: dict[str, list[Mapping]] = {}
    for result in sorted(results, key=lambda r: r["params"]):
        lines.setdefault(result["method"], []).append(result)
    return dict(sorted(lines.items(), key=lambda item: -sum(r["cosine"] for r in item[1]) / len(item[1])))


def pareto_front(results: Sequence[Mapping], key: str) -> list[Mapping]:
    """The best result of every budget, if none of a smaller budget is as good, from small to large."""
    front: list[Mapping] = []
    for keep in sorted({result["keep"] for result in results}):
        best = max((result for result in results if result["keep"] == keep), key=lambda r: r[key])
        if not front or best[key] > front[-1][key]:
            front.append(best)
    return front
