"""The private step of a convolutional denoiser with group norms against Opacus and plain Adam."""

import torch
from interleaved import Benchmark, Goal
from private_step import variants
from torch import nn

from feddiff.seeds import torch_generator

BATCH, SIDE = 32, 16


class ConvDenoiser(nn.Module):
    """One level down and up: 32 channels at 16 x 16, 64 at 8 x 8, with a time branch and a skip connection."""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, 32))
        self.enter = nn.Conv2d(1, 32, 3, padding=1)
        self.high = nn.Sequential(nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, 32, 3, padding=1))
        self.down = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.low = nn.Sequential(
            nn.GroupNorm(8, 64), nn.SiLU(), nn.Conv2d(64, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.SiLU()
        )
        self.up = nn.Sequential(nn.Conv2d(64, 32, 3, padding=1), nn.Upsample(scale_factor=2))
        self.leave = nn.Sequential(nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, 1, 3, padding=1))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        hidden = self.enter(x) + self.time(t).unsqueeze(2).unsqueeze(3)
        hidden = hidden + self.high(hidden)
        return self.leave(hidden + self.up(self.low(self.down(hidden))))


def step(rounds: int) -> Benchmark:
    generator = torch_generator(0, "images")
    images = torch.randn(BATCH, 1, SIDE, SIDE, generator=generator)
    times = torch.rand(BATCH, 1, generator=generator)
    model, target = ConvDenoiser(), torch.randn(BATCH, 1, SIDE, SIDE, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.05, generator=generator)
    return Benchmark(
        title=f"DP-SGD step of a convolutional denoiser, {SIDE} x {SIDE}, B = {BATCH}",
        variants=variants(model, (images, times), target),
        goals=[
            Goal("time against plain Adam", "private step", "plain Adam"),
            Goal("speed against Opacus hooks", "Opacus hooks", "private step"),
            Goal("speed against Opacus ghost", "Opacus ghost", "private step"),
        ],
        rounds=rounds,
        repeats=3,
        facts={"parameters": sum(p.numel() for p in model.parameters()), "records": BATCH},
    )
