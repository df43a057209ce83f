"""Pictures with class labels, the way from bytes to tensors and back, and a change of size."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

# Pictures scaled at once: float copies of a whole set would not fit beside it.
CHUNK = 1024
HALF = 127.5


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Pictures with class labels: images uint8 (n, height, width, channels) in 0..255, labels int64 (n,).

    source: "embedded" (in this package or scikit-learn), "FEDDIFF_DATA", "download" or "file", with a remark where the
    edition is not the original. sha256: of the file with the pictures (of the archive, where they came in one).
    colours: of colour-mnist, the ink of each picture as a number in `colour_names`, int64 (n,); None for other sets.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    source: str
    sha256: str
    colours: np.ndarray | None = None
    colour_names: tuple[str, ...] = ()

    def __post_init__(self):
        _check_images(self.images)
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"{len(self.images)} images but labels of shape {self.labels.shape}")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(f"labels must lie in [0, {len(self.class_names)})")
        if self.colours is not None and self.colours.shape != self.labels.shape:
            raise ValueError(f"{len(self.images)} images but colours of shape {self.colours.shape}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Edge of the pictures in pixels; ValueError where they are not square."""
        height, width = self.images.shape[1:3]
        if height != width:
            raise ValueError(f"{self.name}: pictures of {width} x {height} (width x height) are not square; "
                             "load them with size= or use resize(image_set, size)")
        return height

    @property
    def channels(self) -> int:
        """1 for grey pictures, 3 for colour."""
        return self.images.shape[3]

    def select(self, rows: np.ndarray) -> "ImageSet":
        """Return the set of the given positions (or mask)."""
        colours = None if self.colours is None else self.colours[rows]
        return replace(self, images=self.images[rows], labels=self.labels[rows], colours=colours)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """Return uint8 pictures (n, h, w, c) as float32 (n, c, h, w): 0 becomes -1, 255 becomes 1."""
    _check_images(images)
    return torch.from_numpy(images.astype(np.float32) / HALF - 1).permute(0, 3, 1, 2).contiguous()


def to_uint8(pictures: torch.Tensor) -> np.ndarray:
    """Return float pictures (n, c, h, w) as uint8 (n, h, w, c), rounded; values outside [-1, 1] are clamped.

    The inverse of `to_tensor`. ValueError for values that are not finite.
    """
    if pictures.ndim != 4 or not pictures.is_floating_point():
        raise ValueError(f"pictures must be floats (n, c, h, w), got {pictures.dtype} {tuple(pictures.shape)}")
    pictures = pictures.detach().to("cpu", torch.float32)
    if not torch.isfinite(pictures).all():
        raise ValueError("pictures hold values that are not finite; the model or the sampler that made them diverged")
    bytes_ = ((pictures.clamp(-1, 1) + 1) * HALF).round().to(torch.uint8)
    return bytes_.permute(0, 2, 3, 1).contiguous().numpy()


def resize(image_set: ImageSet, size: int) -> ImageSet:
    """Return the set at `size` x `size` pixels; see `square`."""
    return replace(image_set, images=square(image_set.images, size))


def square(images: np.ndarray, size: int) -> np.ndarray:
    """Return uint8 pictures (n, h, w, c) as uint8 (n, size, size, c).

    The largest square in the middle of a picture is scaled (bilinear, antialiased, rounded); nothing is stretched.
    """
    check_size(size)
    height, width = images.shape[1:3]
    if height == width == size:
        return images
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    scaled = np.empty((len(images), size, size, images.shape[3]), dtype=np.uint8)
    for start in range(0, len(images), CHUNK):
        piece = images[start : start + CHUNK, top : top + edge, left : left + edge].astype(np.float32)
        pixels = torch.from_numpy(piece).permute(0, 3, 1, 2)
        pixels = functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        scaled[start : start + CHUNK] = pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return scaled


def check_size(size: int) -> None:
    """ValueError unless `size` is a whole number of pixels, at least 1."""
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"size must be a whole number of pixels >= 1, got {size!r}")


def _check_images(images: np.ndarray) -> None:
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.dtype != np.uint8:
        found = f"{images.dtype} {tuple(images.shape)}" if hasattr(images, "dtype") else type(images).__name__
        raise ValueError(f"images must be uint8 (n, h, w, c), got {found}")
