"""What minutes of distillation win back: all-MiniLM-L6-v2 with 28 % of its feed-forward kernels, before and after.

The encoder is compressed to low rank and to TN-BERT's Expand/Condense (6 blocks of 64 -> 256), both fitted to
calibration inputs; the same Expand/Condense from random cores is the control. Each is recovered towards the original
for at most `--minutes` of processor time, on one thread, on unlabelled sentences, none of which is in the dev file.
Measured on STS-B dev: Spearman x 100, and the mean cosine of the sentence embeddings to the original's. CSV files have
the columns sentence1,sentence2,score; of text files every line is a text, or its first column if there are tabs.

    python benchmarks/recover.py --train stsb-en-train.csv --dev stsb-en-dev.csv \
        --text sst2/train.tsv wikitext2/valid.txt --json recover.json
"""

import argparse
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

import measure
import minilm
import numpy as np
import quality

KEEP = 0.28
WORDS = range(4, 31)  # of a sentence that is learnt from
PER_FILE = 2500  # sentences of a text file
CALIBRATION = 3000
BATCH = 32
STUDENTS = ("low_rank", "expand_condense", "expand_condense random")


def main() -> None:
    """Measure every student before and after, and print a line for each."""
    args = _arguments()
    measure.use_one_thread()
    os.environ.update({"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"})
    import bert_models
    import tncompress

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    dev = minilm.read_pairs(args.dev)
    train = minilm.read_pairs(args.train)
    sentences = training_sentences(train, args.text, minilm.sentences_of(dev), args.seed)
    print(f"{len(sentences)} sentences to learn from", flush=True)
    paths = [site.path for site in tncompress.find_sites(encoder, "feed_forward") if not site.reason]
    unlabelled = minilm.batches(tokenizer, quality.drawn(train, CALIBRATION))
    moments = quality.gathered(encoder, paths, unlabelled, [args.fit])[args.fit]
    original = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
    print(f"dense: Spearman {minilm.spearman(original, dev):.2f}", flush=True)
    results = []
    for name in args.students:
        small = student(encoder, name, moments, args.seed)
        result = measured(small, encoder, tokenizer, sentences, dev, original, args)
        results.append({"student": name, "fit": args.fit, **result})
        print(line(results[-1]), flush=True)
        if args.json:
            measure.write_json(args.json, "recover", results)


def measured(small, encoder, tokenizer, sentences: list[str], dev, original: np.ndarray, args) -> dict:
    """One student: accuracy before and after, steps and processor seconds of recovery, the held-out curve."""
    import tncompress

    before = accuracy(small, tokenizer, dev, original)
    start = time.process_time()
    recovered = tncompress.recover(
        small,
        encoder,
        minilm.batches(tokenizer, sentences, args.batch),
        objective=minilm.sentence_embedding,
        learning_rate=args.learning_rate,
        epochs=args.epochs,
        minutes=args.minutes,
        clock=time.process_time,
        seed=args.seed,
    )
    seconds = time.process_time() - start
    rows = [row for row in tncompress.report(recovered).rows if "feed_forward" in row.layer]
    kept = sum(row.params_after for row in rows) / sum(row.params_before for row in rows)
    after = accuracy(recovered, tokenizer, dev, original)
    return {"kept": kept, "before": before, "after": after, "cpu_seconds": seconds, "curve": recovered.history.history}


def accuracy(encoder, tokenizer, dev: list[minilm.Pair], original: np.ndarray) -> dict[str, float]:
    """Spearman x 100 with the human scores, and mean cosine to the original's embeddings."""
    vectors = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
    return {"spearman": minilm.spearman(vectors, dev), "cosine": quality.mean_cosine(vectors, original)}


def student(encoder, name: str, moments: dict, seed: int):
    """The compressed encoder; "... random": of the same structure, with random cores in the place of fitted ones."""
    import keras

    import tncompress
    from tncompress.conversion.sites import locate

    if name == "low_rank":
        return tncompress.replace_dense(encoder, KEEP, include="feed_forward", calibration=moments)
    small = tncompress.replace_dense(encoder, recipe=expand_condense_recipe(encoder), calibration=moments)
    if name.endswith("random"):
        keras.utils.set_random_seed(seed)
        for layer in locate(small, list(tncompress.report(small).recipe)).values():
            fresh = tncompress.TNDense(layer.spec)
            fresh.build((None, layer.spec.in_dim))
            for core, drawn in zip(layer.cores, fresh.cores, strict=True):
                core.assign(drawn)
    return small


def expand_condense_recipe(encoder) -> dict[str, dict]:
    """TN-BERT's structure at MiniLM's width: six blocks of 64 -> 256."""
    import tncompress
    from tncompress.forms import expand_condense

    recipe = {}
    for site in tncompress.find_sites(encoder, "feed_forward"):
        if not site.reason:
            make = expand_condense.expand if site.out_dim > site.in_dim else expand_condense.condense
            spec = make(site.in_dim, site.out_dim, blocks=6, bond=64)
            recipe[site.path] = {"form": "expand_condense", "spec": spec.to_config()}
    return recipe


def training_sentences(
    train: Iterable[minilm.Pair], texts: Iterable[str], held_back: Iterable[str], seed: int
) -> list[str]:
    """All sentences of the files, mixed, each once, without those that are held back."""
    found = [sentence for first, second, _ in train for sentence in (first, second)]
    draw = np.random.default_rng(seed)
    for path in texts:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        parts = [part for text in lines for part in re.split(r"(?<= [.!?]) ", text.split("\t")[0].strip())]
        usable = [part for part in parts if len(part.split()) in WORDS]
        found += draw.permutation(usable)[:PER_FILE].tolist()
    seen = {normal(sentence) for sentence in held_back}
    sentences = list({normal(sentence): sentence for sentence in found if normal(sentence) not in seen}.values())
    return [sentences[i] for i in draw.permutation(len(sentences))]


def normal(sentence: str) -> str:
    """What two spellings of a sentence have in common: its letters and digits."""
    return re.sub(r"\W+", "", sentence.lower())


def line(result: dict) -> str:
    """One student in one line."""
    before, after = (f"{r['spearman']:.2f} / {r['cosine']:.3f}" for r in (result["before"], result["after"]))
    steps = result["curve"]["step"][-1]
    return (
        f"{result['student']:<23} kept {result['kept']:.4f}  {before} -> {after}  {steps} steps, "
        f"{result['cpu_seconds']:.0f} CPU-s"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="CSV of sentences to calibrate on and to learn from")
    parser.add_argument("--dev", required=True, help="CSV to measure on")
    parser.add_argument("--text", nargs="*", default=[], help="more files to learn from")
    parser.add_argument("--students", nargs="*", default=STUDENTS, choices=STUDENTS)
    parser.add_argument("--fit", choices=quality.FITS, default="two-sided", help="before (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=3.0, help="of processor time, each (default %(default)s)")
    parser.add_argument("--epochs", type=float, default=1.0, help="at most (default %(default)s)")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--learning-rate", type=float, default=7e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file to write results to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
