"""The channel between parties: it serialises every message, counts its bytes, and hands over what was deserialised.

Nothing crosses from one party to another but named numpy arrays that were really written and read back, so the byte
counts are those of the wire format (numpy's npz, uncompressed, no pickles), framing included.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Message:
    """One delivered message: who, to whom, what kind, which round, and its size in bytes."""

    sender: str
    receiver: str
    kind: str
    round: int
    nbytes: int


@dataclass
class Channel:
    """Counts and keeps a log of messages; `send` returns the receiver's own copy of the arrays."""

    log: list[Message] = field(default_factory=list)

    def send(
        self, sender: str, receiver: str, kind: str, arrays: Mapping[str, np.ndarray], *, round: int = 0
    ) -> dict[str, np.ndarray]:
        """Serialise `arrays`, log the message, and return what the receiver reads."""
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype == object:
                raise TypeError(
                    f"message {kind!r}, entry {name!r}: only numeric or boolean numpy arrays can be sent, got "
                    f"{type(array).__name__}; convert it first"
                )
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self.log.append(Message(sender, receiver, kind, round, buffer.tell()))
        buffer.seek(0)
        with np.load(buffer, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def nbytes(self, *, sender: str | None = None, receiver: str | None = None, kind: str | None = None) -> int:
        """Return the bytes sent, optionally of one sender, receiver or kind of message."""
        return sum(
            m.nbytes
            for m in self.log
            if (sender is None or m.sender == sender)
            and (receiver is None or m.receiver == receiver)
            and (kind is None or m.kind == kind)
        )
