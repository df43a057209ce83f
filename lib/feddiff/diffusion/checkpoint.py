"""Checkpoint of one training: one file, written atomically, refused when it belongs to another training."""

import os
import pickle
from pathlib import Path

import torch


def save(path: Path, state: dict, fingerprint: str) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) and the fingerprint of its training to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    torch.save({"fingerprint": fingerprint, "state": state}, part)
    os.replace(part, path)


def load(path: Path, fingerprint: str) -> dict:
    """Return the state at `path`, on the CPU; a file of another training is an error."""
    try:
        payload = torch.load(path, weights_only=True, map_location="cpu")
        found, state = payload["fingerprint"], payload["state"]
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error}); delete it to start anew") from error
    if found != fingerprint:
        raise ValueError(
            f"{path} is the checkpoint of another training (configuration, seed, network or data differ); delete it "
            "or name another file"
        )
    return state
