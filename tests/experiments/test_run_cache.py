"""The cache of trained runs: hits when nothing changed, trains again when something did, trusts no damaged file."""

import dataclasses
import hashlib
import json
import logging
import math
import pickle

import pytest
import torch

from feddiff.experiments import cache, sources


@dataclasses.dataclass(frozen=True)
class Config:
    lr: float = 0.1
    clip: float = math.inf
    hidden: tuple[int, ...] = (4, 4)


CODE = ["feddiff.seeds"]


class Build:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"weights": {"a": torch.arange(3.0) + self.calls}, "history": [{"loss": 0.5}], "name": "x", "none": None}


@pytest.fixture
def build():
    return Build()


def entry_file():
    (path,) = cache.folder().rglob("*.run")
    return path


def test_second_call_returns_the_same_without_training(build):
    first = cache.cached("findiff", Config(), "data", build, code=CODE)
    second = cache.cached("findiff", Config(), "data", build, code=CODE)
    assert (first.hit, second.hit, build.calls) == (False, True, 1)
    assert torch.equal(first.state["weights"]["a"], second.state["weights"]["a"])
    plain = {name: value for name, value in second.state.items() if name != "weights"}
    assert plain == {"history": [{"loss": 0.5}], "name": "x", "none": None}
    assert second.seconds == first.seconds


@pytest.mark.parametrize("change", ["kind", "config", "type", "data", "code"])
def test_any_change_trains_again(build, change):
    cache.cached("findiff", Config(), "data", build, code=CODE)
    other = {
        "kind": ("other", Config(), "data", CODE), "config": ("findiff", Config(lr=0.2), "data", CODE),
        "type": ("findiff", dataclasses.asdict(Config()), "data", CODE), "data": ("findiff", Config(), "data2", CODE),
        "code": ("findiff", Config(), "data", ["feddiff.experiments.files"]),
    }[change]
    cache.cached(*other[:3], build, code=other[3])
    assert build.calls == 2


def test_code_that_matters_is_what_the_module_imports(tmp_path, monkeypatch):
    package = tmp_path / "feddiff"
    (package / "low").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "low" / "__init__.py").write_text("")
    (package / "low" / "a.py").write_text("VALUE = 1\n")
    (package / "low" / "other.py").write_text("VALUE = 1\n")
    (package / "top.py").write_text('"""Doc."""\nfrom feddiff.low import a\n')
    (package / "relative.py").write_text("from .low.a import VALUE\n")
    monkeypatch.setattr(sources, "_PACKAGE", package)
    sources._module.cache_clear()
    assert set(cache.code_closure(["feddiff.top"])) == {"feddiff", "feddiff.low", "feddiff.low.a", "feddiff.top"}
    assert "feddiff.low.a" in cache.code_closure(["feddiff.relative"])
    key = cache.key("k", {}, "d", ["feddiff.top"])
    sources._module.cache_clear()
    (package / "low" / "other.py").write_text("VALUE = 2\n")
    (package / "top.py").write_text('"""Another text."""\n# why\nfrom feddiff.low import a\n')
    assert cache.key("k", {}, "d", ["feddiff.top"]) == key, "comments and unrelated modules do not matter"
    sources._module.cache_clear()
    (package / "low" / "a.py").write_text("VALUE = 2\n")
    assert cache.key("k", {}, "d", ["feddiff.top"]) != key
    monkeypatch.undo()
    sources._module.cache_clear()


def flip(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def foreign(content: bytes) -> bytes:
    first, head, rest = content.split(b"\n", 2)
    return b"\n".join([first, json.dumps(json.loads(head) | {"key": "0" * 64}).encode(), rest])


def malicious(content: bytes) -> bytes:
    payload = pickle.dumps(print, protocol=2)
    first, head, _ = content.split(b"\n", 2)
    return b"\n".join(
        [first, json.dumps(json.loads(head) | {"sha256": hashlib.sha256(payload).hexdigest()}).encode(), payload]
    )


@pytest.mark.parametrize("damage", [flip, foreign, malicious, lambda c: c[:40], lambda c: b"", lambda c: c[:-100]])
def test_damaged_and_foreign_entries_are_trained_again_with_a_warning(build, caplog, damage):
    cache.cached("findiff", Config(), "data", build, code=CODE)
    path = entry_file()
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = cache.cached("findiff", Config(), "data", build, code=CODE)
    assert not again.hit and build.calls == 2 and "training again" in caplog.text
    assert cache.cached("findiff", Config(), "data", build, code=CODE).hit, "the bad entry was replaced"


def test_fresh_trains_again(build, monkeypatch):
    cache.cached("findiff", Config(), "data", build, code=CODE)
    monkeypatch.setenv("FEDDIFF_FRESH", "1")
    assert not cache.cached("findiff", Config(), "data", build, code=CODE).hit and build.calls == 2


def test_a_failed_training_leaves_nothing(build):
    with pytest.raises(ZeroDivisionError):
        cache.cached("findiff", Config(), "data", lambda: 1 / 0, code=CODE)
    assert not cache.cached("findiff", Config(), "data", build, code=CODE).hit


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("Kind!", {}, "d", dict, CODE), ValueError, "kind"), (("k", 3, "d", dict, CODE), TypeError, "config"),
        (("k", {"x": torch.ones(1, 2)}, "d", dict, CODE), TypeError, "config.x"),
        (("k", {}, "", dict, CODE), ValueError, "data_sha"),
        (("k", {}, "d", list, CODE), TypeError, "dictionary"),
        (("k", {}, "d", lambda: {"model": torch.nn.Linear(1, 1)}, CODE), TypeError, "state.model has type Linear"),
        (("k", {}, "d", dict, ["feddiff.nothing"]), ValueError, "feddiff.nothing"),
        (("k", {}, "d", dict, ["os"]), ValueError, "os"),
    ],
)
def test_bad_arguments(arguments, error, words):
    *rest, code = arguments
    with pytest.raises(error, match=words):
        cache.cached(*rest, code=code)
