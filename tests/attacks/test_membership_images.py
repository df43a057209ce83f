"""Attacks on denoisers of pictures: an over-fitted one is found, a fresh one is not, permuted labels are chance."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from feddiff.attacks import membership_images as attack
from feddiff.data.images import load_images, to_tensor
from feddiff.diffusion.process import q_sample
from feddiff.diffusion.schedules import linear
from feddiff.evaluation.membership import auc, tpr_at_fpr
from feddiff.seeds import numpy_generator, torch_generator

SCHEDULE = linear(200, beta_T=0.05)
N = 100
TIMES = (10, 20, 40, 60)


class Toy(nn.Module):
    """A small denoiser of 8 x 8 pictures that can learn a hundred of them by heart."""

    def __init__(self, width=256):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64 + 16, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                                 nn.Linear(width, 64))
        for place, layer in enumerate(part for part in self.net if isinstance(part, nn.Linear)):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=torch_generator(0, "init", place))
            nn.init.zeros_(layer.bias)

    def forward(self, x, t, labels):
        angles = t[:, None] * torch.exp(-torch.arange(8) * 0.7)
        return self.net(torch.cat([x.flatten(1), angles.sin(), angles.cos()], 1)).reshape(x.shape)


@pytest.fixture(scope="module")
def trained():
    """Return a model over-fitted to the first of three sets of N digits, the sets and their labels."""
    digits = load_images("digits")
    rows = numpy_generator(0, "rows").permutation(len(digits))[: 3 * N]
    images, labels = to_tensor(digits.images[rows]), torch.from_numpy(digits.labels[rows])
    model, generator = Toy(), torch_generator(0, "training")
    steps = 900
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    own = images[:N]
    for _ in range(steps):
        t, z = (torch.randint(0, 100, (N,), generator=generator), torch.randn(own.shape, generator=generator))
        loss = (model(q_sample(own, t, z, SCHEDULE), t, None) - z).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return model.eval(), images, labels


def split(scores):
    """Return the scores of the members and of the two sets that the model never saw."""
    return scores[:N], scores[N : 2 * N], scores[2 * N :]


def attacks(model, images, labels):
    fixed = attack.fixed_noises(images.shape[1:], 16, torch_generator(0, "noises"))
    found = attack.losses(model, images, labels, SCHEDULE, times=TIMES, noises=fixed)
    return {
        "loss": attack.loss_scores(found),
        "secmi": attack.secmi(model, images, labels, SCHEDULE, time=30, stride=5),
        "pia": attack.pia(model, images, labels, SCHEDULE, time=40),
        "pian": attack.pia(model, images, labels, SCHEDULE, time=40, normalised=True),
    }


def test_an_overfitted_model_is_found_and_a_fresh_one_is_not(trained):
    found = attacks(*trained)
    areas = {name: auc(*split(scores)[:2]) for name, scores in found.items()}
    assert areas["loss"] >= 0.95 and tpr_at_fpr(*split(found["loss"])[:2], 0.01) >= 0.4
    assert areas["secmi"] > 0.7 and areas["pia"] > 0.65
    # Two sets that this model never saw, four attacks: 2.5 standard errors of an AUC at chance.
    band = 2.5 * math.sqrt((2 * N + 1) / (12 * N * N))
    assert all(abs(auc(*split(scores)[1:]) - 0.5) < band for scores in found.values())


def test_permuted_membership_is_chance(trained):
    scores = attacks(*trained)["loss"][: 2 * N]
    areas = [auc(*np.split(numpy_generator(game, "permuted").permutation(scores), 2)) for game in range(60)]
    assert abs(np.mean(areas) - 0.5) < 0.02


def test_many_fixed_noises_beat_random_ones_and_one(trained):
    model, images, labels = trained
    areas = {"fixed": [], "random": []}
    for game in range(12):
        generator = torch_generator(game, "one noise")
        fixed = attack.fixed_noises(images.shape[1:], 1, generator)
        random = torch.randn((len(images), 1, *images.shape[1:]), generator=generator)
        for name, noises in (("fixed", fixed), ("random", random)):
            scores = attack.loss_scores(attack.losses(model, images, labels, SCHEDULE, times=(20,), noises=noises))
            areas[name].append(auc(*split(scores)[:2]))
    many = auc(*split(attacks(*trained)["loss"])[:2])
    assert np.mean(areas["fixed"]) > np.mean(areas["random"]) + 0.01
    assert many > np.mean(areas["fixed"])


def test_losses_are_what_they_are_said_to_be():
    x = torch.rand((3, 1, 2, 2), generator=torch_generator(0, "x"))
    noises = attack.fixed_noises((1, 2, 2), 5, torch_generator(0, "z"))
    found = attack.losses(lambda x, t, y: torch.zeros_like(x), x, torch.zeros(3), SCHEDULE, times=(0, 7), noises=noises)
    assert found == pytest.approx(np.full((3, 2), float(noises.square().mean())), rel=1e-5)
    own = torch.randn((3, 2, 1, 2, 2), generator=torch_generator(0, "own"))
    found = attack.losses(lambda x, t, y: torch.zeros_like(x), x, torch.zeros(3), SCHEDULE, times=(3,), noises=own)
    assert found[:, 0] == pytest.approx(own.square().flatten(1).mean(1).numpy(), rel=1e-5)
    assert attack.loss_scores(found, found).tolist() == [0, 0, 0]


def test_a_perfect_denoiser_leaves_no_error():
    # All pictures are one point: the noise in x_t is known exactly, and both ways of walking come back.
    point = torch.full((1, 1, 2, 2), 0.3)

    def exact(x, t, labels):
        return (x - SCHEDULE.signal(t, x) * point) / SCHEDULE.noise(t, x)

    x, labels = point.repeat(4, 1, 1, 1), torch.zeros(4)
    assert np.abs(attack.secmi(exact, x, labels, SCHEDULE, time=50, stride=10)).max() < 1e-9
    assert np.abs(attack.pia(exact, x, labels, SCHEDULE, time=50)).max() < 1e-5
    off = torch.full((4, 1, 2, 2), 0.8)
    assert attack.pia(exact, off, labels, SCHEDULE, time=50).max() < -0.1


def test_pian_makes_the_start_a_noise_of_unit_size():
    seen = []

    def record(x, t, labels):
        seen.append((x, t))
        return torch.full_like(x, 7.0)

    x = torch.zeros(2, 1, 4, 4)
    attack.pia(record, x, torch.zeros(2), SCHEDULE, time=30, normalised=True)
    expected = math.sqrt(1 - float(SCHEDULE.alpha_bar[30])) * math.sqrt(2 / math.pi)
    assert seen[0][1].tolist() == [0, 0] and seen[1][1].tolist() == [30, 30]
    assert seen[1][0].flatten().tolist() == pytest.approx([expected] * 32)


@pytest.mark.parametrize("models", [4, 40])
def test_the_likelihood_ratio_takes_off_what_makes_a_record_hard(models):
    rng, n = numpy_generator(models, "shadows"), 600
    hard, member = 5 * rng.standard_normal(n), rng.random(n) < 0.5
    inside = np.zeros((models, n), dtype=bool)
    for record in range(n):
        inside[rng.permutation(models)[: models // 2], record] = True
    scores = hard + member + 0.5 * rng.standard_normal(n)
    shadows = hard + inside + 0.5 * rng.standard_normal((models, n))
    ratio = attack.likelihood_ratio(scores, shadows, inside)
    plain, better = (auc(one[member], one[~member]) for one in (scores, ratio))
    assert plain < 0.65 < 0.8 < better
    if models == 40:  # Phi(1 / (0.5 sqrt(2))) is what the best test reaches that knows all means
        assert better == pytest.approx(0.921, abs=0.03)
    shuffled = rng.permutation(member)
    assert abs(auc(ratio[shuffled], ratio[~shuffled]) - 0.5) < 0.06


def test_the_likelihood_ratio_of_two_gaussians_is_exact():
    rng = numpy_generator(0, "pair")
    shadows = np.concatenate([rng.normal(2, 1, (4000, 1)), rng.normal(-1, 3, (4000, 1))])
    inside = np.repeat([True, False], 4000)[:, None]
    found = attack.likelihood_ratio(np.array([0.5]), shadows, inside)
    expected = -(1.5**2) / 2 + (1.5**2) / 18 + math.log(3)
    assert found == pytest.approx([expected], abs=0.1)


@pytest.mark.parametrize(("change", "words"), [
    (dict(times=()), "steps"), (dict(times=(200,)), "steps"), (dict(noises=torch.zeros(2, 1, 3, 3)), "noises"),
    (dict(labels=torch.zeros(3)), "label"), (dict(noises=torch.zeros(5, 2, 1, 2, 2)), "noises"),
])
def test_bad_input_of_losses_is_named(change, words):
    given = dict(images=torch.zeros(2, 1, 2, 2), labels=torch.zeros(2), times=(1,), noises=torch.zeros(1, 1, 2, 2))
    given |= change
    with pytest.raises(ValueError, match=words):
        attack.losses(lambda x, t, y: x, given.pop("images"), given.pop("labels"), SCHEDULE, **given)


def test_bad_input_of_the_others_is_named():
    x, labels = torch.zeros(2, 1, 2, 2), torch.zeros(2)
    with pytest.raises(ValueError, match="stride"):
        attack.secmi(lambda *a: x, x, labels, SCHEDULE, time=5, stride=10)
    with pytest.raises(ValueError, match="steps"):
        attack.secmi(lambda *a: x, x, labels, SCHEDULE, time=195, stride=10)
    with pytest.raises(ValueError, match="draws"):
        attack.fixed_noises((1, 2, 2), 0, torch_generator(0, "z"))
    with pytest.raises(ValueError, match="trained on it and one"):
        attack.likelihood_ratio(np.zeros(2), np.zeros((3, 2)), np.ones((3, 2), dtype=bool))
    with pytest.raises(ValueError, match="inside"):
        attack.likelihood_ratio(np.zeros(2), np.zeros((3, 2)), np.ones((3, 2)))
