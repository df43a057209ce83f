"""Attacks on noised uploads: the stored values, closed forms, what must be exact and what must be chance."""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from feddiff.attacks import upload_matching as matching
from feddiff.data.images import load_images, to_tensor
from feddiff.diffusion.schedules import linear
from feddiff.evaluation.membership import auc, tpr_at_fpr
from feddiff.seeds import numpy_generator

ABAR = linear(1000).alpha_bar
# t0 -> top-1 and top-10 of 1,797 candidates at 8 x 8, top-1 at 32 x 32 without and with clipping to norm 10.
STORED = {
    100: (0.987, 1.000, 1.000, 0.999), 300: (0.231, 0.633, 0.995, 0.524), 400: (0.058, 0.240, 0.912, 0.169),
    600: (0.003, 0.023, 0.115, 0.010),
}
BAND = 0.03


def share(t0):
    return float(ABAR[t0 - 1])


def upload(pictures, alpha_bar, *names):
    z = numpy_generator(0, "noise", *names).standard_normal(pictures.shape)
    return math.sqrt(alpha_bar) * pictures + math.sqrt(1 - alpha_bar) * z


@pytest.fixture(scope="module")
def digits():
    found = load_images("digits")
    return to_tensor(found.images).flatten(1).numpy(), found.labels


@pytest.mark.parametrize("t0", STORED)
def test_uploads_are_matched_as_often_as_the_reference_found(digits, t0):
    x, everyone = digits[0], np.arange(len(digits[0]))
    top, ten, large, clipped = STORED[t0]
    found = matching.match(upload(x, share(t0), t0), x, everyone, alpha_bar=share(t0))
    assert abs(found.top(1).value - top) < BAND and abs(found.top(10).value - ten) < BAND
    some = numpy_generator(0, "rows", t0).permutation(len(x))[:600]
    wide = x.reshape(-1, 8, 8).repeat(4, axis=1).repeat(4, axis=2)
    for C, expected in ((math.inf, large), (10.0, clipped)):
        held = wide * np.minimum(1, C / np.linalg.norm(wide, axis=(1, 2)))[:, None, None]
        hits = matching.match(upload(held[some], share(t0), t0, C), held, some, alpha_bar=share(t0)).top(1)
        assert hits.low - BAND < expected < hits.high + BAND


def test_late_uploads_are_not_matched(digits):
    x, alpha_bar = digits[0], share(900)
    found = matching.match(upload(x, alpha_bar), x, np.arange(len(x)), alpha_bar=alpha_bar)
    assert found.top(1).low <= found.chance(1) <= found.top(1).high
    assert found.top(10).low <= found.chance(10) <= found.top(10).high
    assert found.epsilon(1e-5) < 0.5


# t0 -> AUC and TPR at 1 % FPR of the likelihood alone on 100 uploads, as stored; least AUC of the likelihood ratio.
MEMBERSHIP = {
    100: (0.991, 0.748, 0.99), 300: (0.556, 0.015, 0.73), 400: (0.518, 0.009, 0.59), 600: (0.497, 0.009, 0.51),
}


@pytest.mark.parametrize("t0", MEMBERSHIP)
def test_membership_on_shuffled_uploads_is_found_as_in_the_reference_and_better(digits, t0):
    x, plain, calibrated = digits[0], [], []
    for game in range(8):
        rows = numpy_generator(0, "membership", game).permutation(len(x))
        members, others, reference = x[rows[:100]], x[rows[100:900]], x[rows[900:]]
        uploads = upload(members, share(t0), t0, game)
        for found, known in ((plain, None), (calibrated, reference)):
            scores = [matching.membership(uploads, side, known, alpha_bar=share(t0)) for side in (members, others)]
            found.append((auc(*scores), tpr_at_fpr(*scores, 0.01)))
    (area, power), stronger = np.mean(plain, axis=0), np.mean(calibrated, axis=0)[0]
    expected, tpr, least = MEMBERSHIP[t0]
    assert abs(area - expected) < BAND and abs(power - tpr) < 3 * BAND
    assert stronger > max(least, area - 0.01)


def test_the_posterior_is_bayes_rule():
    x = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]])
    y, alpha_bar = np.array([[0.3, 0.4], [9.0, -7.0]]), 0.6
    density = np.exp(-np.square(y[:, None] - math.sqrt(alpha_bar) * x).sum(2) / (2 * (1 - alpha_bar)))
    posterior = density / density.sum(1, keepdims=True)
    found = matching.match(y, x, np.array([0, 2]), alpha_bar=alpha_bar)
    assert np.exp(found.log_posterior) == pytest.approx(posterior[[0, 1], [0, 2]])
    assert found.best.tolist() == posterior.argmax(1).tolist() and found.ranks.tolist() == [1, 2]
    assert matching.expectation(y, x, x, alpha_bar=alpha_bar) == pytest.approx(posterior @ x)
    kernel = 1 / (2 * math.pi * (1 - alpha_bar))
    spread = alpha_bar * np.cov(x.T, bias=True) + (1 - alpha_bar) * np.eye(2)
    broad = multivariate_normal(math.sqrt(alpha_bar) * x.mean(0), spread).pdf(y)
    ratio = kernel * density / (kernel * density.mean(1) + broad)[:, None] * 2
    assert matching.membership(y, x, x, alpha_bar=alpha_bar) == pytest.approx(np.log(ratio.mean(0)))
    paired = matching.paired_membership(y, x[:2], x, alpha_bar=alpha_bar)
    assert paired == pytest.approx(np.log(ratio[[0, 1], [0, 1]]))


def test_public_labels_narrow_the_pool(digits):
    x, labels = digits
    uploads, everyone = upload(x, share(400)), np.arange(len(x))
    alone = matching.match(uploads, x, everyone, alpha_bar=share(400))
    told = matching.match(uploads, x, everyone, alpha_bar=share(400), labels=(labels, labels))
    assert told.top(1).value > 1.5 * alone.top(1).value and told.chance(1) == pytest.approx(10 / len(x), rel=0.01)
    assert (labels[told.best] == labels).all() and not (labels[alone.best] == labels).all()


def test_copies_in_the_pool_count_against_the_adversary():
    x = np.repeat(np.eye(3), 4, axis=0)
    found = matching.match(upload(x, 0.999), x, np.arange(12), alpha_bar=0.999)
    assert (found.ranks == 4).all() and found.top(1).value == 0
    assert np.exp(found.log_posterior) == pytest.approx(0.25)


def test_what_matching_proves_stays_below_the_true_epsilon():
    # Randomised response over m pictures that never overlap: epsilon is known, and an upload shows what was answered.
    m, epsilon, rng = 50, 3.0, numpy_generator(0, "response")
    right = math.exp(epsilon) / (math.exp(epsilon) + m - 1)
    truth = rng.integers(0, m, 20_000)
    other = (truth + rng.integers(1, m, len(truth))) % m
    told = np.where(rng.random(len(truth)) < right, truth, other)
    found = matching.match(100 * np.eye(m)[told], 100 * np.eye(m), truth, alpha_bar=0.99)
    assert 0.8 * epsilon < found.epsilon(0.0) < epsilon


def test_k_uploads_are_one_with_more_signal(digits):
    x, alpha_bar = digits[0][:400], share(400)
    many = np.stack([upload(x, alpha_bar, "again", k) for k in range(25)])
    mean, better = matching.averaged(many.mean(0), 25, alpha_bar=alpha_bar)
    assert math.sqrt(better / (1 - better)) == pytest.approx(5 * math.sqrt(alpha_bar / (1 - alpha_bar)))
    residual = mean - math.sqrt(better) * x
    assert residual.std() == pytest.approx(math.sqrt(1 - better), rel=0.02)
    one, all_ = (matching.match(y, x, np.arange(400), alpha_bar=a).top(1)
                 for y, a in ((many[0], alpha_bar), (mean, better)))
    assert all_.low > one.high and all_.value > 0.9


def test_known_noise_gives_the_picture_back():
    x = numpy_generator(0, "x").uniform(-1, 1, (5, 1, 4, 4))
    z = numpy_generator(0, "z").standard_normal(x.shape)
    uploads = math.sqrt(0.001) * x + math.sqrt(0.999) * z
    assert matching.known_noise(uploads, z, alpha_bar=0.001) == pytest.approx(x, abs=1e-12)
    assert matching.psnr(x, x).tolist() == [math.inf] * 5
    assert matching.psnr(x + 0.02, x) == pytest.approx(40.0)


def test_the_gaussian_estimate_has_the_error_that_it_must_have():
    rng, alpha_bar = numpy_generator(0, "gauss"), 0.3
    spread = np.diag([4.0, 1.0, 0.01])
    x = rng.multivariate_normal([1.0, 0.0, -2.0], spread, 40_000)
    y = upload(x, alpha_bar, "gauss")
    left = np.diag(spread) * (1 - alpha_bar) / (alpha_bar * np.diag(spread) + 1 - alpha_bar)
    for mean, covariance in (matching.moments(x), matching.moments_of_uploads(y, alpha_bar=alpha_bar)):
        found = matching.gaussian_estimate(y, mean, covariance, alpha_bar=alpha_bar)
        assert np.square(found - x).mean(0) == pytest.approx(left, rel=0.05)
    # Uploads of one picture vary by their noise alone: nothing but the mean is left to say.
    flat = matching.moments_of_uploads(upload(np.zeros((500, 20)), 0.5), alpha_bar=0.5)
    assert np.abs(flat[1]).max() < 1e-12


def test_the_best_test_is_reached_and_bounds_the_rest():
    found = matching.best_test(20.0, share(690))
    assert found == pytest.approx({"auc": 0.898, "tpr": 0.299}, abs=1e-3)
    one, other, alpha_bar = np.full(16, 0.5), np.full(16, -0.5), 0.05
    pictures = np.repeat(np.stack([one, other]), 20_000, axis=0)
    scores = upload(pictures, alpha_bar, "pair") @ (one - other)
    bound = matching.best_test(float(np.linalg.norm(one - other)), alpha_bar)
    assert auc(scores[:20_000], scores[20_000:]) == pytest.approx(bound["auc"], abs=0.01)
    assert tpr_at_fpr(scores[:20_000], scores[20_000:], 0.01) == pytest.approx(bound["tpr"], abs=0.02)
    assert matching.best_test(0.0, 0.5, 0.1) == pytest.approx({"auc": 0.5, "tpr": 0.1})
    assert bound["auc"] == pytest.approx(norm.cdf(4 * math.sqrt(0.05 / 0.95) / math.sqrt(2)))


@pytest.mark.parametrize(("change", "words"), [
    (dict(alpha_bar=1.0), "alpha_bar"), (dict(uploads=np.ones((2, 3))), "one size"),
    (dict(truth=np.array([0, 9])), "truth"), (dict(candidates=np.full((3, 2), np.nan)), "finite"),
    (dict(uploads=np.ones(2)), "non-empty array"), (dict(labels=(np.array([0, 1]), np.array([1, 1, 1]))), "differ"),
    (dict(labels=(np.array([0]), np.array([1, 1, 1]))), "one for each"),
])
def test_bad_input_is_named(change, words):
    given = dict(uploads=np.ones((2, 2)), candidates=np.eye(3, 2), truth=np.array([0, 1]), alpha_bar=0.5) | change
    with pytest.raises(ValueError, match=words):
        matching.match(given.pop("uploads"), given.pop("candidates"), given.pop("truth"), **given)
