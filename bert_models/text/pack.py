"""How segments share one row: `[CLS] first [SEP] second [SEP]`, cut in rounds."""

from collections.abc import Sequence


def kept_lengths(lengths: Sequence[int], budget: int) -> list[int]:
    """How many tokens of each segment stay if together they may have `budget` tokens.

    The segments take a token each in turn, the first one first, until the budget is spent. For two segments that is
    what BERT's own code does from the other end: drop the last token of the longer one, of equal ones the second's.

    Args:
        lengths: tokens in each segment of a row.
        budget: tokens of the row, without [CLS] and [SEP].

    Source: `round_robin` of TF Hub's bert_en_uncased_preprocess/3; `_truncate_seq_pair` of google-research/bert.

    >>> kept_lengths([4, 4], budget=7), kept_lengths([9, 2], budget=7), kept_lengths([1, 2], budget=7)
    ([4, 3], [5, 2], [1, 2])
    """
    kept = [0] * len(lengths)
    left = min(max(budget, 0), sum(lengths))
    while left:
        open_segments = [i for i, length in enumerate(lengths) if kept[i] < length]
        # Whole rounds at once: as many as the shortest open segment and the budget allow.
        rounds = min(left // len(open_segments), *(lengths[i] - kept[i] for i in open_segments))
        taking = open_segments if rounds else open_segments[:left]
        for i in taking:
            kept[i] += max(rounds, 1)
        left -= len(taking) * max(rounds, 1)
    return kept
