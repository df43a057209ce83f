"""The end-to-end baselines of SiloFuse: encoders, diffusion model and decoders trained together, in one place or split.

A step on rows b, the same for all parties:

    silo i: z_i = E_i(x_i), standardised over the batch                       message 1: z_i up
    coordinator: z_t at a random t, denoised z^_0 = f(z_t, t)                 message 2: z^_0,i down
    silo i: L_i = -log D_i(x_i | z^_0,i), mean over b                         message 3: dL_i / dz^_0,i up
    coordinator: gradient of the diffusion loss + sum_i L_i with respect to z message 4: its places i, down
    every party: one step of its own optimiser

`e2e` computes this in one graph, `e2e_distributed` by the four messages of B x s_i floats; the results are equal up to
rounding. Batches are standardised so that an encoder cannot buy itself less noise by larger latents. The networks are
those of SiloFuse, so the parameters are as many. Where the configuration predicts epsilon, the joint training predicts
v: z^_0 from epsilon divides by sqrt(alpha_bar_t), nearly 0 at late t, and that would drown every other gradient.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from feddiff.data.silos import Silo
from feddiff.diffusion.descent import WINDOW, Batches, Descent, descend
from feddiff.diffusion.ema import EMA
from feddiff.diffusion.latent_diffusion import LatentDiffusion
from feddiff.diffusion.process import q_sample
from feddiff.diffusion.table_autoencoder import CONSTANT, TableAutoencoder, latents, not_finite
from feddiff.federation.channel import Channel
from feddiff.seeds import torch_generator
from feddiff.systems.silofuse import SiloFuseRun, parties
from feddiff.systems.silofuse_config import SiloFuseConfig
from feddiff.systems.silofuse_parties import COORDINATOR, Coordinator, SiloClient

NAME = "joint"


def joint_config(config: SiloFuseConfig) -> SiloFuseConfig:
    """Return the configuration as joint training uses it; ValueError for what has no joint form."""
    if config.variant != "plain":
        raise ValueError(f"joint training has plain autoencoders, got variant={config.variant!r}")
    if config.alternations:
        raise ValueError("joint training is one long alternation already: set alternations=0")
    return replace(config, prediction="v") if config.prediction == "epsilon" else config


def e2e(
    silos: Sequence[Silo], config: SiloFuseConfig, *, columns: Sequence[str] | None = None, progress: bool = True
) -> SiloFuseRun:
    """Train all parts together in one place, which sees every column, and return the run; nothing is sent."""
    config = joint_config(config)
    run = parties(silos, config, columns=columns)
    run.method, training = "e2e", config.joint_training
    models, backbone = _models(run)
    clients, batches = _in_order(run), _batches(run, training)

    def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        z = torch.cat([_batch_latents(c, rows) for c in clients], dim=1)
        t, noise = _draws(z.shape, config.T, generator)
        clean, diffusion = _denoise(backbone, z, t, noise)
        parts = clean.split([c.width for c in clients], dim=1)
        return diffusion + sum(_decoding_loss(c, part, rows, batches.step) for c, part in zip(clients, parts))

    fitted = descend(
        _Together([*models, backbone]), loss, batches, training,
        seed=config.seed, name=NAME, device=torch.device("cpu"), progress=progress,
    )
    run.coordinator.took_part(fitted.history, fitted.seconds)
    return _finished(run)


def e2e_distributed(
    silos: Sequence[Silo],
    config: SiloFuseConfig,
    *,
    columns: Sequence[str] | None = None,
    progress: bool = True,
    channel: Channel | None = None,
) -> SiloFuseRun:
    """Train all parts together, split over the parties: four messages a silo and step through the channel.

    Equal to `e2e` up to rounding; the silos' rows stay with them, latents and gradients of every batch do not.
    """
    config = joint_config(config)
    run = parties(silos, config, columns=columns, channel=channel)
    run.method, training = "e2e-distributed", config.joint_training
    _models(run)
    batches = _batches(run, training)
    ends = {client.name: _SiloEnd(client, training) for client in _in_order(run)}
    centre, send = _CentralEnd(run.coordinator, training), run.channel.send
    begun, window, history = time.perf_counter(), [], []
    for step in tqdm(range(training.steps), desc=NAME, disable=not progress):
        # Which rows make a batch follows from the public seed, so nobody has to be told.
        rows = batches.rows_of(step)
        up = {name: send(name, COORDINATOR, "latents up", end.encode(rows), round=step) for name, end in ends.items()}
        down, told = centre.denoise(up), {}
        for name, end in ends.items():
            message = send(COORDINATOR, name, "denoised down", {"z": down[name]}, round=step)
            told[name] = send(name, COORDINATOR, "gradients up", end.decoder_gradient(message, rows, step), round=step)
        back, diffusion = centre.backward(told)
        if not math.isfinite(diffusion):
            raise FloatingPointError(f"{COORDINATOR}: the diffusion loss is not finite at step {step + 1}; lower dm_lr")
        for name, end in ends.items():
            end.backward(send(COORDINATOR, name, "gradients down", {"z": back[name]}, round=step), step)
        centre.step(step)
        window.append(diffusion + sum(end.loss for end in ends.values()))
        if len(window) == WINDOW or step + 1 == training.steps:
            history.append([step + 1, float(np.mean(window))])
            window = []
    for end in [*ends.values(), centre]:
        end.finish()
    run.coordinator.took_part(pd.DataFrame(history, columns=["step", "loss"]), time.perf_counter() - begun)
    return _finished(run)


class _Together(nn.ModuleList):
    """All networks as one; the last is the diffusion model, the only one with dropout."""

    def set_dropout_generator(self, generator: torch.Generator | None) -> None:
        """Set where the masks of dropout come from; None outside training."""
        self[-1].set_dropout_generator(generator)


class _End:
    """A party's own optimiser and weight average, as `descend` has them."""

    def __init__(self, model: nn.Module, training: Descent):
        self.model, self.training = model, training
        self.parameters = list(model.parameters())
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=training.lr, weight_decay=training.weight_decay, fused=True
        )
        self.ema = EMA(training.ema) if training.ema else None
        model.train()

    def step(self, step: int) -> None:
        """Descend along the gradients that were gathered."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.training.lr_at(step)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.ema is not None:
            self.ema.update(torch.cat([p.detach().flatten() for p in self.parameters]))

    @torch.no_grad()
    def finish(self) -> None:
        """Take up the averaged weights."""
        if self.ema is not None:
            for p, part in zip(self.parameters, self.ema.average.split([p.numel() for p in self.parameters])):
                p.copy_(part.view(p.shape))
        self.model.eval()


class _SiloEnd(_End):
    """A silo's side of a step."""

    def __init__(self, client: SiloClient, training: Descent):
        super().__init__(client.model, training)
        self.client, self.loss = client, 0.0

    def encode(self, rows: torch.Tensor) -> dict[str, np.ndarray]:
        """Return z_i of the rows, and remember how they came about."""
        self._z = _batch_latents(self.client, rows)
        return {"z": self._z.detach().numpy()}

    def decoder_gradient(
        self, message: dict[str, np.ndarray], rows: torch.Tensor, step: int
    ) -> dict[str, np.ndarray]:
        """Return dL_i / dz^_0,i, and keep the gradient of the decoder; FloatingPointError if L_i is not finite."""
        clean = torch.from_numpy(message["z"]).requires_grad_()
        loss = _decoding_loss(self.client, clean, rows, step + 1)
        loss.backward()
        self.loss = float(loss.detach())
        return {"z": clean.grad.numpy()}

    def backward(self, message: dict[str, np.ndarray], step: int) -> None:
        """Take the encoder's gradient from that of its latents, and descend."""
        self._z.backward(torch.from_numpy(message["z"]))
        self.step(step)


class _CentralEnd(_End):
    """The coordinator's side of a step."""

    def __init__(self, coordinator: Coordinator, training: Descent):
        super().__init__(coordinator.model, training)
        self.coordinator = coordinator
        seed = coordinator.config.seed
        self._draws = torch_generator(seed, "draws", NAME)
        self.model.set_dropout_generator(torch_generator(seed, "dropout", NAME))

    def denoise(self, messages: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return z^_0 by silo."""
        self._z = torch.from_numpy(np.concatenate([part["z"] for part in messages.values()], axis=1)).requires_grad_()
        t, noise = _draws(self._z.shape, self.coordinator.config.T, self._draws)
        self._clean, self._diffusion = _denoise(self.model, self._z, t, noise)
        return self.coordinator.cut(self._clean.detach())

    def backward(self, messages: dict[str, dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], float]:
        """Return the gradient with respect to z by silo, and the diffusion loss."""
        told = torch.from_numpy(np.concatenate([part["z"] for part in messages.values()], axis=1))
        torch.autograd.backward([self._diffusion, self._clean], [torch.ones(()), told])
        return self.coordinator.cut(self._z.grad), float(self._diffusion.detach())

    def finish(self) -> None:
        """Take up the averaged weights; no masks are drawn any more."""
        super().finish()
        self.model.set_dropout_generator(None)


def _in_order(run: SiloFuseRun) -> list[SiloClient]:
    return sorted(run.clients, key=lambda client: client.name)


def _models(run: SiloFuseRun) -> tuple[list[TableAutoencoder], LatentDiffusion]:
    run.coordinator.expect({client.name: client.width for client in run.clients})
    return [client.model for client in _in_order(run)], run.coordinator.model


def _batches(run: SiloFuseRun, training: Descent) -> Batches:
    return Batches(torch.zeros(run.rows), training.batch, False, run.config.seed, NAME)


def _draws(shape: torch.Size, T: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, T, (shape[0],), generator=generator), torch.randn(shape, generator=generator)


def _batch_latents(client: SiloClient, rows: torch.Tensor) -> torch.Tensor:
    z = client.model.encode(client.codes[rows], client.numbers[rows])
    return (z - z.mean(dim=0)) / (z.var(dim=0, correction=0) + CONSTANT).sqrt()


def _decoding_loss(client: SiloClient, z: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
    each = client.model.loss_per_column(z, client.codes[rows], client.numbers[rows])
    loss = each.sum(dim=1).mean()
    if not math.isfinite(float(loss.detach())):
        raise not_finite(each, client.coded_columns, client.name, step)
    return loss


def _denoise(
    model: LatentDiffusion, z: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return model.denoised(q_sample(z, t, noise, model.schedule), t), model.loss_per_record(z, t, noise).mean()


@torch.no_grad()
def _finished(run: SiloFuseRun) -> SiloFuseRun:
    """Put the standardisation over all rows, in place of that over a batch, into each encoder's last layer."""
    low, high = [], []
    for client in _in_order(run):
        z = latents(client.model, client.codes, client.numbers)
        mean, scale = z.mean(dim=0), (z.var(dim=0, correction=0) + CONSTANT).sqrt()
        last = client.model.encoder[-1]
        last.weight.div_(scale[:, None])
        last.bias.sub_(mean).div_(scale)
        client.fitted = True
        low.append(((z - mean) / scale).amin(dim=0))
        high.append(((z - mean) / scale).amax(dim=0))
    # The range of the latents, which sampling keeps to; SiloFuse's coordinator takes it from the upload.
    run.coordinator.model.low.copy_(torch.cat(low))
    run.coordinator.model.high.copy_(torch.cat(high))
    run.warn()
    return run
