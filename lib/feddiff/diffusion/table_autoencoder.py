"""An autoencoder of table rows: embeddings and numbers in, one latent vector, softmax and Gaussian heads out.

The autoencoder that each silo of SiloFuse trains on its own columns (arXiv 2404.03299: three linear layers each side,
GELU, negative log-likelihood; sizes recalled, not quoted).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from feddiff.diffusion.denoisers import embedding_layer, linear_layer
from feddiff.diffusion.descent import Batches, Descent, Fitted, descend
from feddiff.diffusion.segments import Segments

VARIANTS = ("plain", "vae", "denoising")
# Rows of one pass outside training: bounds the logits, which a column of thousands of levels makes wide.
CHUNK = 2048
# Log-variance of a number: its standard deviation stays between .05 and 7.4 of the encoded column's.
LOG_VARIANCE = (-6.0, 4.0)
# A latent that spreads less than this over the rows is constant.
CONSTANT = 1e-6


class TableAutoencoder(nn.Module):
    """Encoder and decoder between rows (codes (n, m) int64, numbers (n, k) float32) and latents (n, latent) float32.

    levels: codes of each of the m code columns; numbers: k. hidden: width of the two inner layers on either side.
    variant: "plain"; "vae" (the latent is drawn in training, KL to N(0, I) weighted by `beta`); "denoising" (in
    training each code is redrawn with probability `noise` and numbers get noise of that standard deviation).
    embedding: largest width of a code column's embedding, so that a column of thousands of levels stays narrow; one
    with no more levels than that starts as one-hot.
    balance: the gradient of a number's likelihood is multiplied by its variance to this power (beta-NLL, Seitzer et al.
    2022; the value of the loss stays the likelihood). At 0, the plain gradient, numbers that are known to within .05
    weigh 400 times as much as at the start and crowd out the categories of a small latent.
    Latents are standardised by the buffers shift and scale (latent,), which `fit_autoencoder` measures.
    """

    def __init__(
        self,
        levels: Sequence[int],
        numbers: int,
        *,
        latent: int,
        hidden: int,
        generator: torch.Generator,
        variant: str = "plain",
        embedding: int = 16,
        noise: float = 0.1,
        beta: float = 0.01,
        balance: float = 0.5,
    ):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
        for name, value in (("latent", latent), ("hidden", hidden), ("embedding", embedding)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if numbers < 0 or any(count < 1 for count in levels) or not (numbers or len(levels)):
            raise ValueError(f"a row needs a column, a column a level, got levels={tuple(levels)}, numbers={numbers}")
        if not 0 <= noise < 1 or not 0 <= beta < math.inf:
            raise ValueError(f"noise must lie in [0, 1) and beta be >= 0, got noise={noise!r}, beta={beta!r}")
        if not 0 <= balance <= 1:
            raise ValueError(f"balance must lie in [0, 1], got {balance!r}")
        self.levels, self.numbers, self.latent, self.hidden = tuple(levels), numbers, latent, hidden
        self.variant, self.noise, self.beta, self.balance = variant, noise, beta, balance
        self.segments = Segments(self.levels)
        widths = [min(embedding, count) for count in self.levels]
        self.embeddings = nn.ModuleList(_embedding(n, w, generator) for n, w in zip(self.levels, widths))
        d_out = latent * (2 if variant == "vae" else 1)
        self.encoder = _stack(sum(widths) + numbers, hidden, d_out, generator)
        self.decoder = _stack(latent, hidden, sum(self.levels) + 2 * numbers, generator)
        self.register_buffer("shift", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))

    def encode(self, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return the standardised latents (n, latent), the mean of them for a VAE; differentiable."""
        return (self._raw(codes, numbers)[:, : self.latent] - self.shift) / self.scale

    def decode(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits (n, sum(levels)), mean (n, k) and log-variance (n, k) of standardised latents."""
        return self._heads(z * self.scale + self.shift)

    def loss_per_record(
        self, codes: torch.Tensor, numbers: torch.Tensor, *, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return (n,) the negative log-likelihood of each row given its latent, summed over columns, plus beta KL.

        `generator` gives the draws that the variants "vae" and "denoising" need.
        """
        if self.variant != "plain" and generator is None:
            raise ValueError(f"the variant {self.variant!r} draws in training; pass a generator")
        shown = (codes, numbers)
        if self.variant == "denoising":
            shown = self._corrupted(codes, numbers, generator)
        raw = self._raw(*shown)
        if self.variant != "vae":
            return self._per_column(raw, codes, numbers).sum(dim=1)
        mean, log_variance = raw.split(self.latent, dim=1)
        log_variance = _bounded(log_variance)
        draw = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator, device=mean.device)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return self._per_column(draw, codes, numbers).sum(dim=1) + self.beta * kl

    def loss_per_column(self, z: torch.Tensor, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return (n, m + k) the negative log-likelihood of each value given standardised latents, codes first."""
        return self._per_column(z * self.scale + self.shift, codes, numbers)

    @torch.no_grad()
    def draw(
        self, z: torch.Tensor, generator: torch.Generator, *, categories: str = "mode", numbers: str = "mean"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (codes, numbers) of standardised latents: the mode or a draw from each softmax, mean or a draw."""
        if categories not in ("mode", "sample"):
            raise ValueError(f"categories must be 'mode' or 'sample', got {categories!r}")
        if numbers not in ("mean", "sample"):
            raise ValueError(f"numbers must be 'mean' or 'sample', got {numbers!r}")
        parts = []
        for part in z.split(CHUNK):
            logits, mean, log_variance = self.decode(part)
            if categories == "sample":
                # Gumbel noise turns the place of the maximum into a draw from the softmax.
                uniform = torch.rand(logits.shape, generator=generator, device=z.device).clamp(min=1e-20)
                logits = logits - uniform.log().neg().clamp(min=1e-20).log()
            blocks = [block.argmax(dim=1) for block in logits.split(self.levels, dim=1)]
            codes = torch.stack(blocks, dim=1) if blocks else torch.empty(len(part), 0, dtype=torch.int64)
            if numbers == "sample":
                noise = torch.randn(mean.shape, generator=generator, device=z.device)
                mean = mean + (log_variance / 2).exp() * noise
            # A copy: the mean is a view that would keep the chunk's logits alive.
            parts.append((codes, mean.clone()))
        return torch.cat([codes for codes, _ in parts]), torch.cat([mean for _, mean in parts])

    def _raw(self, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        embedded = [table(column) for table, column in zip(self.embeddings, codes.unbind(dim=1))]
        return self.encoder(torch.cat([*embedded, numbers], dim=1))

    def _heads(self, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        out = self.decoder(raw)
        logits, mean, log_variance = out.split([sum(self.levels), self.numbers, self.numbers], dim=1)
        return logits, mean, _bounded(log_variance)

    def _per_column(self, raw: torch.Tensor, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        logits, mean, log_variance = self._heads(raw)
        gaussian = 0.5 * ((numbers - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))
        if self.balance:
            weighted = gaussian * (self.balance * log_variance.detach()).exp()
            gaussian = gaussian.detach() + weighted - weighted.detach()
        if not self.levels:
            return gaussian
        return torch.cat([self.segments.cross_entropy(logits, codes), gaussian], dim=1)

    def _corrupted(
        self, codes: torch.Tensor, numbers: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        uniform = torch.rand(2, *codes.shape, generator=generator, device=codes.device)
        anew = (uniform[0] * torch.tensor(self.levels, device=codes.device)).long()
        noise = torch.randn(numbers.shape, generator=generator, device=numbers.device)
        return torch.where(uniform[1] < self.noise, anew, codes), numbers + self.noise * noise


def fit_autoencoder(
    model: TableAutoencoder,
    codes: np.ndarray | torch.Tensor,
    numbers: np.ndarray | torch.Tensor,
    config: Descent,
    *,
    seed: int,
    name: str = "autoencoder",
    columns: Sequence[str] | None = None,
    progress: bool = True,
) -> Fitted:
    """Train `model` in place on codes int64 (n, m) and numbers float32 (n, k), then standardise its latents.

    After it every latent has mean 0 and variance 1 over these rows; a constant one keeps scale 1. columns: names of
    the m code and k number columns, for messages. ValueError for rows that the model cannot take, naming the column;
    FloatingPointError at the first step whose loss is not finite, naming step and columns.
    """
    codes, numbers = checked(model, codes, numbers, columns)
    if config.balanced:
        raise ValueError("balanced batches need labels, and an autoencoder has none: set balanced=False")
    names = _names(model, columns)
    batches = Batches(torch.zeros(len(codes), dtype=torch.int64), config.batch, False, seed, name)

    def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        x, y = codes[rows], numbers[rows]
        value = model.loss_per_record(x, y, generator=generator).mean()
        if not math.isfinite(float(value.detach())):
            with torch.no_grad():
                each = model.loss_per_column(model.encode(x, y), x, y)
            raise not_finite(each, names, name, batches.step)
        return value

    model.shift.zero_()
    model.scale.fill_(1)
    fitted = descend(model, loss, batches, config, seed=seed, name=name, device=torch.device("cpu"), progress=progress)
    raw = latents(model, codes, numbers).double()
    spread = raw.std(dim=0, correction=0)
    model.shift.copy_(raw.mean(dim=0))
    model.scale.copy_(torch.where(spread > CONSTANT, spread, 1.0))
    fitted.state["shift"], fitted.state["scale"] = model.shift.clone(), model.scale.clone()
    return fitted


@torch.no_grad()
def latents(
    model: TableAutoencoder, codes: np.ndarray | torch.Tensor, numbers: np.ndarray | torch.Tensor
) -> torch.Tensor:
    """Return the standardised latents (n, latent) float32 of rows, a chunk at a time and without gradient."""
    codes, numbers = checked(model, codes, numbers)
    return torch.cat([model.encode(x, y) for x, y in zip(codes.split(CHUNK), numbers.split(CHUNK))])


def reconstruction(
    model: TableAutoencoder, codes: np.ndarray | torch.Tensor, numbers: np.ndarray | torch.Tensor
) -> np.ndarray:
    """Return (m + k,) how well each column comes back from its latent, codes first: accuracy, then R^2.

    Mode and mean are decoded. R^2 = 1 - residual / total sum of squares, 1 at best and negative where the column's own
    mean does better; a constant column scores 1 if it comes back within .01, else 0.
    """
    codes, numbers = checked(model, codes, numbers)
    z = latents(model, codes, numbers)
    found, mean = model.draw(z, torch.Generator())
    accuracy = (found == codes).double().mean(dim=0)
    truth, error = numbers.double(), (mean - numbers).double()
    total = (truth - truth.mean(dim=0)).square().sum(dim=0)
    constant = truth.amax(dim=0) == truth.amin(dim=0)
    returned = (error.abs().amax(dim=0) < 0.01).double()
    r2 = torch.where(constant, returned, 1 - error.square().sum(dim=0) / torch.where(constant, 1.0, total))
    return torch.cat([accuracy, r2]).numpy()


def checked(
    model: TableAutoencoder,
    codes: np.ndarray | torch.Tensor,
    numbers: np.ndarray | torch.Tensor,
    columns: Sequence[str] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes and numbers as tensors. ValueError, naming the column, unless the model can take them."""
    codes, numbers = torch.as_tensor(codes), torch.as_tensor(numbers)
    m, k, names = len(model.levels), model.numbers, _names(model, columns)
    if codes.dtype != torch.int64 or codes.dim() != 2 or codes.shape[1] != m or not len(codes):
        raise ValueError(f"codes must be int64 (n, {m}) with n >= 1, got {codes.dtype} {tuple(codes.shape)}")
    if numbers.dtype != torch.float32 or numbers.shape != (len(codes), k):
        raise ValueError(f"numbers must be float32 ({len(codes)}, {k}), got {numbers.dtype} {tuple(numbers.shape)}")
    for j, count in enumerate(model.levels):
        low, high = int(codes[:, j].min()), int(codes[:, j].max())
        if not 0 <= low <= high < count:
            raise ValueError(f"column {names[j]!r}: codes must lie in 0..{count - 1}, got {low}..{high}; a category "
                             "that was not fitted needs a codec with unseen='other'")
    wrong = ~numbers.isfinite()
    if bool(wrong.any()):
        row, j = wrong.nonzero()[0].tolist()
        raise ValueError(f"column {names[m + j]!r}: {int(wrong[:, j].sum())} values are not finite, the first in row "
                         f"{row}; drop or fill blank cells before encoding")
    return codes, numbers


def _names(model: TableAutoencoder, columns: Sequence[str] | None) -> list[str]:
    m, k = len(model.levels), model.numbers
    names = [*(f"code {j}" for j in range(m)), *(f"number {j}" for j in range(k))] if columns is None else list(columns)
    if len(names) != m + k:
        raise ValueError(f"columns must name {m} code and {k} number columns, got {len(names)} names")
    return names


def not_finite(losses: torch.Tensor, columns: Sequence[str], name: str, step: int) -> FloatingPointError:
    """Return the error for losses (n, m + k) of `columns` that are not finite at the 1-based `step` of party `name`."""
    finite = losses.detach().isfinite().all(dim=0)
    wrong = [column for column, fine in zip(columns, finite.tolist()) if not fine] or list(columns)
    return FloatingPointError(
        f"{name}: the loss is not finite at step {step}, in column {wrong[0]!r}"
        f"{f' and {len(wrong) - 1} more of {len(columns)}' if len(wrong) > 1 else ''}; lower lr or bound gradient_clip"
    )


def _embedding(levels: int, width: int, generator: torch.Generator) -> nn.Embedding:
    layer = embedding_layer(levels, width, generator)
    if levels == width:
        # Two labels whose random vectors happen to lie close together are hard to tell apart.
        nn.init.eye_(layer.weight)
    return layer


def _stack(d_in: int, hidden: int, d_out: int, generator: torch.Generator) -> nn.Sequential:
    return nn.Sequential(
        linear_layer(d_in, hidden, generator), nn.GELU(),
        linear_layer(hidden, hidden, generator), nn.GELU(),
        linear_layer(hidden, d_out, generator),
    )


def _bounded(log_variance: torch.Tensor) -> torch.Tensor:
    """Return the log-variance kept within LOG_VARIANCE smoothly, so that it never loses its gradient at the bounds."""
    low, high = LOG_VARIANCE
    log_variance = high - functional.softplus(high - log_variance)
    return low + functional.softplus(log_variance - low)
