"""A trained baseline on pictures: its models, what it cost, what it gives away."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from feddiff.privacy.ledger import PrivacyLedger
from feddiff.systems.image_clients import ImageClient, Members, PixelSpace, members
from feddiff.systems.image_denoisers import Denoiser, denoiser
from feddiff.systems.pfdm_config import PFDMConfig

Clients = Sequence[ImageClient | tuple]
SHARED = "shared"


@dataclass(eq=False)
class ImageBaseline:
    """A trained baseline: `models` by client name, or one under SHARED; `privacy` is the complete statement.

    budget: training pictures of each model. history: columns model and those of the training. nbytes: sent in training.
    """

    name: str
    config: PFDMConfig
    members: Members
    models: dict[str, Denoiser]
    privacy: dict
    budget: dict[str, int]
    history: pd.DataFrame
    nbytes: int = 0

    def sample(
        self,
        labels: Sequence[int] | torch.Tensor,
        *,
        seed: int,
        client: int | str | None = None,
        steps: int | None = 30,
        sampler: str = "ancestral",
    ) -> torch.Tensor:
        """Return one picture of each label, float32 (n, c, side, side) in [-1, 1], over `steps` steps (None: all).

        client: whose model draws them; needed where every client has its own, ignored where they share one. A model
        of steps 1..t0 starts from N(0, I) at t0.
        """
        codes = self.members.codes(labels)
        if client is not None:
            position = self.members.position(client)
        elif SHARED not in self.models:
            raise ValueError(f"{self.name} has a model for each client: say which with client=")
        owner = SHARED if SHARED in self.models else self.members.names[position]
        model = self.models[owner]
        capped = None if steps is None else min(steps, model.hi)
        x = model.draw(codes, seed=seed, stream=("sampling", self.name, owner), steps=capped, sampler=sampler)
        return PixelSpace(self.config.values).leave(x)

    def to_state(self) -> dict:
        """Return what a cache needs as tensors and plain values."""
        models = {owner: model.summary() | {"hi": model.hi, "flag": model.flag} for owner, model in self.models.items()}
        return {
            "name": self.name,
            "models": models,
            "privacy": self.privacy,
            "budget": self.budget,
            "history": self.history.to_dict("list"),
            "nbytes": self.nbytes,
        }


def from_state(state: dict, clients: Clients, config: PFDMConfig, *, device: str = "cpu") -> ImageBaseline:
    """Return the baseline that `ImageBaseline.to_state` described, on the same clients and configuration."""
    found, models = members(clients, config.classes), {}
    for owner, summary in state["models"].items():
        trained = {"hi": summary["hi"], "flag": summary["flag"]}
        model = denoiser(owner, config, found.shape, found.classes, device=device, **trained)
        model.restore(summary)
        models[owner] = model
    history = pd.DataFrame(state["history"])
    kept = {name: state[name] for name in ("name", "privacy", "budget", "nbytes")}
    return ImageBaseline(config=config, members=found, models=models, history=history, **kept)


def without_dp(found: Members, config: PFDMConfig) -> dict:
    """Return the privacy statement of a training on clean pictures: epsilon is infinite."""
    ledger = PrivacyLedger(clients=found.names, delta=config.delta, unit="image")
    for name in found.names:
        ledger.spend_gaussian(name, noise_over_sensitivity=0.0, what="training on clean pictures without noise")
    return ledger.statement()


def statement(ledger: PrivacyLedger) -> dict:
    """Return the statement of a ledger, the diagnostics of training declared outside."""
    ledger.declare_outside("training history (losses, clipped shares): diagnostics computed on private pictures")
    return ledger.statement()


def joined(histories: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the histories of several models as one frame with a column model."""
    return pd.concat([frame.assign(model=owner) for owner, frame in histories.items()], ignore_index=True)
