"""Which tokens are predicted, and what stands in their place: many rows at once, from given random numbers."""

from dataclasses import dataclass

import numpy as np

from bert_models.pretraining.wordpieces import WordPieces

# Devlin et al. 2018, section 3.1: of the tokens that are predicted 80 % become [MASK], 10 % a random token, 10 % stay.
MASKED, RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class MaskRule:
    """How many tokens of a row are predicted.

    Args:
        rate: share of its tokens, special ones counted, as in the original BERT; at least one token.
        predictions: most tokens of a row, and the number of places in the arrays.
        whole_words: all pieces of a word or none.
    """

    rate: float = 0.15
    predictions: int = 20
    whole_words: bool = False


def mask_rows(ids: np.ndarray, pieces: WordPieces, rule: MaskRule, uniform: np.ndarray) -> dict[str, np.ndarray]:
    """Choose tokens for prediction and replace them.

    Words are gone through in a random order. Each is taken if the row's number of predictions, rate times tokens,
    leaves room for it. Special tokens are never taken. Without `whole_words` every token is a word.

    Args:
        ids: int32 [rows, length], with special tokens and padding.
        uniform: random numbers from 0 to below 1, [3, rows, length].

    Returns:
        `input_word_ids`, int32 [rows, length], with the replacements; `masked_lm_positions`, in rising order, and
        `masked_lm_ids`, the tokens that were there, int32 [rows, predictions]; `masked_lm_weights`, float32, 1 for
        predictions and 0 for the places behind them, where the others are 0 too.

    Source: Devlin et al. 2018, arXiv:1810.04805, section 3.1; create_pretraining_data.py of google-research/bert.
    """
    order, kind, other = uniform
    predicted = _choose(ids, pieces, rule, order)
    replaced = np.where(predicted & (kind < MASKED), pieces.mask, ids)
    random_ids = pieces.ordinary[(other * len(pieces.ordinary)).astype(int)]
    replaced = np.where(predicted & (kind >= 1 - RANDOM), random_ids, replaced)
    # Sorted by "not predicted", and otherwise in their order: the predicted places come first.
    width = min(rule.predictions, ids.shape[1])
    places = np.argsort(~predicted, axis=1, kind="stable")[:, :width]
    used = np.take_along_axis(predicted, places, 1)
    arrays = {
        "masked_lm_positions": np.where(used, places, 0).astype("int32"),
        "masked_lm_ids": np.where(used, np.take_along_axis(ids, places, 1), 0).astype("int32"),
        "masked_lm_weights": used.astype("float32"),
    }
    missing = ((0, 0), (0, rule.predictions - width))
    return {"input_word_ids": replaced.astype("int32")} | {key: np.pad(a, missing) for key, a in arrays.items()}


def _choose(ids: np.ndarray, pieces: WordPieces, rule: MaskRule, order: np.ndarray) -> np.ndarray:
    """bool [rows, length], true for the tokens to be predicted."""
    rows, length = ids.shape
    candidates = ~np.isin(ids, [pieces.pad, pieces.cls, pieces.sep])
    tokens = (ids != pieces.pad).sum(1)
    left = np.minimum(rule.predictions, np.maximum(1, np.rint(rule.rate * tokens).astype(int)))
    first = first_of_word(candidates, pieces.continues[ids] & rule.whole_words)
    sizes = np.zeros((rows, length), int)
    np.add.at(sizes, (np.nonzero(candidates)[0], first[candidates]), 1)
    sequence = np.argsort(order, axis=1, kind="stable")
    taken = _take_in_order(np.take_along_axis(sizes, sequence, 1), left)
    chosen = np.zeros((rows, length), bool)
    np.put_along_axis(chosen, sequence, taken, 1)
    return candidates & np.take_along_axis(chosen, first, 1)


def first_of_word(candidates: np.ndarray, continues: np.ndarray) -> np.ndarray:
    """Position of the first piece of each token's word, int [rows, length]; without meaning where no candidate is.

    A row may begin in the middle of a word, and a separator ends one.

    >>> first_of_word(np.array([[False, True, True, False, True, True]]), np.array([[0, 1, 1, 0, 0, 1]], bool)).tolist()
    [[0, 1, 1, 1, 4, 4]]
    """
    after_none = np.pad(~candidates, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    starts = candidates & (~continues | after_none)
    return np.maximum.accumulate(np.where(starts, np.arange(candidates.shape[1]), 0), axis=1)


def _take_in_order(sizes: np.ndarray, left: np.ndarray) -> np.ndarray:
    """What is taken by going through each row from left to right, skipping what no longer fits.

    Args:
        sizes: int [rows, words]; those of size 0 are not taken.
        left: int [rows], what may be taken in all.

    >>> _take_in_order(np.array([[2, 0, 3, 1, 2, 1]]), np.array([4])).astype(int).tolist()
    [[1, 0, 0, 1, 0, 1]]
    """
    taken = np.zeros(sizes.shape, bool)
    while True:
        # All rows at once: each round takes words up to the next one that does not fit, so few rounds are needed.
        fitting = np.where(~taken & (sizes <= left[:, None]), sizes, 0)
        new = (fitting > 0) & (np.cumsum(fitting, axis=1) <= left[:, None])
        if not new.any():
            return taken
        taken |= new
        left = left - np.where(new, sizes, 0).sum(1)
