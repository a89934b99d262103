"""What is known of every kernel and table that may be replaced, by path."""

from collections.abc import Iterator, Mapping, Sequence

import keras

from tncompress.conversion.dense_maps import kernel_of
from tncompress.conversion.sites import Site
from tncompress.conversion.structures import as_floats
from tncompress.conversion.walking import locate
from tncompress.fitting.frequencies import TokenCounts
from tncompress.fitting.moments import Moments
from tncompress.fitting.place import Place, Table


class Places(Mapping[str, Place | Table]):
    """Kernels and tables, and what is known of them, by path.

    Each is made when it is asked for, so that moments of large models need not be held all at once.

    Args:
        model: that has them.
        sites: which of them.
        moments: by path; none for those that were not calibrated.
    """

    def __init__(self, model: keras.Model, sites: Sequence[Site], moments: Mapping[str, Moments | TokenCounts]):
        self._layers = locate(model, [site.path for site in sites])
        self._sites, self._moments = {site.path: site for site in sites}, moments

    def __getitem__(self, path: str) -> Place | Table:
        site, layer, seen = self._sites[path], self._layers[path], self._moments.get(path)
        energy = getattr(self._moments, "energy", None)
        gradients = None if seen is None else seen.gradients
        scale = 1.0 if gradients is None or not energy else gradients.count / energy
        if isinstance(seen, TokenCounts):
            table = as_floats(layer.embeddings)
            return Table(table, seen.counts, gradients, scale, seen.importance, seen.uses)
        held_out = getattr(self._moments, "held_out", {}).get(path)
        return Place(kernel_of(layer), seen, site.use_bias, scale, held_out)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def dims(self, path: str) -> tuple[int, int]:
        """Features in and out; of a table tokens and features."""
        return self._sites[path].in_dim, self._sites[path].out_dim

    def size(self, path: str) -> int:
        """Parameters now."""
        return self._sites[path].num_params

    def is_table(self, path: str) -> bool:
        """Whether it is of embeddings."""
        return self._sites[path].is_table
