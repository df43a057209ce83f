"""PFDM under membership attacks: the same pictures and attacks against every view of one federation.

A view is what an adversary holds: the uploads, the global denoiser (the papers' target), a client's local denoiser, a
centralised model of clean pictures, or synthetic pictures. Members are a client's own pictures; non-members are as many
of every class that nobody holds, drawn from the same set. Nothing was fitted on either of them beside the models.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from feddiff.attacks import membership_images as attack, memorisation, upload_matching as matching
from feddiff.data import images
from feddiff.evaluation import membership
from feddiff.experiments import pfdm_study as study, records
from feddiff.experiments.pfdm_study import Setting
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems.image_clients import ImageClient, clipped
from feddiff.systems.image_denoisers import Denoiser, denoiser
from feddiff.systems.pfdm import PFDMConfig, PFDMRun

# Fixed before any score was seen; all lie in the range of a local denoiser of t0 = 100.
TIMES = (5, 10, 20, 40, 80)
STRIDE = 10
RATES = (0.1, 0.01)


@dataclass(frozen=True, eq=False)
class Game:
    """Members and non-members, float32 (n, c, side, side) and labels each, equally many of every class.

    groups: name -> mask of members (and, in the same order of classes, of non-members).
    """

    members: torch.Tensor
    others: torch.Tensor
    labels: torch.Tensor
    groups: dict[str, np.ndarray]

    @property
    def pictures(self) -> torch.Tensor:
        """Members, then non-members."""
        return torch.cat([self.members, self.others])

    @property
    def both_labels(self) -> torch.Tensor:
        """Labels of `pictures`."""
        return self.labels.repeat(2)


def game(setting: Setting, client: int) -> Game:
    """Return a client's pictures against as many that no client holds, from training and test part alike."""
    generator, own = numpy_generator(setting.seed, "membership", client), setting.clients[client]
    spare = setting.train.select(setting.spare)
    pool = images.to_tensor(np.concatenate([spare.images, setting.test.images]))
    names = np.concatenate([spare.labels, setting.test.labels])
    labels, inside, outside = own.labels.numpy(), [], []
    for label in np.unique(labels):
        sides = [np.flatnonzero(side == label) for side in (labels, names)]
        count = min(map(len, sides))
        for kept, side in zip((inside, outside), sides, strict=True):
            kept.append(generator.permutation(side)[:count])
    inside, outside = np.concatenate(inside), np.concatenate(outside)
    groups = {name: np.isin(labels[inside], classes) for name, classes in setting.groups(client).items()}
    groups["all"] = np.ones(len(inside), dtype=bool)
    return Game(own.images[inside], pool[outside], torch.from_numpy(labels[inside]), groups)


def local_denoiser(run: PFDMRun, client: int) -> Denoiser:
    """Return a client's local denoiser as it would be if it were released."""
    owner, config = run.clients[client], run.config
    built = denoiser(
        owner.name, config, run.space.shape(run.members.shape), run.members.classes,
        hi=config.t0 if config.local_range == "t0" else config.T, flag=config.clip_mixing > 0, device=owner.device,
    )
    built.restore(owner.summary())
    return built


def predictor(model: Denoiser) -> attack.PredictNoise:
    """Return a denoiser as attacks take it; one with a flag takes every picture for unclipped."""
    network = model.network.to(model.device).eval()

    def predict(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        extra = {"flag": torch.zeros(len(x), dtype=torch.bool, device=model.device)} if model.flag else {}
        return network(x.to(model.device), t.to(model.device), labels.to(model.device), **extra).cpu()

    return predict


def white_box(
    model: Denoiser, pictures: torch.Tensor, labels: torch.Tensor, *, seed: int, draws: int
) -> dict[str, np.ndarray]:
    """Return attack -> scores of pictures by loss with `draws` fixed noises, SecMI and PIA, higher = member."""
    asked = (predictor(model), pictures, labels, model.schedule)
    noises = attack.fixed_noises(pictures.shape[1:], draws, torch_generator(seed, "attack", "noises"))
    return {
        "loss": attack.loss_scores(attack.losses(*asked, times=TIMES, noises=noises)),
        "secmi": attack.secmi(*asked, time=TIMES[-1], stride=STRIDE),
        "pia": attack.pia(*asked, time=TIMES[-1]),
    }


def record(run: records.Run, played: Game, found: dict[str, np.ndarray], *, seed: int, **labels) -> None:
    """Record what scores of `played.pictures` tell: AUC and TPR at RATES, by attack and group, labels beside.

    Attack "permuted": the first attack's scores with membership dealt out anew; what chance looks like here.
    """
    first = next(iter(found.values()))
    control = numpy_generator(seed, "permuted", *map(str, labels.values())).permutation(first)
    count = len(played.members)
    for name, scores in (found | {"permuted": control}).items():
        for group, mask in played.groups.items():
            if not mask.any():
                continue
            members, others = scores[:count][mask], scores[count:][mask]
            where = dict(attack=name, group=group, **labels)
            judged = membership.auc_interval(members, others)
            run.metric("membership_auc", judged.value, **where)
            if group == "all":
                run.metric("membership_auc_low", judged.low, **where)
                run.metric("membership_auc_high", judged.high, **where)
            for rate in RATES:
                if rate * len(others) >= 1:
                    power = membership.tpr_at_fpr(members, others, rate)
                    run.metric(f"tpr_at_{100 * rate:.0f}_percent", power, **where)


def on_uploads(model: PFDMRun, played: Game) -> dict[str, np.ndarray]:
    """Return the likelihood ratio of pictures given all uploads, shuffled; its population is these pictures.

    "likelihood": without that population, a weaker attack.
    """
    x = clipped(model.space.enter(played.pictures), model.config.C).numpy()
    sent, known = model.uploads.images.numpy(), dict(alpha_bar=model.config.alpha_bar)
    return {"posterior": matching.membership(sent, x, x, **known),
            "likelihood": matching.membership(sent, x, None, **known)}


def noised_queries(setting: Setting, model: PFDMRun, played: Game, client: int) -> torch.Tensor:
    """Return what the global denoiser was really trained on: the members' uploads, and non-members noised alike."""
    own = setting.clients[client].images
    uploads = model.uploads.images[model.uploads.clients == client]
    places = [int(torch.nonzero((own == one).flatten(1).all(1))[0]) for one in played.members]
    abar = model.config.alpha_bar
    fresh = clipped(model.space.enter(played.others), model.config.C)
    z = torch.randn(fresh.shape, generator=torch_generator(setting.seed, "attack", "fresh uploads"))
    return torch.cat([uploads[places], math.sqrt(abar) * fresh + math.sqrt(1 - abar) * z])


def with_shadows(
    setting: Setting, config: PFDMConfig, played: Game, target: np.ndarray, *, seed: int, draws: int, shadows: int,
    device: str = "cpu", progress: bool = True,
) -> np.ndarray:
    """Return the likelihood ratio of each picture from `shadows` models, each trained as a local one is, on half.

    Shadows come in pairs that share out members and non-members. target: the scores of `played.pictures` by loss, of
    the model under attack.
    """
    if shadows < 2 or shadows % 2:
        raise ValueError(f"shadows come in pairs: give an even number >= 2, got {shadows!r}")
    pictures, labels = played.pictures, played.both_labels
    inside = np.zeros((shadows, len(pictures)), dtype=bool)
    for pair in range(shadows // 2):
        order = numpy_generator(setting.seed, "shadows", pair).permutation(len(pictures))
        inside[2 * pair, order[: len(order) // 2]] = True
        inside[2 * pair + 1] = ~inside[2 * pair]
    clients = tuple(ImageClient(pictures[mask], labels[mask], f"shadow-{k}") for k, mask in enumerate(inside))
    apart = replace(setting, clients=clients, identity=f"{setting.identity} shadows={shadows} of {len(pictures)}")
    trained = study.baseline(apart, "local_range_clip" if config.clip_mixing else "local_range", config, device=device,
                             progress=progress)
    scores = np.stack([white_box(trained.models[client.name], pictures, labels, seed=seed, draws=draws)["loss"]
                       for client in clients])
    return attack.likelihood_ratio(target, scores, inside)


def memorised(
    run: records.Run, samples: torch.Tensor, training: torch.Tensor, control: torch.Tensor, *, neighbours: int = 50,
    **labels,
) -> None:
    """Record the share of samples that are memorised by either criterion, the control's beside, and what is extracted.

    neighbours: of the criterion of Carlini et al., at most half of the pictures.
    """
    sets = [part.numpy() for part in (samples, training, control)]
    tests = {"ratio": memorisation.ratio_test(*sets),
             "extraction": memorisation.extraction_test(*sets, neighbours=min(neighbours, len(training) // 2))}
    for criterion, found in tests.items():
        run.metric("memorised", found.training.value, criterion=criterion, **labels)
        run.metric("memorised_control", found.control.value, criterion=criterion, **labels)
        run.metric("extracted_share", len(found.extracted) / len(training), criterion=criterion, **labels)


def black_box(samples: torch.Tensor, played: Game) -> dict[str, np.ndarray]:
    """Return minus the distance of each picture to the nearest sample."""
    return {"nearest": memorisation.nearest_scores(samples.numpy(), played.pictures.numpy())}


def epochs_of(config: PFDMConfig, setting: Setting, epochs: int, *, first: int = 0) -> PFDMConfig:
    """Return the configuration in which a client's and the global denoiser see their pictures equally often."""
    held = [len(client) for client in setting.clients]
    return replace(config, images=epochs * held[first], global_images=epochs * sum(held))
