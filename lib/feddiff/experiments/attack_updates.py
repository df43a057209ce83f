"""What one client's whole update gives away: its records, from local steps that are summed; and audits by canaries.

Local steps are the system's own (PlainStep, or PrivateStep for clipping and noise), by SGD or by Adam, whose uploads
are what DP-Fed-FinDiff sends. `records` inverts the update as if it were a gradient; `audit_canaries` plants random
directions among the per-record gradients and asks the update which of them took part.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from feddiff.attacks import audit, source_inference
from feddiff.attacks import gradient_inversion as inversion
from feddiff.evaluation import membership
from feddiff.experiments import attack_gradients as gradients
from feddiff.experiments.records import Run
from feddiff.federation.client import Client, PlainStep, flat_weights, load_flat_weights
from feddiff.privacy import accounting
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.sampling import poisson_batch
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems.findiff import FinDiffRun

ATTACKS = ("ratio", "separation")
OPTIMISERS = ("sgd", "adam")
# Of plain SGD, in whose place the system has Adam with a rate of its own.
SGD_LR = 0.1
# Share of the canaries that a one-run audit names as in: those with the highest cosines. Fixed before any was seen.
GUESSED = 0.1


def update(
    model: FinDiffRun, batch: int, steps: int, *, optimiser: str, noise: float | None, seed: int, trial: int = 0
) -> gradients.Step:
    """Return an update of the first client, `steps` local steps on fresh batches of `batch`, read as one gradient.

    noise as in `attack_gradients.step`. One step of SGD: that step's gradient, but for the rounding of weights.
    """
    client, rows = model.federation.clients[0], model.prepared.rows[0]
    weights = model.federation.weights()
    load_flat_weights(client.network, weights)
    start = copy.deepcopy(client.network)
    descent, lr = _descent(client, optimiser)
    seen: list[torch.Tensor] = []
    chosen = []
    handle = gradients.first_layer(client.network).register_forward_hook(
        lambda _, args, __: seen.append(args[0].detach())
    )
    own = torch_generator(seed, "attack", "update noise", batch, steps, trial)
    step = PlainStep(client.network, batch) if noise is None else _private(client, batch, noise, own)
    order = numpy_generator(seed, "attack", "update", batch, steps, trial)
    draws = torch_generator(seed, "attack", "update draws", batch, steps, trial)
    for _ in range(steps):
        chosen.append(torch.from_numpy(np.sort(order.permutation(len(rows))[:batch])))
        step.gradient(client.draws(chosen[-1], draws), batch)
        descent.step()
    handle.remove()
    after = dict(client.network.named_parameters())
    summed = {name: inversion.of_update(p.detach(), after[name].detach(), lr=lr)
              for name, p in start.named_parameters() if p.requires_grad}
    floor = inversion.rounding_size(gradients.first_layer(start).weight, lr=lr, steps=steps)
    places = torch.cat(chosen)
    return gradients.Step(start, summed, torch.cat(seen), rows.codes[places], rows.numbers[places], floor)


def invert(
    run: Run, model: FinDiffRun, steps: Sequence[int], *, trials: dict[int, int], optimiser: str, noise: float | None,
    seed: int, batch: int = 1,
) -> dict[tuple[str, int], dict[str, float]]:
    """Record what the attacks find in updates of so many local steps; return (attack, steps) -> numbers.

    The metrics of `attack_gradients.attack` with "update_" before them, controls too; `trials` (at least 2) updates.
    """
    found = {}
    for count in steps:
        sent = [update(model, batch, count, optimiser=optimiser, noise=noise, seed=seed, trial=trial)
                for trial in range(max(2, trials.get(count, 2)))]
        for name in ATTACKS:
            found[name, count] = gradients.judged(model, name, sent)
            for metric, value in found[name, count].items():
                run.metric(f"update_{metric}", value, attack=name, local_steps=count, optimiser=optimiser,
                           noise=gradients.noise_name(noise))
    return found


def audit_canaries(
    run: Run, model: FinDiffRun, budgets: Sequence[str], *, number: int, updates: int, delta: float, seed: int
) -> dict[tuple[str, str], dict[str, float]]:
    """Record one-run audits of one update of the smallest client; return (budget, optimiser) -> numbers.

    It draws its records most often, so that sampling hides them least: the audit has the most power there.
    A canary is a record whose clipped gradient is C times a random direction; each is in by a fair coin, and drawn
    into batches like every record. Its score is the cosine of its direction with the update, both less the direction
    of an update that the auditor trains itself on the client's records. budgets: formal epsilon of the update
    (`upload_epsilon`), "inf": clipping alone. upload_epsilon_lower (Steinke et al. 2023, 95 %), _ceiling: the bound
    had every guess been right; _estimate: Andrew et al. 2024, no bound; canary_auc: chance is .5.
    """
    client, weights = min(model.federation.clients, key=lambda client: client.rows), model.federation.weights()
    generator = torch_generator(seed, "attack", "canaries")
    directions = source_inference.canaries(number, len(weights), generator)
    coins = torch.rand(number, generator=generator) < 0.5
    guesses, plan = max(1, round(GUESSED * number)), dict(sample_rate=client.sample_rate, steps=updates, delta=delta)
    ceiling = audit.one_run_epsilon(canaries=number, guesses=guesses, correct=guesses, delta=delta)
    found = {}
    for optimiser in OPTIMISERS:
        options = dict(updates=updates, optimiser=optimiser)
        known = _canary_update(client, weights, directions[:0], 0.0, seed=seed, stream="auditor", **options)
        seen = source_inference.residual(directions, known)
        for budget in budgets:
            sigma = 0.0 if budget == "inf" else accounting.noise_multiplier(target_epsilon=float(budget), **plan)
            sent = _canary_update(client, weights, directions[coins], sigma, seed=seed, stream="client", **options)
            scores = source_inference.cosines(seen, source_inference.residual(sent, known))
            right = int(coins[scores.argsort(kind="stable")[-guesses:].copy()].sum())
            inside, outside = scores[coins.numpy()], scores[~coins.numpy()]
            lower = audit.one_run_epsilon(canaries=number, guesses=guesses, correct=right, delta=delta)
            estimate = source_inference.one_shot_epsilon(inside, dimension=len(weights) - 1, delta=delta)
            numbers = {"upload_epsilon_lower": lower, "upload_epsilon_ceiling": ceiling,
                       "upload_epsilon_estimate": estimate.epsilon, "canary_auc": membership.auc(inside, outside)}
            if budget != "inf":
                numbers["upload_epsilon"] = accounting.epsilon(noise_multiplier=sigma, **plan)
            for metric, value in numbers.items():
                run.metric(metric, float(value), budget=budget, optimiser=optimiser)
            found[budget, optimiser] = numbers
    return found


def _canary_update(
    client: Client, weights: torch.Tensor, inside: torch.Tensor, sigma: float, *, updates: int, optimiser: str,
    seed: int, stream: str,
) -> torch.Tensor:
    """Return before - after (p,) of local steps of DP-SGD on the client's records and the canaries `inside` (n, p)."""
    load_flat_weights(client.network, weights)
    descent, _ = _descent(client, optimiser)
    batches, draws, noise = (torch_generator(seed, "attack", "canary", stream, name)
                             for name in ("batches", "draws", "noise"))
    B, q, parameters = client.training.batch_size, client.sample_rate, client.step_parameters
    step = _private(client, B, sigma, noise)
    for _ in range(updates):
        batch = poisson_batch(client.rows, q, batches)
        present = torch.rand(len(inside), generator=batches) < q
        step.gradient(client.draws(batch, draws), len(batch))
        # A canary's gradient is C times its direction: it is added to the clipped sum, and divided by B like it.
        added = inside[present].sum(0) * (client.training.clip_norm / B)
        for p, part in zip(parameters, added.split([p.numel() for p in parameters]), strict=True):
            p.grad.add_(part.view_as(p))
        descent.step()
    return weights - flat_weights(client.network)


def _private(client: Client, divisor: float, sigma: float, noise: torch.Generator) -> PrivateStep:
    return PrivateStep(client.network, clip_norm=client.training.clip_norm, noise_multiplier=sigma,
                       expected_batch=divisor, noise=GaussianNoise(noise))


def _descent(client: Client, optimiser: str) -> tuple[torch.optim.Optimizer, float]:
    """Return a new optimiser and its rate: SGD, or the client's own Adam in the middle of training."""
    if optimiser not in OPTIMISERS:
        raise ValueError(f"optimiser must be one of {OPTIMISERS}, got {optimiser!r}")
    if optimiser == "sgd":
        return torch.optim.SGD(client.step_parameters, lr=SGD_LR), SGD_LR
    lr = client.training.lr_at(client.training.total_steps // 2)
    return torch.optim.Adam(client.step_parameters, lr=lr), lr
