"""A judge of coloured digits: read by class, features that see the ink, the same after a round trip."""

import numpy as np
import pytest
import torch

from feddiff.evaluation.image_distances import frechet
from feddiff.evaluation.image_features import train_judge
from feddiff.evaluation.image_inks import InkJudge, train_ink_judge


def bars(count, seed):
    """Return pictures (n, 3, 8, 8) of an upright (class 0) or a lying bar (class 1) in red, green or blue."""
    generator = np.random.default_rng(seed)
    labels, inks = generator.integers(0, 2, count), generator.integers(0, 3, count)
    pictures = -np.ones((count, 3, 8, 8), dtype=np.float32)
    for picture, label, ink, place in zip(pictures, labels, inks, generator.integers(2, 6, count), strict=True):
        picture[(ink, slice(None), place) if label == 0 else (ink, place)] = generator.uniform(0.6, 1)
    return torch.from_numpy(pictures), labels, inks


@pytest.fixture(scope="module")
def judges():
    (images, labels, inks), (test, test_labels, test_inks) = bars(600, 0), bars(300, 1)
    options = dict(seed=0, epochs=8, progress=False)
    coloured = train_ink_judge(images, labels, test, test_labels, inks=(inks, test_inks), data="bars", **options)
    return coloured, train_judge(images, labels, test, test_labels, data="bars", **options)


def test_it_is_read_by_class(judges):
    judge, (test, labels, _) = judges[0], bars(300, 1)
    shares = judge.probabilities(test)
    assert shares.shape == (300, 2) and np.allclose(shares.sum(1), 1)
    assert judge.classes == 2 and judge.network.classes == 6 and len(judge.recalls) == 2
    assert judge.accuracy == np.mean(judge.predict(test) == labels) > 0.95
    assert "class and ink" in judge.name and f"{judge.accuracy:.3f}" in judge.name


def test_its_features_see_another_ink_better_than_those_of_classes_alone(judges):
    test, _, inks = bars(600, 2)
    red = test[np.flatnonzero(inks == 0)]
    told = [frechet(judge.features(test), judge.features(red)) for judge in judges]
    assert told[0] > 2 * told[1]


def test_a_round_trip_gives_the_same_judge(judges):
    judge, again = judges[0], InkJudge.from_state(judges[0].to_state())
    test, _, _ = bars(50, 3)
    assert np.array_equal(judge.features(test), again.features(test))
    assert np.array_equal(judge.probabilities(test), again.probabilities(test))
    assert (again.accuracy, again.recalls, again.name) == (judge.accuracy, judge.recalls, judge.name)


def test_inks_that_do_not_fit_are_refused():
    images, labels, inks = bars(60, 0)
    with pytest.raises(ValueError, match="test inks"):
        train_ink_judge(images, labels, images, labels, inks=(inks, inks[:-1]), seed=0, progress=False)
    with pytest.raises(ValueError, match="no test picture of the classes"):
        train_ink_judge(images, labels, images, labels, inks=(inks, np.zeros_like(inks)), seed=0, progress=False)
