"""What `quality.py` prints of its results, and how its files are joined."""

import json
from collections.abc import Iterable
from pathlib import Path

import quality_loss

ERRORS = (("outputs", "output_error"), ("objective", "loss_error"), ("predicted", "predicted_loss"))


def line(result: dict) -> str:
    """One measurement in one line."""
    head = f"{result['form']:<22} keep {result['keep']:<6.4g} {result['fit']:<16}"
    if "error" in result:
        return f"{head} -  {result['error'][:90]}"
    tail = f" kept {result['kept']:.4f}  fit {result['fit_seconds']:.0f} CPU-s" if "kept" in result else ""
    errors = [f"{name} {result[key]:.3f}" for name, key in ERRORS if result.get(key) is not None]
    return f"{head} Spearman {result['spearman']:.2f}  cosine {result['cosine']:.3f}{tail}  {'  '.join(errors)}"


def print_table(results: list[dict]) -> None:
    """Methods by budgets: Spearman / mean cosine; and how well predictions order them."""
    from rich.console import Console
    from rich.table import Table

    keeps = sorted({r["keep"] for r in results if r["form"] != "dense"}, reverse=True)
    table = Table(title="STS-B dev: Spearman x 100 / mean cosine to the original, by what is kept of the kernels")
    table.add_column("form")
    table.add_column("fit")
    for keep in keeps:
        table.add_column(f"{keep:.0%}", justify="right")
    cells = {
        (r["form"], r["fit"], r["keep"]): "-" if "error" in r else f"{r['spearman']:.2f} / {r['cosine']:.3f}"
        for r in results
    }
    for form, fit in dict.fromkeys((r["form"], r["fit"]) for r in results if r["form"] != "dense"):
        table.add_row(form, fit, *(cells.get((form, fit, keep), "") for keep in keeps))
    console = Console(width=120)
    console.print(table)
    console.print(f"dense: {results[0]['spearman']:.2f}")
    for name, reason in {r["form"]: r["error"] for r in results if "error" in r}.items():
        console.print(f"-: {name}: {reason}", markup=False)
    correlation, count = quality_loss.rank_correlation(results)
    if count > 2:
        console.print(f"Rank correlation of predicted loss and 1 - cosine over {count} results: {correlation:.3f}")


def joined(paths: Iterable[str]) -> list[dict]:
    """The results of several files, the dense model's once."""
    merged = [result for path in paths for result in json.loads(Path(path).read_text())["results"]]
    return [merged[0], *(result for result in merged if result["form"] != "dense")]
