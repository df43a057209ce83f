"""Image sets that come installed, tensors and back, change of size, training and test parts."""

import numpy as np
import pytest
import torch
from PIL import Image

from feddiff.data import images as image_sets
from feddiff.data.images import ImageSet, load_images, resize, to_tensor, to_uint8, train_and_test
from feddiff.seeds import numpy_generator


def image_set(images, labels=None, classes=2, **options):
    labels = np.zeros(len(images), dtype=np.int64) if labels is None else np.asarray(labels)
    return ImageSet(images, labels, tuple("abcdefghij"[:classes]), "mine", "file", "", **options)


@pytest.mark.parametrize(("name", "shape", "smallest", "largest"), [
    ("digits", (1797, 8, 8, 1), 174, 183),
    ("mnist-5k", (5000, 28, 28, 1), 500, 500),
])
def test_image_sets(name, shape, smallest, largest):
    images = load_images(name)
    assert images.images.shape == shape and images.images.dtype == np.uint8 and len(images) == shape[0]
    assert images.images.min() == 0 and images.images.max() == 255
    assert images.size == shape[1] and images.channels == 1 and images.colours is None
    counts = np.bincount(images.labels)
    assert len(counts) == 10 and counts.min() == smallest and counts.max() == largest
    assert images.class_names == tuple("0123456789") and images.name == name and len(images.sha256) == 64
    # Zeros have a hole in the middle where ones have ink: the pictures are upright and match their labels.
    centre = slice(shape[1] // 2 - 1, shape[1] // 2 + 1)
    middle = images.images[:, centre, centre].mean((1, 2, 3))
    assert middle[images.labels == 0].mean() < 60 < 150 < middle[images.labels == 1].mean()


def test_digits_keep_their_seventeen_levels():
    assert len(np.unique(load_images("digits").images)) == 17


@pytest.mark.parametrize("name", ["digits", "mnist-5k", "colour-mnist-5k"])
def test_installed_sets_have_no_parts(name):
    with pytest.raises(ValueError, match=f"{name} was not published in parts.*train_and_test"):
        load_images(name, "train")


@pytest.mark.parametrize("name", ["mnist", "cifar-10", "colour-mnist"])
@pytest.mark.parametrize("part", [None, "validation"])
def test_published_parts_must_be_chosen(name, part):
    with pytest.raises(ValueError, match=f"{name} comes in the parts train and test.*got {part!r}"):
        load_images(name, part)


def test_unknown_names():
    with pytest.raises(ValueError, match="'mnits'.*digits, mnist-5k, mnist, cifar-10"):
        load_images("mnits")
    with pytest.raises(ValueError, match="'mnits'"):
        train_and_test("mnits", numpy_generator(1))
    with pytest.raises(FileNotFoundError, match="pictures.zip does not exist"):
        load_images("pictures.zip")
    assert "digits" in image_sets.names()


def test_refused():
    with pytest.raises(ValueError, match="uint8"):
        ImageSet(np.zeros((2, 3, 3)), np.zeros(2, int), ("a",), "x", "file", "")
    with pytest.raises(ValueError, match="labels"):
        ImageSet(np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, int), ("a",), "x", "file", "")
    with pytest.raises(ValueError, match="labels"):
        ImageSet(np.zeros((2, 3, 3, 1), np.uint8), np.ones(2, int), ("a",), "x", "file", "")
    with pytest.raises(ValueError, match="colours"):
        image_set(np.zeros((2, 3, 3, 3), np.uint8), colours=np.zeros(3, int))
    with pytest.raises(ValueError, match="mine: pictures of 4 x 3 .*size="):
        image_set(np.zeros((2, 3, 4, 1), np.uint8)).size


def test_select_takes_positions_and_masks_with_everything_that_goes_along():
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    whole = image_set(pixels, [0, 1, 0, 1], colours=np.array([2, 1, 0, 2]), colour_names=("r", "g", "b"))
    for rows in (np.array([3, 0]), [3, 0]):
        part = whole.select(rows)
        assert part.images[:, 0, 0, 0].tolist() == [3, 0] and part.labels.tolist() == [1, 0]
        assert part.colours.tolist() == [2, 2] and part.colour_names == whole.colour_names and part.name == "mine"
    assert whole.select(whole.labels == 1).images[:, 0, 0, 0].tolist() == [1, 3]
    assert image_set(pixels).select(np.array([1])).colours is None


def test_every_byte_survives_the_way_to_tensors_and_back():
    pixels = np.arange(256 * 3, dtype=np.int64).astype(np.uint8).reshape(2, 16, 8, 3)
    tensor = to_tensor(pixels)
    assert tensor.dtype == torch.float32 and tensor.shape == (2, 3, 16, 8) and tensor.is_contiguous()
    assert tensor.min() == -1 and tensor.max() == 1
    # Axes: channel 2 of pixel (5, 7) of picture 1.
    assert tensor[1, 2, 5, 7] == pixels[1, 5, 7, 2] / 127.5 - 1
    back = to_uint8(tensor)
    assert back.dtype == np.uint8 and np.array_equal(back, pixels)


def test_values_outside_the_range_are_clamped_and_all_are_rounded():
    values = torch.tensor([-9.0, -1.0, 0.0, 0.0, 1.0, 9.0]) + torch.tensor([0, 0.0039, -0.001, 0.0079, -0.0039, 0])
    assert to_uint8(values.reshape(1, 1, 1, 6)).ravel().tolist() == [0, 0, 127, 129, 255, 255]


def test_tensors_that_are_no_pictures_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        to_uint8(torch.tensor([[[[0.0, float("nan")]]]]))
    with pytest.raises(ValueError, match="floats"):
        to_uint8(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="floats"):
        to_uint8(torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="uint8.*float32"):
        to_tensor(np.zeros((1, 2, 2, 1), np.float32))
    with pytest.raises(ValueError, match="uint8.*list"):
        to_tensor([[0]])


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_scaling_agrees_with_pillows_antialiased_bilinear(size):
    digits = load_images("mnist-5k").select(np.arange(0, 5000, 500))
    ours = resize(digits, size).images
    theirs = np.stack([
        np.asarray(Image.fromarray(picture[..., 0]).resize((size, size), Image.Resampling.BILINEAR))
        for picture in digits.images
    ])
    assert ours.shape == (10, size, size, 1) and ours.dtype == np.uint8
    # Pillow computes in whole numbers.
    assert np.abs(ours[..., 0].astype(int) - theirs).max() <= 1
    assert abs(ours.mean() - digits.images.mean()) < 1.5


def test_scaling_is_the_same_whatever_the_number_of_pictures(monkeypatch):
    from feddiff.data import image_set as module

    images = load_images("digits").select(np.arange(50))
    whole = resize(images, 5).images
    monkeypatch.setattr(module, "CHUNK", 7)
    assert np.array_equal(resize(images, 5).images, whole)
    assert resize(images.select(np.arange(0)), 5).images.shape == (0, 5, 5, 1)


def test_scaling_keeps_labels_and_does_nothing_at_the_same_size():
    digits = load_images("digits")
    assert resize(digits, 8).images is digits.images
    assert np.array_equal(resize(digits, 16).labels, digits.labels) and load_images("digits", size=16).size == 16


def test_the_middle_square_is_scaled_and_nothing_is_stretched():
    wide = np.zeros((1, 4, 10, 3), np.uint8)
    wide[:, :, 3:7] = (10, 20, 30)
    assert (resize(image_set(wide), 4).images == (10, 20, 30)).all()
    assert (resize(image_set(wide.transpose(0, 2, 1, 3)), 2).images == (10, 20, 30)).all()


@pytest.mark.parametrize("size", [0, -3, 2.0, True, "16"])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match=r"size must be a whole number of pixels >= 1"):
        resize(load_images("digits"), size)


def test_split_is_stratified_disjoint_complete_and_drawn_from_the_generator():
    digits = load_images("digits")
    train, test = train_and_test("digits", numpy_generator(1, "data"), test_fraction=0.25, size=4)
    assert len(test) == round(0.25 * 1797) and len(train) + len(test) == 1797 and train.size == test.size == 4
    of_all, of_test = np.bincount(digits.labels), np.bincount(test.labels)
    assert np.abs(of_test - 0.25 * of_all).max() < 1
    # The parts interleave to the whole again: same pictures, same order.
    small = resize(digits, 4).images.reshape(1797, -1)
    places = []
    for part in (train, test):
        place = -1
        for picture in part.images.reshape(len(part), -1):
            place = next(row for row in range(place + 1, 1797) if np.array_equal(small[row], picture))
        places.append(place)
    assert max(places) == 1796
    joined = np.concatenate([train.images, test.images]).reshape(1797, -1)
    assert np.array_equal(np.unique(joined, axis=0), np.unique(small, axis=0))
    again = train_and_test("digits", numpy_generator(1, "data"), test_fraction=0.25, size=4)[1]
    other = train_and_test("digits", numpy_generator(2, "data"), test_fraction=0.25, size=4)[1]
    assert np.array_equal(again.images, test.images) and not np.array_equal(other.images, test.images)


@pytest.mark.parametrize(("fraction", "message"), [
    (0.0, "must lie in"), (1.0, "must lie in"), (float("nan"), "must lie in"), (-0.1, "must lie in"),
    (0.001, "digits: class '0' has 178 pictures.*178 for training and 0"),
    (0.9995, "digits: class.*0 for training"),
])
def test_fractions_that_leave_a_class_out_are_refused(fraction, message):
    with pytest.raises(ValueError, match=message):
        train_and_test("digits", numpy_generator(1), test_fraction=fraction)
