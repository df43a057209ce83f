"""Runs that differ in local settings alone share what the server holds; every denoiser is trained once."""

from dataclasses import replace

import pytest
import torch

from feddiff.experiments import pfdm_study as study
from feddiff.systems import pfdm


@pytest.fixture
def setting(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path))
    return study.split("digits", majority=20, minority=2, seed=0, per_class=2, progress=False)


def _config(**changes):
    return pfdm.cvpr(t0=300, network="tiny", images=128, lr=3e-3, warmup=2, **changes)


def _entries(folder, kind):
    return sorted(path.name for path in (folder / kind).glob("*.run"))


def test_a_cached_run_is_the_run_that_was_trained(setting, tmp_path):
    config = _config()
    ours = study.trained(setting, config, progress=False)
    whole = pfdm.train(setting.clients, replace(config, classes=setting.classes, seed=setting.seed), progress=False)
    again = study.trained(setting, config, progress=False)
    walk = dict(seed=0, steps=3, local_steps=3)
    for run in (ours, again):
        for client in range(2):
            same = run.sample(client, setting.labels, **walk)
            assert torch.equal(same, whole.sample(client, setting.labels, **walk))
    assert ours.nbytes == again.nbytes == whole.nbytes
    assert len(_entries(tmp_path, "pfdm")) == 1 and len(_entries(tmp_path, "pfdm-local")) == 2


def test_local_settings_do_not_train_the_server_again(setting, tmp_path):
    config = _config()
    study.trained(setting, config, first=1, progress=False)
    study.trained(setting, replace(config, balanced=True), first=1, progress=False)
    assert len(_entries(tmp_path, "pfdm")) == 1 and len(_entries(tmp_path, "pfdm-local")) == 2
    # Without a global denoiser, and on a shorter global schedule, the local one stays what it was.
    study.trained(setting, replace(config, global_images=0), first=1, progress=False)
    study.trained(setting, replace(config, stages="T - t0"), first=1, progress=False)
    assert len(_entries(tmp_path, "pfdm")) == 3 and len(_entries(tmp_path, "pfdm-local")) == 2
    study.trained(setting, replace(config, t0=200), first=1, progress=False)
    assert len(_entries(tmp_path, "pfdm")) == 4 and len(_entries(tmp_path, "pfdm-local")) == 3


def test_only_the_first_clients_train(setting):
    run = study.trained(setting, _config(), first=1, progress=False)
    assert [client.fitted for client in run.clients] == [True, False]
    assert len(run.uploads.labels) == sum(len(client) for client in run.clients)
