"""The blocks of the README, and where those run that need packages of their own.

A block of Python that imports one of these packages runs in the file beside it. Those
in `tests/trainers` have an environment of their own in `.ci/run`, with the package
itself; the others run with stand-ins for what cannot be installed.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "tunix": "tests/trainers/test_tunix.py",
    "levanter": "tests/trainers/test_levanter.py",
    "maxtext": "tests/promises/test_builders.py",
    "openpi": "tests/promises/test_builders.py",
}


def package_of(block: str) -> str | None:
    """Which of the packages above a block imports."""
    imported = re.findall(r"^(?:from|import) (\w+)", block, re.MULTILINE)
    found = [package for package in imported if package in ELSEWHERE]
    return found[0] if found else None


def block(package: str) -> str:
    """The one block of the README that imports a package."""
    (text,) = (t for kind, t in BLOCKS if kind == "python" and package_of(t) == package)
    return text


def yaml() -> str:
    """The one block of YAML, which is Levanter's."""
    (text,) = (text for kind, text in BLOCKS if kind == "yaml")
    return text
