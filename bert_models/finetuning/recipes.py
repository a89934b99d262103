"""How to fine-tune, as data: `RECIPES` holds what the papers and cards say."""

from dataclasses import dataclass
from typing import Any

OPTIMIZERS = ("adamw", "lamb")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Optimizer, rate and length of fine-tuning. `dataclasses.replace` makes others of it.

    Args:
        optimizer: "adamw" or "lamb", see docs/training.md. Neither decays biases and LayerNorms, nor does LAMB adapt
            their steps.
        learning_rate: the peak.
        epochs: how often the training examples are seen.
        batch_size: examples, or windows of SQuAD, in a step.
        warmup: fraction of the steps until the peak; then the rate falls in a line to 0.
        weight_decay: of what is decayed.
        clip: largest norm of all gradients together; None: as they are.
        dropout: of what goes into the head; the encoder has its own.
        source: where the numbers are from, and which of them are not.

    Raises:
        ValueError: a number out of range, or no such optimizer.

    >>> Recipe("sgd", 1e-3)
    Traceback (most recent call last):
    ValueError: optimizer must be adamw or lamb, got 'sgd'.
    """

    optimizer: str = "adamw"
    learning_rate: float = 2e-5
    epochs: int = 3
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float | None = 1.0
    dropout: float = 0.1
    source: str = ""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be {' or '.join(OPTIMIZERS)}, got {self.optimizer!r}.")
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, got {value!r}.")
        for name, low, high in (
            ("learning_rate", 0, 1),
            ("warmup", -1, 1),
            ("dropout", -1, 1),
            ("weight_decay", -1, 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low < value < high or value < 0:
                raise ValueError(f"{name} must be from 0 to less than 1{', and not 0' * (low == 0)}, got {value!r}.")


RECIPES = {
    "bert": Recipe(source="Devlin et al. 2018, arXiv:1810.04805, section 4.1 (rates 2e-5 to 5e-5) and appendix A.2"),
    "bert_squad": Recipe(
        learning_rate=5e-5, epochs=3, source="Devlin et al. 2018, section 4.2; version 2.0: 2 epochs, batches of 48"
    ),
    "lambert": Recipe(
        "lamb",
        3e-5,
        clip=None,
        source="card of Lambert, GLUE: LAMB, 3e-5, decay 0.01, exclusions; epochs, batch and warm-up are BERT's",
    ),
    "lambert_squad": Recipe(
        learning_rate=3e-5, epochs=2, source="card of Lambert, SQuAD: AdamW, 3e-5; epochs, batch and warm-up are BERT's"
    ),
    "small_bert": Recipe(
        learning_rate=1e-4,
        epochs=4,
        source="google-research/bert: the best of 3e-4, 1e-4, 5e-5, 3e-5, and of batches of 8 to 128; 4 epochs",
    ),
}


def recipe_of(recipe: "str | Recipe") -> Recipe:
    """The recipe of this name; a recipe is given back.

    Raises:
        ValueError: no such recipe.

    >>> recipe_of("lambert").optimizer
    'lamb'
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; it must be a Recipe, or one of {', '.join(RECIPES)}.")
    return RECIPES[recipe]


def optimizer_of(recipe: Recipe, steps: int) -> Any:
    """A new optimizer for so many steps.

    >>> type(optimizer_of(RECIPES["lambert"], 100)).__name__
    'LAMB'
    """
    from bert_models.training.optimizers import LAMB, AdamW
    from bert_models.training.schedules import WarmupDecay

    kind = LAMB if recipe.optimizer == "lamb" else AdamW
    rate = WarmupDecay(recipe.learning_rate, steps, min(round(recipe.warmup * steps), steps - 1))
    # The 0.99 of LAMB's default is Lambert's for pretraining.
    return kind(rate, weight_decay=recipe.weight_decay, beta_2=0.999, global_clipnorm=recipe.clip)
