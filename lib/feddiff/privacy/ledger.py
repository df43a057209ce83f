"""The privacy ledger of a federation: what every client spent, in one place, over the whole run.

It outlives rounds and checkpoints (JSON), composes training steps with one-shot releases, and states epsilon with its
unit, adjacency, sampling, delta and accountant. Over clients that hold disjoint records the guarantee is the maximum
(parallel composition, McSherry 2009; it stays valid when every update depends on the broadcast model). The maximum
fails for a person with rows at several clients (`declare_overlap`: their spending composes) and for replace-one when
the replacement may sit at another client (`replacement="across"`: two clients compose).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from feddiff.privacy.arguments import accountant_of, adjacency_of, count, delta_of, real
from feddiff.privacy.pld import rdp_epsilon, workload_epsilon
from feddiff.privacy.workload import Workload

_FORMAT = "feddiff privacy ledger 1"
_GROUPS = ("pld", "add-remove")


@dataclass(frozen=True)
class Event:
    """One entry: "sgm" (sample_rate, noise, steps), "gaussian" (noise over sensitivity), "pure" (epsilon), "delta"."""

    kind: str
    what: str
    noise: float | None = None
    sample_rate: float | None = None
    steps: int | None = None
    epsilon: float | None = None
    delta: float | None = None

    def add_to(self, workload: Workload, records: int) -> None:
        """Add the event to `workload`, for a person with `records` rows."""
        if self.kind == "sgm":
            workload.add_sampled(
                sample_rate=self.sample_rate, noise_multiplier=self.noise, steps=self.steps, records=records
            )
        elif self.kind == "gaussian":
            workload.add_gaussian(noise_over_sensitivity=self.noise, records=records)
        elif self.kind == "pure":
            workload.add_pure(epsilon=self.epsilon, records=records)
        else:
            workload.add_delta(delta=self.delta, records=records)


class PrivacyLedger:
    """Events per client and the epsilon they add up to; units and rules in `statement()`."""

    def __init__(
        self,
        *,
        clients: Sequence[str],
        delta: float,
        unit: str = "record",
        adjacency: str = "add-remove",
        accountant: str = "pld",
        replacement: str = "within",
    ):
        """Open an empty ledger; `unit` names what one row is ("record", "client", "image", ...).

        `replacement` matters for replace-one only: "within" one client, or "across" clients.
        """
        if isinstance(clients, str) or not clients or not all(isinstance(name, str) for name in clients):
            raise ValueError(f"clients must be a non-empty list of names, got {clients!r}")
        if len(set(clients)) != len(clients):
            raise ValueError(f"clients must have distinct names, got {list(clients)}")
        if not isinstance(unit, str) or not unit:
            raise ValueError(f"unit must name what one row is, for example 'record'; got {unit!r}")
        if accountant_of(accountant) == "prv":
            raise ValueError("accountant 'prv' cannot compose releases of several kinds; use 'pld' or 'rdp'")
        if replacement not in ("within", "across"):
            raise ValueError(f"replacement must be 'within' or 'across', got {replacement!r}")
        self.delta, self.unit = delta_of(delta), unit
        self.adjacency, self.accountant, self.replacement = adjacency_of(adjacency), accountant, replacement
        self._events: dict[str, list[Event]] = {name: [] for name in clients}
        self._outside: list[str] = []
        self._overlaps: list[dict[str, int]] = []

    @property
    def clients(self) -> tuple[str, ...]:
        """The clients, in the order of the constructor."""
        return tuple(self._events)

    def events(self, client: str) -> tuple[Event, ...]:
        """Return the events of `client`, oldest first."""
        return tuple(self._events[self._known(client)])

    def _known(self, client: str) -> str:
        if client not in self._events:
            raise ValueError(f"client {client!r} is not in this ledger; it holds {', '.join(self._events)}")
        return client

    def spend_sgm(self, client: str, *, sample_rate: float, noise_multiplier: float, steps: int) -> None:
        """Record Poisson-subsampled Gaussian steps of `client`; `sample_rate` is B over the client's own rows."""
        event = Event(
            "sgm",
            "DP-SGD steps",
            noise=real("noise_multiplier", noise_multiplier),
            sample_rate=real("sample_rate", sample_rate, high=1.0),
            steps=count("steps", steps),
        )
        history = self._events[self._known(client)]
        if history and replace(history[-1], steps=event.steps) == event:
            history[-1] = replace(event, steps=history[-1].steps + event.steps)
        else:
            history.append(event)

    def spend_gaussian(self, client: str, *, noise_over_sensitivity: float, what: str) -> None:
        """Record one Gaussian release; sensitivity = L2 change when one row is added or removed."""
        noise = real("noise_over_sensitivity", noise_over_sensitivity)
        self._events[self._known(client)].append(Event("gaussian", _text("what", what), noise=noise))

    def spend_pure(self, client: str, *, epsilon: float, what: str) -> None:
        """Record one release that is epsilon-DP when one row is added or removed (doubled under replace-one)."""
        spent = real("epsilon", epsilon)
        self._events[self._known(client)].append(Event("pure", _text("what", what), epsilon=spent))

    def spend_delta(self, client: str, *, delta: float, what: str) -> None:
        """Record a release that shows a row with probability at most `delta`, and nothing otherwise.

        Such is the threshold of a stable histogram, beside its Gaussian noise. The rest of the ledger is then read at
        what is left of delta.
        """
        spent = real("delta", delta, high=1.0, open_high=True)
        self._events[self._known(client)].append(Event("delta", _text("what", what), delta=spent))

    def declare_outside(self, what: str) -> None:
        """Record something that was computed on private rows without noise: every statement says it is not covered."""
        if _text("what", what) not in self._outside:
            self._outside.append(what)

    def declare_overlap(self, records: Mapping[str, int]) -> None:
        """Declare that one person has `records[client]` rows at each of these clients: their spending composes."""
        if len(records) < 2:
            raise ValueError(f"an overlap names at least two clients, got {dict(records)}; for one client use group()")
        person = {self._known(name): count(f"records[{name!r}]", rows, low=1) for name, rows in records.items()}
        if person not in self._overlaps:
            self._overlaps.append(person)

    def epsilon(self, client: str | None = None) -> float:
        """Return the epsilon at `delta` of one client's rows, or (None) of the federation: see the module's rules."""
        if client is not None:
            return self.person({client: 1})
        worst = max(self.person({name: 1}) for name in self._events)
        worst = max([worst, *(self.person(person) for person in self._overlaps)])
        if self.adjacency == "replace-one" and self.replacement == "across":
            worst = max(worst, self._moved())
        return worst

    def group(self, records: int, client: str | None = None) -> float:
        """Return the epsilon of a person with `records` rows at `client` (None: at the worst single client).

        Exact for full-batch steps and Gaussian releases (sensitivity k); for sample rates below 1 by the mixture of
        Gaussians with binomial sensitivity, which needs accountant "pld" and adjacency "add-remove".
        """
        names = self._events if client is None else [client]
        return max(self.person({name: records}) for name in names)

    def person(self, records: Mapping[str, int]) -> float:
        """Return the epsilon of one person with `records[client]` rows at each named client (composed)."""
        return self._epsilon_of(self._workload(records, self.adjacency), self.delta)

    def _workload(self, records: Mapping[str, int], adjacency: str) -> Workload:
        workload = Workload(adjacency)
        for name, rows in records.items():
            for event in self._events[self._known(name)]:
                event.add_to(workload, count(f"records[{name!r}]", rows, low=1))
        return workload

    def _epsilon_of(self, workload: Workload, delta: float) -> float:
        if any(rows > 1 for _, _, rows in workload.sampled) and (self.accountant, workload.adjacency) != _GROUPS:
            raise ValueError(
                "several rows of one person at a sample rate below 1 need accountant 'pld' and adjacency 'add-remove' "
                f"(a mixture of Gaussians); this ledger has {self.accountant!r} and {self.adjacency!r}"
            )
        left = delta - workload.delta
        if left <= 1e-9 * delta:
            return math.inf
        # A release that shows a row with probability d also hides its absence: e^-eps = 1 - d (a rounding error).
        spent = (rdp_epsilon if self.accountant == "rdp" else workload_epsilon)(workload, left)
        return spent - math.log1p(-workload.delta)

    def _moved(self) -> float:
        # One row leaves a client and one enters another: both see an add-remove change; basic composition, delta / 2
        # each, because a removal and an addition have different loss distributions.
        halves = sorted(
            self._epsilon_of(self._workload({name: 1}, "add-remove"), self.delta / 2) for name in self._events
        )
        return sum(halves[-2:])

    def check_continues(self, previous: "PrivacyLedger") -> None:
        """Raise ValueError unless this ledger holds everything that `previous` held: a reset hides what was spent."""
        for setting in ("clients", "delta", "unit", "adjacency"):
            if getattr(self, setting) != getattr(previous, setting):
                raise ValueError(
                    f"the ledger does not continue the earlier one: {setting} was {getattr(previous, setting)!r} and "
                    f"is {getattr(self, setting)!r}"
                )
        for name, before in previous._events.items():
            now = self._events[name]
            if not _is_prefix(before, now):
                raise ValueError(
                    f"the ledger of client {name!r} was reset: earlier it held {_summary(before)}, now {_summary(now)}."
                    " Keep one ledger for the whole run (true_epsilon_of_reset_ledgers says what was really spent)"
                )
        lost = [what for what in previous._outside if what not in self._outside]
        if lost:
            raise ValueError(f"the ledger no longer states what lies outside epsilon: {', '.join(lost)}")

    def statement(self) -> dict:
        """Return the complete privacy statement as plain values (epsilon may be inf); what every record carries."""
        across = self.adjacency == "replace-one" and self.replacement == "across"
        rule = "maximum over clients with disjoint rows (parallel composition)"
        if self._overlaps:
            rule += "; composed over the clients of each declared person"
        if across:
            rule += "; sum of the two largest where a row may move between clients"
        return {
            "unit": self.unit,
            "adjacency": self.adjacency,
            "replacement": self.replacement if self.adjacency == "replace-one" else None,
            "sampling": "Poisson",
            "delta": self.delta,
            "accountant": self.accountant,
            "composition": rule,
            "epsilon": self.epsilon(),
            "clients": {
                name: {
                    "epsilon": self.epsilon(name),
                    "steps": sum(event.steps or 0 for event in events),
                    "events": [_plain(event) for event in events],
                }
                for name, events in self._events.items()
            },
            "overlaps": [{"rows": dict(person), "epsilon": self.person(person)} for person in self._overlaps],
            "outside": list(self._outside),
            "covers_everything": not self._outside,
        }

    def _state(self) -> dict:
        return {
            "format": _FORMAT,
            "delta": self.delta,
            "unit": self.unit,
            "adjacency": self.adjacency,
            "accountant": self.accountant,
            "replacement": self.replacement,
            "clients": {name: [_plain(event) for event in events] for name, events in self._events.items()},
            "overlaps": self._overlaps,
            "outside": self._outside,
        }

    def to_json(self) -> str:
        """Return the ledger as JSON text (an infinite noise multiplier as the string "inf"); exact round trip."""
        state = self._state()
        for events in state["clients"].values():
            for event in events:
                event.update({key: "inf" for key, value in event.items() if value == math.inf})
        return json.dumps(state, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "PrivacyLedger":
        """Return the ledger that `to_json` wrote; ValueError if the text is not one."""
        try:
            state = json.loads(text)
        except ValueError as error:
            raise ValueError(f"not a privacy ledger: {error}") from error
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise ValueError(f"not a privacy ledger: its format must be {_FORMAT!r}")
        settings = {key: state[key] for key in ("delta", "unit", "adjacency", "accountant", "replacement")}
        ledger = cls(clients=list(state["clients"]), **settings)
        for name, events in state["clients"].items():
            for event in events:
                values = {key: math.inf if key != "what" and value == "inf" else value for key, value in event.items()}
                ledger._events[name].append(Event(**values))
        ledger._overlaps = [dict(person) for person in state["overlaps"]]
        ledger._outside = list(state["outside"])
        return ledger

    def __eq__(self, other: object) -> bool:
        """Two ledgers are equal when their settings, events, overlaps and outside lists are."""
        return isinstance(other, PrivacyLedger) and self._state() == other._state()

    __hash__ = None

    def __repr__(self) -> str:
        """Return clients and settings, without computing an epsilon."""
        return f"PrivacyLedger(clients={list(self._events)}, delta={self.delta:g}, unit={self.unit!r})"


def true_epsilon_of_reset_ledgers(ledgers: Sequence[PrivacyLedger]) -> float:
    """Return the epsilon really spent when every round kept a fresh ledger: all of their events composed."""
    if not ledgers:
        raise ValueError("ledgers must hold at least one ledger")
    first = ledgers[0]
    whole = PrivacyLedger.from_json(first.to_json())
    for ledger in ledgers[1:]:
        if (ledger.clients, ledger.delta, ledger.adjacency) != (first.clients, first.delta, first.adjacency):
            raise ValueError("ledgers must share clients, delta and adjacency to be composed")
        for name in ledger.clients:
            whole._events[name].extend(ledger.events(name))
    return whole.epsilon()


def _is_prefix(before: list[Event], now: list[Event]) -> bool:
    if not before:
        return True
    if len(now) < len(before) or now[: len(before) - 1] != before[:-1]:
        return False
    last, same = before[-1], now[len(before) - 1]
    return replace(same, steps=last.steps) == last and (same.steps or 0) >= (last.steps or 0)


def _summary(events: Sequence[Event]) -> str:
    steps = sum(event.steps or 0 for event in events)
    return f"{steps} steps and {sum(event.kind != 'sgm' for event in events)} one-shot releases"


def _plain(event: Event) -> dict:
    return {key: value for key, value in asdict(event).items() if value is not None}


def _text(name: str, value: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must say in words what was released, got {value!r}")
    return value
