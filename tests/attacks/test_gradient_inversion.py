"""Gradient inversion: exact where algebra says so, nothing behind noise, planted bins, controls at chance."""

import numpy as np
import pytest
import torch
from torch import nn

from feddiff.attacks import gradient_inversion as inversion
from feddiff.diffusion.denoisers import linear_layer, sinusoid
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator

WIDTH, UNITS = 12, 32


def network(activation=nn.SiLU, seed=0, units=UNITS, width=WIDTH):
    generator = torch_generator(seed, "network")
    return nn.Sequential(linear_layer(width, units, generator), activation(), linear_layer(units, 3, generator))


def rows(count, seed=0, width=WIDTH):
    return torch.randn(count, width, generator=torch_generator(seed, "rows"))


def gradients(model, x, *, sigma=0.0, clip=float("inf"), seed=0):
    """Return dW and db of the first layer after one step on x with targets of its own."""
    targets = torch.randn(len(x), 3, generator=torch_generator(seed, "targets"))
    step = PrivateStep(model, clip_norm=clip, noise_multiplier=sigma, expected_batch=len(x),
                       noise=GaussianNoise(torch_generator(seed, "noise")))
    step.gradient(lambda part: (model(x[part]) - targets[part]).square().sum(dim=1), len(x))
    return model[0].weight.grad.clone(), model[0].bias.grad.clone()


@pytest.mark.parametrize("clip", [float("inf"), 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_one_record_is_recovered_exactly_whatever_the_scale(seed, clip):
    x = rows(1, seed)
    weight, bias = gradients(network(seed=seed), x, clip=clip, seed=seed)
    assert inversion.errors(inversion.single(weight, bias)[None], x)[0] < 1e-4
    assert inversion.errors(inversion.single(-0.03 * weight, -0.03 * bias)[None], x)[0] < 1e-4
    assert inversion.errors(inversion.of_units(weight, bias), x)[0] < 1e-4


def test_noise_of_the_private_step_leaves_nothing():
    truth = torch.cat([rows(1, seed) for seed in range(40)])
    found = torch.stack([
        inversion.single(*gradients(network(seed=seed), truth[seed : seed + 1], sigma=1.0, clip=1.0, seed=seed))
        for seed in range(40)
    ])
    shuffled = truth[torch.randperm(40, generator=torch_generator(0, "shuffle"))]
    assert abs(inversion.correlations(found, truth).mean()) < 0.1
    assert abs(inversion.correlations(found, shuffled).mean()) < 0.1
    assert inversion.errors(found, truth).mean() > 0.8


def test_a_batch_mixes_and_a_unit_of_its_own_gives_a_record_away():
    x = rows(16)
    weight, bias = gradients(network(), x)
    own = inversion.errors(inversion.of_units(weight, bias), x)
    assert np.median(own) > 0.3 and inversion.errors(inversion.single(weight, bias)[None], x).min() > 0.3
    # ReLU, and a unit that one record alone switches on
    model, longest = network(nn.ReLU), int(x.norm(dim=1).argmax())
    with torch.no_grad():
        model[0].weight[0] = x[longest]
        model[0].bias[0] = -(x @ x[longest]).sort().values[-2:].mean()
    assert inversion.errors(inversion.of_units(*gradients(model, x)), x)[longest] < 1e-4


@pytest.mark.parametrize("batch", [2, 6, 10])
def test_known_parts_of_the_input_separate_a_batch(batch):
    times = sinusoid(torch.arange(60), 24)
    drawn = torch.randperm(60, generator=torch_generator(batch, "t"))[:batch]
    x = torch.cat([rows(batch, width=WIDTH), times[drawn]], dim=1)
    weight, _ = gradients(network(width=WIDTH + 24), x)
    found, hits = inversion.separate(weight, times, torch.arange(WIDTH, WIDTH + 24))
    assert set(hits.tolist()) == set(drawn.tolist())
    assert inversion.errors(found, x).max() < 1e-3
    assert inversion.errors(found[:, :WIDTH], rows(batch, 9, WIDTH)).min() > 0.3, "the control: another batch"


def test_separation_gives_up_where_it_must():
    times = sinusoid(torch.arange(60), 24)
    at = torch.arange(WIDTH, WIDTH + 24)
    model = network(width=WIDTH + 24)
    twice = torch.cat([rows(4), times[[5, 5, 7, 9]]], dim=1)
    many = torch.cat([rows(40), times[:40]], dim=1)
    for x in (twice, many):
        assert not len(inversion.separate(gradients(model, x)[0], times, at)[0])
    few = torch.cat([rows(4), times[[5, 6, 7, 9]]], dim=1)
    found, _ = inversion.separate(gradients(model, few, sigma=1.0, clip=1.0)[0], times, at)
    assert inversion.errors(found, few).mean() > 0.8, "noise has full rank"


@pytest.mark.parametrize("distance", inversion.DISTANCES)
def test_matching_gradients_finds_one_record(distance):
    model = network(nn.Sigmoid).double()
    target = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)

    def gradient(records):
        loss = (model(records) - target).square().sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), create_graph=True)])

    x, start = rows(1).double(), rows(1, 5).double()
    steps = 30 if distance == "l2" else 250
    found, left = inversion.optimise(gradient, gradient(x).detach(), start, steps=steps, distance=distance)
    assert left < 1e-3
    assert inversion.errors(found, x)[0] < (1e-2 if distance == "l2" else 0.2)
    assert inversion.errors(start, x)[0] > 0.5
    noisy = gradient(x).detach()
    noisy = noisy / noisy.norm() + torch.randn(len(noisy), generator=torch_generator(0, "n"), dtype=torch.float64)
    lost, _ = inversion.optimise(gradient, noisy, start, steps=6, distance=distance)
    assert inversion.errors(lost, x)[0] > 0.5


@pytest.mark.parametrize(("activation", "steep"), [(nn.ReLU, 1.0), (lambda: nn.LeakyReLU(0.4), 1.0), (nn.SiLU, 1e4)])
def test_planted_bins_isolate_records(activation, steep):
    model = network(activation, units=200)
    direction = torch.ones(WIDTH) / WIDTH**0.5
    inversion.plant(model[0], model[2], direction, mean=0.0, sd=1.0, steep=steep)
    x = rows(8, 3)
    cuts = -model[0].bias.detach() / steep
    bins = torch.bucketize(x @ direction, cuts)
    alone = torch.tensor([int((bins == own).sum()) == 1 and own > 0 for own in bins]).numpy()
    assert alone.sum() >= 5
    found = inversion.of_bins(*gradients(model, x, clip=1.0))
    own = inversion.errors(found, x)
    assert (own[alone] < 5e-2).all()
    assert inversion.errors(found, rows(8, 4)).min() > 0.2, "the control: another batch"
    lost = inversion.of_bins(*gradients(model, x, clip=1.0, sigma=1.0))
    assert np.median(inversion.errors(lost, x)) > 0.5


def test_scores_by_hand():
    truth = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert np.allclose(inversion.errors(torch.tensor([[3.0, 4.5], [3.0, 4.0]]), truth), [0.0, 1.0])
    assert np.allclose(inversion.errors(torch.zeros(0, 2), truth), 1.0)
    guess = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    assert np.allclose(inversion.correlations(guess, torch.tensor([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0]])), [1.0, 0.0])


@pytest.mark.parametrize(("call", "word"), [
    (lambda: inversion.single(torch.zeros(3, 2), torch.zeros(3)), "bias gradient"),
    (lambda: inversion.of_units(torch.zeros(3, 2), torch.zeros(2)), "bias_grad"),
    (lambda: inversion.of_units(torch.full((3, 2), float("nan")), torch.zeros(3)), "weight_grad"),
    (lambda: inversion.separate(torch.zeros(3, 2), torch.ones(2, 1), torch.tensor([0])), "0"),
    (lambda: inversion.separate(torch.ones(3, 2), torch.ones(2, 1), torch.tensor([2])), "known"),
    (lambda: inversion.optimise(lambda x: x, torch.ones(2), torch.ones(2), distance="l1"), "distance"),
    (lambda: inversion.optimise(lambda x: x, torch.ones(2), torch.ones(2), steps=0), "steps"),
    (lambda: inversion.optimise(lambda x: x, torch.zeros(2), torch.ones(2)), "gradient"),
    (lambda: inversion.plant(nn.Linear(2, 3), nn.Linear(3, 1), torch.ones(3), mean=0, sd=1), "direction"),
    (lambda: inversion.plant(nn.Linear(2, 3), nn.Linear(3, 1), torch.ones(2), mean=0, sd=0), "sd"),
    (lambda: inversion.plant(nn.Linear(2, 3), nn.Linear(4, 1), torch.ones(2), mean=0, sd=1), "following"),
    (lambda: inversion.errors(torch.ones(1, 2), torch.zeros(1, 2)), "true row"),
    (lambda: inversion.correlations(torch.ones(1, 2), torch.ones(2, 2)), "one shape"),
])
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()
