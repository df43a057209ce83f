"""Label accuracy, groups, train-on-synthetic and the copy test: planted cases, each seen by the measure meant for it."""

import numpy as np
import pytest
import torch

from feddiff.data.images import load_images
from feddiff.evaluation import image_distances, image_features, image_quality


def digits():
    loaded = load_images("digits")
    pictures = torch.from_numpy(loaded.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    order = np.random.default_rng(0).permutation(len(pictures))
    return pictures[order], loaded.labels[order]


PICTURES, LABELS = digits()
# The judge's training pictures; then a generator's own, an equal held-out set, and what neither has seen.
JUDGED, OWN, HELD_OUT, FRESH = slice(0, 900), slice(900, 1199), slice(1199, 1498), slice(1498, None)


@pytest.fixture(scope="module")
def judge():
    return image_features.train_judge(PICTURES[JUDGED], LABELS[JUDGED], PICTURES[900:], LABELS[900:], seed=0,
                                      epochs=20, data="digits", progress=False)


# Labels


def test_label_accuracy_is_the_share_read_rightly(judge):
    found = image_quality.label_accuracy(judge, PICTURES[900:], LABELS[900:])
    assert found.value == judge.accuracy > 0.95 and found.count == 897
    assert found.low < found.value < found.high
    swapped = (LABELS[900:] + 5) % 10
    assert image_quality.label_accuracy(judge, PICTURES[900:], swapped).value < 0.05
    noise = torch.rand(500, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert image_quality.label_accuracy(judge, noise, np.arange(500) % 10).value < 0.25


def test_confusion_shows_a_planted_swap(judge):
    """A model that draws 7 where 4 was asked for (PFDM, fig. 1 of its first version)."""
    asked = LABELS[900:].copy()
    asked[LABELS[900:] == 7] = 4
    table = image_quality.confusion(judge, PICTURES[900:], asked)
    assert table.shape == (10, 10) and table.sum() == 897 and table[7].sum() == 0
    np.testing.assert_array_equal(table.sum(1), np.bincount(asked, minlength=10))
    assert table[4, 7] > 0.9 * np.sum(LABELS[900:] == 7) and table[4, 4] > 0.9 * np.sum(LABELS[900:] == 4)
    honest = image_quality.confusion(judge, PICTURES[900:], LABELS[900:])
    assert honest.trace() / honest.sum() == judge.accuracy


def test_bad_labels_are_named(judge):
    with pytest.raises(ValueError, match="one label for each of 10 pictures"):
        image_quality.label_accuracy(judge, PICTURES[:10], LABELS[:9])
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 10\), got 0..10"):
        image_quality.confusion(judge, PICTURES[:11], np.arange(11))


# Groups

GROUPS = {"majority": range(5), "minority": range(5, 10)}


def test_groups_are_judged_apart(judge):
    """Good majority, blurred minority: the row of each group says so, and is what the parts say by themselves."""
    synthetic, labels = PICTURES[OWN].clone(), LABELS[OWN]
    minority = labels >= 5
    synthetic[minority] = synthetic[minority].mean(0) + 0.3 * (synthetic[minority] - synthetic[minority].mean(0))
    real, real_labels = PICTURES[HELD_OUT.start :], LABELS[HELD_OUT.start :]
    scores = image_quality.group_scores(judge, real, real_labels, synthetic, labels, groups=GROUPS,
                                        generator=np.random.default_rng(0))
    assert list(scores.columns) == ["group", "metric", "value", "low", "high", "real_count", "synthetic_count"]
    assert list(scores["group"]) == ["majority"] * 6 + ["minority"] * 6
    table = scores.pivot(index="metric", columns="group", values="value")
    assert table.loc["label_accuracy", "majority"] > 0.95 and table.loc["label_accuracy", "minority"] < 0.8
    for metric in ("frechet", "frechet_corrected", "kid"):
        assert table.loc[metric, "minority"] > 5 * max(table.loc[metric, "majority"], 0.1)
    assert table.loc["recall", "majority"] > table.loc["recall", "minority"] + 0.3
    row = scores[(scores["group"] == "minority") & (scores["metric"] == "frechet")].iloc[0]
    alone = image_distances.frechet(judge.features(real[real_labels >= 5]), judge.features(synthetic[minority]))
    assert row["value"] == pytest.approx(alone, rel=1e-6) and row["low"] < row["value"] < row["high"]
    assert (row["real_count"], row["synthetic_count"]) == ((real_labels >= 5).sum(), minority.sum())

    # Order of rows does not matter to the values.
    order = np.random.default_rng(1).permutation(len(labels))
    again = image_quality.group_scores(judge, real, real_labels, synthetic[order], labels[order], groups=GROUPS,
                                       generator=np.random.default_rng(0))
    plain = scores["metric"].isin(["label_accuracy", "frechet"])
    np.testing.assert_allclose(scores.loc[plain, "value"], again.loc[plain, "value"], rtol=1e-6)


def test_a_group_too_small_is_named_with_the_count_it_needs(judge):
    class Unused:
        dimension = 64

        def features(self, images):
            raise AssertionError("no work before the refusal")

    with pytest.raises(ValueError, match=r"group 'rare' \(classes \[3\]\): .* synthetic pictures .* at least 69"):
        image_quality.group_scores(judge, PICTURES, LABELS, PICTURES[OWN], LABELS[OWN], extractor=Unused(),
                                   groups={"all": range(10), "rare": [3]}, generator=np.random.default_rng(0))


# Train on synthetic, test on real


def downstream(labels, rows=JUDGED, steps=100, seed=0):
    return image_quality.tstr(PICTURES[rows], labels, PICTURES[900:], LABELS[900:], classes=10, seed=seed, steps=steps,
                              progress=False)


def test_tstr_is_high_on_real_pictures_and_chance_on_shuffled_labels():
    real = downstream(LABELS[JUDGED])
    assert real.balanced_accuracy > 0.9 and real.missing_classes == () and real.train_count == 900
    assert real.confusion.sum() == 897 and real.accuracy == real.confusion.trace() / 897
    assert real.recalls == tuple(real.confusion.diagonal() / real.confusion.sum(1))
    assert real.worst_recall == min(real.recalls) == real.recalls[real.worst_class]
    assert real.gap == max(real.recalls) - min(real.recalls)
    assert real.group([2, 5]) == (real.recalls[2] + real.recalls[5]) / 2
    shuffled = downstream(np.random.default_rng(1).permutation(LABELS[JUDGED]), steps=50)
    assert shuffled.balanced_accuracy < 0.3


def test_tstr_is_a_function_of_its_arguments():
    before = torch.get_rng_state()
    tables = [downstream(LABELS[JUDGED], steps=5, seed=seed).confusion for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert (tables[0] == tables[1]).all() and (tables[0] != tables[2]).any()


def test_tstr_shows_a_biased_set():
    """A set without 8, and with 3 drawn as 5: recall 0 for the one, the worst class the other."""
    keep = np.flatnonzero(LABELS[JUDGED] != 8)
    labels = LABELS[keep].copy()
    labels[labels == 3] = 5
    biased = downstream(labels, rows=keep)
    assert biased.missing_classes == (3, 8)
    assert biased.recalls[3] == biased.recalls[8] == biased.worst_recall == 0.0
    assert biased.confusion[:, 8].sum() == 0 and biased.confusion[3, 5] > 0.7 * biased.confusion[3].sum()
    # Untrained, the network would name the missing classes too.
    assert all(downstream(labels, rows=keep, steps=1, seed=seed).confusion[:, [3, 8]].sum() == 0 for seed in range(6))
    assert biased.group([0, 1, 2, 4, 6, 7]) > 0.85 and biased.gap > 0.85


def test_tstr_refuses_a_test_set_without_a_class():
    seven = np.flatnonzero(LABELS != 7)
    with pytest.raises(ValueError, match=r"the test pictures lack the classes \[7\]"):
        image_quality.tstr(PICTURES, LABELS, PICTURES[seven], LABELS[seven], classes=10, seed=0)


# Copies


def test_copies_are_seen_and_fresh_pictures_are_not():
    copies = image_quality.copy_test(PICTURES[OWN], PICTURES[OWN], PICTURES[HELD_OUT])
    assert copies.closer_to_train.value == copies.memorised.value == copies.exact_copies == 1.0
    assert copies.ratio_median == copies.distance_median == 0.0 and copies.memorised.low > 0.98
    assert (copies.synthetic_count, copies.train_count, copies.shared) == (299, 299, 0)
    fresh = image_quality.copy_test(PICTURES[FRESH], PICTURES[OWN], PICTURES[HELD_OUT])
    assert fresh.memorised.value == fresh.exact_copies == 0.0 and 0 < fresh.memorised.high < 0.02
    assert fresh.closer_to_train.low < 0.5 < fresh.closer_to_train.high and fresh.ratio_median > 0.8
    assert fresh.label == "copy detector, not privacy"


def test_a_share_of_copies_under_noise_is_counted():
    noise = 0.02 * torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed = torch.cat([PICTURES[OWN][:60] + noise, PICTURES[FRESH][:240]])
    report = image_quality.copy_test(mixed, PICTURES[OWN], PICTURES[HELD_OUT])
    assert report.memorised.value == 0.2 and report.exact_copies == 0.0
    assert 0.5 < report.closer_to_train.value < 0.7


def test_without_copies_neither_set_is_nearer_on_average():
    """Two-sided over many splits of pure noise; and what a memorising sampler adds is seen at once."""
    shares, leaning = [], []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        own, held_out, fresh = (torch.rand(40, 1, 4, 4, generator=generator) * 2 - 1 for _ in range(3))
        shares.append(image_quality.copy_test(fresh, own, held_out).closer_to_train.value)
        leaning.append(image_quality.copy_test(0.5 * fresh + 0.5 * own, own, held_out).closer_to_train.value)
    assert abs(np.mean(shares) - 0.5) < 4 * np.std(shares) / np.sqrt(60)
    assert np.mean(leaning) > 0.6


def test_a_frechet_distance_cannot_see_copies_but_the_copy_test_does(judge):
    reference = judge.features(PICTURES[FRESH])
    generator = np.random.default_rng(0)
    copied, honest = (
        image_distances.frechet_estimate(reference, judge.features(PICTURES[rows]), generator=generator).distance
        for rows in (OWN, HELD_OUT)
    )
    # As good as real pictures ever are: both within the other's interval, for the copier too.
    assert copied.low < honest.value < copied.high and honest.low < copied.value < honest.high
    reports = [image_quality.copy_test(PICTURES[rows], PICTURES[OWN], PICTURES[FRESH]) for rows in (OWN, HELD_OUT)]
    assert reports[0].memorised.value == 1.0 and reports[1].memorised.value == 0.0


def test_the_memorisation_criterion_by_hand():
    train = torch.tensor([[-1.0, -1.0], [0.0, -1.0], [0.0, -1.0], [1.0, 1.0]]).reshape(4, 1, 1, 2)
    held_out = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [-1.0, 0.5], [0.5, 1.0]]).reshape(4, 1, 1, 2)
    # On the line from (-1, -1) to (0, -1): d_1 / d_2 = a / (1 - a), below 1/3 for a < 1/4; (0, -1) itself is a copy,
    # although it is there twice and the next row is as near.
    synthetic = torch.tensor([[-0.76, -1.0], [-0.74, -1.0], [0.0, -1.0], [1.0, -1.0]]).reshape(4, 1, 1, 2)
    report = image_quality.copy_test(synthetic, train, held_out)
    assert report.memorised[:1] == (0.5,) and report.exact_copies == 0.25
    assert report.closer_to_train.value == 0.75 and report.distance_median == pytest.approx(0.25)
    np.testing.assert_allclose(
        image_quality.two_nearest(synthetic.flatten(1), train.flatten(1)),
        [[0.24, 0.76], [0.26, 0.74], [0, 1], [1, 2]], rtol=1e-6)


def test_ties_count_half():
    same = torch.zeros(4, 1, 1, 2)
    train = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.7, 0.7], [0.9, 0.9]]).reshape(4, 1, 1, 2)
    assert image_quality.copy_test(same, train, -train).closer_to_train.value == 0.5
    # Held-out pictures that are training pictures with some pixels swapped, so that sums round differently.
    own, fresh = PICTURES[OWN] - 0.01, torch.zeros(50, 1, 8, 8) + torch.linspace(-1, 1, 50).reshape(50, 1, 1, 1) / 3
    mirrored = image_quality.copy_test(fresh, own, own.flip(3))
    assert mirrored.closer_to_train.value == 0.5


def test_two_nearest_is_brute_force():
    g = np.random.default_rng(2)
    reference, queries = g.normal(size=(700, 40)) + 50, g.normal(size=(600, 40)) + 50
    queries[:5] = reference[:5]
    distances = np.sort(np.linalg.norm(queries[:, None] - reference[None], axis=2), axis=1)[:, :2]
    found = image_quality.two_nearest(queries, reference)
    np.testing.assert_allclose(found, distances, rtol=1e-9)
    assert (found[:5, 0] == 0).all()
    np.testing.assert_allclose(image_quality.two_nearest(queries[:9], reference[:2])[:, 0],
                               np.linalg.norm(queries[:9, None] - reference[:2], axis=2).min(1))


@pytest.mark.parametrize(("synthetic", "own", "held_out", "message"), [
    (FRESH, slice(0, 50), slice(50, 450), "50 training and 400 held-out pictures: .* draw equally many"),
    (FRESH, slice(0, 50), slice(40, 90), "10 of 50 held-out pictures are training pictures"),
    (FRESH, slice(0, 1), slice(1, 2), "at least two different pictures"),
])
def test_sets_that_would_hide_copies_are_refused(synthetic, own, held_out, message):
    with pytest.raises(ValueError, match=message):
        image_quality.copy_test(PICTURES[synthetic], PICTURES[own], PICTURES[held_out])


def test_sizes_must_agree_and_inputs_stay():
    with pytest.raises(ValueError, match="differ in .channels, height, width."):
        image_quality.copy_test(PICTURES[:9, :, :7], PICTURES[:9], PICTURES[9:18])
    kept = PICTURES[:40].clone()
    image_quality.copy_test(PICTURES[:40], PICTURES[OWN], PICTURES[HELD_OUT])
    assert torch.equal(PICTURES[:40], kept)
