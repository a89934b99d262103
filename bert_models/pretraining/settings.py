"""`DataSettings`: everything that decides what the examples are, as one value. Needs neither Keras nor TensorFlow."""

import math
from dataclasses import asdict, dataclass

from bert_models.pretraining.sentences import LAYOUTS

PACKINGS = ("next_sentence", "full_sentences")
MASKINGS = ("static", "dynamic")
# "wanted" and test of each number, by its name.
_RANGES = {
    "max_length": ("an integer from 8", lambda value: isinstance(value, int) and value >= 8),
    "max_predictions": ("an integer from 1", lambda value: isinstance(value, int) and value >= 1),
    "duplicates": ("an integer from 1", lambda value: isinstance(value, int) and value >= 1),
    "num_shards": ("an integer from 1", lambda value: isinstance(value, int) and value >= 1),
    "block_bytes": ("an integer from 1", lambda value: isinstance(value, int) and value >= 1),
    "seed": ("an integer", lambda value: isinstance(value, int)),
    "mask_rate": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "short_rate": ("from 0 to 1", lambda value: 0 <= value <= 1),
}


@dataclass(frozen=True)
class DataSettings:
    """What the examples are. The same settings, files and vocabulary always make the same shards.

    Args:
        packing: "next_sentence", the pairs of the original BERT, or "full_sentences", RoBERTa's rows of whole
            sentences that run on from one document to the next.
        layout: how the text says where documents and sentences end, a name of `sentences.LAYOUTS`.
        max_length: tokens in a row, special tokens included.
        masking: "static": masks are in the records; "dynamic": `reading.dataset` draws new ones whenever it is read.
        mask_rate: share of the tokens of a row that are predicted.
        max_predictions: most tokens that are predicted in a row; None: as many as the rate asks for in a full row.
        whole_words: mask all pieces of a word or none.
        duplicates: how often the text is gone through, with other masks and other pairs each time.
        short_rate: share of documents that are cut into shorter pairs, as in the original BERT.
        fill_rows: with full_sentences, cut the last sentence of a row where the row ends, so that no place is lost.
        seed: for everything that is drawn.
        num_shards: how many files are written.
        block_bytes: about how much text is handled together. Rows do not run on over blocks, and the random second
            halves of pairs come from the same block.

    Raises:
        ValueError: a value out of range, or a combination that makes no sense.

    >>> DataSettings("full_sentences", max_length=512).predictions
    77
    >>> DataSettings("next_sentences")
    Traceback (most recent call last):
    ValueError: packing must be next_sentence or full_sentences, got 'next_sentences'.
    """

    packing: str = "next_sentence"
    layout: str = "sentences"
    max_length: int = 128
    masking: str = "static"
    mask_rate: float = 0.15
    max_predictions: int | None = None
    whole_words: bool = False
    duplicates: int = 10
    short_rate: float = 0.1
    fill_rows: bool = False
    seed: int = 0
    num_shards: int = 16
    block_bytes: int = 1_000_000

    def __post_init__(self):
        for name, known in (("packing", PACKINGS), ("layout", tuple(LAYOUTS)), ("masking", MASKINGS)):
            if getattr(self, name) not in known:
                *most, last = known
                raise ValueError(f"{name} must be {', '.join(most)} or {last}, got {getattr(self, name)!r}.")
        for name, (wanted, fits) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name == "max_predictions":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
                raise ValueError(f"{name} must be {wanted}, got {value!r}.")
        if self.packing == "full_sentences" and self.masking == "dynamic" and self.duplicates > 1:
            raise ValueError(
                f"duplicates={self.duplicates} of full sentences without masks would all be the same: "
                "with masking='dynamic' write duplicates=1."
            )
        if self.fill_rows and self.packing != "full_sentences":
            raise ValueError(
                "fill_rows needs packing='full_sentences': pairs of sentences are cut to fit by themselves."
            )

    @property
    def predictions(self) -> int:
        """Places for predicted tokens in a record."""
        return self.max_predictions or math.ceil(self.mask_rate * self.max_length)

    def to_dict(self) -> dict:
        """As plain values; `DataSettings(**values)` is the way back."""
        return asdict(self)


# Devlin et al. 2018 pretrained on 128 tokens for nine tenths of the steps; create_pretraining_data's dupe_factor is 10.
# Lambert: RoBERTa's full sentences (Liu et al. 2019, arXiv:1907.11692, section 4.2), statically masked 100 times.
RECIPES = {
    "bert": DataSettings(),
    "lambert": DataSettings("full_sentences", max_length=512, duplicates=100),
}
