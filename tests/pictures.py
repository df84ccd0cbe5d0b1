"""Draws the README's pictures: `python tests/pictures.py notebooks/images`."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from benchmarks.trees import dense, norm
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import optax_lrmult as olm

GROUND, TEXT = "#1e1e1e", "#e4e4e4"
COLOURS = {"1": "#ffffff", "2": "#8c8c8c", "36": "#4ec9d8", "33": "#e5b95c"}


def shapes(**names: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct(s, "float32") for n, s in names.items()}


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
TABLE = {"embed/": 0, "bias": 2} + olm.layer_decay(0.75, VIT)


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


def without_codes(line: str) -> str:
    return re.sub(r"\033\[\d*m", "", line)


def save(figure: Figure, path: Path) -> None:
    """Few colours make a small file."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)


def main(folder: Path) -> None:
    text = olm.preview(VIT, TABLE).to_text(colour=True)
    save(terminal(text), folder / "preview.png")
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 1000, 10_000, 1e-5)
    figure = Figure(figsize=(6.4, 3.8), dpi=125, layout="constrained")
    olm.plot_schedule(VIT, TABLE, rate, steps=10_000, ax=figure.add_subplot())
    save(figure, folder / "learning_rates.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
