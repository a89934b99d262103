"""How encoders are pretrained, as values: `RECIPES`. Needs neither Keras nor TensorFlow.

Model cards leave much open. `Recipe.stated` says which fields are as a card or paper has them; all others are choices
made here, most of them BERT's.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from bert_models.pretraining.settings import RECIPES as DATA
from bert_models.pretraining.settings import DataSettings

OPTIMIZERS = ("adamw", "lamb")


@dataclass(frozen=True)
class Stage:
    """A part of pretraining on one kind of data.

    Args:
        steps: updates of the weights.
        data: what the examples are.
    """

    steps: int
    data: DataSettings


@dataclass(frozen=True)
class TaskStage:
    """What follows pretraining, on the texts of a task.

    Args:
        labels: "teacher": the probabilities of a larger, fine-tuned model, see `SoftLabels`; "task": the task's own.
        epochs: how often the texts are gone through.
        batch_sizes, learning_rates: what is tried; the best on the development part is kept.
    """

    labels: str
    epochs: int
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides how an encoder is pretrained, given its data. The learning rate warms up and decays in lines.

    Args:
        preset: name of the encoder in `bert_models.PRESETS`.
        stages: one after another, under one curve of the learning rate.
        batch_size: sequences for one update of the weights.
        optimizer: "adamw" or "lamb".
        peak: highest learning rate.
        warmup_steps: updates until it is reached.
        end: learning rate after the last step.
        weight_decay, beta_1, beta_2, epsilon: of the optimizer. Biases and LayerNorms are excluded from decay and,
            with LAMB, from layer adaptation.
        global_clipnorm: largest norm of all gradients together; None: any.
        after: what follows on the texts of a task.
        stated: fields that are as their source has them.
        source: where.

    Raises:
        ValueError: no stages, an unknown optimizer, a batch without examples, or stages with and without pairs.

    >>> RECIPES["lambert"].total_steps, RECIPES["lambert"].next_sentence
    (200000, False)
    """

    preset: str
    stages: tuple[Stage, ...]
    batch_size: int = 256
    optimizer: str = "adamw"
    peak: float = 1e-4
    warmup_steps: int = 10_000
    end: float = 0.0
    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    global_clipnorm: float | None = 1.0
    after: tuple[TaskStage, ...] = ()
    stated: frozenset[str] = frozenset()
    source: str = ""

    def __post_init__(self):
        if not self.stages or min(stage.steps for stage in self.stages) < 1:
            raise ValueError("a recipe needs stages of at least one step each.")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be {' or '.join(OPTIMIZERS)}, got {self.optimizer!r}.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}.")
        if len({stage.data.packing for stage in self.stages}) > 1:
            raise ValueError("all stages must be of one packing: next-sentence prediction cannot come and go.")

    @property
    def total_steps(self) -> int:
        """Updates of the weights in all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def next_sentence(self) -> bool:
        """Whether next-sentence prediction is trained."""
        return self.stages[0].data.packing == "next_sentence"

    def scaled(self, steps: int, **changes: Any) -> "Recipe":
        """The recipe in fewer or more steps, with stages and warm-up in proportion, and other fields as given.

        Args:
            steps: about how many there shall be in all; every stage has one at least.
            changes: e.g. `batch_size=32, peak=3e-4`; the peak is not changed by itself.

        >>> small = RECIPES["bert"].scaled(1000, batch_size=32)
        >>> [stage.steps for stage in small.stages], small.warmup_steps, small.peak
        ([900, 100], 10, 0.0001)
        """
        share = steps / self.total_steps
        stages = tuple(replace(stage, steps=max(1, round(stage.steps * share))) for stage in self.stages)
        fields = {"stages": stages, "warmup_steps": round(self.warmup_steps * share), "stated": frozenset(), **changes}
        return replace(self, **fields)

    def on(self, data: DataSettings, steps: int | None = None) -> "Recipe":
        """The recipe in one stage, on other data, with as many steps as before or as given.

        >>> RECIPES["tn_bert"].on(DataSettings(max_length=64), 100).stages[0].steps
        100
        """
        whole = replace(self, stages=(Stage(self.total_steps, data),), stated=frozenset())
        return whole if steps is None else whole.scaled(steps)

    def training_values(self) -> dict[str, Any]:
        """What decides the course of training, as plain values: these must be the same when it goes on."""
        names = ("batch_size", "optimizer", "peak", "warmup_steps", "end", "weight_decay", "beta_1", "beta_2")
        fields = asdict(self)
        stages = {"stage_steps": [stage.steps for stage in self.stages]}
        return {name: fields[name] for name in (*names, "epsilon", "global_clipnorm")} | stages


# Devlin et al. 2018, arXiv:1810.04805, appendix A.2: 1,000,000 steps of 256 sequences, 128 tokens long for 90 % of them
# and 512 for the rest; Adam with 1e-4, betas 0.9 and 0.999, decay 0.01, 10,000 steps of warm-up, then linear decay.
_BERT_STAGES = (Stage(900_000, DATA["bert"]), Stage(100_000, replace(DATA["bert"], max_length=512)))
_BERT = Recipe(
    preset="bert_en_uncased_L-12_H-768_A-12",
    stages=_BERT_STAGES,
    stated=frozenset({"stages", "batch_size", "peak", "warmup_steps", "end", "weight_decay", "beta_1", "beta_2"}),
    source="Devlin et al. 2018, arXiv:1810.04805, appendix A.2",
)
# Its card states no more than the time, under 8 hours on 64 TPU cores, and the texts, Wikipedia and BooksCorpus.
_TN_BERT = replace(_BERT, preset="tn_bert", stated=frozenset(), source="as BERT; its card does not say")
_LAMBERT = Recipe(
    preset="lambert_en_uncased_L-24_H-1024_A-16",
    stages=(Stage(200_000, DATA["lambert"]),),
    batch_size=8192,
    optimizer="lamb",
    peak=2.5e-3,
    beta_2=0.99,
    global_clipnorm=None,  # the paper of LAMB has none
    stated=frozenset({"stages", "batch_size", "optimizer", "peak", "beta_2"}),
    source="card of lambert_en_uncased_L-24_H-1024_A-16, Pre-training",
)
# The card of the small BERTs states that labels of a larger teacher serve them best. The four epochs and the numbers
# tried in fine-tuning are those of their first release, google-research/bert, README; we distil with the same.
_TRIED = (4, (8, 16, 32, 64, 128), (3e-4, 1e-4, 5e-5, 3e-5))
_SMALL_BERT = replace(
    _BERT,
    preset="small_bert/bert_en_uncased_L-12_H-512_A-8",
    after=(TaskStage("teacher", *_TRIED), TaskStage("task", *_TRIED)),
    stated=frozenset({"after"}),
    source="card of small_bert; Turc et al. 2019, arXiv:1908.08962; pretraining as BERT",
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {"bert": _BERT, "tn_bert": _TN_BERT, "lambert": _LAMBERT, "small_bert": _SMALL_BERT}
)
