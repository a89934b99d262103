"""Print the oldest versions that pyproject.toml allows, as constraints for pip: `make test-oldest` installs them."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
WITH = ("pytest", "hypothesis")  # of the extra "test", what the chosen tests need


def oldest(requirements: list[str]) -> list[str]:
    """`name>=1.2` becomes `name==1.2`.

    Raises:
        ValueError: if a requirement says no lowest version.

    >>> oldest(["numpy>=2.0", "torch==2.13.0", "setuptools>=70,<82"])
    ['numpy==2.0', 'torch==2.13.0', 'setuptools==70']
    """
    found = []
    for text in requirements:
        match = re.match(r"([\w.-]+)\s*[>=]=\s*([\w.]+)", text)
        if not match:
            raise ValueError(
                f"pyproject.toml: {text!r} has no lowest version; write {text}>=... with one that was tested."
            )
        found.append(f"{match[1]}=={match[2]}")
    return found


def main() -> None:
    """The constraints, one a line."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    tests = [text for text in project["optional-dependencies"]["test"] if text.startswith(WITH)]
    print("\n".join(oldest([*project["dependencies"], *(text for text in tests if "xdist" not in text)])))


if __name__ == "__main__":
    main()
