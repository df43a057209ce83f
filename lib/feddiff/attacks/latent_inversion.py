"""Inverting latents from a few known rows: ridge, nearest neighbours or a small network, column by column.

Threat model (paired inversion): an honest-but-curious holder of the latents Z_i of all rows, as SiloFuse's coordinator
(Shankar et al., 2024), happens to know the plain values of k of these rows: its own customers, leaked rows, rows it
had inserted. It has neither encoder nor decoder. Theorem 1 of that paper (irreversibility) excludes this knowledge by
assumption. Related: inversion of features in vertical federated learning (UIFV, arXiv 2406.12588).

Threat model (insider): the coordinator is, or colludes with, the silo that holds X_1 of all rows. What X_1 tells of the
others' columns it knows anyway; the attack is what their latents add to that floor.
"""

import numpy as np
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from torch.nn import functional

from feddiff.attacks.latent_rows import Rows
from feddiff.diffusion.denoisers import linear_layer

METHODS = ("ridge", "knn", "mlp")
ALPHAS = tuple(10.0 ** np.arange(-4, 4))
NEIGHBOURS = 5
# The network: two hidden layers of WIDTH, AdamW on batches of at most BATCH pairs.
WIDTH, STEPS, BATCH, RATE, DECAY = 128, 400, 256, 3e-3, 1e-2


def invert(z_known: np.ndarray, known: Rows, z: np.ndarray, *, method: str, generator: torch.Generator) -> Rows:
    """Return the guessed rows behind latents z (n, s), learnt from the pairs (z_known (k, s), known), k >= 1.

    method: "ridge" (penalty by leave-one-out), "knn" (mean or vote of at most 5), "mlp". `generator` starts
    the network and draws its batches. ValueError for no pair, or latents that do not fit.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    z_known, z = (np.asarray(part, dtype=float) for part in (z_known, z))
    if len(z_known) != len(known) or not len(known):
        raise ValueError(f"inversion learns from pairs, at least one; got {len(z_known)} latents, {len(known)} rows")
    if z.ndim != 2 or z_known.ndim != 2 or z.shape[1] != z_known.shape[1]:
        raise ValueError(f"latents must be (rows, width) of one width, got {z_known.shape} and {z.shape}")
    if method == "mlp":
        return _as_rows(_network(z_known, known, z, generator), known)
    targets = np.concatenate([known.one_hot(), known.numbers], axis=1)
    if method == "knn":
        fitted = KNeighborsRegressor(min(NEIGHBOURS, len(known))).fit(z_known, targets)
    elif len(known) < 3:
        fitted = Ridge(alpha=1.0).fit(z_known, targets)
    else:
        fitted = RidgeCV(alphas=ALPHAS).fit(z_known, targets)
    return _as_rows(fitted.predict(z), known)


def insider(
    own: Rows, z_other: np.ndarray, known_rows: np.ndarray, other: Rows, *, method: str, generator: torch.Generator
) -> tuple[Rows, Rows]:
    """Return (floor, attack), two guesses of another silo's columns for the rows that are not in `known_rows`.

    own: the insider's columns of all n rows, z_other (n, s): the other silo's latents, in the same order; other: that
    silo's columns, of which only `known_rows` are looked at. The floor is learnt from `own` alone.
    """
    unknown = np.setdiff1d(np.arange(len(own)), known_rows)
    plain = own.embedded()
    guesses = []
    for features in (plain, np.concatenate([plain, z_other], axis=1)):
        pairs = (features[known_rows], other.select(known_rows))
        guesses.append(invert(*pairs, features[unknown], method=method, generator=generator))
    return guesses[0], guesses[1]


def _as_rows(found: np.ndarray, like: Rows) -> Rows:
    """Return rows from scores per level, of which the largest wins, and numbers."""
    found = found.reshape(len(found), -1)
    ends = np.cumsum([0, *like.levels])
    codes = [found[:, low:high].argmax(axis=1) for low, high in zip(ends[:-1], ends[1:])]
    empty = np.empty((len(found), 0), dtype=np.int64)
    return Rows(np.column_stack(codes) if codes else empty, found[:, ends[-1] :], like.levels, like.names)


def _network(z_known: np.ndarray, known: Rows, z: np.ndarray, generator: torch.Generator) -> np.ndarray:
    inputs, codes = torch.from_numpy(z_known).float(), torch.from_numpy(known.codes)
    centre, spread = known.numbers.mean(axis=0), known.numbers.std(axis=0) + 1e-6
    numbers = torch.from_numpy((known.numbers - centre) / spread).float()
    middle, scale = inputs.mean(dim=0), inputs.std(dim=0, correction=0) + 1e-6
    cuts = [*known.levels, numbers.shape[1]]
    model = torch.nn.Sequential(
        linear_layer(inputs.shape[1], WIDTH, generator), torch.nn.GELU(),
        linear_layer(WIDTH, WIDTH, generator), torch.nn.GELU(), linear_layer(WIDTH, sum(cuts), generator),
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, STEPS)
    inputs = (inputs - middle) / scale
    for _ in range(STEPS):
        rows = torch.randperm(len(inputs), generator=generator)[:BATCH]
        *logits, mean = model(inputs[rows]).split(cuts, dim=1)
        loss = (mean - numbers[rows]).square().sum() / len(rows)
        for j, part in enumerate(logits):
            loss = loss + functional.cross_entropy(part, codes[rows, j])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        found = model((torch.from_numpy(z).float() - middle) / scale).double().numpy()
    found[:, sum(known.levels) :] = found[:, sum(known.levels) :] * spread + centre
    return found
