"""Bytes of SiloFuse and of distributed joint training as counted, and when a model is ready on a simulated network.

The network model: every silo has its own line to the coordinator, all lines are alike, silos work side by side, and
nobody goes on before the slowest silo has delivered. A message takes latency + bytes / bandwidth. Stacked training
waits once, joint training four times a step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from feddiff.data.silos import Silo
from feddiff.experiments import records
from feddiff.systems import silofuse, silofuse_joint
from feddiff.systems.silofuse import SiloFuseRun
from feddiff.systems.silofuse_config import SiloFuseConfig, crossover, distributed_nbytes, stacked_nbytes

# Rows of the paper's nine tables, as recalled and as counted where the files were at hand, and their columns.
PUBLISHED = {
    "loan": (5000, 13), "adult-full": (48_842, 14), "cardio": (70_000, 12), "abalone": (4177, 10),
    "churn": (10_000, 14), "diabetes": (768, 9), "covertype": (581_012, 55), "intrusion": (22_544, 42),
    "heloc": (10_459, 24),
}
LEGS = ("latents up", "denoised down", "gradients up", "gradients down")
MBIT = 1e6 / 8


@dataclass(frozen=True, kw_only=True)
class Network:
    """A simulated network and what parties compute.

    bandwidth in Mbit/s and latency in seconds of each silo's line; slow: one silo computes so many times slower than
    the others (1: none does). Seconds of one training step: of a silo's autoencoder, of the coordinator's diffusion
    model, and of joint training at a silo (encoder and decoder, once forth and back).
    """

    bandwidth: float
    latency: float = 0.02
    slow: float = 1.0
    autoencoder_step: float = 0.005
    diffusion_step: float = 0.01
    joint_step: float = 0.005

    def __post_init__(self) -> None:
        if not self.bandwidth > 0 or not self.latency >= 0 or not self.slow >= 1:
            raise ValueError(f"bandwidth must be > 0, latency >= 0 and slow >= 1, got {self}")

    def message(self, nbytes: float) -> float:
        """Return the seconds that one message takes on a silo's line."""
        return self.latency + nbytes / (self.bandwidth * MBIT)

    def stacked(self, nbytes: float, config: SiloFuseConfig) -> float:
        """Return the seconds until SiloFuse's model is there; nbytes: the largest upload of a silo."""
        own = config.ae_steps * self.autoencoder_step * self.slow
        return own + self.message(nbytes) + config.dm_steps * self.diffusion_step

    def joint(self, nbytes: float, steps: int) -> float:
        """Return the seconds of `steps` steps of joint training; nbytes: the largest message of a silo."""
        return steps * (len(LEGS) * self.message(nbytes) + self.joint_step * self.slow + self.diffusion_step)


def largest(run: SiloFuseRun, kind: str) -> int:
    """Return the bytes of the largest message of a kind."""
    found = [m.nbytes for m in run.channel.log if m.kind == kind]
    if not found:
        raise ValueError(f"no message of kind {kind!r} was sent; there are {sorted({m.kind for m in run.channel.log})}")
    return max(found)


def count(run: records.Run, model: SiloFuseRun, expected: int, **labels) -> float:
    """Record messages, rounds and bytes as counted beside the closed form; return counted / closed form."""
    over = model.nbytes / expected
    run.metric("bytes_sent", model.nbytes, **labels)
    run.metric("bytes_expected", expected, **labels)
    run.metric("bytes_over_expected", over, **labels)
    run.metric("rounds", model.rounds, **labels)
    run.metric("messages", len(model.channel.log), **labels)
    return over


def stacked_bytes(
    run: records.Run, silos: Sequence[Silo], config: SiloFuseConfig, **labels
) -> SiloFuseRun:
    """Train SiloFuse, record what it sent under `labels`, and return it; nothing is said of reconstruction."""
    model = silofuse.train(silos, replace(config, alarm=-math.inf), progress=False)
    count(run, model, stacked_nbytes(model.rows, model.width), method="silofuse", **labels)
    return model


def joint_bytes(
    run: records.Run, silos: Sequence[Silo], config: SiloFuseConfig, **labels
) -> SiloFuseRun:
    """Train jointly over the parties, record what they sent under `labels`, and return the run; likewise."""
    model = silofuse_joint.e2e_distributed(silos, replace(config, alarm=-math.inf), progress=False)
    expected = distributed_nbytes(config.dm_batch, model.width, config.joint_training.steps)
    count(run, model, expected, method="e2e_distributed", **labels)
    return model


def crossovers(run: records.Run, batch: int) -> dict[str, float]:
    """Record and return, by set of the paper, the steps after which joint training has sent more: N / (4 B).

    N: the 80 % of rows that train. Beside it the bytes of both with latents as wide as the table has columns.
    """
    found = {}
    for name, (rows, columns) in PUBLISHED.items():
        train = rows - round(0.2 * rows)
        found[name] = crossover(train, batch)
        run.metric("crossover_steps", found[name], published=name)
        run.metric("published_bytes", stacked_nbytes(train, columns), method="silofuse", published=name)
        run.metric("published_bytes", distributed_nbytes(batch, columns, 500_000), method="e2e_distributed",
                   published=name)
    return found
