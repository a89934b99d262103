"""`pretrain`: shards and an encoder to a pretrained encoder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bert_models.cli import bars, options, places
from bert_models.cli.running import Command, Result
from bert_models.pretraining.info import read_info
from bert_models.pretraining.recipes import OPTIMIZERS, RECIPES, Recipe
from bert_models.pretraining.settings import DataSettings
from tncompress.commands import told_if_full

FIELDS = {
    "batch_size": (int, "Sequences for one update of the weights."),
    "optimizer": (click.Choice(OPTIMIZERS), "What updates the weights."),
    "peak": (float, "Highest learning rate."),
    "warmup_steps": (int, "Updates until it is reached."),
    "end": (float, "Learning rate after the last step."),
    "weight_decay": (float, "Of all weights but biases and LayerNorms."),
    "beta_1": (float, "Of the optimizer."),
    "beta_2": (float, "Of the optimizer."),
    "epsilon": (float, "Of the optimizer."),
    "global_clipnorm": (float, "Largest norm of all gradients together; 0: any."),
}


@click.command("pretrain", cls=Command, short_help="Pretrain an encoder on such shards.")
@options.ENCODER
@options.SET
@options.DTYPE
@click.option(
    "--data",
    required=True,
    multiple=True,
    metavar="FOLDER",
    help="What pretrain-data wrote; repeated, one for each stage of the recipe. One alone is taken for all steps.",
)
@click.option("--out", required=True, metavar="FOLDER", help="For checkpoints, the learning curve and the models.")
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="bert", show_default=True, help="Where to start.")
@click.option("--steps", type=click.IntRange(1), help="Updates of the weights in all. [default: as the recipe]")
@options.fields(FIELDS, "bert", RECIPES["bert"])
@click.option("--stop-at", type=click.IntRange(1), help="Stop after so many steps, to go on another time.")
@click.option("--every", default=1000, show_default=True, help="Steps between checkpoints.")
@click.option("--keep", type=click.IntRange(1), default=2, show_default=True, help="So many checkpoints stay.")
@click.option("--held-out", metavar="FOLDER", help="Pretraining data to measure on, with every checkpoint.")
@click.option("--accumulate", default=1, show_default=True, help="Compute a batch in so many parts, for less memory.")
@click.option("--teacher", metavar="PATH", help="A trained model whose probabilities count beside the tokens.")
@click.option("--temperature", default=1.0, show_default=True, help="Of teacher and student; above 1 is softer.")
@click.option("--label-share", default=0.5, show_default=True, help="Weight of the tokens beside the teacher.")
@click.option("--tokenizer", metavar="PATH", help="For dynamic masks; also put beside the models, for finetune.")
@click.option(
    "--seed",
    type=options.SEED,
    default=0,
    show_default=True,
    help="For new weights, the order of data, masks and dropout.",
)
@options.joined(*options.COMMON)
def command(encoder, overrides, dtype, data, out, recipe, steps, stop_at, seed, tokenizer, teacher, quiet, **values):
    """Pretrain an encoder on masked words, and on pairs of sentences where the data has them.

    The folder --out gets checkpoints, curve.jsonl, and at the end encoder.keras (for finetune) and mlm.keras (with the
    head that predicts words). If it was stopped or killed, the same command goes on from the last checkpoint, with the
    losses that it would have had anyway.

    \b
    Examples:
      python -m bert_models pretrain --encoder tn_bert --data data --out run
      python -m bert_models pretrain --encoder tn_bert --set num_layers=4 --data data --out try \\
          --steps 1000 --batch-size 32 --every 100
    """
    chosen = options.given(values, FIELDS)
    recipe = recipe_for(RECIPES[recipe], data, steps, chosen)
    names = dict(overrides)
    size = read_info(data[0])["vocabulary"]["size"]
    if not places.is_path(encoder):
        names.setdefault("vocab_size", size)  # a preset gets the vocabulary of its data
    places.check_encoder(encoder, names)
    text_side = None if tokenizer is None else places.open_tokenizer(tokenizer)
    rest = {name: values[name] for name in ("every", "keep", "held_out", "accumulate", "temperature", "label_share")}
    last = min(recipe.total_steps, stop_at or recipe.total_steps)

    import keras

    from bert_models.pretraining.loop import pretrain

    keras.utils.set_random_seed(seed)
    made = places.bare(places.open_encoder(encoder, names, dtype))
    given_teacher = None if teacher is None else places.open_mlm(teacher)
    with _stop_told(), bars.bar("Pretraining", last, bars.wanted(quiet)) as update:
        model = pretrain(
            made,
            list(data),
            out,
            recipe,
            steps=last,
            seed=seed,
            tokenizer=text_side,
            teacher=given_teacher,
            progress=lambda row: bars.say(line(row, last), quiet),
            callbacks=[_steps(update)],
            **rest,
        )
    return _finished(model, Path(out), text_side, last)


@contextmanager
def _stop_told() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        bars.say("Pretraining goes on from its last checkpoint if the command is given again.", quiet=False)
        raise


def recipe_for(recipe: Recipe, data: Sequence[str], steps: int | None, changes: Mapping[str, Any]) -> Recipe:
    """The recipe on these folders of data, with other fields, and in so many steps.

    Raises:
        FileNotFoundError, ValueError: see `read_info`; a field out of range.
    """
    infos = [read_info(folder) for folder in data]
    if len(infos) == 1 and len(recipe.stages) > 1:
        recipe = recipe.on(DataSettings(**infos[0]["settings"]))
    changes = dict(changes)
    if changes.get("global_clipnorm") == 0:
        changes["global_clipnorm"] = None
    if steps is None and not changes:
        return recipe
    return recipe.scaled(steps or recipe.total_steps, **changes)


def line(row: Mapping[str, Any], last: int) -> str:
    """A line of the curve for people.

    >>> line({"step": 1000, "loss": 5.25, "masked_accuracy": 0.125, "val_masked_accuracy": 0.1}, 9000)
    'step 1,000 of 9,000: loss 5.250, masked accuracy 12.5 %, held out 10.0 %'
    """
    parts = [f"loss {row['loss']:.3f}"] if "loss" in row else []
    names = {"masked_accuracy": "masked accuracy", "val_masked_accuracy": "held out"}
    parts += [f"{text} {100 * row[name]:.1f} %" for name, text in names.items() if name in row]
    return f"step {row['step']:,} of {last:,}: {', '.join(parts)}"


def _steps(update: Callable[..., None]) -> Any:
    """A callback that tells a bar about every step."""
    import keras

    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            update(int(self.model.optimizer.iterations), f"loss {(logs or {}).get('loss', 0.0):.3f}")

    return Steps()


def _finished(model: Any, out: Path, tokenizer: Any, last: int) -> Result | None:
    """Write the models; of several processes that train together, the first does, and the others have no result."""
    from bert_models.training import curve, distribute
    from bert_models.training.record import CURVE_NAME

    if distribute.place().process:
        return None
    rows = curve.read(out / CURVE_NAME)
    with told_if_full(out, "The checkpoint is whole: with more room, the same command writes the models."):
        places.save_beside({places.ENCODER_FILE: model.mlm.encoder, places.MLM_FILE: model.mlm}, out)
        if tokenizer is not None:
            places.save_tokenizer(tokenizer, out)
    found = {
        "out": str(out),
        "steps": last,
        "encoder": str(out / places.ENCODER_FILE),
        "last": rows[-1] if rows else {},
    }
    text = f"{out / places.ENCODER_FILE}: {line(rows[-1], last)}" if rows else f"{out}: nothing was left to do"
    return Result(found, text)
