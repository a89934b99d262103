"""The command line: `python -m bert_models pretrain-data | pretrain | finetune | evaluate | distil`.

Needs neither Keras nor TensorFlow until a command has looked at what it was given.
"""

import click

from bert_models.cli import distil, evaluate, finetune, pretrain, pretrain_data
from bert_models.cli.running import Commands
from tncompress import __version__


@click.group(cls=Commands, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="tncompress")
@click.option("--debug", is_flag=True, help="If something fails, show where in the code.")
def main(debug: bool) -> None:
    """Train BERT encoders: from text to a pretrained, fine-tuned and distilled model.

    \b
    The usual way, each command with --help of its own:
      pretrain-data   text files      -> shards of masked examples
      pretrain        shards          -> an encoder
      finetune        encoder, task   -> a model of the task, with its scores
      evaluate        model, task     -> scores
      distil          large, small    -> a small model that learns from the large one

    All options may stand in a file instead, given as --config run.toml or run.json: at its top level, or in tables with
    the names of commands. What is typed wins.

    Results go to standard output (with --json as JSON and nothing else), all other words to standard error.

    Exit codes: 0, done; 1, it could not be done to the end (the loss is not finite, the disk is full), or no run has
    converged; 2, something given is wrong, and one sentence says what; 3, a bug; 130, it was interrupted.

    Keras runs on TensorFlow, or on what the environment variable KERAS_BACKEND names: jax or torch.
    """


for command in (pretrain_data, pretrain, finetune, evaluate, distil):
    main.add_command(command.command)
