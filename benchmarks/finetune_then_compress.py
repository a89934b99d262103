"""Compression after fine-tuning: all-MiniLM-L6-v2 on SST-2, CoLA or STS-B, then smaller, then recovered without labels.

The other order than that of `finetune_small.py`, with the same recipes and students. The dense encoder is fine-tuned;
its feed-forward kernels are fitted to what they do to the task's output, on unlabelled texts of the training part; and
the result learns for some minutes to give the outputs of the fine-tuned model, as does, as a control, one with random
kernels. One thread; results are on dev.

    python benchmarks/finetune_then_compress.py --task stsb --data stsb --examples 3000 --epochs 1 --learning-rate 2e-4

The data are laid out as for `finetune_small.py`. The file of results is also what a run that was stopped goes on from.
"""

import argparse
import os
import time

import measure
import minilm
import numpy as np
from finetune_small import RATE, earlier, headline, tuned
from finetune_students import RANDOM_RATE, STUDENTS, TASKS, compressed, kernels, task_data, with_random_kernels

UNLABELLED = 5000  # texts of the training part, to recover with
CALIBRATION = 2000  # of them, to calibrate with
BATCH = 32
RECOVERY_RATE = 3e-4
STARTS = ("fitted", "recovered", "random")
COUNTED = ("task", "examples", "epochs", "learning_rate", "minutes", "dtype")  # arguments that results depend on


def main() -> None:
    """A line for every student, then the means over the seeds."""
    args = _arguments()
    measure.use_one_thread()
    os.environ.update({"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"})
    settings = {name: getattr(args, name) for name in COUNTED}
    rows = earlier(args.json, settings)
    for seed in args.seeds:
        done = {row["student"] for row in rows if row["seed"] == seed}
        if missing := [name for name in ("dense", *args.students) if name not in done]:
            for row in measured(args, seed, missing):
                rows.append(row)
                print(line(row), flush=True)
                if args.json:
                    measure.write_json(args.json, "finetune_then_compress", {"settings": settings, "rows": rows})
    print_means(rows)


def measured(args: argparse.Namespace, seed: int, students: list[str]):
    """Fine-tune once, and yield the scores of the model and of each student made of it."""
    import bert_models
    import tncompress
    from bert_models.finetuning.evaluation import evaluate

    tokenizer = bert_models.load_tokenizer(minilm.folder())
    splits = task_data(args.task, argparse.Namespace(**{args.task: args.data}))
    begun = time.process_time()
    encoder = bert_models.load(minilm.folder())
    found, _ = tuned(encoder, tokenizer, args.task, splits, seed, args.examples, args.learning_rate, args.epochs, BATCH)
    model, seconds = found.model, time.process_time() - begun

    dev = {"dev": splits["dev"]}

    def score(one) -> float:
        return headline(evaluate(one, args.task, dev, tokenizer=tokenizer, progress=False)["dev"])

    about = {"task": args.task, "seed": seed}
    if "dense" in students:
        yield {**about, "student": "dense", "kept": 1.0, "fitted": score(model), "fit_seconds": seconds}
    batches = unlabelled(args.task, tokenizer, splits["train"])
    begun = time.process_time()
    moments = tncompress.calibrate(model, kernels(model), batches[: CALIBRATION // BATCH], objective="outputs")
    calibration = time.process_time() - begun

    def recovered(student, rate: float) -> float:
        taught = tncompress.recover(
            student,
            model,
            batches,
            learning_rate=rate,
            epochs=9,
            minutes=args.minutes,
            dtype=args.dtype,
            clock=time.process_time,
        )
        return score(taught)

    for name in students:
        if name == "dense":
            continue
        begun = time.process_time()
        small = compressed(model, name, moments)
        fit = calibration + time.process_time() - begun
        yield {
            **about,
            "student": name,
            "kept": tncompress.report(small).keep,
            "fitted": score(small),
            "recovered": recovered(small, RECOVERY_RATE),
            "random": recovered(with_random_kernels(small, seed), RANDOM_RATE),
            "fit_seconds": fit,
        }


def unlabelled(task: str, tokenizer, train: list) -> list[dict]:
    """Inputs of a task in batches of like length, mixed."""
    from bert_models.finetuning.rows import orders, text_rows
    from bert_models.finetuning.tasks import TASKS as ALL

    draw = np.random.default_rng(0)
    rows = text_rows(ALL[task], tokenizer, [train[i] for i in draw.permutation(len(train))[:UNLABELLED]])
    return [rows.batch(chosen)[0] for chosen in orders(rows, BATCH, draw)]


def line(row: dict) -> str:
    """One student of one seed."""
    found = ", ".join(f"{kind} {row[kind]:.2f}" for kind in STARTS if kind in row)
    return f"{row['student']:<21} seed {row['seed']}: {found}, {row['fit_seconds']:.0f} CPU-s to fit"


def print_means(rows: list[dict]) -> None:
    """Over the seeds, with the difference to dense in parentheses."""
    dense = {row["seed"]: row["fitted"] for row in rows if row["student"] == "dense"}
    print(f"\n| student | kernels kept | {' | '.join(STARTS)} |\n|---|---|---|---|---|")
    for name in dict.fromkeys(row["student"] for row in rows):
        own = [row for row in rows if row["student"] == name]
        cells = []
        for kind in STARTS:
            values = [row[kind] for row in own if kind in row]
            away = [row[kind] - dense[row["seed"]] for row in own if kind in row and row["seed"] in dense]
            gap = f" ({np.mean(away):+.2f})" if away and name != "dense" else ""
            cells.append(f"{np.mean(values):.2f}{gap}" if values else "")
        print(f"| {name} | {own[0]['kept']:.3f} | " + " | ".join(cells) + " |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--data", required=True, help="folder of the task")
    parser.add_argument("--students", nargs="*", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--examples", type=int, help="to train on; else all")
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=RATE, help="of fine-tuning (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=0.7, help="of recovery, processor time (default %(default)s)")
    parser.add_argument("--dtype", help="what recovery computes in, e.g. mixed_bfloat16")
    parser.add_argument("--json", help="file to write results to, and to go on from")
    return parser.parse_args()


if __name__ == "__main__":
    main()
