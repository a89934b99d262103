"""Lines of text in, documents of sentences out."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How a text file says where its parts end.

    Args:
        new_document: regular expression; a line that is one (without white space around it) begins a document.
            None: the file is one document.
        split: lines are paragraphs, to be split into sentences.
        wrapped: a paragraph runs over several lines, up to an empty one.
    """

    new_document: str | None = ""
    split: bool = True
    wrapped: bool = False


LAYOUTS = {
    "sentences": Layout(split=False),  # a sentence in each line, an empty line between documents: BERT's format
    "paragraphs": Layout(),  # a paragraph in each line, an empty line between documents
    "prose": Layout(new_document=None, wrapped=True),  # an empty line between paragraphs, one document in a file
    "wikitext": Layout(new_document="= [^=].* ="),  # a paragraph in each line, documents begin with "= Title ="
}

# Their full stop ends no sentence. Titles and the like stand before a capital, so a capital does not tell.
ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof rev hon st sr jr gen col capt lt sgt maj cmdr adm gov sen rep pres messrs mme mlle
    vs etc al cf ca approx no nos vol vols pp ed eds fig figs eq sec ch art dept univ inc ltd co corp bros
    jan feb mar apr jun jul aug sep sept oct nov dec mt ft
    """.split()  # noqa: SIM905
)
_OPENING = "\"'“‘«([{"  # noqa: RUF001
# After a full stop, a mark or an ellipsis white space has to follow; after a Chinese or Japanese one nothing has to.
_END = re.compile(r"""[.!?…]+["'”’»)\]}]*(?=\s)|[。！？]+[”’」』）]*""")  # noqa: RUF001


def decoded(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Text of the lines of a file.

    Args:
        lines: the file, opened for reading bytes.
        name: of the file, for the message.

    Raises:
        ValueError: it is not UTF-8; says at which byte.

    >>> list(decoded([b"one\\n", b"tw\\xff\\n"], "corpus.txt"))
    Traceback (most recent call last):
    ValueError: corpus.txt is not UTF-8 text: byte 6 (0xff), in line 2, cannot be read. ...
    """
    place = 0
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            at = place + error.start
            raise ValueError(
                f"{name} is not UTF-8 text: byte {at} (0x{line[error.start]:02x}), in line {number}, cannot be read. "
                "Unpack a packed file; convert other encodings, as with `iconv -f latin1 -t utf-8`."
            ) from None
        yield text.removeprefix("\ufeff") if number == 1 else text
        place += len(line)


def documents(lines: Iterable[str], layout: Layout) -> Iterator[list[str]]:
    """The documents of a file, each a list of its paragraphs (or its sentences, where these have lines), never empty.

    >>> list(documents(["One.", "Two. Three.", "", "", "Four."], LAYOUTS["paragraphs"]))
    [['One.', 'Two. Three.'], ['Four.']]
    >>> list(documents(["A long", "line.", "", "Four."], LAYOUTS["prose"]))
    [['A long line.', 'Four.']]
    """
    begins = None if layout.new_document is None else re.compile(layout.new_document)
    document: list[str] = []
    runs_on = False
    for line in map(str.strip, lines):
        if begins and begins.fullmatch(line) and document:
            yield document
            document = []
        if line and layout.wrapped and runs_on:
            document[-1] += f" {line}"
        elif line:
            document.append(line)
        runs_on = bool(line)
    if document:
        yield document


def sentences(document: Iterable[str], layout: Layout) -> list[str]:
    """The sentences of a document that `documents` gave."""
    return [s for paragraph in document for s in split(paragraph)] if layout.split else list(document)


def split(paragraph: str) -> list[str]:
    """Sentences of a paragraph, by rules: they end with `.`, `!` or `?`, unless a small letter comes next, or the full
    stop belongs to an abbreviation, an initial or something with full stops inside. Quotation marks stay with the
    sentence that they close.

    >>> split('Dr. J. Smith of the U.S. Navy paid 3.50 dollars. "Why?" he asked. (No answer.) So it goes...')
    ['Dr. J. Smith of the U.S. Navy paid 3.50 dollars.', '"Why?" he asked.', '(No answer.)', 'So it goes...']
    """
    found, start = [], 0
    for end in _END.finditer(paragraph):
        if _ends(paragraph, start, end):
            found.append(paragraph[start : end.end()].strip())
            start = end.end()
    return [sentence for sentence in (*found, paragraph[start:].strip()) if sentence]


def _ends(paragraph: str, start: int, end: re.Match) -> bool:
    if end[0][0] in "。！？":  # noqa: RUF001
        return True
    after = paragraph[end.end() : end.end() + 8].lstrip().lstrip(_OPENING).lstrip()
    if after[:1].islower():
        return False
    if end[0] != ".":
        return True
    # Not further back than any abbreviation could begin, or long paragraphs would cost their length each time.
    before = paragraph[max(start, end.start() - 20) : end.start()]
    if not before or before[-1].isspace():  # tokenised text, " . "
        return True
    word = before.split()[-1].lstrip(_OPENING)
    is_initial = len(word) == 1 and word.isalpha() and word.isupper()
    return not (is_initial or word.lower() in ABBREVIATIONS or "." in word)
