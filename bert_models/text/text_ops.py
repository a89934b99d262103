"""The text side as TensorFlow ops: strings to words, words to ids, ids to packed rows.

tensorflow_text's own BertTokenizer folds compatibility characters together (an ellipsis becomes three dots) and splits
words at control characters; neither BERT's own code nor `tokenizers` does. So the spelling is done here, op by op, as
`tokenizers` does it, and only looking up the word pieces is left to the library.
"""

from collections.abc import Sequence
from numbers import Integral

import tensorflow as tf

from bert_models.text.vocabulary import MAX_WORD_CHARS, SUFFIX_MARK, Vocabulary

try:
    import tensorflow_text
except ImportError as error:
    raise ImportError(
        "The preprocessor needs tensorflow_text, which cannot be imported here: pip install 'tncompress[hub]'."
    ) from error

# Classes of characters as `tokenizers` has them. Control, format and private characters vanish, but for tab, line feed
# and carriage return; so does the sign that stands for undecodable text. White space in full: RE2's \s is ASCII only.
_DROPPED = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x{9F}\p{Cf}\p{Co}\x{FFFD}]"
_ACCENTS = r"\p{Mn}"
_SPACE = r"[\t\n\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
_PUNCTUATION = r"[!-/:-@\[-`{-~\p{P}]"
# From 2B920 on, as in `tokenizers`; BERT's own code begins at 2B820.
_CHINESE = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}"
    r"\x{2B920}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]"
)
_MAX_BYTES_PER_CHAR = 4
_MAX_SEGMENTS = 2


def words(strings: tf.Tensor, vocabulary: Vocabulary) -> tf.RaggedTensor:
    """Strings [B] -> spelled words, ragged [B, words]; what is not UTF-8 is left out."""
    text = tf.strings.unicode_transcode(strings, "UTF-8", "UTF-8", errors="ignore")
    text = tf.strings.regex_replace(text, _DROPPED, "")
    if vocabulary.strips_accents:
        text = tensorflow_text.normalize_utf8(text, "NFD")
        text = tf.strings.regex_replace(text, _ACCENTS, "")
    if vocabulary.lower_case:
        text = _lower(text)
    kept = f"{_PUNCTUATION}|{_CHINESE}" if vocabulary.split_chinese else _PUNCTUATION
    return tensorflow_text.regex_split(text, f"{_SPACE}|{kept}", kept)


def _lower(text: tf.Tensor) -> tf.Tensor:
    # tf.strings.lower writes a Greek final sigma at the end of words, and a dotless i where the machine's language is
    # Turkish; letter by letter there is neither.
    for capital, small in (("\N{GREEK CAPITAL LETTER SIGMA}", "\N{GREEK SMALL LETTER SIGMA}"), ("I", "i")):
        text = tf.strings.regex_replace(text, capital, small)
    return tf.strings.lower(text, encoding="utf-8")


class TextOps(tf.Module):
    """A vocabulary as a lookup table, and what is done with it."""

    def __init__(self, vocabulary: Vocabulary):
        super().__init__()
        self.vocabulary = vocabulary
        self.special_ids = vocabulary.special_ids
        with tf.init_scope():  # the table outlives the function in whose trace it may be made
            ids = tf.range(len(vocabulary.tokens), dtype=tf.int64)
            initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(vocabulary.tokens), ids)
            # The spare bucket is never used: a word that cannot be spelled is [UNK].
            self._table = tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=1)
        self._pieces = tensorflow_text.WordpieceTokenizer(
            self._table,
            suffix_indicator=SUFFIX_MARK,
            max_bytes_per_word=MAX_WORD_CHARS * _MAX_BYTES_PER_CHAR,
            token_out_type=tf.int32,
        )

    def tokenize(self, strings: tf.Tensor) -> tf.RaggedTensor:
        """Strings [B] -> ids, ragged int32 [B, words, pieces]."""
        found = words(strings, self.vocabulary)
        is_long = tf.strings.length(found.values, "UTF8_CHAR") > MAX_WORD_CHARS
        return self._pieces.tokenize(found.with_values(tf.where(is_long, "[UNK]", found.values)))

    def pack(self, segments: Sequence[tf.RaggedTensor], seq_length: int | tf.Tensor) -> dict[str, tf.Tensor]:
        """Ragged ids [B, pieces] or [B, words, pieces], one or two of them -> the encoder's int32 [B, seq_length]."""
        segments = [_flat(segment) for segment in checked_segments(segments)]
        special = len(segments) + 1
        seq_length = checked_seq_length(seq_length, special)
        segments = tensorflow_text.RoundRobinTrimmer(seq_length - special).trim(segments)
        ends = tf.fill([segments[0].nrows(), 1], self.special_ids["end_of_segment_id"])  # [B, 1]
        starts = tf.fill(tf.shape(ends), self.special_ids["start_of_sequence_id"])
        ids = tf.concat([starts, *(part for segment in segments for part in (segment, ends))], axis=1)  # [B, tokens]
        position = tf.range(seq_length)[tf.newaxis, :]  # [1, seq_length]
        mask = position < _row_lengths(ids)  # [B, seq_length]
        is_second = mask & (position >= _row_lengths(segments[0]) + 2)  # after [CLS] first [SEP]
        padding = self.special_ids["padding_id"]
        return {
            "input_word_ids": ids.to_tensor(padding, shape=tf.stack([-1, seq_length])),
            "input_mask": tf.cast(mask, tf.int32),
            "input_type_ids": tf.cast(is_second, tf.int32),
        }


def _row_lengths(ragged: tf.RaggedTensor) -> tf.Tensor:
    return tf.cast(ragged.row_lengths(), tf.int32)[:, tf.newaxis]  # [B, 1]


def _flat(segment: tf.RaggedTensor) -> tf.RaggedTensor:
    segment = tf.cast(segment, tf.int32)
    return segment.merge_dims(1, 2) if segment.shape.rank == 3 else segment


def checked_segments(segments: Sequence[tf.RaggedTensor]) -> list[tf.RaggedTensor]:
    """Refuse what is not one or two ragged tensors of ids with equally many rows."""
    if not isinstance(segments, list | tuple) or not 1 <= len(segments) <= _MAX_SEGMENTS:
        found = len(segments) if isinstance(segments, list | tuple) else type(segments).__name__
        raise ValueError(f"segments must be a list of 1 or 2 ragged tensors, [first] or [first, second], got {found}.")
    for i, segment in enumerate(segments):
        if not isinstance(segment, tf.RaggedTensor) or segment.shape.rank not in (2, 3) or not segment.dtype.is_integer:
            raise TypeError(
                f"segment {i} must be ragged ids [B, pieces] or [B, words, pieces], as tokenize gives them, got "
                f"{type(segment).__name__} {segment!r:.60}."
            )
    message = "Two segments must have one text for each row, so equally many."
    tf.debugging.assert_equal(segments[0].nrows(), segments[-1].nrows(), message=message)
    return list(segments)


def checked_seq_length(seq_length: int | tf.Tensor, special: int) -> int | tf.Tensor:
    """Refuse rows without room for a token beside the special ones."""
    wanted = f"seq_length must be at least {special + 1}, {special} special tokens and one of the text"
    if tf.is_tensor(seq_length):
        tf.debugging.assert_greater(seq_length, tf.cast(special, seq_length.dtype), message=f"{wanted}.")
        return tf.cast(seq_length, tf.int32)
    if not isinstance(seq_length, Integral) or seq_length <= special:
        raise ValueError(f"{wanted}, got {seq_length!r}.")
    return int(seq_length)
