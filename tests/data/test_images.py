"""Image sets that come with the package or scikit-learn."""

import numpy as np
import pytest

from feddiff.data.images import ImageSet, load_images


@pytest.mark.parametrize(("name", "shape", "smallest", "largest"), [
    ("digits", (1797, 8, 8, 1), 174, 183),
    ("mnist-5k", (5000, 28, 28, 1), 500, 500),
])
def test_image_sets(name, shape, smallest, largest):
    images = load_images(name)
    assert images.images.shape == shape and images.images.dtype == np.uint8 and len(images) == shape[0]
    assert images.images.min() == 0 and images.images.max() == 255
    counts = np.bincount(images.labels)
    assert len(counts) == 10 and counts.min() == smallest and counts.max() == largest
    assert images.class_names == tuple("0123456789") and images.name == name and len(images.sha256) == 64
    # Zeros have a hole in the middle where ones have ink: the pictures are upright and match their labels.
    centre = slice(shape[1] // 2 - 1, shape[1] // 2 + 1)
    middle = images.images[:, centre, centre].mean((1, 2, 3))
    assert middle[images.labels == 0].mean() < 60 < 150 < middle[images.labels == 1].mean()


def test_digits_keep_their_seventeen_levels():
    assert len(np.unique(load_images("digits").images)) == 17


def test_refused():
    with pytest.raises(ValueError, match="'mnist'.*mnist-5k"):
        load_images("mnist")
    with pytest.raises(ValueError, match="uint8"):
        ImageSet(np.zeros((2, 3, 3)), np.zeros(2, int), ("a",), "x", "file", "")
    with pytest.raises(ValueError, match="labels"):
        ImageSet(np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, int), ("a",), "x", "file", "")
    with pytest.raises(ValueError, match="labels"):
        ImageSet(np.zeros((2, 3, 3, 1), np.uint8), np.ones(2, int), ("a",), "x", "file", "")
