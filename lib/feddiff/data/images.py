"""Image sets by name or from a user's own folder, their training and test parts, and the way to tensors and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from feddiff.data import image_folders, image_known
from feddiff.data.image_set import ImageSet, resize, to_tensor, to_uint8
from feddiff.data.partitions import shares

__all__ = ["ImageSet", "load_images", "names", "resize", "to_tensor", "to_uint8", "train_and_test"]


def names() -> tuple[str, ...]:
    """Return the names of the known image sets."""
    return image_known.names()


def load_images(name_or_path: str | Path, part: str | None = None, *, size: int | None = None) -> ImageSet:
    """Return a known image set by name, or the pictures of a folder or zip archive of class folders by path.

    "digits" (1,797 pictures, 8 x 8 x 1) and "mnist-5k" (5,000 pictures, 28 x 28 x 1, 500 of each class, sorted by
    class) are installed; the digits' 17 grey levels are spread over 0..255. "mnist" (28 x 28 x 1) and "cifar-10"
    (32 x 32 x 3) are looked for in the folder named by FEDDIFF_DATA, then downloaded from torchvision's addresses; they
    need part="train" or "test". "colour-mnist" and "colour-mnist-5k" are made of the grey sets by the rule of
    `image_known.colourise`. For own pictures see `image_folders.load`: they need `part` where they come in parts.

    size: bring every picture to size x size pixels (see `image_set.square`); colours are dealt out before that.
    ValueError, FileNotFoundError or ConnectionError names the set, part or file at fault.
    """
    if _is_known(name_or_path):
        found = image_known.load(str(name_or_path), part)
        return found if size is None else resize(found, size)
    return image_folders.load(Path(name_or_path), part, size=size)


def train_and_test(
    name_or_path: str | Path, generator: np.random.Generator, *, test_fraction: float = 0.2, size: int | None = None
) -> tuple[ImageSet, ImageSet]:
    """Return (train, test): the published parts of the set where it has them, else a split drawn with `generator`.

    The split keeps the order, leaves round(test_fraction * n) pictures to the test set and cuts every class in that
    proportion (largest remainders). Parts of which one is grey and one in colour both become colour. ValueError for
    parts that do not match, or a class that would be missing on one side.
    """
    parts = image_known.parts(str(name_or_path)) if _is_known(name_or_path) else image_folders.parts(Path(name_or_path))
    if not parts:
        return _split(load_images(name_or_path, size=size), generator, test_fraction)
    absent = sorted({"train", "test"} - set(parts))
    if absent:
        raise ValueError(f"{Path(name_or_path).name} has the parts {', '.join(parts)}, but no {absent[0]}; add the "
                         "folder, or load the parts with load_images and choose for yourself")
    train, test = (load_images(name_or_path, part, size=size) for part in ("train", "test"))
    if train.images.shape[1:3] != test.images.shape[1:3]:
        raise ValueError(f"{train.name}: training pictures of {_shape(train)} but test pictures of {_shape(test)}; "
                         "give size= to bring all to one size")
    channels = max(train.channels, test.channels)
    return _with_channels(train, channels), _with_channels(test, channels)


def _is_known(name_or_path: str | Path) -> bool:
    """Say whether a name is meant (else a path); ValueError for a word that is neither."""
    text = str(name_or_path)
    if isinstance(name_or_path, str) and text in image_known.names():
        return True
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, str) and not path.suffix and not path.exists() and path.name == text:
        raise ValueError(f"no image set is named {text!r}; known are {', '.join(image_known.names())}; there is no "
                         "folder of that name either")
    return False


def _split(image_set: ImageSet, generator: np.random.Generator, test_fraction: float) -> tuple[ImageSet, ImageSet]:
    rows = len(image_set)
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie in (0, 1), got {test_fraction!r}")
    classes = [np.flatnonzero(image_set.labels == label) for label in range(len(image_set.class_names))]
    counts = shares(round(test_fraction * rows), np.array([len(members) for members in classes]))
    for name, members, count in zip(image_set.class_names, classes, counts):
        if not 0 < count < len(members):
            raise ValueError(f"{image_set.name}: class {name!r} has {len(members)} pictures, of which test_fraction="
                             f"{test_fraction} would leave {len(members) - count} for training and {count} for the "
                             "test; give it more pictures or choose another test_fraction")
    held_out = np.zeros(rows, dtype=bool)
    for members, count in zip(classes, counts):
        held_out[generator.permutation(members)[:count]] = True
    return image_set.select(~held_out), image_set.select(held_out)


def _shape(image_set: ImageSet) -> str:
    return f"{image_set.images.shape[2]} x {image_set.images.shape[1]} pixels"


def _with_channels(image_set: ImageSet, channels: int) -> ImageSet:
    if image_set.channels == channels:
        return image_set
    return replace(image_set, images=np.repeat(image_set.images, channels, axis=3))
