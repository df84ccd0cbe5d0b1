"""Draws the README's pictures: `python -m tests.report.pictures notebooks/images`."""

import io
import os
import re
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import optax_lrmult as olm

GROUND, TEXT = "#1e1e1e", "#e4e4e4"
COLOURS = {"1": "#ffffff", "2": "#8c8c8c", "36": "#4ec9d8", "33": "#e5b95c"}
COLOURS |= {"90": "#a0a0a0", "35": "#c586c0", "31": "#f07070"}


class Terminal(io.StringIO):
    """What `show` takes for a terminal."""

    def isatty(self) -> bool:
        return True


def shapes(**names: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct(s, "float32") for n, s in names.items()}


def dense(inputs: int, outputs: int) -> dict[str, jax.ShapeDtypeStruct]:
    return shapes(kernel=(inputs, outputs), bias=(outputs,))


def norm(width: int) -> dict[str, jax.ShapeDtypeStruct]:
    return shapes(scale=(width,), bias=(width,))


# ViT-Ti/16 at 224 pixels a side, with its published 5,717,416 parameters.
VIT = {
    "embed": shapes(kernel=(16, 16, 3, 192), bias=(192,)),
    **shapes(cls_token=(1, 1, 192), pos_embed=(1, 197, 192)),
    "norm": norm(192),
    "head": dense(192, 1000),
} | {
    f"block_{i}": {
        "norm1": norm(192),
        "attn": {"qkv": dense(192, 3 * 192), "out": dense(192, 192)},
        "norm2": norm(192),
        "mlp": {"up": dense(192, 768), "down": dense(768, 192)},
    }
    for i in range(12)
}
TABLE = {"embed/": 0, "bias": 2} + olm.recipes.layer_decay(0.75, VIT)


_PIECE = re.compile(r"\033\[(\d+)m(.*?)\033\[0m|([^\033]+)")
_WIDE, _HIGH = 0.08362, 0.175  # Inches of a character.


def terminal(text: str) -> Figure:
    """Coloured text as a terminal shows it."""
    lines = [_PIECE.findall(line) for line in text.splitlines()]
    columns = max(sum(len(p[1] + p[2]) for p in pieces) for pieces in lines)
    width, height = _WIDE * columns + 0.3, _HIGH * len(lines) + 0.3
    figure = Figure(figsize=(width, height), dpi=110, facecolor=GROUND)
    for row, pieces in enumerate(lines):
        column = 0
        for code, coloured, plain in pieces:
            figure.text(
                (0.15 + _WIDE * column) / width,
                1 - (0.15 + _HIGH * row) / height,
                (coloured + plain).replace("$", r"\$"),
                color=COLOURS.get(code, TEXT),
                family="monospace",
                fontsize=10,
                verticalalignment="top",
                weight="bold" if code == "1" else "normal",
            )
            column += len(coloured + plain)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Few colours make a small file."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(200, dither=Image.Dither.NONE).save(path, optimize=True)


def main(folder: Path) -> None:
    screen = Terminal()
    os.environ["COLUMNS"] = "120"
    olm.preview(VIT, TABLE).show(screen)
    save(terminal(screen.getvalue()), folder / "preview.png")
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 1000, 10_000, 1e-5)
    figure = Figure(figsize=(6.4, 3.8), dpi=125, layout="constrained")
    olm.report.plot_schedule(VIT, TABLE, rate, steps=10_000, ax=figure.add_subplot())
    save(figure, folder / "learning_rates.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
