"""The README's pictures are made by the library, and small."""

import re
from pathlib import Path

import pictures
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks" / "images"
PICTURES = ("preview.png", "learning_rates.png")


def check(path: Path) -> tuple[int, int]:
    """Raises if the picture is broken, large, or of one colour only."""
    with Image.open(path) as picture:
        picture.verify()
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(2**24)) > 10
        assert path.stat().st_size < 60_000
        return picture.size


def test_the_script_draws_what_the_readme_shows(tmp_path: Path) -> None:
    pictures.main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(PICTURES)
    for name in PICTURES:
        drawn, kept = check(tmp_path / name), check(FOLDER / name)
        assert drawn == pytest.approx(kept, rel=0.05)


def test_the_readme_shows_them_with_a_description() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"!\[([^]]+)\]\(notebooks/images/([^)]+)\)", text))
    assert {name: bool(alt) for alt, name in shown.items()} == dict.fromkeys(
        PICTURES, True
    )
