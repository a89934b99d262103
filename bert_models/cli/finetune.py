"""`finetune`: an encoder on a task; and what `distil` shares with it."""

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bert_models.cli import bars, options, places
from bert_models.cli.running import Command, Result, to_json
from bert_models.finetuning.reading import files_of
from bert_models.finetuning.recipes import OPTIMIZERS, RECIPES, Recipe
from bert_models.finetuning.tasks import SpanTask, task_of
from bert_models.folders import new_folder
from tncompress.commands import FAILED, told_if_full

OUTPUTS, KEEPS = ("pooled", "mean"), ("last", "best")
FIELDS = {
    "optimizer": (click.Choice(OPTIMIZERS), "What updates the weights."),
    "learning_rate": (float, "The peak."),
    "epochs": (int, "How often the training examples are seen."),
    "batch_size": (int, "Examples, or windows of SQuAD, in a step."),
    "warmup": (float, "Fraction of the steps until the peak."),
    "weight_decay": (float, "Of all weights but biases and LayerNorms."),
    "clip": (float, "Largest norm of all gradients together; 0: any."),
    "dropout": (float, "Of what goes into the head."),
}
SHARED = options.joined(
    options.TASK,
    options.TASK_DATA,
    options.OUT,
    options.TOKENIZER,
    options.SET,
    options.DTYPE,
    click.option(
        "--recipe",
        type=click.Choice(list(RECIPES)),
        help="Where to start. [default: bert; of SQuAD bert_squad; for distil small_bert]",
    ),
    options.fields(FIELDS, "bert", RECIPES["bert"]),
    click.option(
        "--seed", type=options.SEED, multiple=True, default=(0,), show_default=True, help="A run for each; repeatable."
    ),
    click.option(
        "--output",
        type=click.Choice(OUTPUTS),
        default="pooled",
        show_default=True,
        help="What the head reads; mean for sentence encoders, whose pooler is not trained.",
    ),
    click.option(
        "--keep",
        type=click.Choice(KEEPS),
        default="last",
        show_default=True,
        help="Weights at the end, or of the epoch that did best on dev.",
    ),
    *options.COMMON,
)


@click.command("finetune", cls=Command, short_help="Train an encoder on a task, with scores.")
@options.ENCODER
@SHARED
def command(encoder, task, data, out, recipe, **values) -> Result:
    """Train an encoder on a task of GLUE or SQuAD, and measure it on dev by the task's official metric.

    All weights are trained, by one run for each --seed; results are means over the runs with their spread. The folder
    --out gets model.keras, of the run that did best, its tokenizer, and results.json. Given the model of the same task
    that distil wrote, it goes on with its head.

    \b
    Examples:
      python -m bert_models finetune --encoder bert-base-uncased --task cola --data glue --out cola
      python -m bert_models finetune --encoder run --tokenizer vocab.txt --task squad2 --data squad --out squad2 \\
          --seed 0 --seed 1 --seed 2
    """
    chosen = task_of(task)
    recipe = recipe or ("bert_squad" if isinstance(chosen, SpanTask) else "bert")
    return run(encoder, chosen, data, out, changed(RECIPES[recipe], values), values, {})


def changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with the fields that were given."""
    changes = options.given(values, FIELDS)
    if changes.get("clip") == 0:
        changes["clip"] = None
    return replace(recipe, **changes)


def run(
    encoder: str,
    task: Any,
    data: str,
    out: str,
    recipe: Recipe,
    values: Mapping[str, Any],
    teaching: Mapping[str, Any],
) -> Result:
    """Look at all that was given, train, print and write.

    Args:
        values: of the options in `SHARED`.
        teaching: `teacher`, a path, and how to learn from it; empty: from the task's labels.
    """
    folder, overrides, quiet = places.check_new(out), dict(values["overrides"]), values["quiet"]
    files_of(task, data)
    others = [teaching["teacher"]] if teaching else []
    for path in others:
        places.check_model(path)
    tokenizer = places.open_tokenizer(values["tokenizer"], encoder, *others)
    if others:
        places.check_same_tokens(tokenizer, encoder, *others)
    if not places.is_path(encoder):
        overrides.setdefault("vocab_size", tokenizer.vocab_size)  # a preset gets its tokenizer's
    places.check_encoder(encoder, overrides)

    import keras

    import bert_models
    from bert_models.finetuning.heads import encoder_in, has_head

    keras.utils.set_random_seed(values["seed"][0])
    given = places.open_encoder(encoder, overrides, values["dtype"])
    if not has_head(given, task) and encoder_in(given) is not None:
        given = encoder_in(given)  # of another task
    how = {**teaching, "teacher": places.open_keras(teaching["teacher"])} if teaching else {}
    tuned = bert_models.finetune(
        given,
        task,
        data,
        tokenizer=tokenizer,
        recipe=recipe,
        seeds=values["seed"],
        output=values["output"],
        keep=values["keep"],
        progress=bars.wanted(quiet),
        **how,
    )
    found = {**tuned.to_dict(), "encoder": encoder, **teaching}
    text = str(tuned)
    if how:
        score = bert_models.evaluate(how["teacher"], task, data, tokenizer=tokenizer, progress=bars.wanted(quiet))
        found["teacher_scores"] = score
        text += f"\nteacher: {scores_text(score)}"
    found = _written(tuned.model, tokenizer, found, folder)
    return Result(found, f"{text}\nwritten to {found['out']}", FAILED if all(run.trouble for run in tuned.runs) else 0)


def scores_text(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Split -> metric -> points, in one line.

    >>> scores_text({"dev": {"f1": 90.0, "accuracy": 86.123}})
    'dev: f1 90.00, accuracy 86.12'
    """
    return "; ".join(f"{split}: {', '.join(f'{k} {v:.2f}' for k, v in one.items())}" for split, one in scores.items())


def _written(model: Any, tokenizer: Any, found: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Write the folder, or one beside if something is there since training began; what was found, and where it is."""
    others = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    place = next(place for place in itertools.chain([folder], others) if not place.exists())
    if place != folder:
        warnings.warn(f"{folder} is there by now, made by something else, and stays: see {place}.", stacklevel=2)
    found = {**found, "out": str(place)}
    try:
        _write(model, tokenizer, found, place)
    except FileExistsError:  # made while this was written
        return _written(model, tokenizer, found, folder)
    return found


def _write(model: Any, tokenizer: Any, found: Mapping[str, Any], folder: Path) -> None:
    from tncompress.conversion.surgery import copy_model

    kept = f"The scores: {scores_text(found['mean'])}."
    with told_if_full(folder, kept), new_folder(folder, overwrite=False) as new:
        with warnings.catch_warnings():
            # A copy that was not compiled, without the optimizer's state, which is twice as large as the model.
            warnings.filterwarnings("ignore", ".*not compiled.*")
            copy_model(model).save(new / places.MODEL_FILE)
        places.save_tokenizer(tokenizer, new)
        (new / "results.json").write_text(to_json(found) + "\n", "utf-8")
