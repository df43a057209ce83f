"""The anonymity games on releases of DP-Fed-FinDiff and SiloFuse and on known answers, beside other metrics.

One table, four disjoint random parts: training rows, as many control rows (held out: no release saw them) and fresh
rows (a release that copies nobody), and a public sample, at most PUBLIC and a third of that. Every release has as many
rows as were trained on. The attacker of `SILO_GAMES` is the first silo: it holds its own true columns and the
published table.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from feddiff.attacks import anonymity, membership_blackbox as black, singling_out
from feddiff.attacks.copies import table_moved_back
from feddiff.attacks.games import Result, judge, mean_of
from feddiff.attacks.mixed_rows import mixed_rows
from feddiff.data import partitions, silos
from feddiff.data.codec import TableCodec
from feddiff.data.tables import Table
from feddiff.evaluation import closeness, membership
from feddiff.evaluation.columns import CONTINUOUS
from feddiff.evaluation.rates import excess, wilson
from feddiff.evaluation.resemblance import resemblance, resemblance_score
from feddiff.evaluation.statistics import Estimate
from feddiff.experiments import attack_membership, findiff_study, records, silofuse_study
from feddiff.seeds import numpy_generator

SHARE, PUBLIC = 0.3, 1_000
# Added as the first column where a table has no column that names a record.
RECORD = "record number"
KNOWN = ("copy", "copy_noised", "copy_moved", "permuted", "fresh")
NOISE, REDRAWN = 0.1, 0.1
SILO_GAMES = ("linkability-silos", "attribute-inference-silos")
GAMES = (*anonymity.GAMES, *SILO_GAMES)
# Rows asked about in the membership attacks on either side, and synthetic rows that the copy detector looks up.
MEMBERS, LOOKED_UP = 1_000, 2_000
# What a release may show and still pass: so much above .5 (shares, AUC) and above 0 (risks), and so much below 1 in the
# ratio of 5 % distances, which a few hundred rows do not tell more precisely.
MARGIN, RATIO_MARGIN = 0.05, 0.1
# Metrics whose ranking of the releases is compared.
RANKED = ("closer_to_train", "domias", *anonymity.GAMES)


@dataclass(frozen=True, eq=False)
class Parts:
    """Disjoint random parts of one table: train, control and fresh of equal size, and a smaller reference."""

    train: Table
    control: Table
    fresh: Table
    reference: Table
    seed: int

    @property
    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Training and control rows."""
        return self.train.frame, self.control.frame

    def without(self, columns: Sequence[str]) -> "Parts":
        """Return the same people without some columns."""
        names = ("train", "control", "fresh", "reference")
        return replace(self, **{name: silos.drop_ids(getattr(self, name), columns) for name in names})


def identified(dataset: str) -> tuple[Table, list[str]]:
    """Return a table with the columns that name a record, and their names; rows with a blank cell are left out.

    Where the table has none, RECORD is put in front: 1, 2, ... in the order of the file.
    """
    table = silofuse_study.loaded(dataset)
    if silos.IDS.get(table.name):
        return table, list(silos.IDS[table.name])
    if RECORD in table.kinds:
        raise ValueError(f"{table.name} has a column {RECORD!r} already; rename it")
    frame = table.frame.copy()
    frame.insert(0, RECORD, np.arange(1, len(frame) + 1))
    return replace(table, frame=frame, kinds={RECORD: "integer"} | table.kinds), [RECORD]


def parts(table: Table, *, rows: int | None, seed: int) -> Parts:
    """Draw the parts: at most `rows` training rows, at most SHARE of the table."""
    order, count = numpy_generator(seed, "anonymity").permutation(len(table)), int(SHARE * len(table))
    count = count if rows is None else min(rows, count)
    if count < 30:
        raise ValueError(f"{table.name} has {len(table)} rows; {math.ceil(30 / SHARE)} at least are needed")
    cuts = np.cumsum([0, count, count, count, min(PUBLIC, count // 3)])
    return Parts(*(table.select(order[low:high]) for low, high in zip(cuts[:-1], cuts[1:])), seed)


def federation(split: Parts, clients: int) -> findiff_study.Federation:
    """Deal the training rows to clients; the control rows are what is held out."""
    dealt = partitions.iid(len(split.train), clients, numpy_generator(split.seed, "partition"))
    return findiff_study.Federation(
        train=split.train, test=split.control, clients=tuple(split.train.select(part) for part in dealt),
        rows=len(split.train), seed=split.seed, identity=f"{_identity(split)} clients={clients}",
    )


def setting(split: Parts, count: int) -> silofuse_study.Setting:
    """Deal the columns to `count` silos in the table's order; the control rows are what is held out."""
    held = tuple(silos.split_columns(split.train, count))
    return silofuse_study.Setting(
        train=split.train, test=split.control, silos=held, seed=split.seed, rows=len(split.train),
        identity=f"{_identity(split)} silos={count}",
    )


def _identity(split: Parts) -> str:
    train = split.train
    return f"{train.sha256} anonymity kinds={sorted(train.kinds.items())} rows={len(train)} seed={split.seed}"


def public_codec(split: Parts) -> TableCodec:
    """Return a codec that knows no training row: quantiles of the reference rows, labels of all parts as a codebook."""
    everyone = pd.concat([part.frame for part in (split.train, split.control, split.fresh, split.reference)])
    return attack_membership.public_codec(replace(split.train, frame=everyone), split.reference)


def known(split: Parts, name: str) -> pd.DataFrame:
    """Return one of KNOWN, releases whose answer is known.

    copy: the training rows. copy_noised: with noise of NOISE standard deviations on numbers and a share REDRAWN of the
    labels drawn anew. copy_moved: every number one standard deviation up, every label the next in the alphabet.
    permuted: every column of the training rows shuffled on its own. fresh: the fresh real rows.
    """
    if name not in KNOWN:
        raise ValueError(f"name must be one of {KNOWN}, got {name!r}")
    frame, generator = split.train.frame, numpy_generator(split.seed, "release", name)
    if name in ("copy", "fresh"):
        return frame.copy() if name == "copy" else split.fresh.frame.copy()
    made = {}
    for column, kind in split.train.kinds.items():
        values = frame[column]
        if name == "permuted":
            made[column] = generator.permutation(values.to_numpy())
        elif kind in CONTINUOUS:
            noise = 1.0 if name == "copy_moved" else NOISE * generator.standard_normal(len(frame))
            moved = values.to_numpy(dtype=float) + noise * float(values.std())
            made[column] = np.round(moved).astype(np.int64) if kind == "integer" else moved
        elif name == "copy_moved":
            labels = sorted(values.unique(), key=str)
            made[column] = values.map(dict(zip(labels, [*labels[1:], labels[0]]))).to_numpy()
        else:
            anew = generator.random(len(frame)) < REDRAWN
            made[column] = np.where(anew, generator.permutation(values.to_numpy()), values.to_numpy())
    return pd.DataFrame(made)


def play(
    run: records.Run, split: Parts, synthetic: pd.DataFrame, silo: Sequence[str], *, release: str, predicates: int,
    targets: int,
) -> dict[str, Result]:
    """Play and record all GAMES on a release, and their alarm; return game -> result.

    silo: the columns of the attacker of SILO_GAMES. predicates: of singling out; targets: rows attacked in the others.
    attack_risk: the mean over the four games on the whole table. alarm: 1 if a game's lower end is above 0, at 95 % for
    all games together (Bonferroni); alarm_low: the highest such end.
    """
    rest = [name for name in split.train.kinds if name not in silo]
    streams = numpy_generator(split.seed, "attack", release).spawn(len(GAMES))
    tables, kinds = (split.train.frame, synthetic, split.control.frame), split.train.kinds
    width = min(3, len(kinds))
    options = [dict(generator=stream, kinds=kinds, attacks=targets) for stream in streams]
    for place in (0, 1):
        options[place] |= dict(attacks=predicates, columns=(1, width)[place])
    found = dict(zip(GAMES, (
        anonymity.singling_out(*tables, **options[0]),
        anonymity.singling_out(*tables, **options[1]),
        anonymity.linkability(*tables, **options[2]),
        anonymity.attribute_inference(*tables, **options[3]),
        anonymity.linkability(*tables, views=(list(silo), rest), **options[4]),
        anonymity.attribute_inference(*tables, known=list(silo), secrets=rest, **options[5]),
    )))
    for game, result in found.items():
        told = dict(
            risk=result.risk, risk_low=result.low, risk_high=result.high, half_width=half_width(result),
            attack_rate=result.attack_rate, control_rate=result.control_rate, baseline_rate=result.baseline_rate,
            too_weak=float(result.too_weak),
        )
        for name, value in told.items():
            run.metric(name, value, release=release, game=game)
    whole = mean_of([found[game] for game in anonymity.GAMES])
    for name in ("risk", "low", "high"):
        run.metric("attack_risk" if name == "risk" else f"attack_risk_{name}", whole[name], release=release)
    strict = [judge(game, result.counts, 1 - 0.05 / len(found)).low for game, result in found.items()]
    run.metric("alarm", float(max(strict) > 0), release=release)
    run.metric("alarm_low", max(strict), release=release)
    return found


def gained(result: Result) -> Estimate:
    """Return the risk and its interval before they are clipped to [0, 1]."""
    counts = result.counts
    return excess(
        wilson(counts.successes, counts.attacks), wilson(counts.control_successes, counts.control_attacks)
    )


def half_width(result: Result) -> float:
    """Return half the width of the risk's interval before clipping."""
    found = gained(result)
    return (found.high - found.low) / 2


def relative_change(
    run: records.Run, changed: Mapping[str, Result], base: Mapping[str, Result], *, versus: str, release: str
) -> Estimate:
    """Record by how many per cent the mean risk of one release differs from that of another, in this run.

    The interval holds the ratios r with |a - r b| <= sqrt(e_a^2 + r^2 e_b^2) (Fieller, 1954), a and b the means of the
    four games unclipped, e their mean half widths, which hold however the games depend on each other. Where b is not
    clearly above 0 there is no bounded interval: value and ends are recorded as None.
    """
    means = [np.mean([gained(told[game]).value for game in anonymity.GAMES]) for told in (changed, base)]
    errors = [np.mean([half_width(told[game]) for game in anonymity.GAMES]) for told in (changed, base)]
    (a, b), (ea, eb) = means, errors
    if b <= eb:
        found = Estimate(math.nan, math.nan, math.nan, 1)
    else:
        curve = b**2 - eb**2
        root = math.sqrt(max((a * b) ** 2 - curve * (a**2 - ea**2), 0.0))
        found = Estimate(*(100 * float(r - 1) for r in (a / b, (a * b - root) / curve, (a * b + root) / curve)), 1)
    for name, value in zip(("risk_change", "risk_change_low", "risk_change_high"), found[:3], strict=True):
        run.metric(name, None if math.isnan(value) else value, release=release, versus=versus,
                   reason="the risk that it is set against is not clearly above 0")
    return found


def others(run: records.Run, split: Parts, synthetic: pd.DataFrame, *, release: str) -> dict[str, float]:
    """Record and return what the copy detector and membership attacks say: closer_to_train, dcr_5_ratio, AUCs.

    closest, domias and ball see the release as it is; moved_back: closest, once the adversary has brought the release's
    marginals back to those of its public sample.
    """
    (train, control), kinds = split.tables, split.train.kinds
    seen = closeness.copy_detector(
        synthetic.iloc[:LOOKED_UP], train, control, generator=numpy_generator(split.seed, "copies"), kinds=kinds
    )
    ratio = seen.dcr_5 / seen.holdout_dcr_5 if seen.holdout_dcr_5 else math.nan
    told = {"closer_to_train": seen.closer_to_train, "dcr_5_ratio": ratio}
    for name, value in told.items():
        run.metric(name, None if math.isnan(value) else value, reason="held-out rows are copies too", release=release)
    count, public = min(MEMBERS, len(train)), split.reference.frame
    pool = pd.concat([train.iloc[:count], control.iloc[:count]], ignore_index=True)
    plain = black.compare(pool, synthetic, public, kinds=kinds)
    scores = {"closest": black.closest(plain), "domias": black.density_ratio(plain), "ball": black.ball(plain)}
    back = table_moved_back(synthetic, public, kinds)
    left = {name: kinds[name] for name in back}
    scores["moved_back"] = black.closest(black.compare(pool[list(left)], back, public[list(left)], kinds=left))
    for attack, found in scores.items():
        area = membership.auc_interval(found[:count], found[count:])
        for name, value in zip(("membership_auc", "membership_auc_low", "membership_auc_high"), area[:3], strict=True):
            run.metric(name, value, attack=attack, release=release)
        told[attack] = area.value
    return told


def verdicts(
    run: records.Run, told: Mapping[str, float], games: Mapping[str, Result], *, release: str
) -> dict[str, float]:
    """Record whether a release passes each metric (the margins; a risk also if its interval holds 0).

    Return every value, and "passes <metric>" as 0 or 1.
    """
    ratio = told["dcr_5_ratio"]
    passed = {"dcr": told["closer_to_train"] <= 0.5 + MARGIN and not ratio < 1 - RATIO_MARGIN}
    passed |= {name: told[name] <= 0.5 + MARGIN for name in ("closest", "domias", "ball", "moved_back")}
    passed |= {game: result.risk <= MARGIN or result.low == 0 for game, result in games.items()}
    for metric, value in passed.items():
        run.metric("passes", float(value), test=metric, release=release)
    return dict(told) | {game: result.risk for game, result in games.items()} | {
        f"passes {metric}": float(value) for metric, value in passed.items()
    }


def identifiers(
    run: records.Run, split: Parts, releases: Mapping[str, pd.DataFrame], ids: Sequence[str], *, kept: bool,
    predicates: int,
) -> dict[str, float]:
    """Record univariate singling out of releases with the columns `ids` kept or dropped; return release -> attack rate.

    ids_attack_rate, ids_control_rate, ids_risk with its interval, ids_share (share of the predicates about a column of
    `ids`), and, but for "fresh", ids_resemblance to the control rows (0..100).
    """
    found, place = {}, dict(ids="keep" if kept else "drop")
    (train, control), kinds = split.tables, split.train.kinds
    for release, synthetic in releases.items():
        draws = [numpy_generator(split.seed, "identifiers", release) for _ in range(2)]
        result = anonymity.singling_out(
            train, synthetic, control, generator=draws[0], attacks=predicates, columns=1, kinds=kinds
        )
        rows = mixed_rows(train, synthetic, control, kinds)
        about = np.array(rows.names)[singling_out.univariate(rows, draws[1], predicates).columns[:, 0]]
        told = dict(
            attack_rate=result.attack_rate, control_rate=result.control_rate, risk=result.risk, risk_low=result.low,
            risk_high=result.high, share=float(np.isin(about, list(ids)).mean()),
        )
        if release != "fresh":
            told["resemblance"] = resemblance_score(resemblance(control, synthetic, kinds=kinds, seed=split.seed))
        for name, value in told.items():
            run.metric(f"ids_{name}", value, release=release, **place)
        found[release] = result.attack_rate
    return found
