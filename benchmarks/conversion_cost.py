"""What one call of `replace_dense` takes, calibration included: processor time and the most memory.

A BERT-large-sized encoder: 24 layers of hidden size 1024 with random weights and 4,608 random token ids, somewhat more
than the widest layer has features: nothing about accuracy. The feed-forward kernels become low rank under one budget,
fitted to the inputs and to the sentence embedding. Moments of all layers at once would take 3.4 GB, so `replace_dense`
gathers them in groups; those of one group are in memory, the others in temporary files.

    python benchmarks/conversion_cost.py --json large.json
    python benchmarks/conversion_cost.py --layers 4 --keep 0.3

all-MiniLM-L6-v2 instead, with 28 % of its feed-forward kernels and fewer hidden units, calibrated on 3,000 sentences of
a CSV file with the columns sentence1,sentence2,score:

    python benchmarks/conversion_cost.py --train stsb-en-train.csv --keep 0.28
"""

import argparse
import resource
import time

import measure

measure.use_one_thread()

import minilm  # noqa: E402
import numpy as np  # noqa: E402

PRESET = "lambert_en_uncased_L-24_H-1024_A-16"
SENTENCES = 3000


def main() -> None:
    """Run it, print what it took, and write JSON if asked."""
    args = _arguments()

    import tncompress

    if args.train:
        model, batches = small_and_real(args.train)
    else:
        model = built(args.layers)
        batches = random_batches(args.rows, args.length)
    before = peak_megabytes()
    start = time.process_time()
    small = tncompress.replace_dense(
        model,
        args.keep,
        form=("narrow", "low_rank") if args.train else "low_rank",
        include="feed_forward",
        calibration=batches,
        objective=minilm.sentence_embedding,
        progress=True,
    )
    rows = tncompress.report(small).replaced
    result = {
        "model": "all-MiniLM-L6-v2" if args.train else f"{PRESET}, {args.layers} layers",
        "parameters": model.count_params(),
        "tokens": sum(int(batch["input_mask"].sum()) for batch in batches),
        "kept": sum(row.params_after for row in rows) / sum(row.params_before for row in rows),
        "cpu_seconds": time.process_time() - start,
        "model_megabytes": model.count_params() * 4 / 1e6,
        "peak_megabytes_above_start": peak_megabytes() - before,
    }
    print(
        f"{result['cpu_seconds']:.0f} CPU-s; {result['peak_megabytes_above_start']:,.0f} MB above {before:,.0f} MB "
        f"with the model of {result['model_megabytes']:,.0f} MB; {len(rows)} layers, {result['kept']:.4f} kept"
    )
    if args.json:
        measure.write_json(args.json, "conversion_cost", result)


def small_and_real(train: str):
    """The real encoder, and the batches that `quality.py` calibrates on."""
    import quality

    import bert_models

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    sentences = quality.drawn(minilm.sentences_of(minilm.read_pairs(train)), SENTENCES)
    return encoder, minilm.batches(tokenizer, sentences)


def built(layers: int):
    """The encoder, with so many of its layers."""
    import bert_models
    from bert_models.presets import preset

    return bert_models.build_encoder(preset(PRESET).config_with(num_layers=layers))


def random_batches(rows: int, length: int, size: int = 8) -> list[dict[str, np.ndarray]]:
    """Token ids without padding."""
    draw = np.random.default_rng(0)
    ids = draw.integers(1000, 30000, (rows, length)).astype("int32")
    ones, zeros = np.ones((size, length), "int32"), np.zeros((size, length), "int32")
    return [
        {"input_word_ids": part, "input_mask": ones[: len(part)], "input_type_ids": zeros[: len(part)]}
        for part in np.array_split(ids, range(size, rows, size))
    ]


def peak_megabytes() -> float:
    """The most memory that the process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--rows", type=int, default=48, help="sequences to calibrate on (default %(default)s)")
    parser.add_argument("--length", type=int, default=96, help="tokens of each (default %(default)s)")
    parser.add_argument("--train", help="CSV of sentences: calibrate all-MiniLM-L6-v2 on them instead")
    parser.add_argument("--json", help="file to write results to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
