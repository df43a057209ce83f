"""Silos in processes of their own: the same messages, byte for byte, and the same result as in one process."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feddiff.data.silos import Silo
from feddiff.federation.channel import Channel
from feddiff.seeds import numpy_generator
from feddiff.systems import silofuse, silofuse_processes
from feddiff.systems.silofuse_processes import packed, unpacked

CONFIG = silofuse.SiloFuseConfig(
    hidden=16, ae_steps=12, ae_batch=32, dm_width=16, dm_blocks=1, dm_steps=12, dm_batch=32, T=20, sample_steps=5,
    alternations=1, alarm=-1e9,
)


def silos():
    g = numpy_generator(0, "process table")
    first = pd.DataFrame({"height": g.normal(size=80), "bracket": g.choice(["low", "high"], 80)})
    second = pd.DataFrame({"member": g.random(80) < 0.5})
    return [Silo("silo 0", first, {"height": "numeric", "bracket": "categorical"}),
            Silo("silo 1", second, {"member": "boolean"})]


def test_a_message_is_what_the_channel_counts_and_is_never_a_pickle():
    z = np.arange(6, dtype=np.float32).reshape(3, 2)
    channel = Channel()
    channel.send("a", "b", "upload", {"z": z})
    assert len(packed({"z": z})) == channel.nbytes()
    np.testing.assert_array_equal(unpacked(packed({"z": z}))["z"], z)
    with pytest.raises(ValueError):
        unpacked(pickle.dumps({"z": z}))
    with pytest.raises(ValueError):
        packed({"z": np.array([object()])})


@pytest.mark.slow
def test_processes_send_the_same_bytes_and_make_the_same_table():
    here = silofuse.train(silos(), CONFIG, progress=False)
    with silofuse_processes.train(silos(), CONFIG, progress=False) as there:
        assert there.channel.log == here.channel.log
        for name, z in here.latents.items():
            np.testing.assert_array_equal(there.coordinator.latents[name], z)
        pd.testing.assert_frame_equal(there.sample(25, seed=3), here.sample(25, seed=3))
        assert there.nbytes == here.nbytes
        pd.testing.assert_frame_equal(there.reconstruction(), here.reconstruction())
        workers = [silo._process for silo in there._silos.values()]
        assert all(worker.is_alive() for worker in workers)
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.slow
def test_messages_longer_than_a_pipe_holds_cross_in_both_directions():
    rows = 40_000  # 4 bytes a row and latent; a pipe holds some 64 to 200 KiB
    g = numpy_generator(1, "long table")
    long = [Silo(f"silo {k}", pd.DataFrame({f"a{k}": g.normal(size=rows), f"b{k}": g.normal(size=rows)}),
                 {f"a{k}": "numeric", f"b{k}": "numeric"}) for k in range(2)]
    with silofuse_processes.train(long, CONFIG, progress=False) as there:
        assert [message.kind for message in there.channel.log] == ["upload"] * 2 + ["denoised"] * 2 + ["upload"] * 2
        assert min(message.nbytes for message in there.channel.log) > 300_000
        assert len(there.sample(rows, seed=0)) == rows


@pytest.mark.slow
def test_an_error_of_a_silo_is_raised_here_and_ends_all_processes():
    first, second = silos()
    broken = replace(first, frame=first.frame.assign(height=np.nan))
    with pytest.raises(ValueError, match="silo 0: column 'height': every value is missing"):
        silofuse_processes.train([broken, second], CONFIG, progress=False)


def test_wrong_silos_are_refused_before_a_process_starts():
    with pytest.raises(ValueError, match="does not fit"):
        silofuse_processes.ProcessFederation(silos(), CONFIG, columns=["height"])
