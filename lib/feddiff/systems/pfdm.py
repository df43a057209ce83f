"""PFDM: personalised federated diffusion for images (Patel, Zhang & Wang, arXiv 2504.00952; CVPR 2026).

Training is Algorithm 3 of v1 (arXiv, April 2025) and Algorithm 1 of the CVPR version, one communication round:

    for each client m:                                                     lines 1-2   PFDMClient.fit_local
        z_theta_m <- denoiser of own clean pictures at t = 1..t0
            CVPR only: clipped pictures mixed in under a flag
    for each client m:                                                     lines 3-8   PFDMClient.upload
        x  <- x_0 min(1, C / ||x_0||_2)
        x~ <- sqrt(abar_t0) x + sqrt(1 - abar_t0) z,  z ~ N(0, I) once a picture
        client m -> server: x~ and its label
    server: z_w <- denoiser of all x~ taken for clean, at t = 1..T         lines 9-14  PFDMServer.fit_global
    server -> every client: z_w

Sampling is Algorithm 4 of v1 and Algorithm 2 of the CVPR version, T + t0 network calls:

    x_T ~ N(0, I); z_w walks T steps back to x~_0, a picture noised to step t0         PFDMClient.global_stage
    x_t0 = x~_0; z_theta_m walks t0 steps back on the same schedule to x_0             PFDMClient.local_stage

The papers' body was not at hand: algorithm and line numbers are as notes on them report. Not the papers' own, and
marked so in the configuration: stages "T - t0", weight "v", strided sampling, the noise-aware variance of its steps.

(epsilon, delta) of local DP holds for a picture that is uploaded once, against everybody who sees uploads or z_w. It
says nothing of z_theta_m, nor of synthetic pictures against the records of the client that drew them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch

from feddiff.diffusion.autoencoder import ConvAutoencoder
from feddiff.federation.channel import Channel, Message
from feddiff.seeds import torch_generator
from feddiff.systems.image_clients import ImageClient, LatentSpace, Members, PixelSpace, Space, clipped, members
from feddiff.systems.pfdm_config import PFDMConfig, cvpr, v1
from feddiff.systems.pfdm_parties import PFDMClient, PFDMServer
from feddiff.systems.pfdm_privacy import UploadPrivacy
from feddiff.systems.pfdm_starts import STARTS, Uploads, class_gaussians, noised, replay

__all__ = ["ImageClient", "PFDMConfig", "PFDMRun", "STARTS", "UploadPrivacy", "cvpr", "from_state", "train", "v1"]

Clients = Sequence[ImageClient | tuple]


class Sampler(Protocol):
    """Anything that draws pictures in [-1, 1] for labels, such as a centralised baseline."""

    def sample(self, labels: torch.Tensor, *, seed: int) -> torch.Tensor: ...


def train(
    clients: Clients,
    config: PFDMConfig,
    *,
    autoencoder: ConvAutoencoder | None = None,
    share: "PFDMRun | None" = None,
    fit_clients: Sequence[int] | None = None,
    device: str = "cpu",
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> "PFDMRun":
    """Train PFDM over the clients' pictures and return the run.

    clients: ImageClient or (images float32 (n, c, side, side) in [-1, 1], labels (n,)) each; every class has a picture
    somewhere. autoencoder: diffuse its codes instead of pixels; train it on public pictures. share: an earlier run on
    the same clients that differs in local settings alone (config.LOCAL_FIELDS); its uploads and z_w are taken over, so
    that nothing is released twice. fit_clients: positions of the clients whose local denoisers are trained (None: all);
    every client uploads and receives z_w. checkpoint: folder in which each denoiser's training resumes where it
    stopped.
    """
    run = _untrained(clients, config, autoencoder, device)
    fitted = run.clients if fit_clients is None else [run.clients[run.members.position(k)] for k in fit_clients]
    folder = None if checkpoint is None else Path(checkpoint)
    if share is not None:
        run.take_over(share)
    for client in fitted:                                                            # lines 1-2
        client.fit_local(folder=folder, progress=progress)
    if share is None:
        run.collect_uploads()                                                        # lines 3-8
        if run.server.denoiser is not None:
            run.server.fit_global(folder=folder, progress=progress)                  # lines 9-14
            run.broadcast()
    return run


def from_state(
    state: dict,
    clients: Clients,
    config: PFDMConfig,
    *,
    autoencoder: ConvAutoencoder | None = None,
    device: str = "cpu",
) -> "PFDMRun":
    """Return the trained run that `PFDMRun.to_state` described, on the same clients and configuration."""
    run = _untrained(clients, config, autoencoder, device)
    if state["uploads"] is None:
        # Seeded noise: the very uploads that were made, not fresh ones.
        run.collect_uploads()
    else:
        for client in run.clients:
            client.mark_uploaded()
            run.server.receive(client.name, {k: v.numpy() for k, v in state["uploads"][client.name].items()})
    for name, summary in state["clients"].items():
        run.clients[run.members.position(name)].restore(summary)
    if run.server.denoiser is not None:
        run.server.denoiser.restore(state["global"])
        run.broadcast()
    run.channel.log[:] = [Message(*entry) for entry in state["messages"]]
    return run


@dataclass(eq=False)
class PFDMRun:
    """A trained federation: `clients` with their secret denoisers, the `server`, and the channel between them."""

    config: PFDMConfig
    members: Members
    space: Space
    clients: list[PFDMClient]
    server: PFDMServer
    channel: Channel = field(default_factory=Channel)

    def sample(
        self,
        client: int | str,
        labels: Sequence[int] | torch.Tensor,
        *,
        seed: int,
        start: str = "global",
        steps: int | None = 30,
        local_steps: int | None = 30,
        sampler: str = "ancestral",
        noise_aware: bool = True,
        components: int | None = None,
        reference: Sampler | None = None,
    ) -> torch.Tensor:
        """Return one picture of each label as `client` draws it, float32 (n, c, side, side) in [-1, 1].

        start: where the local stage begins at step t0, one of pfdm_starts.STARTS; "global" is PFDM. steps of the global
        stage and local_steps (at most t0) are strided; None takes every step, as the papers do. sampler: "ancestral" or
        "ddim". noise_aware: add the posterior variance of the known noise in the global stage, which strides lose.
        The rest as in `starts`. With the same seed all starts share the noise of the local stage.
        """
        chosen = dict(start=start, steps=steps, sampler=sampler, noise_aware=noise_aware)
        x = self.starts(client, labels, seed=seed, components=components, reference=reference, **chosen)
        member, codes = self.clients[self.members.position(client)], self.members.codes(labels)
        return member.local_stage(x, codes, seed=seed, steps=self._local_steps(local_steps), sampler=sampler)

    def starts(
        self,
        client: int | str,
        labels: Sequence[int] | torch.Tensor,
        *,
        seed: int,
        start: str = "global",
        steps: int | None = 30,
        sampler: str = "ancestral",
        noise_aware: bool = True,
        components: int | None = None,
        reference: Sampler | None = None,
    ) -> torch.Tensor:
        """Return where the local stage begins for each label: x at step t0, on the scale of the uploads.

        "noise": N(0, I). "class_mean", "class_gaussian": moments of the uploads; components: principal directions at
        most (None: all that rise above the noise). "global": z_w. "uploads": the uploads themselves. Oracles: "oracle",
        fresh noise on pooled clean pictures; "clean_global", on samples of `reference`, a model of them.
        """
        codes, member = self.members.codes(labels), self.clients[self.members.position(client)]
        if start not in STARTS:
            raise ValueError(f"start must be one of {STARTS}, got {start!r}")
        if (start == "clean_global") != (reference is not None):
            raise ValueError("start='clean_global', and no other, needs reference=: a model of pooled clean pictures")
        abar, generator = self.config.alpha_bar, torch_generator(seed, "sampling", "start", start, member.name)
        if start == "global":
            return member.global_stage(codes, seed=seed, steps=steps, sampler=sampler, noise_aware=noise_aware)
        if start == "noise":
            return torch.randn((len(codes), *self.space.shape(self.members.shape)), generator=generator)
        if start in ("class_mean", "class_gaussian"):
            kept = 0 if start == "class_mean" else components
            return class_gaussians(self.uploads, codes, 1 - abar, components=kept).draw(codes, generator)
        if start == "uploads":
            return replay(self.uploads, codes, generator)
        if start == "oracle":
            images, own = (torch.cat(parts) for parts in zip(*(c.clean_pictures() for c in self.clients)))
            return noised(images, own, codes, abar, generator)
        clean = clipped(self.space.enter(reference.sample(codes, seed=seed)), self.config.C)
        return noised(clean, codes, codes, abar, generator)

    @property
    def uploads(self) -> Uploads:
        """What the server holds and anybody may see: noised pictures, labels, who sent them."""
        return self.server.uploads

    @property
    def privacy(self) -> dict:
        """The complete statement: units, theorem and exact epsilon, groups, repeated uploads, and what lies outside."""
        return self.upload_privacy.statement(self.members.names)

    @property
    def upload_privacy(self) -> UploadPrivacy:
        """Epsilon of one upload for any bound, unit and number of repeats."""
        shape = self.space.shape(self.members.shape)
        return UploadPrivacy(config=self.config, shape=shape, latent=self.space.latent)

    @property
    def nbytes(self) -> int:
        """Bytes that crossed the network in training: uploads, and z_w to every client."""
        return self.channel.nbytes()

    @property
    def history(self) -> pd.DataFrame:
        """Columns model, step, loss; the clients' rows are diagnostics on private pictures."""
        models = {client.name: client.history for client in self.clients if client.fitted}
        if self.server.denoiser is not None:
            models["global"] = self.server.denoiser.history
        frames = [frame.assign(model=name) for name, frame in models.items()]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["step", "loss", "model"])

    @property
    def budget(self) -> dict[str, int]:
        """Training pictures that each denoiser has seen, by its name."""
        seen = {client.name: client.images_seen for client in self.clients}
        return seen if self.server.denoiser is None else seen | {"global": self.server.denoiser.images_seen}

    def calls(self, *, start: str = "global", steps: int | None = None, local_steps: int | None = None) -> dict:
        """Return the network calls that one picture takes in the global and the local stage (None: the papers')."""
        shared = {"global": self.config.global_schedule.T if steps is None else steps}.get(start, 0)
        own = self._local_steps(local_steps) or self.config.t0
        return {"global": shared, "local": own, "total": shared + own}

    def start_nbytes(self, start: str, *, components: int | None = None) -> int:
        """Return the bytes that one client has to receive before it can sample from `start` (0 for "noise")."""
        if start == "noise":
            return 0
        uploads = self.uploads
        if start in ("class_mean", "class_gaussian"):
            kept = 0 if start == "class_mean" else components
            found = class_gaussians(uploads, uploads.labels, 1 - self.config.alpha_bar, components=kept)
            parts = {"means": found.means.numpy()}
            parts |= {f"directions {label}": value.numpy() for label, value in found.directions.items()}
        elif start == "uploads":
            parts = {"images": uploads.images.numpy(), "labels": uploads.labels.numpy()}
        elif start == "global" and self.server.denoiser is not None:
            parts = self.server.weights()
        else:
            raise ValueError(f"start {start!r} is not something that this run's server can send")
        measured = Channel()
        measured.send("server", "client", start, parts)
        return measured.nbytes()

    def collect_uploads(self) -> None:
        """Let every client upload, once."""
        for client in self.clients:
            self.server.receive(client.name, self.channel.send(client.name, "server", "upload", client.upload()))

    def broadcast(self) -> None:
        """Send z_w to every client."""
        for client in self.clients:
            client.receive(self.channel.send("server", client.name, "global model", self.server.weights()))

    def take_over(self, earlier: "PFDMRun") -> None:
        """Share uploads and z_w of an earlier run; ValueError unless clients and all shared settings are the same."""
        mine, theirs = self.config.shared, earlier.config.shared
        if changed := sorted(name for name in mine if mine[name] != theirs[name]):
            raise ValueError(f"the run to share was made with other settings: {', '.join(changed)}")
        if self.members.names != earlier.members.names or self.space != earlier.space:
            raise ValueError("the run to share has other clients or another autoencoder")
        for client, before in zip(self.clients, earlier.clients):
            client.continue_from(before)
        self.server, self.channel = earlier.server, earlier.channel

    def to_state(self) -> dict:
        """Return what a cache needs as tensors and plain values; contains the clients' secret weights."""
        uploads = None
        if self.config.secure:
            pooled = self.uploads
            uploads = {
                name: {"images": pooled.images[pooled.clients == k], "labels": pooled.labels[pooled.clients == k]}
                for k, name in enumerate(self.members.names)
            }
        return {
            "clients": {client.name: client.summary() for client in self.clients if client.fitted},
            "global": None if self.server.denoiser is None else self.server.denoiser.summary(),
            "uploads": uploads,
            "messages": [[m.sender, m.receiver, m.kind, m.round, m.nbytes] for m in self.channel.log],
        }

    def _local_steps(self, steps: int | None) -> int | None:
        return None if steps is None else min(steps, self.config.t0)


def _untrained(
    clients: Clients, config: PFDMConfig, autoencoder: ConvAutoencoder | None, device: str
) -> PFDMRun:
    found = members(clients, config.classes)
    space = PixelSpace(config.values) if autoencoder is None else LatentSpace(autoencoder)
    shape = space.shape(found.shape)
    UploadPrivacy(config=config, shape=shape, latent=space.latent)
    return PFDMRun(
        config=config,
        members=found,
        space=space,
        server=PFDMServer(config, shape, found.classes, device),
        clients=[PFDMClient(client, config, space, found.classes, device) for client in found.clients],
    )
