"""Small image sets that come with the package or with scikit-learn."""

import gzip
import hashlib
import importlib.resources
import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn import datasets as sklearn_datasets

MNIST_5K = "embedded/mnist_5k.csv.gz"
MNIST_5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
DIGITS_INK = 16


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Pictures with class labels: images uint8 (n, height, width, channels) in 0..255, labels int64 (n,)."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    source: str
    sha256: str

    def __post_init__(self):
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(f"images must be uint8 (n, h, w, c), got {self.images.dtype} {self.images.shape}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"{len(self.images)} images but labels of shape {self.labels.shape}")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(f"labels must lie in [0, {len(self.class_names)})")

    def __len__(self) -> int:
        return len(self.images)


def load_images(name: str) -> ImageSet:
    """Return "digits" (1,797 pictures, 8 x 8 x 1) or "mnist-5k" (5,000 pictures, 28 x 28 x 1, 500 of each class).

    MNIST-5k comes sorted by class. The digits' 17 grey levels are spread over 0..255. ValueError for another name.
    """
    if name not in _LOADERS:
        raise ValueError(f"no image set is named {name!r}; known are {', '.join(_LOADERS)}")
    return _LOADERS[name]()


def _mnist_5k() -> ImageSet:
    raw = (importlib.resources.files("feddiff.data") / MNIST_5K).read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != MNIST_5K_SHA256:
        raise ValueError(f"mnist-5k: {MNIST_5K} has the sha256 {digest}, expected {MNIST_5K_SHA256}; reinstall feddiff")
    table = pd.read_csv(io.BytesIO(gzip.decompress(raw)), header=None, dtype=np.uint8).to_numpy()
    return ImageSet(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64), _ten_digits(), "mnist-5k",
                    "embedded", digest)


def _digits() -> ImageSet:
    raw = (importlib.resources.files("sklearn.datasets.data") / "digits.csv.gz").read_bytes()
    bunch = sklearn_datasets.load_digits()
    images = np.rint(bunch.images * (255 / DIGITS_INK)).astype(np.uint8)[..., None]
    return ImageSet(images, bunch.target.astype(np.int64), _ten_digits(), "digits", "embedded",
                    hashlib.sha256(raw).hexdigest())


def _ten_digits() -> tuple[str, ...]:
    return tuple(str(digit) for digit in range(10))


_LOADERS = {"digits": _digits, "mnist-5k": _mnist_5k}
