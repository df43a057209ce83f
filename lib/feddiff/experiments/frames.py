"""Records as one long frame: a row a metric, in an order that depends on nothing but the records."""

import json
import math

import pandas as pd

from feddiff.experiments import scales
from feddiff.experiments.schema import RecordError, read

# Natural order of labels whose text does not sort well; everything else is alphabetical.
_EPSILONS = {"none": -1.0, "": -0.5}
COLUMNS = ("notebook", "scale", "dataset", "seed", "key", "settings", "name", "value", "reason", "timing")


def order(text: str) -> tuple:
    """Return a sort key: numbers by size (infinity last), then texts alphabetically."""
    if text in _EPSILONS:
        return (0, _EPSILONS[text], text)
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def read_records(notebook: str | None = None, scale: str = "standard") -> list[dict]:
    """Return the records of a scale (of one notebook), sorted by notebook, identity and seed; [] when there is none."""
    folder = scales.records_folder(scale)
    pattern = f"{notebook}--*.json" if notebook else "*.json"
    records = []
    for path in sorted(folder.glob(pattern)):
        if path.name.startswith("."):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as fault:
            raise RecordError(f"{scale}/records/{path.name} is not UTF-8; delete it and run its notebook") from fault
        records.append(read(text, path))
    _same_settings(records)
    return sorted(records, key=lambda r: (r["notebook"], json.dumps(r["identity"], sort_keys=True), r["seed"]))


def _same_settings(records: list[dict]) -> None:
    # An average over seeds of two different settings is a number of nothing.
    first: dict[tuple, dict] = {}
    for record in records:
        group = (record["notebook"], json.dumps(record["identity"], sort_keys=True))
        other = first.setdefault(group, record)
        if other["settings_sha256"] != record["settings_sha256"]:
            names = sorted(
                name for name in other["parameters"].keys() | record["parameters"].keys()
                if name != "seed" and other["parameters"].get(name) != record["parameters"].get(name)
            )
            raise RecordError(
                f"records {other['notebook']}--{other['key']} and {record['key']} of scale {record['scale']} differ in "
                f"{', '.join(names)}; seeds that are averaged must share their settings: run one of them again, or "
                "delete its file"
            )


def long_form(records: list[dict]) -> pd.DataFrame:
    """Return one row per metric: COLUMNS, a column per label ("" where absent), then `parameters.<name>` (scalars)."""
    rows, labels, parameters = [], set(), set()
    for record in records:
        named = record["identity"].get("dataset") or (record["data"][0]["name"] if len(record["data"]) == 1 else "")
        scalars = {
            f"parameters.{name}": value for name, value in record["parameters"].items()
            if value is None or isinstance(value, (str, int, float))
        }
        parameters |= scalars.keys()
        for timing, part in ((False, "metrics"), (True, "timings")):
            for entry in record[part]:
                labels |= entry["labels"].keys()
                rows.append(
                    {
                        "notebook": record["notebook"], "scale": record["scale"], "dataset": str(named),
                        "seed": record["seed"], "key": record["key"], "settings": record["settings_sha256"][:12],
                        "name": entry["name"], "value": entry["value"], "reason": entry["reason"] or "",
                        "timing": timing, **scalars, **entry["labels"],
                    }
                )
    own = [name for name in sorted(labels) if name != "dataset"]
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *own, *sorted(parameters)])
    frame["value"] = frame["value"].astype(float)
    frame["timing"] = frame["timing"].astype(bool)
    frame[own] = frame[own].fillna("").astype(str)
    return frame


def load_records(notebook: str | None = None, scale: str = "standard") -> pd.DataFrame:
    """Return the long form of the records of a scale; an empty frame with the same columns when there is none."""
    return long_form(read_records(notebook, scale))


def privacy_table(records: list[dict]) -> pd.DataFrame:
    """Return one row per notebook, data set and labels: the whole privacy statement, epsilon the largest over seeds.

    Where epsilon is infinite nothing was bounded: "–" for the adjacency, sampling, accountant and delta of no bound.
    """
    rows: dict[tuple, dict] = {}
    for record in records:
        named = record["identity"].get("dataset", "")
        for entry in record["privacy"]:
            labels = {"dataset": str(named)} | entry["labels"]
            told = entry["statement"]
            outside = sorted({o["what"] for o in record["outside"] if o["labels"].items() <= entry["labels"].items()})
            spent = float(told["epsilon"])
            place = (record["notebook"], *sorted(labels.items()))
            row = rows.setdefault(place, {**labels, "spent": spent} | {
                name: told[name] for name in ("unit", "adjacency", "sampling", "accountant", "delta")
            } | {"outside": "; ".join(outside)})
            row["spent"] = max(row["spent"], spent)
    for row in rows.values():
        if row["spent"] == math.inf:
            row |= dict.fromkeys(("adjacency", "sampling", "accountant", "delta"), "–")
    frame = pd.DataFrame([rows[place] for place in sorted(rows)])
    return frame.fillna("") if len(frame) else frame
