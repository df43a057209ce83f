"""Inverting gradients: from what a client uploads after one step, or several, back to the inputs of its network.

Threat model (honest but curious): the server, or whoever reads the upload, knows the global weights, the code and the
sum of the per-record gradients of one step (or its difference of weights over the learning rate, after steps of SGD).
It has no record. For a linear layer with weights W (h, d) and bias b (h,) the gradient is dW = sum_r g_r x_r^T and
db = sum_r g_r over the records r of the batch, g_r the gradient at the layer's output:
- `single`: one record, x exactly (Phong et al. 2018, section 3; Geiping et al. 2020, proposition 3.1);
- `of_units`: dW_i / db_i for each unit, exact for a record that alone moves unit i, else a mixture of the batch;
- `separate`: part of x is one of a few known vectors (a time step, a label). The rows of dW span the batch's inputs
  when the batch is no larger than rank dW; the combinations whose known part fits are the records (derived here; the
  row space is that of Dimitrov et al. 2024, "SPEAR", who use the sparsity of ReLU instead);
- `optimise`: records whose gradient matches (Zhu et al. 2019, "Deep Leakage from Gradients"; Geiping et al. 2020,
  "Inverting Gradients").

A whole upload, where the server sees no single gradient but what several local steps add up to:
- `of_update`: the sum of the steps' gradients. The weights move between steps, so the g_r are not those of one batch;
  but dW of the first layer is still a sum of g_r x_r^T, now over the records of all steps, and the attacks above read
  it as one batch of them all (derived here). Only for SGD: Adam's update is no linear function of the gradients;
- `of_local_steps`: the upload as a function of the records, by running the steps, for `optimise` to match (Geiping et
  al. 2020, section 6).

Threat model (malicious server): it also chooses the weights. `plant` makes the first layer a row of bins (Fowl et al.
2022, "Robbing the Fed", section 3), `of_bins` reads the record that is alone in its bin.

`errors` and `correlations` compare what was found with the truth; the control is the same with another batch's records.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.stats import norm
from torch import nn

DISTANCES = ("l2", "cosine")
# A unit or bin whose bias gradient is smaller than this share of the largest one saw no record.
SILENT = 1e-6


def single(weight_grad: torch.Tensor, bias_grad: torch.Tensor) -> torch.Tensor:
    """Return the input (d,) of a linear layer behind the gradients dW (h, d) and db (h,) of one record.

    dW = db x^T has rank one; x is its least-squares solution dW^T db / |db|^2 over all units, which any factor on the
    gradient (a learning rate, a batch size, clipping) leaves alone. ValueError where db is 0: no record, or none that
    reached the layer.
    """
    weight, bias = _pair(weight_grad, bias_grad)
    power = float(bias @ bias)
    if power == 0:
        raise ValueError("the bias gradient is 0 in every unit: the batch is empty, or nothing reached the layer")
    return weight.T @ bias / power


def of_units(weight_grad: torch.Tensor, bias_grad: torch.Tensor) -> torch.Tensor:
    """Return dW_i / db_i of every unit that saw a record, (units, d): inputs, or mixtures of inputs."""
    weight, bias = _pair(weight_grad, bias_grad)
    return _ratios(weight, bias)


def separate(
    weight_grad: torch.Tensor, known: torch.Tensor, at: torch.Tensor, *, tolerance: float = 1e-3, floor: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (inputs (n, d), which candidate each is (n,)) behind the gradient dW (h, d) of a batch of several records.

    known: (candidates, k) vectors of which each record's input holds one in its coordinates `at` (k,). A combination of
    the rows of dW that equals a candidate there is a record: as many candidates as dW has rank are taken, those that
    fit best, each to a relative `tolerance`. Finds nothing in a batch that is larger than k or than the layer allows,
    or where two records share a candidate (one direction of the row space is then free). floor: singular values of dW
    up to it are rounding, as `rounding_size` of an upload.
    """
    weight = _matrix(weight_grad, "weight_grad")
    known, at = torch.as_tensor(known).double(), torch.as_tensor(at)
    if known.ndim != 2 or known.shape[1] != len(at) or int(at.max()) >= weight.shape[1]:
        raise ValueError(f"known must be (candidates, {len(at)}) for coordinates of an input of {weight.shape[1]}")
    _, sizes, rows = torch.linalg.svd(weight, full_matrices=False)
    if float(sizes[0]) == 0:
        raise ValueError("the weight gradient is 0: the batch is empty, or nothing reached the layer")
    # float32 gradients: what lies below is rounding. The rank is the size of the batch, or all there is.
    rank = int((sizes > max(float(sizes[0]) * 1e-6, floor)).sum())
    if rank >= min(weight.shape) or rank > len(at):
        return weight.new_zeros(0, weight.shape[1]), torch.zeros(0, dtype=torch.int64)
    basis = rows[:rank]
    part = basis[:, at]
    if float(torch.linalg.svdvals(part)[-1]) < 1e-6:
        return weight.new_zeros(0, weight.shape[1]), torch.zeros(0, dtype=torch.int64)
    weights = known @ torch.linalg.pinv(part)
    found = weights @ basis
    misfit = (found[:, at] - known).norm(dim=1) / known.norm(dim=1)
    hits = misfit.argsort()[:rank].sort().values
    hits = hits[misfit[hits] < tolerance]
    return found[hits], hits


def optimise(
    gradient: Callable[[torch.Tensor], torch.Tensor],
    seen: torch.Tensor,
    start: torch.Tensor,
    *,
    steps: int = 100,
    distance: str = "l2",
    lr: float | None = None,
) -> tuple[torch.Tensor, float]:
    """Return the records whose gradient matches `seen` best, of the shape of `start`, and the distance that is left.

    gradient(records): flat gradient (p,), differentiable in the records (create_graph=True); seen: (p,).
    distance: "l2" with L-BFGS (Zhu et al. 2019), scaled by |seen|^2, or "cosine" with Adam on signs (Geiping et al.
    2020, equation 4), which the size of the gradient does not change. The best records of all steps are returned.
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {DISTANCES}, got {distance!r}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps!r}")
    power = float(seen @ seen)
    if power == 0:
        raise ValueError("the gradient to match is 0: nothing to invert")
    records = start.detach().clone().requires_grad_(True)
    best, least = records.detach().clone(), float("inf")

    def loss() -> torch.Tensor:
        nonlocal best, least
        own = gradient(records)
        if distance == "l2":
            value = (own - seen).square().sum() / power
        else:
            value = 1 - nn.functional.cosine_similarity(own, seen, dim=0)
        if (left := float(value.detach())) < least:
            best, least = records.detach().clone(), left
        return value

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss()
        (records.grad,) = torch.autograd.grad(value, [records])
        if distance == "cosine":
            records.grad = records.grad.sign()
        return value

    if distance == "l2":
        optimiser = torch.optim.LBFGS([records], lr=lr or 1.0, max_iter=steps, line_search_fn="strong_wolfe",
                                      tolerance_grad=1e-12, tolerance_change=1e-14)
        optimiser.step(closure)
    else:
        optimiser = torch.optim.Adam([records], lr=lr or 0.1)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = (lr or 0.1) * (1 - step / steps)
            optimiser.step(closure)
    return best, least


def of_update(before: torch.Tensor, after: torch.Tensor, *, lr: float) -> torch.Tensor:
    """Return (before - after) / lr, of any shape: the sum of the gradients of all local steps of SGD with that rate.

    After one step it is that step's gradient. ValueError where the upload is no array of finite weights as `before`.
    """
    before, after = torch.as_tensor(before), torch.as_tensor(after)
    if before.shape != after.shape or not bool((before.isfinite() & after.isfinite()).all()):
        raise ValueError(f"before and after must be finite and of one shape, got {tuple(before.shape)} and "
                         f"{tuple(after.shape)}")
    if not lr > 0:
        raise ValueError(f"lr must be > 0, got {lr!r}")
    return (before.double() - after.double()) / lr


def rounding_size(weights: torch.Tensor, *, lr: float, steps: int) -> float:
    """Return about how large, in the spectral norm, the rounding of float32 weights (h, d) makes a wrong `of_update`.

    Every step rounds each weight w to 2^-24 |w|; independent errors of one size e have norm e (sqrt h + sqrt d).
    """
    weights = _matrix(weights, "weights")
    error = 2.0**-24 * float(weights.square().mean().sqrt()) * steps**0.5
    return error * sum(size**0.5 for size in weights.shape) / lr


def of_local_steps(
    gradient: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    weights: torch.Tensor,
    *,
    order: Sequence[slice | torch.Tensor],
    lr: float,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return records (n, d) -> what `of_update` gives after local SGD on them, (p,), for `optimise`.

    gradient(weights (p,), records (b, d)) -> (p,), differentiable in both; order: the rows of `records` that are the
    batch of each step, as the server supposes. One step: the gradient at `weights` itself.
    """
    if not len(order):
        raise ValueError("order is empty: give the batch of each local step, at least one")

    def update(records: torch.Tensor) -> torch.Tensor:
        total = gradient(weights, records[order[0]])
        for batch in order[1:]:
            total = total + gradient(weights - lr * total, records[batch])
        return total

    return update


@torch.no_grad()
def plant(
    first: nn.Linear, following: nn.Linear, direction: torch.Tensor, *, mean: float, sd: float, steep: float = 1.0
) -> None:
    """Overwrite a linear layer and the one behind it so that each unit of the first switches on at a quantile.

    Unit i computes steep * (direction . x - c_i), with c_i rising over the quantiles of N(mean, sd^2), the law of
    direction . x; the following layer reads all units alike, so that every record above c_i and c_{i+1} adds the same
    to both. Exact for ReLU and leaky ReLU; for smooth ones (SiLU) as far as `steep` makes them sharp.
    """
    if direction.shape != (first.in_features,):
        raise ValueError(f"direction must have shape ({first.in_features},), got {tuple(direction.shape)}")
    if not sd > 0 or not steep > 0:
        raise ValueError(f"sd and steep must be > 0, got {sd!r} and {steep!r}")
    if following.in_features != first.out_features:
        raise ValueError(f"the following layer reads {following.in_features} units, the first has {first.out_features}")
    ranks = np.arange(1, first.out_features + 1) / (first.out_features + 1)
    cuts = torch.as_tensor(norm.ppf(ranks, mean, sd)).to(first.weight)
    first.weight.copy_(steep * direction.to(first.weight).expand_as(first.weight))
    first.bias.copy_(-steep * cuts)
    following.weight.copy_(following.weight.mean(dim=1, keepdim=True).expand_as(following.weight))
    # A mean of random weights is nearly nothing: what it reads must not vanish.
    following.weight.add_(torch.where(following.weight < 0, -1.0, 1.0) / first.out_features)


def of_bins(weight_grad: torch.Tensor, bias_grad: torch.Tensor) -> torch.Tensor:
    """Return the content of every bin that saw a record, (bins, d), from the gradients of a layer made by `plant`.

    (dW_i - dW_{i+1}) / (db_i - db_{i+1}): a record alone between two cuts exactly, several as a mixture.
    """
    weight, bias = _pair(weight_grad, bias_grad)
    empty = weight.new_zeros(1, weight.shape[1])
    # Behind the last cut there is one more bin: its units switch off against nothing.
    weight, bias = torch.cat([weight, empty]), torch.cat([bias, bias.new_zeros(1)])
    return _ratios(weight[:-1] - weight[1:], bias[:-1] - bias[1:])


def errors(found: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """Return the relative error of the nearest found row to every true row, (n,) in [0, inf): |x - found| / |x|.

    found (m, d), truth (n, d). Nothing found counts as the guess 0, an error of 1; so does what is worse than that.
    """
    found, truth = _matrix(found, "found"), _matrix(truth, "truth")
    size = truth.norm(dim=1)
    if not bool((size > 0).all()):
        raise ValueError("a true row is 0 everywhere: its relative error is not defined")
    if not len(found):
        return np.ones(len(truth))
    return (torch.cdist(truth, found, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1) / size).clamp(
        max=1.0
    ).numpy()


def correlations(found: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """Return Pearson's correlation of row i of `found` with row i of `truth`, both (n, d), shape (n,) in [-1, 1].

    A constant row has none and counts as 0. Only for one guess a record: the best of many guesses correlates by chance.
    """
    found, truth = _matrix(found, "found"), _matrix(truth, "truth")
    if found.shape != truth.shape:
        raise ValueError(f"found and truth must have one shape, got {tuple(found.shape)} and {tuple(truth.shape)}")
    a, b = (part - part.mean(dim=1, keepdim=True) for part in (found, truth))
    size = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(size > 0, (a * b).sum(dim=1) / size.clamp(min=1e-300), torch.zeros_like(size)).numpy()


def _ratios(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    largest = float(bias.abs().max())
    heard = bias.abs() > SILENT * largest if largest > 0 else torch.zeros_like(bias, dtype=torch.bool)
    return weight[heard] / bias[heard, None]


def _pair(weight_grad: torch.Tensor, bias_grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = _matrix(weight_grad, "weight_grad"), torch.as_tensor(bias_grad).double()
    if bias.shape != (len(weight),) or not bool(bias.isfinite().all()):
        raise ValueError(f"bias_grad must be finite, of shape ({len(weight)},), got {tuple(bias.shape)}")
    return weight, bias


def _matrix(value: torch.Tensor, name: str) -> torch.Tensor:
    value = torch.as_tensor(value).detach().double()
    if value.ndim != 2 or not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be a finite matrix, got shape {tuple(value.shape)}")
    return value
