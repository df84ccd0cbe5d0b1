"""Names and shapes of an Orbax checkpoint."""

import contextlib
import logging
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import jax

from optax_lrmult._checkpoints._headers import Header, Keys, headers_of, needed

_METADATA = "_METADATA"
_OF_ITEMS = "_CHECKPOINT_METADATA"
_STEP = re.compile(r"(?:.*_)?(\d{1,18})")


def read(path: Path) -> Iterator[tuple[Keys, Header]]:
    """What a checkpoint's metadata say; the elements are not read.

    Of a checkpoint of several trees, the name of the tree is the first key.
    """
    trees = _trees(path)
    if not trees:
        raise ValueError(
            "a folder without a whole Orbax checkpoint; for other kinds name the file"
        )
    for tree in trees:
        keys = (tree.name,) if len(trees) > 1 else ()
        yield from headers_of(_metadata(tree), keys)


def latest_step(path: Path) -> Path:
    """The checkpoint of the largest step in a folder of them, or the folder itself."""
    if _trees(path):
        return path
    steps = {
        int(match[1]): folder
        for folder in path.iterdir()
        if (match := _STEP.fullmatch(folder.name)) and _trees(folder)
    }
    return steps[max(steps)] if steps else path


def _trees(path: Path) -> list[Path]:
    """The checkpoint itself if it is a tree, or its items that are trees."""
    if (path / _METADATA).is_file():
        return [path]
    trees = [file.parent for file in sorted(path.glob(f"*/{_METADATA}"))]
    if (path / _OF_ITEMS).is_file():
        return trees
    return [tree for tree in trees if not _STEP.fullmatch(tree.name)]


def _metadata(tree: Path) -> Any:
    """The tree of metadata; older versions of Orbax return it as it is."""
    checkpoint = needed("orbax.checkpoint", "orbax-checkpoint")
    try:
        with _quietly():
            found = checkpoint.StandardCheckpointer().metadata(tree.absolute())
    except Exception as error:  # Orbax and TensorStore raise what they like.
        raise ValueError(f"no whole Orbax checkpoint: {error}") from None
    found = getattr(found, "item_metadata", found)
    return getattr(found, "tree", found)


@contextlib.contextmanager
def _quietly() -> Generator[None]:
    """On the CPU, and without warnings of metadata that not every checkpoint has."""
    logger = logging.getLogger("absl")
    level, platforms = logger.level, jax.config.jax_platforms
    logger.setLevel(logging.ERROR)
    jax.config.update("jax_platforms", "cpu")
    try:
        yield
    finally:
        logger.setLevel(level)
        jax.config.update("jax_platforms", platforms)
