"""The denoising loss of pictures, one value a record, and the way back from a noise prediction to x_0."""

from collections.abc import Callable

import torch
from torch import nn

from feddiff.diffusion.process import q_sample, x0_from_epsilon
from feddiff.diffusion.schedules import Schedule

WEIGHTS = ("eps", "v")
# min(1 / alpha_bar, this): without the bound the last steps of a schedule, nearly pure noise, outweigh all others.
LARGEST_WEIGHT = 50.0
# Pictures that pass through the network at a time in sampling.
CHUNK = 500


def loss_per_record(
    network: Callable[..., torch.Tensor],
    x0: torch.Tensor,
    labels: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    schedule: Schedule,
    *,
    weight: str = "eps",
    flag: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ||noise - eps_hat(x_t, t, label[, flag])||^2 of each record, mean over pixels and its K draws, (n,).

    x0 (n, c, h, w); labels (n,); t (n, K) int64 indices and noise (n, K, c, h, w) hold K draws a record, which the
    network sees in record-major order: the record's gradient is clipped once (noise multiplicity, Dockhorn et al.
    2023). weight: "eps" is the unweighted loss of Ho et al. (2020, eq. 14), the papers' own; "v" multiplies by
    min(1 / alpha_bar_t, 50), the squared error of the velocity (Salimans & Ho 2022): short trainings gain by it.
    flag: (n,) bool for a network that takes one.
    """
    if weight not in WEIGHTS:
        raise ValueError(f"weight must be one of {WEIGHTS}, got {weight!r}")
    if t.dim() != 2 or len(t) != len(x0) or noise.shape != (*t.shape, *x0.shape[1:]):
        raise ValueError(
            f"t must be (n, K) and noise (n, K, c, h, w) for x0 (n, c, h, w), got t {tuple(t.shape)}, noise "
            f"{tuple(noise.shape)}, x0 {tuple(x0.shape)}"
        )
    n, K = t.shape
    x0, labels = (value.repeat_interleave(K, dim=0) if K > 1 else value for value in (x0, labels))
    t, noise = t.flatten(), noise.flatten(0, 1)
    extra = {} if flag is None else {"flag": flag.repeat_interleave(K, dim=0)}
    error = (network(q_sample(x0, t, noise, schedule), t, labels, **extra) - noise).square().flatten(1).mean(1)
    if weight == "v":
        error = error * schedule.alpha_bar.to(device=t.device)[t].reciprocal().clamp(max=LARGEST_WEIGHT).to(error.dtype)
    return error.reshape(n, K).mean(dim=1)


def predict_x0(
    network: Callable[..., torch.Tensor],
    labels: torch.Tensor,
    schedule: Schedule,
    *,
    flag: torch.Tensor | bool | None = None,
    chunk: int = CHUNK,
    autocast: bool = False,
    clamp: tuple[float, float] | None = None,
) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """Return x_0_hat(x, t) for pictures of the given labels (n,), as the samplers want it (Ho et al. 2020, eq. 15).

    flag: one bool for all or (n,), for a network that takes it. chunk: pictures at a time. autocast: let the network
    compute in bfloat16. clamp: (low, high) of x_0_hat; right for clean pictures in [-1, 1], wrong for noised ones.
    A module is evaluated in its evaluation mode (no dropout) and left as it was.
    """
    if isinstance(flag, bool):
        flag = torch.full((len(labels),), flag, device=labels.device)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        if len(x) != len(labels):
            raise ValueError(f"{len(x)} pictures but {len(labels)} labels: give one label a picture")
        times = torch.tensor([t], device=x.device)
        parts = []
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=autocast):
            for start in range(0, len(x), chunk):
                rows = slice(start, start + chunk)
                extra = {} if flag is None else {"flag": flag[rows]}
                parts.append(network(x[rows], times, labels[rows], **extra))
        x0 = x0_from_epsilon(x, times, torch.cat(parts).to(x.dtype), schedule)
        return x0 if clamp is None else x0.clamp(*clamp)

    return _evaluating(network, predict) if isinstance(network, nn.Module) else predict


def _evaluating(
    network: nn.Module, predict: Callable[[torch.Tensor, int], torch.Tensor]
) -> Callable[[torch.Tensor, int], torch.Tensor]:
    def evaluated(x: torch.Tensor, t: int) -> torch.Tensor:
        training = network.training
        network.eval()
        try:
            return predict(x, t)
        finally:
            network.train(training)

    return evaluated
