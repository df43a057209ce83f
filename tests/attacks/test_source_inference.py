"""Source inference and update canaries: known owners, chance without a signal, the closed form of the Gaussian."""

import math

import numpy as np
import pytest
import torch

from feddiff.attacks import source_inference as inference
from feddiff.attacks.audit import one_run_epsilon
from feddiff.evaluation.rates import clopper_pearson
from feddiff.privacy.accounting import gaussian_epsilon
from feddiff.seeds import numpy_generator, torch_generator


def test_the_owner_is_found_where_its_model_fits_best_and_chance_elsewhere():
    generator = numpy_generator(0, "losses")
    owners = np.repeat(np.arange(4), 250)
    losses = generator.normal(1.0, 1.0, (4, 1000))
    chance = inference.source_accuracy(inference.source(losses), owners)
    assert chance.low < 0.25 < chance.high
    losses[owners, np.arange(1000)] -= 20
    assert inference.source_accuracy(inference.source(losses), owners).value == 1.0
    mixed = inference.source_accuracy(inference.source(losses), generator.permutation(owners))
    assert mixed.low < 0.25 < mixed.high, "permuted owners are chance"


def test_groups_add_up_what_one_record_hides():
    generator = numpy_generator(1, "losses")
    owners = np.repeat(np.arange(4), 400)
    losses = generator.normal(1.0, 1.0, (4, 1600))
    losses[owners, np.arange(1600)] -= 0.4
    one = inference.source_accuracy(inference.source(losses), owners)
    groups = np.arange(1600) // 100
    many = inference.source_accuracy(inference.source(losses, groups=groups), owners[::100])
    assert 0.3 < one.value < 0.5 and many.value > 0.85
    better = np.array([[0.0], [0.0], [-9.0], [0.0]])
    assert (inference.source(losses + better) == 2).all(), "one model is best for everybody"
    calibrated = inference.source(losses + better, better + generator.normal(1.0, 1.0, (4, 4000)), groups)
    assert inference.source_accuracy(calibrated, owners[::100]).value > 0.85


@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_clients_with_equal_draws_have_no_owner_to_find(apart):
    """The control: uploads are the clients' means, a record's loss its distance; only `apart` tells the clients.

    A record that was trained on has pulled its client's mean by 1 / 400: that is membership, and it is little.
    """
    clients, each, width, games = 4, 400, 3, 10
    owners, trained, fresh = np.repeat(np.arange(clients), each), [], []
    for game in range(games):
        generator = numpy_generator(game, "split")
        centres = (apart * generator.standard_normal((clients, width))).repeat(each, axis=0)
        x, unseen = (centres + generator.standard_normal(centres.shape) for _ in range(2))
        uploads = np.stack([x[owners == k].mean(0) for k in range(clients)])
        for records, right in ((x, trained), (unseen, fresh)):
            guessed = inference.source(np.square(records - uploads[:, None]).sum(2))
            right.append(int((guessed == owners).sum()))
    trained, fresh = (clopper_pearson(sum(right), games * len(owners)) for right in (trained, fresh))
    if apart:
        assert trained.low > 0.6 and fresh.low > 0.6
    else:
        assert fresh.low < 0.25 < fresh.high and 0.25 < trained.low < trained.value < 0.3


def test_canaries_that_took_part_are_told_once_what_is_known_is_taken_off():
    """One-run bounds on a Gaussian sum: below its epsilon, and far below it where the other records drown them."""
    dimension, number, guesses, delta, sigma = 4_000, 400, 40, 1e-5, 0.4
    generator = torch_generator(4, "audit")
    truth = gaussian_epsilon(noise_over_sensitivity=sigma, delta=delta)
    proved = {"raw": [], "residual": []}
    for _ in range(8):
        drawn = inference.canaries(number, dimension, generator)
        coins = torch.rand(number, generator=generator) < 0.5
        others = 200 * inference.canaries(1, dimension, generator)[0]
        update = others + drawn[coins].sum(0) + sigma * torch.randn(dimension, generator=generator)
        rough = others + 2 * torch.randn(dimension, generator=generator) / dimension**0.5
        left = inference.residual(drawn, rough), inference.residual(update, rough)
        assert abs(float(left[1] @ rough)) < 1e-2 * float(rough.norm())
        for name, (directions, seen) in {"raw": (drawn, update), "residual": left}.items():
            highest = inference.cosines(directions, seen).argsort()[-guesses:]
            counts = dict(canaries=number, guesses=guesses, correct=int(coins[highest].sum()))
            proved[name].append(one_run_epsilon(delta=delta, **counts))
    assert max(proved["raw"] + proved["residual"]) <= truth
    assert np.mean(proved["residual"]) > 1.5 > np.mean(proved["raw"]) + 1, proved


def test_canaries_are_unit_vectors_and_have_the_cosines_of_the_theory():
    generator = torch_generator(0, "canaries")
    drawn = inference.canaries(400, 1000, generator)
    assert torch.allclose(drawn.norm(dim=1), torch.ones(400), atol=1e-5)
    seen = inference.cosines(drawn, torch.randn(1000, generator=generator))
    assert abs(seen.mean()) < 4 / math.sqrt(400 * 1000) and seen.std() == pytest.approx(1 / math.sqrt(1000), rel=0.12)
    assert inference.cosines(drawn[:1], 3 * drawn[0])[0] == pytest.approx(1.0)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_equal_spreads_give_the_exact_epsilon_of_the_gaussian_mechanism(sigma):
    truth = gaussian_epsilon(noise_over_sensitivity=sigma, delta=1e-5)
    for scale, first, second in ((1, 1, 0), (1, 0, 1), (2, 7, 5)):
        first, second = (first, scale * sigma), (second, scale * sigma)
        assert inference.epsilon_between(first, second, 1e-5) == pytest.approx(truth, abs=1e-5)


def test_unequal_spreads_equal_a_sum_over_a_grid():
    first, second, delta = (0.8, 1.3), (0.0, 1.0), 1e-3
    found = inference.epsilon_between(first, second, delta)
    x = np.linspace(-30, 30, 600_001)
    p, q = (np.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi)) for m, s in (first, second))
    spent = [float(np.maximum(a - math.exp(found) * b, 0).sum() * (x[1] - x[0])) for a, b in ((p, q), (q, p))]
    assert max(spent) == pytest.approx(delta, rel=1e-3)
    assert inference.epsilon_between((0.0, 1.0), (0.0, 1.0), delta) == 0.0


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_the_estimate_is_near_the_truth_for_the_gaussian_mechanism(sigma):
    """Sum of n canaries and noise: the estimate may miss on either side, by little (Andrew et al., section 4)."""
    dimension, number, delta = 4_000, 200, 1e-5
    generator = torch_generator(3, "mechanism")
    drawn = inference.canaries(number, dimension, generator)
    total = drawn.sum(0) + sigma * torch.randn(dimension, generator=generator)
    found = inference.one_shot_epsilon(inference.cosines(drawn, total), dimension=dimension, delta=delta)
    # The sum of the other canaries is noise too: sd sqrt(n / dimension) a coordinate, beside sigma.
    truth = gaussian_epsilon(noise_over_sensitivity=math.sqrt(sigma**2 + number / dimension), delta=delta)
    assert found.epsilon == pytest.approx(truth, rel=0.25)
    assert found.out_sd == pytest.approx(1 / math.sqrt(dimension)) and found.out_mean == 0
    nobody = inference.one_shot_epsilon(
        inference.cosines(inference.canaries(number, dimension, generator), total), dimension=dimension, delta=delta)
    assert nobody.epsilon < 0.25 * truth, "canaries that took no part show little"


@pytest.mark.parametrize(("call", "word"), [
    (lambda: inference.source(np.zeros(3)), "losses"),
    (lambda: inference.source(np.zeros((1, 3))), "clients"),
    (lambda: inference.source(np.zeros((2, 3))), "do not differ"),
    (lambda: inference.source(np.zeros((2, 3)), groups=np.zeros(2)), "groups"),
    (lambda: inference.source(np.zeros((2, 3)), np.zeros((3, 3))), "reference"),
    (lambda: inference.source_accuracy(np.zeros(3), np.zeros(2)), "one length"),
    (lambda: inference.residual(torch.ones(2, 3), torch.ones(2)), "known"),
    (lambda: inference.residual(torch.ones(2, 3), torch.zeros(3)), "known"),
    (lambda: inference.cosines(torch.ones(2, 3), torch.ones(2)), "update"),
    (lambda: inference.cosines(torch.ones(2, 3), torch.zeros(3)), "0"),
    (lambda: inference.one_shot_epsilon(np.array([0.1]), dimension=9, delta=1e-5), "cosines"),
    (lambda: inference.one_shot_epsilon(np.array([0.1, 0.1]), dimension=9, delta=1e-5), "equal"),
    (lambda: inference.one_shot_epsilon(np.array([0.1, 0.2]), dimension=9, delta=0.0), "delta"),
    (lambda: inference.epsilon_between((0.0, 0.0), (0.0, 1.0), 1e-5), "first"),
])
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()
