"""Bytes as counted and a simulated network: closed forms, and who waits for whom."""

import numpy as np
import pandas as pd
import pytest

from feddiff.data.silos import REFERENCE, Silo
from feddiff.experiments import silofuse_messages as messages
from feddiff.systems import silofuse

SHORT = dict(ae_steps=4, dm_steps=4, ae_batch=32, dm_batch=32, hidden=16, dm_width=16, dm_blocks=1, alarm=-100.0)


def config(**changes):
    return silofuse.ours(scale="quick", **(SHORT | changes))


def two_silos():
    values = np.random.default_rng(0).normal(size=(200, 4))
    frames = [pd.DataFrame(values[:, :2], columns=["a", "b"]), pd.DataFrame(values[:, 2:], columns=["c", "d"])]
    return [Silo(f"silo {i}", frame, dict.fromkeys(frame, "numeric")) for i, frame in enumerate(frames)]


def recorded(run, name):
    return [row["value"] for row in run._metrics.values() if row["name"] == name]


def test_bytes_are_counted_beside_the_closed_form(new_run):
    run, silos = new_run(), two_silos()
    stacked = messages.stacked_bytes(run, silos, config(), steps=4)
    joint = messages.joint_bytes(run, silos, config(joint_steps=3), steps=4)
    assert recorded(run, "bytes_expected") == [4 * 200 * 4, 16 * 32 * 4 * 3]
    assert recorded(run, "bytes_sent") == [stacked.nbytes, joint.nbytes]
    assert all(ratio > 1 for ratio in recorded(run, "bytes_over_expected"))
    assert recorded(run, "rounds") == [1, 3] and recorded(run, "messages") == [2, 24]
    assert messages.largest(stacked, "upload") > 4 * 200 * 2
    few = messages.joint_bytes(run, [silo.select(range(20)) for silo in silos], config(joint_steps=3), steps=1)
    assert few.nbytes == joint.nbytes, "batches stay as large where there are fewer rows"
    with pytest.raises(ValueError, match="no message of kind"):
        messages.largest(stacked, "gradients up")


def test_the_network_waits_once_or_four_times_a_step():
    network = messages.Network(bandwidth=8, latency=0.5, slow=3, autoencoder_step=1, diffusion_step=2, joint_step=4)
    assert network.message(1e6) == pytest.approx(1.5)  # 8 Mbit/s are a megabyte a second
    assert network.stacked(1e6, config(ae_steps=5, dm_steps=7)) == pytest.approx(5 * 3 + 1.5 + 7 * 2)
    assert network.joint(1e6, 10) == pytest.approx(10 * (4 * 1.5 + 4 * 3 + 2))


@pytest.mark.parametrize("wrong", [dict(bandwidth=0), dict(bandwidth=1, latency=-1), dict(bandwidth=1, slow=0.5)])
def test_an_impossible_network_is_refused(wrong):
    with pytest.raises(ValueError, match="bandwidth must be > 0"):
        messages.Network(**wrong)


def test_crossovers_are_those_of_the_papers_tables(new_run):
    found = messages.crossovers(new_run(), 512)
    assert found["loan"] == pytest.approx(4000 / 2048) and found["covertype"] == pytest.approx(464_810 / 2048)
    assert set(found) == set(REFERENCE)
