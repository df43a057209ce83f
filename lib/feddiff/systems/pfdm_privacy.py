"""What PFDM's upload gives away, in numbers: epsilon by Theorem 5.1 and exactly, per picture, per pixel, repeated.

An upload publishes x~ = sqrt(abar_t0) clip(x) + sqrt(1 - abar_t0) z once, beside the label in the clear. It is one
Gaussian mechanism of local differential privacy: mu = Delta sqrt(abar / (1 - abar)), where Delta is the largest
distance between any two pictures after clipping. "theorem" is the papers' bound (Patel, Zhang & Wang, Theorem 5.1),
with Delta = 2C in any range; "analytic" is exact (Balle & Wang 2018), with the diameter of what clipping leaves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from feddiff.privacy.accounting import forward_diffusion_epsilon
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.systems.pfdm_config import VALUES, PFDMConfig

UNITS = ("image", "pixel", "value")
# Pictures of one person, or uploads of one picture, that a statement spells out.
REPEATS = (2, 3, 5, 10, 100)


@dataclass(frozen=True, kw_only=True)
class UploadPrivacy:
    """The local DP of one upload of a picture of `shape` (channels, height, width).

    latent: the shape is that of a code without bounds on its values; only the clip norm bounds it then.
    """

    config: PFDMConfig
    shape: tuple[int, int, int]
    latent: bool = False

    def __post_init__(self) -> None:
        if self.latent and self.config.C is None:
            raise ValueError("latent codes have no bounds: set a clip norm C, without one epsilon is infinite")

    def radius(self, unit: str = "image") -> float:
        """Return the C of Theorem 5.1: the largest norm of a clipped picture, of one pixel or of one value in it.

        A pixel is all channels of a place, a value one channel of it (the papers' pixel). Clipping is the projection
        onto a ball and moves no two pictures apart, so it leaves a bound on single pixels as it is.
        """
        if unit not in UNITS:
            raise ValueError(f"unit must be one of {UNITS}, got {unit!r}")
        clip = math.inf if self.config.C is None else self.config.C
        if self.latent:
            if unit != "image":
                raise ValueError(f"unit {unit!r}: a latent code has no pixels, ask for the image")
            return clip
        channels, height, width = self.shape
        values = {"image": channels * height * width, "pixel": channels, "value": 1}[unit]
        return min(clip, math.sqrt(values))

    def diameter(self, unit: str = "image") -> float:
        """Return Delta, the largest L2 distance between two clipped pictures (that differ in one pixel or value).

        2C for values in [-1, 1]. Vectors without negative entries of norm C are at most sqrt(2) C apart, and at most
        1 in each entry: so it is for values in [0, 1], once the picture as a whole may change.
        """
        radius = self.radius(unit)
        low, high = VALUES[self.config.values]
        if self.latent or low < 0:
            return 2 * radius
        clip = math.inf if self.config.C is None else self.config.C
        values = {"image": math.prod(self.shape), "pixel": self.shape[0], "value": 1}[unit]
        return min(math.sqrt(2) * clip, (high - low) * math.sqrt(values))

    def epsilon(self, *, bound: str = "analytic", unit: str = "image", repeats: int = 1) -> float:
        """Return epsilon at the configuration's delta, in [0, inf].

        repeats: how many pictures of one person are uploaded, or how many fresh uploads are made of one picture; both
        stack independent releases, so that mu grows by sqrt(repeats).
        """
        if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
            raise ValueError(f"repeats must be an integer >= 1, got {repeats!r}")
        radius = self.radius(unit) if bound == "theorem" else self.diameter(unit) / 2
        return forward_diffusion_epsilon(
            alpha_bar=self.config.alpha_bar,
            clip_norm=radius * math.sqrt(repeats),
            delta=self.config.delta,
            bound=bound,
        )

    def ledger(self, clients: Sequence[str]) -> PrivacyLedger:
        """Return the ledger after one upload of every picture: local DP, so any picture may be replaced by any."""
        ledger = PrivacyLedger(clients=clients, delta=self.config.delta, unit="image", adjacency="replace-one")
        abar = self.config.alpha_bar
        # The ledger counts a replacement as removing and adding: twice the sensitivity that it is told.
        noise = math.sqrt((1 - abar) / abar) / (self.diameter() / 2)
        for name in clients:
            ledger.spend_gaussian(name, noise_over_sensitivity=noise, what="one noised upload of every picture")
        for what in self._outside():
            ledger.declare_outside(what)
        return ledger

    def statement(self, clients: Sequence[str]) -> dict:
        """Return the complete privacy statement of a federation after one upload of every picture."""
        statement = self.ledger(clients).statement()
        units = ("image",) if self.latent else UNITS
        return statement | {
            "model": "local: every picture is noised before it leaves its client",
            "sampling": "none: every picture is uploaded once, without replacement",
            "accountant": "analytic Gaussian",
            "epsilon_theorem": self.epsilon(bound="theorem"),
            "epsilon_by_unit": {
                unit: {bound: self.epsilon(unit=unit, bound=bound) for bound in ("analytic", "theorem")}
                for unit in units
            },
            "pictures_of_one_person": {str(k): self.epsilon(repeats=k) for k in REPEATS},
            "repeated_uploads": {str(k): self.epsilon(repeats=k) for k in REPEATS},
            "sensitivity": self.diameter(),
            "noise": "cryptographic" if self.config.secure else "seeded: whoever knows the seed undoes it",
            "public": ["labels", "picture sizes", "number of pictures of each client"],
            "holds_for": "uploads, the global denoiser and everything made from them by post-processing",
        }

    def _outside(self) -> list[str]:
        outside = [
            "labels of all pictures, picture sizes and each client's number of pictures: public, in the clear",
            "local denoisers, trained on a client's own clean pictures without DP: they stay with their client",
            "synthetic pictures of a client, drawn with its local denoiser: they show its own pictures without bound, "
            "those of the other clients only through what they uploaded",
        ]
        return outside + ["the autoencoder, whatever it was trained on"] * self.latent
