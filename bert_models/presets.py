"""The named encoders, as data: a `BertConfig` each, with what its card says beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from bert_models.config import BertConfig
from bert_models.kinds import ExpandCondense, TalkingHeads
from tncompress.naming import nearest

MINI_LAYERS, MINI_WIDTHS = (2, 4, 6, 8, 10, 12), (128, 256, 512, 768)


@dataclass(frozen=True, slots=True)
class Preset:
    """A named architecture.

    Attributes:
        name: as on the hub, without publisher and version.
        settings: fields of `BertConfig` that differ from BERT-base.
        card: address of the model card (or of the collection that lists the model).
        papers: arXiv numbers of the method.
        facts: what the card states, in its own figures.
    """

    name: str
    settings: Mapping[str, Any]
    card: str
    papers: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> BertConfig:
        """The architecture."""
        return self.config_with()

    def config_with(self, **overrides: Any) -> BertConfig:
        """The architecture with other values for some fields.

        Raises:
            ValueError: a name that is not a field of `BertConfig`.

        >>> PRESETS["tn_bert"].config_with(num_layers=2).num_layers
        2
        """
        known = [item.name for item in fields(BertConfig)]
        if unknown := sorted(set(overrides) - set(known)):
            raise ValueError(f"BertConfig has no {', '.join(map(repr, unknown))}; its fields are {', '.join(known)}.")
        return BertConfig(**{**self.settings, **overrides})


def preset(name: str) -> Preset:
    """The preset of that name; the hub's address and a publisher before it and a version after it are ignored.

    Raises:
        ValueError: there is none; the nearest names are given.

    >>> preset("google/tn_bert/1").name
    'tn_bert'
    >>> preset("tnbert")
    Traceback (most recent call last):
    ValueError: no preset is called 'tnbert'; the nearest is tn_bert. ...
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a preset must be a string, got {type(name).__name__}; see bert_models.PRESETS.")
    plain = name.removeprefix("https://tfhub.dev/").removeprefix("tensorflow/").removeprefix("google/")
    head, _, version = plain.rpartition("/")
    plain = head if head and version.isdigit() else plain
    if plain in PRESETS:
        return PRESETS[plain]
    parts = [key for key in PRESETS if plain.lower() in key.lower()]  # "lambert" is far from its full name
    near = list(dict.fromkeys(parts + nearest(plain, PRESETS, count=3, cutoff=0.5)))[:3]
    hint = f"the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}" if near else "none is near it"
    raise ValueError(f"no preset is called {name!r}; {hint}. bert_models.PRESETS holds all {len(PRESETS)}.")


def _bert(layers: int, hidden: int) -> dict[str, Any]:
    # The activation of the first BERT, hence of every checkpoint on the hub, is the tanh approximation.
    return {"num_layers": layers, "hidden_size": hidden, "num_heads": hidden // 64, "activation": "gelu_tanh"}


def _small(layers: int, hidden: int) -> Preset:
    name = f"bert_en_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}"
    return Preset(
        f"small_bert/{name}",
        _bert(layers, hidden),
        f"https://tfhub.dev/tensorflow/small_bert/{name}/1",
        ("1908.08962",),
        {"recipe": "pretrained, then distilled from a larger teacher, then fine-tuned"},
    )


_ALL = (
    Preset(
        "tn_bert",
        {**_bert(12, 768), "feed_forward": ExpandCondense(block_size=128, multiplier=4), "output_bias": False},
        "https://tfhub.dev/google/tn_bert/1",
        ("1905.01330",),
        {
            "parameters": "69M",
            "fewer parameters than BERT-base": "37%",
            "faster inference than BERT-base on TPUs": "22%",
            "pretraining": "under 8 hours on 8x8 TPUs",
            "GLUE": "77.3, BERT-base 78.1",
        },
    ),
    Preset(
        "talkheads_ggelu_bert_en_base",
        {**_bert(12, 768), "attention": TalkingHeads(), "gated": True},
        "https://tfhub.dev/tensorflow/talkheads_ggelu_bert_en_base/2",
        ("2003.02436", "2002.05202"),
        {"heads": "12 for each of h, h_k, h_v", "hidden units of the feed-forward part": "4H, gated"},
    ),
    Preset(
        "lambert_en_uncased_L-24_H-1024_A-16",
        _bert(24, 1024),
        "https://tfhub.dev/tensorflow/lambert_en_uncased_L-24_H-1024_A-16/2",
        ("1904.00962", "1907.11692"),
        {
            "optimizer": "LAMB, 200,000 steps, peak 2.5e-3, beta_2 0.99, batch 8192",
            "data": "100 copies with other masks, FULL-SENTENCES up to 512 tokens",
            "next-sentence prediction": "none, so nothing in pretraining trained the pooler",
            "masked-LM accuracy": "77.4%, BERT-large 74.2%",
            "SQuAD v1.1 F1": "94.1, BERT-large 92.5",
            "SQuAD v2.0 F1": "88.0, BERT-large 84.5",
            "MNLI-matched accuracy": "88.7%, BERT-large 86.8%",
        },
    ),
    Preset(
        "bert_en_uncased_L-12_H-768_A-12",
        _bert(12, 768),
        "https://tfhub.dev/tensorflow/bert_en_uncased_L-12_H-768_A-12/3",
        ("1810.04805",),
    ),
    Preset(
        "bert_en_uncased_L-24_H-1024_A-16",
        _bert(24, 1024),
        "https://tfhub.dev/tensorflow/bert_en_uncased_L-24_H-1024_A-16/3",
        ("1810.04805",),
    ),
    *(_small(layers, hidden) for layers in MINI_LAYERS for hidden in MINI_WIDTHS),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({item.name: item for item in _ALL})
