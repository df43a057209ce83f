"""The private step of a denoiser of two hidden layers against plain Adam, Opacus and its own matrix products."""

import argparse
import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from interleaved import Benchmark, Goal
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn

from feddiff.diffusion.denoisers import MLPDenoiser
from feddiff.experiments.provenance import peak_memory_bytes
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator

BATCH, COLUMNS, CLASSES, C, SIGMA = 512, 64, 2, 1.0, 1.0
MEMORY = ("private step", "Opacus hooks", "Opacus ghost", "plain Adam")


class PerRecordError(nn.Module):
    """Squared error of each record; Opacus's ghost clipping wants one loss per record and a `reduction` to compare."""

    reduction = "mean"

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().flatten(1).mean(1)


def denoiser(width: int) -> MLPDenoiser:
    return MLPDenoiser(
        COLUMNS,
        COLUMNS,
        hidden=(width, width),
        classes=CLASSES,
        generator=torch_generator(0, "init"),
        zero_output=False,
    )


def batch(rows: int = BATCH) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Return the denoiser's arguments and the target."""
    generator = torch_generator(0, "batch")
    x = torch.randn(rows, COLUMNS, generator=generator)
    t = torch.randint(500, (rows,), generator=generator)
    label = torch.randint(CLASSES, (rows,), generator=generator)
    return (x, t, label), torch.randn(rows, COLUMNS, generator=generator)


def private(model: nn.Module, arguments: tuple, target: torch.Tensor) -> Callable[[], None]:
    step = PrivateStep(
        model,
        clip_norm=C,
        noise_multiplier=SIGMA,
        expected_batch=len(target),
        noise=GaussianNoise(torch_generator(0, "noise")),
    )
    optimiser, error = torch.optim.Adam(model.parameters(), fused=True), PerRecordError()

    def run() -> None:
        step.gradient(lambda rows: error(model(*(a[rows] for a in arguments)), target[rows]), len(target))
        optimiser.step()

    return run


def plain(model: nn.Module, arguments: tuple, target: torch.Tensor, **options: bool) -> Callable[[], None]:
    optimiser, error = torch.optim.Adam(model.parameters(), **options), PerRecordError()

    def run() -> None:
        optimiser.zero_grad()
        error(model(*arguments), target).mean().backward()
        optimiser.step()

    return run


def opacus_hooks(model: nn.Module, arguments: tuple, target: torch.Tensor) -> Callable[[], None]:
    module, error = GradSampleModule(model), PerRecordError()
    optimiser = DPOptimizer(
        torch.optim.Adam(module.parameters()),
        noise_multiplier=SIGMA,
        max_grad_norm=C,
        expected_batch_size=len(target),
        generator=torch_generator(0, "noise"),
    )

    def run() -> None:
        optimiser.zero_grad()
        error(module(*arguments), target).mean().backward()
        optimiser.step()

    return run


def opacus_ghost(model: nn.Module, arguments: tuple, target: torch.Tensor) -> Callable[[], None]:
    module = GradSampleModuleFastGradientClipping(model, max_grad_norm=C, use_ghost_clipping=True)
    optimiser = DPOptimizerFastGradientClipping(
        torch.optim.Adam(module.parameters()),
        noise_multiplier=SIGMA,
        max_grad_norm=C,
        expected_batch_size=len(target),
        generator=torch_generator(0, "noise"),
    )
    criterion = DPLossFastGradientClipping(module, optimiser, PerRecordError())

    def run() -> None:
        optimiser.zero_grad()
        criterion(module(*arguments), target).backward()
        optimiser.step()

    return run


def products(model: nn.Module, rows: int) -> Callable[[], None]:
    """Return the matrix products that any step needs: forward, weight gradients, gradients of hidden inputs."""
    linears = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    generator, jobs = torch_generator(0, "floor"), []
    for index, layer in enumerate(linears):
        a = torch.randn(rows, layer.in_features, generator=generator)
        b = torch.randn(rows, layer.out_features, generator=generator)
        w = torch.randn(layer.out_features, layer.in_features, generator=generator)
        jobs += [(a, w.t(), torch.empty_like(b)), (b.t(), a, torch.empty_like(w))]
        jobs += [(b, w, torch.empty_like(a))] if index else []

    def run() -> None:
        for left, right, out in jobs:
            torch.mm(left, right, out=out)

    return run


def variants(model: nn.Module, arguments: tuple, target: torch.Tensor) -> dict[str, Callable[[], None]]:
    """Return every way to make a step, each on a copy of the model of its own."""
    makers = {
        "private step": private,
        "plain Adam": plain,
        "fused Adam": lambda *given: plain(*given, fused=True),
        "Opacus hooks": opacus_hooks,
        "Opacus ghost": opacus_ghost,
    }
    warnings.filterwarnings("ignore", message=".*backward hook.*")
    return {name: make(copy.deepcopy(model), arguments, target) for name, make in makers.items()}


def step(width: int, rounds: int) -> Benchmark:
    """Compare at the given hidden width; the bounds are those of issue 3."""
    model, (arguments, target) = denoiser(width), batch()
    ghost = 1.6 if width >= 1024 else 2.5
    goals = [
        Goal("time against plain Adam", "private step", "plain Adam", at_most=1.15 if width >= 1024 else 1.2),
        Goal("time against fused Adam", "private step", "fused Adam"),
        Goal("speed against Opacus hooks", "Opacus hooks", "private step", at_least=25.0),
        Goal("speed against Opacus ghost", "Opacus ghost", "private step", at_least=ghost),
        Goal("share of the matrix products' speed", "matrix products", "private step", at_least=0.65),
    ]
    return Benchmark(
        title=f"DP-SGD step, {width} x {width}, B = {BATCH}",
        variants=variants(model, arguments, target) | {"matrix products": products(model, BATCH)},
        goals=goals,
        rounds=rounds,
        repeats=2 if width >= 1024 else 8,
        slow=frozenset({"Opacus hooks"}),
        slow_rounds=5,
        facts={"parameters": sum(p.numel() for p in model.parameters()), "records": BATCH, "columns": COLUMNS},
    )


def memory(rounds: int) -> Benchmark:
    """Compare peak memory at width 1024; each measurement is a process of its own."""

    def fresh(name: str) -> Callable[[], float]:
        def measure() -> float:
            command = [sys.executable, str(Path(__file__).resolve()), name]
            return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

        return measure

    return Benchmark(
        title=f"peak memory above bare torch, 1024 x 1024, B = {BATCH}",
        variants={name: fresh(name) for name in MEMORY},
        goals=[
            Goal("memory of Opacus hooks", "Opacus hooks", "private step", at_least=30.0),
            Goal("memory of Opacus ghost", "Opacus ghost", "private step"),
            Goal("memory of plain Adam", "plain Adam", "private step"),
        ],
        rounds=rounds,
        unit="MiB",
        warm_up=0,
        facts={"measured": "largest resident size after 4 steps less that after a step of a tiny model"},
    )


def _peak(name: str) -> float:
    """Return the MiB that four steps of a variant add to a process in which that variant has run on a tiny model.

    The tiny run loads what optimisers and hooks import late, about 90 MiB that belong to torch.
    """
    torch.set_num_threads(1)
    makers = {"private step": private, "plain Adam": plain, "Opacus hooks": opacus_hooks, "Opacus ghost": opacus_ghost}
    makers[name](denoiser(8), *batch(4))()
    before = peak_memory_bytes()
    run = makers[name](denoiser(1024), *batch())
    for _ in range(4):
        run()
    return (peak_memory_bytes() - before) / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=_peak.__doc__)
    parser.add_argument("variant", choices=MEMORY)
    warnings.filterwarnings("ignore")
    print(_peak(parser.parse_args().variant))
