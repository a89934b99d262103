"""The picture of `tpu_estimate.py`: speed-up against parameters, one line a form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

STYLES = {
    "low_rank": ("#0072b2", "o"),
    "narrow": ("#009e73", "s"),
    "expand_condense": ("#d55e00", "D"),
    "monarch": ("#cc79a7", "^"),
}


def picture(path: str, results: Mapping[str, Any], tile: int) -> None:
    """Write it; the suffix tells the format (svg, png, pdf). Filled marks are aligned with the tile.

    Args:
        path: of the file.
        results: of `tpu_estimate.py`: "device" and "maps".
        tile: side of the device's matrix units.
    """
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "tpu"  # the same results, the same file
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8.4, 4.8), layout="constrained")
    for form, (colour, marker) in STYLES.items():
        rows = sorted((row for row in results["maps"] if row["form"] == form), key=lambda row: row["params"])
        params, speedups = [row["params"] / 1e6 for row in rows], [row["speedup"] for row in rows]
        axis.plot(params, speedups, color=colour, linewidth=1.3, zorder=1)
        for aligned, fill in ((True, colour), (False, "white")):
            points = [(p, s) for p, s, row in zip(params, speedups, rows, strict=True) if row["aligned"] is aligned]
            label = f"{form}, multiples of {tile}" if aligned else f"{form}, other sizes"
            if points:
                axis.scatter(
                    *zip(*points, strict=True), marker=marker, color=fill, edgecolor=colour, s=30, label=label, zorder=2
                )
    axis.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
    axis.set_xlabel("parameters of the feed-forward part, million (dense: 4.7)")
    axis.set_title(f"speed-up over dense on {results['device']}, the compiler's estimate", loc="left", fontsize=11)
    axis.grid(color="0.92")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    part = Path(path).with_name(f"{Path(path).stem}.part{Path(path).suffix}")
    figure.savefig(part, dpi=150, metadata={"Date": None} if part.suffix == ".svg" else None)
    pyplot.close(figure)
    part.replace(path)
