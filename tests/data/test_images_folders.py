"""A user's own pictures in class folders or a zip archive, against torchvision's ImageFolder and against bad input."""

import hashlib
import os
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from feddiff.data import image_folders
from feddiff.data.images import load_images, train_and_test
from feddiff.seeds import numpy_generator


def picture(path, mode="RGB", size=(6, 6), seed=0, **options):
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = numpy_generator(seed, path.name).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three classes, nested folders, several endings, hidden clutter."""
    root = tmp_path / "pets"
    for number, name in enumerate(["dog/b.png", "dog/a.JPG", "cat/z/1.bmp", "cat/z/q/1.png", "cat/z-1/1.png",
                                   "cat/2.png", "10/x.webp", "9/x.tiff"]):
        picture(root / name, seed=number)
    (root / ".cache").mkdir()
    (root / ".cache" / "no.png").write_bytes(b"no")
    (root / "cat" / ".DS_Store").write_bytes(b"no")
    (root / "dog" / "Thumbs.db").write_bytes(b"no")
    return root


def pack(folder, path, prefix="", order=1):
    """Pack a folder as it lies, hidden files and all."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"))[::order]:
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def test_a_folder_reads_as_torchvision_reads_it(folder):
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert image_folders.ENDINGS == IMG_EXTENSIONS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = load_images(folder)
    (folder / ".cache/no.png").unlink()
    (folder / ".cache").rmdir()
    theirs = ImageFolder(folder)
    assert ours.class_names == tuple(theirs.classes) == ("10", "9", "cat", "dog")
    assert ours.labels.tolist() == theirs.targets and ours.labels.dtype == np.int64
    assert np.array_equal(ours.images, [np.asarray(image) for image, _ in theirs])
    assert ours.name == "pets" and ours.source == "file" and ours.images.shape == (8, 6, 6, 3)
    assert np.array_equal(load_images(str(folder)).images, ours.images)


@pytest.mark.parametrize(("prefix", "order"), [("", 1), ("", -1), ("outer/", 1)])
def test_an_archive_reads_as_its_folder(folder, tmp_path, prefix, order):
    path = pack(folder, tmp_path / "packed.zip", prefix, order)
    packed, loose = load_images(path), load_images(folder)
    assert np.array_equal(packed.images, loose.images) and np.array_equal(packed.labels, loose.labels)
    assert packed.class_names == loose.class_names and packed.name == "packed" and packed.source == "file"
    assert packed.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_outer_folder_beside_a_note(folder, tmp_path):
    path = pack(folder, tmp_path / "packed.zip", "outer/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "hello")
        archive.writestr("__MACOSX/outer/._b.png", b"resource fork")
    with pytest.warns(UserWarning, match="packed.zip: 1 files .* README.txt"):
        assert load_images(path).class_names == ("10", "9", "cat", "dog")


def test_the_fingerprint_of_a_folder_is_of_names_and_bytes(folder):
    def fingerprint():
        return load_images(folder).sha256

    first = fingerprint()
    (folder / "dog/Thumbs.db").write_bytes(b"other")
    assert fingerprint() == first
    (folder / "dog/b.png").rename(folder / "dog/c.png")
    renamed = fingerprint()
    (folder / "dog/c.png").write_bytes((folder / "cat/2.png").read_bytes())
    assert len({first, renamed, fingerprint()}) == 3


def test_files_left_out_are_announced(folder):
    (folder / "dog/notes.txt").write_text("x")
    (folder / "stray.png").write_bytes((folder / "dog/b.png").read_bytes())
    with pytest.warns(UserWarning, match="pets: 2 files .* dog/notes.txt"):
        assert len(load_images(folder)) == 8


def test_grey_pictures_stay_grey_and_become_coloured_only_together(tmp_path):
    for place, mode in enumerate(["L", "1", "LA"]):
        picture(tmp_path / f"set/a/{place}.png", mode, seed=place)
    grey = load_images(tmp_path / "set")
    assert grey.images.shape == (3, 6, 6, 1) and set(np.unique(grey.images[1])) == {0, 255}
    for name, mode in [("p.png", "P"), ("q.png", "RGBA"), ("r.jpg", "CMYK")]:
        picture(tmp_path / "set/b" / name, mode)
    mixed = load_images(tmp_path / "set")
    assert mixed.images.shape == (6, 6, 6, 3) and (mixed.images[:3] == grey.images).all()
    for row, name in enumerate(["p.png", "q.png", "r.jpg"], 3):
        with Image.open(tmp_path / "set/b" / name) as reference:
            assert np.array_equal(mixed.images[row], np.asarray(reference.convert("RGB")))


def test_mixed_sizes_need_one(folder):
    picture(folder / "dog/c.png", size=(9, 7))
    with pytest.raises(ValueError, match=r"pets: dog/c.png is 9 x 7 pixels but 10/x.webp is 6 x 6; give size="):
        load_images(folder)
    scaled = load_images(folder, size=4)
    assert scaled.images.shape == (9, 4, 4, 3)
    # The same rule as for whole sets: the middle square, then scaled.
    with Image.open(folder / "dog/c.png") as one:
        expected = one.crop((1, 0, 8, 7)).resize((4, 4), Image.Resampling.BILINEAR)
    assert np.abs(scaled.images[-1].astype(int) - np.asarray(expected)).max() <= 1
    with pytest.raises(ValueError, match="size must be"):
        load_images(folder, size=0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("damage", [
    lambda raw: b"", lambda raw: b"not a picture at all", lambda raw: raw[: len(raw) // 2], lambda raw: raw[:20],
])
@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tiff", "webp"])
def test_a_damaged_picture_is_named(tmp_path, ending, damage):
    for name in "ab":
        picture(tmp_path / f"set/{name}/ok.{ending}", size=(40, 40))
    path = picture(tmp_path / f"set/b/sub/bad.{ending}", size=(40, 40))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"set: b/sub/bad.{ending} cannot be read as a picture.*repair or remove"):
        load_images(tmp_path / "set")


def test_damage_inside_an_archive_is_named(folder, tmp_path):
    path = pack(folder, tmp_path / "packed.zip")
    raw = (folder / "cat/z/1.bmp").read_bytes()
    whole = path.read_bytes()
    place = whole.index(raw) + len(raw) - 1
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    with pytest.raises(ValueError, match="packed.zip: cat/z/1.bmp cannot be read as a picture.*CRC"):
        load_images(path)


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    picture(tmp_path / "set/a/x.png", size=(30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(ValueError, match="a/x.png cannot be read.*bomb"):
        load_images(tmp_path / "set")


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_pictures_are_refused_not_squashed(tmp_path, mode):
    (tmp_path / "set/a").mkdir(parents=True)
    deep = np.full((4, 4), 3000, {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
    Image.fromarray(deep).save(tmp_path / "set/a/deep.tiff")
    with pytest.raises(ValueError, match="a/deep.tiff has more than 8 bits a channel"):
        load_images(tmp_path / "set")


def test_classes_without_pictures_and_places_without_classes(folder, tmp_path):
    (folder / "bird").mkdir()
    for place in (folder, pack(folder, tmp_path / "packed.zip")):
        with pytest.raises(ValueError, match=rf"{place.name}: the class folder 'bird' has no pictures"):
            load_images(place)
    (tmp_path / "flat").mkdir()
    with pytest.raises(ValueError, match="flat has no pictures in class folders; expected <class>/<picture>"):
        load_images(tmp_path / "flat")
    picture(tmp_path / "flat/x.png")
    with pytest.raises(ValueError, match="flat has no pictures in class folders.*found x.png"):
        load_images(tmp_path / "flat")


def test_places_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        load_images(tmp_path / "absent")
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 but then nothing")
    with pytest.raises(ValueError, match="x.zip is neither a folder nor a whole zip"):
        load_images(tmp_path / "x.zip")
    with pytest.raises(ValueError, match="x.png is neither"):
        load_images(picture(tmp_path / "x.png"))


@pytest.mark.parametrize(("name", "fault"), [
    ("../evil.png", "outside"), ("/etc/a/x.png", "outside"), ("a/../../x.png", "outside"), ("a\\x.png", "outside"),
    ("C:/a/x.png", "outside"), ("a//x.png", "plain name"), ("a/./x.png", "plain name"),
])
def test_unsafe_entries_are_refused(folder, tmp_path, name, fault):
    path = pack(folder, tmp_path / "packed.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(ValueError, match=rf"packed.zip: the entry .*{fault}"):
        load_images(path)


def test_links_encryption_twins_and_giants_are_refused(folder, tmp_path, monkeypatch):
    def packed(entry, content=b"x"):
        path = pack(folder, tmp_path / "packed.zip")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(entry, content)
        return path

    link = zipfile.ZipInfo("dog/link.png")
    link.external_attr = 0o120777 << 16
    with pytest.raises(ValueError, match="'dog/link.png' is a link"):
        load_images(packed(link, b"/etc/passwd"))
    with pytest.warns(UserWarning, match="Duplicate"):
        twin = packed("dog/b.png")
    with pytest.raises(ValueError, match="'dog/b.png' is in the archive twice"):
        load_images(twin)
    path = packed("dog/secret.png", b"some secret")
    raw = bytearray(path.read_bytes())
    # The general purpose flags lie 8 bytes into the entry of the central directory.
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="'dog/secret.png' is encrypted"):
        load_images(path)
    monkeypatch.setattr(image_folders, "LARGEST_BYTES", 1000)
    with pytest.raises(ValueError, match="'dog/large.png' unpacks to 1,001 bytes"):
        load_images(packed("dog/large.png", bytes(1001)))


@pytest.fixture
def parted(tmp_path):
    root = tmp_path / "parted"
    for part, count in [("train", 3), ("test", 2)]:
        for label in ("ant", "bee"):
            for row in range(count):
                picture(root / part / label / f"{row}.png", "L", seed=row + 10 * count)
    return root


@pytest.mark.parametrize("packed", [None, "", "outer/"])
def test_parts(parted, tmp_path, packed):
    place = parted if packed is None else pack(parted, tmp_path / "packed.zip", packed)
    assert image_folders.parts(place) == ("test", "train")
    train, test = train_and_test(place, numpy_generator(1))
    assert len(train) == 6 and len(test) == 4 and train.class_names == test.class_names == ("ant", "bee")
    assert np.array_equal(train.images, load_images(place, "train").images)
    assert np.array_equal(test.images, load_images(parted / "test").images)
    with pytest.raises(ValueError, match="comes in the parts test, train; choose one with part=, got None"):
        load_images(place)
    with pytest.raises(ValueError, match="got 'val'"):
        load_images(place, "val")


def test_parts_of_a_set_without_parts(folder):
    assert image_folders.parts(folder) == ()
    with pytest.raises(ValueError, match="pets does not come in parts.*part='train'"):
        load_images(folder, "train")


def test_a_class_may_be_called_train(tmp_path):
    for label in ("bus", "train"):
        for row in range(5):
            picture(tmp_path / f"set/{label}/{row}.png", seed=row)
    assert load_images(tmp_path / "set").class_names == ("bus", "train")
    train, test = train_and_test(tmp_path / "set", numpy_generator(1))
    assert np.bincount(train.labels).tolist() == [4, 4] and np.bincount(test.labels).tolist() == [1, 1]


def test_a_third_part_and_a_missing_one(parted):
    (parted / "test").rename(parted / "val")
    assert image_folders.parts(parted) == ("train", "val") and len(load_images(parted, "val")) == 4
    with pytest.raises(ValueError, match="parted has the parts train, val, but no test"):
        train_and_test(parted, numpy_generator(1))


def test_parts_must_match(parted):
    picture(parted / "test/cow/1.png", "L")
    with pytest.raises(ValueError, match="parts train and test must have the same class folders, 'cow' is in only one"):
        load_images(parted, "train")
    (parted / "test/cow/1.png").unlink()
    (parted / "test/cow").rmdir()
    picture(parted / "test/bee/9.png", "RGB")
    train, test = train_and_test(parted, numpy_generator(1))
    assert train.channels == test.channels == 3 and (train.images == train.images[..., :1]).all()
    for path in (parted / "test").rglob("*.png"):
        picture(path, size=(8, 5))
    with pytest.raises(ValueError, match="training pictures of 6 x 6 pixels but test pictures of 8 x 5.*size="):
        train_and_test(parted, numpy_generator(1))
    assert [part.size for part in train_and_test(parted, numpy_generator(1), size=4)] == [4, 4]


def test_linked_class_folders_are_followed(folder, tmp_path):
    (tmp_path / "subset").mkdir()
    os.symlink(folder / "dog", tmp_path / "subset/dog")
    assert len(load_images(tmp_path / "subset")) == 2
