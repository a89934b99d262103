"""`evaluate`: the scores of a fine-tuned model."""

import click

from bert_models.cli import bars, options, places
from bert_models.cli.finetune import scores_text
from bert_models.cli.running import Command, Result
from bert_models.finetuning.reading import files_of
from bert_models.finetuning.tasks import task_of


@click.command("evaluate", cls=Command, short_help="Measure a fine-tuned model.")
@click.option("--model", required=True, metavar="PATH", help="What finetune or distil wrote, or a .keras file.")
@options.TASK
@options.TASK_DATA
@click.option("--split", multiple=True, help="Which parts, e.g. dev_matched; repeatable. [default: all but train]")
@click.option("--batch-size", default=32, show_default=True, help="Rows that are computed at once.")
@click.option(
    "--tokenizer",
    metavar="PATH",
    help="Folder with tokenizer.json or vocab.txt, or a vocab.txt. [default: the model's folder]",
)
@options.joined(*options.COMMON)
def command(model, task, data, split, batch_size, tokenizer, quiet) -> Result:
    """Measure a fine-tuned model on a task by its official metric, in points; 100 is best.

    \b
    Example:
      python -m bert_models evaluate --model cola --task cola --data glue
    """
    chosen = task_of(task)
    splits = list(split) or [name for name in chosen.splits if name != "train"]
    files_of(chosen, data, splits)
    places.check_model(model)
    text_side = places.open_tokenizer(tokenizer, model)

    import bert_models

    found = bert_models.evaluate(
        places.open_keras(model),
        chosen,
        data,
        tokenizer=text_side,
        splits=splits,
        batch_size=batch_size,
        progress=bars.wanted(quiet),
    )
    return Result({"model": model, "task": task, "scores": found}, f"{task} {scores_text(found)}")
