"""`distil`: a small model learns a task from a large one."""

from collections.abc import Mapping
from typing import Any

import click

from bert_models.cli import finetune, options
from bert_models.cli.running import Command, Result
from bert_models.finetuning.recipes import RECIPES
from bert_models.finetuning.tasks import task_of


@click.command("distil", cls=Command, short_help="Train a small model on a large one's answers.")
@click.option(
    "--teacher", required=True, metavar="PATH", help="What finetune wrote for this task, of a larger encoder."
)
@options.ENCODER
@click.option("--temperature", default=1.0, show_default=True, help="Of teacher and student; above 1 is softer.")
@click.option(
    "--label-share", default=0.0, show_default=True, help="Weight of the task's own labels beside the teacher."
)
@finetune.SHARED
def command(teacher, encoder, temperature, label_share, task, data, out, recipe, **values) -> Result:
    """Distil: a small encoder learns a task from the answers of a larger model that was fine-tuned on it.

    The middle one of the three steps of the small BERTs: pretrain, distil, fine-tune. The student sees the training
    texts of the task with the teacher's probabilities instead of the labels. Both need the same vocabulary. The folder
    --out is as that of finetune, and finetune --encoder OUT goes on from it with the task's own labels.

    \b
    Example:
      python -m bert_models finetune --encoder bert-base-uncased --task sst2 --data glue --out teacher
      python -m bert_models distil --teacher teacher --encoder run --task sst2 --data glue --out student
      python -m bert_models finetune --encoder student --task sst2 --data glue --out final
    """
    how: Mapping[str, Any] = {"teacher": teacher, "temperature": temperature, "label_share": label_share}
    chosen = finetune.changed(RECIPES[recipe or "small_bert"], values)
    return finetune.run(encoder, task_of(task), data, out, chosen, values, how)
