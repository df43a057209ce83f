"""The two kinds of party of SiloFuse: what a silo keeps and what it gives away, and what the coordinator ever sees.

A silo's table, codec, encoder E_i and decoder D_i are reachable from its own object only; the coordinator's object
holds latents as they were sent, the names of their senders and the diffusion model trained on them.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from feddiff.data.codec import Encoded, TableCodec
from feddiff.data.silos import Silo
from feddiff.diffusion.descent import Batches, Descent, Fitted, descend
from feddiff.diffusion.latent_diffusion import LatentDiffusion
from feddiff.diffusion.process import q_sample
from feddiff.diffusion.table_autoencoder import (
    CONSTANT,
    TableAutoencoder,
    fit_autoencoder,
    latents,
    not_finite,
    reconstruction,
)
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems.silofuse_config import VARIANCES, SiloFuseConfig

COORDINATOR = "coordinator"
# Share of the T steps at which the coordinator denoises real latents before it returns them: little noise, so that
# each row stays itself and only what the diffusion model cannot represent is lost.
RETURNED_AT = 0.2


class SiloClient:
    """Silo i: its columns X_i, its codec, its autoencoder (E_i, D_i); all of them stay here."""

    def __init__(self, silo: Silo, config: SiloFuseConfig, silos: int):
        self.name, self.config, self.columns = silo.name, config, list(silo.frame.columns)
        self.codec = self._fitted_codec(silo)
        self.codes, self.numbers = self._encoded(silo.frame)
        self.model = TableAutoencoder(
            self.codec.levels,
            len(self.codec.number_columns),
            latent=config.width(len(self.columns), silos),
            hidden=config.hidden_width(silos),
            generator=torch_generator(config.seed, "init", self.name),
            variant=config.variant,
            noise=config.noise,
            beta=config.beta,
        )
        self._last_upload, self.fitted, self.seconds = -1, False, 0.0
        self._denoised: torch.Tensor | None = None
        self.history = pd.DataFrame({"step": [], "loss": []})

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def width(self) -> int:
        """s_i, the width of the silo's latents."""
        return self.model.latent

    @property
    def coded_columns(self) -> list[str]:
        """Own columns in the order of codes and numbers: categories first."""
        return [*self.codec.code_columns, *self.codec.number_columns]

    def fit(self, *, round: int = 0, progress: bool = True) -> None:
        """Train (E_i, D_i) on own rows; the latents' mean and variance are taken from the same rows.

        After the first round training goes on from where it stood, see `_refit`.
        """
        training, seed = self.config.autoencoder_training(round), self.config.seed
        if round == 0:
            options = dict(seed=seed, name=self.name, columns=self.coded_columns, progress=progress)
            fitted = fit_autoencoder(self.model, self.codes, self.numbers, training, **options)
            if not self.config.standardise:
                self.model.shift.zero_()
                self.model.scale.fill_(1)
        else:
            fitted = self._refit(training, f"{self.name} round {round}", progress)
        self.took_part(fitted.history, fitted.seconds)

    def took_part(self, history: pd.DataFrame, seconds: float) -> None:
        """Note down a training that was made."""
        self.history = pd.concat([self.history, history], ignore_index=True) if len(self.history) else history
        self.seconds += seconds
        self.fitted = True

    def upload(self, *, round: int = 0) -> dict[str, np.ndarray]:
        """Return Z_i = E_i(X_i) of all rows, float32 (n, s_i).

        Raises RuntimeError before training, and for a second upload in the same round: SiloFuse has one.
        """
        if not self.fitted:
            raise RuntimeError(f"{self.name}'s autoencoder was not trained: call fit() before upload()")
        if round <= self._last_upload:
            raise RuntimeError(f"{self.name} has uploaded in round {self._last_upload} already: SiloFuse sends latents "
                               "once; a further upload needs a further round (alternations)")
        self._last_upload = round
        return {"z": latents(self.model, self.codes, self.numbers).numpy()}

    def receive(self, message: Mapping[str, np.ndarray]) -> None:
        """Take up the coordinator's denoised version of the latents that were uploaded last."""
        self._denoised = torch.from_numpy(message["z"])

    def decode(self, z: np.ndarray, *, seed: int) -> pd.DataFrame:
        """Return the silo's part of the table that D_i makes of latents (n, s_i): own columns, dtypes and labels."""
        if z.ndim != 2 or z.shape[1] != self.width:
            raise ValueError(f"{self.name} decodes latents of shape (rows, {self.width}), got {z.shape}")
        codes, numbers = self.model.draw(
            torch.from_numpy(z),
            torch_generator(seed, "sampling", "decoder", self.name),
            categories=self.config.categories,
            numbers=self.config.numbers,
        )
        return self.codec.decode(Encoded(codes.numpy(), numbers.numpy()))

    def reconstruction(self, frame: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return how well D_i(E_i(x)) gives x back: columns silo, column, kind, score; frame: other rows than own ones.

        score is the accuracy of a "categorical" column and R^2 of a "numeric" one in the codec's space; 1 is perfect.
        """
        codes, numbers = (self.codes, self.numbers) if frame is None else self._encoded(frame)
        found = reconstruction(self.model, codes, numbers)
        names = self.coded_columns
        kinds = ["categorical"] * len(self.codec.code_columns) + ["numeric"] * len(self.codec.number_columns)
        return pd.DataFrame({"silo": self.name, "column": names, "kind": kinds, "score": np.asarray(found)})

    def summary(self) -> dict:
        """Return the silo's own state (for its own disk, or the cache of an experiment)."""
        weights = {key: value.detach().clone() for key, value in self.model.state_dict().items()}
        return {"weights": weights, "history": self.history.to_dict("list"), "seconds": self.seconds}

    def restore(self, summary: dict) -> None:
        """Take up a `summary`."""
        self.model.load_state_dict(summary["weights"])
        self.model.eval()
        self.history, self.seconds = pd.DataFrame(summary["history"]), summary["seconds"]
        self.fitted = True

    def _refit(self, training: Descent, name: str, progress: bool) -> Fitted:
        """Train on: rows must come back from own latents and from the denoised ones, which latents are drawn to."""
        if self._denoised is None:
            raise RuntimeError(f"{self.name} has received no denoised latents to go on from")
        returned = self._denoised

        def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            codes, numbers, z = self.codes[rows], self.numbers[rows], returned[rows]
            own = self.model.loss_per_record(codes, numbers, generator=generator)
            theirs = self.model.loss_per_column(z, codes, numbers)
            pull = (self.model.encode(codes, numbers) - z).square().sum(dim=1)
            value = (own + theirs.sum(dim=1) + pull).mean()
            if not math.isfinite(float(value.detach())):
                raise not_finite(theirs, self.coded_columns, name, batches.step)
            return value

        batches = Batches(torch.zeros(len(self)), training.batch, False, self.config.seed, name)
        device = torch.device("cpu")
        fitted = descend(
            self.model, loss, batches, training, seed=self.config.seed, name=name, device=device, progress=progress
        )
        if self.config.standardise:
            z = latents(self.model, self.codes, self.numbers).double()
            spread = z.std(dim=0, correction=0)
            self.model.shift.add_(self.model.scale * z.mean(dim=0))
            self.model.scale.mul_(torch.where(spread > CONSTANT, spread, 1.0))
        return fitted

    def _fitted_codec(self, silo: Silo) -> TableCodec:
        settings = dict(numerics=self.config.numerics, unseen=self.config.unseen, provenance="client")
        try:
            return TableCodec.fit(silo.frame, silo.kinds, **settings)
        except ValueError as error:
            raise ValueError(f"{silo.name}: {error}; drop or fill the column before training") from error

    def _encoded(self, frame: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            found = self.codec.encode(frame, numpy_generator(self.config.seed, "ranks", self.name))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        return torch.from_numpy(found.codes), torch.from_numpy(found.numbers)


class Coordinator:
    """The coordinator: latents as they came, and the diffusion model trained on them alone."""

    def __init__(self, config: SiloFuseConfig):
        self.config = config
        self._received: dict[str, np.ndarray] = {}
        self._rounds: dict[str, int] = {}
        self._widths: dict[str, int] = {}
        self._model: LatentDiffusion | None = None
        self.history, self.seconds = pd.DataFrame({"step": [], "loss": []}), 0.0

    def receive(self, sender: str, message: Mapping[str, np.ndarray], *, round: int = 0) -> None:
        """Keep the latents of one silo, in place of those of an earlier round.

        ValueError for latents that are not finite, for another number of rows than the other silos sent, and for a
        second upload in one round.
        """
        z = message["z"]
        if z.ndim != 2 or z.dtype != np.float32:
            raise ValueError(f"{sender}: latents must be float32 of shape (rows, width), got {z.dtype} {z.shape}")
        if not np.isfinite(z).all():
            row, column = np.argwhere(~np.isfinite(z))[0]
            raise ValueError(f"{sender}: the latent at row {row}, place {column} is not finite; its autoencoder "
                             "diverged: lower ae_lr")
        rows = {len(other) for name, other in self._received.items() if name != sender}
        if rows and len(z) not in rows:
            raise ValueError(f"{sender} sent {len(z)} rows of latents, the other silos {rows.pop()}: align them by key")
        if round <= self._rounds.get(sender, -1):
            raise ValueError(f"{sender} has uploaded in round {round} already: every silo uploads once a round")
        self._received[sender], self._rounds[sender] = z, round
        self.expect({name: part.shape[1] for name, part in self._received.items()})

    def expect(self, widths: Mapping[str, int]) -> None:
        """Take note of the silos' latent widths; places are in order of the silos' names, not of their uploads."""
        self._widths = {name: widths[name] for name in sorted(widths)}

    @torch.no_grad()
    def denoised(self, round: int) -> dict[str, np.ndarray]:
        """Return what the diffusion model makes of the uploaded latents after a little noise, (n, s_i) by silo."""
        z = self._side_by_side()
        generator = torch_generator(self.config.seed, "denoised", round)
        t = int(RETURNED_AT * (self.config.T - 1))
        noise = torch.randn(z.shape, generator=generator)
        return self.cut(self.model.predict_x0(q_sample(z, torch.tensor([t]), noise, self.model.schedule), t))

    @property
    def latents(self) -> dict[str, np.ndarray]:
        """What was uploaded, (n, s_i) by silo."""
        return {name: self._received[name] for name in sorted(self._received)}

    @property
    def model(self) -> LatentDiffusion:
        """The diffusion model on all silos' latents; made when it is first asked for."""
        if self._model is None:
            config = self.config
            if not self._widths:
                raise ValueError("the coordinator does not know the silos' latent widths yet: every silo uploads first")
            self._model = LatentDiffusion(
                sum(self._widths.values()),
                width=config.dm_width,
                blocks=config.dm_blocks,
                T=config.T,
                schedule=config.schedule,
                prediction=config.prediction,
                dropout=config.dropout,
                generator=torch_generator(config.seed, "init", COORDINATOR),
            )
        return self._model

    def fit(self, *, round: int = 0, progress: bool = True) -> None:
        """Train the diffusion model on the latents of all silos, side by side."""
        z, training = self._side_by_side(), self.config.diffusion_training(round)
        name = COORDINATOR if round == 0 else f"{COORDINATOR} round {round}"
        fitted = self.model.fit(z, training, seed=self.config.seed, name=name, progress=progress)
        self.took_part(fitted.history, fitted.seconds)

    def took_part(self, history: pd.DataFrame, seconds: float) -> None:
        """Note down a training that was made."""
        self.history = pd.concat([self.history, history], ignore_index=True) if len(self.history) else history
        self.seconds += seconds

    def generate(self, rows: int, *, seed: int) -> dict[str, np.ndarray]:
        """Return synthetic latents z_0, float32 (rows, s_i) by silo: denoised from N(0, I), cut at the boundaries."""
        if not isinstance(rows, (int, np.integer)) or isinstance(rows, bool) or rows < 1:
            raise ValueError(f"rows must be an integer >= 1, got {rows!r}")
        generator = torch_generator(seed, "sampling", COORDINATOR)
        walk = dict(steps=self.config.sample_steps, known_noise=VARIANCES[self.config.variance])
        return self.cut(self.model.sample(int(rows), generator, **walk))

    def cut(self, z: torch.Tensor) -> dict[str, np.ndarray]:
        """Return the silos' places of (n, s) latents, by silo."""
        parts = z.split(list(self._widths.values()), dim=1)
        return {name: part.contiguous().numpy() for name, part in zip(self._widths, parts)}

    def _side_by_side(self) -> torch.Tensor:
        if not self._received:
            raise ValueError("the coordinator has no latents yet: every silo uploads first")
        return torch.from_numpy(np.concatenate(list(self.latents.values()), axis=1))

    def summary(self) -> dict:
        """Return weights and history as tensors and plain values (for a cache)."""
        weights = {key: value.detach().clone() for key, value in self.model.state_dict().items()}
        return {"weights": weights, "history": self.history.to_dict("list"), "seconds": self.seconds}

    def restore(self, summary: dict) -> None:
        """Take up a `summary`; the silos' widths are known by then."""
        self.model.load_state_dict(summary["weights"])
        self.model.eval()
        self.history, self.seconds = pd.DataFrame(summary["history"]), summary["seconds"]
