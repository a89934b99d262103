"""What is put in the place of a kernel or a table: plain values that a recipe is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from tncompress.fitting.embedding import Band, checked_bands, num_params
from tncompress.forms import low_rank
from tncompress.forms.low_rank import is_low_rank, skips_identity
from tncompress.limits import shown
from tncompress.network.cost import cost
from tncompress.network.spec import Spec

NARROW = "narrow"  # the form of a dense kernel that lost hidden units
BANDS = "bands"  # of a table of embeddings


@dataclass(frozen=True)
class Choice:
    """What is put in the place of a dense kernel.

    Args:
        form: name of the form that the spec was taken from; None for a spec of no form, "narrow" for a dense kernel
            with fewer hidden units.
        spec: the network.
        pivots: a low-rank spec is stored without its identity block, see `TNPivoted`.
    """

    form: str | None
    spec: Spec
    pivots: bool = False

    @property
    def num_params(self) -> int:
        """Numbers that are stored; with pivots also the place of every output."""
        return self.spec.num_params - (self._rank**2 - self.spec.out_dim if self.pivots else 0)

    def flops(self, vectors: int) -> int:
        """Operations for so many vectors; a multiply-add counts as 2."""
        if self.pivots:  # core by core
            skipped = self._rank**2 if skips_identity(self.spec, vectors) else 0
            return 2 * vectors * (self.spec.num_params - skipped)
        return cost(self.spec, vectors).flops

    @property
    def _rank(self) -> int:
        return self.spec.core_shapes[0][-1]

    @property
    def dims(self) -> tuple[int, int]:
        """Features in and out."""
        return self.spec.in_dim, self.spec.out_dim

    @property
    def equation(self) -> str:
        """Of the network."""
        return self.spec.equation

    @property
    def sizes(self) -> str:
        """Of the network's modes, to be read."""
        return ", ".join(f"{mode}={size}" for mode, size in self.spec.sizes)

    def to_config(self) -> dict:
        """A JSON-able value from which `choice_from_config` makes this choice again."""
        return {"form": self.form, "spec": self.spec.to_config(), **({"pivots": True} if self.pivots else {})}

    @classmethod
    def from_config(cls, config: Mapping) -> "Choice":
        """The choice that `to_config` described.

        Raises:
            ValueError: if it is something else, or the spec is not valid. The form need not be known here.
        """
        if not isinstance(config, Mapping) or set(config) - {"pivots"} != {"form", "spec"}:
            keys = "'form' and 'spec' (and 'pivots', if it has them)"
            raise ValueError(f"A choice has the keys {keys}, got {shown(config)}.")
        form = config["form"]
        if not (form is None or isinstance(form, str)):
            raise ValueError(f"A form is a name or null, got {shown(form)}.")
        choice = cls(form, Spec.from_config(config["spec"]), bool(config.get("pivots")))
        if choice.pivots and not is_low_rank(choice.spec):
            raise ValueError(f"Only low rank has pivots, got {str(choice.spec)!r}.")
        return choice


@dataclass(frozen=True)
class Bands:
    """What is put in the place of a table of embeddings, see `TNEmbedding`.

    Args:
        bands: tokens and rank of each; None: rows that stay whole.
        dim: features.

    >>> Bands(((10, None), (90, 3)), 8).num_params
    474
    """

    bands: tuple[Band, ...]
    dim: int
    form = BANDS
    equation = None

    @property
    def num_params(self) -> int:
        """Numbers that are stored, the place of every token among them."""
        return num_params(self.bands, self.dim) + self.dims[0]

    def flops(self, vectors: int) -> int:
        """Operations for so many tokens: every one is looked up in every band."""
        return 2 * vectors * sum(rank * self.dim for _, rank in self.bands if rank is not None)

    @property
    def dims(self) -> tuple[int, int]:
        """Tokens and features."""
        return sum(tokens for tokens, _ in self.bands), self.dim

    @property
    def sizes(self) -> str:
        """Of the bands, to be read."""
        return ", ".join(f"{tokens}x{rank or self.dim}" for tokens, rank in self.bands)

    def to_config(self) -> dict:
        """A JSON-able value from which `choice_from_config` makes these bands again."""
        return {"form": BANDS, "bands": [list(band) for band in self.bands], "dim": self.dim}

    @classmethod
    def from_config(cls, config: Mapping) -> "Bands":
        """The bands that `to_config` described.

        Raises:
            ValueError: if it is something else.
        """
        if set(config) != {"form", "bands", "dim"} or not isinstance(config["dim"], int):
            raise ValueError(f"Bands have the keys 'form', 'bands' and 'dim' (a number), got {shown(config)}.")
        pairs = config["bands"]
        if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
            raise ValueError(f"Bands are pairs of tokens and rank, got {shown(pairs)}.")
        if not all(isinstance(value, int | None) for pair in pairs for value in pair):
            raise ValueError(f"Bands are pairs of whole numbers, or of one and null, got {shown(pairs)}.")
        tokens = sum(rows or 0 for rows, _ in pairs)
        return cls(checked_bands(pairs, tokens, config["dim"]), config["dim"])


def has_components(choice: Choice | Bands | None) -> bool:
    """Whether it is low rank, so that it can be cut shorter."""
    return choice is not None and choice.form in (low_rank.FORM.name, BANDS)


def choice_from_config(config: Mapping) -> Choice | Bands:
    """What `to_config` of either described.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(config, Mapping) and config.get("form") == BANDS:
        return Bands.from_config(config)
    return Choice.from_config(config)
