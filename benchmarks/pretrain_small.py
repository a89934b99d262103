"""Does a small TN-BERT learn as well as its dense twin? Both are pretrained on a text for the same processor time.

A WordPiece vocabulary is learnt from nine tenths of the documents, which are trained on; every tenth one is held out.
Two encoders, one with TN-BERT's Expand/Condense, one with dense kernels, are trained one after the other on the same
batches, with masks drawn anew, on one thread, for `--minutes` of processor time each, measurements not counted. The
learning rate warms up and stays, so that a line of the table is what there would be if training ended there. Beside
them: always predicting the most frequent token. Markers of WikiText (<unk>, @-@) are taken out of the text.

    python benchmarks/pretrain_small.py --text wikitext2/valid.txt --json pretrain.json
"""

import argparse
import os
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import measure

LAYOUT = "wikitext"
HELD_OUT = 10  # every so-manieth document
MODELS = {"TN-BERT": "tn_bert", "dense": "bert_en_uncased_L-12_H-768_A-12"}
WARMUP = 200
FOREVER = 10**7  # steps of the recipe; time ends training
MARKERS = {" <unk>": "", " @-@ ": "-", " @,@ ": ",", " @.@ ": "."}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main() -> None:
    """Train both models, print their held-out accuracy while they learn, and compare."""
    args = _arguments()
    measure.use_one_thread()
    os.environ.update({"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(args.folder or place)
        data = prepared(args, folder)
        found = {"settings": vars(args), "unigram": unigram(data), "held_out_rows": rows_of(data["held_out"])}
        print(f"most frequent token: {100 * found['unigram']:.2f} % of held-out tokens", flush=True)
        found["step"] = step_costs(args, data)
        found["curves"] = {}
        for name in MODELS:
            found["curves"][name] = trained(name, args, data, folder)
            found["parameters"] = {name: encoder(name, args, data).count_params() for name in MODELS}
            if args.json:
                measure.write_json(args.json, "pretrain_small", found)
        print(table(found["curves"]))


def prepared(args, folder: Path) -> dict:
    """Vocabulary and pretraining data of both parts, made in a folder unless they are there."""
    from bert_models.pretraining.pipeline import write_pretraining_data
    from bert_models.pretraining.settings import DataSettings
    from bert_models.text.vocabulary import Vocabulary

    folder.mkdir(parents=True, exist_ok=True)
    parts = split(Path(args.text).read_text(encoding="utf-8"))
    vocabulary = Vocabulary(kept_vocabulary(folder / "vocab.txt", parts["train"], args.vocabulary))
    fields = {"layout": LAYOUT, "max_length": args.length, "masking": "dynamic", "duplicates": 1, "num_shards": 1}
    settings = DataSettings("full_sentences", fill_rows=True, **fields)
    found = {"vocabulary": vocabulary, "settings": settings}
    for name, text in parts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        found[name] = folder / f"data-{name}"
        if not found[name].exists():
            write_pretraining_data([folder / f"{name}.txt"], found[name], vocabulary, settings)
    return found


def split(text: str) -> dict[str, str]:
    """Documents to train on, and every tenth one held out, without WikiText's markers."""
    from bert_models.pretraining.sentences import LAYOUTS, documents

    for marker, plain in MARKERS.items():
        text = text.replace(marker, plain)
    found = ["\n".join(document) for document in documents(text.splitlines(), LAYOUTS[LAYOUT])]
    held_out = found[HELD_OUT - 1 :: HELD_OUT]
    return {"train": "\n".join(d for d in found if d not in held_out), "held_out": "\n".join(held_out)}


def kept_vocabulary(file: Path, text: str, size: int) -> tuple[str, ...]:
    """The tokens in the file; it is written if it is not there, since two trainings may number tokens differently."""
    from bert_models.text.vocabulary import read_tokens

    if not file.exists():
        file.write_text("\n".join(learnt_vocabulary(text, size)), encoding="utf-8")
    return read_tokens(file)


def learnt_vocabulary(text: str, size: int) -> list[str]:
    """WordPiece tokens of a text, spelled as BERT does."""
    from tokenizers import trainers

    from bert_models.text.vocabulary import to_backend

    backend = to_backend(SPECIAL, {})
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(text.splitlines(), trainer)
    by_id = {number: token for token, number in backend.get_vocab().items()}
    return [by_id[number] for number in sorted(by_id)]


def examples(folder: Path, data: dict, batch: int) -> list[dict]:
    """All batches of a part, with the masks that the measurement has."""
    from bert_models.pretraining.reading import dataset

    return list(dataset(folder, batch, data["vocabulary"]).as_numpy_iterator())


def rows_of(folder: Path) -> int:
    """Number of examples."""
    from bert_models.pretraining.info import read_info

    return sum(shard["records"] for shard in read_info(folder)["shards"])


def unigram(data: dict) -> float:
    """Share of the held-out part's masked tokens that are the training part's most frequent token."""
    counts: dict[str, Counter] = {}
    for name in ("train", "held_out"):
        counts[name] = Counter()
        for batch in examples(data[name], data, 1):
            used = batch["masked_lm_weights"] > 0
            counts[name].update(batch["masked_lm_ids"][used].tolist())
    ((most, _),) = counts["train"].most_common(1)
    return counts["held_out"][most] / counts["held_out"].total()


def encoder(name: str, args, data: dict):
    """A new encoder, the same each time."""
    import keras

    import bert_models

    keras.utils.set_random_seed(args.seed)
    sizes = {"num_layers": args.layers, "hidden_size": args.hidden, "num_heads": args.hidden // 64}
    sizes |= {"vocab_size": len(data["vocabulary"].tokens), "max_positions": args.length}
    rates = {"hidden_dropout": args.dropout, "attention_dropout": args.dropout}
    return bert_models.build(MODELS[name], dtype=args.dtype, **sizes, **rates)


def recipe(args, data: dict):
    """BERT's, in one stage that time ends, with a rate that stays after its warm-up."""
    from bert_models.pretraining.recipes import RECIPES

    short = RECIPES["tn_bert"].on(data["settings"], FOREVER)
    return short.scaled(FOREVER, batch_size=args.batch, peak=args.peak, end=args.peak, warmup_steps=WARMUP)


def step_costs(args, data: dict, rounds: int = 15) -> dict[str, dict]:
    """Processor milliseconds of a step, both models in turn, and megabytes that a process needs for one to train."""
    batch = examples(data["train"], data, args.batch)[0]
    steps = {}
    for name in MODELS:
        model = compiled(name, args, data)
        steps[name] = lambda model=model: measure.cpu_seconds(lambda: model.train_on_batch(batch))
    costs = {name: {"cpu_ms": 1000 * found} for name, found in measure.interleaved_medians(steps, rounds).items()}
    for name, cost in costs.items():
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            cost["megabytes"] = fresh.submit(peak_megabytes, name, args, data).result()
        print(
            f"{name:<8} {cost['cpu_ms']:.1f} CPU-ms a step of {args.batch} x {args.length} tokens, "
            f"{cost['megabytes']:.0f} MB to train",
            flush=True,
        )
    return costs


def peak_megabytes(name: str, args, data: dict, steps: int = 5) -> float:
    """What this process needs at most for some steps, beyond what it had with all imported and the batch read."""
    batch = examples(data["train"], data, args.batch)[0]
    before = high_water_mark()
    model = compiled(name, args, data)
    for _ in range(steps):
        model.train_on_batch(batch)
    return high_water_mark() - before


def high_water_mark() -> float:
    """Most megabytes of memory that this process ever held. Linux only; ru_maxrss would count the parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def compiled(name: str, args, data: dict):
    """A new model with its optimizer."""
    from bert_models.heads import MaskedLM
    from bert_models.pretraining.loop import optimizer_of
    from bert_models.pretraining.model import PretrainingModel

    model = PretrainingModel(MaskedLM(encoder(name, args, data)), next_sentence=False)
    model.compile(optimizer_of(recipe(args, data)))
    return model


def trained(name: str, args, data: dict, folder: Path) -> list[dict]:
    """The learning curve of one model: steps, processor seconds, held-out loss and accuracy."""
    from bert_models.pretraining.loop import pretrain
    from bert_models.training import curve

    class StopInTime(_keras().callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if curve.read(run / "curve.jsonl")[-1]["cpu_seconds"] >= 60 * args.minutes:
                self.model.stop_training = True

    run = folder / f"run-{name}"
    done = curve.read(run / "curve.jsonl")
    if not done or done[-1]["cpu_seconds"] < 60 * args.minutes:
        pretrain(
            encoder(name, args, data),
            data["train"],
            run,
            recipe(args, data),
            held_out=data["held_out"],
            tokenizer=data["vocabulary"],
            every=args.every,
            seed=args.seed,
            progress=lambda row: print(line(name, row), flush=True),
            callbacks=[StopInTime()],
        )
    return curve.read(run / "curve.jsonl")


def _keras():
    import keras

    return keras


def line(name: str, row: dict) -> str:
    """One line of a curve."""
    return (
        f"{name:<8} step {row['step']:>6}  {row['cpu_seconds']:7.1f} CPU-s  "
        f"training {100 * row['masked_accuracy']:5.2f} %  "
        f"held out {100 * row['val_masked_accuracy']:5.2f} %, loss {row['val_masked_loss']:.3f}"
    )


def table(curves: dict[str, list[dict]], points: int = 6) -> str:
    """Held-out accuracy of both models at the same steps and after the same time, as Markdown."""
    last_step = min(rows[-1]["step"] for rows in curves.values())
    last_second = min(rows[-1]["cpu_seconds"] for rows in curves.values())
    lines = ["| | " + " | ".join(f"{name}, held out" for name in curves) + " |", "|---" * (1 + len(curves)) + "|"]
    for label, key, last in (("step {:,.0f}", "step", last_step), ("{:,.0f} CPU seconds", "cpu_seconds", last_second)):
        for point in range(1, points + 1):
            limit = last * point / points
            found = [at(rows, key, limit) for rows in curves.values()]
            if all(found):
                cells = (f"{100 * row['val_masked_accuracy']:.2f} %" for row in found)
                lines.append(f"| {label.format(limit)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def at(rows: list[dict], key: str, limit: float) -> dict | None:
    """The last line of a curve up to a limit."""
    before = [row for row in rows if row[key] <= limit]
    return before[-1] if before else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="UTF-8 text in WikiText's layout")
    parser.add_argument("--minutes", type=float, default=20.0, help="of processor time, each (default %(default)s)")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--length", type=int, default=64, help="tokens in a row (default %(default)s)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--peak", type=float, default=5e-4, help="learning rate (default %(default)s)")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--every", type=int, default=200, help="steps between measurements (default %(default)s)")
    parser.add_argument("--dtype", help="what is computed in, e.g. mixed_bfloat16 (default: float32)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="keep data and checkpoints here, and go on where a run stopped")
    parser.add_argument("--json", help="file to write results to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
