"""The three systems on one scale: the same persons, what a system shows of them, and three measures of leakage each.

A person is a small grey picture: an image to PFDM, a row of pixels and a class to DP-Fed-FinDiff and SiloFuse (each
silo has a band of the picture's rows). Persons come in slots of two of one class, and a fair coin of each slot says who
takes part: labels and numbers of rows tell nothing, and neighbours differ in one person replaced by another, for every
system.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from feddiff.attacks import anonymity, audit, membership_blackbox as black
from feddiff.attacks.games import Counts, Result, judge
from feddiff.data import images
from feddiff.data.images import ImageSet
from feddiff.data.tables import Table
from feddiff.evaluation import membership
from feddiff.evaluation.rates import clopper_pearson
from feddiff.evaluation.utility import utility
from feddiff.experiments import records
from feddiff.seeds import numpy_generator

DELTA = 1e-5
CONFIDENCE = 0.95
RATE = 0.01
TARGET = "class"
# Shares of the slots that an audit guesses, surest first; fixed before any score was seen.
GUESSED = (0.1, 0.5, 1.0)
JUDGE = "random forest"
# What is read off at matched utility.
LEAKAGE = ("epsilon_lower", "tpr_at_1_percent", "anonymity_risk")


@dataclass(frozen=True, eq=False)
class Persons:
    """Slots: `members` took part, `others` (n each, slot by slot of the same class) did not.

    coins: bool (n,), whether a slot's first person took part. parts: slots of each client. reference: public persons,
    test: those that utility is judged on; both disjoint from the slots.
    """

    members: ImageSet
    others: ImageSet
    coins: np.ndarray
    parts: tuple[np.ndarray, ...]
    reference: ImageSet
    test: ImageSet
    seed: int

    def __len__(self) -> int:
        return len(self.coins)

    @property
    def frame(self) -> pd.DataFrame:
        """All persons of the slots as rows: members, then the others."""
        return pd.concat([table(self.members).frame, table(self.others).frame], ignore_index=True)

    @property
    def identity(self) -> str:
        """What the cache knows the members and their order by."""
        shape = "x".join(map(str, self.members.images.shape))
        return f"{self.members.sha256} slots {shape} reference={len(self.reference)} seed={self.seed}"


@dataclass(frozen=True, eq=False)
class View:
    """What somebody holds of a system at one of its settings, and what it tells.

    scores: attack -> scores (2n,) of members, then others; higher = member. margins: attack -> (n,), by how much it
    takes each slot's member for the member, an adversary's who may know which message is which slot's. game: persons
    named or linked. stated: epsilon of one person replaced that the system states for this view, None: none.
    """

    system: str
    choice: str
    view: str
    scores: Mapping[str, np.ndarray]
    margins: Mapping[str, np.ndarray]
    game: Result
    stated: float | None


def persons(
    dataset: str, *, slots: int, reference: int, test: int, clients: int, side: int, seed: int
) -> Persons:
    """Draw slots, public persons and at most `test` test persons from a picture set brought to side x side."""
    train, held_out = images.train_and_test(dataset, numpy_generator(0, "split"), size=side)
    if train.channels != 1:
        raise ValueError(f"{dataset} has colours; a person is a grey picture here")
    order = numpy_generator(seed, "persons").permutation(len(train))
    pairs = []
    for label in range(len(train.class_names)):
        own = order[train.labels[order] == label]
        pairs.append(own[: len(own) // 2 * 2].reshape(-1, 2))
    pairs = numpy_generator(seed, "slots").permutation(np.concatenate(pairs))
    rest = np.setdiff1d(order, pairs[:slots])
    if len(pairs) < slots or len(rest) < reference:
        raise ValueError(f"{dataset} has {len(train)} pictures: too few for {slots} slots of two and {reference} more")
    coins = numpy_generator(seed, "coins").random(slots) < 0.5
    chosen = np.where(coins[:, None], pairs[:slots], pairs[:slots, ::-1])
    public = numpy_generator(seed, "reference").permutation(rest)[:reference]
    judged = numpy_generator(seed, "test").permutation(len(held_out))[:test]
    return Persons(
        members=train.select(chosen[:, 0]), others=train.select(chosen[:, 1]), coins=coins,
        parts=tuple(np.array_split(np.arange(slots), clients)), reference=train.select(public),
        test=held_out.select(judged), seed=seed,
    )


def table(pictures: ImageSet) -> Table:
    """Return pictures as rows: a column of whole numbers 0..255 for each pixel, and the class."""
    side = pictures.size
    names = [f"row{row}_column{column}" for row in range(side) for column in range(side)]
    frame = pd.DataFrame(pictures.images.reshape(len(pictures), -1).astype(np.int64), columns=names)
    frame[TARGET] = np.asarray(pictures.class_names, dtype=object)[pictures.labels]
    kinds = dict.fromkeys(names, "integer") | {TARGET: "categorical"}
    return Table(frame, TARGET, kinds, name=pictures.name, source=pictures.source, sha256=pictures.sha256)


def worth(drawn: Persons, frame: pd.DataFrame) -> float:
    """Return the accuracy on the test persons of a classifier that was trained on the rows of `frame`."""
    test = table(drawn.test)
    found = utility(frame, test.frame, target=TARGET, kinds=test.kinds, seed=drawn.seed, classifiers=JUDGE)
    return float(found["accuracy"].iloc[0])


def useful(run: records.Run, drawn: Persons, frame: pd.DataFrame, ceiling: float, **labels) -> float:
    """Record accuracy by synthetic rows and its share of the `ceiling`, what the members' own rows give; the share."""
    accuracy = worth(drawn, frame)
    run.metric("accuracy", accuracy, **labels)
    run.metric("utility_share", accuracy / ceiling, **labels)
    return accuracy / ceiling


def by_rows(drawn: Persons, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return attack -> scores of all persons by the rows `frame` that an adversary holds, synthetic or recovered."""
    reference = table(drawn.reference)
    tables = black.compare(drawn.frame, frame, reference.frame, kinds=reference.kinds)
    return {"closest": black.closest(tables), "closer": black.closer(tables), "domias": black.density_ratio(tables)}


def margins_of(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return for every attack by how much each slot's member outscores the other person."""
    return {name: found[: len(found) // 2] - found[len(found) // 2 :] for name, found in scores.items()}


def linked(drawn: Persons, frame: pd.DataFrame) -> Result:
    """Return the game of the upper and the lower half of a picture, joined through the rows `frame`."""
    names = list(frame.columns.drop(TARGET))
    views = names[: len(names) // 2], names[len(names) // 2 :]
    sides = [table(side) for side in (drawn.members, drawn.others)]
    generator = numpy_generator(drawn.seed, "attack", "halves")
    return anonymity.linkability(sides[0].frame, frame, sides[1].frame, generator=generator, attacks=len(drawn),
                                 views=views, kinds=sides[0].kinds)


def named(drawn: Persons, best: np.ndarray) -> Result:
    """Return the game in which each message is given the name `best` (n,) of one of the 2n persons.

    Control: how often it is that of the slot's other person, who sent nothing.
    """
    n, place = len(drawn), np.arange(len(drawn))
    blind = numpy_generator(drawn.seed, "attack", "blind").binomial(n, 1 / (2 * n))
    own, other = int(np.sum(best == place)), int(np.sum(best == n + place))
    return judge("re-identification", Counts(n, own, n, other, n, int(blind)), CONFIDENCE)


def lower_bound(
    margins: Mapping[str, np.ndarray], coins: np.ndarray, delta: float = DELTA
) -> tuple[float, float]:
    """Return a lower bound on epsilon that holds at CONFIDENCE, and the largest that as many slots could have shown.

    One training, one fair coin a slot (Steinke et al. 2023): a margin's sign is the guess, its size how sure it is. The
    best over attacks and GUESSED, corrected for the choice (Bonferroni). Neighbours: one person replaced.
    """
    bounds, perfect = [], []
    for found in margins.values():
        scores, surest = np.where(coins, found, -found), np.argsort(-np.abs(found), kind="stable")
        for share in GUESSED:
            asked = surest[: max(1, round(share * len(coins)))]
            right = int(np.sum((scores[asked] > 0) == coins[asked]))
            bounds.append(_one_run(len(coins), len(asked), right, delta))
            perfect.append(_one_run(len(coins), len(asked), len(asked), delta))
    return audit.best_of(bounds, 1 - CONFIDENCE), audit.best_of(perfect, 1 - CONFIDENCE)


def _one_run(canaries: int, guesses: int, correct: int, delta: float) -> Callable[[float], float]:
    return lambda significance: _bound(canaries, guesses, correct, delta, significance)


@cache
def _bound(canaries: int, guesses: int, correct: int, delta: float, significance: float) -> float:
    # Every attack has the same ceiling.
    counts = dict(canaries=canaries, guesses=guesses, correct=correct)
    return audit.one_run_epsilon(**counts, delta=delta, significance=significance)


def power(scores: Mapping[str, np.ndarray], swap: np.ndarray | None = None) -> dict[str, float]:
    """Return attack -> true positive rate at RATE; swap: bool (n,), slots whose two persons change places (control)."""
    found = {}
    for name, own in scores.items():
        members, others = np.split(own, 2)
        if swap is not None:
            members, others = np.where(swap, others, members), np.where(swap, members, others)
        found[name] = membership.tpr_at_fpr(members, others, RATE)
    return found


def record(run: records.Run, drawn: Persons, seen: View) -> dict[str, float | str | None]:
    """Record what a view tells of a person, and return it with its labels.

    epsilon_lower, with epsilon_ceiling, the most that the slots could have shown; tpr_at_1_percent of the strongest
    attack (interval corrected for the choice) and the same with slots swapped at random; anonymity_risk with its
    interval; epsilon_stated, for one person replaced.
    """
    where = dict(system=seen.system, choice=seen.choice, view=seen.view)
    lower, ceiling = lower_bound(seen.margins, drawn.coins)
    found = {"epsilon_lower": lower, "epsilon_ceiling": ceiling, "epsilon_stated": seen.stated}
    if RATE * len(drawn) >= 1:
        rates = power(seen.scores)
        strongest = max(rates, key=rates.get)
        level = 1 - (1 - CONFIDENCE) / len(rates)
        interval = clopper_pearson(round(rates[strongest] * len(drawn)), len(drawn), level)
        swap = numpy_generator(drawn.seed, "swapped", *where.values()).random(len(drawn)) < 0.5
        found |= {"tpr_at_1_percent": interval.value, "tpr_low": interval.low, "tpr_high": interval.high,
                  "tpr_swapped": max(power(seen.scores, swap).values())}
        for name, rate in rates.items():
            run.metric("attack_tpr", rate, attack=name, **where)
            run.metric("attack_auc", membership.auc(*np.split(seen.scores[name], 2)), attack=name, **where)
    else:
        found |= {"tpr_at_1_percent": None}
    found |= {"anonymity_risk": seen.game.risk, "anonymity_low": seen.game.low, "anonymity_high": seen.game.high,
              "anonymity_control": seen.game.control_rate}
    missing = {"epsilon_stated": "the system states no finite epsilon for this view",
               "tpr_at_1_percent": f"{len(drawn)} non-members cannot resolve a rate of {RATE:g}"}
    for name, value in found.items():
        run.metric(name, value, reason=missing.get(name), **where)
    return where | found


def at_matched(run: records.Run, seen: pd.DataFrame, target: float) -> pd.DataFrame:
    """Record and return LEAKAGE of every system and view at the utility share `target` or more.

    seen: rows with system, choice, view, utility_share and LEAKAGE. Linear between the nearest settings on either side;
    where all are more useful, the least useful one as it is; None, with the reason, where none reaches the target. What
    is read between two bounds is no bound itself. nearest, and matched_gap: the setting nearest to the target, and its
    share less the target.
    """
    run.metric("matched_target", target)
    rows = []
    for (system, view), own in seen.groupby(["system", "view"], sort=True):
        own = own.sort_values("utility_share", kind="stable").reset_index(drop=True)
        gaps = own["utility_share"] - target
        below, above = own.index[gaps <= 0], own.index[gaps >= 0]
        near = own.loc[gaps.abs().idxmin()]
        row = dict(system=system, view=view, nearest=near["choice"], nearest_share=near["utility_share"])
        run.metric("matched_gap", near["utility_share"] - target, system=system, view=view)
        for name in LEAKAGE:
            value, reason = None, f"{name} is not resolved"
            if len(above):
                ends = own.loc[[*below[-1:], above[0]]]
                value = np.interp(target, ends["utility_share"], ends[name].astype(float))
            else:
                reason = "no setting is so useful"
            row[name] = None if value is None or np.isnan(value) else float(value)
            run.metric(f"matched_{name}", row[name], reason=reason, system=system, view=view)
        rows.append(row)
    return pd.DataFrame(rows)
