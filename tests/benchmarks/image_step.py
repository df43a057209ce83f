"""The private step of the U-Net that learns 16 x 16 digits, against Opacus and plain Adam."""

import torch
from interleaved import Benchmark, Goal
from private_step import variants

from feddiff.diffusion.schedules import linear
from feddiff.diffusion.unet import unet
from feddiff.seeds import torch_generator

BATCH, SIDE, CLASSES = 64, 16, 10


def step(rounds: int) -> Benchmark:
    schedule, generator = linear(1000), torch_generator(0, "images")
    model = unet("patch", channels=1, size=SIDE, classes=CLASSES, schedule=schedule, generator=generator)
    with torch.no_grad():
        # Away from the start, where the layers that begin at zero cut most gradients off.
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    images = torch.randn(BATCH, 1, SIDE, SIDE, generator=generator)
    times = torch.randint(schedule.T, (BATCH,), generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    target = torch.randn(BATCH, 1, SIDE, SIDE, generator=generator)
    return Benchmark(
        title=f"DP-SGD step of the U-Net, {SIDE} x {SIDE}, B = {BATCH}",
        variants=variants(model, (images, times, labels), target),
        goals=[
            Goal("time against plain Adam", "private step", "plain Adam"),
            Goal("speed against Opacus hooks", "Opacus hooks", "private step"),
            Goal("speed against Opacus ghost", "Opacus ghost", "private step"),
        ],
        rounds=rounds,
        facts={"parameters": sum(p.numel() for p in model.parameters()), "records": BATCH},
    )
