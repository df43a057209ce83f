"""From measurements to verdicts: a small closed set of rules, evaluated on records with intervals over seeds.

Every rule that reads records can come out either way (a `test` only names the unit test that holds a construction). Per
data set an interval over seeds decides; data sets that disagree give "partly".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from scipy.special import chdtri

from feddiff.evaluation import statistics
from feddiff.experiments import scales
from feddiff.experiments.measured import Interval, NotYet, interval, values
from feddiff.experiments.tables import number

VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here", "pending")
# Seeds that the standard scale asks for.
SEEDS = 3
# Functions of privacy.accounting that a `formula` rule may call: closed forms, no record needed.
FORMULAS = ("epsilon", "noise_multiplier", "gaussian_epsilon", "gaussian_noise", "forward_diffusion_epsilon")


@dataclass(frozen=True)
class Outcome:
    """A verdict of VERDICTS and the sentence that supports it."""

    verdict: str
    evidence: str


def _by_dataset(table: pd.DataFrame | pd.Series, exact: bool = False) -> tuple[list[tuple], str]:
    """Return (data set, its rows) of those with enough seeds, and who has to wait.

    Enough are SEEDS where a data set has so many, else two where one has two, else one: a set whose runs are still
    going on must not undo the verdict of those that are done.
    """
    groups = list(table.groupby(level="dataset", sort=True))
    least = 1 if exact else min(SEEDS, max(len(own) for _, own in groups))
    enough = [(dataset, own) for dataset, own in groups if len(own) >= least]
    short = [f"; {dataset or 'all'}: too few seeds yet (n = {len(own)})" for dataset, own in groups
             if not exact and len(own) < least]
    return enough, "".join(short)


def _per_dataset(series: pd.Series, decide: Callable[[Interval], str], unit: str, exact: bool = False) -> Outcome:
    verdicts, texts = [], []
    groups, waiting = _by_dataset(series, exact)
    for dataset, own in groups:
        found = interval(own, exact)
        verdicts.append(decide(found))
        texts.append(f"{dataset or 'all'}: {found}{unit} (n = {found.n})")
    return Outcome(combine(verdicts), "; ".join(texts) + waiting)


def combine(verdicts: list[str]) -> str:
    """Return one verdict for several parts: the common one, "pending" while a part is, else "partly"."""
    kinds = set(verdicts)
    if len(kinds) == 1:
        return verdicts[0]
    return "pending" if "pending" in kinds else "partly"


def _change(frame: pd.DataFrame, rule: dict, decide: Callable[[Interval], str]) -> Outcome:
    """Judge the change in per cent from one side to the other, a ratio of means over the same seeds, per data set."""
    common = rule.get("where", {})
    base = values(frame, rule["metric"], {**common, **rule["from"]})
    changed = values(frame, rule["metric"], {**common, **rule["to"]})
    base, changed = base.align(changed, join="inner")
    if base.empty:
        raise NotYet("no run holds both sides of the comparison")
    verdicts, texts = [], []
    groups, waiting = _by_dataset(base)
    for dataset, own in groups:
        other, n = changed[own.index], len(own)
        if n == 1:
            raise NotYet("one seed gives no interval")
        ratio = statistics.relative_change(other, own) if own.mean() else None
        if ratio is None or math.isnan(ratio.low):
            # Fieller's interval is unbounded: the data cannot tell the base from 0.
            verdicts.append("not testable here")
            shown = f"{number(own.mean())} to {number(other.mean())}, the first not clearly different from 0"
        else:
            found = Interval(n, *(100 * bound for bound in (ratio.value, ratio.low, ratio.high)))
            verdicts.append(decide(found))
            shown = f"{found} %"
        texts.append(f"{dataset or 'all'}: {shown} (n = {n})")
    decided = [verdict for verdict in verdicts if verdict != "not testable here"]
    return Outcome(combine(decided or verdicts), "; ".join(texts) + waiting)


def _relative_change(frame: pd.DataFrame, rule: dict) -> Outcome:
    expected, slack = rule["expected_percent"], rule.get("tolerance_points", 0)

    def decide(found: Interval) -> str:
        hit = found.low - slack <= expected <= found.high + slack
        shown = found.low > 0 or found.high < 0
        if hit:
            # An interval that holds the claim and also "no change" has decided nothing.
            return "reproduced" if shown else "not testable here"
        return "partly" if shown and (found.mean > 0) == (expected > 0) else "not reproduced"

    found = _change(frame, rule, decide)
    return Outcome(found.verdict, f"claim {expected:+g} %, measured {found.evidence}")


def _not_worse(frame: pd.DataFrame, rule: dict) -> Outcome:
    margin = rule["margin_percent"]

    def decide(found: Interval) -> str:
        if found.low > -margin:
            return "reproduced"
        return "not reproduced" if found.high < -margin else "not testable here"

    found = _change(frame, rule, decide)
    return Outcome(found.verdict, f"margin −{margin:g} %, change {found.evidence}")


def _difference(frame: pd.DataFrame, rule: dict) -> Outcome:
    common, direction = rule.get("where", {}), rule["direction"]
    first = values(frame, rule["metric"], {**common, **rule["of"]})
    second = values(frame, rule["metric"], {**common, **rule["minus"]})
    first, second = first.align(second, join="inner")
    if first.empty:
        raise NotYet("no run holds both sides of the comparison")

    def decide(found: Interval) -> str:
        seen = {"above": found.low > 0, "below": found.high < 0, "either": found.low > 0 or found.high < 0}
        return "reproduced" if seen[direction] else "not reproduced"

    found = _per_dataset(first - second, decide, "", rule.get("exact", False))
    wanted = "differ from" if direction == "either" else f"be {direction}"
    return Outcome(found.verdict, f"difference should {wanted} 0: {found.evidence}")


def _monotone(frame: pd.DataFrame, rule: dict) -> Outcome:
    sign = 1 if rule["direction"] == "up" else -1
    steps = [values(frame, rule["metric"], {**rule.get("where", {}), rule["along"]: text}) for text in rule["order"]]
    table = pd.concat(steps, axis=1, join="inner", keys=range(len(steps)))
    if table.empty:
        raise NotYet("no run holds every point of the curve")
    verdicts, texts = [], []
    groups, waiting = _by_dataset(table, rule.get("exact", False))
    for dataset, own in groups:
        means = own.mean()
        ends = interval(sign * (own.iloc[:, -1] - own.iloc[:, 0]), rule.get("exact", False))
        steady = all(sign * (b - a) >= 0 for a, b in zip(means[:-1], means[1:], strict=True))
        verdicts.append(("reproduced" if steady else "partly") if ends.low > 0 else "not reproduced")
        texts.append(f"{dataset or 'all'}: " + " → ".join(number(mean) for mean in means))
    told = f"along {rule['along']} {', '.join(map(str, rule['order']))}: {'; '.join(texts)}{waiting}"
    return Outcome(combine(verdicts), told)


def _within(frame: pd.DataFrame, rule: dict) -> Outcome:
    low, high = rule.get("at_least", -math.inf), rule.get("at_most", math.inf)

    def decide(found: Interval) -> str:
        if low <= found.low and found.high <= high:
            return "reproduced"
        return "partly" if low <= found.mean <= high else "not reproduced"

    found = _per_dataset(values(frame, rule["metric"], rule.get("where", {})), decide, "", rule.get("exact", False))
    bounds = [f"at least {low:g}"] * (low > -math.inf) + [f"at most {high:g}"] * (high < math.inf)
    return Outcome(found.verdict, f"{' and '.join(bounds)}: {found.evidence}")


def _spread(frame: pd.DataFrame, rule: dict) -> Outcome:
    least, verdicts, texts = rule["at_least_percent"], [], []
    groups, waiting = _by_dataset(values(frame, rule["metric"], rule.get("where", {})))
    for dataset, own in groups:
        n = len(own)
        if n < SEEDS:
            raise NotYet(f"{n} seeds show no spread")
        # 95 % interval of a normal law's standard deviation, in per cent of the mean.
        spread = 100 * float(own.std(ddof=1)) / abs(float(own.mean()))
        low, high = (spread * math.sqrt((n - 1) / float(chdtri(n - 1, tail))) for tail in (0.025, 0.975))
        verdicts.append("reproduced" if low >= least else "not reproduced" if high < least else "not testable here")
        texts.append(f"{dataset or 'all'}: {Interval(n, spread, low, high)} % (n = {n})")
    return Outcome(combine(verdicts), f"seeds spread at least {least:g} % of the mean: {'; '.join(texts)}{waiting}")


def _count(frame: pd.DataFrame, rule: dict) -> Outcome:
    found = sorted(set(values(frame, rule["metric"], rule.get("where", {})).index.get_level_values("dataset")))
    told = f"{len(found)} of {rule['at_least']} data sets: {', '.join(found)}"
    if len(found) == 1 < rule["at_least"]:
        raise NotYet(told)
    return Outcome("reproduced" if len(found) >= rule["at_least"] else "partly", told)


def _formula(_: pd.DataFrame, rule: dict) -> Outcome:
    # Here, not above: the accountants take seconds to import, and most of what reads records needs none of them.
    from feddiff.privacy import accounting

    value, claimed = getattr(accounting, rule["call"])(**rule["arguments"]), rule["claimed"]
    hit = value <= claimed if rule.get("at_most") else abs(value - claimed) <= rule["relative_tolerance"] * abs(claimed)
    words = "at most " if rule.get("at_most") else ""
    return Outcome("reproduced" if hit else "not reproduced", f"claimed {words}{claimed:g}, computed {value:.4g}")


def _test(_: pd.DataFrame, rule: dict) -> Outcome:
    if not (scales.checkout() / rule["file"]).is_file():
        raise NotYet(f"the test file {rule['file']} does not exist")
    return Outcome("reproduced", f"unit test {rule['file']}")


def _all_of(frame: pd.DataFrame, rule: dict) -> Outcome:
    parts = [judge(part, frame) for part in rule["rules"]]
    return Outcome(combine([part.verdict for part in parts]), " | ".join(part.evidence for part in parts))


def _not_testable(_: pd.DataFrame, rule: dict) -> Outcome:
    return Outcome("not testable here", rule["reason"])


def _pending(_: pd.DataFrame, rule: dict) -> Outcome:
    raise NotYet(rule.get("reason", "its rule comes with the notebook"))


# kind -> (fields that must be there, fields that may be there, evaluation)
_SELECT = {"metric": (str, list)}
KINDS: dict[str, tuple[dict, dict, Callable]] = {
    "relative_change": (
        {**_SELECT, "from": dict, "to": dict, "expected_percent": (int, float)},
        {"where": dict, "tolerance_points": (int, float)}, _relative_change,
    ),
    "not_worse": (
        {**_SELECT, "from": dict, "to": dict, "margin_percent": (int, float)}, {"where": dict}, _not_worse
    ),
    "difference": (
        {**_SELECT, "of": dict, "minus": dict, "direction": str}, {"where": dict, "exact": bool}, _difference
    ),
    "monotone": (
        {**_SELECT, "along": str, "order": list, "direction": str}, {"where": dict, "exact": bool}, _monotone
    ),
    "within": (
        _SELECT, {"where": dict, "at_least": (int, float), "at_most": (int, float), "exact": bool}, _within
    ),
    "spread": ({**_SELECT, "at_least_percent": (int, float)}, {"where": dict}, _spread),
    "count": ({**_SELECT, "at_least": int}, {"where": dict}, _count),
    "formula": (
        {"call": str, "arguments": dict, "claimed": (int, float)},
        {"relative_tolerance": (int, float), "at_most": bool}, _formula,
    ),
    "test": ({"file": str}, {}, _test),
    "all_of": ({"rules": list}, {}, _all_of),
    "not_testable": ({"reason": str}, {}, _not_testable),
    "pending": ({}, {"reason": str}, _pending),
}
_CHOICES = {"difference": ("above", "below", "either"), "monotone": ("up", "down")}


def check(rule, where: str) -> None:
    """Raise ValueError, naming `where`, unless `rule` is one of KINDS with the right fields."""
    if not isinstance(rule, dict) or rule.get("kind") not in KINDS:
        raise ValueError(f"{where}: a rule needs a kind among {', '.join(KINDS)}; got {rule!r}")
    needed, allowed, _ = KINDS[rule["kind"]]
    missing, unknown = set(needed) - set(rule), set(rule) - set(needed) - set(allowed) - {"kind"}
    if missing or unknown:
        raise ValueError(f"{where}: rule {rule['kind']} lacks {sorted(missing)}, does not know {sorted(unknown)}")
    for name, kind in {**needed, **allowed}.items():
        if name in rule and not isinstance(rule[name], kind):
            raise ValueError(f"{where}: field {name} of rule {rule['kind']} has type {type(rule[name]).__name__}")
    if rule["kind"] in _CHOICES and rule["direction"] not in _CHOICES[rule["kind"]]:
        raise ValueError(f"{where}: direction must be one of {_CHOICES[rule['kind']]}, got {rule['direction']!r}")
    if rule["kind"] == "within" and not {"at_least", "at_most"} & set(rule):
        raise ValueError(f"{where}: rule within needs at_least, at_most or both")
    if rule["kind"] == "formula" and rule["call"] not in FORMULAS:
        raise ValueError(f"{where}: formula may call {', '.join(FORMULAS)}, got {rule['call']!r}")
    if rule["kind"] == "formula" and ("relative_tolerance" in rule) == bool(rule.get("at_most")):
        raise ValueError(f"{where}: rule formula needs either relative_tolerance or at_most: true")
    for index, part in enumerate(rule.get("rules", [])):
        check(part, f"{where}, part {index}")


def needs_records(rule: dict) -> bool:
    """Say whether a rule can be judged on records only (a formula, a unit test or a reason needs none)."""
    if rule["kind"] == "all_of":
        return any(needs_records(part) for part in rule["rules"])
    return rule["kind"] not in ("formula", "test", "not_testable")


def judge(rule: dict, frame: pd.DataFrame) -> Outcome:
    """Return the outcome of a checked rule on the long records frame of its notebooks."""
    try:
        return KINDS[rule["kind"]][2](frame, rule)
    except NotYet as reason:
        return Outcome("pending", str(reason))
