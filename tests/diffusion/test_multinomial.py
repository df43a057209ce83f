"""Multinomial diffusion: the posterior by brute force, the bound, the forward law, and a planted law recovered."""

import itertools

import numpy as np
import pytest
import torch

from feddiff.diffusion import schedules
from feddiff.diffusion.multinomial import Multinomial
from feddiff.seeds import torch_generator

T = 6


@pytest.fixture(scope="module")
def schedule():
    return schedules.cosine(T)


def transition(schedule, t, K=3):
    """q(x_t = column | x_{t-1} = row), from the definition."""
    beta = float(schedule.beta[t])
    return (1 - beta) * np.eye(K) + beta / K


def test_posterior_is_bayes_by_brute_force(schedule):
    process = Multinomial((3,), schedule)
    for t, x0, xt in itertools.product(range(T), range(3), range(3)):
        before = np.linalg.multi_dot([np.eye(3), *[transition(schedule, s) for s in range(t)], np.eye(3)])
        joint = before[x0] * transition(schedule, t)[:, xt]
        law = process.posterior(process.one_hot(torch.tensor([[x0]])), torch.tensor([[xt]]), torch.tensor([t]))
        assert law.numpy()[0] == pytest.approx(joint / joint.sum(), abs=1e-5)


def test_laws_sum_to_one_per_column_also_where_the_softmax_underflows(schedule):
    process, g = Multinomial((3, 1, 5), schedule), torch_generator(0, "test")
    codes = process.start(200, g)
    assert codes.min() >= 0 and (codes.max(dim=0).values < process.sizes).all()
    logits = 60 * torch.randn(200, 9, generator=g)
    t = torch.randint(T, (200,), generator=g)
    law = process.posterior(process.segments.probabilities(logits), codes, t)
    for block in law.split((3, 1, 5), dim=1):
        assert block.sum(dim=1).numpy() == pytest.approx(np.ones(200), abs=1e-5)
    assert torch.isfinite(process.divergence(codes, logits, process.noised(codes, t, g), t)).all()


def test_forward_law_two_sided(schedule):
    process, g = Multinomial((4,), schedule), torch_generator(1, "test")
    rows = 40_000
    for t in (0, 2, T - 1):
        noisy = process.noised(torch.full((rows, 1), 2), torch.full((rows,), t), g)
        bar = float(schedule.alpha_bar[t])
        expected = np.full(4, (1 - bar) / 4) + bar * np.eye(4)[2]
        shares = np.bincount(noisy[:, 0].numpy(), minlength=4) / rows
        error = np.sqrt(expected * (1 - expected) / rows)
        assert (np.abs(shares - expected) < 4.5 * error + 1e-12).all()


def test_divergence_by_brute_force_and_zero_at_the_truth(schedule):
    process, g = Multinomial((3,), schedule), torch_generator(2, "test")
    logits = torch.randn(1, 3, generator=g)
    for t, x0, xt in itertools.product(range(T), range(3), range(3)):
        codes, noisy, at = torch.tensor([[x0]]), torch.tensor([[xt]]), torch.tensor([t])
        q = process.posterior(process.one_hot(codes), noisy, at).numpy()[0]
        p = process.posterior(logits.softmax(dim=1), noisy, at).numpy()[0]
        expected = sum(a * np.log(a / b) for a, b in zip(q, p) if a > 0)
        assert float(process.divergence(codes, logits, noisy, at)) == pytest.approx(expected, abs=1e-5)
        sure = 80 * process.one_hot(codes)
        assert float(process.divergence(codes, sure, noisy, at)) == pytest.approx(0, abs=1e-5)
    # At t = 0 the divergence is the decoder's -log p(x_0 | x_1).
    p = process.posterior(logits.softmax(dim=1), torch.tensor([[0]]), torch.tensor([0]))[0]
    found = float(process.divergence(torch.tensor([[1]]), logits, torch.tensor([[0]]), torch.tensor([0])))
    assert found == pytest.approx(-float(p[1].log()), abs=1e-5)


def test_gradient_of_the_bound_is_finite_and_points_to_the_truth(schedule):
    process = Multinomial((3,), schedule)
    logits = torch.zeros(1, 3, requires_grad=True)
    process.divergence(torch.tensor([[1]]), logits, torch.tensor([[2]]), torch.tensor([1])).sum().backward()
    assert logits.grad[0, 1] < 0 < logits.grad[0, 0]


def walked_back(planted, law_of, step):
    """Shares of 20,000 codes walked back from uniform; law_of(likelihood of x_t) is the law that is put into step."""
    g, rows = torch_generator(3, "test"), 20_000
    process = Multinomial((3,), schedules.cosine(50))
    codes = process.start(rows, g)
    for t in reversed(range(50)):
        bar = float(process.schedule.alpha_bar[t])
        likelihood = (bar * torch.eye(3) + (1 - bar) / 3)[:, codes[:, 0]].T
        codes = process.draw(getattr(process, step)(law_of(likelihood), codes, torch.tensor([t])), g)
    return np.bincount(codes[:, 0].numpy(), minlength=3) / rows


def test_both_ways_back_return_a_planted_marginal_and_must_not_be_mixed_up():
    planted = torch.tensor([0.7, 0.2, 0.1])

    def before(likelihood):
        return planted.expand(len(likelihood), 3)

    def given(likelihood):
        return planted * likelihood / (planted * likelihood).sum(dim=1, keepdim=True)

    for law_of, step, right in ((before, "posterior", True), (given, "mixture", True), (given, "posterior", False)):
        error = np.abs(walked_back(planted, law_of, step) - planted.numpy()).max()
        assert error < 0.015 if right else error > 0.1


def test_mixture_is_the_average_of_posteriors_by_brute_force(schedule):
    process = Multinomial((3,), schedule)
    weights = torch.tensor([[0.5, 0.2, 0.3]])
    for t, xt in itertools.product(range(T), range(3)):
        codes, at = torch.tensor([[xt]]), torch.tensor([t])
        each = [process.posterior(process.one_hot(torch.tensor([[x0]])), codes, at) for x0 in range(3)]
        expected = sum(float(w) * law for w, law in zip(weights[0], each))
        assert process.mixture(weights, codes, at).numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_columns_without_levels_are_refused(schedule):
    with pytest.raises(ValueError, match="at least one level"):
        Multinomial((), schedule)
