"""MNIST and CIFAR-10 from FEDDIFF_DATA and from a local publisher, colour-MNIST's rule; the real files if at hand."""

import gzip
import hashlib
import io
import os
import pickle
import shutil
import struct
import tarfile
import threading
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from feddiff.data import image_known
from feddiff.data.images import load_images, train_and_test
from feddiff.seeds import numpy_generator


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(stem, count):
    pictures = numpy_generator(1, stem).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return {f"{stem}-images-idx3-ubyte": idx(pictures),
            f"{stem}-labels-idx1-ubyte": idx(np.arange(count, dtype=np.uint8) % 10)}


RAW = mnist("train", 30) | mnist("t10k", 20)
GZIP = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in RAW.items()}


def cifar(files):
    """Return CIFAR-10's archive in its publisher's format, with the given number of pictures in each batch."""
    batches = {"batches.meta": {"label_names": list(image_known.CIFAR_CLASSES)}}
    for place, file in enumerate(files):
        pixels = numpy_generator(place, "cifar").integers(0, 256, (10, 3072), dtype=np.uint8)
        batches[file] = {"data": pixels, "labels": [(place + row) % 10 for row in range(10)]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in batches.items():
            raw = pickle.dumps(content)
            entry = tarfile.TarInfo(f"{image_known.CIFAR_FOLDER}/{name}")
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    return buffer.getvalue(), {name: pickle.dumps(content) for name, content in batches.items()}


BATCHES = ["data_batch_1", "data_batch_2", "test_batch"]
CIFAR_ARCHIVE, CIFAR_FILES = cifar(BATCHES)


def md5(raw):
    return hashlib.md5(raw).hexdigest()


class Publisher:
    """A local server with files by path; remembers what was asked for."""

    def __init__(self):
        self.files, self.asked = {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                if self.path not in outer.files:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.files[self.path])))
                self.end_headers()
                self.wfile.write(outer.files[self.path])

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def publisher(monkeypatch, tmp_path):
    """Small editions of both sets at a local address in place of torchvision's; nothing at hand."""
    server = Publisher()
    server.files = {f"/second/{name}": raw for name, raw in GZIP.items()} | {"/cifar.tar.gz": CIFAR_ARCHIVE}
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDDIFF_DATA", raising=False)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.url}/first/", f"{server.url}/second/"])
    monkeypatch.setattr(datasets.MNIST, "resources", [(name, md5(raw)) for name, raw in GZIP.items()])
    monkeypatch.setattr(image_known, "MNIST_SHA256", {name: hashlib.sha256(raw).hexdigest() for name, raw in
                                                      RAW.items()})
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.url}/cifar.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(CIFAR_ARCHIVE))
    listed = [[name, md5(CIFAR_FILES[name])] for name in BATCHES]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", listed[:2])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", listed[2:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {
        "filename": "batches.meta", "key": "label_names", "md5": md5(CIFAR_FILES["batches.meta"])})
    yield server
    server.close()


@pytest.fixture
def folder(publisher, monkeypatch, tmp_path):
    """A FEDDIFF_DATA with MNIST as torchvision unpacks it."""
    raw = tmp_path / "data/images/torchvision/MNIST/raw"
    raw.mkdir(parents=True)
    for name, content in RAW.items():
        (raw / name).write_bytes(content)
    monkeypatch.setenv("FEDDIFF_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def check_mnist(images, stem, source):
    assert images.images.tobytes() == RAW[f"{stem}-images-idx3-ubyte"][16:] and images.images.shape[1:] == (28, 28, 1)
    assert images.labels.tolist() == [row % 10 for row in range(len(images))] and images.labels.dtype == np.int64
    assert images.class_names == tuple("0123456789") and images.name == "mnist" and images.source == source
    assert images.sha256 == hashlib.sha256(RAW[f"{stem}-images-idx3-ubyte"]).hexdigest()


def test_mnist_at_hand(folder, publisher):
    check_mnist(load_images("mnist", "train"), "train", "FEDDIFF_DATA")
    check_mnist(load_images("mnist", "test"), "t10k", "FEDDIFF_DATA")
    assert publisher.asked == []


def test_mnist_is_fetched_once_from_the_publisher_that_has_it(publisher, tmp_path):
    check_mnist(load_images("mnist", "test"), "t10k", "download")
    assert Counter(path.split("/")[1] for path in publisher.asked) == {"first": 4, "second": 4}
    check_mnist(load_images("mnist", "train"), "train", "download")
    assert len(publisher.asked) == 8 and (tmp_path / "cache/torchvision/MNIST/raw").is_dir()


def test_an_incomplete_folder_is_no_mnist(folder, publisher):
    (folder / "images/torchvision/MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    check_mnist(load_images("mnist", "train"), "train", "download")


def test_an_unpacked_file_cut_short_is_unpacked_anew(publisher, tmp_path):
    load_images("mnist", "train")
    path = tmp_path / "cache/torchvision/MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    asked = len(publisher.asked)
    check_mnist(load_images("mnist", "train"), "train", "download")
    # The archives were still there.
    assert len(publisher.asked) == asked


def test_a_changed_original_is_refused(folder):
    path = folder / "images/torchvision/MNIST/raw/train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ValueError, match="mnist: .*train-labels-idx1-ubyte has the sha256.*replace it"):
        load_images("mnist", "train")
    assert len(load_images("mnist", "test")) == 20


def test_a_publisher_with_another_file_is_refused_and_nothing_kept(publisher, tmp_path):
    publisher.files["/first/train-images-idx3-ubyte.gz"] = gzip.compress(b"another")
    with pytest.raises(ValueError, match=rf"mnist: {publisher.url}/first/train-images.* does not have the md5"):
        load_images("mnist", "train")
    assert not list((tmp_path / "cache").rglob("*ubyte*.gz"))
    del publisher.files["/first/train-images-idx3-ubyte.gz"]
    assert len(load_images("mnist", "train")) == 30


@pytest.mark.parametrize(("name", "place"), [
    ("mnist", "four unpacked files of MNIST .* in images/torchvision/MNIST/raw"),
    ("cifar-10", "cifar10-jpeg.zip"), ("colour-mnist", "four unpacked files"),
])
def test_no_publisher(publisher, name, place):
    publisher.files = {}
    with pytest.raises(ConnectionError, match=rf"could not download {publisher.url}.*{place}.*FEDDIFF_DATA"):
        load_images(name, "train")


def test_a_folder_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDDIFF_DATA", str(tmp_path / "absent"))
    for name in ("mnist", "cifar-10"):
        with pytest.raises(FileNotFoundError, match="FEDDIFF_DATA.*absent"):
            load_images(name, "train")


def check_cifar(images, files, source):
    expected = [pickle.loads(CIFAR_FILES[name]) for name in files]
    pixels = np.concatenate([batch["data"] for batch in expected]).reshape(-1, 3, 32, 32)
    assert np.array_equal(images.images, pixels.transpose(0, 2, 3, 1)) and images.source == source
    assert images.labels.tolist() == [label for batch in expected for label in batch["labels"]]
    assert images.class_names == image_known.CIFAR_CLASSES and images.name == "cifar-10"
    assert images.sha256 == hashlib.sha256(b"".join(CIFAR_FILES[name] for name in files)).hexdigest()


def test_cifar_is_fetched_once(publisher):
    check_cifar(load_images("cifar-10", "train"), BATCHES[:2], "download")
    check_cifar(load_images("cifar-10", "test"), BATCHES[2:], "download")
    assert publisher.asked == ["/cifar.tar.gz"]


def test_cifar_at_hand_in_the_original_goes_before_the_jpeg_edition(publisher, folder, tmp_path):
    load_images("cifar-10", "test")
    unpacked = tmp_path / "cache/torchvision" / image_known.CIFAR_FOLDER
    shutil.copytree(unpacked, folder / "images/torchvision" / image_known.CIFAR_FOLDER)
    (folder / image_known.CIFAR_JPEG).write_bytes(b"never opened")
    check_cifar(load_images("cifar-10", "train"), BATCHES[:2], "FEDDIFF_DATA")
    path = folder / "images/torchvision" / image_known.CIFAR_FOLDER / "test_batch"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ValueError, match="cifar-10: a file in .* missing or has not the md5"):
        load_images("cifar-10", "test")


def jpeg_edition(path, counts, classes=image_known.CIFAR_CLASSES):
    with zipfile.ZipFile(path, "w") as archive:
        for part, count in counts.items():
            for label, name in enumerate(classes):
                for row in range(count):
                    buffer = io.BytesIO()
                    Image.new("RGB", (32, 32), (20 * label, 10 * row, 99)).save(buffer, "JPEG", quality=95)
                    archive.writestr(f"{part}/{name}/{row:04}.jpg", buffer.getvalue())


def test_cifar_from_the_jpeg_edition(folder, monkeypatch, publisher):
    monkeypatch.setattr(image_known, "CIFAR_PER_CLASS", {"train": 3, "test": 2})
    path = folder / image_known.CIFAR_JPEG
    jpeg_edition(path, {"train": 3, "test": 2})
    train, test = train_and_test("cifar-10", numpy_generator(1))
    assert len(train) == 30 and len(test) == 20 and train.name == "cifar-10" and publisher.asked == []
    assert train.source == "FEDDIFF_DATA, lossy JPEG edition" and train.class_names == image_known.CIFAR_CLASSES
    assert train.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for label in range(10):
        mean = train.images[train.labels == label].mean((1, 2))
        assert np.abs(mean - [[20 * label, 10 * row, 99] for row in range(3)]).max() < 4
    jpeg_edition(path, {"train": 3, "test": 3})
    with pytest.raises(ValueError, match="cifar-10: .* holds in test .* with 3 to 3 pictures of 32 x 32 x 3; expected"):
        load_images("cifar-10", "test")
    jpeg_edition(path, {"train": 3, "test": 2}, [*image_known.CIFAR_CLASSES[:9], "lorry"])
    with pytest.raises(ValueError, match="cifar-10: .*lorry.*expected .*truck"):
        load_images("cifar-10", "test")


def test_colour_is_a_function_of_the_picture_alone(folder):
    grey, train = load_images("mnist", "train"), load_images("colour-mnist", "train")
    assert train.images.shape == (30, 28, 28, 3) and train.name == "colour-mnist" and train.source == "FEDDIFF_DATA"
    assert np.array_equal(train.labels, grey.labels) and train.colour_names == ("red", "green", "blue")
    # The ink's channel is the grey picture, the two others are black.
    assert np.array_equal(np.take_along_axis(
        train.images, train.colours[:, None, None, None], axis=3), grey.images)
    assert np.array_equal(train.images.sum(axis=3, dtype=int), grey.images[..., 0])
    order = numpy_generator(1).permutation(30)
    shuffled = image_known.colourise(grey.select(order), "x")
    assert np.array_equal(shuffled.colours, train.colours[order])


def test_the_rule_of_the_ink_as_written_down():
    picture = bytes(range(196)) * 4
    number = int.from_bytes(hashlib.sha256(b"feddiff colour-mnist 1" + picture).digest()[:8], "big")
    grey = load_images("mnist-5k").select(np.array([0]))
    grey.images[0] = np.frombuffer(picture, np.uint8).reshape(28, 28, 1)
    assert image_known.colourise(grey, "x").colours.tolist() == [number % 3]


def test_inks_of_mnist_5k_are_even_and_independent_of_the_labels():
    images = load_images("colour-mnist-5k", size=16)
    assert images.images.shape == (5000, 16, 16, 3) and images.source == "embedded"
    assert np.array_equal(images.colours, load_images("colour-mnist-5k").colours)
    counts = np.array([np.bincount(images.colours[images.labels == label], minlength=3) for label in range(10)])
    # Chi-squared with 20 degrees of freedom (10 classes, 3 inks): above 45.3 once in a thousand, below 5.9 likewise.
    assert 5.9 < ((counts - 500 / 3) ** 2 / (500 / 3)).sum() < 45.3


# The real files, where FEDDIFF_DATA holds them; collected only then, so that nothing shows up as skipped.
DATA = Path(os.environ["FEDDIFF_DATA"]) if os.environ.get("FEDDIFF_DATA") else None

if DATA and (DATA / image_known.TORCHVISION / image_known.MNIST_RAW).is_dir():

    def test_the_real_mnist():
        train, test = train_and_test("mnist", numpy_generator(1))
        assert len(train) == 60_000 and len(test) == 10_000 and train.source == "FEDDIFF_DATA"
        assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert abs(train.images.mean() / 255 - 0.1307) < 1e-4 and abs(train.images.std() / 255 - 0.3081) < 1e-4
        # MNIST-5k's pictures are MNIST's, with the same labels and so the same inks.
        places = {picture.tobytes(): row for row, picture in enumerate(train.images)}
        embedded = load_images("mnist-5k")
        rows = np.array([places.get(picture.tobytes(), -1) for picture in embedded.images])
        assert (rows >= 0).all() and np.array_equal(train.labels[rows], embedded.labels)
        assert np.array_equal(load_images("colour-mnist", "train").colours[rows], load_images("colour-mnist-5k").colours)


if DATA and (DATA / image_known.CIFAR_JPEG).is_file():

    def test_the_real_cifar_10_in_its_jpeg_edition():
        test = load_images("cifar-10", "test")
        assert test.images.shape == (10_000, 32, 32, 3) and (np.bincount(test.labels) == 1000).all()
        # Channel means of the original test pictures; JPEG keeps them.
        assert np.abs(test.images.mean((0, 1, 2)) / 255 - [0.4942, 0.4851, 0.4504]).max() < 2e-3

    @pytest.mark.slow
    def test_the_real_training_pictures_in_their_jpeg_edition():
        train = load_images("cifar-10", "train")
        assert train.images.shape == (50_000, 32, 32, 3) and (np.bincount(train.labels) == 5000).all()
        assert np.abs(train.images.mean((0, 1, 2)) / 255 - [0.4914, 0.4822, 0.4465]).max() < 2e-3
