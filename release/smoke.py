"""Does an installed wheel work without the source tree? Run by the Python of a fresh environment, in an empty folder.

    python -I smoke.py README.md start.md

The code blocks of the pages are run as a reader would type them, then their commands, on small models.
"""

import doctest
import re
import subprocess
import sys
import sysconfig
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat dog sat ran"
# What the pages' commands ask for: a BERT, a model of the reader's own, texts, arrays.
MODELS = """
import keras, numpy, bert_models
config = bert_models.BertConfig(vocab_size=10, hidden_size=32, num_heads=2, num_layers=2)
tokenizer = bert_models.load_tokenizer(".")
bert_models.export_huggingface(bert_models.build_encoder(config), "my-bert", tokenizer=tokenizer)
dense = [keras.layers.Dense(width, name=name) for name, width in (("wide", 128), ("back", 32), ("head", 2))]
keras.Sequential([keras.Input((32,)), *dense], name="mine").save("mine.keras")
numpy.save("inputs.npy", numpy.random.default_rng(0).normal(size=(200, 32)).astype("float32"))
"""
COMMANDS = (  # besides those of the pages; each has to end with 0
    "tncompress --version",
    "tncompress count tn_bert",
    "tncompress export mine.keras served --to savedmodel",
    "python -m tncompress forms",
    "python -m bert_models pretrain-data texts.txt --tokenizer vocab.txt --out data --max-length 16 --num-shards 2",
)


def main(pages: list[str]) -> int:
    """The exit code: 0 if all is well."""
    import bert_models
    import tncompress

    for package in (tncompress, bert_models):
        place = Path(package.__file__).resolve()
        if TREE in place.parents and "site-packages" not in place.parts:
            print(f"{package.__name__} was imported from the source tree, {place}; install the wheel and run with -I.")
            return 1
        if not (resources.files(package) / "py.typed").is_file():
            print(f"{package.__name__} has no py.typed.")
            return 1
    if version("tncompress") != tncompress.__version__:
        print(f"The wheel says version {version('tncompress')}, the package {tncompress.__version__}.")
        return 1
    failed = sum(doctest.testfile(page, module_relative=False, optionflags=FLAGS).failed for page in pages)
    return 1 if failed or not all(map(commands_work, pages)) else 0


def commands_work(page: str) -> bool:
    """Whether the commands of a page's console blocks, and `COMMANDS`, end with 0, by scripts of this environment."""
    place, scripts = Path(Path(page).stem), Path(sysconfig.get_path("scripts"))
    place.mkdir()
    (place / "texts.txt").write_text("the cat sat\nthe dog ran\n\nthe cat ran\n" * 50, encoding="utf-8")
    (place / "vocab.txt").write_text("\n".join(WORDS.split()), encoding="utf-8")
    subprocess.run([sys.executable, "-I", "-c", MODELS], cwd=place, check=True)
    for command in (*re.findall(r"^\$ (.*)$", Path(page).read_text("utf-8"), re.MULTILINE), *COMMANDS):
        if "onnx" in command and not find_spec("tf2onnx"):
            print(f"- {command}: needs the extra onnx")
            continue
        program, *arguments = command.split()
        done = subprocess.run([scripts / program, *arguments], cwd=place, capture_output=True, text=True)
        print(f"{done.returncode} {command}")
        if done.returncode:
            print(done.stdout, done.stderr)
            return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
