"""DP-SGD on the U-Net: the analytic step equals clipping one record at a time, in float64, for every option."""

import math

import pytest
import torch

from feddiff.diffusion.image_loss import loss_per_record
from feddiff.diffusion.schedules import linear
from feddiff.diffusion.unet import UNet
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator

SCHEDULE = linear(50, scale_betas=True)
RECORDS = 4
OPTIONS = {
    "level": {},
    "all skips, two blocks": dict(skips="all", blocks=2),
    "patches": dict(patch=2),
    "attention": dict(attention=(4,), skips="all"),
    "flag": dict(flag=True),
    "no input skip": dict(input_skip=False),
    "shift only": dict(modulation="shift"),
}


def network(**options):
    options = {"widths": (8, 16), "groups": 4, "condition_dim": 12} | options
    model = UNet(2, 8, classes=3, schedule=SCHEDULE, generator=torch_generator(0, "init"), **options).double()
    with torch.no_grad():
        # Layers that start at zero would hide the gradients behind them.
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch_generator(1, "weights", p.numel()), dtype=p.dtype))
    return model


def draws(K, flag):
    g = torch_generator(0, "draws")
    x0 = torch.randn(RECORDS, 2, 8, 8, generator=g, dtype=torch.float64)
    labels, t = torch.randint(3, (RECORDS,), generator=g), torch.randint(50, (RECORDS, K), generator=g)
    noise = torch.randn(RECORDS, K, 2, 8, 8, generator=g, dtype=torch.float64)
    return x0, labels, t, noise, torch.arange(RECORDS) % 2 == 0 if flag else None


def losses(model, rows, given, weight):
    x0, labels, t, noise, flag = given
    return loss_per_record(
        model, x0[rows], labels[rows], t[rows], noise[rows], SCHEDULE, weight=weight,
        flag=None if flag is None else flag[rows],
    )


def naive(model, given, weight, clip_norm):
    """Return the sum of clipped gradients by parameter, and the norms, from one ordinary backward pass a record."""
    parameters, norms = list(model.parameters()), []
    sums = [torch.zeros_like(p) for p in parameters]
    for i in range(RECORDS):
        grads = torch.autograd.grad(losses(model, slice(i, i + 1), given, weight).sum(), parameters)
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in grads)))
        for total, g in zip(sums, grads):
            total += g * min(1.0, clip_norm / norms[-1])
    return sums, norms


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize(("name", "weight"), [*((name, "eps") for name in OPTIONS), ("level", "v")])
def test_private_step_of_the_unet_equals_naive_clipping(name, weight, K):
    model, given = network(**OPTIONS[name]), draws(K, name == "flag")
    _, norms = naive(model, given, weight, math.inf)
    clip_norm = (min(norms) + max(norms)) / 2
    sums, _ = naive(model, given, weight, clip_norm)
    with PrivateStep(
        model, clip_norm=clip_norm, noise_multiplier=0.0, expected_batch=1.0,
        noise=GaussianNoise(torch_generator(0, "noise")),
    ) as step:
        report = step.gradient(lambda rows: losses(model, rows, given, weight), RECORDS)
        grads = [p.grad.clone() for p in model.parameters()]
    assert 0 < report.clipped_fraction < 1, "the clip norm must bite for some records and spare others"
    assert torch.allclose(report.norms, torch.tensor(norms, dtype=torch.float64), rtol=1e-12, atol=0)
    for (path, _), ours, wanted in zip(model.named_parameters(), grads, sums, strict=True):
        assert float((ours - wanted).abs().max()) <= 1e-12 * max(1.0, clip_norm), path


def test_microbatches_and_repeats_give_the_same_private_step():
    given, found = draws(2, False), []
    for microbatch in (None, None, 1, 3):
        model = network()
        step = PrivateStep(
            model, clip_norm=1.0, noise_multiplier=0.5, expected_batch=4.0, microbatch=microbatch,
            noise=GaussianNoise(torch_generator(0, "noise")),
        )
        step.gradient(lambda rows: losses(model, rows, given, "eps"), RECORDS)
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(found[0], found[1]), "the same seed must give the same bits"
    assert all(torch.allclose(found[0], other, atol=1e-13) for other in found[2:])


def test_dropout_is_private_too_and_its_masks_repeat():
    given, found = draws(1, False), []
    for _ in range(2):
        model = network(dropout=0.3)
        model.set_dropout_generator(torch_generator(0, "dropout"))
        with PrivateStep(
            model, clip_norm=1e-3, noise_multiplier=0.0, expected_batch=1.0,
            noise=GaussianNoise(torch_generator(0, "noise")),
        ) as step:
            step.gradient(lambda rows: losses(model, rows, given, "eps"), RECORDS)
            found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*found) and float(found[0].norm()) <= RECORDS * 1e-3 * (1 + 1e-9)
