"""What compression costs after fine-tuning: all-MiniLM-L6-v2, dense and compressed, on SST-2, CoLA and STS-B.

The feed-forward kernels are compressed to half and to 28 % of their parameters: low rank, the same everywhere;
TN-BERT's Expand/Condense with six blocks; and what the allocator picks, fewer hidden units at low rank. Every student
is fine-tuned on each task by one recipe, as it was fitted, after some minutes of recovery towards the original on
unlabelled sentences of the training parts, and, as a control, from random kernels after the same minutes of recovery.
One thread; the last epoch counts; results are in points, with the difference to dense in parentheses.

    python benchmarks/finetune_small.py --sst2 sst2 --cola cola --stsb stsb --json finetune_small.json --cache students

Folders: sst2 has train.tsv and dev.tsv (sentence, label; no heading), cola in_domain_train.tsv and in_domain_dev.tsv,
stsb stsb-en-train.csv and stsb-en-dev.csv (sentence1,sentence2,score). The file of results is also what a run that was
stopped goes on from; `--table` prints one or several.
"""

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import measure
import minilm
import numpy as np
from finetune_students import STARTS, STUDENTS, TASKS, Maker, task_data, unlabelled

RATE = 1e-4  # of fine-tuning
COUNTED = ("examples", "epochs", "learning_rate", "batch", "minutes", "dtype")  # arguments that results depend on


def main() -> None:
    """Measure what is not measured yet, a line each, then the table."""
    args = _arguments()
    if args.table:
        print_table([row for path in args.table for row in earlier(path, None)])
        return
    measure.use_one_thread()
    os.environ.update({"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"})
    settings = {name: getattr(args, name) for name in COUNTED}
    results = earlier(args.json, settings)
    measure_missing(args, settings, results)
    print_table(results)


def measure_missing(args: argparse.Namespace, settings: dict, results: list[dict]) -> None:
    """Seed after seed, student after student, so that a run that is stopped has whole tables."""
    import bert_models

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    splits = {name: task_data(name, args) for name in args.tasks}
    maker = Maker(args, encoder, tokenizer, unlabelled(splits))
    for seed in args.seeds:
        for name, start in wanted(args):
            done = {(r["student"], r["start"], r["task"], r["seed"]) for r in results}
            missing = [task for task in args.tasks if (name, start, task, seed) not in done]
            if not missing:
                continue
            student, about = maker.student(name, start)
            for task in missing:
                found = fine_tuned(student, tokenizer, task, splits[task], seed, args)
                results.append({"student": name, "start": start, "task": task, "seed": seed, **about, **found})
                print(line(results[-1]), flush=True)
                if args.json:
                    measure.write_json(args.json, "finetune_small", {"settings": settings, "rows": results})
            del student
            gc.collect()


def wanted(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Students and how they start, dense first."""
    yield "dense", "as it is"
    for name in args.students:
        for start in args.starts:
            yield name, start


def fine_tuned(student, tokenizer, task: str, splits: dict, seed: int, args: argparse.Namespace) -> dict:
    """Scores on dev and processor seconds of one fine-tuning."""
    count, rate = dict(args.examples).get(task), dict(args.learning_rate).get(task, RATE)
    begun = time.process_time()
    found, examples = tuned(student, tokenizer, task, splits, seed, count, rate, args.epochs, args.batch)
    seconds = time.process_time() - begun
    (run,) = found.runs
    return {
        "scores": run.scores["dev"],
        "headline": headline(run.scores["dev"]),
        "trouble": run.trouble,
        "examples": examples,
        "recipe": asdict(found.recipe),
        "cpu_seconds": seconds,
    }


def tuned(
    student, tokenizer, task: str, splits: dict, seed: int, count: int | None, rate: float, epochs: int, batch: int
):
    """What `finetune` makes of so many examples (None: all), drawn by the seed; and how many they were."""
    from bert_models.finetuning.finetune import finetune
    from bert_models.finetuning.recipes import RECIPES

    train = splits["train"]
    train = [train[i] for i in np.random.default_rng(seed).permutation(len(train))[:count]]
    found = finetune(
        student,
        task,
        {"train": train, "dev": splits["dev"]},
        tokenizer=tokenizer,
        recipe=replace(RECIPES["small_bert"], learning_rate=rate, epochs=epochs, batch_size=batch),
        seeds=[seed],
        output="mean",
        progress=False,
    )
    return found, len(train)


def headline(scores: dict[str, float]) -> float:
    """The mean of a task's metrics."""
    return float(np.mean(list(scores.values())))


# -- results ---------------------------------------------------------------------------------------


def earlier(path: str | None, settings: dict | None) -> list[dict]:
    """The rows of a run that was stopped, if it had these settings; None: any."""
    if not path or not Path(path).is_file():
        return []
    found = json.loads(Path(path).read_text())["results"]
    if settings is not None and found["settings"] != settings:
        raise SystemExit(
            f"{path} was measured with {found['settings']}, now asked for is {settings}; name another file."
        )
    return found["rows"]


def line(row: dict) -> str:
    """One fine-tuning in one line."""
    scores = ", ".join(f"{name} {value:.2f}" for name, value in row["scores"].items())
    trouble = f"  NOT CONVERGED: {row['trouble']}" if row["trouble"] else ""
    who = f"{row['student']:<21} {row['start']:<9} {row['task']:<5} seed {row['seed']}"
    return f"{who}: {scores}, {row['cpu_seconds']:.0f} CPU-s{trouble}"


def print_table(rows: list[dict]) -> None:
    """Means over the seeds and their spread, and how far they are from dense."""
    tasks = [task for task in TASKS if any(row["task"] == task for row in rows)]
    print("\n| student | start | kernels kept | " + " | ".join(tasks) + " | recovery, CPU-min | fine-tuning, CPU-min |")
    print("|" + "---|" * (len(tasks) + 5))
    for name, start in dict.fromkeys((row["student"], row["start"]) for row in rows):
        own = [row for row in rows if (row["student"], row["start"]) == (name, start)]
        cells = [cell(rows, own, task) for task in tasks]
        spent = [own[0]["recovery_seconds"] / 60, sum(row["cpu_seconds"] for row in own) / 60]
        print(
            f"| {name} | {start} | {own[0]['kept']:.3f} | " + " | ".join([*cells, *(f"{x:.1f}" for x in spent)]) + " |"
        )


def cell(rows: list[dict], own: list[dict], task: str) -> str:
    """Mean, spread and difference to dense with the same seeds."""
    values = {row["seed"]: row["headline"] for row in own if row["task"] == task}
    dense = {row["seed"]: row["headline"] for row in rows if row["student"] == "dense" and row["task"] == task}
    if not values:
        return ""
    text = f"{np.mean(list(values.values())):.2f}"
    if len(values) > 1:
        text += f" ± {np.std(list(values.values()), ddof=1):.2f}"
    both = [values[seed] - dense[seed] for seed in values if seed in dense]
    return text if own[0]["student"] == "dense" or not both else f"{text} ({np.mean(both):+.2f})"


def _of_task(kind: type) -> Callable[[str], list]:
    """`sst2=1500` -> the task and the number; a list, as JSON has it."""

    def read(text: str) -> list:
        name, _, number = text.partition("=")
        try:
            return [TASKS[TASKS.index(name)], kind(number)]
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"a task and a number such as sst2=1500 are expected, got {text!r}"
            ) from None

    return read


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in TASKS:
        parser.add_argument(f"--{name}", help=f"folder of {name}")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--students", nargs="*", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--starts", nargs="+", default=STARTS, choices=STARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--examples", nargs="+", type=_of_task(int), default=[], help="to train on, e.g. sst2=1500; else all"
    )
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning (default %(default)s)")
    parser.add_argument(
        "--learning-rate", nargs="+", type=_of_task(float), default=[], help=f"e.g. cola=1e-4; else {RATE:g}"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=3.0, help="of recovery, processor time (default %(default)s)")
    parser.add_argument("--dtype", help="what recovery computes in, e.g. mixed_bfloat16")
    parser.add_argument("--cache", help="folder to keep students in")
    parser.add_argument("--json", help="file to write results to, and to go on from")
    parser.add_argument("--table", nargs="+", metavar="FILE", help="only print the table of these files of results")
    args = parser.parse_args()
    if not args.table and (lacking := [name for name in args.tasks if not getattr(args, name)]):
        parser.error(f"--{lacking[0]} is needed")
    return args


if __name__ == "__main__":
    main()
