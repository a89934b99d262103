"""Compress a real sentence encoder, all-MiniLM-L6-v2, and see what it cost. `make demo` runs this.

The feed-forward kernels keep half of their parameters, fitted to what the layers see on two thousand sentences; no
training. The sentences come from the documentation that is part of every Python, so nothing is downloaded.

    python benchmarks/demo.py --keep 0.5 --form low_rank --sts stsb-en-dev.csv
"""

import argparse
import ast
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import minilm
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notices

CALIBRATION, HELD_BACK = 2000, 300  # sentences


def main() -> int:
    """Load, calibrate, compress, compare, save, load again. Returns the exit code."""
    args = _arguments()
    from rich.console import Console

    import bert_models
    import tncompress

    console = Console(width=None if sys.stdout.isatty() else 128)
    pairs = minilm.read_pairs(args.sts) if args.sts else []  # first, so that a wrong file costs no time
    folder = args.model or minilm.folder()
    console.rule("1. Load the trained model")
    encoder, tokenizer = bert_models.load(folder), bert_models.load_tokenizer(folder)
    console.print(f"{folder}: {encoder.count_params():,} parameters")

    console.rule("2. Compress")
    sentences = read_sentences(args.calibration) if args.calibration else documentation_sentences()
    calibration, held_back = sentences[HELD_BACK : HELD_BACK + CALIBRATION], sentences[:HELD_BACK]
    console.print(
        f"{args.include!r} layers to {args.keep:.0%} of their parameters as {args.form}, calibrated on "
        f"{len(calibration)} sentences, e.g. {calibration[0]!r}"
    )
    batches = minilm.batches(tokenizer, calibration)
    options = {"form": args.form, "include": args.include, "progress": sys.stderr.isatty()}
    started = time.perf_counter()
    plain = tncompress.replace_dense(encoder, args.keep, **options)
    console.print(f"weights alone, for comparison: done in {time.perf_counter() - started:.0f} s")
    console.print("calibrated: about a minute ...")
    started = time.perf_counter()
    small = tncompress.replace_dense(encoder, args.keep, calibration=batches, **options)
    console.print(f"done in {time.perf_counter() - started:.0f} s")
    console.print(tncompress.report(small))

    console.rule("3. What it cost")
    models = {"original": encoder, "weights alone": plain, "calibrated": small}
    agreement(console, models, tokenizer, held_back)
    if pairs:
        spearman(console, models, tokenizer, pairs)

    console.rule("4. Save, load, compare")
    difference = reload_difference(console, small, tokenizer(held_back[:8]), args.save)

    console.rule("5. What to try next")
    console.print(
        'make demo ARGS="--keep 0.28"               smaller still\n'
        'make demo ARGS="--form expand_condense"    the form of TN-BERT; python -c "import tncompress;\n'
        '                                           print(*tncompress.FORMS)" lists all\n'
        'make demo ARGS="--sts FILE"                Spearman on a CSV of sentence1,sentence2,score\n'
        'make demo ARGS="--calibration FILE"        your own sentences, one a line: best those of your use\n'
        'make demo ARGS="--save small.keras"        keep the model; tncompress.load("small.keras") gives it back',
        highlight=False,
        markup=False,
    )
    return 0 if difference == 0.0 else 1


def agreement(console, models: dict, tokenizer, sentences: Sequence[str]) -> None:
    """Cosine of every held-back sentence's embedding to that by the original, the first of the models."""
    console.print(f"Embeddings of {len(sentences)} held-back sentences against the original's (1 = the same):")
    original, *others = (minilm.embeddings(model, tokenizer, sentences) for model in models.values())
    for name, vectors in zip(list(models)[1:], others, strict=True):
        cosines = np.sum(original * vectors, axis=-1)
        console.print(f"  {name:<14} mean cosine {cosines.mean():.4f}, lowest {cosines.min():.4f}")


def spearman(console, models: dict, tokenizer, pairs: list[minilm.Pair]) -> None:
    """Rank correlation of every model's cosines with human scores."""
    console.print(f"Spearman x 100 with the scores of {len(pairs)} pairs:")
    for name, model in models.items():
        vectors = minilm.embeddings(model, tokenizer, minilm.sentences_of(pairs))
        console.print(f"  {name:<14} {minilm.spearman(vectors, pairs):.2f}")


def reload_difference(console, small, batch: dict, path: str | None) -> float:
    """Largest difference between a model's outputs and those of the same model saved and loaded."""
    import tncompress

    with tempfile.TemporaryDirectory() as folder:
        file = Path(path or Path(folder) / "small.keras")
        small.save(file)
        again = tncompress.load(file)
        kept = "" if path else " in a folder that is removed again; --save keeps it"
        before = 4 * tncompress.report(small).params_before
        console.print(f"saved {file.name}{kept}: {file.stat().st_size / 1e6:.1f} MB (before: {before / 1e6:.1f} MB)")
    ours, theirs = (model.predict_on_batch(batch)["sequence_output"] for model in (small, again))
    difference = float(np.max(np.abs(ours - theirs)))
    console.print(f"outputs of the reloaded model differ by {difference}")
    return difference


def documentation_sentences(seed: int = 0) -> list[str]:
    """English sentences from Python's own language reference and the docstrings of its library, shuffled."""
    from pydoc_data.topics import topics

    names = sorted(sys.stdlib_module_names - {"antigravity", "this", "idlelib", "turtledemo", "lib2to3"})
    sources = [Path(spec.origin) for name in names if (spec := find_spec(name)) and (spec.origin or "").endswith(".py")]
    docstrings = [text for path in sources for text in _docstrings(path)]
    found: set[str] = set()
    for text in (*topics.values(), *docstrings):
        for paragraph in re.split(r"\n\s*\n", text):
            flat = re.sub(r"\s+", " ", paragraph)
            found.update(re.findall(r"(?<![^ ])[A-Z][a-z]+(?: [\w',()-]+){4,30}\.(?= |$)", flat))
    sentences = sorted(found)
    return [sentences[i] for i in np.random.default_rng(seed).permutation(len(sentences))]


def _docstrings(path: Path) -> list[str]:
    """Docstrings of a module, its classes and functions; the module is read, not run."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = ast.walk(ast.parse(path.read_bytes()))
    return [text for node in nodes if isinstance(node, documented) and (text := ast.get_docstring(node))]


def read_sentences(path: str) -> list[str]:
    """The lines of a text file that are not empty."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    sentences = [line for line in lines if line]
    if len(sentences) <= HELD_BACK:
        raise SystemExit(f"{path} has {len(sentences)} sentences; more than {HELD_BACK} are needed, one a line.")
    return sentences


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Hugging Face folder of a BERT (default: all-MiniLM-L6-v2)")
    parser.add_argument("--keep", type=float, default=0.5, help="fraction of parameters (default %(default)s)")
    parser.add_argument("--form", default="low_rank", help="factorisation (default %(default)s)")
    parser.add_argument("--include", default="feed_forward", help="layers, a regular expression (default %(default)s)")
    parser.add_argument("--calibration", help="text file, one sentence a line")
    parser.add_argument("--sts", help="CSV sentence1,sentence2,score to measure on")
    parser.add_argument("--save", help="keep the compressed model under this name (.keras)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
