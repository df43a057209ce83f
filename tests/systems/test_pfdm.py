"""PFDM end to end on small pictures: who sees what, how often noise is drawn, statements, reuse, bad input."""

import gc
import math
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from feddiff.diffusion.autoencoder import ConvAutoencoder
from feddiff.privacy.noise import GaussianNoise
from feddiff.seeds import torch_generator
from feddiff.systems import baselines_images, pfdm
from feddiff.systems.image_denoisers import Denoiser
from feddiff.systems.pfdm_parties import PFDMClient

SMALL = dict(T=50, beta_1=0.002, beta_T=0.3, t0=20, images=24, batch=8, warmup=1, ema=0.5, network="tiny")
CONFIG = pfdm.cvpr(C=4.0, **SMALL)


def pictures(n, classes=3, stream="pictures", side=8, channels=1):
    labels = torch.arange(n) % classes
    x = torch.rand(n, channels, side, side, generator=torch_generator(0, stream)) * 2 - 1
    return x, labels


def clients():
    return [pictures(30, stream="one"), pictures(21, stream="two")]


def train(config=CONFIG, members=None, **options):
    return pfdm.train(clients() if members is None else members, config, progress=False, **options)


class Constant:
    """A model of clean pictures that are all grey."""

    def sample(self, labels, *, seed):
        return torch.zeros(len(labels), 1, 8, 8)


@pytest.fixture(scope="module")
def run():
    return train()


@pytest.fixture
def untrained(monkeypatch):
    """Trainings that do nothing, for tests of what happens around them."""
    monkeypatch.setattr(Denoiser, "fit", lambda self, *args, **options: None)


def test_samples_are_pictures_in_range_and_repeat_with_the_seed(run):
    labels = [0, 1, 2, 2]
    x = run.sample(0, labels, seed=1, steps=4, local_steps=4)
    assert x.shape == (4, 1, 8, 8) and x.dtype == torch.float32 and float(x.abs().max()) <= 1
    assert torch.equal(x, run.sample("client-0", labels, seed=1, steps=4, local_steps=4))
    assert not torch.equal(x, run.sample(0, labels, seed=2, steps=4, local_steps=4))
    assert not torch.equal(x, run.sample(1, labels, seed=1, steps=4, local_steps=4))


def test_every_start_of_the_ladder_gives_pictures_and_shares_the_local_noise(run):
    drawn = {}
    for start in pfdm.STARTS:
        extra = dict(reference=Constant()) if start == "clean_global" else {}
        drawn[start] = run.sample(0, [0, 1], seed=0, start=start, steps=3, local_steps=3, **extra)
        assert drawn[start].shape == (2, 1, 8, 8)
    assert len({tuple(x.flatten().tolist()) for x in drawn.values()}) == len(pfdm.STARTS)


def test_only_the_chosen_clients_train_but_all_upload_and_nothing_else_changes(run):
    some = train(fit_clients=(1,))
    assert [client.fitted for client in some.clients] == [False, True] and some.budget["client-0"] == 0
    assert set(some.history["model"]) == {"client-1", "global"} and some.nbytes == run.nbytes
    assert torch.equal(some.uploads.images, run.uploads.images)
    again = pfdm.from_state(some.to_state(), clients(), CONFIG)
    for one in (some, again):
        drawn = one.sample(1, [0, 1], seed=3, steps=3, local_steps=3)
        assert torch.equal(drawn, run.sample(1, [0, 1], seed=3, steps=3, local_steps=3))
        with pytest.raises(ValueError, match="client-0.*not trained"):
            one.sample(0, [0, 1], seed=3, steps=3, local_steps=3)
    assert train(replace(CONFIG, global_images=0), fit_clients=()).history.empty
    with pytest.raises(ValueError, match="no client 2"):
        train(fit_clients=(2,))


def test_same_seed_trains_the_same_run_and_global_generators_are_untouched(run):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    again = train()
    x = again.sample(0, [0, 1], seed=3, steps=3, local_steps=3)
    assert torch.equal(x, run.sample(0, [0, 1], seed=3, steps=3, local_steps=3))
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_noise_is_drawn_once_a_record_whatever_happens_later(monkeypatch, untrained):
    drawn = []
    fill = GaussianNoise.fill_

    def counting(self, tensor, std):
        drawn.append((tensor.shape[0], std))
        return fill(self, tensor, std)

    monkeypatch.setattr(GaussianNoise, "fill_", counting)
    run = train()
    for start in ("global", "uploads", "class_gaussian"):
        run.sample(0, [0, 1, 2], seed=0, start=start, steps=2, local_steps=2)
    run.uploads, run.privacy, run.to_state()
    train(replace(CONFIG, balanced=True), share=run)
    assert drawn == [(30, 1.0), (21, 1.0)]
    with pytest.raises(RuntimeError, match="client-0 has uploaded already"):
        run.clients[0].upload()
    with pytest.raises(ValueError, match="client-0 has uploaded already"):
        run.server.receive("client-0", {})


def test_upload_is_the_clipped_picture_at_step_t0_with_fresh_standard_noise(untrained):
    run = train(replace(CONFIG, C=2.0), [pictures(600, stream="a"), pictures(600, stream="b")])
    x = torch.cat([pictures(600, stream=name)[0] for name in "ab"])
    norms = x.flatten(1).norm(dim=1)
    assert bool((norms > 2).all())
    signal = math.sqrt(CONFIG.alpha_bar) * x * (2 / norms).reshape(-1, 1, 1, 1)
    z = ((run.uploads.images - signal) / math.sqrt(1 - CONFIG.alpha_bar)).flatten(1)
    n = z.numel()
    assert abs(float(z.mean())) < 4 / math.sqrt(n) and abs(float(z.var()) - 1) < 4 * math.sqrt(2 / n)
    # no draw is used for two pictures, within a client or between clients
    assert abs(float((z[:600] * z[600:]).mean())) < 4 / math.sqrt(n / 2)
    assert abs(float((z[1:] * z[:-1]).mean())) < 4 / math.sqrt(n)
    assert torch.equal(run.uploads.labels, torch.cat([pictures(600)[1]] * 2))
    assert run.uploads.clients.bincount().tolist() == [600, 600]


def reachable(root):
    """Return everything that can be reached from `root` through references, less modules, classes and globals."""
    seen, pending, found = set(), [root], []
    while pending:
        thing = pending.pop()
        if id(thing) in seen or isinstance(thing, (types.ModuleType, type)):
            continue
        seen.add(id(thing))
        found.append(thing)
        if isinstance(thing, types.FunctionType):
            pending += [cell.cell_contents for cell in thing.__closure__ or ()] + list(thing.__defaults__ or ())
        else:
            pending += gc.get_referents(thing)
        if isinstance(thing, torch.Tensor):
            pending += [thing.grad_fn, thing._base]
    return found


def secrets_within(root, run):
    """Return what `root` holds of the clients: their objects, their networks, their clean pictures (or copies)."""
    found = reachable(root)
    networks = [client._secret.network for client in run.clients]
    weights = [client._secret.state() for client in run.clients]
    clean = {round(float(v), 6) for client in run.clients for v in client._x.flatten()[:200]}
    leaks = [thing for thing in found if isinstance(thing, PFDMClient) or any(thing is n for n in networks)]
    for thing in found:
        numeric = isinstance(thing, torch.Tensor) or isinstance(thing, np.ndarray) and thing.dtype.kind == "f"
        if numeric and torch.as_tensor(thing).is_floating_point():
            values = torch.as_tensor(thing).detach()
            if any(values.shape == w.shape and torch.equal(values, w) and w.abs().sum() > 0
                   for state in weights for name, w in state.items() if name.endswith("outer.weight")):
                leaks.append(thing)
            # a few of two hundred values agree by chance, a copy of a picture has sixty-four
            if len({round(float(v), 6) for v in values.flatten()[:200]} & clean) > 20:
                leaks.append(thing)
    return leaks


def test_the_server_holds_nothing_of_the_clients(run):
    found = reachable(run.server)
    assert any(thing is run.server.denoiser.network for thing in found)
    assert any(isinstance(thing, torch.Tensor) and thing.shape == (51, 1, 8, 8) for thing in found)
    assert secrets_within(run.server, run) == []


@pytest.mark.parametrize("planted", ["client", "network", "weights", "pictures", "closure"])
def test_the_walk_finds_what_is_planted(planted):
    run = train()
    first = run.clients[0]
    run.server.extra = {
        "client": lambda: [first], "network": lambda: {"a": first._secret}, "weights": lambda: first._secret.state(),
        "pictures": lambda: (first._x.clone(),), "closure": lambda: (lambda: first),
    }[planted]()
    assert secrets_within(run.server, run)


def test_clients_send_one_message_each_and_receive_the_global_model_alone(run):
    kinds = [(m.sender, m.receiver, m.kind) for m in run.channel.log]
    assert kinds == [("client-0", "server", "upload"), ("client-1", "server", "upload"),
                     ("server", "client-0", "global model"), ("server", "client-1", "global model")]
    values = run.channel.nbytes(kind="upload")
    assert 51 * (64 * 4 + 8) < values < 51 * (64 * 4 + 8) + 2000
    weights = sum(p.numel() for p in run.server.denoiser.network.parameters()) * 4
    assert weights < run.channel.nbytes(receiver="client-0") < 1.2 * weights
    assert run.nbytes == sum(m.nbytes for m in run.channel.log)


def test_starts_cost_the_bytes_of_what_a_client_has_to_receive(run):
    means, uploads = 3 * 64 * 4, 51 * (64 * 4 + 8)
    assert run.start_nbytes("noise") == 0
    assert means < run.start_nbytes("class_mean") < means + 1000
    assert uploads < run.start_nbytes("uploads") < uploads + 1000
    assert run.start_nbytes("global") == run.channel.log[-1].nbytes
    with pytest.raises(ValueError, match="'oracle' is not something that this run's server can send"):
        run.start_nbytes("oracle")


def indices_of(config):
    run = pfdm._untrained(clients(), config, None, "cpu")
    networks = {client.name: client._secret.network for client in run.clients} | {"global": run.server.denoiser.network}
    seen = {name: [] for name in networks}
    for name, network in networks.items():
        network.register_forward_pre_hook(
            lambda module, args, options, name=name: seen[name].append((args[1], options.get("flag"))), with_kwargs=True
        )
    run.clients[0].fit_local(progress=False)
    run.clients[1].fit_local(progress=False)
    run.collect_uploads()
    run.server.fit_global(progress=False)
    times = {name: torch.cat([t for t, _ in calls]) for name, calls in seen.items()}
    flags = {name: [flag for _, flag in calls] for name, calls in seen.items()}
    return times, flags


def test_local_denoisers_train_on_the_steps_up_to_t0_and_the_global_one_on_all():
    times, flags = indices_of(replace(CONFIG, images=64, batch=32))
    for name in ("client-0", "client-1"):
        assert 0 <= int(times[name].min()) and int(times[name].max()) < 20 and len(times[name].unique()) > 12
        share = torch.cat(flags[name]).float().mean()
        assert 0.25 < float(share) < 0.75
    assert int(times["global"].max()) >= 40 and flags["global"][0] is None
    times, _ = indices_of(replace(CONFIG, images=64, batch=32, local_range="T", stages="T - t0"))
    assert int(times["client-0"].max()) >= 40 and 20 <= int(times["global"].max()) < 30


def test_presets_are_those_of_the_two_versions():
    one, two = pfdm.v1(), pfdm.cvpr()
    assert (one.t0, one.C, one.clip_mixing, one.T) == (100, None, 0.0, 1000)
    assert (two.t0, two.C, two.clip_mixing, two.delta) == (690, 10.0, 0.5, 1e-5)
    assert (one.beta_1, one.beta_T) == (1e-4, 0.02) and one.stages == two.stages == "T + t0"
    assert pfdm.cvpr(scale="paper").weight == "eps" and pfdm.v1(t0=400).t0 == 400
    with pytest.raises(ValueError, match="scale must be"):
        pfdm.v1(scale="huge")


def test_statement_and_calls_and_budget(run):
    statement = run.privacy
    assert statement["epsilon"] == pytest.approx(run.upload_privacy.epsilon(), rel=1e-9)
    assert set(statement["clients"]) == {"client-0", "client-1"} and statement["unit"] == "image"
    assert run.calls() == {"global": 50, "local": 20, "total": 70}
    assert run.calls(steps=30, local_steps=30) == {"global": 30, "local": 20, "total": 50}
    assert run.calls(start="uploads", local_steps=5) == {"global": 0, "local": 5, "total": 5}
    assert run.budget == {"client-0": 24, "client-1": 24, "global": 24}
    assert set(run.history["model"]) == {"client-0", "client-1", "global"} and run.history["loss"].notna().all()


def test_number_of_network_calls_is_what_is_said(run):
    count = []
    network = run.clients[0]._secret.network
    handle = network.register_forward_pre_hook(lambda *given: count.append(1))
    run.sample(0, [0, 1], seed=0, start="noise", local_steps=None)
    handle.remove()
    assert len(count) == run.calls(start="noise")["total"] == 20


def test_saved_state_gives_back_the_run_and_the_same_samples(run):
    again = pfdm.from_state(run.to_state(), clients(), CONFIG)
    for start in ("global", "uploads"):
        chosen = dict(seed=5, start=start, steps=3, local_steps=3)
        assert torch.equal(again.sample(1, [0, 2], **chosen), run.sample(1, [0, 2], **chosen))
    assert again.privacy == run.privacy and again.nbytes == run.nbytes and again.budget == run.budget
    assert torch.equal(again.uploads.images, run.uploads.images) and again.history.equals(run.history)


def test_secure_noise_is_never_repeated_but_kept_in_the_state(untrained):
    config = replace(CONFIG, secure=True)
    one, two = train(config), train(config)
    assert not torch.equal(one.uploads.images, two.uploads.images)
    assert one.privacy["epsilon"] == train().privacy["epsilon"] and one.privacy["noise"] == "cryptographic"
    again = pfdm.from_state(one.to_state(), clients(), config)
    assert torch.equal(again.uploads.images, one.uploads.images)
    with pytest.raises(RuntimeError, match="uploaded already"):
        again.clients[0].upload()


def test_resumed_training_equals_uninterrupted_and_foreign_files_are_refused(run, tmp_path):
    first = train(checkpoint=tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"client-0.pt", "client-1.pt", "global.pt"}
    (tmp_path / "global.pt").unlink()
    second = train(checkpoint=tmp_path)
    x = run.sample(0, [0, 1], seed=0, steps=3, local_steps=3)
    for other in (first, second):
        assert torch.equal(other.sample(0, [0, 1], seed=0, steps=3, local_steps=3), x)
    with pytest.raises(ValueError, match="another"):
        train(replace(CONFIG, lr=1e-4), checkpoint=tmp_path)


def test_shared_uploads_and_global_model_serve_another_local_setting(run):
    other = train(replace(CONFIG, balanced=True, clip_mixing=0.0, local_range="T"), share=run)
    assert other.server is run.server and other.nbytes == run.nbytes
    chosen = dict(seed=0, steps=3)
    assert torch.equal(other.starts(0, [0, 1], **chosen), run.starts(0, [0, 1], **chosen))
    assert not torch.equal(other.sample(0, [0, 1], **chosen), run.sample(0, [0, 1], **chosen))
    with pytest.raises(ValueError, match="other settings: C, t0"):
        train(replace(CONFIG, t0=10, C=3.0), share=run)
    with pytest.raises(ValueError, match="client-1 has other pictures"):
        train(CONFIG, [clients()[0], pictures(21, stream="other")], share=run)
    with pytest.raises(ValueError, match="other clients"):
        train(CONFIG, [clients()[0]], share=run)


def test_without_a_global_denoiser_uploads_still_serve(untrained):
    run = train(replace(CONFIG, global_images=0))
    assert run.server.denoiser is None and run.sample(0, [0], seed=0, start="uploads", local_steps=2).shape[0] == 1
    assert run.channel.nbytes(kind="global model") == 0 and "global" not in run.budget
    with pytest.raises(ValueError, match="no global denoiser"):
        run.sample(0, [0], seed=0)


def test_local_baseline_with_the_same_parts_is_the_same_local_model(run):
    local = baselines_images.local_only(clients(), CONFIG, clip_mixing=True, local_range="t0", progress=False)
    for client in run.clients:
        mine, theirs = client._secret.state(), local.models[client.name].state()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_values_in_zero_one_are_clipped_and_returned_in_their_own_range(untrained):
    config = replace(CONFIG, values="[0, 1]", C=1000.0)
    run = train(config, [pictures(900)])
    signal = math.sqrt(config.alpha_bar) * (pictures(900)[0] + 1) / 2
    z = (run.uploads.images - signal) / math.sqrt(1 - config.alpha_bar)
    assert abs(float(z.mean())) < 0.02 and abs(float(z.std()) - 1) < 0.02
    x = run.sample(0, [0, 1], seed=0, start="oracle", local_steps=2)
    assert -1 <= float(x.min()) < -0.2 and run.upload_privacy.diameter() == 8.0


def test_latent_variant_diffuses_codes_and_returns_pictures(untrained):
    autoencoder = ConvAutoencoder(1, 8, generator=torch_generator(0, "autoencoder"), widths=(8,), latent=2)
    run = train(CONFIG, autoencoder=autoencoder)
    assert run.uploads.images.shape == (51, 2, 4, 4)
    assert run.sample(0, [0, 1, 2], seed=0, steps=2, local_steps=2).shape == (3, 1, 8, 8)
    assert run.upload_privacy.diameter() == 8.0 and any("autoencoder" in what for what in run.privacy["outside"])
    with pytest.raises(ValueError, match="the autoencoder takes pictures of shape"):
        train(CONFIG, [pictures(6, side=16)], autoencoder=autoencoder)
    with pytest.raises(ValueError, match="clip norm"):
        train(replace(CONFIG, C=None, clip_mixing=0.0), autoencoder=autoencoder)


def test_white_box_loss_of_a_client_is_one_value_a_record(run):
    x, labels = clients()[0]
    t = torch.zeros(30, 2, dtype=torch.int64)
    noise = torch.randn(30, 2, 1, 8, 8, generator=torch_generator(0, "noise"))
    losses = run.clients[0].loss_per_record(x, labels, t, noise)
    assert losses.shape == (30,) and bool(losses.isfinite().all())
    assert torch.allclose(losses[3:5], run.clients[0].loss_per_record(x[3:5], labels[3:5], t[3:5], noise[3:5]), atol=1e-5)


def broken(kind):
    x, y = pictures(12)
    return {
        "none": [],
        "one tensor": x,
        "no pair": [x],
        "type": [(x.double(), y)],
        "stored": [((x * 127).to(torch.uint8).permute(0, 2, 3, 1), y)],
        "oblong": [(x[:, :, :, :4], y)],
        "range": [(2 * x, y)],
        "nan": [(x.clone().fill_(math.nan), y)],
        "labels": [(x, y[:5])],
        "negative": [(x, y - 1)],
        "float labels": [(x, y.float())],
        "empty": [(x, y), (x[:0], y[:0])],
        "shapes": [(x, y), pictures(6, side=16)],
        "gap": [(x, y * 2)],
        "names": [pfdm.ImageClient(x, y, "a"), pfdm.ImageClient(x, y, "a")],
        "name": [pfdm.ImageClient(x, y, "a/b")],
        "side": [pictures(12, side=6)],
    }[kind]


@pytest.mark.parametrize(("kind", "match"), [
    ("none", "at least one ImageClient"),
    ("one tensor", "wrap a single one"),
    ("no pair", "client 0 must be an ImageClient or a pair"),
    ("type", "client-0: images must be float32"),
    ("stored", "data.images.to_tensor"),
    ("oblong", "images must be float32"),
    ("range", r"client-0: images must lie in \[-1, 1\]"),
    ("nan", r"images must lie in \[-1, 1\], got nan"),
    ("labels", r"labels must be integers of shape \(12,\)"),
    ("negative", "labels must be >= 0"),
    ("float labels", "labels must be integers"),
    ("empty", "client-1 has no pictures"),
    ("shapes", "client-1 has pictures of shape"),
    ("gap", "no client has a picture of class 1, 3"),
    ("names", "distinct names"),
    ("name", "client name 'a/b'"),
    ("side", "multiple of 4"),
])
def test_bad_clients_are_refused_before_any_work(untrained, kind, match):
    with pytest.raises((ValueError, TypeError), match=match):
        train(CONFIG, broken(kind))


def test_class_that_no_client_has_is_refused_in_training_and_sampling(run, untrained):
    with pytest.raises(ValueError, match="no client has a picture of class 3"):
        train(replace(CONFIG, classes=4))
    with pytest.raises(ValueError, match="label 2, but there are 2 classes"):
        train(replace(CONFIG, classes=2))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, got 1\.\.3"):
        run.sample(0, [1, 3], seed=0)


def test_bad_sampling_arguments_are_refused(run):
    for change, match in (
        (dict(labels=[]), "non-empty sequence"),
        (dict(labels=[0.5]), "non-empty sequence"),
        (dict(client=2), "no client 2"),
        (dict(client="nobody"), "no client 'nobody'"),
        (dict(start="middle"), "start must be one of"),
        (dict(start="clean_global"), "needs reference="),
        (dict(reference=object()), "and no other"),
        (dict(sampler="euler"), "sampler must be one of"),
        (dict(steps=51), "sampling steps"),
        (dict(local_steps=0), "sampling steps"),
    ):
        given = dict(client=0, labels=[0, 1], seed=0, steps=2, local_steps=2) | change
        with pytest.raises(ValueError, match=match):
            run.sample(given.pop("client"), given.pop("labels"), **given)
