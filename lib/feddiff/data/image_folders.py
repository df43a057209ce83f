"""A user's own pictures: a folder, or a zip archive, with one folder for each class."""

import contextlib
import hashlib
import io
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from feddiff.data.download import digest
from feddiff.data.image_set import ImageSet, check_size, square

# torchvision's ImageFolder reads the same.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
PARTS = ("train", "test")
GREY = ("1", "L", "LA", "La")
DEEP = ("I", "F")
CLUTTER = ("__MACOSX", "Thumbs.db", "desktop.ini")
# An archive may claim any size for a file; no picture of a data set is larger than this.
LARGEST_BYTES = 1 << 28
# What Pillow and zipfile raise for damaged content; zipfile NotImplementedError for a compression it does not know.
DAMAGE = (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, zlib.error, zipfile.BadZipFile,
          NotImplementedError, Image.DecompressionBombError)

Name = tuple[str, ...]


@dataclass(frozen=True)
class _Store:
    """The visible files and folders of a place, as names relative to it, and how to read a file."""

    files: list[Name]
    folders: set[Name]
    read: Callable[[Name], bytes]

    def below(self, top: Name) -> "_Store":
        depth = len(top)
        return _Store([name[depth:] for name in self.files if name[:depth] == top],
                      {name[depth:] for name in self.folders if name[:depth] == top and len(name) > depth},
                      lambda name: self.read(top + name))

    @property
    def tops(self) -> list[str]:
        return sorted({name[0] for name in self.folders})


def load(path: Path, part: str | None = None, *, size: int | None = None) -> ImageSet:
    """Return the pictures of `path`: <class>/.../<picture>, or <part>/<class>/.../<picture>, in sorted order.

    path: a folder or a .zip archive (which may wrap everything in one outer folder). Classes are the sorted names of
    the folders, as in torchvision's ImageFolder; hidden files are passed over, files with another ending than ENDINGS
    are left out with a warning. part: required where there are folders train or test with class folders inside; all
    parts must have the same classes. size: bring every picture to size x size (see `image_set.square`).

    Pictures are grey (one channel) if all of them are, else every one becomes RGB; transparency is dropped, palettes
    count as colour, EXIF rotation is not applied. sha256 is that of the archive, or for a folder that of the names
    and bytes of its pictures. FileNotFoundError without the path; ValueError that names the file or class for
    a damaged picture, more than 8 bits a channel, mixed sizes without `size`, a class without pictures, unsafe entries.
    """
    path = Path(path).expanduser()
    if size is not None:
        check_size(size)
    with _open(path) as store:
        store, prefix = _choose(store, part, path)
        names = _pictures(store, path)
        images, fingerprint = _read(store, names, prefix, size, path)
    classes = store.tops
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number[name[0]] for name in names], dtype=np.int64)
    if path.is_file():
        return ImageSet(images, labels, tuple(classes), path.stem, "file", digest(path))
    return ImageSet(images, labels, tuple(classes), path.resolve().name, "file", fingerprint)


def parts(path: Path) -> tuple[str, ...]:
    """Return the parts that the pictures of `path` come in, () for none."""
    path = Path(path).expanduser()
    with _open(path) as store:
        return _parts(store)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[_Store]:
    if path.is_dir():
        yield _folder(path)
    elif not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a folder or zip archive with a folder for each class")
    else:
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path.name} is neither a folder nor a whole zip archive ({error}); expected one with a "
                             "folder for each class") from error
        with archive:
            yield _archive(archive, path)


def _visible(name: Name) -> bool:
    return not any(word.startswith(".") or word in CLUTTER for word in name)


def _folder(path: Path) -> _Store:
    def refuse(error: OSError):
        raise error

    files, folders = [], set()
    # By itself os.walk passes over folders that it may not read.
    for root, inner, found in os.walk(path, followlinks=True, onerror=refuse):
        here = Path(root).relative_to(path).parts
        inner[:] = [name for name in inner if _visible((name,))]
        folders.update((*here, name) for name in inner)
        files += [(*here, name) for name in found if _visible((name,))]
    return _Store(files, folders, lambda name: path.joinpath(*name).read_bytes())


def _archive(archive: zipfile.ZipFile, path: Path) -> _Store:
    files, folders = {}, set()
    for entry in archive.infolist():
        name = _entry_name(entry, path)
        if not _visible(name):
            continue
        if name in files:
            raise ValueError(f"{path.name}: {entry.filename!r} is in the archive twice; pack it anew")
        if not entry.is_dir():
            files[name] = entry
        folders.update(name[:depth] for depth in range(1, len(name) + entry.is_dir()))
    outer = {name[0] for name in folders}
    if len(outer) == 1 and not outer & set(PARTS) and all(len(name) > 2 for name in files if _is_picture(name)):
        # Most programs that pack a folder put the folder itself into the archive.
        files = {name[1:] or name: entry for name, entry in files.items()}
        folders = {name[1:] for name in folders if len(name) > 1}
    return _Store(list(files), folders, lambda name: archive.read(files[name]))


def _entry_name(entry: zipfile.ZipInfo, path: Path) -> Name:
    words = entry.filename.removesuffix("/").split("/")
    fault = None
    if "\\" in entry.filename or ":" in words[0] or any(word in ("", ".", "..") for word in words):
        fault = "leads outside the archive or is no plain name"
    elif stat.S_ISLNK(entry.external_attr >> 16):
        fault = "is a link"
    elif entry.flag_bits & 1:
        fault = "is encrypted"
    elif entry.file_size > LARGEST_BYTES:
        fault = f"unpacks to {entry.file_size:,} bytes"
    if fault:
        raise ValueError(f"{path.name}: the entry {entry.filename!r} {fault}; refused, pack the pictures anew")
    return tuple(words)


def _parts(store: _Store) -> tuple[str, ...]:
    pictures = [name for name in store.files if _is_picture(name)]
    tops = {name[0] for name in pictures}
    # A class may be called train, but then it holds pictures, not class folders.
    return tuple(sorted(tops)) if tops & set(PARTS) and all(len(name) > 2 for name in pictures) else ()


def _choose(store: _Store, part: str | None, path: Path) -> tuple[_Store, str]:
    found = _parts(store)
    if part is None and not found:
        return store, ""
    if not found:
        raise ValueError(f"{path.name} does not come in parts (folders train and test with the class folders inside); "
                         f"leave out part={part!r}, train_and_test splits it")
    if part not in found:
        raise ValueError(f"{path.name} comes in the parts {', '.join(found)}; choose one with part=, got {part!r}")
    chosen = store.below((part,))
    for other in found:
        odd = sorted(set(store.below((other,)).tops) ^ set(chosen.tops))
        if odd:
            raise ValueError(f"{path.name}: the parts {part} and {other} must have the same class folders, "
                             f"{odd[0]!r} is in only one of them")
    return chosen, f"{part}/"


def _is_picture(name: Name) -> bool:
    return len(name) > 1 and name[-1].lower().endswith(ENDINGS)


def _pictures(store: _Store, path: Path) -> list[Name]:
    # ImageFolder's order: by class, then by folder inside the class, then by name.
    names = sorted(filter(_is_picture, store.files), key=lambda name: (name[0], "/".join(name[1:-1]), name[-1]))
    left_out = sorted(name for name in store.files if not _is_picture(name))
    if not names:
        raise ValueError(f"{path.name} has no pictures in class folders; expected <class>/<picture> with one of the "
                         f"endings {', '.join(ENDINGS)}" + (f", found {'/'.join(left_out[0])}" if left_out else ""))
    empty = sorted(set(store.tops) - {name[0] for name in names})
    if empty:
        raise ValueError(f"{path.name}: the class folder {empty[0]!r} has no pictures (endings {', '.join(ENDINGS)}); "
                         "remove it or fill it")
    if left_out:
        warnings.warn(f"{path.name}: {len(left_out)} files are no pictures in a class folder and were left out, the "
                      f"first is {'/'.join(left_out[0])}", UserWarning, stacklevel=3)
    return names


def _read(store: _Store, names: list[Name], prefix: str, size: int | None, path: Path) -> tuple[np.ndarray, str]:
    pictures, content = [], hashlib.sha256()
    for name in tqdm(names, desc=path.name, unit="picture", leave=False, delay=2.0):
        text = f"{path.name}: {prefix}{'/'.join(name)}"
        try:
            raw = store.read(name)
            picture = _decode(raw)
        except DAMAGE as error:
            raise ValueError(f"{text} cannot be read as a picture ({error}); repair or remove it") from error
        if picture.dtype != np.uint8:
            raise ValueError(f"{text} has more than 8 bits a channel; convert it to 8 bits")
        picture = picture if size is None else square(picture[None], size)[0]
        if pictures and picture.shape[:2] != pictures[0].shape[:2]:
            raise ValueError(
                f"{text} is {picture.shape[1]} x {picture.shape[0]} pixels but {'/'.join(names[0])} is "
                f"{pictures[0].shape[1]} x {pictures[0].shape[0]}; give size= to bring all pictures to one size"
            )
        content.update(f"{'/'.join(name)}\0{len(raw)}\0".encode("utf-8", "surrogateescape") + raw)
        pictures.append(picture)
    images = np.empty((len(pictures), *pictures[0].shape[:2], max(picture.shape[2] for picture in pictures)), np.uint8)
    for row, picture in enumerate(pictures):
        # A grey picture among coloured ones gets three equal channels, as Pillow's own conversion would give it.
        images[row] = picture
    return images, content.hexdigest()


def _decode(raw: bytes) -> np.ndarray:
    """Return uint8 (h, w, 1) for a grey picture and (h, w, 3) for any other; deeper pictures keep their type."""
    with Image.open(io.BytesIO(raw)) as picture:
        if picture.mode.split(";")[0] in DEEP:
            return np.asarray(picture)
        pixels = np.asarray(picture.convert("L" if picture.mode in GREY else "RGB"))
    return pixels[..., None] if pixels.ndim == 2 else pixels
