"""BERT encoders in Keras 3: build them by name, read and write checkpoints, embed sentences, export for TF Hub.

Light at the door: `import bert_models` loads neither Keras nor a backend; the names below load
what they need when they are first used.

>>> import bert_models
>>> bert_models.BertConfig(num_layers=6).num_layers
6
"""

import sys
from importlib import import_module

__all__ = [
    "LAMB",
    "PRESETS",
    "TASKS",
    "AdamW",
    "BertConfig",
    "DenseMaps",
    "ExpandCondense",
    "HubEncoder",
    "LowRank",
    "MaskedLM",
    "MultiHead",
    "Networks",
    "Preprocessor",
    "TalkingHeads",
    "WarmupDecay",
    "build",
    "build_encoder",
    "embed",
    "evaluate",
    "export",
    "export_huggingface",
    "export_preprocessor",
    "finetune",
    "flops_per_token",
    "load",
    "load_mlm",
    "load_tokenizer",
    "param_counts",
    "pretrain",
]

_HOMES = {
    "LAMB": "training.optimizers",
    "PRESETS": "presets",
    "TASKS": "finetuning.tasks",
    "AdamW": "training.optimizers",
    "BertConfig": "config",
    "DenseMaps": "kinds",
    "ExpandCondense": "kinds",
    "HubEncoder": "hub_layer",
    "LowRank": "kinds",
    "MaskedLM": "heads",
    "MultiHead": "kinds",
    "Networks": "kinds",
    "Preprocessor": "text.preprocessor",
    "TalkingHeads": "kinds",
    "WarmupDecay": "training.schedules",
    "build": "encoder",
    "build_encoder": "encoder",
    "embed": "sentence_embeddings",
    "evaluate": "finetuning.evaluation",
    "export": "hub_export",
    "export_huggingface": "checkpoints.huggingface_export",
    "export_preprocessor": "text.export",
    "finetune": "finetuning.finetune",
    "flops_per_token": "counts",
    "load": "checkpoints.loading",
    "load_mlm": "checkpoints.loading",
    "load_tokenizer": "text.tokenize",
    "param_counts": "counts",
    "pretrain": "pretraining.loop",
}


def __getattr__(name: str):
    """Import a public name from its module when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"bert_models has no {name!r}; its public names are {', '.join(__all__)}.")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "keras" in sys.modules:
    # Saved encoders name our classes; Keras finds them once they are registered.
    import bert_models.encoder
    import bert_models.finetuning.heads
    import bert_models.heads
    import bert_models.text.preprocessor
    import bert_models.training.optimizers
    import bert_models.training.schedules  # noqa: F401
