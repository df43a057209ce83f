"""Fréchet, kernel distance, precision and recall: closed forms, oracles, two-sided statistics, refusals."""

import json

import numpy as np
import pytest
from scipy.linalg import sqrtm

from feddiff.evaluation import image_distances


def rng(seed):
    return np.random.default_rng(seed)


def covariance(dimension, seed, least=0.1):
    g = rng(seed)
    basis, _ = np.linalg.qr(g.normal(size=(dimension, dimension)))
    return basis * np.geomspace(least, 3.0, dimension) @ basis.T


def by_sqrtm(mean_1, covariance_1, mean_2, covariance_2):
    """The textbook formula with scipy's square root of the product."""
    root = np.real(sqrtm(covariance_1 @ covariance_2))
    return np.sum((mean_1 - mean_2) ** 2) + np.trace(covariance_1 + covariance_2 - 2 * root)


def brute_force_inside(queries, points, k):
    inside = []
    for query in queries:
        hit = False
        for index, point in enumerate(points):
            others = np.delete(points, index, axis=0)
            radius = np.sort(np.linalg.norm(others - point, axis=1))[k - 1]
            hit |= np.linalg.norm(query - point) <= radius * (1 + 1e-12)
        inside.append(hit)
    return np.mean(inside)


# Fréchet


def test_one_dimension_by_hand():
    # (2 - 5)^2 + (3 - 1)^2, variances 9 and 1
    assert image_distances.frechet_gaussians([2.0], [[9.0]], [5.0], [[1.0]]) == pytest.approx(13.0)
    assert image_distances.frechet([[0.0], [2.0]], [[10.0], [14.0]]) == pytest.approx(121 + (8**0.5 - 2**0.5) ** 2)


def test_commuting_covariances_differ_by_their_roots():
    g = rng(0)
    basis, _ = np.linalg.qr(g.normal(size=(6, 6)))
    one, two, gap = g.uniform(0, 4, 6), g.uniform(0, 4, 6), g.normal(size=6)
    found = image_distances.frechet_gaussians(gap, basis * one @ basis.T, np.zeros(6), basis * two @ basis.T)
    assert found == pytest.approx(gap @ gap + np.sum((np.sqrt(one) - np.sqrt(two)) ** 2), rel=1e-10)


@pytest.mark.parametrize("dimension", [1, 2, 8, 40])
def test_equals_scipys_square_root(dimension):
    first, second = covariance(dimension, 1), covariance(dimension, 2)
    means = rng(3).normal(size=(2, dimension))
    expected = by_sqrtm(means[0], first, means[1], second)
    assert image_distances.frechet_gaussians(means[0], first, means[1], second) == pytest.approx(expected, rel=1e-9)
    g = rng(4)
    real = g.multivariate_normal(means[0], first, 3 * dimension + 5)
    synthetic = g.multivariate_normal(means[1], second, 2 * dimension + 9)
    fits = [(side.mean(0), np.atleast_2d(np.cov(side.T))) for side in (real, synthetic)]
    assert image_distances.frechet(real, synthetic) == pytest.approx(by_sqrtm(*fits[0], *fits[1]), rel=1e-9)


def test_nearly_singular_features_keep_their_digits():
    """Features of ReLU layers are nearly dependent; the product of covariances then has no square root to speak of."""
    first = covariance(30, 5, least=1e-16)
    assert abs(image_distances.frechet_gaussians(np.zeros(30), first, np.zeros(30), first)) < 1e-12
    g = rng(6)
    real, other = (g.normal(size=(100, 4)) @ g.normal(size=(4, 30)) for _ in range(2))
    assert image_distances.frechet(real, real[::-1]) < 1e-10
    # Two planes of 4 dimensions in 30: by the 4 x 4 roots, where nothing is singular.
    (u, s, _), (v, r, _) = (np.linalg.svd(np.cov(side.T)) for side in (real, other))
    small = np.sqrt(s[:4])[:, None] * (u[:, :4].T @ v[:, :4]) * np.sqrt(r[:4])
    expected = np.sum((real.mean(0) - other.mean(0)) ** 2) + s.sum() + r.sum()
    expected -= 2 * np.trace(np.real(sqrtm(small @ small.T)))
    assert image_distances.frechet(real, other) == pytest.approx(expected, rel=1e-8)


def test_symmetry_order_rotation_scale_and_inputs():
    g = rng(7)
    real, synthetic = g.normal(size=(80, 5)) + 3, g.normal(size=(60, 5)) * [1, 2, 3, 1, 1]
    before = real.copy(), synthetic.copy()
    value = image_distances.frechet(real, synthetic)
    turn, _ = np.linalg.qr(g.normal(size=(5, 5)))
    assert image_distances.frechet(synthetic, real) == pytest.approx(value, rel=1e-12)
    assert image_distances.frechet(g.permutation(real), synthetic[::-1]) == pytest.approx(value, rel=1e-10)
    assert image_distances.frechet(real @ turn + 7, synthetic @ turn + 7) == pytest.approx(value, rel=1e-10)
    assert image_distances.frechet(10 * real, 10 * synthetic) == pytest.approx(100 * value, rel=1e-10)
    np.testing.assert_array_equal(real, before[0])
    np.testing.assert_array_equal(synthetic, before[1])


def test_too_few_pictures_are_refused_with_the_count_that_is_needed():
    g = rng(8)
    many = g.normal(size=(500, 64))
    with pytest.raises(ValueError, match="64 synthetic pictures are too few .* 64 features: at least 65 are needed"):
        image_distances.frechet(many, many[:64])
    with pytest.raises(ValueError, match="50 real pictures"):
        image_distances.frechet(many[:50], many)
    assert image_distances.frechet(many, many[:65]) > 0
    with pytest.raises(ValueError, match="one of 20 groups left out: at least 69 are needed"):
        image_distances.frechet_estimate(many, many[:68], generator=g)
    assert image_distances.frechet_estimate(many, many[:69], generator=g).distance.count == 20
    with pytest.raises(ValueError, match="at least 130 are needed"):
        image_distances.frechet_estimate(many, many[:60], groups=2, generator=g)
    assert image_distances.frechet_estimate(many, many[:130], groups=2, generator=g).distance.value > 0
    for groups in (1, 2.0, 13):
        with pytest.raises(ValueError, match="groups must be an integer from 2 to 12"):
            image_distances.frechet_estimate(many[:, :1], many[:12, :1], groups=groups, generator=g)


def test_estimates_agree_with_the_truth_from_both_sides():
    """Gaussians with a known distance: the plain value is too large, the corrected one is not, its interval covers."""
    dimension, count, repeats = 6, 150, 250
    first, second, gap = covariance(dimension, 9), covariance(dimension, 10), np.full(dimension, 0.5)
    truth = image_distances.frechet_gaussians(gap, first, np.zeros(dimension), second)
    plain, corrected, covered = [], [], []
    for seed in range(repeats):
        g = rng(seed)
        real = g.multivariate_normal(gap, first, count)
        synthetic = g.multivariate_normal(np.zeros(dimension), second, count)
        estimate = image_distances.frechet_estimate(real, synthetic, generator=g, groups=10, confidence=0.9)
        assert estimate.distance.value == image_distances.frechet(real, synthetic)
        plain.append(estimate.distance.value)
        corrected.append(estimate.corrected.value)
        covered.append(estimate.corrected.low <= truth <= estimate.corrected.high)
    error = np.std(plain) / np.sqrt(repeats)
    assert np.mean(plain) - truth > 4 * error
    assert abs(np.mean(corrected) - truth) < 4 * np.std(corrected) / np.sqrt(repeats)
    assert abs(np.mean(covered) - 0.9) < 4 * np.sqrt(0.09 / repeats)


def test_between_equal_laws_only_the_corrected_value_is_about_zero():
    plain, corrected = [], []
    for seed in range(150):
        g = rng(1000 + seed)
        estimate = image_distances.frechet_estimate(
            g.normal(size=(200, 8)), g.normal(size=(200, 8)), generator=g, groups=10)
        plain.append(estimate.distance.value)
        corrected.append(estimate.corrected.value)
    assert min(plain) > 0 and np.mean(plain) > 0.05
    assert abs(np.mean(corrected)) < 0.1 * np.mean(plain)
    assert min(corrected) < 0 < max(corrected)


def test_estimates_do_not_follow_the_order_of_rows():
    """Sorted by class, contiguous groups would leave a class out at a time: the interval would be all class."""
    g = rng(11)
    labels = np.repeat(np.arange(10), 100)
    real, synthetic = (8 * np.eye(10)[labels] + g.normal(size=(1000, 10)) for _ in range(2))
    synthetic += np.arange(10) / 5
    ordered = image_distances.frechet_estimate(real, synthetic, generator=rng(0), groups=10)
    shuffled = image_distances.frechet_estimate(g.permutation(real), synthetic, generator=rng(1), groups=10)
    width = ordered.distance.high - ordered.distance.low
    assert width == pytest.approx(shuffled.distance.high - shuffled.distance.low, rel=0.6)
    assert width < 0.3 * ordered.distance.value


@pytest.mark.parametrize(("arguments", "message"), [
    (([0.0], [[1.0]], [0.0, 1.0], np.eye(2)), "two vectors of one length"),
    (([0.0], [[1.0, 0.0]], [0.0], [[1.0]]), r"finite \(1, 1\)"),
    ((np.zeros(2), [[1.0, 0.5], [0.0, 1.0]], np.zeros(2), np.eye(2)), "symmetric"),
    ((np.zeros(2), np.diag([1.0, -0.1]), np.zeros(2), np.eye(2)), "the least is -0.1"),
])
def test_bad_gaussians_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        image_distances.frechet_gaussians(*arguments)


# Kernel distance


def test_mmd_is_its_definition():
    g = rng(12)
    real, synthetic = g.normal(size=(7, 3)), g.normal(size=(5, 3)) + 1

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    def within(side):
        return np.mean([kernel(x, y) for i, x in enumerate(side) for j, y in enumerate(side) if i != j])

    across = np.mean([kernel(x, y) for x in real for y in synthetic])
    expected = within(real) + within(synthetic) - 2 * across
    assert image_distances.polynomial_mmd(real, synthetic) == pytest.approx(expected, rel=1e-10)
    long = np.tile(real, (500, 1)) + 1e-3 * g.normal(size=(3500, 3))  # several portions
    assert image_distances.polynomial_mmd(long, synthetic[::-1]) == pytest.approx(
        image_distances.polynomial_mmd(g.permutation(long), synthetic), rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_mmd_is_unbiased_and_the_version_with_the_diagonal_is_not(shift):
    """In one dimension (xy + 1)^3 compares three moments: 3 (dm_1)^2 + 3 (dm_2)^2 + (dm_3)^2."""
    truth = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    values, biased = [], []
    for seed in range(2000):
        g = rng(seed)
        real, synthetic = g.normal(size=(12, 1)), g.normal(size=(15, 1)) + shift
        values.append(image_distances.polynomial_mmd(real, synthetic))
        means = [((side @ other.T + 1) ** 3).mean() for side, other in
                 ((real, real), (synthetic, synthetic), (real, synthetic))]
        biased.append(means[0] + means[1] - 2 * means[2])
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - truth) < 4 * error
    assert np.mean(biased) - truth > 8 * error
    if shift == 0:
        assert 0.2 < np.mean(np.array(values) < 0) < 0.9


@pytest.mark.parametrize(("shift", "least", "most"), [(0.5, 0.9, 0.9), (0.0, 0.9, 1.0)])
def test_kid_interval_covers_the_truth_from_both_sides(shift, least, most):
    """Between equal laws the statistic is degenerate and the interval too wide, never too narrow."""
    repeats, hits = 120, []
    truth = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    for seed in range(repeats):
        g = rng(seed)
        estimate = image_distances.kid(
            g.normal(size=(300, 1)), g.normal(size=(200, 1)) + shift, generator=g, groups=10, confidence=0.9)
        hits.append(estimate.low <= truth <= estimate.high)
        assert estimate.count == 10
    slack = 4 * np.sqrt(0.09 / repeats)
    assert least - slack < np.mean(hits) < most + slack


def test_kid_is_the_whole_statistic_with_the_jackknife_of_its_definition():
    g = rng(13)
    real, synthetic = g.normal(size=(47, 3)), g.normal(size=(30, 3)) + 0.3
    estimate = image_distances.kid(real, synthetic, generator=rng(5), groups=4)
    assert estimate.value == pytest.approx(image_distances.polynomial_mmd(real, synthetic), rel=1e-9)
    order, variance = rng(5), 0.0
    shuffled = [side[order.permutation(len(side))] for side in (real, synthetic)]
    for side in (0, 1):
        values = []
        for group in np.array_split(np.arange(len(shuffled[side])), 4):
            pair = list(shuffled)
            pair[side] = np.delete(pair[side], group, axis=0)
            values.append(image_distances.polynomial_mmd(*pair))
        variance += 3 * np.var(values)
    assert estimate.high - estimate.value == pytest.approx(3.182446 * np.sqrt(variance), rel=1e-6)  # t_{.975, 3}
    assert estimate.value - estimate.low == pytest.approx(estimate.high - estimate.value)


def test_too_few_pictures_for_a_kernel_distance_are_refused():
    g = rng(13)
    real, synthetic = g.normal(size=(40, 3)), g.normal(size=(30, 3))
    for groups in (1, 31):
        with pytest.raises(ValueError, match="groups must be an integer from 2 to 30"):
            image_distances.kid(real, synthetic, generator=g, groups=groups)
    with pytest.raises(ValueError, match="confidence must lie in"):
        image_distances.kid(real, synthetic, generator=g, confidence=1.0)
    with pytest.raises(ValueError, match="at least 4 pictures a side, got 40 real and 3 synthetic"):
        image_distances.kid(real, synthetic[:3], generator=g, groups=2)
    assert np.isfinite(image_distances.kid(real, synthetic[:4], generator=g, groups=4).low)
    with pytest.raises(ValueError, match="at least 2 synthetic pictures"):
        image_distances.polynomial_mmd(real, synthetic[:1])


# Precision and recall


@pytest.mark.parametrize("k", [1, 3, 7])
def test_precision_recall_is_its_definition(k):
    g = rng(14)
    real, synthetic = g.normal(size=(60, 4)), 0.7 * g.normal(size=(60, 4)) + 0.8
    found = image_distances.precision_recall(real, synthetic, k=k)
    assert found == (brute_force_inside(synthetic, real, k), brute_force_inside(real, synthetic, k), k, 60)
    assert 0 < found.recall < found.precision < 1
    reverse = image_distances.precision_recall(synthetic, real, k=k)
    assert (reverse.precision, reverse.recall) == (found.recall, found.precision)


def test_planted_cases():
    g = rng(15)
    modes = np.repeat([[0.0, 0.0], [100.0, 0.0]], 100, axis=0)
    real = modes + g.normal(size=modes.shape)
    same = image_distances.precision_recall(real, g.permutation(real))
    assert (same.precision, same.recall) == (1.0, 1.0)
    far = image_distances.precision_recall(real, real + 1000)
    assert (far.precision, far.recall) == (0.0, 0.0)
    # One of two modes, drawn densely: all inside, half covered.
    dropped = image_distances.precision_recall(real, np.tile(real[:100], (2, 1)) + 1e-3 * g.normal(size=real.shape))
    assert dropped.precision == 1.0 and dropped.recall == 0.5
    # The truth plus as much rubbish: half inside, and rubbish covers nothing.
    rubbish = np.concatenate([real[::2], real[::2] + [0.0, 5000.0]])
    polluted = image_distances.precision_recall(real, rubbish)
    assert polluted.precision == 0.5 and polluted.recall > 0.9


def test_repeated_pictures_are_inside_balls_of_radius_zero():
    """Four copies give a radius of 0 for k = 3; large offsets make the expansion of the square round."""
    copies = np.repeat(rng(16).normal(size=(20, 30)) + 1000, 4, axis=0)
    found = image_distances.precision_recall(copies, copies[::-1], k=3)
    assert (found.precision, found.recall) == (1.0, 1.0)
    moved = copies.copy()
    moved[:, 0] += 0.01
    assert image_distances.precision_recall(copies, moved, k=3).precision == 0.0


def test_a_point_on_the_surface_is_inside_whatever_the_rounding():
    angles = np.linspace(0, 2 * np.pi, 100)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    # A ball of radius 1 (k = 1) far from the centre of all points, which are copies of one elsewhere.
    real = np.concatenate([[[900.0, 700.0], [901.0, 700.0]], np.tile([[-40.0, 3.0]], (98, 1))])
    assert image_distances.precision_recall(real, circle + [900.0, 700.0], k=1).precision == 1.0
    assert image_distances.precision_recall(real, 1.0001 * circle[30:70] + [900.0, 700.0], k=1,
                                            generator=np.random.default_rng(0)).precision == 0.0


def test_counts_are_made_equal_by_drawing():
    g = rng(17)
    real, synthetic = g.normal(size=(300, 3)), g.normal(size=(90, 3))
    with pytest.raises(ValueError, match="300 real and 90 synthetic pictures: pass generator="):
        image_distances.precision_recall(real, synthetic)
    drawn = [image_distances.precision_recall(real, synthetic, generator=rng(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] and drawn[0].count == 90 and drawn[0] != drawn[2]
    with pytest.raises(ValueError, match="from 1 to 89"):
        image_distances.precision_recall(real, synthetic, k=90, generator=g)


# All


@pytest.mark.parametrize(("real", "synthetic", "message"), [
    (np.zeros((0, 2)), np.zeros((9, 2)), "the real features must be non-empty"),
    (np.zeros((9, 2)), np.zeros(9), "the synthetic features must be non-empty"),
    (np.zeros((9, 2)), np.full((9, 2), np.nan), "the synthetic features hold values that are not finite"),
    (np.zeros((9, 2)), np.zeros((9, 3)), "2 real and 3 synthetic features"),
])
def test_bad_features_are_named(real, synthetic, message):
    g = rng(0)
    for distance in (
        image_distances.frechet, image_distances.polynomial_mmd, image_distances.precision_recall,
        lambda *pair: image_distances.kid(*pair, generator=g),
        lambda *pair: image_distances.frechet_estimate(*pair, generator=g),
    ):
        with pytest.raises(ValueError, match=message):
            distance(real, synthetic)


def test_the_protocol_is_plain_and_complete():
    entry = image_distances.protocol("LeNet-64", dimension=np.int64(64), reference="test", real=1000, synthetic=500)
    assert json.loads(json.dumps(entry)) == entry
    assert (entry["features"], entry["reference"], entry["real_count"], entry["synthetic_count"]) == (
        "LeNet-64", "test", 1000, 500)
    with pytest.raises(ValueError, match="must be named"):
        image_distances.protocol("LeNet-64", dimension=64, reference="", real=1, synthetic=1)
