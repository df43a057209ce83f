"""Uploads of the system itself under attack: pools of pictures, matching, reconstruction, repeats, a known seed.

The uploads come from `pfdm.train`, epsilon from `UploadPrivacy`; nothing is trained.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from feddiff.attacks import upload_matching as matching
from feddiff.data import images
from feddiff.data.images import ImageSet
from feddiff.experiments import records
from feddiff.seeds import derive, numpy_generator
from feddiff.systems import pfdm
from feddiff.systems.image_clients import PixelSpace, clipped
from feddiff.systems.pfdm import PFDMConfig, UploadPrivacy
from feddiff.systems.pfdm_config import VALUES

# Whose reconstruction (label `attacker`): blind (the mean of public pictures of the class), the upload as it is, the
# uploads' own moments (all that a model of them can know), public pictures (their moments; they as the only possible
# ones), the pool that holds the picture.
ATTACKERS = ("blind", "none", "uploads", "public_moments", "public_pictures", "pool")


@dataclass(frozen=True, eq=False)
class Pool:
    """Pictures (n, c, side, side) in [-1, 1] with labels: candidates, of which `uploaded` are sent, and public ones."""

    candidates: torch.Tensor
    labels: np.ndarray
    uploaded: np.ndarray
    public: torch.Tensor
    public_labels: np.ndarray

    @property
    def truth(self) -> torch.Tensor:
        """The uploaded pictures."""
        return self.candidates[self.uploaded]


def pool(source: ImageSet, side: int, *, candidates: int, uploads: int, public: int, seed: int) -> Pool:
    """Return a random pool of a picture set at a side, the pictures uploaded from it, and disjoint public pictures.

    The same seed gives the same pictures at every side.
    """
    rows = numpy_generator(seed, "pool").permutation(len(source))
    if candidates + public > len(rows) or uploads > candidates:
        raise ValueError(f"{source.name} has {len(rows)} pictures: too few for {candidates} candidates and {public} "
                         f"public ones, or {uploads} uploads are more than the candidates")
    small = images.resize(source.select(rows[: candidates + public]), side)
    pictures = images.to_tensor(small.images)
    return Pool(pictures[:candidates], small.labels[:candidates], np.arange(uploads), pictures[candidates:],
                small.labels[candidates:])


def sent(config: PFDMConfig, pictures: torch.Tensor, *, seed: int) -> torch.Tensor:
    """Return what a client of PFDM with this configuration and seed uploads of its pictures, (n, c, side, side)."""
    config = replace(config, seed=seed, classes=1, network="tiny", global_images=0)
    labels = torch.zeros(len(pictures), dtype=torch.int64)
    return pfdm.train([(pictures, labels)], config, fit_clients=(), progress=False).uploads.images


def noised_range(config: PFDMConfig, pictures: torch.Tensor) -> np.ndarray:
    """Return pictures as the mechanism has them before it adds noise: in its range, clipped."""
    return clipped(PixelSpace(config.values).enter(pictures), config.C).double().numpy()


def place(config: PFDMConfig, side: int) -> dict:
    """Return the labels of a cell."""
    return dict(side=side, t0=config.t0, C="none" if config.C is None else config.C)


def budget(run: records.Run, config: PFDMConfig, shape: tuple[int, int, int], repeats: Sequence[int] = (1,)) -> None:
    """Record epsilon of a cell: of one value by the papers' theorem (their "pixel"), of a picture exactly.

    repeats: of a picture that is uploaded so often with fresh noise, or of a person with so many pictures.
    """
    privacy, where = UploadPrivacy(config=config, shape=shape), place(config, shape[1])
    run.metric("epsilon_value", privacy.epsilon(unit="value", bound="theorem"), **where)
    for k in repeats:
        run.metric("epsilon_image", privacy.epsilon(repeats=k), repeats=k, **where)


def identify(run: records.Run, chosen: Pool, config: PFDMConfig, *, seed: int) -> matching.Matches:
    """Record how many uploads are matched to their picture among the candidates; return the matches.

    matched, matched_10: share with the true candidate first, or among the first ten. matched_label: among candidates
    of the same label, which uploads carry in the clear; label_gain: how much more that is. class_read: share whose
    class the public pictures tell, from the picture alone. epsilon_proved: what the matches prove of its epsilon.
    """
    y, x = sent(config, chosen.truth, seed=seed).numpy(), noised_range(config, chosen.candidates)
    known, where = dict(alpha_bar=config.alpha_bar), place(config, chosen.candidates.shape[-1])
    found = matching.match(y, x, chosen.uploaded, **known)
    told = matching.match(y, x, chosen.uploaded, labels=(chosen.labels[chosen.uploaded], chosen.labels), **known)
    public, classes = noised_range(config, chosen.public), int(chosen.labels.max()) + 1
    odds = matching.expectation(y, public, np.eye(classes)[chosen.public_labels], **known)
    run.metric("matched", found.top(1).value, **where)
    run.metric("matched_10", found.top(10).value, **where)
    run.metric("matched_label", told.top(1).value, **where)
    run.metric("label_gain", told.top(1).value - found.top(1).value, **where)
    run.metric("matched_chance", found.chance(1), **where)
    run.metric("class_read", float(np.mean(odds.argmax(1) == chosen.labels[chosen.uploaded])), **where)
    run.metric("epsilon_proved", found.epsilon(config.delta), **where)
    return found


def reconstruct(run: records.Run, chosen: Pool, config: PFDMConfig, *, seed: int) -> dict[str, torch.Tensor]:
    """Record how well each of ATTACKERS reconstructs the uploaded pictures; return the pictures, not clipped any more.

    All know the labels, and the bounds of the values and of the norm, to which every guess is cut. recovery: squared
    error over that of the blind guess, 0 perfect, 1 no better than without the upload. psnr: in dB, of the pictures
    with the contrast put back that clipping took on average.
    """
    y, known = sent(config, chosen.truth, seed=seed).double().numpy(), dict(alpha_bar=config.alpha_bar)
    x, public, shape = noised_range(config, chosen.candidates), noised_range(config, chosen.public), y.shape
    own, others = chosen.labels[chosen.uploaded], chosen.public_labels
    blind, of_uploads = _class_means(public, others)[own], _class_means(y, own)[own]
    spread = matching.moments(public - _class_means(public, others)[others])[1]
    seen = matching.moments_of_uploads(y - of_uploads, **known)[1]
    flat = of_uploads.reshape(len(y), -1) / math.sqrt(config.alpha_bar)
    found = {
        "blind": blind,
        "none": y / math.sqrt(config.alpha_bar),
        "uploads": matching.gaussian_estimate(y, flat, seen, **known).reshape(shape),
        "public_moments": matching.gaussian_estimate(y, blind.reshape(len(y), -1), spread, **known).reshape(shape),
        "public_pictures": matching.expectation(y, public, public, labels=(own, others), **known),
        "pool": matching.expectation(y, x, x, labels=(own, chosen.labels), **known),
    }
    return _scored(run, chosen, config, found)


def with_seed(run: records.Run, chosen: Pool, config: PFDMConfig, *, seed: int) -> dict[str, torch.Tensor]:
    """Record and return the reconstruction by an attacker who knows the seed of the noise, nothing else.

    It lets the public code upload grey pictures (0 everywhere) with that seed and takes the result off the uploads.
    """
    uploads = sent(config, chosen.truth, seed=seed).double().numpy()
    noise = sent(config, torch.zeros_like(chosen.truth), seed=seed).double().numpy() / math.sqrt(1 - config.alpha_bar)
    if config.values != "[-1, 1]":
        raise ValueError("grey pictures are the origin only where values lie in [-1, 1]")
    found = {"seed": matching.known_noise(uploads, noise, alpha_bar=config.alpha_bar)}
    return _scored(run, chosen, config, found)


def repeat(run: records.Run, chosen: Pool, config: PFDMConfig, counts: Sequence[int], *, seed: int) -> None:
    """Record what 1, ... k uploads of the same pictures give away, each with fresh noise: matched, recovery, epsilon.

    The system refuses a second upload; what is measured is what that prevents. Labels as in a cell, and `repeats`.
    """
    x, where = noised_range(config, chosen.candidates), place(config, chosen.candidates.shape[-1])
    public, own, others = noised_range(config, chosen.public), chosen.labels[chosen.uploaded], chosen.public_labels
    truth, mean = x[chosen.uploaded], _class_means(public, others)[own]
    spread = matching.moments(public - _class_means(public, others)[others])[1]
    blind = float(np.square(mean - truth).mean())
    total = np.zeros(truth.shape)
    for k in range(1, max(counts) + 1):
        total += sent(config, chosen.truth, seed=derive(seed, "repeat", k)).double().numpy()
        if k in counts:
            y, share = matching.averaged(total / k, k, alpha_bar=config.alpha_bar)
            hits = matching.match(y, x, chosen.uploaded, alpha_bar=share).top(1)
            guess = matching.gaussian_estimate(y, mean.reshape(len(y), -1), spread, alpha_bar=share)
            guess = guess.reshape(truth.shape)
            run.metric("matched_repeated", hits.value, repeats=k, **where)
            run.metric("recovery_repeated", float(np.square(guess - truth).mean()) / blind, repeats=k, **where)


def drawn_again(records_held: int, *, seed: int) -> int:
    """Return how often the record that is drawn most is drawn, in as many draws with replacement as there are."""
    draws = numpy_generator(seed, "with replacement").integers(0, records_held, records_held)
    return int(np.bincount(draws).max())


def sheet(rows: dict[str, torch.Tensor], labels: np.ndarray, classes: int) -> dict[str, torch.Tensor]:
    """Return the first uploaded picture of each class from every row, for a picture of reconstructions."""
    first = [int(np.flatnonzero(labels == label)[0]) for label in range(classes)]
    return {name: part[first] for name, part in rows.items()}


def _class_means(pictures: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean picture of each class, (classes, c, side, side), a class without a picture the mean of all."""
    classes = [pictures[labels == label] for label in range(int(labels.max()) + 1)]
    return np.stack([(own if len(own) else pictures).mean(0) for own in classes])


def _scored(
    run: records.Run, chosen: Pool, config: PFDMConfig, found: dict[str, np.ndarray]
) -> dict[str, torch.Tensor]:
    held, where = noised_range(config, chosen.truth), place(config, chosen.candidates.shape[-1])
    public, own = noised_range(config, chosen.public), chosen.labels[chosen.uploaded]
    blind = float(np.square(_class_means(public, chosen.public_labels)[own] - held).mean())
    norms = [np.linalg.norm(side.reshape(len(side), -1), axis=1) for side in (public, chosen.public.numpy())]
    contrast, original, shown = float(np.mean(norms[0] / norms[1])), chosen.truth.double().numpy(), {}
    low, high = VALUES[config.values]
    for attacker, guess in found.items():
        guess = clipped(torch.from_numpy(guess).clamp(low, high), config.C).numpy()
        run.metric("recovery", float(np.square(guess - held).mean()) / blind, attacker=attacker, **where)
        restored = guess / contrast
        error = float(np.square(restored - original).mean())
        run.metric("psnr", 10 * math.log10(4 / error), attacker=attacker, **where)
        shown[attacker] = torch.from_numpy(restored).float()
    return shown
