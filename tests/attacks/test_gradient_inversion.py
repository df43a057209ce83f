"""Gradient inversion: exact where algebra says so, nothing behind noise, planted bins, controls at chance.

And whole uploads: one local step is the gradient, more of them are a larger batch to the first layer.
"""

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


def upload(x, batch, *, lr=0.02, sigma=0.0, clip=float("inf"), seed=0, dtype=torch.float64):
    """Return the network before, and after SGD on one batch after the other of x, targets of its own for each row."""
    model = network(seed=seed, width=x.shape[1]).to(dtype)
    before = [p.detach().clone() for p in model.parameters()]
    targets = torch.randn(len(x), 3, generator=torch_generator(seed, "targets")).to(dtype)
    noise = GaussianNoise(torch_generator(seed, "noise"))
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    with PrivateStep(model, clip_norm=clip, noise_multiplier=sigma, expected_batch=batch, noise=noise) as step:
        for rows in torch.arange(len(x)).split(batch):
            own, aim = x[rows].to(dtype), targets[rows]
            step.gradient(lambda part, own=own, aim=aim: (model(own[part]) - aim[part]).square().sum(1), len(rows))
            optimiser.step()
    return before, [p.detach() for p in model.parameters()]


def first_layer_of(x, batch, *, lr=0.02, **options):
    before, after = upload(x, batch, lr=lr, **options)
    return [inversion.of_update(old, new, lr=lr) for old, new in zip(before[:2], after[:2], strict=True)]


def test_one_local_step_is_the_gradient():
    x = rows(6)
    weight, bias = first_layer_of(x, 6)
    expected = gradients(network(), x)
    assert torch.allclose(weight, expected[0].double(), atol=1e-6)
    assert torch.allclose(bias, expected[1].double(), atol=1e-6)
    alone = first_layer_of(x[:1], 1)
    assert inversion.errors(inversion.single(*alone)[None], x[:1])[0] < 1e-6
    # The same record at every step: all gradients have its direction, however many steps there are.
    again = first_layer_of(x[:1].expand(20, -1), 1)
    assert inversion.errors(inversion.single(*again)[None], x[:1])[0] < 1e-6


def test_more_local_steps_mix_more_records():
    error = {}
    for steps in (1, 2, 8, 32):
        x = rows(steps, 7)
        error[steps] = inversion.errors(inversion.single(*first_layer_of(x, 1))[None], x).mean()
    assert error[1] < 1e-6 < error[2] < error[8] < error[32] and error[8] > 0.5


@pytest.mark.parametrize(("steps", "batch"), [(1, 8), (4, 2), (8, 1)])
def test_the_first_layer_reads_local_steps_as_one_batch(steps, batch):
    times = sinusoid(torch.arange(60), 24)
    drawn = torch.randperm(60, generator=torch_generator(5, "t"))[: steps * batch]
    x, at = torch.cat([rows(steps * batch), times[drawn]], dim=1), torch.arange(WIDTH, WIDTH + 24)
    weight, _ = first_layer_of(x, batch)
    found, hits = inversion.separate(weight, times, at)
    assert set(hits.tolist()) == set(drawn.tolist()) and inversion.errors(found, x).max() < 1e-3
    assert inversion.errors(found[:, :WIDTH], rows(steps * batch, 9)).min() > 0.3, "the control: other records"
    # Weights that are sent in float32 bring their rounding, which has full rank: it must be named to be left out.
    weight, _ = first_layer_of(x, batch, dtype=torch.float32, lr=0.01)
    floor = inversion.rounding_size(network(width=WIDTH + 24)[0].weight, lr=0.01, steps=steps)
    found, _ = inversion.separate(weight, times, at, tolerance=1e-2, floor=floor)
    assert inversion.errors(found, x).max() < 2e-2
    many = torch.cat([rows(40), times[:40]], dim=1)
    assert not len(inversion.separate(first_layer_of(many, 1)[0], times, at)[0]), "more records than features"


def test_noise_in_every_local_step_leaves_nothing():
    truth = torch.cat([rows(1, seed) for seed in range(40)])
    for steps in (1, 4):
        seen = [first_layer_of(truth[seed : seed + 1].expand(steps, -1), 1, sigma=1.0, clip=1.0, seed=seed)
                for seed in range(40)]
        guess = torch.stack([inversion.single(*pair) for pair in seen])
        assert abs(inversion.correlations(guess, truth).mean()) < 0.15
        assert inversion.errors(guess, truth).mean() > 0.8


def test_matching_a_simulated_upload_finds_what_matching_one_gradient_does_not():
    model = network(nn.Sigmoid).double()
    names = dict(model.named_parameters())
    sizes, shapes = [p.numel() for p in names.values()], [p.shape for p in names.values()]
    weights = torch.cat([p.detach().flatten() for p in names.values()])
    target, lr, steps = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64), 0.1, 5

    def gradient(at, records):
        parts = [part.view(shape) for part, shape in zip(at.split(sizes), shapes, strict=True)]
        if not at.requires_grad:
            parts = [part.requires_grad_() for part in parts]
        out = torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (records,))
        found = torch.autograd.grad((out - target).square().sum(), parts, create_graph=True)
        return torch.cat([part.flatten() for part in found])

    x, start = rows(1).double(), rows(1, 5).double()
    one, several = (inversion.of_local_steps(gradient, weights, order=[slice(None)] * count, lr=lr)
                    for count in (1, steps))
    assert torch.equal(one(x), gradient(weights, x)), "one step is the gradient"
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        (model(x) - target).square().sum().backward()
        optimiser.step()
    seen = torch.cat([inversion.of_update(old, new.detach(), lr=lr).flatten()
                      for old, new in zip(before, model.parameters(), strict=True)])
    assert torch.allclose(several(x).detach(), seen, atol=1e-10), "the simulation is the client's SGD"
    simulated, _ = inversion.optimise(several, seen, start, steps=40)
    naive, _ = inversion.optimise(one, seen, start, steps=40)
    error = {name: inversion.errors(found, x)[0] for name, found in (("simulated", simulated), ("naive", naive))}
    assert error["simulated"] < 1e-2 and error["naive"] > 5 * error["simulated"], error
    noise = torch.randn(len(seen), generator=torch_generator(0, "n"), dtype=torch.float64)
    lost, _ = inversion.optimise(several, seen / seen.norm() + noise, start, steps=6)
    assert inversion.errors(lost, x)[0] > 0.5


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
    (lambda: inversion.of_update(torch.ones(2), torch.ones(3), lr=0.1), "one shape"),
    (lambda: inversion.of_update(torch.ones(2), torch.ones(2), lr=0.0), "lr"),
    (lambda: inversion.of_local_steps(lambda w, x: w, torch.ones(2), order=[], lr=0.1), "order"),
    (lambda: inversion.plant(nn.Linear(2, 3), nn.Linear(3, 1), torch.ones(3), mean=0, sd=1), "direction"),
    (lambda: inversion.plant(nn.Linear(2, 3), nn.Linear(3, 1), torch.ones(2), mean=0, sd=0), "sd"),
    (lambda: inversion.plant(nn.Linear(2, 3), nn.Linear(4, 1), torch.ones(2), mean=0, sd=1), "following"),
    (lambda: inversion.errors(torch.ones(1, 2), torch.zeros(1, 2)), "true row"),
    (lambda: inversion.correlations(torch.ones(1, 2), torch.ones(2, 2)), "one shape"),
])
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()
