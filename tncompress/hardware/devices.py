"""The devices that are known, as plain rows; `tncompress.hardware.device` makes a `Device` of each.

Rates are the vendors' peaks without sparsity, of one chip. Tiles:

- TPU: the sides of a matrix unit, 128 x 128 up to v5p, 256 x 256 in v6e (https://docs.cloud.google.com/tpu/docs/v6e).
  Float32 matmuls are done in bfloat16 unless one asks for more (https://cloud.google.com/tpu/docs/bfloat16).
- GPU: rows of 16 bytes until Turing, of 128 bytes from Ampere on, "Matrix Multiplication Background", NVIDIA
  (https://docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication/). Float32 of Ampere and later
  is TF32 on the tensor cores.
- CPU: vectors of 512 bits.

Overheads (seconds to start an operation) are no vendor's: a kernel launch of a GPU takes some 4 microseconds, an
operation within a compiled program of a TPU about one.
"""

Rows = tuple[tuple[str, float], ...]
Tiles = tuple[tuple[str, int], ...]

_TPU_DOCS = "https://docs.cloud.google.com/tpu/docs/"
_NVIDIA = "https://www.nvidia.com/"

_UNTIL_TURING: Tiles = (("float16", 8), ("float32", 4), ("int8", 16))
_FROM_AMPERE: Tiles = (("bfloat16", 64), ("float16", 64), ("float32", 32), ("int8", 128))


def _tpu(name: str, bfloat16: float, int8: float | None, bandwidth: float, side: int, page: str) -> tuple:
    rates = (("bfloat16", bfloat16), ("float32", bfloat16), *(() if int8 is None else (("int8", int8),)))
    return f"tpu-{name}", "tpu", rates, bandwidth, 1e-6, tuple((dtype, side) for dtype, _ in rates), page


def _gpu(name: str, rates: tuple[float, ...], bandwidth: float, tiles: Tiles, page: str) -> tuple:
    by_dtype = tuple((dtype, rate) for (dtype, _), rate in zip(tiles, rates, strict=True))
    return f"gpu-{name}", "gpu", by_dtype, bandwidth, 4e-6, tiles, page


# name, kind, rates by dtype, bytes per second, overhead, tiles by dtype, source
ROWS: tuple[tuple, ...] = (
    _tpu("v2", 46e12, None, 700e9, 128, "Norrie et al. 2021, https://doi.org/10.1109/MM.2021.3058217"),
    _tpu("v3", 123e12, None, 900e9, 128, f"{_TPU_DOCS}v3"),
    _tpu("v4", 275e12, 275e12, 1200e9, 128, f"{_TPU_DOCS}v4"),
    _tpu("v5e", 197e12, 393e12, 819e9, 128, f"{_TPU_DOCS}v5e"),
    _tpu("v5p", 459e12, 918e12, 2765e9, 128, f"{_TPU_DOCS}v5p"),
    _tpu("v6e", 918e12, 1836e12, 1638e9, 256, f"{_TPU_DOCS}v6e"),
    _gpu("t4", (65e12, 8.1e12, 130e12), 320e9, _UNTIL_TURING, f"{_NVIDIA}en-us/data-center/tesla-t4/"),
    # Volta has no tensor cores for int8.
    _gpu("v100", (125e12, 15.7e12), 900e9, _UNTIL_TURING[:2], f"{_NVIDIA}en-us/data-center/v100/"),
    _gpu("a100", (312e12, 312e12, 156e12, 624e12), 2039e9, _FROM_AMPERE, f"{_NVIDIA}en-us/data-center/a100/"),
    _gpu("l4", (121e12, 121e12, 60e12, 242e12), 300e9, _FROM_AMPERE, f"{_NVIDIA}en-us/data-center/l4/"),
    _gpu("h100", (989e12, 989e12, 494e12, 1979e12), 3350e9, _FROM_AMPERE, f"{_NVIDIA}en-us/data-center/h100/"),
    _gpu("h200", (989e12, 989e12, 494e12, 1979e12), 4800e9, _FROM_AMPERE, f"{_NVIDIA}en-us/data-center/h200/"),
    (
        "cpu",
        "cpu",
        (("float32", 100e9), ("bfloat16", 100e9)),
        20e9,
        5e-6,
        (("float32", 16), ("bfloat16", 32)),
        'one core of 3 GHz with two vector units; no machine in particular: "this" is measured',
    ),
)
