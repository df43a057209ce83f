"""Pictures beside a record: what is written is what is read, and foreign files are refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from feddiff.experiments import pictures, records


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDDIFF_RESULTS", str(tmp_path))
    return records.start(notebook="20_toy", scale="quick", parameters={"dataset": "digits"}, seed=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip_keeps_every_byte_and_the_order_of_rows(run, channels):
    levels = np.random.default_rng(0).integers(0, 256, (2, 5, channels, 4, 6))
    given = torch.from_numpy(levels / 127.5 - 1).float()
    path = pictures.save(run, "samples", {"real": given[0], "a model": given[1]})
    assert path.name == "20_toy--dataset=digits,seed=3--samples.png"
    first = path.read_bytes()
    found = pictures.load("20_toy", "quick", run.key, "samples")
    assert list(found) == ["real", "a model"]
    for row, name in enumerate(found):
        assert np.array_equal(found[name], levels[row].transpose(0, 2, 3, 1))
    pictures.save(run, "samples", {"real": given[0], "a model": given[1]})
    assert path.read_bytes() == first


def test_bad_rows_are_refused(run):
    one = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="one shape"):
        pictures.save(run, "samples", {"a": one, "b": one[:1]})
    with pytest.raises(ValueError, match="no row"):
        pictures.save(run, "samples", {})
    with pytest.raises(ValueError, match="1 or 3 channels"):
        pictures.save(run, "samples", {"a": torch.zeros(2, 2, 4, 4)})
    with pytest.raises(ValueError, match="lower case"):
        pictures.save(run, "My samples", {"a": one})


def test_a_foreign_picture_is_refused(run):
    path = pictures.path_of("20_toy", "quick", run.key, "samples")
    with pytest.raises(FileNotFoundError):
        pictures.load("20_toy", "quick", run.key, "samples")
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    with pytest.raises(ValueError, match="not written by this library"):
        pictures.load("20_toy", "quick", run.key, "samples")
