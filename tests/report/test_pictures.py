"""The README's pictures show what the library prints and draws today."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.report import pictures

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "notebooks" / "images"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("preview.png", pictures.coloured()),
        ("learning_rates.png", pictures.shown_by(pictures.learning_rates())),
    ],
)
def test_a_picture_is_up_to_date(name: str, shown: str) -> None:
    """If not: python -m tests.report.pictures notebooks/images."""
    with Image.open(FOLDER / name) as picture:
        assert picture.text["Comment"] == shown
        assert len(picture.convert("RGB").getcolors(2**24)) > 10
    assert (FOLDER / name).stat().st_size < 70_000


def test_the_readme_shows_them_with_a_description() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"!\[([^]]+)\]\(notebooks/images/([^)]+)\)", text))
    assert {*shown.values()} <= {path.name for path in FOLDER.iterdir()}
    assert "preview.png" in shown.values()
