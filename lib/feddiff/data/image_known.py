"""The known image sets: MNIST-5k and the digits (installed), MNIST, CIFAR-10, and colour-MNIST built from MNIST."""

import contextlib
import fcntl
import gzip
import hashlib
import importlib.resources
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets as sklearn_datasets

from feddiff.data import image_folders
from feddiff.data.download import cache_folder, digest, download
from feddiff.data.image_set import ImageSet

PARTS = ("train", "test")
MNIST_5K = "embedded/mnist_5k.csv.gz"
MNIST_5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
DIGITS_INK = 16
# Below FEDDIFF_DATA; inside it the layout that torchvision gives its `root`.
TORCHVISION = "images/torchvision"
MNIST_RAW = "MNIST/raw"
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
CIFAR_FOLDER = "cifar-10-batches-py"
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_JPEG = "images/cifar10-jpeg.zip"
CIFAR_JPEG_SOURCE = "FEDDIFF_DATA, lossy JPEG edition"
CIFAR_PER_CLASS = {"train": 5000, "test": 1000}
# Fewer attempts than for a table: MNIST has two publishers, and the second is asked when the first is out of reach.
ATTEMPTS = 3
# Pure primaries: every ink has one channel, so a coloured digit has the energy of the grey one.
INKS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
INK_SEED = b"feddiff colour-mnist 1"


def names() -> tuple[str, ...]:
    """Return the names of the known image sets."""
    return tuple(_LOADERS)


def parts(name: str) -> tuple[str, ...]:
    """Return the parts in which the set was published, () for none."""
    return PARTS if name in ("mnist", "cifar-10", "colour-mnist") else ()


def load(name: str, part: str | None) -> ImageSet:
    """Return a known set, or the `part` of one that was published in parts.

    ValueError for a part that the set has not, a damaged file or a wrong edition; FileNotFoundError where FEDDIFF_DATA
    names no folder; ConnectionError where a set is not at hand and cannot be downloaded.
    """
    if not parts(name):
        if part is not None:
            raise ValueError(f"{name} was not published in parts; leave out part={part!r}, train_and_test splits it")
        return _LOADERS[name]()
    if part not in PARTS:
        raise ValueError(f"{name} comes in the parts {' and '.join(PARTS)}; choose one with part=, got {part!r}")
    return _LOADERS[name](part)


def colourise(image_set: ImageSet, name: str) -> ImageSet:
    """Return the grey set as digits of red, green or blue ink on black, labelled as before.

    The rule: a picture's ink is the SHA-256 of INK_SEED and its grey bytes, its first 8 bytes as a big-endian number
    modulo 3 in the order of INKS; a pixel is the ink times its grey value / 255. So a picture has the same ink in
    every set, part and order, and inks are independent of the labels (the papers do not give their construction).
    """
    grey = np.ascontiguousarray(image_set.images)
    colours = np.array([_ink(picture.tobytes()) for picture in grey], dtype=np.int64)
    inks = np.array(list(INKS.values()), dtype=np.uint8)[colours]
    images = np.where(inks[:, None, None, :] > 0, grey, np.uint8(0))
    return replace(image_set, images=images, name=name, colours=colours, colour_names=tuple(INKS))


def _ink(picture: bytes) -> int:
    return int.from_bytes(hashlib.sha256(INK_SEED + picture).digest()[:8], "big") % len(INKS)


def _ten_digits() -> tuple[str, ...]:
    return tuple(str(digit) for digit in range(10))


def _mnist_5k() -> ImageSet:
    raw = (importlib.resources.files("feddiff.data") / MNIST_5K).read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != MNIST_5K_SHA256:
        raise ValueError(f"mnist-5k: {MNIST_5K} has the sha256 {found}, expected {MNIST_5K_SHA256}; reinstall feddiff")
    table = pd.read_csv(io.BytesIO(gzip.decompress(raw)), header=None, dtype=np.uint8).to_numpy()
    return ImageSet(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64), _ten_digits(), "mnist-5k",
                    "embedded", found)


def _digits() -> ImageSet:
    raw = (importlib.resources.files("sklearn.datasets.data") / "digits.csv.gz").read_bytes()
    bunch = sklearn_datasets.load_digits()
    images = np.rint(bunch.images * (255 / DIGITS_INK)).astype(np.uint8)[..., None]
    return ImageSet(images, bunch.target.astype(np.int64), _ten_digits(), "digits", "embedded",
                    hashlib.sha256(raw).hexdigest())


def _data_folder() -> Path | None:
    root = os.environ.get("FEDDIFF_DATA", "")
    if root and not Path(root).is_dir():
        raise FileNotFoundError(f"FEDDIFF_DATA names {root}, which is not a folder")
    return Path(root) if root else None


@contextlib.contextmanager
def _download_root() -> Iterator[Path]:
    """Give the folder for torchvision's downloads to one process at a time."""
    root = cache_folder() / "torchvision"
    root.mkdir(parents=True, exist_ok=True)
    with open(root / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root


def _publishers_file(urls: list[str], path: Path, md5: str, name: str, place: str) -> None:
    """Put the publisher's archive at `path`, from the first of `urls` that has it, and check it."""
    from torchvision.datasets.utils import check_integrity

    for url in urls:
        try:
            download(url, path, attempts=ATTEMPTS)
            break
        except ConnectionError as error:
            failure = error
    else:
        raise ConnectionError(f"{name}: {failure}; or put {place} in a folder of your own and set FEDDIFF_DATA to "
                              "that folder") from failure
    if not check_integrity(path, md5):
        path.unlink()
        raise ValueError(f"{name}: {url} does not have the md5 {md5} that torchvision expects; the publisher changed "
                         "it or something on the way did")


def _mnist(part: str) -> ImageSet:
    # Only here: torchvision takes seconds to import.
    from torchvision import datasets

    given = _data_folder()
    root = given / TORCHVISION if given else None
    if root and all((root / MNIST_RAW / file).is_file() for file in MNIST_SHA256):
        source = "FEDDIFF_DATA"
    else:
        source = "download"
        with _download_root() as root:
            _fetch_mnist(root)
    stem = "train" if part == "train" else "t10k"
    found = {file: digest(root / MNIST_RAW / file) for file in MNIST_SHA256 if file.startswith(stem)}
    for file, sha256 in found.items():
        if sha256 != MNIST_SHA256[file]:
            raise ValueError(f"mnist: {root / MNIST_RAW / file} has the sha256 {sha256}, expected "
                             f"{MNIST_SHA256[file]}; replace it with the original file")
    data = datasets.MNIST(root, train=part == "train", download=False)
    return ImageSet(data.data.numpy()[..., None], data.targets.numpy().astype(np.int64), _ten_digits(), "mnist", source,
                    found[f"{stem}-images-idx3-ubyte"])


def _fetch_mnist(root: Path) -> None:
    from torchvision import datasets

    raw = root / MNIST_RAW
    if all((raw / file).is_file() and digest(raw / file) == sha256 for file, sha256 in MNIST_SHA256.items()):
        return
    place = f"the four unpacked files of MNIST ({', '.join(MNIST_SHA256)}) in {TORCHVISION}/{MNIST_RAW}"
    for file, md5 in datasets.MNIST.resources:
        _publishers_file([f"{mirror}{file}" for mirror in datasets.MNIST.mirrors], raw / file, md5, "mnist", place)
    for file in MNIST_SHA256:
        # torchvision would keep a file that was cut short while it was unpacked.
        (raw / file).unlink(missing_ok=True)
    datasets.MNIST(root, download=True)


def _cifar_10(part: str) -> ImageSet:
    given = _data_folder()
    if given and (given / TORCHVISION / CIFAR_FOLDER).is_dir():
        return _cifar_original(given / TORCHVISION, part, "FEDDIFF_DATA")
    if given and (given / CIFAR_JPEG).is_file():
        return _cifar_jpeg(given / CIFAR_JPEG, part)
    from torchvision import datasets

    with _download_root() as root:
        if not _whole_cifar(root):
            place = (f"{datasets.CIFAR10.filename}, unpacked, in {TORCHVISION}, or class folders train/<class>/*.jpg "
                     f"and test/<class>/*.jpg as {CIFAR_JPEG},")
            archive = root / datasets.CIFAR10.filename
            _publishers_file([datasets.CIFAR10.url], archive, datasets.CIFAR10.tgz_md5, "cifar-10", place)
            datasets.CIFAR10(root, download=True)
    return _cifar_original(root, part, "download")


def _whole_cifar(root: Path) -> bool:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    kind = datasets.CIFAR10
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return all(check_integrity(root / CIFAR_FOLDER / file, md5) for file, md5 in listed)


def _cifar_original(root: Path, part: str, source: str) -> ImageSet:
    from torchvision import datasets

    # The files are pickles: nothing is opened that is not, byte for byte, the publisher's.
    if not _whole_cifar(root):
        raise ValueError(f"cifar-10: a file in {root / CIFAR_FOLDER} is missing or has not the md5 that "
                         f"torchvision expects; unpack {datasets.CIFAR10.filename} anew")
    data = datasets.CIFAR10(root, train=part == "train", download=False)
    content = hashlib.sha256()
    for file, _ in data.train_list if data.train else data.test_list:
        content.update((root / CIFAR_FOLDER / file).read_bytes())
    return ImageSet(data.data, np.array(data.targets, dtype=np.int64), tuple(data.classes), "cifar-10", source,
                    content.hexdigest())


def _cifar_jpeg(path: Path, part: str) -> ImageSet:
    found = image_folders.load(path, part)
    counts = np.bincount(found.labels, minlength=len(found.class_names))
    shape = found.images.shape[1:]
    if found.class_names != CIFAR_CLASSES or set(counts) != {CIFAR_PER_CLASS[part]} or shape != (32, 32, 3):
        raise ValueError(f"cifar-10: {path} holds in {part} {', '.join(found.class_names)} with {counts.min():,} to "
                         f"{counts.max():,} pictures of {' x '.join(map(str, shape))}; expected "
                         f"{', '.join(CIFAR_CLASSES)} with {CIFAR_PER_CLASS[part]:,} of 32 x 32 x 3")
    return replace(found, name="cifar-10", source=CIFAR_JPEG_SOURCE)


_LOADERS = {
    "digits": _digits,
    "mnist-5k": _mnist_5k,
    "mnist": _mnist,
    "cifar-10": _cifar_10,
    "colour-mnist": lambda part: colourise(_mnist(part), "colour-mnist"),
    "colour-mnist-5k": lambda: colourise(_mnist_5k(), "colour-mnist-5k"),
}
