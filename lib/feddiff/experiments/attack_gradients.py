"""What one client's step of DP-Fed-FinDiff gives away: its records from its gradient.

Steps are the system's own (PlainStep, or PrivateStep for clipping and noise) on the system's loss and random draws, at
the global weights of a trained run; `true` are the network inputs of the batch, which a hook reads beside the attack.
The adversary is the server: it knows weights, codec, schedule and configuration.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from feddiff.attacks import gradient_inversion as inversion
from feddiff.diffusion.denoisers import sinusoid
from feddiff.diffusion.process import x0_from_epsilon, x0_from_velocity
from feddiff.experiments import records
from feddiff.federation.client import PlainStep, load_flat_weights
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems.findiff import FinDiffRun

# A number within a quarter of a standard deviation (the quantile codec makes them normal) counts as recovered.
WITHIN = 0.25
# Relative error of a network input that counts as recovered.
EXACT = 1e-2
ATTACKS = ("ratio", "separation", "bins")
# Makes SiLU a ReLU whose bend is narrower than the bins.
STEEP = 1e3


@dataclass(frozen=True, eq=False)
class Step:
    """What the server sees of a step or an update (gradient of each parameter by name), and the truth behind it.

    inputs (n, d_in) of the first layer, codes (n, m), numbers (n, k) of the batch's records; floor: singular values of
    the first layer's gradient up to it are rounding.
    """

    network: nn.Module
    gradients: dict[str, torch.Tensor]
    inputs: torch.Tensor
    codes: torch.Tensor
    numbers: torch.Tensor
    floor: float = 0.0


def step(
    run: FinDiffRun, batch: int, *, noise: float | None, seed: int, planted: bool = False, trial: int = 0
) -> Step:
    """Return one step of the run's first client on `batch` records drawn at random, at the run's weights.

    noise: None (no clipping, no noise), or the noise multiplier beside clipping to the run's C (0: clipping alone).
    planted: the server sends weights with bins in the first layer instead (a malicious one).
    """
    client, rows = run.federation.clients[0], run.prepared.rows[0]
    load_flat_weights(client.network, run.federation.weights())
    if planted:
        _plant(run, client.network)
    chosen = numpy_generator(seed, "attack", "batch", batch, trial).permutation(len(rows))[:batch]
    chosen = torch.from_numpy(np.sort(chosen))
    seen: list[torch.Tensor] = []
    handle = first_layer(client.network).register_forward_hook(lambda _, args, __: seen.append(args[0].detach()))
    loss = client.draws(chosen, torch_generator(seed, "attack", "draws", batch, trial))
    if noise is None:
        PlainStep(client.network, batch).gradient(loss, batch)
    else:
        own = GaussianNoise(torch_generator(seed, "attack", "noise", batch, trial))
        PrivateStep(client.network, clip_norm=run.config.C, noise_multiplier=noise, expected_batch=batch,
                    noise=own).gradient(loss, batch)
    handle.remove()
    gradients = {name: p.grad.detach().clone() for name, p in client.network.named_parameters() if p.requires_grad}
    return Step(copy.deepcopy(client.network), gradients, seen[0], rows.codes[chosen], rows.numbers[chosen])


def first_layer(network: nn.Module) -> nn.Linear:
    """Return the layer that reads x_t, the time features and the label; ValueError for other conditioning."""
    if network.conditioning != "features":
        raise ValueError(f"the study attacks conditioning='features', where one layer reads all, not "
                         f"{network.conditioning!r}")
    return network.body[0]


def inputs_found(run: FinDiffRun, seen: Step, attack: str) -> torch.Tensor:
    """Return the network inputs that an attack of ATTACKS finds in a step's gradient, (m, d_in).

    "ratio" the least-squares input of a batch of one and the ratios of all units; "separation" by the known features of
    time and label; "bins" of planted weights.
    """
    weight, bias = seen.gradients["body.0.weight"], seen.gradients["body.0.bias"]
    if attack == "separation":
        known, _, _ = features(run)
        at = torch.arange(run.head.space.dim, weight.shape[1])
        return inversion.separate(weight, known, at, tolerance=EXACT, floor=seen.floor)[0]
    if attack == "bins":
        return inversion.of_bins(weight, bias)
    if attack != "ratio":
        raise ValueError(f"attack must be one of {ATTACKS}, got {attack!r}")
    return torch.cat([inversion.single(weight, bias)[None], inversion.of_units(weight, bias)])


def features(run: FinDiffRun) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return all values that the features of (time, label) can have, (T * classes, k), with times and labels."""
    network, T = run.network, run.config.T
    times, labels = torch.arange(T).repeat_interleave(network.classes), torch.arange(network.classes).repeat(T)
    one_hot = nn.functional.one_hot(labels, network.classes).float() * network.label_scale
    return torch.cat([sinusoid(times, network.time_dim), one_hot], dim=1), times, labels


@torch.no_grad()
def records_found(run: FinDiffRun, seen: Step, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the codes (m, columns) and numbers (m, k) behind network inputs (m, d_in) found in a step.

    The input gives x_t, the time and the label. The noise in x_t comes off by the last layer: its gradient is
    sum_r delta_r h_r^T, the activations h_r follow from the inputs, so least squares gives delta_r, the error of the
    network's output, up to one factor for clipping. A code is the level whose error is negative; errors of numbers give
    what the network should have said, hence x_0.
    """
    dim, space, head = run.head.space.dim, run.head.space, run.head
    if not len(inputs):
        return torch.zeros(0, len(space.levels), dtype=torch.int64), torch.zeros(0, space.numbers)
    known, times, labels = features(run)
    place = torch.cdist(inputs[:, dim:].float(), known).argmin(dim=1)
    t, label, x = times[place], labels[place], inputs[:, :dim].float()
    network = seen.network
    hidden = network.body(torch.cat([x, known[place]], dim=1))
    out = network.output(hidden)
    weight = torch.cat([seen.gradients["output.weight"], seen.gradients["output.bias"][:, None]], dim=1).double()
    read = torch.cat([hidden, torch.ones(len(hidden), 1)], dim=1).double()
    # Guesses that rounding alone keeps apart are one guess, not two columns to solve for.
    delta = (weight @ torch.linalg.pinv(read, rtol=EXACT if seen.floor else None)).T
    chance = space.segments.probabilities(head._logits(out, x, t, label)).double()
    codes, up, down = [], torch.zeros(len(x)).double(), torch.zeros(len(x)).double()
    for error, p in zip(delta[:, : head.tokens].split(space.levels, 1), chance.split(space.levels, 1), strict=True):
        code = error.argmin(dim=1)
        codes.append(code)
        expected = p - nn.functional.one_hot(code, p.shape[1])
        up, down = up + (error * expected).sum(1), down + expected.square().sum(1)
    # delta = factor * (softmax - one-hot) in every categorical column, and 2 * factor * (output - target) in numbers
    factor = (up / down.clamp(min=1e-30))[:, None]
    target = out[:, head.tokens :].double() - delta[:, head.tokens :] / (2 * factor.clamp(min=1e-30))
    invert = x0_from_epsilon if head.prediction == "epsilon" else x0_from_velocity
    numbers = invert(x[:, dim - space.numbers :].double(), t, target, head.schedule)
    return torch.stack(codes, dim=1), numbers


def recovered(codes: torch.Tensor, numbers: torch.Tensor, seen: Step) -> np.ndarray:
    """Return the share of columns that the best of the found records has right, of every record of the batch, (n,)."""
    if not len(codes):
        return np.zeros(len(seen.codes))
    right = (codes[None] == seen.codes[:, None]).sum(2)
    right = right + ((numbers[None] - seen.numbers[:, None]).abs() < WITHIN).sum(2)
    return (right.amax(dim=1) / (seen.codes.shape[1] + seen.numbers.shape[1])).double().numpy()


def attack(
    run: records.Run, model: FinDiffRun, name: str, batches: Sequence[int], noises: Sequence[float | None], *,
    trials: int, seed: int,
) -> dict[tuple[int, str], dict[str, float]]:
    """Record what an attack finds in steps of each size and noise; return (batch, noise) -> numbers.

    input_error: relative error of the nearest input found, mean over records (1: nothing); inputs_recovered: share
    below EXACT. Not for planted weights, whose activations are too large to solve for the rest: records_recovered,
    share of records with every column right, and columns_right. Controls: the same against another batch's records.
    correlation (one guess at batch 1) likewise. Steps of `trials` batches each.
    """
    found = {}
    for batch in batches:
        for noise in noises:
            steps = [step(model, batch, noise=noise, seed=seed, planted=name == "bins", trial=trial)
                     for trial in range(trials)]
            found[batch, noise_name(noise)] = judged(model, name, steps)
            for metric, value in found[batch, noise_name(noise)].items():
                run.metric(metric, value, attack=name, batch=batch, noise=noise_name(noise))
    return found


def judged(model: FinDiffRun, name: str, steps: Sequence[Step]) -> dict[str, float]:
    """Return what an attack has right of several steps, and ("_control") of each next one's records; see `attack`."""
    guesses, numbers = [inputs_found(model, one, name) for one in steps], {}
    read = [] if name == "bins" else [records_found(model, *pair) for pair in zip(steps, guesses, strict=True)]
    for suffix, truth in (("", steps), ("_control", steps[1:] + steps[:1])):
        numbers |= {f"{key}{suffix}": value for key, value in _scores(name, guesses, read, truth).items()}
    return numbers


def _scores(
    name: str, guesses: Sequence[torch.Tensor], read: Sequence[tuple[torch.Tensor, torch.Tensor]],
    truth: Sequence[Step],
) -> dict[str, float]:
    """Return what guessed inputs, and the records read out of them (none for "bins"), have right of `truth`."""
    errors = np.concatenate([inversion.errors(guess, one.inputs) for guess, one in zip(guesses, truth, strict=True)])
    numbers = {"input_error": float(errors.mean()), "inputs_recovered": float((errors < EXACT).mean())}
    if read:
        right = np.concatenate([recovered(*found, true) for found, true in zip(read, truth, strict=True)])
        numbers |= {"columns_right": float(right.mean()), "records_recovered": float((right == 1).mean())}
    if name == "ratio" and len(truth[0].inputs) == 1:
        firsts, inputs = torch.stack([guess[0] for guess in guesses]), torch.cat([one.inputs for one in truth])
        numbers["correlation"] = float(inversion.correlations(firsts, inputs).mean())
    return numbers


def noise_name(noise: float | None) -> str:
    """Return the label of a noise multiplier: "none" is a step without clipping, "0" one with clipping alone."""
    return "none" if noise is None else f"{noise:g}"


@torch.no_grad()
def _plant(run: FinDiffRun, network: nn.Module) -> None:
    """Put bins over the direction of the numbers and tokens of x_t, whose law the server takes to be N(0, 1) each."""
    first, dim = first_layer(network), run.head.space.dim
    layers = [layer for layer in network.body if isinstance(layer, nn.Linear)] + [network.output]
    direction = torch.zeros(first.in_features)
    direction[:dim] = torch.randn(dim, generator=torch_generator(run.config.seed, "attack", "direction"))
    direction /= direction.norm()
    inversion.plant(first, layers[1], direction, mean=0.0, sd=1.0, steep=STEEP)

