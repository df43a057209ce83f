"""The ledger of claims: every claim of the three papers, the rule that decides it, and what the records say."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from feddiff.experiments import figures_claims, rules, scales, style, tables
from feddiff.experiments.frames import load_records

NOTEBOOK = "90_claims"
PAPERS = {"F": "DP-Fed-FinDiff (2412.16083)", "P": "PFDM (2504.00952)", "S": "SiloFuse (2404.03299)"}
# Every claim must have exactly one entry: reference claims F1–F46, P1–P56, S1–S49.
IDS = tuple(f"{letter}{number}" for letter, last in (("F", 46), ("P", 56), ("S", 49)) for number in range(1, last + 1))
SOURCES = ("paper", "code", "summary", "notes", "derived", "recalled")
COLUMNS = ["id", "claim", "source", "notebook", "measured", "verdict", "evidence"]
MARKS = ("<!-- claims:begin -->", "<!-- claims:end -->")
_ROWS_IN_README = 25


@dataclass(frozen=True)
class Claim:
    """One claim: id, one line, where it was read, the notebooks that test it, what is measured, the rule."""

    id: str
    claim: str
    source: tuple[str, ...]
    notebooks: tuple[str, ...]
    measured: str
    rule: dict


def load(path: Path | None = None) -> list[Claim]:
    """Return the checked ledger (notebooks/claims.yaml by default), in the order of IDS; ValueError names the entry."""
    path = path or scales.checkout() / "notebooks" / "claims.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as fault:
        raise ValueError(f"{path.name} is not YAML: {fault}") from fault
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        raise ValueError(f"{path.name} must hold a list `claims`")
    ledger = [_claim(entry, f"{path.name}, entry {place}") for place, entry in enumerate(content["claims"], 1)]
    found = [claim.id for claim in ledger]
    doubled = sorted({name for name in found if found.count(name) > 1})
    missing, unknown = [name for name in IDS if name not in found], [name for name in found if name not in IDS]
    if doubled or missing or unknown:
        raise ValueError(f"{path.name}: doubled {doubled}, missing {missing}, unknown {unknown}")
    return sorted(ledger, key=lambda claim: IDS.index(claim.id))


def _claim(entry, where: str) -> Claim:
    shape = {"id": str, "claim": str, "source": list, "notebooks": list, "measured": str, "rule": dict}
    if not isinstance(entry, dict) or set(entry) != set(shape):
        raise ValueError(f"{where} must have exactly the fields {', '.join(shape)}")
    where = f"{where} ({entry['id']})"
    for name, kind in shape.items():
        if not isinstance(entry[name], kind) or (kind is str and not entry[name].strip()):
            raise ValueError(f"{where}: {name} must be a non-empty {kind.__name__}")
    if not entry["source"] or not set(entry["source"]) <= set(SOURCES):
        raise ValueError(f"{where}: source must name some of {', '.join(SOURCES)}; got {entry['source']}")
    wrong = [name for name in entry["notebooks"] if not re.fullmatch(r"[0-9]{2}_[a-z0-9_]+", str(name))]
    rules.check(entry["rule"], where)
    if wrong or (not entry["notebooks"] and rules.needs_records(entry["rule"])):
        raise ValueError(f"{where}: notebooks must name who tests the claim, such as 11_findiff_clients; got {wrong}")
    return Claim(
        id=entry["id"], claim=entry["claim"].strip(), source=tuple(entry["source"]),
        notebooks=tuple(entry["notebooks"]), measured=entry["measured"].strip(), rule=entry["rule"],
    )


def evaluate(ledger: list[Claim], frame: pd.DataFrame) -> pd.DataFrame:
    """Return COLUMNS, a row a claim, judged on the long form of the records of one scale."""
    rows = []
    for claim in ledger:
        own = frame[frame["notebook"].isin(claim.notebooks)]
        if own.empty and rules.needs_records(claim.rule):
            outcome = rules.Outcome("pending", f"no record yet; it comes from {', '.join(claim.notebooks)}")
        else:
            outcome = rules.judge(claim.rule, own)
        rows.append(
            [claim.id, claim.claim, ", ".join(claim.source), ", ".join(claim.notebooks), claim.measured,
             outcome.verdict, outcome.evidence]
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def counts(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return paper × verdict -> number of claims, with a column `claims` for the total."""
    paper = verdicts["id"].str[0].map(PAPERS)
    table = pd.crosstab(paper, verdicts["verdict"]).reindex(index=list(PAPERS.values()), columns=list(rules.VERDICTS))
    table = table.fillna(0).astype(int)
    table.insert(0, "claims", table.sum(axis=1))
    return table.rename_axis(index="paper", columns=None).reset_index()


def write(verdicts: pd.DataFrame, scale: str) -> list[Path]:
    """Write the tables 90_claims--claims and --counts and the figure 90_claims--verdicts; return the paths."""
    short = verdicts[["id", "claim", "source", "notebook", "verdict", "evidence"]]
    tally = counts(verdicts)
    return [
        *tables.write(verdicts, short, NOTEBOOK, "claims", scale),
        *tables.write(tally, tally, NOTEBOOK, "counts", scale),
        *style.finish(figures_claims.verdicts(tally), NOTEBOOK, "verdicts", scale),
    ]


def report(scale: str) -> pd.DataFrame:
    """Judge the whole ledger on the records of `scale`, write its tables and figure, return the verdicts."""
    verdicts = evaluate(load(), load_records(scale=scale))
    write(verdicts, scale)
    return verdicts


def readme_block(verdicts: pd.DataFrame, records: int) -> str:
    """Return what stands between the claim marks of the README: counts, then the claims decided on records."""
    if not records:
        return (
            "No standard records exist yet, so no claim is decided by measurement: run `./run_all.sh standard`.\n"
            f"The ledger of all {len(verdicts)} claims and their rules is `notebooks/claims.yaml`.\n"
        )
    decided = verdicts[~verdicts["verdict"].isin(["pending", "not testable here"])]
    shown = decided.head(_ROWS_IN_README)
    lines = [
        f"From {records} standard records, by the rules in `notebooks/claims.yaml` (95 % intervals over seeds):\n",
        tables.markdown(counts(verdicts)), tables.markdown(shown[["id", "claim", "verdict"]]),
    ]
    more = f"{len(decided) - len(shown)} more are decided. " if len(decided) > len(shown) else ""
    lines.append(f"{more}Evidence and all claims: `results/standard/tables/90_claims--claims.md`.\n")
    return "\n".join(lines)


def replace_block(text: str, block: str, marks: tuple[str, str] = MARKS) -> str:
    """Return the README `text` with `block` between the marks; ValueError unless each mark stands there once."""
    begin, end = marks
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"README.md must hold {begin} and, after it, {end}, once each")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{block.rstrip()}\n{end}{rest.split(end)[1]}"
