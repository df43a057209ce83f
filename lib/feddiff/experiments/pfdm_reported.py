"""PFDM's numbers as others report them, beside ours: from notebooks/reported_pfdm.yaml alone, each with its source.

Reported and measured distances are on different scales (features, number of samples and reference pictures differ), so
what is compared is each method's distance as a share of that of training alone, same source, same group of classes.
"""

import math
import re
from pathlib import Path

import pandas as pd
import yaml

from feddiff.evaluation import statistics
from feddiff.experiments import scales, style
from feddiff.experiments.tables import number

FILE = "reported_pfdm.yaml"
# Data set of a record -> the set that the reported numbers speak of (celeba-64: whoever has a folder of that name).
SETS = {"cifar-10": "cifar-10", "colour-mnist": "colour-mnist", "colour-mnist-5k": "colour-mnist",
        "celeba-64": "celeba-64"}
GROUPS = ("majority", "minority", "mean")
# What the others are a share of.
BASE = "local"
_PLACE = ["version", "dataset", "method", "group"]


def load(path: Path | None = None) -> pd.DataFrame:
    """Return the reported distances, a row a number: claim, version, dataset, method, group, fid, source, status.

    path: notebooks/reported_pfdm.yaml by default. ValueError names the entry that lacks something or says it twice.
    """
    path = path or scales.checkout() / "notebooks" / FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as fault:
        raise ValueError(f"{path.name} is not YAML: {fault}") from fault
    if not isinstance(content, dict) or set(content) != {"sources", "reported"}:
        raise ValueError(f"{path.name} must hold `sources` and `reported`, nothing else")
    rows = []
    for place, entry in enumerate(content["reported"], 1):
        rows += _rows(entry, content["sources"], f"{path.name}, entry {place}")
    found = pd.DataFrame(rows)
    doubled = found[found.duplicated(_PLACE)]
    if len(doubled):
        raise ValueError(f"{path.name}: {', '.join(doubled[_PLACE].iloc[0])} is reported twice; name one source")
    return found


def _rows(entry, sources: dict, where: str) -> list[dict]:
    shape = {"claim": str, "version": str, "dataset": str, "method": str, "fid": dict, "source": str}
    if not isinstance(entry, dict) or set(entry) != set(shape):
        raise ValueError(f"{where} must have exactly the fields {', '.join(shape)}")
    wrong = [name for name, kind in shape.items() if not isinstance(entry[name], kind) or not entry[name]]
    if wrong or not re.fullmatch(r"P[0-9]+", entry["claim"]):
        raise ValueError(f"{where}: {', '.join(wrong) or 'claim'} is not as it should be: {entry}")
    if entry["method"] not in style.METHODS or entry["source"] not in sources:
        raise ValueError(f"{where}: method {entry['method']!r} must be one of style.METHODS, source "
                         f"{entry['source']!r} one of {', '.join(sources)}")
    common = {name: entry[name] for name in ("claim", "version", "dataset", "method")}
    told = {"source": entry["source"], "status": sources[entry["source"]]["status"]}
    for group, value in entry["fid"].items():
        if group not in GROUPS or isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ValueError(f"{where}: fid maps some of {', '.join(GROUPS)} to numbers > 0, got {group}: {value!r}")
    return [common | {"group": group, "fid": float(value)} | told for group, value in entry["fid"].items()]


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Return our Fréchet distances by (dataset, method, group, seed), the mean over the clients; "mean": of the groups.

    An empty frame where the records hold none.
    """
    part = frame[frame["name"] == "frechet"]
    part = part[part["client"] == "all"] if "client" in part.columns else part.iloc[:0]
    if part.empty:
        return pd.DataFrame(columns=["dataset", "method", "group", "seed", "value"])
    part = part[["dataset", "method", "group", "seed", "value"]]
    means = part.groupby(["dataset", "method", "seed"], as_index=False)["value"].mean().assign(group="mean")
    return pd.concat([part, means], ignore_index=True)


def beside(frame: pd.DataFrame, path: Path | None = None) -> pd.DataFrame:
    """Return every reported number with what the records hold of the same method and group, a row a data set of ours.

    Columns of `load`, then reported_share (of training alone in the same source), measured_on ("" where nothing was),
    runs, measured, half_width, share (ratio of means over the seeds), share_low, share_high (Fieller's interval).
    """
    told, ours = load(path), measured(frame)
    base = told[told["method"] == BASE].set_index(["version", "dataset", "group"])["fid"]
    rows = []
    for row in told.to_dict("records"):
        place = row["version"], row["dataset"], row["group"]
        row["reported_share"] = row["fid"] / base[place] if place in base.index else math.nan
        on = [name for name, known in SETS.items() if known == row["dataset"] and (ours["dataset"] == name).any()]
        rows += [row | _measured(ours, name, row) | {"measured_on": _protocol(frame, name)} for name in on] or [
            row | _measured(ours, "", row) | {"measured_on": ""}
        ]
    return pd.DataFrame(rows)


def _measured(ours: pd.DataFrame, dataset: str, row: dict) -> dict:
    own = ours[(ours["dataset"] == dataset) & (ours["group"] == row["group"])]
    own = own.pivot(index="seed", columns="method", values="value")
    if row["method"] not in own.columns:
        return dict.fromkeys(("measured", "half_width", "share", "share_low", "share_high"), math.nan) | {"runs": 0}
    found = own[row["method"]].dropna()
    mean = statistics.mean_interval(found.to_numpy())
    told = {"runs": mean.count, "measured": mean.value, "half_width": mean.high - mean.value}
    pair = own[[row["method"], BASE]].dropna() if BASE in own.columns and row["method"] != BASE else found.iloc[:0]
    if pair.empty:
        return told | dict.fromkeys(("share", "share_low", "share_high"), 1.0 if row["method"] == BASE else math.nan)
    ratio = statistics.relative_change(pair[row["method"]].to_numpy(), pair[BASE].to_numpy())
    return told | {"share": 1 + ratio.value, "share_low": 1 + ratio.low, "share_high": 1 + ratio.high}


def _protocol(frame: pd.DataFrame, dataset: str) -> str:
    """Return what was measured on, in words: name, side of the pictures, edition."""
    part = frame[(frame["name"] == "side") & (frame["dataset"] == dataset)]
    if part.empty:
        return dataset
    side, edition = int(part["value"].iloc[0]), part["edition"].iloc[0]
    return f"{dataset}, {side} × {side}" + (f", {edition.split(', ')[-1]}" if ", " in edition else "")


def table(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (full, for reading): the numbers one by one, and a row a method with its groups side by side."""
    full = beside(frame)
    place = ["dataset", "version", "method", "measured_on"]
    rows = []
    for names, part in full.groupby(place, sort=False):
        own = {row["group"]: row for row in part.to_dict("records")}
        first = part.iloc[0]
        cells = {"data set": names[0], "version": names[1], "method": style.method_name(names[2]).split(",")[0],
                 "claim": first["claim"], "many": "", "few": "", "few, of local": "", "source": first["source"],
                 "status": first["status"], "measured on": names[3] or "not measured", "our many": "", "our few": "",
                 "our few, of local": "", "runs": str(max(part["runs"]))}
        for group, name in (("majority", "many"), ("minority", "few")):
            if group in own:
                cells[name] = f"{own[group]['fid']:.2f}"
                cells[f"our {name}"] = _cell(own[group])
        if "minority" in own:
            cells["few, of local"] = _percent(own["minority"]["reported_share"])
            cells["our few, of local"] = _percent(*(own["minority"][name] for name in
                                                    ("share", "share_low", "share_high")))
        rows.append(cells)
    return full, pd.DataFrame(rows)


def _cell(row: dict) -> str:
    if not row["runs"]:
        return "–"
    return number(row["measured"]) + (f" ± {number(row['half_width'])}" if row["runs"] > 1 else "")


def _percent(value: float, low: float = math.nan, high: float = math.nan) -> str:
    if math.isnan(value):
        return "–"
    bounds = "" if math.isnan(low) or low == high else f" [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{100 * value:.0f}{bounds} %"
