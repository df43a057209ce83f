"""What every SiloFuse notebook does: one table split over silos, trained methods from the cache, one set of scores.

The notebook chooses data set, scale, silos and recipes; this module keeps all methods on the same rows, the same
silos, the same number of synthetic rows and the same metrics, so that their records can be compared.

What is compared with what: resemblance and fidelity with held-out rows, utility by models tested on held-out rows,
associations with the training rows (fewer rows blur them). The ceiling is what real rows score: the training rows in
place of synthetic ones, and for associations the held-out rows, the noise level that no method can be asked to beat.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from feddiff.data import silos as columns
from feddiff.data import tables
from feddiff.data.silos import Silo
from feddiff.data.tables import Table
from feddiff.evaluation.association import association
from feddiff.experiments import cache
from feddiff.seeds import numpy_generator
from feddiff.systems import baselines_silos, gan_tables, silofuse, silofuse_joint, tabddpm
from feddiff.systems.silofuse import SiloFuseRun
from feddiff.systems.silofuse_config import SiloFuseConfig
from feddiff.systems.silofuse_parties import COORDINATOR, SiloClient

HOLD_OUT = 0.2
DATA_CODE = ("feddiff.data.tables", "feddiff.data.silos")
METHODS = (
    "silofuse", "latent_diff", "latent_diff_equal_reconstruction", "e2e", "e2e_distributed", "tab_ddpm", "gan_linear",
    "gan_conv", "tabsyn_like", "independent_clients", "independent_marginals",
)
# "latent_diff_equal_reconstruction": times the autoencoder steps of all silos together, tried in this order.
FACTORS = (2, 4, 8)
# Mean score over the columns by which its reconstruction may lie below that of the silos.
SLACK = 0.01


@dataclass(frozen=True, eq=False)
class Setting:
    """A table split into training and held-out rows, the columns of the training rows split over silos.

    silos: the training rows; rows: how many synthetic rows every method draws; identity: what the cache knows it by.
    """

    train: Table
    test: Table
    silos: tuple[Silo, ...]
    seed: int
    rows: int
    identity: str

    @property
    def columns(self) -> list[str]:
        """Columns in the table's order, in which every method returns them."""
        return list(self.train.kinds)

    @property
    def parts(self) -> list[list[str]]:
        """Columns of each silo."""
        return [list(silo.kinds) for silo in self.silos]

    @property
    def held_out(self) -> list[Silo]:
        """The silos' columns of the held-out rows."""
        return [Silo(silo.name, self.test.frame[list(silo.kinds)], dict(silo.kinds)) for silo in self.silos]


def loaded(dataset: str, *, ids: str = "keep", blanks: str = "drop") -> Table:
    """Return a table by name or path: one of the paper's nine sets under the paper's typing, or any other.

    ids: "keep" or "drop" the columns that name a record (the paper's sets); blanks: rows with a blank cell, see
    `data.silos.mend_blanks`.
    """
    if dataset in columns.REFERENCE:
        return columns.reference_table(dataset, ids=ids, blanks=blanks)
    return columns.mend_blanks(tables.load(dataset), blanks)


def split(
    dataset: str | Table,
    *,
    silos: int = 4,
    order: str = "contiguous",
    rows: int | None = None,
    seed: int,
    ids: str = "keep",
    blanks: str = "drop",
) -> Setting:
    """Hold 20 % of the rows out (stratified by a categorical target) and split the columns over `silos` silos.

    dataset: a name, a path, or a table at hand (then ids and blanks are as they are). rows: keep a random sample of
    so many rows (None: all). order: "contiguous", "random", or "adversarial", by the training rows' associations.
    """
    table = loaded(dataset, ids=ids, blanks=blanks) if isinstance(dataset, str) else dataset
    if rows is not None and len(table) > rows:
        table = table.select(np.sort(numpy_generator(seed, "rows").permutation(len(table))[:rows]))
    train, test = tables.split(table, HOLD_OUT, numpy_generator(seed, "split"))
    strength = association(train.frame, kinds=train.kinds) if order == "adversarial" else None
    parts = columns.split_columns(
        train, silos, order=order, generator=numpy_generator(seed, "silos"), association=strength
    )
    kinds = hashlib.sha256(str([table.target, *table.kinds.items()]).encode()).hexdigest()[:16]
    return Setting(
        train=train, test=test, silos=tuple(parts), seed=seed, rows=len(train),
        identity=f"{table.sha256} kinds={kinds} blanks={blanks} rows={len(table)} seed={seed} silos={silos} "
                 f"order={order}",
    )


def recipes(scale: str, **changes) -> dict[str, Any]:
    """Return method -> configuration at a scale; changes: those of the SiloFuse configuration.

    Every method trains for as many steps on batches of the same size as SiloFuse's busiest party (ae_steps +
    dm_steps), for GANs those of critic and generator together; the central autoencoders get the steps of all silos'
    together. The convolutional GAN keeps its own, smaller batch, with which its steps cost about what the others' do.
    """
    base = silofuse.ours(scale=scale, **changes)
    steps, batch = base.ae_steps + base.dm_steps, base.dm_batch
    own = {"tab_ddpm": tabddpm.ours(scale, steps=steps, batch=batch)}
    for network in ("linear", "conv"):
        narrow = dict(width=64) if scale == "quick" else {}
        whole = gan_tables.ours(network, scale, **narrow)
        whole = replace(whole, batch=min(batch, whole.batch) if network == "conv" else batch)
        own[f"gan_{network}"] = replace(whole, steps=max(1, steps // (1 + whole.critic_steps)))
    return {method: own.get(method, base) for method in METHODS}


def trained(setting: Setting, method: str, config: Any, *, progress: bool = True) -> Any:
    """Return the trained `method` (one of METHODS) with the setting's seed, from the cache where it is.

    config: SiloFuseConfig, but TabDDPMConfig for "tab_ddpm" and GANConfig for the GANs. What comes back has .sample;
    those with autoencoders have .reconstruction, those that send messages .channel.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    config, silos = replace(config, seed=setting.seed), list(setting.silos)
    quiet = dict(columns=setting.columns, progress=progress)
    if method == "independent_marginals":
        return baselines_silos.independent_marginals(silos, seed=setting.seed, columns=setting.columns)
    if method == "latent_diff_equal_reconstruction":
        return _equal_reconstruction(setting, config, progress)
    if method == "independent_clients":
        return _cached(
            setting, method, config, "feddiff.systems.baselines_silos",
            lambda: baselines_silos.independent_clients(silos, config, **quiet),
            lambda state: baselines_silos.independent_from_state(state, silos, config, columns=setting.columns),
        )
    if method in ("tab_ddpm", "gan_linear", "gan_conv"):
        module = tabddpm if method == "tab_ddpm" else gan_tables
        whole, kinds = setting.train.frame, setting.train.kinds
        return _cached(
            setting, method, config, module.__name__,
            lambda: getattr(module, method)(whole, config, kinds=kinds, progress=progress),
            lambda state: module.from_state(state, whole, config, kinds=kinds), central=True,
        )
    if method in ("e2e", "e2e_distributed"):
        joint = silofuse_joint.joint_config(config)
        return _cached(
            setting, method, config, "feddiff.systems.silofuse_joint",
            lambda: getattr(silofuse_joint, method)(silos, config, **quiet),
            lambda state: silofuse.from_state(state, silos, joint, columns=setting.columns),
        )
    central = method != "silofuse"
    if central:
        variant = "vae" if method == "tabsyn_like" else None
        silos, config = baselines_silos.central(silos, config, variant=variant)
    return _stacked(setting, silos, config, central, progress)


def _stacked(
    setting: Setting, silos: Sequence[Silo], config: SiloFuseConfig, central: bool, progress: bool,
    build: Callable[[], SiloFuseRun] | None = None,
) -> SiloFuseRun:
    def train() -> SiloFuseRun:
        return silofuse.train(silos, config, columns=setting.columns, progress=progress)

    return _cached(
        setting, "silofuse", config, "feddiff.systems.silofuse", build or train,
        lambda state: silofuse.from_state(state, silos, config, columns=setting.columns), central=central,
    )


def _cached(
    setting: Setting, method: str, config: Any, code: str, build: Callable[[], Any], restore: Callable[[dict], Any],
    *, central: bool = False,
) -> Any:
    """Return what was built, or what its state in the cache describes; a central method does not see the silos."""
    place = f"{setting.identity} central={central} columns={setting.columns if central else setting.parts}"
    kept = {"method": method, "type": type(config).__name__, **dataclasses.asdict(config)}
    made = []

    def state() -> dict:
        made.append(build())
        return made[0].to_state()

    entry = cache.cached(method.replace("_", "-"), kept, place, state, code=[code, *DATA_CODE])
    return made[0] if made else restore(entry.state)


def _equal_reconstruction(setting: Setting, config: SiloFuseConfig, progress: bool) -> SiloFuseRun:
    """Return LatentDiff with the fewest autoencoder steps of FACTORS whose reconstruction equals the silos' (SLACK).

    With the last of FACTORS where none does; `reconstructed` tells, and config.ae_steps of the run.
    """
    goal = reconstructed(trained(setting, "silofuse", config, progress=progress)) - SLACK
    run = trained(setting, "latent_diff", config, progress=progress)
    if reconstructed(run) >= goal:
        return run
    for factor in FACTORS:
        silos, longer = baselines_silos.central(
            setting.silos, config, ae_steps=config.ae_steps * len(setting.silos) * factor
        )
        run = silofuse.parties(silos, longer, columns=setting.columns)
        _fit_autoencoder(setting, run.clients[0], progress)
        if reconstructed(run) >= goal:
            break

    def finish() -> SiloFuseRun:
        """What `silofuse.train` does once the autoencoder is trained."""
        client = run.clients[0]
        message = run.channel.send(client.name, COORDINATOR, "upload", client.upload())
        run.coordinator.receive(client.name, message)
        run.coordinator.fit(progress=progress)
        run.warn()
        return run

    return _stacked(setting, silos, longer, True, progress, build=finish)


def _fit_autoencoder(setting: Setting, client: SiloClient, progress: bool) -> None:
    def state() -> dict:
        client.fit(progress=progress)
        return client.summary()

    kept = {name: value for name, value in dataclasses.asdict(client.config).items() if not name.startswith("dm_")}
    entry = cache.cached("silofuse-autoencoder", kept, f"{setting.identity} central=True", state,
                         code=["feddiff.systems.silofuse", *DATA_CODE])
    client.restore(entry.state)


def reconstructed(model: Any) -> float:
    """Return the mean score of the columns that autoencoders give back, 1 at best."""
    return float(model.reconstruction()["score"].mean())
