"""One run, one record: results/<scale>/records/<notebook>--<key>.json.

A record has two halves. Everything outside the block `run` is a pure function of code, parameters and seed; the block
`run` (times, machine, versions, memory) and the list `timings` differ from run to run, and no table or figure of
results reads them (timings have a table of their own). Tables and figures are rebuilt from records alone.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath, PureWindowsPath
from time import perf_counter

from feddiff.experiments import files, provenance, scales
from feddiff.experiments.frames import load_records, read_records
from feddiff.experiments.schema import LABELS_RESERVED, SCHEMA, read

__all__ = ["Run", "clean", "key_of", "label_text", "load_records", "read_records", "start"]

_NOTEBOOK = re.compile(r"[0-9]{2}_[a-z0-9_]+")
# Without each of these an epsilon means nothing.
_STATEMENT = ("unit", "adjacency", "sampling", "delta", "accountant", "epsilon")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _shorten(text: str) -> str:
    # A record travels; the folders of the machine that made it do not.
    if PurePosixPath(text).is_absolute():
        return PurePosixPath(text).name
    if PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name
    return text


def clean(value, where: str):
    """Return `value` as plain JSON (numpy scalars converted, infinity as "inf", absolute paths as file names)."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return _shorten(value)
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError(f"{where} is NaN; record None with a reason, or mend the computation")
        return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, (list, tuple)):
        return [clean(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {str(name): clean(item, f"{where}.{name}") for name, item in value.items()}
    raise TypeError(f"{where} has type {type(value).__name__}; a record takes numbers, text, lists and dictionaries")


def label_text(value) -> str:
    """Return the text of a label: 1.0 and 1 are "1", infinity is "inf", so that runs agree on a name."""
    value = clean(value, "label")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"a label must be text or a number, got {value!r}")
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def key_of(identity: dict, seed: int) -> str:
    """Return the readable key of a run, e.g. "dataset=adult,seed=0"; safe as part of a file name."""
    parts = [f"{name}={label_text(value)}" for name, value in sorted(identity.items())]
    text = ",".join([*parts, f"seed={seed}"])
    safe = re.sub(r"[^A-Za-z0-9=,._+-]+", "-", text)
    # Two names that clean to the same text, or a very long one, must not share a file.
    return safe if safe == text and len(safe) <= 100 else f"{safe[:90]}-{_digest(text)[:8]}"


@dataclass
class Run:
    """A run under way; filled by `data`, `metric`, `privacy`, `outside`, `note`, and written once by `save`."""

    notebook: str
    scale: str
    seed: int
    identity: dict
    parameters: dict
    key: str
    device: str
    bytes_sent: int | None = None
    _data: list[dict] = field(default_factory=list)
    _metrics: dict[tuple, dict] = field(default_factory=dict)
    _privacy: list[dict] = field(default_factory=list)
    _outside: list[dict] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    # Taken now: a commit made while the run is under way is not the code that it runs.
    _code: dict = field(default_factory=lambda: provenance.code())
    _started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    _clock: float = field(default_factory=perf_counter)

    def data(self, table) -> None:
        """Note a data set: an object with `name`, `sha256`, `source` and a length (a Table or an ImageSet)."""
        row = {"name": _shorten(table.name), "sha256": table.sha256, "rows": len(table), "source": table.source}
        if row not in self._data:
            self._data.append(row)

    def metric(self, name: str, value, *, reason: str | None = None, **labels) -> None:
        """Note one number under its labels (method, epsilon, dataset, classifier, client, ...).

        A value is finite, or None with the `reason` why there is none. Names that are `seconds` or end in `_seconds`
        are timings and kept apart. The same name and labels twice with another value is a ValueError.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"metric name {name!r} must be lower case words joined by underscores")
        taken = sorted(LABELS_RESERVED & set(labels))
        if taken:
            raise ValueError(f"metric {name}: {', '.join(taken)} cannot be labels; records use these names themselves")
        texts = {label: label_text(text) for label, text in sorted(labels.items())}
        where = f"metric {name} ({', '.join(f'{label}={text}' for label, text in texts.items()) or 'no labels'})"
        if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
            value = value.item()
        if value is None and not reason:
            raise ValueError(f"{where} is None; say why with reason=")
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{where} must be a number or None, got {type(value).__name__}")
            if not math.isfinite(value):
                raise ValueError(f"{where} is {value}; record None and say why with reason=")
            reason = None
        row = {"name": name, "value": value, "labels": texts, "reason": reason}
        place = (name, *texts.items())
        if self._metrics.get(place, row) != row:
            raise ValueError(f"{where} was already recorded with another value; add a label, or start the run anew")
        self._metrics[place] = row

    def metrics(self, frame, *, labels: list[str], reason: str | None = None, **more) -> None:
        """Note a wide frame: columns `labels` are labels, every other column is a metric; NaN needs a `reason`."""
        names = [column for column in frame.columns if column not in labels]
        for row in frame.to_dict("records"):
            own = {label: row[label] for label in labels} | more
            for name in names:
                missing = row[name] is None or row[name] != row[name]
                self.metric(name, None if missing else row[name], reason=reason, **own)

    def privacy(self, statement: dict, **labels) -> None:
        """Note a whole privacy statement (unit, adjacency, sampling, delta, accountant, epsilon) under its labels."""
        missing = [name for name in _STATEMENT if name not in statement]
        if missing:
            raise ValueError(f"privacy statement lacks {', '.join(missing)}; a bare epsilon means nothing")
        texts = {label: label_text(text) for label, text in sorted(labels.items())}
        self._privacy.append({"labels": texts, "statement": clean(statement, "privacy")})
        for what in statement.get("outside", ()):
            self.outside(what, **labels)

    def outside(self, what: str, **labels) -> None:
        """Note something fitted on private rows with no budget: it lies outside every epsilon of this run."""
        row = {"labels": {label: label_text(text) for label, text in sorted(labels.items())}, "what": str(what)}
        if row not in self._outside:
            self._outside.append(row)

    def note(self, text: str) -> None:
        """Note a sentence for the reader of the record."""
        self._notes.append(_shorten(str(text)))

    def _record(self) -> dict:
        settings = {name: value for name, value in self.parameters.items() if name not in {"seed", *self.identity}}
        ordered = [self._metrics[place] for place in sorted(self._metrics)]
        timed = [row["name"] == "seconds" or row["name"].endswith("_seconds") for row in ordered]
        return {
            "schema": SCHEMA,
            "notebook": self.notebook,
            "scale": self.scale,
            "key": self.key,
            "seed": self.seed,
            "identity": self.identity,
            "parameters": self.parameters,
            "settings_sha256": _digest(settings),
            "data": self._data,
            "metrics": [row for row, timing in zip(ordered, timed, strict=True) if not timing],
            "timings": [row for row, timing in zip(ordered, timed, strict=True) if timing],
            "privacy": self._privacy,
            "outside": self._outside,
            "bytes_sent": clean(self.bytes_sent, "bytes_sent"),
            "notes": self._notes,
            "run": {
                "code": self._code,
                **provenance.machine(self.device),
                "started": self._started,
                "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "seconds": round(perf_counter() - self._clock, 3),
                "peak_memory_bytes": provenance.peak_memory_bytes(),
            },
        }

    def save(self) -> Path:
        """Write the record atomically and return its path; refuses a run without a metric."""
        if not self._metrics:
            raise ValueError(f"the run {self.notebook} ({self.key}) has no metric; record at least one before save()")
        path = scales.records_folder(self.scale) / f"{self.notebook}--{self.key}.json"
        text = json.dumps(self._record(), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        read(text, path)
        files.write_text(path, text)
        if self.scale == "quick":
            _clear_other_settings(path)
        return path


def _clear_other_settings(path: Path) -> None:
    """Remove quick records that differ from `path` in a setting: quick is a scratch pad and holds one setting."""
    own = read(path.read_text(encoding="utf-8"), path)
    for other in sorted(path.parent.glob(f"{own['notebook']}--*.json")):
        try:
            record = read(other.read_text(encoding="utf-8"), other)
        except FileNotFoundError:
            # A run beside this one cleared it first.
            continue
        if record["identity"] == own["identity"] and record["settings_sha256"] != own["settings_sha256"]:
            other.unlink(missing_ok=True)


def start(
    *, notebook: str, scale: str, parameters: dict, seed: int, identify: tuple[str, ...] = ("dataset",),
    device: str = "cpu",
) -> Run:
    """Start the record of one run.

    `parameters` are the notebook's; those named in `identify` (where present) and the seed make the key of the record,
    the others are its settings: the seeds that are averaged must share them.
    """
    if not _NOTEBOOK.fullmatch(notebook):
        raise ValueError(f'notebook must be a stem such as "10_findiff_privacy_budget", got {notebook!r}')
    scales.check(scale)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
    for name, own in (("seed", seed), ("scale", scale)):
        if parameters.get(name, own) != own:
            raise ValueError(f"parameters say {name} = {parameters[name]!r}, the run says {own!r}; give one value")
    raw = {name: value for name, value in parameters.items() if name != "scale"}
    kept = clean(raw, "parameters")
    identity = {name: kept[name] for name in identify if name in kept}
    key = key_of(identity, seed)
    # Of a user's own file only the name is kept; the digest of its path tells two files of one name apart.
    shortened = {name: str(raw[name]) for name in identity if str(raw[name]) != str(kept[name])}
    if shortened:
        key = f"{key}-{_digest(shortened)[:8]}"
    return Run(
        notebook=notebook, scale=scale, seed=seed, identity=identity, parameters=kept, key=key, device=device
    )
