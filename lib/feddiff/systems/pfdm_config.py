"""Configuration of PFDM and its two named presets, `v1` (the preprint) and `cvpr` (the CVPR 2026 version)."""

import math
from dataclasses import dataclass, replace

from feddiff.diffusion.image_samplers import schedule_after
from feddiff.diffusion.schedules import Schedule, linear
from feddiff.diffusion.training import FitConfig

STAGES = ("T + t0", "T - t0")
RANGES = ("t0", "T")
VALUES = {"[-1, 1]": (-1.0, 1.0), "[0, 1]": (0.0, 1.0)}
# What the local denoisers alone depend on: runs that differ in nothing else may share uploads and global denoiser.
LOCAL_FIELDS = ("local_range", "clip_mixing", "balanced", "images")


@dataclass(frozen=True, kw_only=True)
class PFDMConfig:
    """Everything that determines a trained run; names are the paper's symbols where it has one.

    Mechanism: T, beta_1, beta_T of the linear schedule; t0 in 1..T, the step to which uploads are noised; C, the L2
    norm to which every picture is clipped before (None: no clipping, the cube bounds the norm); values: the range in
    which pictures are clipped and noised, "[-1, 1]" or "[0, 1]" (the papers do not say which); delta; secure draws the
    upload's noise from the operating system's cryptographic generator (for deployments; not repeatable).

    Stages: "T + t0" is the papers' two-stage scheme, where the global denoiser takes the uploads for clean pictures on
    the whole schedule; "T - t0" trains and samples it on the part of the schedule above t0 (not the papers'; same
    information, fewer steps). local_range: the local denoiser's steps, "t0" (1..t0) or "T". clip_mixing: share of
    clipped pictures, marked by a flag, in local training. balanced: class-balanced local batches.

    Network and training, the same for every denoiser: network (a named U-Net), weight of the loss ("eps": unweighted,
    the papers'; "v": min(1/abar, 50), better in short training), images (training pictures of each denoiser, batches
    of `batch`), global_images (None: as `images`; 0: no global denoiser, uploads only), Adam's lr with warmup steps
    and cosine decay, gradient_clip (inf: none), ema, bf16 (None: where it pays). classes: number of classes, None: as
    many as the labels name.
    """

    T: int = 1000
    beta_1: float = 1e-4
    beta_T: float = 0.02
    t0: int = 690
    C: float | None = 10.0
    values: str = "[-1, 1]"
    delta: float = 1e-5
    secure: bool = False

    stages: str = "T + t0"
    local_range: str = "t0"
    clip_mixing: float = 0.5
    balanced: bool = False

    network: str = "patch"
    weight: str = "v"
    images: int = 48_000
    global_images: int | None = None
    batch: int = 64
    lr: float = 5e-3
    warmup: int = 100
    gradient_clip: float = math.inf
    ema: float = 0.999
    bf16: bool | None = None

    classes: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("T", 1), ("t0", 1), ("images", 1), ("batch", 1), ("warmup", 0)):
            _whole(name, getattr(self, name), low)
        for name, low in (("global_images", 0), ("classes", 1)):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), low)
        if self.t0 > self.T:
            raise ValueError(f"t0 must lie in 1..T = 1..{self.T}, got {self.t0}: uploads are noised to a step of T")
        if self.stages == "T - t0" and self.t0 == self.T:
            raise ValueError("stages='T - t0' needs t0 < T: no step is left for the global denoiser")
        if self.C is not None and not 0 < self.C < math.inf:
            raise ValueError(f"C must be a finite number > 0, or None for no clipping, got {self.C!r}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), got {self.delta!r}; below 1 / (number of pictures)")
        if not 0 <= self.clip_mixing <= 1:
            raise ValueError(f"clip_mixing is a share and must lie in [0, 1], got {self.clip_mixing!r}")
        if self.clip_mixing and self.C is None:
            raise ValueError("clip_mixing needs a clip norm C: without one there are no clipped pictures to mix in")
        choices = (("stages", STAGES), ("local_range", RANGES), ("values", tuple(VALUES)))
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        # lr, ema, weight and the like are refused there, by name
        self.training(self.images)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the clients: uploads are its step t0, local denoisers walk it from t0 to 0."""
        return linear(self.T, beta_1=self.beta_1, beta_T=self.beta_T)

    @property
    def global_schedule(self) -> Schedule:
        """The schedule on which the global denoiser takes uploads for clean pictures.

        "T + t0": the whole schedule. "T - t0": its steps t0+1..T, with abar_t / abar_t0 left of an upload after
        step t, so that x_t = sqrt(abar_t / abar_t0) x~ + sqrt(1 - abar_t / abar_t0) z.
        """
        return self.schedule if self.stages == "T + t0" else schedule_after(self.schedule, self.t0)

    @property
    def alpha_bar(self) -> float:
        """abar_t0, the share of the pictures' variance that is left in an upload."""
        return float(self.schedule.alpha_bar[self.t0 - 1])

    def training(self, images: int, *, hi: int | None = None, balanced: bool = False) -> FitConfig:
        """Return the training of one denoiser on `images` pictures, on the steps 1..hi of its schedule (None: all)."""
        return FitConfig(
            steps=-(-images // self.batch),
            batch=self.batch,
            lr=self.lr,
            warmup=self.warmup,
            gradient_clip=self.gradient_clip,
            ema=self.ema,
            bf16=self.bf16,
            weight=self.weight,
            hi=hi,
            balanced=balanced,
        )

    @property
    def shared(self) -> dict:
        """The settings on which uploads and global denoiser depend."""
        own = {name: value for name, value in vars(self).items() if name not in LOCAL_FIELDS}
        return own | {"global_images": self.images if self.global_images is None else self.global_images}


def _whole(name: str, value: int, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be an integer >= {low}, got {value!r}")


def v1(*, t0: int = 100, scale: str = "quick", **changes) -> PFDMConfig:
    """Return the preprint's setting (arXiv v1, April 2025): t0 in 100..400, no clipping, no flag."""
    return replace(_sized(scale), **(dict(t0=t0, C=None, clip_mixing=0.0) | changes))


def cvpr(*, t0: int = 690, C: float = 10.0, scale: str = "quick", **changes) -> PFDMConfig:
    """Return the CVPR 2026 version's setting: t0 = 690, clip norm C = 10, clipped pictures mixed in with a flag.

    Mixing ratio (half) and form (a binary embedding) are ours: the sources do not give them.
    """
    return replace(_sized(scale), **(dict(t0=t0, C=C, clip_mixing=0.5) | changes))


def _sized(scale: str) -> PFDMConfig:
    """Return the network and training of a scale; on 16 x 16 digits 48,000 images take a minute.

    "paper": the DDPM defaults, since the papers do not give theirs; unweighted loss.
    """
    if scale == "quick":
        return PFDMConfig(images=8_000, warmup=20, ema=0.99)
    if scale == "standard":
        return PFDMConfig()
    if scale == "paper":
        return PFDMConfig(
            network="mnist", weight="eps", images=15_000_000, batch=128, lr=2e-4, warmup=1000, ema=0.9999,
            gradient_clip=1.0,
        )
    raise ValueError(f"scale must be 'quick', 'standard' or 'paper', got {scale!r}")
