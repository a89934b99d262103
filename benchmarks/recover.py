"""What minutes of distillation win back: all-MiniLM-L6-v2 with 28 % of its feed-forward kernels, before and after.

Two students, fitted to calibration inputs and the sentence embedding: fewer hidden units at low rank, and TN-BERT's
Expand/Condense (6 blocks of 64 -> 256); the latter from random cores as a control; and on demand the whole model at 7.3
million parameters, its word table and attention too, refitted. Each is recovered towards the original for at most
`--minutes` of processor time, on one thread, on unlabelled sentences, none of which is in the dev file. Measured on
STS-B dev: Spearman x 100, and the mean cosine of the sentence embeddings to the original's. CSV files have the columns
sentence1,sentence2,score; of text files every line is a text, or its first column if there are tabs.

    python benchmarks/recover.py --train stsb-en-train.csv --dev stsb-en-dev.csv \
        --text sst2/train.tsv wikitext2/valid.txt --dtype mixed_bfloat16 --json recover.json
"""

import argparse
import os
import re
import time
from collections.abc import Iterable

import measure
import minilm
import numpy as np
import quality

KEEP = 0.28
WHOLE = 7.3e6  # parameters
SINGLE = "position|segment|/table_"  # of single tokens or places, few of which are seen; what all share may learn
PER_FILE = 2500  # sentences of a text file
CALIBRATION = 3000
BATCH = 32
STUDENTS = {  # and the learning rate of each
    "narrow+low_rank": 3e-4,
    "expand_condense": 5e-4,
    "expand_condense random": 1e-3,
    "whole": 1e-4,
}


def main() -> None:
    """Measure every student before and after, and print a line for each."""
    args = _arguments()
    measure.use_one_thread()
    os.environ.update({"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"})
    import bert_models

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    dev = minilm.read_pairs(args.dev)
    train = minilm.read_pairs(args.train)
    sentences = training_sentences(train, args.text, minilm.sentences_of(dev), args.seed)
    batches = minilm.batches(tokenizer, sentences, args.batch)
    print(f"{len(sentences)} sentences to learn from", flush=True)
    unlabelled = minilm.batches(tokenizer, quality.drawn(minilm.sentences_of(train), CALIBRATION))
    original = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
    print(f"dense: Spearman {minilm.spearman(original, dev):.2f}", flush=True)
    results = []
    for name in args.students:
        small = student(encoder, name, unlabelled, args.seed)
        rate = args.learning_rate or STUDENTS[name]
        exclude = SINGLE if name == "whole" else "embedding"
        result = measured(small, encoder, tokenizer, batches, dev, original, rate, exclude, args)
        results.append({"student": name, "learning_rate": rate, "dtype": args.dtype, **result})
        print(line(results[-1]), flush=True)
        if args.json:
            measure.write_json(args.json, "recover", results)


def measured(
    small, encoder, tokenizer, batches: list[dict], dev, original: np.ndarray, rate: float, exclude: str, args
) -> dict:
    """One student: accuracy before and after, steps and processor seconds of recovery, the held-out curve."""
    import tncompress

    before = accuracy(small, tokenizer, dev, original)
    start = time.process_time()
    recovered = tncompress.recover(
        small,
        encoder,
        batches,
        objective=minilm.sentence_embedding,
        learning_rate=rate,
        exclude=exclude,
        epochs=args.epochs,
        minutes=args.minutes,
        dtype=args.dtype,
        clock=time.process_time,
        seed=args.seed,
    )
    seconds = time.process_time() - start
    return {
        "kept": tncompress.report(recovered).keep,
        "params": recovered.count_params(),
        "before": before,
        "after": accuracy(recovered, tokenizer, dev, original),
        "cpu_seconds": seconds,
        "curve": recovered.history.history,
    }


def accuracy(encoder, tokenizer, dev: list[minilm.Pair], original: np.ndarray) -> dict[str, float]:
    """Spearman x 100 with the human scores, and mean cosine to the original's embeddings."""
    vectors = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
    return {"spearman": minilm.spearman(vectors, dev), "cosine": quality.mean_cosine(vectors, original)}


def student(encoder, name: str, unlabelled: list[dict], seed: int):
    """The compressed encoder; "... random": of the same structure, with random cores in the place of fitted ones."""
    import tncompress

    given = {"calibration": unlabelled, "objective": minilm.sentence_embedding}
    if name == "narrow+low_rank":
        return tncompress.replace_dense(encoder, KEEP, form=("narrow", "low_rank"), include="feed_forward", **given)
    if name == "whole":
        budget = tncompress.Budget(params=WHOLE)
        given["refit"] = unlabelled[::2]  # of all lengths, as they are sorted
        return tncompress.replace_dense(
            encoder, budget=budget, form=("narrow", "low_rank"), exclude="pooler", embeddings=True, **given
        )
    recipe = expand_condense_recipe(encoder)
    if not name.endswith("random"):
        return tncompress.replace_dense(encoder, recipe=recipe, **given)
    return with_random_cores(tncompress.replace_dense(encoder, recipe=recipe), list(recipe), seed)


def with_random_cores(small, paths: list[str], seed: int):
    """The model, with fresh cores at these paths."""
    import keras

    import tncompress
    from tncompress.conversion.walking import locate

    keras.utils.set_random_seed(seed)
    for layer in locate(small, paths).values():
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
        found += draw.permutation(minilm.text_sentences(path))[:PER_FILE].tolist()
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
    parser.add_argument("--students", nargs="*", default=list(STUDENTS)[:3], choices=STUDENTS)
    parser.add_argument("--minutes", type=float, default=3.0, help="of processor time, each (default %(default)s)")
    parser.add_argument("--epochs", type=float, default=9.0, help="at most (default %(default)s)")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--learning-rate", type=float, help="default: one for each student")
    parser.add_argument("--dtype", help="what is computed in, e.g. mixed_bfloat16 (default: float32)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file to write results to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
