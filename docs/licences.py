"""The page of licences: `python docs/licences.py` writes docs/licences.md. The tests compare it with pyproject.toml."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"

# By what the packages say of themselves, as SPDX names where there are such.
LICENCES = {
    "ai-edge-litert": "Apache-2.0",
    "apache-beam": "Apache-2.0",
    "click": "BSD-3-Clause",
    "furo": "MIT",
    "hypothesis": "MPL-2.0",
    "jax": "Apache-2.0",
    "keras": "Apache-2.0",
    "keras-hub": "Apache-2.0",
    "libtpu": "Google Cloud Platform Terms of Service, no open-source licence",
    "matplotlib": "PSF-like (matplotlib licence)",
    "myst-parser": "MIT",
    "numpy": "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    "onnx": "Apache-2.0",
    "onnxruntime": "MIT",
    "openvino": "Apache-2.0",
    "opt-einsum": "MIT",
    "pre-commit": "MIT",
    "pyright": "MIT",
    "pytest": "MIT",
    "pytest-xdist": "MIT",
    "rich": "MIT",
    "ruff": "MIT",
    "safetensors": "Apache-2.0",
    "scipy": "BSD-3-Clause",
    "setuptools": "MIT",
    "sphinx": "BSD-2-Clause",
    "sphinx-autoapi": "MIT",
    "tensorflow": "Apache-2.0",
    "tensorflow-hub": "Apache-2.0",
    "tensorflow-text": "Apache-2.0",
    "tensornetwork": "Apache-2.0",
    "tf-keras": "Apache-2.0",
    "tf2onnx": "Apache-2.0",
    "tokenizers": "Apache-2.0",
    "torch": "Apache-2.0 AND BSD-2-Clause AND BSD-3-Clause AND BSL-1.0 AND MIT AND Apache-2.0 WITH LLVM-exception",
    "transformers": "Apache-2.0",
}

# What the packages of a plain `pip install` bring along in turn.
BROUGHT = {
    "Apache-2.0": "absl-py flatbuffers google-pasta grpcio hf-xet huggingface-hub libclang ml-dtypes optree requests",
    "MIT": "anyio charset-normalizer filelock graphviz h11 markdown-it-py mdurl pyyaml six termcolor truststore urllib3"
    " wheel",
    "BSD-3-Clause": "astunparse fsspec gast h5py httpcore2 httpx2 idna protobuf",
    "BSD-2-Clause": "pygments wrapt",
    "Apache-2.0 OR BSD-2-Clause": "packaging",
    "MPL-2.0": "certifi",
    "MPL-2.0 AND MIT": "tqdm",
    "PSF-2.0": "typing-extensions",
    "not stated in the package": "namex",
}


def requirements() -> dict[str, list[str]]:
    """Names of what pyproject.toml asks for, each with the extras that do; "" is a plain install.

    >>> requirements()["click"], requirements()["matplotlib"]
    ([''], ['bench'])
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found: dict[str, list[str]] = {}
    for extra, texts in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for text in texts:
            name = re.match(r"[\w.-]+", text)[0].lower().replace("_", "-")
            if name != "tncompress":
                found.setdefault(name, []).append(extra)
    return found


def page() -> str:
    """The text of docs/licences.md.

    Raises:
        KeyError: if a package that pyproject.toml asks for is not in `LICENCES`.
    """
    asked = requirements()
    rows = [
        f"| `{name}` | {', '.join(filter(None, asked[name])) or 'always'} | {LICENCES[name]} |"
        for name in sorted(asked)
    ]
    brought = [f"| {licence} | {', '.join(names.split())} |" for licence, names in BROUGHT.items()]
    return "\n".join(
        [
            "# Licences",
            "",
            "The package itself is under Apache-2.0. What it asks for, by what those packages say of themselves",
            "(`python docs/licences.py` writes this page):",
            "",
            "| package | with the extra | licence |",
            "|---|---|---|",
            *rows,
            "",
            "A plain `pip install` (Linux, Python 3.11, November 2026) brings along, through these:",
            "",
            "| licence | packages |",
            "|---|---|",
            *brought,
            "",
            "Nothing of them is copied into the wheel. The weights of all-MiniLM-L6-v2, which `make demo` downloads,",
            "are no part of the package either.",
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
