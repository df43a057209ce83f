"""Server optimisers on flat parameter vectors: FedAvg, FedProx, FedAdam, FedYogi.

The server sees weights only; what it does with private updates is post-processing and costs no privacy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

STRATEGIES = ("FedAvg", "FedProx", "FedAdam", "FedYogi")


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A server optimiser and its hyper-parameters.

    name: one of STRATEGIES. proximal: mu of FedProx (Li et al. 2020), applied in the clients' local objective.
    server_lr, beta_1, beta_2, tau: of FedAdam and FedYogi (Reddi et al. 2021, algorithm 2).
    """

    name: str = "FedAvg"
    proximal: float = 0.0
    server_lr: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        if self.name not in STRATEGIES:
            raise ValueError(f"strategy must be one of {STRATEGIES}, got {self.name!r}")
        if self.name == "FedProx" and not self.proximal > 0:
            raise ValueError(f"FedProx needs proximal > 0 (mu), got {self.proximal}; use FedAvg for mu = 0")
        if self.name != "FedProx" and self.proximal != 0:
            raise ValueError(f"proximal belongs to FedProx; {self.name} was given {self.proximal}")


class Server:
    """The global weights and the state of the server optimiser."""

    def __init__(self, strategy: Strategy, weights: torch.Tensor):
        self.strategy = strategy
        self.weights = weights.clone()
        self.moment = torch.zeros_like(weights)
        self.variance = torch.full_like(weights, strategy.tau**2)

    def aggregate(self, updates: Sequence[torch.Tensor], rows: Sequence[int]) -> float:
        """Take in the clients' weights, weighted by their rows; return the L2 norm of the global move.

        FedAvg: sum_k n_k / n * w_k (McMahan et al. 2017; eq. 4 of DP-Fed-FinDiff). The others take the same mean move
        as a pseudo-gradient (Reddi et al. 2021).
        """
        total = sum(rows)
        move = sum((n / total) * (w - self.weights) for n, w in zip(rows, updates))
        s = self.strategy
        if s.name in ("FedAdam", "FedYogi"):
            self.moment = s.beta_1 * self.moment + (1 - s.beta_1) * move
            square = move**2
            if s.name == "FedAdam":
                self.variance = s.beta_2 * self.variance + (1 - s.beta_2) * square
            else:
                self.variance = self.variance - (1 - s.beta_2) * square * torch.sign(self.variance - square)
            move = s.server_lr * self.moment / (self.variance.sqrt() + s.tau)
        self.weights = self.weights + move
        return float(move.norm())

    def state(self) -> dict:
        """Return what a checkpoint needs."""
        return {"weights": self.weights, "moment": self.moment, "variance": self.variance}

    def load(self, state: dict) -> None:
        """Take up the state of a checkpoint."""
        self.weights, self.moment, self.variance = state["weights"], state["moment"], state["variance"]
