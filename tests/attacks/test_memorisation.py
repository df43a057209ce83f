"""Memorisation of pictures: planted copies are extracted, samples of the same law are not."""

import numpy as np
import pytest

from feddiff.attacks import memorisation
from feddiff.evaluation.membership import auc
from feddiff.seeds import numpy_generator

TESTS = (memorisation.ratio_test, memorisation.extraction_test)


def pictures(count, name, d=16):
    return numpy_generator(0, name).normal(0, 0.5, (count, 1, 4, d // 4)).clip(-1, 1)


TRAINING, CONTROL = pictures(200, "training"), pictures(200, "control")


@pytest.mark.parametrize("judge", TESTS)
def test_planted_copies_are_extracted(judge):
    samples = pictures(100, "fresh")
    samples[:30] = TRAINING[5:35] + 0.02 * numpy_generator(0, "blur").standard_normal((30, 1, 4, 4))
    found = judge(samples, TRAINING, CONTROL)
    assert found.training.value == 0.3 and found.control.value == 0
    assert found.extracted.tolist() == list(range(5, 35))
    assert found.excess.low > 0.15 and found.excess.high < 0.45


@pytest.mark.parametrize("judge", TESTS)
def test_a_release_of_the_training_set_is_all_copies(judge):
    found = judge(TRAINING, TRAINING, CONTROL)
    assert found.training.value == 1 and found.control.value == 0 and len(found.extracted) == 200


@pytest.mark.parametrize("judge", TESTS)
def test_nothing_is_extracted_from_independent_samples(judge):
    found = judge(pictures(300, "fresh", 64), pictures(200, "training", 64), pictures(200, "control", 64))
    assert found.training.value == found.control.value == 0 and not len(found.extracted)
    assert found.excess.low <= 0 <= found.excess.high


@pytest.mark.parametrize("judge", TESTS)
def test_resemblance_that_the_control_shares_is_no_memory(judge):
    # Half of all pictures are nearly blank, in the training set, the control and the samples alike: near each other,
    # and the nearest of them nearer than most. The criteria fire, on both sides.
    rng = numpy_generator(1, "blank")
    sets = []
    for count in (200, 200, 400):
        dim = 0.4 * np.exp(2.5 * rng.standard_normal((count, 1, 1, 1)))
        sets.append((dim * rng.standard_normal((count, 1, 1, 2))).clip(-1, 1))
    training, control, samples = sets
    found = judge(samples, training, control)
    assert found.training.value > 0.05 and found.control.value > 0.05
    assert found.excess.low <= 0 <= found.excess.high


def test_the_nearest_sample_tells_members_where_samples_are_copies():
    copies = memorisation.nearest_scores(TRAINING[:150], np.concatenate([TRAINING[:150], CONTROL[:150]]))
    assert auc(copies[:150], copies[150:]) == 1 and (copies[:150] == 0).all()
    fresh = memorisation.nearest_scores(pictures(300, "fresh"), np.concatenate([TRAINING, CONTROL]))
    assert abs(auc(fresh[:200], fresh[200:]) - 0.5) < 0.06


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="equally many"):
        memorisation.ratio_test(CONTROL, TRAINING, CONTROL[:10])
    with pytest.raises(ValueError, match="number of values"):
        memorisation.ratio_test(CONTROL[..., :2], TRAINING, CONTROL)
    with pytest.raises(ValueError, match="neighbours"):
        memorisation.extraction_test(CONTROL, TRAINING, CONTROL, neighbours=201)
    with pytest.raises(ValueError, match="finite"):
        memorisation.nearest_scores(np.full((2, 3), np.nan), np.zeros((2, 3)))
