"""TF2 checkpoints of TensorFlow Model Garden: training checkpoints, converted releases, and its SavedModels.

A variable is found by following the graph of objects that is stored with it, so it does not matter whether the encoder
was saved as `encoder`, as `model`, within a pretrainer, a classifier or a SavedModel.
"""

import re
from collections.abc import Callable
from pathlib import Path

from bert_models.checkpoints.garden_names import HEAD_PATHS, LAYER_NAMES, garden_names, layers_of
from bert_models.checkpoints.source import Source, Tensor, weights_of
from bert_models.checkpoints.tf1 import CONFIG_FILE, config_in
from bert_models.checkpoints.tf_checkpoint import TFCheckpoint
from bert_models.config import BertConfig
from bert_models.encoder import build_encoder

# Slots of optimizers, counters, the graph itself, and a flag of SavedModels
NOT_READ = re.compile(
    r".*/\.OPTIMIZER_SLOT/.*|_CHECKPOINTABLE_OBJECT_GRAPH|(optimizer|save_counter|global_step|do_lower_case)(/.*)?"
)


def open_objects(checkpoint: TFCheckpoint, config: BertConfig | None, folder: Path, where: str) -> Source:
    """A TF2 checkpoint as a source.

    Args:
        checkpoint: opened; it has a graph of objects.
        config: of the encoder in it, unless `bert_config.json` in the folder says it.
        folder: where that and a vocabulary may be.
        where: what messages shall call it.

    Raises:
        ValueError: there is no config, or no encoder of Model Garden in the checkpoint.
    """
    described_by = "the given config" if config else CONFIG_FILE
    encoder_object, names_of_layers = _encoder_object(checkpoint, where)
    config = config or config_in(folder)
    if config is None:
        raise ValueError(
            f"{where} does not say which encoder it holds: give config=, a BertConfig or the name of a preset."
        )
    names = garden_names(config)
    encoder, head = weights_of(where, described_by, len(checkpoint.tensors), config, names)
    follow = _follower(checkpoint, encoder_object, names_of_layers(layers_of(config)))
    tensors = {}
    for name in (*(weight.name for weight in (*encoder, *head)), *names.tied):
        if label := follow(name):
            tensors[name] = checkpoint.tensors[label]
    return Source(
        where=where,
        described_by=described_by,
        config=config,
        encoder=encoder,
        head=head,
        tied=names.tied,
        tensors={**tensors, **_leftover(checkpoint, tensors)},
        read=checkpoint.read,
        build=lambda: build_encoder(config),
        folder=folder,
    )


def _encoder_object(checkpoint: TFCheckpoint, where: str) -> tuple[int, Callable]:
    """The object that holds the encoder's layers, and how it calls them."""
    for path, names_of_layers in LAYER_NAMES.items():
        if (node := next(checkpoint.objects_with([path]), None)) is not None:
            return node, names_of_layers
    some = ", ".join(sorted(checkpoint.tensors)[:4])
    raise ValueError(f"{where} holds no encoder of Model Garden; the first of its tensors are {some}.")


def _follower(checkpoint: TFCheckpoint, encoder: int, layer_names: dict[str, str]) -> Callable[[str], str | None]:
    """Name of a row of the tables -> name of the tensor in the file."""
    head = next(checkpoint.objects_with(HEAD_PATHS), None)

    def follow(name: str) -> str | None:
        owner, layer, *rest = name.split("/")
        if owner == "encoder":
            return checkpoint.follow(encoder, "/".join([layer_names[layer], *rest]))
        return None if head is None else checkpoint.follow(head, "/".join([layer, *rest]))

    return follow


def _leftover(checkpoint: TFCheckpoint, found: dict[str, Tensor]) -> dict[str, Tensor]:
    used = {tensor.label for tensor in found.values()}
    return {
        label: tensor
        for label, tensor in checkpoint.tensors.items()
        if label not in used and not NOT_READ.fullmatch(label)
    }
