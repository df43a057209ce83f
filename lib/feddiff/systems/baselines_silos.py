"""Rivals and floors of SiloFuse: what a central party, or no party at all, makes of the same silos.

- latent_diff: SiloFuse with M = 1, all columns in one autoencoder (the paper's LatentDiff);
- tabsyn_like: the same with a variational autoencoder (after TabSyn, Zhang et al. 2024; theirs has transformers, one
  latent vector per column and an annealed KL weight; ours is SiloFuse's MLP with a constant one);
- independent_clients: every silo synthesises alone and the rows are joined by a random shuffle: each silo as good as
  SiloFuse's, nothing shared between silos. What SiloFuse has over it is what the shared latents carry;
- independent_marginals: every column alone: nothing joint at all.

The others have modules of their own: `tabddpm`, `gan_tables`, `silofuse_joint`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from feddiff import seeds
from feddiff.data.codec import LabelCodec, TableCodec
from feddiff.data.silos import Silo, align
from feddiff.systems import baselines_tables, silofuse
from feddiff.systems.baselines_tables import Release
from feddiff.systems.silofuse import SiloFuseRun
from feddiff.systems.silofuse_config import SiloFuseConfig
from feddiff.systems.table_rivals import check_rows, one_silo


def central(
    silos: Sequence[Silo], config: SiloFuseConfig, *, variant: str | None = None, ae_steps: int | None = None
) -> tuple[list[Silo], SiloFuseConfig]:
    """Return the one silo and the configuration of a central rival, as `silofuse.train` and `from_state` take them.

    ae_steps: of its only autoencoder; None gives it the steps of all M silos together (at one silo's steps a central
    autoencoder is undertrained, and any comparison with it is one of reconstruction). variant: None keeps the config's.
    """
    steps = config.ae_steps * len(silos) if ae_steps is None else ae_steps
    changed = replace(config, ae_steps=steps, variant=config.variant if variant is None else variant)
    return [one_silo(silos)], changed


def latent_diff(
    silos: Sequence[Silo],
    config: SiloFuseConfig,
    *,
    ae_steps: int | None = None,
    columns: Sequence[str] | None = None,
    progress: bool = True,
) -> SiloFuseRun:
    """Return SiloFuse on ONE silo that holds all columns; see `central` for ae_steps, `silofuse.train` for columns."""
    return silofuse.train(*central(silos, config, ae_steps=ae_steps), columns=columns, progress=progress)


def tabsyn_like(
    silos: Sequence[Silo],
    config: SiloFuseConfig,
    *,
    ae_steps: int | None = None,
    columns: Sequence[str] | None = None,
    progress: bool = True,
) -> SiloFuseRun:
    """Return `latent_diff` with a variational autoencoder of KL weight config.beta."""
    whole = central(silos, config, variant="vae", ae_steps=ae_steps)
    return silofuse.train(*whole, columns=columns, progress=progress)


@dataclass(eq=False)
class IndependentClients:
    """One SiloFuse of M = 1 per silo, `runs` by silo; `columns` is the order of the joined output."""

    runs: dict[str, SiloFuseRun]
    columns: list[str]

    def sample(self, rows: int, *, seed: int) -> pd.DataFrame:
        """Return `rows` synthetic rows: each silo's own, joined by a random shuffle."""
        rows, parts = check_rows(rows), []
        for name, run in self.runs.items():
            # A seed for each silo: equal noise in two silos would tie their rows together.
            part = run.sample(rows, seed=seeds.derive(seed, "independent clients", name))
            order = seeds.numpy_generator(seed, "independent clients", "shuffle", name).permutation(rows)
            parts.append(part.iloc[order].reset_index(drop=True))
        return pd.concat(parts, axis=1)[self.columns]

    def reconstruction(self) -> pd.DataFrame:
        """Return columns silo, column, kind, score, as `SiloFuseRun.reconstruction`."""
        return pd.concat([run.reconstruction() for run in self.runs.values()], ignore_index=True)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of training by silo; silos would train side by side."""
        return {name: sum(run.seconds.values()) for name, run in self.runs.items()}

    @property
    def parameters(self) -> dict[str, int]:
        """Trainable parameters by silo."""
        return {name: sum(run.parameters.values()) for name, run in self.runs.items()}

    def to_state(self) -> dict:
        """Return all that training made, as tensors and plain values (for a cache)."""
        return {"runs": {name: run.to_state() for name, run in self.runs.items()}}


def independent_clients(
    silos: Sequence[Silo], config: SiloFuseConfig, *, columns: Sequence[str] | None = None, progress: bool = True
) -> IndependentClients:
    """Return every silo trained alone, each with the autoencoder that SiloFuse over `silos` would give it.

    Each silo's diffusion model has the size and the steps of SiloFuse's only one: M times the compute, which favours
    this control.
    """
    order = silofuse.output_order(silos, columns)
    own = _alone(config, silos)
    runs = {silo.name: silofuse.train([silo], own[silo.name], progress=progress) for silo in align(silos)}
    return IndependentClients(runs, order)


def independent_from_state(
    state: dict, silos: Sequence[Silo], config: SiloFuseConfig, *, columns: Sequence[str] | None = None
) -> IndependentClients:
    """Return what `IndependentClients.to_state` described, on the same silos and configuration."""
    order, own = silofuse.output_order(silos, columns), _alone(config, silos)
    restored = {
        silo.name: silofuse.from_state(state["runs"][silo.name], [silo], own[silo.name]) for silo in align(silos)
    }
    return IndependentClients(restored, order)


@dataclass(frozen=True, eq=False)
class IndependentMarginals:
    """Histograms of all columns, and the sampler that draws each column alone."""

    release: Release

    def sample(self, rows: int, *, seed: int) -> pd.DataFrame:
        """Return `rows` synthetic rows whose columns are independent."""
        return self.release.sample(check_rows(rows), seeds.numpy_generator(seed, "independent marginals"))


def independent_marginals(
    silos: Sequence[Silo], *, seed: int, columns: Sequence[str] | None = None
) -> IndependentMarginals:
    """Return every column's own histogram (`baselines_tables.independent_marginals`, numbers in 50 quantile bins).

    seed: of the ranks inside ties. ValueError where no categorical column is free of missing values: the release
    counts one such column as its label, though nothing depends on it.
    """
    order, whole = silofuse.output_order(silos, columns), one_silo(silos)
    discrete = [name for name, kind in whole.kinds.items() if kind in ("categorical", "boolean")]
    free = [name for name in discrete if not whole.frame[name].isna().any()]
    if not free:
        raise ValueError("independent marginals need one categorical column without missing values; add one")
    others = [name for name in whole.kinds if name != free[0]]
    codec = TableCodec.fit(whole.frame, whole.kinds, columns=others, numerics="quantile-ties")
    label = LabelCodec.fit(whole.frame[free[0]])
    return IndependentMarginals(baselines_tables.independent_marginals([whole.frame[order]], codec, label, seed=seed))


def _alone(config: SiloFuseConfig, silos: Sequence[Silo]) -> dict[str, SiloFuseConfig]:
    """Return the configuration of each silo on its own, widths settled as among all of `silos`."""
    hidden = config.hidden_width(len(silos))
    return {
        silo.name: replace(
            config, latent=config.width(len(silo.kinds), len(silos)), latent_factor=1.0, hidden=hidden
        )
        for silo in silos
    }
