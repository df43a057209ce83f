"""A round of five private clients in our federation against the same clients trained one after another by Opacus."""

import copy
from collections.abc import Callable

import torch
from interleaved import Benchmark, Goal
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from private_step import CLASSES, COLUMNS, SIGMA, C, PerRecordError, denoiser

from feddiff.federation.client import Client, LocalTraining, flat_weights, load_flat_weights
from feddiff.federation.rounds import Federation
from feddiff.federation.strategies import Server, Strategy
from feddiff.privacy.sampling import poisson_batch
from feddiff.seeds import torch_generator

CLIENTS, ROWS, EXPECTED, STEPS, WIDTH = 5, 2000, 256, 2, 256


def _data(k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch_generator(0, "client", k)
    x = torch.randn(ROWS, COLUMNS, generator=generator)
    return x, torch.randint(CLASSES, (ROWS,), generator=generator), torch.randn(ROWS, COLUMNS, generator=generator)


def _ours() -> Callable[[], None]:
    network, error = denoiser(WIDTH), PerRecordError()
    training = LocalTraining(batch_size=EXPECTED, total_steps=10_000, lr=1e-3, clip_norm=C)

    def client(k: int) -> Client:
        own, (x, label, target) = copy.deepcopy(network), _data(k)

        def draws(batch: torch.Tensor, generator: torch.Generator) -> Callable[[slice], torch.Tensor]:
            t = torch.randint(500, (len(batch),), generator=generator)
            return lambda i: error(own(x[batch[i]], t[i], label[batch[i]]), target[batch[i]])

        return Client(
            name=f"client {k}", rows=ROWS, network=own, draws=draws, training=training, noise_multiplier=SIGMA, seed=0
        )

    server = Server(Strategy(), flat_weights(network))
    federation = Federation(clients=[client(k) for k in range(CLIENTS)], server=server)
    schedule: list[list[int]] = []

    def one_round() -> None:
        schedule.append(list(range(CLIENTS)))
        federation.run(schedule, STEPS, progress=False)

    return one_round


def _opacus() -> Callable[[], None]:
    network, error, clients = denoiser(WIDTH), PerRecordError(), []
    for k in range(CLIENTS):
        own = copy.deepcopy(network)
        module = GradSampleModule(own)
        optimiser = DPOptimizer(
            torch.optim.Adam(module.parameters()),
            noise_multiplier=SIGMA,
            max_grad_norm=C,
            expected_batch_size=EXPECTED,
            generator=torch_generator(0, "noise", k),
        )
        clients.append((own, module, optimiser, torch_generator(0, "batches", k), _data(k)))
    weights = [flat_weights(network)]

    def one_round() -> None:
        trained = []
        for own, module, optimiser, generator, (x, label, target) in clients:
            load_flat_weights(own, weights[0])
            for _ in range(STEPS):
                batch = poisson_batch(ROWS, EXPECTED / ROWS, generator)
                t = torch.randint(500, (len(batch),), generator=generator)
                optimiser.zero_grad()
                error(module(x[batch], t, label[batch]), target[batch]).mean().backward()
                optimiser.step()
            trained.append(flat_weights(own))
        weights[0] = torch.stack(trained).mean(0)

    return one_round


def federation(rounds: int) -> Benchmark:
    return Benchmark(
        title=f"round of {CLIENTS} private clients, {WIDTH} x {WIDTH}, B = {EXPECTED}, {STEPS} local steps",
        variants={"federation": _ours(), "sequential Opacus": _opacus()},
        goals=[Goal("speed against sequential Opacus", "sequential Opacus", "federation", at_least=20.0)],
        rounds=rounds,
        repeats=3,
        slow=frozenset({"sequential Opacus"}),
        slow_rounds=rounds,
    )
