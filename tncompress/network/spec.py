"""`Spec`: a compressed linear map as one einsum over named modes, plus the sizes of the modes.

Structure without weights. Planner, cost, fitting, layers and saved files are functions of this value.
"""

import keyword
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from tncompress.limits import MOST_SHOWN, shown

Modes = tuple[str, ...]

# Far more than any network that pays off, so that whatever a file says, checking and planning take no time to speak of.
MOST_TEXT = 10_000  # characters of an equation
MOST_MODES, MOST_CORES = 200, 50
MOST_SIZE = 2**31 - 1  # of a mode: an axis of no tensor is longer

_MODE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class Spec:
    """A linear map `x [batch, in_dim] -> y [batch, out_dim]` as a network of cores.

    The text form is the constructor, the printed form and the file format::

        "i, i c d, d e -> c e"      x, then the cores -> y

    Modes of the first term are those of x, row-major; modes right of the arrow are those of y, row-major.
    Roles are read off: *input* mode, *output* mode, *block* mode (in both), *bond* (only in cores; its size is
    the rank), *hyper-edge* (a bond of three or more cores).

    Args:
        inputs: modes of x.
        cores: modes of each weight tensor.
        outputs: modes of y.
        sizes: (mode, size) pairs; kept sorted, so that equal maps are equal values.

    Raises:
        ValueError: if a mode has no size, appears once only or twice in one term, or a size is not used; or there are
            more than 50 cores or 200 modes.

    >>> spec = Spec.parse("i, i r, r o -> o", i=768, r=64, o=3072)
    >>> spec.in_dim, spec.out_dim, spec.num_params
    (768, 3072, 245760)
    """

    inputs: Modes
    cores: tuple[Modes, ...]
    outputs: Modes
    sizes: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(sorted((str(m), s) for m, s in self.sizes)))
        self._check()

    # -- text and configuration ------------------------------------------------------------------

    @classmethod
    def parse(cls, equation: str, sizes: Mapping[str, int] | None = None, /, **more_sizes: int) -> "Spec":
        """The spec of an equation such as `"i, i r, r o -> o"` with the size of every mode.

        >>> Spec.parse("i, i o -> o", i=3, o=4)
        Spec.parse('i, i o -> o', i=3, o=4)
        """
        if not isinstance(equation, str) or len(equation) > MOST_TEXT:
            raise ValueError(f"A spec is a text of at most {MOST_TEXT:,} characters, got {shown(equation)}.")
        sides = equation.split("->")
        if len(sides) != 2:
            raise ValueError(f"A spec is written 'x modes, core modes, ... -> y modes', got {shown(equation)}.")
        terms = [tuple(term.split()) for term in sides[0].split(",")]
        for mode in (m for term in (*terms, tuple(sides[1].split())) for m in term):
            if not _MODE.match(mode):
                raise ValueError(
                    f"{shown(mode)} in {shown(equation)} is not a mode name (a letter, then letters or digits)."
                )
        all_sizes = {**(sizes or {}), **more_sizes}
        return cls(terms[0], tuple(terms[1:]), tuple(sides[1].split()), tuple(all_sizes.items()))

    @property
    def equation(self) -> str:
        """The text form without sizes, e.g. `"i, i r, r o -> o"`."""
        terms = ", ".join(" ".join(term) for term in (self.inputs, *self.cores))
        return f"{terms} -> {' '.join(self.outputs)}"

    def to_config(self) -> dict:
        """A JSON-able value from which `from_config` makes this spec again."""
        return {"equation": self.equation, "sizes": dict(self.sizes)}

    @classmethod
    def from_config(cls, config: Mapping) -> "Spec":
        """The spec that `to_config` described.

        >>> spec = Spec.parse("i, i o -> o", i=3, o=4)
        >>> Spec.from_config(spec.to_config()) == spec
        True
        """
        if not isinstance(config, Mapping) or set(config) != {"equation", "sizes"}:
            raise ValueError(f"A spec's config has the keys 'equation' and 'sizes', got {shown(config)}.")
        if not isinstance(config["equation"], str) or not isinstance(config["sizes"], Mapping):
            raise ValueError(f"A spec's config has a text and a mapping of sizes, got {shown(config)}.")
        return cls.parse(config["equation"], config["sizes"])

    def __str__(self) -> str:
        return f"{self.equation}  ({', '.join(f'{m}={s}' for m, s in self.sizes)})"

    def __repr__(self) -> str:
        if any(keyword.iskeyword(m) for m, _ in self.sizes):  # `in=3` is no Python
            return f"Spec.parse({self.equation!r}, {self.size})"
        return f"Spec.parse({self.equation!r}, {', '.join(f'{m}={s}' for m, s in self.sizes)})"

    # -- sizes -----------------------------------------------------------------------------------

    @cached_property
    def size(self) -> dict[str, int]:
        """Size of every mode."""
        return dict(self.sizes)

    def shape(self, modes: Iterable[str]) -> tuple[int, ...]:
        """Sizes of the given modes, in order."""
        return tuple(self.size[m] for m in modes)

    @property
    def in_dim(self) -> int:
        """Number of input features."""
        return math.prod(self.shape(self.inputs))

    @property
    def out_dim(self) -> int:
        """Number of output features."""
        return math.prod(self.shape(self.outputs))

    @property
    def core_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of every core."""
        return tuple(self.shape(core) for core in self.cores)

    @property
    def num_params(self) -> int:
        """Number of weights in all cores; a bias is not part of a spec."""
        return sum(math.prod(shape) for shape in self.core_shapes)

    # -- roles -----------------------------------------------------------------------------------

    @property
    def block_modes(self) -> Modes:
        """Modes of both x and y: the map is block-diagonal in them."""
        return tuple(m for m in self.inputs if m in self.outputs)

    @property
    def bonds(self) -> Modes:
        """Modes of cores only, in order of appearance; the size of a bond is a rank."""
        open_modes = {*self.inputs, *self.outputs}
        return tuple(dict.fromkeys(m for core in self.cores for m in core if m not in open_modes))

    @property
    def T(self) -> "Spec":  # noqa: N802 - the field's name for a transpose
        """The transposed map: inputs and outputs exchanged, the same cores.

        >>> Spec.parse("i, i r, r o -> o", i=3, r=2, o=4).T.equation
        'o, i r, r o -> i'
        """
        return Spec(self.outputs, self.cores, self.inputs, self.sizes)

    # -- checks ----------------------------------------------------------------------------------

    def _check(self) -> None:
        if problem := self._too_large() or next(self._problems(), None):
            raise ValueError(problem if problem.startswith("A spec") else f"{shown(self.equation)}{problem}")

    def _too_large(self) -> str | None:
        terms = (self.inputs, *self.cores, self.outputs)
        modes = max(len({m for term in terms for m in term}), len(self.sizes), *map(len, terms))
        if len(self.cores) > MOST_CORES or modes > MOST_MODES:
            return f"A spec has at most {MOST_CORES} cores and {MOST_MODES} modes, got {len(self.cores)} and {modes}."
        return None

    def _problems(self) -> Iterator[str]:
        """What is wrong, as the rest of a sentence that begins with the equation."""
        terms = (self.inputs, *self.cores, self.outputs)
        uses, sizes = Counter(m for term in terms for m in term), dict(self.sizes)
        if not self.cores:
            yield " has no core: write the modes of x, then of every core, then '-> y modes'."
        for term in terms:
            if not term:
                yield " has an empty term: every tensor needs at least one mode."
            for mode, count in Counter(term).items():
                if count > 1:
                    yield f" repeats mode {mode!r} in the term '{' '.join(term)}'."
        if len(sizes) != len(self.sizes):
            yield f": a mode has two sizes in {shown(self.sizes)}."
        for mode, count in uses.items():
            if mode not in sizes:
                yield f": mode {mode!r} has no size; give {mode}=<size> (modes are separated by spaces)."
            if count == 1:
                yield f": mode {mode!r} appears once only; join it to another term."
        for mode, size in self.sizes:
            if mode not in uses:
                yield f" does not use the size {mode[:MOST_SHOWN]}={shown(size)}."
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                yield f": the size of {mode!r} must be a positive int, got {shown(size)}."
            elif size > MOST_SIZE:
                yield f": the size of {mode!r} must be at most {MOST_SIZE:,}, got {shown(size)}."
