"""SiloFuse: one table, its columns split over silos, synthesised from latents (Shankar et al., arXiv 2404.03299).

Stacked training, one communication round:

    for each silo i:                                                       SiloClient.fit
        (E_i, D_i) <- autoencoder of own columns X_i, negative log-likelihood
    for each silo i:                                                       SiloClient.upload
        silo i -> coordinator: Z_i = E_i(X_i), once
    coordinator: Z = [Z_1 | ... | Z_M]                                     Coordinator.fit
        epsilon_theta <- denoiser of Z at t = 1..T, mean squared error

Synthesis:

    coordinator: z_T ~ N(0, I), walked back to z_0 in 25 steps             Coordinator.generate
    coordinator -> silo i: its places of z_0
    silo i: X~_i = D_i(z_0,i); it stays there unless the silos share it    SiloClient.decode

Rows are aligned by key beforehand (`data.silos.align`), so the silos know which rows they have in common. The paper's
body was not at hand: the algorithm is as notes on it report. Not differential privacy: decoders stay home, that is
all, and whoever holds latents beside a few known rows, or beside shared synthetic rows, can learn to decode them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from feddiff.data.silos import Silo, align
from feddiff.federation.channel import Channel, Message
from feddiff.systems.silofuse_config import SiloFuseConfig, ours, paper
from feddiff.systems.silofuse_parties import COORDINATOR, Coordinator, SiloClient

__all__ = ["SiloFuseConfig", "SiloFuseRun", "from_state", "ours", "paper", "parties", "train"]


def train(
    silos: Sequence[Silo],
    config: SiloFuseConfig,
    *,
    columns: Sequence[str] | None = None,
    progress: bool = True,
    channel: Channel | None = None,
) -> "SiloFuseRun":
    """Train SiloFuse over the silos' columns and return the run.

    silos: distinct names and columns; rows are aligned by key, or by position where no silo has keys. columns: order of
    the joined output (None: the silos' columns in the order given). channel: the one to count on (None: a new one).
    Warns where an autoencoder reproduces a column worse than config.alarm: no later step can mend that.
    """
    run = parties(silos, config, columns=columns, channel=channel)
    for round in range(config.rounds):
        for client in run.clients:
            client.fit(round=round, progress=progress)
        for client in run.clients:
            message = run.channel.send(client.name, COORDINATOR, "upload", client.upload(round=round), round=round)
            run.coordinator.receive(client.name, message, round=round)
        run.coordinator.fit(round=round, progress=progress)
        if round + 1 < config.rounds:
            run.return_denoised(round)
    run.warn()
    return run


def from_state(
    state: dict, silos: Sequence[Silo], config: SiloFuseConfig, *, columns: Sequence[str] | None = None
) -> "SiloFuseRun":
    """Return the trained run that `SiloFuseRun.to_state` described, on the same silos and configuration.

    Warns as `train` does: a run that comes from a cache has the same columns lost.
    """
    run = parties(silos, config, columns=columns)
    run.method = state["method"]
    for client in run.clients:
        client.restore(state["clients"][client.name])
        if run.method == "stacked":
            # Encoders draw nothing: these are the latents that were uploaded.
            run.coordinator.receive(client.name, client.upload(round=config.alternations), round=config.alternations)
    run.coordinator.expect({client.name: client.width for client in run.clients})
    run.coordinator.restore(state["coordinator"])
    run.channel.log[:] = [Message(*entry) for entry in state["messages"]]
    run.warn()
    return run


def parties(
    silos: Sequence[Silo],
    config: SiloFuseConfig,
    *,
    columns: Sequence[str] | None = None,
    channel: Channel | None = None,
) -> "SiloFuseRun":
    """Return the run before training: rows aligned, codecs fitted; ValueError for silos that do not fit together."""
    silos = aligned(silos)
    order = output_order(silos, columns)
    return SiloFuseRun(
        config=config,
        clients=[SiloClient(silo, config, len(silos)) for silo in silos],
        coordinator=Coordinator(config),
        columns=order,
        channel=Channel() if channel is None else channel,
    )


def aligned(silos: Sequence[Silo]) -> list[Silo]:
    """Return the silos with their rows in one order (`data.silos.align`); ValueError for silos that do not fit."""
    silos = list(silos)
    if any(silo.name == COORDINATOR for silo in silos):
        raise ValueError(f"a silo is called {COORDINATOR!r}, the name of the other party: rename it")
    return align(silos)


def output_order(silos: Sequence[Silo], columns: Sequence[str] | None) -> list[str]:
    """Return the order of the joined columns: that of the silos, or `columns`, which must name each of them once."""
    own = [name for silo in silos for name in silo.kinds]
    order = own if columns is None else list(columns)
    if sorted(order) != sorted(own):
        odd = sorted(set(order) ^ set(own)) or sorted(name for name in order if order.count(name) > 1)
        raise ValueError(f"columns must name every column of the silos once; {odd[0]!r} does not fit")
    return order


@dataclass(eq=False)
class SiloFuseRun:
    """A trained federation of columns: `clients` with their tables and decoders, the `coordinator`, and the channel.

    method: "stacked" (SiloFuse), or a joint baseline that leaves the same parties behind ("e2e", "e2e-distributed").
    """

    config: SiloFuseConfig
    clients: list[SiloClient]
    coordinator: Coordinator
    columns: list[str]
    channel: Channel = field(default_factory=Channel)
    method: str = "stacked"

    def sample(self, rows: int, *, seed: int) -> pd.DataFrame:
        """Return `rows` synthetic rows with all columns: what the silos have once they share their parts."""
        parts = self.sample_parts(rows, seed=seed)
        return pd.concat(list(parts.values()), axis=1)[self.columns]

    def sample_parts(self, rows: int, *, seed: int) -> dict[str, pd.DataFrame]:
        """Return the synthetic columns of each silo, by silo: the output stays partitioned."""
        z, parts = self.generated(rows, seed=seed), {}
        for client in self.clients:
            message = self.channel.send(COORDINATOR, client.name, "latents", {"z": z[client.name]})
            parts[client.name] = client.decode(message["z"], seed=seed)
        return parts

    def generated(self, rows: int, *, seed: int) -> dict[str, np.ndarray]:
        """Return the z_0 that the coordinator knows behind `sample` with the same seed, (rows, s_i) by silo."""
        return self.coordinator.generate(rows, seed=seed)

    @property
    def latents(self) -> dict[str, np.ndarray]:
        """What the coordinator holds of the real rows, (n, s_i) by silo; row k belongs to row k of the aligned silos.

        ValueError after joint training, in which latents pass by in batches.
        """
        if self.method != "stacked":
            raise ValueError(f"method {self.method!r} uploads no set of latents; only SiloFuse's coordinator holds one")
        return self.coordinator.latents

    def reconstruction(self, silos: Sequence[Silo] | None = None) -> pd.DataFrame:
        """Return the alarm: columns silo, column, kind, score (accuracy or R^2; 1 is perfect).

        silos: the same silos with other rows, such as held-out ones (None: training rows).
        """
        frames = {} if silos is None else {silo.name: silo.frame for silo in silos}
        if silos is not None and (absent := [c.name for c in self.clients if c.name not in frames]):
            raise ValueError(f"rows of {absent[0]} are not given; reconstruction needs every silo")
        scores = [client.reconstruction(frames.get(client.name)) for client in self.clients]
        return pd.concat(scores, ignore_index=True)

    def warn(self) -> None:
        """Warn by name of every column whose reconstruction on the training rows is below config.alarm."""
        scores = self.reconstruction()
        poor = scores[~(scores["score"] >= self.config.alarm)]
        if len(poor):
            listed = ", ".join(f"{row.silo}: {row.column!r} {row.score:.2f}" for row in poor.itertuples())
            warnings.warn(
                f"autoencoders reproduce {len(poor)} of {len(scores)} columns below {self.config.alarm} ({listed}); "
                "synthetic data cannot be better: more ae_steps, or wider latents",
                stacklevel=3,
            )

    @property
    def width(self) -> int:
        """s, the width of all latents together."""
        return sum(client.width for client in self.clients)

    @property
    def rows(self) -> int:
        """N, the number of aligned training rows."""
        return len(self.clients[0])

    @property
    def nbytes(self) -> int:
        """Bytes sent so far, framing included; those of synthesis are of kind "latents"."""
        return self.channel.nbytes()

    @property
    def rounds(self) -> int:
        """Rounds of communication that training took: 1 for SiloFuse, one a step for the distributed joint training."""
        return len({m.round for m in self.channel.log if m.kind != "latents"})

    @property
    def parameters(self) -> dict[str, int]:
        """Trainable parameters by party."""
        models = {client.name: client.model for client in self.clients} | {COORDINATOR: self.coordinator.model}
        return {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of training by party; silos would train side by side."""
        return {client.name: client.seconds for client in self.clients} | {COORDINATOR: self.coordinator.seconds}

    @property
    def history(self) -> pd.DataFrame:
        """Columns step, loss, model; the silos' rows are computed on private rows."""
        frames = [client.history.assign(model=client.name) for client in self.clients]
        frames += [self.coordinator.history.assign(model=COORDINATOR)]
        return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)

    def return_denoised(self, round: int) -> None:
        """Send each silo the coordinator's denoised version of its latents, on which its next training goes on."""
        denoised = self.coordinator.denoised(round)
        for client in self.clients:
            arrays = {"z": denoised[client.name]}
            client.receive(self.channel.send(COORDINATOR, client.name, "denoised", arrays, round=round))

    def to_state(self) -> dict:
        """Return all that training made, as tensors and plain values (for a cache)."""
        return {
            "method": self.method,
            "clients": {client.name: client.summary() for client in self.clients},
            "coordinator": self.coordinator.summary(),
            "messages": [[m.sender, m.receiver, m.kind, m.round, m.nbytes] for m in self.channel.log],
        }
