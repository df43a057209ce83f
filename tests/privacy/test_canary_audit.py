"""Tight audit of the private step with a gradient-space canary (Nasr et al., 2023), and the bugs that it catches.

A record whose clipped gradient is C e_j, where no other record has a gradient, is in or out of each step by a fair
coin; the auditor sees that coordinate of the private gradient: a Gaussian mechanism with mu = 1 / sigma. Canaries with
coordinates and coins of their own are independent trials, so that 40 steps of 50 canaries give 2000 of them.
The mutant that samples without replacement is caught by the statistics of test_sampling.py.
"""

import math

import pytest
import torch
from torch import nn

from feddiff.attacks.audit import gaussian_dp_mu
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator

C, OTHERS, CANARIES, STEPS = 0.5, 7, 50, 40
WIDTH, BATCH = CANARIES + 5, OTHERS + CANARIES / 2
SIGMAS = [0.5, 1.0, 2.0]


class Branches(nn.Module):
    """Two layers side by side; the canaries live in the first coordinates of the second."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 1, bias=False), nn.Linear(WIDTH, 1, bias=False)

    def forward(self, x):
        return (self.first(x[:, :WIDTH]) + self.second(x[:, WIDTH:])).squeeze(1)


def records(canaries):
    """Return the others, then the canaries: gradients equal the inputs of these linear losses."""
    x = torch.randn(OTHERS + canaries, 2 * WIDTH, generator=torch_generator(2, "x"))
    x[:OTHERS, WIDTH : WIDTH + canaries] = 0.0
    x[OTHERS:] = 0.0
    x[OTHERS:, WIDTH : WIDTH + canaries] = 40.0 * C * torch.eye(canaries)
    return x


class Weaker(GaussianNoise):
    """Mutant: noise smaller by a factor."""

    def __init__(self, generator, factor):
        super().__init__(generator)
        self.factor = factor

    def fill_(self, tensor, std):
        return super().fill_(tensor, std * self.factor)


class Reused(GaussianNoise):
    """Mutant: the first noise is used at every step."""

    first = None

    def fill_(self, tensor, std):
        if self.first is None:
            self.first = super().fill_(tensor, std).clone()
        return tensor.copy_(self.first)


class Unclipped(PrivateStep):
    """Mutant: the clip factors are forgotten."""

    def _clip(self, squares, scale):
        norms, factors, clipped = super()._clip(squares, scale)
        return norms, [torch.full_like(factor, scale) for factor in factors], clipped


class OneLayerUnclipped(PrivateStep):
    """Mutant: the factors of the last layer are forgotten."""

    def _clip(self, squares, scale):
        norms, factors, clipped = super()._clip(squares, scale)
        return norms, [*factors[:-1], torch.full_like(factors[-1], scale)], clipped


class NormOfOneLayer(PrivateStep):
    """Mutant: the norm leaves the last layer out."""

    def _clip(self, squares, scale):
        return super()._clip([*squares[:-1], torch.zeros_like(squares[-1])], scale)


class BatchMeanClipped(PrivateStep):
    """Mutant: the mean gradient of the batch is clipped, not each record's."""

    def gradient(self, loss_fn, records):
        self.noise_multiplier, sigma = 0.0, self.noise_multiplier
        self.clip_norm, bound = math.inf, self.clip_norm
        report = super().gradient(loss_fn, records)
        self.noise_multiplier, self.clip_norm = sigma, bound
        noise = self.noise.fill_(torch.empty_like(self._flat), sigma * bound / self.expected_batch)
        self._flat.mul_(min(1.0, bound / self._flat.norm().item())).add_(noise)
        return report


CORRECT = {
    "flat": (PrivateStep, GaussianNoise, {}),
    "per-layer": (PrivateStep, GaussianNoise, {"clipping": "per-layer"}),
    "microbatches": (PrivateStep, GaussianNoise, {"microbatch": 3}),
}
MUTANTS = {
    "noise halved": (PrivateStep, lambda g: Weaker(g, 0.5), {}),
    "noise divided by the batch twice": (PrivateStep, lambda g: Weaker(g, 1 / BATCH), {}),
    "noise reused between steps": (PrivateStep, Reused, {}),
    "clipping forgotten": (Unclipped, GaussianNoise, {}),
    "batch-mean clipping": (BatchMeanClipped, GaussianNoise, {}),
    "one layer left unclipped": (OneLayerUnclipped, GaussianNoise, {}),
    "norm without one layer": (NormOfOneLayer, GaussianNoise, {}),
}


def observe(variant, sigma, canaries=CANARIES, steps=STEPS):
    """Return the canaries' coordinates of the private gradients over C, and who was in, both (steps * canaries,)."""
    build, noise, options = variant
    model, x = Branches(), records(canaries)
    step = build(
        model,
        clip_norm=C,
        noise_multiplier=sigma,
        expected_batch=BATCH,
        noise=noise(torch_generator(11, "noise")),
        **options,
    )
    coins = torch.randint(0, 2, (steps, canaries), generator=torch_generator(11, "coins")).bool()
    seen = torch.empty(steps, canaries)
    for trial, present in enumerate(coins):
        batch = torch.cat([x[:OTHERS], x[OTHERS:][present]])
        step.gradient(lambda part, batch=batch: model(batch[part]), len(batch))
        seen[trial] = model.second.weight.grad[0, :canaries] * (BATCH / C)
    return seen.flatten(), coins.flatten()


def gaussian_lower_bound(seen, coins):
    """Return mu_lo of the Gaussian trade-off: the threshold from the first half, the rates from the second."""
    half = len(seen) // 2
    values = seen[:half].unique()
    candidates = (values[1:] + values[:-1]) / 2
    above = seen[:half] > candidates.unsqueeze(1)
    errors = (above & ~coins[:half]).sum(1) + (~above & coins[:half]).sum(1)
    guess, truth = seen[half:] > candidates[errors.argmin()], coins[half:]
    return gaussian_dp_mu(
        true_positives=int((guess & truth).sum()),
        positives=int(truth.sum()),
        false_positives=int((guess & ~truth).sum()),
        negatives=int((~truth).sum()),
    )


def test_the_bound_itself_holds_on_a_plain_gaussian_and_has_the_reference_ceiling():
    """privacy.md 3.3: 500 + 500 perfect guesses give 4.88; a right mechanism lies between half its mu and its mu."""
    generator = torch_generator(1, "audit")
    coins = torch.rand(2000, generator=generator) < 0.5
    noise = torch.randn(2000, generator=generator)
    for mu, low in ((2.0, 1.0), (1.0, 0.5), (0.5, 0.0)):
        assert low < gaussian_lower_bound(coins * mu + noise, coins) < mu
    assert gaussian_lower_bound(coins * 100.0 + noise, coins) == pytest.approx(4.88, abs=0.03)
    assert gaussian_lower_bound(noise, coins) < 0.05


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", CORRECT)
def test_the_step_leaks_no_more_than_it_claims(name, sigma):
    found, truth = gaussian_lower_bound(*observe(CORRECT[name], sigma)), 1 / sigma
    assert found <= truth
    if sigma <= 1 and name != "per-layer":  # a canary in one of two layers is clipped to C / sqrt(2) there
        assert found > truth / 2, "the audit has lost its power"


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", MUTANTS)
def test_every_planted_bug_is_caught(name, sigma):
    # noise that repeats is constant in one coordinate and looks fresh over many: one canary, many steps
    shape = {"canaries": 1, "steps": 400} if name == "noise reused between steps" else {}
    assert gaussian_lower_bound(*observe(MUTANTS[name], sigma, **shape)) > 1 / sigma
