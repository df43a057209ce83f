"""Multinomial diffusion of categorical columns (Hoogeboom et al. 2021, section 4; Kotelnikov et al. 2023).

A code keeps its value from step to step with probability 1 - beta_t, else it is drawn anew, uniformly over the K levels
of its column: q(x_t | x_0) = alpha_bar_t x_0 + (1 - alpha_bar_t) / K. A network predicts a law of x_0 as logits.

Two ways back, which must not be mixed up. `posterior` puts a law in the place of x_0, as the authors do: the weights
multiply it by the likelihood of x_t, so it must be the law of x_0 *before* x_t's own value is seen, and that is what
training on the bound (`divergence`) makes of it. `mixture` averages q(x_{t-1} | x_t, x_0) over a law of x_0 *given*
x_t, which is what training by cross-entropy gives; `posterior` would count x_t twice there.
"""

import torch

from feddiff.diffusion.schedules import Schedule
from feddiff.diffusion.segments import Segments

# A softmax may underflow to exactly 0, whose logarithm no gradient survives.
SMALLEST = 1e-30


class Multinomial:
    """Categorical columns of `levels` values each, noised towards uniform under `schedule`.

    Laws are (n, sum(levels)), one block of probabilities per column; codes are (n, columns) int64; t is (n,) or, shared
    by all rows, (1,).
    """

    def __init__(self, levels: tuple[int, ...], schedule: Schedule):
        if not levels or min(levels) < 1:
            raise ValueError(f"multinomial diffusion needs columns with at least one level each, got {levels}")
        self.segments, self.schedule = Segments(levels), schedule
        self.sizes = torch.tensor(levels)
        self.uniform = torch.repeat_interleave(1 / self.sizes, self.sizes)

    def one_hot(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the laws that put all their mass on `codes`, float32."""
        law = torch.zeros(len(codes), len(self.uniform))
        return law.scatter_(1, codes + self.segments.offsets, 1.0)

    def noised(self, codes: torch.Tensor, t: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return codes drawn from q(x_t | x_0 = codes)."""
        # float64, because float32 can round (1 - 2^-24) * K up to K.
        keep, anew = torch.rand((2, *codes.shape), generator=generator, dtype=torch.float64)
        kept = keep < self.schedule.alpha_bar[t].unsqueeze(1)
        return torch.where(kept, codes, (anew * self.sizes).long())

    def start(self, rows: int, generator: torch.Generator) -> torch.Tensor:
        """Return codes (rows, columns) drawn uniformly: x_T."""
        draws = torch.rand(rows, len(self.sizes), generator=generator, dtype=torch.float64)
        return (draws * self.sizes).long()

    def posterior(self, x0: torch.Tensor, codes: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return q(x_{t-1} | x_t = codes, x_0 ~ x0), as laws; at t = 0 it is the law of x_0 given x_1.

        Proportional to (alpha_t x_t + (1 - alpha_t) / K) (alpha_bar_{t-1} x_0 + (1 - alpha_bar_{t-1}) / K), the
        posterior with x_0's law in the place of x_0 (Hoogeboom et al. 2021, eq. 13 and 15).
        """
        before = self.schedule.alpha_bar_previous[t].float().unsqueeze(1)
        beta = self.schedule.beta[t].float().unsqueeze(1)
        prior = before * x0 + (1 - before) * self.uniform
        stays = self.one_hot(codes) * (1 - beta) + beta * self.uniform
        weights = prior * stays
        totals = weights @ self.segments.indicator
        return weights / (totals @ self.segments.indicator.T).clamp(min=SMALLEST)

    def mixture(self, x0: torch.Tensor, codes: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return sum over x_0 of x0(x_0) q(x_{t-1} | x_t = codes, x_0), as laws: the exact reverse step for a law
        of x_0 given x_t.

        q(x_t | x_0) divides each term: with it the sum is `posterior` at a law proportional to x0 / q(x_t | x_0).
        """
        bar = self.schedule.alpha_bar[t].float().unsqueeze(1)
        before = x0 / (bar * self.one_hot(codes) + (1 - bar) * self.uniform)
        totals = before @ self.segments.indicator
        return self.posterior(before / (totals @ self.segments.indicator.T).clamp(min=SMALLEST), codes, t)

    def divergence(
        self, codes: torch.Tensor, logits: torch.Tensor, noisy: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """Return KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) of each column, (n, columns), in nats.

        codes: x_0; noisy: x_t; logits: of the network's law of x_0. At t = 0 it is -log p(x_0 | x_1). Summed over all
        t it is the bound on -log p(x_0), less the divergence of x_T from uniform, which no parameter changes.
        """
        truth = self.posterior(self.one_hot(codes), noisy, t)
        model = self.posterior(self.segments.probabilities(logits), noisy, t)
        terms = torch.xlogy(truth, truth) - truth * model.clamp(min=SMALLEST).log()
        return terms @ self.segments.indicator

    def draw(self, law: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return codes drawn from `law`."""
        blocks = law.split(self.segments.levels, dim=1)
        return torch.cat([torch.multinomial(block, 1, generator=generator) for block in blocks], dim=1)
