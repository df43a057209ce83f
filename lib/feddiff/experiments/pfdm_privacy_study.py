"""What the notebook on PFDM's privacy frontier needs: epsilon as a table, an audit of real uploads, clips and blur."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from feddiff.attacks.audit import clopper_pearson_epsilon, gaussian_dp_epsilon, threshold_counts
from feddiff.data import images
from feddiff.data.images import ImageSet
from feddiff.diffusion.autoencoder import ConvAutoencoder, fit_autoencoder
from feddiff.diffusion.descent import Descent
from feddiff.diffusion.schedules import linear
from feddiff.experiments import cache
from feddiff.experiments.pfdm_study import DATA_CODE, Setting
from feddiff.privacy.accounting import forward_diffusion_epsilon, gaussian_epsilon
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems import pfdm
from feddiff.systems.image_clients import PixelSpace
from feddiff.systems.pfdm import PFDMConfig, PFDMRun

# Who changes -> the largest norm C of what changes (Theorem 5.1), for values in [-1, 1]. The papers' "pixel" is one
# value; clip norm 10 is the CVPR version's; the other two are whole pictures that nobody clips.
RADII = {
    "one value": 1.0, "RGB pixel": math.sqrt(3), "picture, C = 10": 10.0, "28 x 28 picture": 28.0,
    "32 x 32 RGB picture": math.sqrt(3072),
}
BOUNDS = ("theorem", "analytic")
# Audits are repeated over steps and seeds; each bound holds with this probability of failure.
SIGNIFICANCE = 0.001


def bounds(t0s: Sequence[int], radii: Mapping[str, float] = RADII, *, delta: float = 1e-5) -> pd.DataFrame:
    """Return columns t0, unit, theorem, analytic: epsilon of one upload on the papers' schedule (T = 1000, linear)."""
    abar = linear(1000).alpha_bar
    rows = [
        (t0, unit, *(
            forward_diffusion_epsilon(alpha_bar=float(abar[t0 - 1]), clip_norm=radius, delta=delta, bound=bound)
            for bound in BOUNDS
        ))
        for t0 in t0s for unit, radius in radii.items()
    ]
    return pd.DataFrame(rows, columns=["t0", "unit", *BOUNDS])


def audit(config: PFDMConfig, *, side: int, trials: int, seed: int) -> dict[str, float]:
    """Return lower bounds on the epsilon of `config`, proved on uploads that the system itself makes.

    A client holds `trials` pictures, each one of two that lie as far apart as clipping lets any two lie; the attacker
    knows both and projects every upload on their difference (the optimal test). "counting" needs no assumption and
    cannot exceed the logarithm of the trials; "gaussian" takes the trade-off for Gaussian; "fit" measures the distance
    of the two means in standard deviations, which proves large epsilons, too. Each fails with chance SIGNIFICANCE.
    """
    present = numpy_generator(seed, "audit", config.t0).random(trials) < 0.5
    one, other = _farthest(config, side)
    pictures = torch.where(torch.from_numpy(present).reshape(-1, 1, 1, 1), one, other)
    config = replace(config, seed=seed, classes=1, network="tiny", global_images=0)
    run = pfdm.train([(pictures, torch.zeros(trials, dtype=torch.int64))], config, fit_clients=(), progress=False)
    scores = (run.uploads.images * (one - other)).flatten(1).sum(1).double().numpy()
    counts = threshold_counts(scores, present)
    promised = dict(delta=config.delta, significance=SIGNIFICANCE)
    mu = _distance(scores[present], scores[~present])
    return {
        "counting": clopper_pearson_epsilon(**counts, **promised),
        "gaussian": gaussian_dp_epsilon(**counts, **promised),
        "fit": 0.0 if mu <= 0 else gaussian_epsilon(noise_over_sensitivity=1 / mu, delta=config.delta),
    }


def contrast(image_set: ImageSet, C: float, values: str = "[-1, 1]") -> float:
    """Return min(1, C / norm), averaged over pictures: what clipping to norm C leaves of their contrast, in (0, 1]."""
    x = PixelSpace(values).enter(images.to_tensor(image_set.images))
    return float((C / x.flatten(1).norm(dim=1)).clamp(max=1).mean())


def sharpness(samples: torch.Tensor, real: torch.Tensor) -> float:
    """Return the mean squared difference of neighbouring pixels, over that of real pictures.

    In [0, inf); 1 is as sharp as they are, less is blurred, more is noisy. Both (n, c, h, w), of the same classes.
    """
    return _edges(samples) / _edges(real)


def upload_nbytes(run: PFDMRun) -> int:
    """Return the bytes of all uploads of a run."""
    return sum(message.nbytes for message in run.channel.log if message.kind == "upload")


def in_latent_space(
    setting: Setting, config: PFDMConfig, *, latent: int, steps: int, progress: bool = True
) -> tuple[PFDMRun, float]:
    """Return PFDM on the codes of an autoencoder, from the cache where it is, and that one's error.

    The autoencoder halves the side and keeps `latent` channels; it is trained for `steps` batches on training pictures
    that no client holds, which stand in for public ones. Its error is the mean squared difference on test pictures,
    over their variance.
    """
    spare = images.to_tensor(setting.train.images[setting.spare])
    seed, how = setting.seed, Descent(steps=steps)
    name = f"{setting.identity} latent={latent} steps={steps}"
    # Two copies: training leaves its own in a memory layout that rounds differently from one that was loaded.
    trained, built = (
        ConvAutoencoder(setting.train.channels, setting.train.size, latent=latent,
                        generator=torch_generator(seed, "init", "autoencoder")) for _ in range(2)
    )
    entry = cache.cached(
        "autoencoder", {"latent": latent, "steps": steps, "seed": seed}, name,
        lambda: dict(fit_autoencoder(trained, spare, how, seed=seed, progress=progress).state),
        code=["feddiff.diffusion.autoencoder", *DATA_CODE],
    )
    built.load_state_dict(entry.state)
    built.eval()
    config = replace(config, seed=seed, classes=setting.classes)
    found = cache.cached(
        "pfdm", config, name,
        lambda: pfdm.train(setting.clients, config, autoencoder=built, progress=progress).to_state(),
        code=["feddiff.systems.pfdm", *DATA_CODE],
    )
    unseen = images.to_tensor(setting.test.images)
    error = float((built.decode(built.encode(unseen)) - unseen).square().mean() / unseen.var())
    return pfdm.from_state(found.state, setting.clients, config, autoencoder=built), error


def _edges(x: torch.Tensor) -> float:
    x = x.double()
    return float((x[..., 1:] - x[..., :-1]).square().mean() + (x[..., 1:, :] - x[..., :-1, :]).square().mean())


def _farthest(config: PFDMConfig, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two pictures in [-1, 1] whose clipped versions lie as far apart as any: opposite, or without overlap."""
    white = torch.ones(1, 1, side, side)
    if config.values == "[-1, 1]":
        return white, -white
    left = torch.arange(side).expand(1, 1, side, side) < side / 2
    return torch.where(left, white, -white), torch.where(left, -white, white)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return a lower limit of the distance of two means in their common standard deviation (equal variances)."""
    m, n = len(first), len(second)
    spread = math.sqrt((((first - first.mean()) ** 2).sum() + ((second - second.mean()) ** 2).sum()) / (m + n - 2))
    found = float(first.mean() - second.mean()) / spread
    # Large-sample variance of a standardised mean difference (Hedges 1981).
    return found - float(norm.isf(SIGNIFICANCE)) * math.sqrt(1 / m + 1 / n + found**2 / (2 * (m + n - 2)))
