"""Draws the README's pictures: `python -m tests.report.pictures notebooks/images`."""

import io
import os
import re
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import optax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

import optax_lrmult as olm

GROUND, TEXT = "#1e1e1e", "#e4e4e4"
COLOURS = {"1": "#ffffff", "2": "#8c8c8c", "36": "#4ec9d8", "33": "#e5b95c"}


def shapes(**names: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(s, "float32") for name, s in names.items()}


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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def coloured() -> str:
    """The preview as it stands in a wide terminal."""
    screen = Terminal()
    with mock.patch.dict(os.environ, {"COLUMNS": "120", "NO_COLOR": ""}):
        olm.preview(VIT, TABLE).show(screen)
    return screen.getvalue()


def without_codes(text: str) -> str:
    return re.sub(r"\033\[\d*m", "", text)


def terminal(text: str) -> Figure:
    """Coloured text as a terminal shows it."""
    lines = text.splitlines()
    columns = max(len(without_codes(line)) for line in lines)
    width, height = 0.0839 * columns + 0.3, 0.175 * len(lines) + 0.3
    figure = Figure(figsize=(width, height), dpi=110, facecolor=GROUND)
    for row, line in enumerate(lines):
        codes = re.findall(r"\033\[([1-9]\d*)m", line)
        figure.text(
            0.15 / width,
            1 - (0.15 + 0.175 * row) / height,
            without_codes(line),
            color=COLOURS.get("".join(codes), TEXT),
            family="monospace",
            fontsize=10,
            verticalalignment="top",
            weight="bold" if codes == ["1"] else "normal",
        )
    return figure


def learning_rates() -> Figure:
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 1000, 10_000, 1e-5)
    figure = Figure(figsize=(6.4, 3.8), dpi=125, layout="constrained")
    olm.report.plot_schedule(VIT, TABLE, rate, 10_000, ax=figure.add_subplot())
    return figure


def shown_by(figure: Figure) -> str:
    """The texts of a figure, and the middle of each line, as the picture's comment."""
    (ax,) = figure.axes
    lines = {str(line.get_label()): line.get_ydata() for line in ax.lines}
    values = [f"{key}: {y[len(y) // 2]:.3g}" for key, y in lines.items()]
    texts = [text.get_text() for text in ax.texts]
    return "\n".join(
        [ax.get_title("left"), ax.get_xlabel(), ax.get_ylabel(), *texts, *values]
    )


def save(figure: Figure, path: Path, comment: str) -> None:
    """Few colours make a small file; the comment says what it shows."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", comment)
    picture = picture.quantize(64, dither=Image.Dither.NONE)
    picture.save(path, optimize=True, pnginfo=info)


def main(folder: Path) -> None:
    save(terminal(coloured()), folder / "preview.png", coloured())
    figure = learning_rates()
    save(figure, folder / "learning_rates.png", shown_by(figure))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
