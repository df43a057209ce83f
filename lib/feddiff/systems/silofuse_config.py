"""Configuration of SiloFuse, its two named recipes, and the bytes that its protocols must send.

The paper's body was not read by us: what `paper` sets is recalled, not quoted, and nobody published the authors' code.
"""

import math
from dataclasses import dataclass, replace

from feddiff.data.columns import NUMERICS
from feddiff.diffusion.descent import Descent
from feddiff.diffusion.latent_diffusion import PREDICTIONS, SCHEDULES
from feddiff.diffusion.table_autoencoder import VARIANTS

CATEGORIES = ("mode", "sample")
NUMBERS = ("mean", "sample")
# Variance of a reverse step -> `known_noise` of the sampler: sigma_t^2 = beta_t counts the data as noise of variance 1.
VARIANCES = {"beta": 1.0, "posterior": 0.0}
# Width of all latents together, and of all hidden layers together, that "budget" shares out between the silos.
LATENT_BUDGET, HIDDEN_BUDGET = 32, 1024
FLOAT = 4
# Last beta of the linear schedule at T = 1000 (Ho et al. 2020).
LINEAR_BETA_T = 0.02


@dataclass(frozen=True, kw_only=True)
class SiloFuseConfig:
    """Everything that determines a run of SiloFuse.

    Autoencoders, one a silo: latent is the width s_i of silo i: "columns" (latent_factor times its d_i columns, rounded
    up), "budget" (32 // M, at least 1) or a number; hidden is the width of their layers, a number or "budget"
    (1024 // M); variant "plain", "vae" (KL weight beta) or "denoising" (inputs corrupted at the rate `noise`); ae_steps
    batches of ae_batch rows at the rate ae_lr, averaged with decay ae_ema (0: last weights). numerics: the silo's codec
    ("quantile-ties" and the like); unseen: what becomes of a category that was not in training ("error" | "other").
    standardise: latents of mean 0 and variance 1 before they are uploaded.

    Diffusion, at the coordinator: T steps of a "cosine" or "linear" schedule; a network of dm_blocks residual blocks of
    dm_width that predicts "epsilon", "x0" or "v"; dm_steps batches of dm_batch rows at dm_lr, averaged with decay ema.

    Synthesis: sample_steps of the T steps, their noise of "beta" or "posterior" variance (over a wide stride the latter
    loses spread: column shapes .978 against .988 on Loan); a category is the "mode" of its softmax or a "sample" of it,
    a number the "mean" of its Gaussian or a "sample".

    alternations: rounds beyond the first, in which the coordinator returns its denoised latents, the silos train on
    and upload again; all steps are shared out evenly over the rounds, so that the budget stays (0: the paper's single
    round). joint_steps: steps of the end-to-end baselines (None: ae_steps + dm_steps). alarm: a column whose
    reconstruction score is below it is reported by a warning.
    """

    latent: str | int = "columns"
    latent_factor: float = 1.0
    hidden: str | int = 256
    variant: str = "plain"
    beta: float = 1e-2
    noise: float = 0.1
    numerics: str = "quantile-ties"
    unseen: str = "error"
    standardise: bool = True
    ae_steps: int = 800
    ae_batch: int = 512
    ae_lr: float = 3e-3
    ae_ema: float = 0.0

    T: int = 200
    schedule: str = "cosine"
    prediction: str = "epsilon"
    dm_width: int = 128
    dm_blocks: int = 4
    dropout: float = 0.0
    dm_steps: int = 2000
    dm_batch: int = 512
    dm_lr: float = 2e-3
    ema: float = 0.99

    sample_steps: int = 25
    variance: str = "beta"
    categories: str = "sample"
    numbers: str = "mean"

    alternations: int = 0
    joint_steps: int | None = None
    alarm: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        least = dict(ae_steps=1, ae_batch=1, dm_steps=1, dm_batch=1, dm_width=1, dm_blocks=1, T=1, sample_steps=1)
        for name, low in (least | {"alternations": 0, "seed": 0}).items():
            _whole(name, getattr(self, name), low)
        for name, words in (("latent", ("columns", "budget")), ("hidden", ("budget",))):
            value = getattr(self, name)
            if isinstance(value, str) and value not in words:
                raise ValueError(f"{name} must be a whole number >= 1 or one of {words}, got {value!r}")
            if not isinstance(value, str):
                _whole(name, value, 1)
        if self.joint_steps is not None:
            _whole("joint_steps", self.joint_steps, 1)
        choices = (
            ("variant", VARIANTS), ("numerics", NUMERICS), ("schedule", SCHEDULES),
            ("prediction", PREDICTIONS), ("categories", CATEGORIES), ("numbers", NUMBERS),
            ("unseen", ("error", "other")), ("variance", tuple(VARIANCES)),
        )
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if not 0 < self.latent_factor < math.inf:
            raise ValueError(f"latent_factor must be a positive number, got {self.latent_factor!r}")
        if self.latent_factor != 1 and self.latent != "columns":
            raise ValueError(f"latent_factor widens latent='columns' alone, got latent={self.latent!r}")
        if self.sample_steps > self.T:
            raise ValueError(f"sample_steps must lie in 1..T = 1..{self.T}, got {self.sample_steps}")
        if self.schedule == "linear" and self.T <= LINEAR_BETA_T * 1000:
            raise ValueError(f"schedule='linear' needs T > {LINEAR_BETA_T * 1000:.0f}, got {self.T}: its betas grow "
                             "as 1000 / T and reach 1; use 'cosine'")
        if self.alternations >= min(self.ae_steps, self.dm_steps):
            raise ValueError(f"alternations={self.alternations} leaves a round without a step of ae_steps="
                             f"{self.ae_steps} or dm_steps={self.dm_steps}")
        if not self.alarm <= 1:
            raise ValueError(f"alarm is a reconstruction score and at most 1, got {self.alarm!r}")
        for name, low, high in (("noise", 0, 1), ("dropout", 0, 1), ("beta", 0, math.inf)):
            if not low <= getattr(self, name) < high:
                raise ValueError(f"{name} must lie in [{low}, {high}), got {getattr(self, name)!r}")
        # lr and ema are refused there, by name
        for training in (self.autoencoder_training(0), self.diffusion_training(0), self.joint_training):
            training.lr_at(0)

    def width(self, columns: int, silos: int) -> int:
        """Return s_i, the latent width of a silo with `columns` columns, one of `silos`."""
        if self.latent == "columns":
            return max(1, math.ceil(self.latent_factor * columns - 1e-9))
        return max(1, LATENT_BUDGET // silos) if self.latent == "budget" else self.latent

    def hidden_width(self, silos: int) -> int:
        """Return the width of the hidden layers of one of `silos` silos."""
        return max(1, HIDDEN_BUDGET // silos) if self.hidden == "budget" else self.hidden

    @property
    def rounds(self) -> int:
        """Number of uploads of each silo."""
        return self.alternations + 1

    def autoencoder_training(self, round: int) -> Descent:
        """Return the training of an autoencoder in the 0-based `round`."""
        return _descent(_part(self.ae_steps, self.rounds, round), self.ae_batch, self.ae_lr, self.ae_ema)

    def diffusion_training(self, round: int) -> Descent:
        """Return the training of the coordinator's network in the 0-based `round`."""
        return _descent(_part(self.dm_steps, self.rounds, round), self.dm_batch, self.dm_lr, self.ema)

    @property
    def joint_training(self) -> Descent:
        """The training of the end-to-end baselines, of as many steps as both parts together."""
        steps = self.ae_steps + self.dm_steps if self.joint_steps is None else self.joint_steps
        return _descent(steps, self.dm_batch, self.dm_lr, self.ema)


def _part(steps: int, rounds: int, round: int) -> int:
    return steps * (round + 1) // rounds - steps * round // rounds


def _descent(steps: int, batch: int, lr: float, ema: float) -> Descent:
    warmup = min(100, steps // 10)
    return Descent(steps=steps, batch=batch, lr=lr, warmup=warmup, ema=ema, bf16=False, channels_last=False)


def _whole(name: str, value: int, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be an integer >= {low}, got {value!r}")


def ours(*, scale: str = "quick", **changes) -> SiloFuseConfig:
    """Return what trained well on Loan and Cardio on one core: about 5 s ("quick"), a minute ("standard"), more."""
    sized = {
        "quick": dict(ae_steps=300, dm_steps=600, dm_batch=256, ema=0.98),
        "standard": dict(),
        "paper": dict(ae_steps=10_000, dm_steps=50_000, dm_width=256, ema=0.999),
    }
    if scale not in sized:
        raise ValueError(f"scale must be one of {tuple(sized)}, got {scale!r}")
    return replace(SiloFuseConfig(**sized[scale]), **changes)


def paper(**changes) -> SiloFuseConfig:
    """Return the paper's setting as recalled by third parties and us, unverified: the body was not read.

    Latents of 32 and hidden layers of 1024 in all, shared out between the silos; 8 layers of 256, here 4 blocks of
    two; T = 200, 25 steps of inference; AdamW at 1e-3 and batches of 512; half of 500,000 iterations for each part.
    Schedule, target and decoding are unknown; latents are standardised, which no source says.
    """
    recalled = dict(
        latent="budget", hidden="budget", ae_steps=250_000, ae_batch=512, ae_lr=1e-3, numerics="standard",
        dm_steps=250_000, dm_batch=512, dm_lr=1e-3, dm_width=256, dm_blocks=4, dropout=0.01, schedule="linear",
        ema=0.0, categories="mode", numbers="mean",
    )
    return replace(SiloFuseConfig(**recalled), **changes)


def stacked_nbytes(rows: int, width: int, *, synthetic: int = 0, rounds: int = 1) -> int:
    """Return 4 N s (+ 4 N_synthetic s): the bytes of float32 latents of `width` = sum s_i that SiloFuse sends.

    rounds beyond the first send denoised latents down and latents up, 4 N s each.
    """
    return FLOAT * width * (rows * (2 * rounds - 1) + synthetic)


def distributed_nbytes(batch: int, width: int, iterations: int, *, synthetic: int = 0) -> int:
    """Return 16 B s a step (+ 4 N_synthetic s): four messages of float32 a step of the distributed joint training."""
    return FLOAT * width * (4 * batch * iterations + synthetic)


def crossover(rows: int, batch: int) -> float:
    """Return N / (4 B), the steps after which distributed joint training has sent more than SiloFuse's upload."""
    return rows / (4 * batch)
