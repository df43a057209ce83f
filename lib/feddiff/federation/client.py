"""A client: keeps its rows and its optimiser at home, and answers global weights with locally trained weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from feddiff.privacy.noise import GaussianNoise, SecureGaussianNoise
from feddiff.privacy.sampling import poisson_batch, secure_poisson_batch
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator

OPTIMISERS = ("adam", "sgd")
OPTIMISER_STATES = ("keep", "reset")
LR_SCHEDULES = ("constant", "cosine")

# draws(batch, generator) fixes every random draw of a batch and returns loss(rows: slice) -> (len,) losses.
BatchLoss = Callable[[torch.Tensor, torch.Generator], Callable[[slice], torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """How a client trains.

    batch_size: expected Poisson batch B and the public divisor of every gradient sum; lr with its schedule over
    total_steps; optimiser and what happens to its state when a new round's weights arrive; proximal: mu of FedProx;
    clip_norm C (inf: no clipping); clipping: "flat" or "per-layer" (privacy.step); microbatch: records for one pass
    through the network (does not change the update). secure: noise and batches of private training come from the
    operating system's cryptographic generator, for deployments; such a run cannot be repeated.
    """

    batch_size: int
    total_steps: int
    lr: float
    lr_schedule: str = "cosine"
    optimiser: str = "adam"
    optimiser_state: str = "keep"
    proximal: float = 0.0
    clip_norm: float = math.inf
    clipping: str = "flat"
    microbatch: int | None = None
    secure: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("optimiser", self.optimiser, OPTIMISERS),
            ("optimiser_state", self.optimiser_state, OPTIMISER_STATES),
            ("lr_schedule", self.lr_schedule, LR_SCHEDULES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of the client's step-th local step (0-based)."""
        if self.lr_schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(step / self.total_steps, 1.0)))


def flat_weights(network: nn.Module) -> torch.Tensor:
    """Return a copy of the trainable parameters as one vector."""
    return torch.cat([p.detach().flatten() for p in network.parameters() if p.requires_grad])


@torch.no_grad()
def load_flat_weights(network: nn.Module, weights: torch.Tensor) -> None:
    """Copy a vector of `flat_weights` into the network's trainable parameters."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    sizes = [p.numel() for p in trainable]
    if sum(sizes) != len(weights):
        raise ValueError(f"the network has {sum(sizes)} trainable parameters, the vector {len(weights)}")
    for p, part in zip(trainable, weights.split(sizes)):
        p.copy_(part.view_as(p))


class PlainStep:
    """The gradient step without privacy, with the interface of PrivateStep: sum of losses over the public B."""

    def __init__(self, network: nn.Module, expected_batch: float):
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.expected_batch = expected_batch

    def gradient(self, loss_fn: Callable[[slice], torch.Tensor], records: int) -> torch.Tensor:
        """Write p.grad for every trainable parameter; return the detached losses (records,)."""
        for p in self.parameters:
            p.grad = torch.zeros_like(p)
        if records == 0:
            return torch.empty(0)
        losses = loss_fn(slice(0, records))
        (losses.sum() / self.expected_batch).backward()
        return losses.detach()


class Client:
    """One data holder with `rows` records; see LocalTraining for how it trains.

    noise_multiplier None trains without DP; a number trains by DP-SGD with per-record clipping to C, N(0,
    (noise_multiplier C)^2) noise and the divisor B (Abadi et al. 2016, algorithm 1). Batches are Poisson samples with
    rate B / rows in both cases, so a private run and its twin see the same batches. max_steps: stop at budget.
    """

    def __init__(
        self,
        *,
        name: str,
        rows: int,
        network: nn.Module,
        draws: BatchLoss,
        training: LocalTraining,
        noise_multiplier: float | None,
        seed: int,
        max_steps: int | None = None,
    ):
        if training.batch_size > rows:
            raise ValueError(
                f"{name} has {rows} rows, fewer than the batch size B={training.batch_size}; lower B or merge clients"
            )
        self.name, self.rows, self.network, self.draws, self.training = name, rows, network, draws, training
        self.noise_multiplier, self.max_steps, self.steps_taken = noise_multiplier, max_steps, 0
        self.sample_rate = training.batch_size / rows
        self.generators = {stream: torch_generator(seed, stream, name) for stream in ("batches", "draws", "dp-noise")}
        if noise_multiplier is None:
            self.step = PlainStep(network, training.batch_size)
        else:
            self.step = PrivateStep(
                network,
                clip_norm=training.clip_norm,
                noise_multiplier=noise_multiplier,
                expected_batch=training.batch_size,
                noise=SecureGaussianNoise() if training.secure else GaussianNoise(self.generators["dp-noise"]),
                clipping=training.clipping,
                microbatch=training.microbatch,
            )
        self.optimiser = self._new_optimiser()

    def _new_optimiser(self) -> torch.optim.Optimizer:
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        if self.training.optimiser == "sgd":
            return torch.optim.SGD(parameters, lr=self.training.lr)
        return torch.optim.Adam(parameters, lr=self.training.lr, fused=True)

    def _batch(self) -> torch.Tensor:
        if self.training.secure:
            return secure_poisson_batch(self.rows, self.sample_rate)
        return poisson_batch(self.rows, self.sample_rate, self.generators["batches"])

    def allowed_steps(self, wanted: int) -> int:
        """Return how many of the wanted local steps the budget still allows."""
        return wanted if self.max_steps is None else min(wanted, self.max_steps - self.steps_taken)

    def update(self, weights: torch.Tensor, steps: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Return locally trained weights and diagnostics of `steps` steps from the global `weights`.

        The diagnostics (mean loss, clipped share) are computed on private rows: they never leave with the weights.
        """
        load_flat_weights(self.network, weights)
        if self.training.optimiser_state == "reset":
            self.optimiser = self._new_optimiser()
        anchor = [p.detach().clone() for p in self.step_parameters] if self.training.proximal else []
        loss_sum, clipped_sum, seen = 0.0, 0.0, 0
        for _ in range(steps):
            batch = self._batch()
            loss_fn = self.draws(batch, self.generators["draws"])
            report = self.step.gradient(loss_fn, len(batch))
            losses = report if self.noise_multiplier is None else report.losses
            if not bool(torch.isfinite(losses).all()):
                raise FloatingPointError(
                    f"{self.name}: non-finite loss at its local step {self.steps_taken}; lower the learning rate or "
                    "look for non-finite values in the data"
                )
            if self.noise_multiplier is not None:
                clipped_sum += report.clipped_fraction * len(batch)
            loss_sum, seen = loss_sum + float(losses.sum()), seen + len(batch)
            for p, start in zip(self.step_parameters, anchor):
                p.grad.add_(p.detach() - start, alpha=self.training.proximal)
            for group in self.optimiser.param_groups:
                group["lr"] = self.training.lr_at(self.steps_taken)
            self.optimiser.step()
            self.steps_taken += 1
        seen = max(seen, 1)
        return flat_weights(self.network), {"loss": loss_sum / seen, "clipped": clipped_sum / seen}

    @property
    def step_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters, in the order of `flat_weights`."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def state(self) -> dict:
        """Return what a checkpoint needs: steps taken, optimiser, generators."""
        return {
            "steps_taken": self.steps_taken,
            "optimiser": self.optimiser.state_dict(),
            "generators": {name: g.get_state() for name, g in self.generators.items()},
        }

    def load(self, state: dict) -> None:
        """Take up the state of a checkpoint."""
        self.steps_taken = state["steps_taken"]
        self.optimiser.load_state_dict(state["optimiser"])
        for name, g in self.generators.items():
            g.set_state(state["generators"][name])
