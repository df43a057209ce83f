"""What every DP-Fed-FinDiff notebook does: a split federation of a table, trained runs from the cache, one judge.

The notebook chooses data set, scale, recipes and budgets; this module keeps all of them on the same split, the same
synthetic row count and the same metrics, so that their records can be compared.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from feddiff.attacks import anonymity
from feddiff.data import partitions, tables
from feddiff.data.codec import LabelCodec, TableCodec
from feddiff.data.tables import Table
from feddiff.evaluation import closeness, fidelity
from feddiff.evaluation.utility import FINDIFF_FIVE, utility
from feddiff.experiments import cache, records
from feddiff.seeds import numpy_generator
from feddiff.systems import baselines_tables as floors
from feddiff.systems import findiff

HOLD_OUT = 0.2
# Columns with thousands of levels cost a logit each: such tables are cut to fewer rows, hence fewer levels.
WIDE, WIDE_ROWS = 1000, 10_000
CODE = ("feddiff.systems.findiff",)
SPLIT_CODE = ("feddiff.data.tables", "feddiff.data.partitions")


@dataclass(frozen=True, eq=False)
class Federation:
    """A table split into training and held-out rows, the training rows split over clients.

    rows: how many synthetic rows every method draws. identity: what the cache knows the split by.
    """

    train: Table
    test: Table
    clients: tuple[Table, ...]
    rows: int
    seed: int
    identity: str

    @property
    def target(self) -> str:
        """The label column, which the utility metrics predict."""
        return self.train.target


def split(
    table: Table,
    *,
    clients: int,
    seed: int,
    partition: str = "iid",
    rows: int | None = None,
    max_rows: int | None = None,
) -> Federation:
    """Split a table: 20 % of the rows held out (stratified), the rest over the clients.

    partition: "iid", or the name of a categorical column whose categories are spread over the clients. rows: synthetic
    rows for every method (default: as many as training rows). max_rows: keep a random sample of the table (of at most
    WIDE_ROWS where a column has more than WIDE levels); None keeps all.
    """
    if table.target is None:
        raise ValueError(f"{table.name} has no target: name its label column, which the utility metrics predict")
    wide = any(table.kinds[c] == "categorical" and table.frame[c].nunique() > WIDE for c in table.features)
    if max_rows is not None and wide:
        max_rows = min(max_rows, WIDE_ROWS)
    if max_rows is not None and len(table) > max_rows:
        table = table.select(np.sort(numpy_generator(seed, "rows").permutation(len(table))[:max_rows]))
    train, test = tables.split(table, HOLD_OUT, numpy_generator(seed, "split"))
    if partition == "iid":
        parts = partitions.iid(len(train), clients, numpy_generator(seed, "partition"))
    elif partition in train.frame.columns:
        parts = partitions.by_category(train.frame[partition], clients)
    else:
        raise ValueError(f"partition must be 'iid' or a column of {table.name}, got {partition!r}")
    members = tuple(train.select(part) for part in parts)
    kinds = hashlib.sha256(str([table.target, *table.kinds.items()]).encode()).hexdigest()[:16]
    identity = f"{table.sha256} kinds={kinds} rows={len(table)} seed={seed} clients={clients} partition={partition}"
    return Federation(train=train, test=test, clients=members, rows=rows or len(train), seed=seed, identity=identity)


def trained(
    setting: Federation, config: findiff.FinDiffConfig, *, public: findiff.Public = None, progress: bool = True
) -> findiff.FinDiffRun:
    """Return the run of `config` with the setting's seed, from the cache where it was trained before."""
    return timed(setting, config, public=public, progress=progress)[0]


def timed(
    setting: Federation, config: findiff.FinDiffConfig, *, public: findiff.Public = None, progress: bool = True
) -> tuple[findiff.FinDiffRun, float]:
    """Return `trained` and the seconds that the training took, when it was trained."""
    config = replace(config, seed=setting.seed)
    known = public.to_json() if isinstance(public, TableCodec) else repr(public)
    entry = cache.cached(
        "findiff",
        config,
        f"{setting.identity} public={hashlib.sha256(known.encode()).hexdigest()[:16]}",
        lambda: findiff.train(setting.clients, config, public=public, progress=progress).to_state(),
        code=[*CODE, *SPLIT_CODE],
    )
    return findiff.from_state(entry.state, setting.clients, config, public=public), entry.seconds


def judge(
    run: records.Run,
    setting: Federation,
    synthetic: pd.DataFrame,
    *,
    classifiers: str | Sequence[str] = "boosting",
    copies: bool = True,
    **labels,
) -> dict[str, float]:
    """Record fidelity, utility and copies of a synthetic table on the held-out rows; return the headline numbers.

    classifiers: "boosting", or "all" (the five of FinDiff, whose mean is recorded as "mean_of_five", and boosting).
    """
    kinds, test = setting.train.kinds, setting.test.frame
    scores = {
        "column_shapes": fidelity.column_shapes(test, synthetic, kinds=kinds),
        "pair_trends": fidelity.pair_trends(test, synthetic, kinds=kinds),
        "pair_trends_quantile": fidelity.pair_trends_quantile(test, synthetic, kinds=kinds),
    }
    for name, value in scores.items():
        run.metric(name, value, **labels)
    judged = utility(
        synthetic, test, target=setting.target, kinds=kinds, seed=setting.seed, classifiers=classifiers
    ).set_index("classifier")[["accuracy", "balanced_accuracy", "roc_auc"]]
    if set(FINDIFF_FIVE) <= set(judged.index):
        judged.loc["mean_of_five"] = judged.loc[list(FINDIFF_FIVE)].mean()
    for classifier, row in judged.iterrows():
        for name, value in row.items():
            run.metric(name, float(value), classifier=classifier.replace(" ", "_"), **labels)
    if copies:
        report = closeness.copy_detector(
            synthetic.iloc[: len(test)],
            setting.train.frame,
            test,
            generator=numpy_generator(setting.seed, "copies"),
            kinds=kinds,
        )
        run.metric("copy_share", report.exact_copies, **labels)
        run.metric("closer_to_train", report.closer_to_train, **labels)
    return scores | {"roc_auc": float(judged.loc["boosting", "roc_auc"])}


def attack(run: records.Run, setting: Federation, synthetic: pd.DataFrame, *, attacks: int, **labels) -> pd.DataFrame:
    """Record the risk of every anonymity game (singling out, linkability, attribute inference), and their mean.

    The control are the held-out rows, which no model saw; `attack_risk` is the mean over games.
    """
    games = anonymity.attack_risk(
        setting.train.frame,
        synthetic,
        setting.test.frame,
        generator=numpy_generator(setting.seed, "attack"),
        attacks=attacks,
        kinds=setting.train.kinds,
    )
    for row in games.to_dict("records"):
        name = "attack_risk" if row["game"] == "mean" else f"{row['game'].replace('-', '_')}_risk"
        run.metric(name, row["risk"], **labels)
    return games


def codecs(setting: Federation) -> tuple[TableCodec, LabelCodec]:
    """Return the codecs that floors and diffusion share: fitted on the pooled training rows, outside epsilon."""
    frame = setting.train.frame
    codec = TableCodec.fit(frame, setting.train.kinds, columns=setting.train.features, numerics="quantile-ties")
    return codec, LabelCodec.fit(frame[setting.target])


FREE: dict[str, Callable] = {
    "independent": floors.independent_marginals,
    "given_label": floors.marginals_given_label,
}
PRIVATE: dict[str, Callable] = {
    "dp_marginals": floors.dp_marginals,
    "dp_given_label": floors.dp_marginals_given_label,
}


def floor(
    setting: Federation, method: str, *, epsilon: float | None = None, delta: float = 1e-5
) -> tuple[pd.DataFrame, dict | None]:
    """Return the synthetic rows of a histogram floor and its privacy statement (None: not private).

    method: "independent", "given_label", or with an epsilon "dp_marginals", "dp_given_label".
    """
    frames = [client.frame for client in setting.clients]
    codec, label_codec = codecs(setting)
    if method in FREE:
        release = FREE[method](frames, codec, label_codec, seed=setting.seed)
    elif method in PRIVATE and epsilon is not None:
        release = PRIVATE[method](frames, codec, label_codec, epsilon=epsilon, delta=delta, seed=setting.seed)
    else:
        raise ValueError(f"method must be one of {[*FREE]}, or with an epsilon {[*PRIVATE]}, got {method!r}")
    return release.sample(setting.rows, numpy_generator(setting.seed, "sampling", method)), release.privacy
