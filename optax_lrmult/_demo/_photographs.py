"""The data: photographs of faces, and the task of telling which way up a face is."""

from typing import NamedTuple

import numpy as np

QUARTERS = 4
"""The classes of the task: turned by 0, 90, 180 and 270 degrees."""


class Photographs(NamedTuple):
    """Real photographs in the form that R-Net takes: `(n, 24, 24, 3)` in [-1, 1]."""

    faces: np.ndarray
    others: np.ndarray


class Task(NamedTuple):
    """Turned faces to learn from, and turned faces of others to be tested on."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_photographs() -> Photographs:
    """The 100 faces and 100 other cuttings of "Labeled Faces in the Wild" in skimage.

    Raises:
      ImportError: scikit-image is not installed.
    """
    from skimage.data import lfw_subset

    images = as_rnet_input(lfw_subset())
    return Photographs(faces=images[:100], others=images[100:])


def as_rnet_input(images: np.ndarray) -> np.ndarray:
    """Gray images `(n, 25, 25)` in [0, 1] cut and scaled as R-Net saw them in training.

    The scale is that of https://github.com/ipazc/mtcnn: (x - 127.5) / 128 of a byte x.
    """
    cut = images[:, :24, :24, None]
    return np.repeat((255 * cut - 127.5) / 128, 3, axis=-1).astype(np.float32)


def which_way_up(faces: np.ndarray, seed: int, per_class: int = 5) -> Task:
    """A few-shot task: by how many quarters of a turn has a face been turned?

    Each training image is another face, turned one way. Each of the remaining faces is
    in the test set four times, turned all four ways.

    Args:
      faces: upright faces, `(n, height, width, channels)`.
      seed: picks the faces for training.
      per_class: training images for each of the four ways.

    Returns:
      The task, with labels 0 to 3.
    """
    order = np.random.default_rng(seed).permutation(len(faces))
    known, unseen = np.split(order, [QUARTERS * per_class])
    train_labels = np.repeat(np.arange(QUARTERS), per_class)
    test_labels = np.repeat(np.arange(QUARTERS), len(unseen))
    return Task(
        train_images=turned(faces[known], train_labels),
        train_labels=train_labels,
        test_images=turned(faces[np.tile(unseen, QUARTERS)], test_labels),
        test_labels=test_labels,
    )


def turned(images: np.ndarray, quarters: np.ndarray) -> np.ndarray:
    """Each image turned counterclockwise by its own number of quarter turns."""
    pairs = zip(images, quarters, strict=True)
    return np.stack([np.rot90(image, quarter) for image, quarter in pairs])
