"""Sampling a table: our sampler in cache-sized chunks against a loop over all rows at once."""

import torch
from interleaved import Benchmark, Goal

from feddiff.diffusion import samplers
from feddiff.diffusion.denoisers import MLPDenoiser
from feddiff.diffusion.process import posterior_mean, x0_from_epsilon
from feddiff.diffusion.schedules import linear
from feddiff.seeds import torch_generator
from feddiff.systems.findiff import SAMPLE_CHUNK

ROWS, STEPS, WIDTH, COLUMNS, CLASSES = 10_000, 500, 256, 64, 2


def sampling(rounds: int) -> Benchmark:
    network = MLPDenoiser(
        COLUMNS,
        COLUMNS,
        hidden=(WIDTH, WIDTH),
        classes=CLASSES,
        generator=torch_generator(0, "init"),
        conditioning="added",
    )
    schedule = linear(STEPS, beta_1=1e-4, beta_T=0.02, scale_betas=False)
    labels = torch.randint(CLASSES, (ROWS,), generator=torch_generator(0, "labels"))
    scales = schedule.beta.sqrt()

    def start(rows: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(rows, COLUMNS, generator=generator)

    def chunked() -> None:
        generator = torch_generator(0, "sampling")
        for part in labels.split(SAMPLE_CHUNK):

            def predict(x: torch.Tensor, t: int, part: torch.Tensor = part) -> torch.Tensor:
                times = torch.tensor([t])
                return x0_from_epsilon(x, times, network(x, times, part), schedule)

            samplers.ancestral(predict, start(len(part), generator), schedule, generator)

    @torch.no_grad()
    def naive() -> None:
        generator = torch_generator(0, "sampling")
        x = start(ROWS, generator)
        for t in range(STEPS - 1, -1, -1):
            times = torch.full((ROWS,), t)
            x0 = x0_from_epsilon(x, times, network(x, times, labels), schedule)
            x = posterior_mean(x0, x, t, schedule) if t else x0
            if t:
                x = x + scales[t] * torch.randn(x.shape, generator=generator)

    @torch.no_grad()
    def products() -> None:
        linears = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
        jobs = [
            (torch.randn(SAMPLE_CHUNK, layer.in_features, generator=torch_generator(0, "floor")), layer.weight.t())
            for layer in linears
            if not any(layer is timed for timed in network.time)
        ]
        results = [torch.empty(SAMPLE_CHUNK, weight.shape[1]) for _, weight in jobs]
        for _ in range(STEPS * ROWS // SAMPLE_CHUNK):
            for (left, right), out in zip(jobs, results):
                torch.mm(left, right, out=out)

    return Benchmark(
        title=f"sampling {ROWS} rows, {STEPS} steps, {WIDTH} x {WIDTH}",
        variants={"our sampler": chunked, "naive loop": naive, "matrix products": products},
        goals=[
            Goal("speed against the naive loop", "naive loop", "our sampler", at_least=1.5),
            Goal("share of the matrix products' speed", "matrix products", "our sampler"),
        ],
        rounds=rounds,
        facts={"rows at a time": SAMPLE_CHUNK},
    )
