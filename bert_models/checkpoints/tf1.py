"""A checkpoint of the first BERT: `bert_config.json` and TensorFlow 1 variables `bert/...` under a prefix."""

import re
from pathlib import Path

from bert_models.checkpoints.config_json import read_config, tf1_config
from bert_models.checkpoints.names import TF1, check_plain
from bert_models.checkpoints.source import Source, weights_of
from bert_models.checkpoints.tf_checkpoint import TFCheckpoint
from bert_models.config import BertConfig
from bert_models.encoder import build_encoder

CONFIG_FILE = "bert_config.json"
# Slots of optimizers, counters, and the head for next sentences
NOT_READ = re.compile(
    r"(.+/)?(adam_[mv]|lamb_[mv]|Adam(_\d+)?|Momentum)"
    r"|(.+/)?(global_step|beta[12]_power|loss_scale|good_steps)"
    r"|cls/seq_relationship/.+"
)
# The masked-LM head as Model Garden's programs name it -> as the first BERT does
HEAD_ALIASES = {
    f"bert/{row.name}/bias" if row.path == "output_bias" else f"bert/{row.name}": row.name for row in TF1.head
}


def open_checkpoint(checkpoint: TFCheckpoint, config: BertConfig | None) -> Source:
    """A TensorFlow 1 checkpoint as a source.

    Raises:
        FileNotFoundError: no config was given, and there is none beside the checkpoint.
    """
    prefix = checkpoint.prefix
    described_by = "the given config" if config else CONFIG_FILE
    config = config or config_in(prefix.parent)
    if config is None:
        raise FileNotFoundError(
            f"there is no {CONFIG_FILE} beside {prefix}: put it there, or give config=, a BertConfig or the name of "
            "a preset."
        )
    check_plain(config, "A TensorFlow 1 BERT")
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not NOT_READ.fullmatch(name)}
    encoder, head = weights_of(str(prefix), described_by, len(tensors), config, TF1)
    return Source(
        where=str(prefix),
        described_by=described_by,
        config=config,
        encoder=encoder,
        head=head,
        tied={**TF1.tied, **HEAD_ALIASES},
        tensors=tensors,
        read=checkpoint.read,
        build=lambda: build_encoder(config),
        folder=prefix.parent,
    )


def config_in(folder: Path) -> BertConfig | None:
    """What `bert_config.json` in a folder says, if it is there."""
    file = folder / CONFIG_FILE
    return read_config(file, tf1_config) if file.is_file() else None
