"""The command line: `tncompress count | plan | compress | report | compare | bench | export | forms`.

Commands import what they need when they run, so that `count` of a preset loads no TensorFlow.
"""

import click

from tncompress import __version__
from tncompress.cli.app import Commands
from tncompress.cli.bench import bench
from tncompress.cli.compare import compare
from tncompress.cli.compress import compress
from tncompress.cli.count import count
from tncompress.cli.export import export
from tncompress.cli.forms import forms
from tncompress.cli.plan import plan
from tncompress.cli.report import report


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="tncompress")
def main() -> None:
    """Make trained Keras models smaller and faster with tensor networks.

    MODEL is a .keras file, a preset such as tn_bert (with random weights), the folder of a Hugging Face BERT, or a
    TensorFlow checkpoint.

    Exit codes: 0, done; 1, it could not be done to the end (the disk is full), or a limit that was asked for is not
    met; 2, something given is wrong, and one sentence says what; 3, a bug; 130, it was interrupted.
    """


for _command in (count, plan, compress, report, compare, bench, export, forms):
    main.add_command(_command)
