"""The drawings of docs/forms: `python docs/drawings.py` writes them anew. The tests compare them with the code."""

from pathlib import Path

from tncompress import Spec, plan
from tncompress.forms import (
    block_diagonal,
    block_tt,
    butterfly,
    cp,
    expand_condense,
    kronecker,
    low_rank,
    monarch,
    tensor_ring,
    tt_matrix,
    tucker,
)
from tncompress.reporting.drawing import svg

FOLDER = Path(__file__).parent / "forms"

# Every form for a kernel of 768 x 3072, the feed-forward part of BERT-base; the pages have the same specs.
DRAWN: dict[str, Spec] = {
    "block_diagonal": block_diagonal.spec(768, 3072, blocks=2),
    "block_tt": block_tt.spec((384, 2), (2, 1536), rank=153),
    "butterfly": butterfly.spec((4, 3, 64), (3, 64, 16)),
    "cp": cp.spec((24, 32), (48, 64), rank=1404),
    "expand_condense": expand_condense.expand(768, 3072, blocks=6, bond=128),
    "kronecker": kronecker.spec((24, 32), (64, 48), rank=76),
    "low_rank": low_rank.spec(768, 3072, rank=307),
    "monarch": monarch.spec(768, 3072, in_blocks=64, out_blocks=48),
    "tensor_ring": tensor_ring.spec((8, 8, 12), (16, 16, 12), ranks=24),
    "tt_matrix": tt_matrix.spec((8, 8, 12), (12, 16, 16), ranks=40),
    "tucker": tucker.spec((24, 32), (48, 64), ranks=(20, 27, 40, 54)),
}


def main() -> None:
    """Write them all."""
    for name, spec in DRAWN.items():
        (FOLDER / f"{name}.svg").write_text(svg(spec, plan(spec)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
