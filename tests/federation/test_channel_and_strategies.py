"""The byte-counting channel and the server optimisers."""

import io

import numpy as np
import pytest
import torch

from feddiff.federation.channel import Channel
from feddiff.federation.rounds import participation
from feddiff.federation.strategies import Server, Strategy


def test_channel_delivers_an_independent_copy_and_counts_what_numpy_would_write():
    channel, sent = Channel(), {"weights": np.arange(10, dtype=np.float32), "rows": np.array(3)}
    received = channel.send("client-0", "server", "update", sent, round=4)
    sent["weights"][0] = 99
    assert received["weights"][0] == 0 and received["weights"].dtype == np.float32 and received["rows"] == 3
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.arange(10, dtype=np.float32), rows=np.array(3))
    assert channel.nbytes() == len(buffer.getvalue()) and channel.log[0].round == 4


def test_channel_payload_grows_by_the_size_of_the_array_and_totals_split_by_party():
    channel = Channel()
    channel.send("a", "server", "update", {"w": np.zeros(1000, np.float32)})
    channel.send("b", "server", "update", {"w": np.zeros(3000, np.float32)})
    assert channel.nbytes(sender="b") - channel.nbytes(sender="a") == 8000
    assert channel.nbytes(receiver="server", kind="update") == channel.nbytes() and channel.nbytes(kind="other") == 0


@pytest.mark.parametrize("value", ["text", [1, 2], np.array([{}], dtype=object), torch.zeros(2)])
def test_channel_refuses_what_is_not_a_plain_array_and_names_the_entry(value):
    channel = Channel()
    with pytest.raises(TypeError, match="'update', entry 'w'"):
        channel.send("a", "server", "update", {"w": value})
    assert channel.log == []


def _updates():
    return torch.tensor([1.0, -2.0, 0.5]), [torch.tensor([2.0, -2.0, 0.0]), torch.tensor([4.0, 0.0, 0.5])], [100, 300]


def test_fedavg_is_the_row_weighted_mean():
    start, updates, rows = _updates()
    server = Server(Strategy(), start)
    move = server.aggregate(updates, rows)
    assert torch.allclose(server.weights, torch.tensor([3.5, -0.5, 0.375]))
    assert move == pytest.approx(float((server.weights - start).norm()))


@pytest.mark.parametrize("name", ["FedAdam", "FedYogi"])
def test_adaptive_servers_follow_the_algorithm_of_reddi_et_al(name):
    start, updates, rows = _updates()
    strategy = Strategy(name=name, server_lr=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3)
    server = Server(strategy, start)
    weights, m, v = start.double().numpy(), np.zeros(3), np.full(3, 1e-6)
    for _ in range(3):
        delta = sum(n / 400 * (u.double().numpy() - weights) for n, u in zip(rows, updates))
        m = 0.9 * m + 0.1 * delta
        if name == "FedAdam":
            v = 0.99 * v + 0.01 * delta**2
        else:
            v = v - 0.01 * delta**2 * np.sign(v - delta**2)
        weights = weights + 0.1 * m / (np.sqrt(v) + 1e-3)
        server.aggregate(updates, rows)
    assert np.allclose(server.weights.numpy(), weights, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"name": "FedSGD"}, "strategy"), ({"name": "FedProx"}, "proximal > 0"), ({"proximal": 0.1}, "belongs to FedProx")],
)
def test_impossible_strategies_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Strategy(**options)


def test_participation_is_fixed_by_the_seed_has_the_size_and_covers_everyone():
    one, two = participation(5, 200, 0.5, seed=1), participation(5, 200, 0.5, seed=1)
    assert one == two != participation(5, 200, 0.5, seed=2)
    assert all(len(chosen) == 3 and len(set(chosen)) == 3 for chosen in one)
    counts = np.bincount(np.concatenate(one), minlength=5)
    assert counts.min() > 200 * 0.6 - 4 * np.sqrt(200 * 0.24) and counts.max() < 200 * 0.6 + 4 * np.sqrt(200 * 0.24)
    assert participation(3, 2, 1.0, seed=0) == [(0, 1, 2), (0, 1, 2)]
    with pytest.raises(ValueError, match="participation"):
        participation(5, 10, 0.0, seed=0)
