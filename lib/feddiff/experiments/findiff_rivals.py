"""The rivals of DP-Fed-FinDiff on one federation: every method on the same rows, at the same budget, by one judge.

What differs is said with each: who sees rows (findiff_rivals_tables.TRUST), its settings, its seconds, what it spent.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from feddiff.data.tables import Table
from feddiff.experiments import cache, privacy_study, records
from feddiff.experiments import findiff_study as study
from feddiff.experiments.findiff_rivals_tables import TRUST, TUNED_ON
from feddiff.experiments.findiff_study import Federation
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.systems import copula, dp_gan, findiff, gan_tables, privbayes, tabddpm

PRIVATE = (
    "dp_marginals", "dp_given_label", "dp_copula", "privbayes", "privbayes_gaussian", "dp_gan", "paper", "ours",
    "centralised", "strongest", "strongest_start", "strongest_private",
)
# "strongest": the recipe whose denoiser starts at a private tree of marginals; "_start": that start without training,
# which tells what DP-SGD adds; "_private": with its codec inside epsilon too. "paper": the authors' parts.
DIFFUSION = ("paper", "ours", "centralised", "local", "strongest", "strongest_start", "strongest_private")
FREE = ("independent", "given_label", "copula", "gan_linear", "gan_conv", "tab_ddpm", "ours", "centralised")
HEADLINE = ("column_shapes", "pair_trends", "pair_trends_quantile", "roc_auc")
# A column of thousands of levels is a logit, a cell and a pixel for each: such tables get fewer rows, and no pictures.
WIDE_ROWS, WIDE_RELEASE = 4_000, 1_000


@dataclass(frozen=True, eq=False)
class Drawn:
    """Synthetic rows of a method, its privacy statement (None: no DP), numbers about its settings, and seconds."""

    frame: pd.DataFrame
    privacy: dict[str, Any] | None
    settings: dict[str, float]
    seconds: float


def is_wide(table: Table) -> bool:
    """Say whether the categorical columns have more than study.WIDE levels together."""
    return sum(table.frame[c].nunique() for c in table.features if table.kinds[c] == "categorical") > study.WIDE


def split(table: Table, *, clients: int, seed: int, rows: int, max_rows: int | None) -> Federation:
    """Return `findiff_study.split`, wide tables cut to WIDE_ROWS rows and WIDE_RELEASE synthetic ones."""
    if is_wide(table):
        rows, max_rows = min(rows, WIDE_RELEASE), min(max_rows or WIDE_ROWS, WIDE_ROWS)
    return study.split(table, clients=clients, seed=seed, rows=rows, max_rows=max_rows)


def methods(setting: Federation, epsilon: float | None, leave_out: Sequence[str] = ()) -> list[str]:
    """Return who competes at a budget (None: without DP): FREE or PRIVATE.

    Wide tables go without convolutions, tables without public bounds without "strongest_private".
    """
    out = set(leave_out) | ({"gan_conv"} if is_wide(setting.train) else set())
    out |= {"strongest_private"} if knowledge(setting) is None else set()
    return [m for m in (FREE if epsilon is None else PRIVATE) if m not in out]


def knowledge(setting: Federation) -> findiff.PublicKnowledge | None:
    """Return the public bounds and labels of the setting's table; None where no codebook gives bounds of its numbers.

    The labels of all rows, held-out ones too, stand in for the codebook's.
    """
    if setting.train.name not in privacy_study.BOUNDS:
        return None
    every = replace(setting.train, frame=pd.concat([setting.train.frame, setting.test.frame], ignore_index=True))
    return findiff.PublicKnowledge(
        bounds=privacy_study.public_bounds(setting.train), vocabulary=privacy_study.vocabulary(every)
    )


def view(setting: Federation, method: str, client: int | None = None) -> Federation:
    """Return the federation of a diffusion control: "centralised", one party with all rows; "local", one client's."""
    if method == "centralised":
        return replace(setting, clients=(setting.train,), identity=f"{setting.identity} pooled")
    if method == "local":
        own = setting.clients[client]
        return replace(setting, clients=(own,), identity=f"{setting.identity} client {client} alone")
    return setting


def release(
    setting: Federation, method: str, *, scale: str, epsilon: float | None = None, delta: float = 1e-5,
    client: int | None = None, changes: dict[str, dict] | None = None, progress: bool = False,
) -> Drawn:
    """Return what `method` (of TRUST) releases of the setting's training rows, at `epsilon` or without DP (None).

    client: whose rows "local" has. changes: method -> changes of its settings at this scale ("diffusion": of all
    diffusion models; "diffusion_without_dp": of those without DP besides, whose recipe has most rounds).
    """
    if method not in TRUST or (method == "local") != (client is not None):
        raise ValueError(f"method must be one of {', '.join(TRUST)}, and only 'local' has a client, got {method!r}")
    own = (changes or {}).get("diffusion" if method in DIFFUSION else method, {})
    if method in DIFFUSION and epsilon is None:
        own = own | (changes or {}).get("diffusion_without_dp", {})
    begun, private, seconds = time.perf_counter(), epsilon is not None, None
    if method in study.FREE or method in study.PRIVATE:
        frame, statement = study.floor(setting, method, epsilon=epsilon, delta=delta)
        return Drawn(frame, statement, {"rows_seen": len(setting.train)}, time.perf_counter() - begun)
    if method in ("copula", "dp_copula"):
        frames, budget = [c.frame for c in setting.clients], dict(epsilon=epsilon, delta=delta)
        model = copula.copula(frames, setting.train.kinds, label=setting.target, seed=setting.seed, **budget)
        known = {"bytes_sent": model.nbytes}
    elif method in ("privbayes", "privbayes_gaussian"):
        noise = "laplace" if method == "privbayes" else "gaussian"
        config = privbayes.PrivBayesConfig(epsilon=epsilon, delta=delta, noise=noise, seed=setting.seed, **own)
        model = privbayes.privbayes(setting.train.frame, config, kinds=setting.train.kinds, first=setting.target)
        known = {"noise_std": model.settings["noise"] * (2**0.5 if noise == "laplace" else 1)}
    elif method in ("gan_linear", "gan_conv", "tab_ddpm", "dp_gan"):
        model, seconds = _network(setting, method, _recipe(method, scale, epsilon, delta, own), progress)
        known = {"training_steps": model.settings["steps"] * model.settings.get("critic_steps", 1)}
        if private:
            known |= {"noise_multiplier": model.settings["noise_multiplier"]}
    else:
        return _diffusion(setting, method, epsilon, delta, scale, client, own, progress)
    known |= {"rows_seen": len(setting.train), "parameters": model.settings["parameters"]}
    seconds = time.perf_counter() - begun if seconds is None else seconds
    return Drawn(model.sample(setting.rows, seed=setting.seed), model.privacy if private else None, known, seconds)


def _recipe(method: str, scale: str, epsilon: float | None, delta: float, changes: dict) -> Any:
    if method == "dp_gan":
        return dp_gan.ours(epsilon=epsilon, scale=scale, delta=delta, **changes)
    if method == "tab_ddpm":
        return tabddpm.ours(scale, **changes)
    return gan_tables.ours(method.removeprefix("gan_"), scale, **changes)


def _network(setting: Federation, method: str, config: Any, progress: bool) -> tuple[Any, float]:
    """Return a central network of the pooled rows and the seconds of its training, from the cache where it is."""
    module = {"dp_gan": dp_gan, "tab_ddpm": tabddpm}.get(method, gan_tables)
    config, frame, kinds = replace(config, seed=setting.seed), setting.train.frame, setting.train.kinds
    kept = {"method": method, "type": type(config).__name__, **asdict(config)}
    entry = cache.cached(
        method.replace("_", "-"), kept, f"{setting.identity} pooled",
        lambda: getattr(module, method)(frame, config, kinds=kinds, progress=progress).to_state(),
        code=[module.__name__, *study.SPLIT_CODE],
    )
    return module.from_state(entry.state, frame, config, kinds=kinds), entry.seconds


def _diffusion_recipe(method: str, scale: str, epsilon: float | None, delta: float, changes: dict) -> Any:
    if method == "paper":
        return findiff.paper(epsilon=epsilon, scale=scale, delta=delta, **changes)
    if method in ("strongest", "strongest_private"):
        config = findiff.strongest(epsilon=epsilon, scale=scale, delta=delta, **changes)
        if method == "strongest":
            return config
        # What the codec takes comes from the marginals' share.
        left = config.prior_share - config.preprocessing_share
        return replace(config, preprocessing="private", prior_share=left)
    if method == "strongest_start":
        other = {name: value for name, value in changes.items() if name not in ("R", "S", "lr", "ema")}
        return findiff.strongest_start(epsilon=epsilon, scale=scale, delta=delta, **other)
    return findiff.ours(epsilon=epsilon, scale=scale, delta=delta, **changes)


def _diffusion(
    setting: Federation, method: str, epsilon: float | None, delta: float, scale: str, client: int | None,
    changes: dict, progress: bool,
) -> Drawn:
    part = view(setting, method, client)
    config = _diffusion_recipe(method, scale, epsilon, delta, changes)
    if method == "centralised":
        # As many rows a step as all clients together have: else the curator's noise would be one client's, for a sum
        # over as few rows, and the trust that it enjoys would buy nothing.
        config = replace(config, B=config.B * len(setting.clients))
    public = knowledge(setting) if method == "strongest_private" else None
    model, seconds = study.timed(part, config, public=public, progress=progress)
    known = {
        "rows_seen": sum(len(rows) for rows in part.clients), "training_steps": config.R * config.S,
        "parameters": sum(p.numel() for p in model.network.parameters() if p.requires_grad),
        "bytes_sent": model.nbytes,
    }
    if epsilon is not None:
        known["noise_multiplier"] = max(model.prepared.noise_multipliers)
    frame = model.sample(setting.rows, seed=setting.seed)
    return Drawn(frame, model.privacy if epsilon is not None else None, known, seconds)


def compete(
    run: records.Run, setting: Federation, method: str, *, epsilon: float | None = None, client: int | None = None,
    classifiers: str = "boosting", **how,
) -> dict[str, float]:
    """Release, judge and record one method; return its headline numbers and what the ledger says it spent.

    how: scale, delta, changes and progress of `release`. The budget is checked on the statement that the ledger wrote:
    ValueError when a method spent more than epsilon.
    """
    drawn = release(setting, method, epsilon=epsilon, client=client, **how)
    labels = dict(method=method, epsilon="inf" if epsilon is None else epsilon)
    labels |= {} if client is None else {"client": client}
    found = study.judge(run, setting, drawn.frame, classifiers=classifiers, copies=False, **labels)
    for name, value in drawn.settings.items():
        run.metric(name, value, **labels)
    run.metric("training_seconds", drawn.seconds, **labels)
    if epsilon is None:
        return found
    spent = epsilon_of(drawn.privacy)
    if not spent <= epsilon * (1 + 1e-9):
        raise ValueError(f"{method} spent epsilon {spent:.6g}, more than its budget {epsilon:g}")
    run.metric("spent_epsilon", spent, **labels)
    run.privacy(drawn.privacy, **labels)
    return found | {"spent_epsilon": spent}


def disclose(run: records.Run) -> None:
    """Note down on which tables the methods' settings were chosen, which lies outside every epsilon."""
    for method, where in TUNED_ON.items():
        run.note(f"settings of {method} from: {where}")


def epsilon_of(statement: dict[str, Any]) -> float:
    """Return the epsilon of a statement's events, composed anew by a ledger of its own."""
    ledger = PrivacyLedger(
        clients=list(statement["clients"]), delta=statement["delta"], adjacency=statement["adjacency"],
    )
    spend = {"sgm": ledger.spend_sgm, "gaussian": ledger.spend_gaussian, "pure": ledger.spend_pure}
    for client, told in statement["clients"].items():
        for event in told["events"]:
            known = {"noise_multiplier" if event["kind"] == "sgm" else "noise_over_sensitivity": event.get("noise")}
            if event["kind"] == "sgm":
                known |= {name: event[name] for name in ("sample_rate", "steps")}
            else:
                known = {"epsilon": event["epsilon"]} if event["kind"] == "pure" else known
                known |= {"what": event["what"]}
            spend[event["kind"]](client, **known)
    return ledger.epsilon()


def alone(
    run: records.Run, setting: Federation, *, clients: int, epsilon: float | None = None, **how
) -> dict[str, float]:
    """Judge the first `clients` clients, each on its own, and record their mean as "local"; return it.

    A client alone keeps its own rows and the horizon of the federation; what its table is worth is what the same
    held-out rows of all clients say.
    """
    if not 1 <= clients <= len(setting.clients):
        raise ValueError(f"clients must lie between 1 and {len(setting.clients)}, got {clients}")
    every = [compete(run, setting, "local", epsilon=epsilon, client=k, **how) for k in range(clients)]
    labels = dict(method="local", epsilon="inf" if epsilon is None else epsilon)
    found = {name: float(np.mean([one[name] for one in every])) for name in HEADLINE}
    for name, value in found.items():
        run.metric(name, value, **labels | ({"classifier": "boosting"} if name == "roc_auc" else {}))
    run.metric("rows_seen", float(np.mean([len(rows) for rows in setting.clients[:clients]])), **labels)
    return found
