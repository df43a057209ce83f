"""What every PFDM notebook does: one split of a picture set, one judge, trained runs from the cache, one set of scores.

The notebook chooses data set, scale, presets and baselines; this module keeps all of them on the same pictures, the
same judge, the same number of samples of every class and the same metrics, so that their records can be compared.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from feddiff.data import image_partitions, images
from feddiff.data.image_partitions import ClientClasses
from feddiff.data.images import ImageSet
from feddiff.evaluation import image_quality
from feddiff.evaluation.image_features import Judge, train_judge
from feddiff.evaluation.image_inks import InkJudge, train_ink_judge
from feddiff.experiments import cache, records
from feddiff.seeds import numpy_generator
from feddiff.systems import baselines_images, pfdm
from feddiff.systems.image_baseline import SHARED, ImageBaseline
from feddiff.systems.image_clients import ImageClient
from feddiff.systems.image_federation import RoundsConfig
from feddiff.systems.pfdm import PFDMConfig, PFDMRun

DATA_CODE = ("feddiff.data.images", "feddiff.data.image_partitions")
# The judge and the hold-out are the same for every seed: seeds vary what is dealt, trained and drawn.
JUDGE_SEED = 0
# Pictures of either side of a copy test at most: its cost grows with their product.
MOST_COPIES = 1000
# What local denoisers do not depend on.
SERVER_FIELDS = ("global_images", "stages")
# method -> (function of baselines_images, its options)
BASELINES: dict[str, tuple] = {
    "centralised": (baselines_images.centralised, {}),
    "fedavg": (baselines_images.fedavg, {}),
    "local": (baselines_images.local_only, {}),
    "local_balanced": (baselines_images.local_only, dict(balanced=True)),
    "local_range": (baselines_images.local_only, dict(local_range="t0")),
    "local_clip": (baselines_images.local_only, dict(clip_mixing=True)),
    "local_range_clip": (baselines_images.local_only, dict(local_range="t0", clip_mixing=True)),
    "dp_local": (baselines_images.dp_sgd, dict(federated=False)),
    "dp_fedavg": (baselines_images.dp_sgd, dict(federated=True)),
    "fedavg_dp": (baselines_images.fedavg_dp, {}),
}


@dataclass(frozen=True, eq=False)
class Setting:
    """A picture set split over heterogeneous clients, with its judge.

    parts: which rows of `train` each client holds, and which classes it has many and few pictures of. spare: rows of
    `train` that no client holds. per_class: samples of every class that each method draws. identity: what the cache
    knows the split by.
    """

    train: ImageSet
    test: ImageSet
    parts: tuple[ClientClasses, ...]
    clients: tuple[ImageClient, ...]
    spare: np.ndarray
    judge: Judge
    per_class: int
    seed: int
    identity: str

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.train.class_names)

    @property
    def labels(self) -> torch.Tensor:
        """The labels that every method is asked for: `per_class` of each class, int64."""
        return torch.arange(self.classes).repeat_interleave(self.per_class)

    def groups(self, client: int) -> dict[str, tuple[int, ...]]:
        """Return the classes that this client has many and few pictures of."""
        return {"majority": self.parts[client].majority, "minority": self.parts[client].minority}


def split(
    dataset: str,
    *,
    majority: int,
    minority: int,
    seed: int,
    per_class: int,
    clients: int = 2,
    size: int | None = None,
    fixed_total: bool = False,
    progress: bool = True,
) -> Setting:
    """Deal a picture set to clients: `majority` pictures of each class of the own group, `minority` of each other one.

    dataset: a known name or the path of own pictures; size: side to which they are resized. fixed_total: the counts
    are totals that all clients share. per_class: samples of a class that every method draws.
    """
    train, test = images.train_and_test(dataset, numpy_generator(JUDGE_SEED, "split"), size=size)
    deal = image_partitions.at_fixed_total if fixed_total else image_partitions.clusters
    parts = deal(train.labels, classes=len(train.class_names), clients=clients, majority=majority, minority=minority,
                 generator=numpy_generator(seed, "partition"))
    held = np.concatenate([part.rows for part in parts])
    identity = (f"{_named(train)} clients={clients} majority={majority} minority={minority} "
                f"fixed_total={fixed_total} seed={seed}")
    return Setting(
        train=train, test=test, parts=tuple(parts), seed=seed, per_class=per_class, identity=identity,
        clients=tuple(ImageClient(images.to_tensor(train.images[part.rows]), torch.from_numpy(train.labels[part.rows]))
                      for part in parts),
        spare=np.setdiff1d(np.arange(len(train)), held), judge=judge_of(train, test, progress=progress),
    )


def judge_of(train: ImageSet, test: ImageSet, *, progress: bool = True) -> Judge:
    """Return the classifier of a picture set that gives features and reads samples, from the cache where it is.

    That of a coloured set names class and ink, so that its features see both.
    """
    inks = {} if train.colours is None else {"inks": (train.colours, test.colours)}
    kind, train_one = (InkJudge, train_ink_judge) if inks else (Judge, train_judge)

    def build() -> dict:
        return train_one(images.to_tensor(train.images), train.labels, images.to_tensor(test.images), test.labels,
                         seed=JUDGE_SEED, data=f"{train.name} {train.size} x {train.size}", progress=progress,
                         **inks).to_state()

    entry = cache.cached("judge", {"seed": JUDGE_SEED}, f"{_named(train)} {_named(test)} rows={len(train)}", build,
                         code=["feddiff.evaluation.image_inks" if inks else "feddiff.evaluation.image_features",
                               *DATA_CODE])
    return kind.from_state(entry.state)


def trained(
    setting: Setting, config: PFDMConfig, *, first: int | None = None, device: str = "cpu", progress: bool = True
) -> PFDMRun:
    """Return the PFDM run of `config` with the setting's seed; each of its denoisers comes from the cache if it can.

    Runs that differ in local settings alone share uploads and global denoiser. first: only so many clients train a
    local denoiser (None: all); all of them upload.
    """
    config = replace(config, seed=setting.seed, classes=setting.classes)
    place, code = f"{setting.identity} device={device}", ["feddiff.systems.pfdm", *DATA_CODE]
    quiet = dict(device=device, progress=progress)
    shared = cache.cached(
        "pfdm", config.shared, place,
        lambda: pfdm.train(setting.clients, config, fit_clients=(), **quiet).to_state(), code=code,
    )
    run = pfdm.from_state(shared.state, setting.clients, config, device=device)
    own = {name: value for name, value in dataclasses.asdict(config).items() if name not in SERVER_FIELDS}
    for client in run.clients[:first]:

        def build(name: str = client.name) -> dict:
            fitted = pfdm.train(setting.clients, config, share=run, fit_clients=(name,), **quiet)
            return fitted.to_state()["clients"][name]

        client.restore(cache.cached("pfdm-local", own, f"{place} {client.name}", build, code=code).state)
    return run


def baseline(
    setting: Setting, method: str, config: PFDMConfig, *, rounds: RoundsConfig | None = None,
    epsilon: float | None = None, first: int | None = None, device: str = "cpu", progress: bool = True,
) -> ImageBaseline:
    """Return a trained baseline, one of BASELINES, on the same network and number of training pictures.

    rounds: of the federated and private ones; epsilon: of the private ones, and of those alone. first: of the local
    ones, which do not hear of each other, only those of so many clients (None: all).
    """
    if method not in BASELINES:
        raise ValueError(f"method must be one of {', '.join(BASELINES)}, got {method!r}")
    build, options = BASELINES[method]
    if first is not None and build is not baselines_images.local_only:
        raise ValueError(f"first= is for local baselines; {method} trains on the pictures of all clients")
    clients = setting.clients[:first]
    options = dict(options)
    if epsilon is not None:
        options["epsilon"] = epsilon
    if rounds is not None:
        options["rounds"] = rounds
    config = replace(config, seed=setting.seed, classes=setting.classes)
    plain = {name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
             for name, value in options.items()}
    entry = cache.cached(
        "image-baseline", {"method": method, "options": plain, "config": dataclasses.asdict(config)},
        f"{setting.identity} device={device}" + (f" first={first}" if len(clients) < len(setting.clients) else ""),
        lambda: build(clients, config, device=device, progress=progress, **options).to_state(),
        code=["feddiff.systems.baselines_images", *DATA_CODE],
    )
    return baselines_images.from_state(entry.state, clients, config, device=device)


def draw(
    setting: Setting, model: PFDMRun | ImageBaseline, *, first: int | None = None, **options
) -> list[torch.Tensor]:
    """Return pictures of `setting.labels` as each client (the first so many) draws them.

    A model that all share draws once for all. options: those of the model's `sample`, without seed.
    """
    clients = len(setting.clients[:first])
    options = options | {"labels": setting.labels, "seed": setting.seed}
    if isinstance(model, ImageBaseline) and SHARED in model.models:
        return [model.sample(**options)] * clients
    return [model.sample(client=k, **options) for k in range(clients)]


def account(run: records.Run, model: PFDMRun | ImageBaseline, **labels) -> None:
    """Record a model's privacy statement, and what of it is finite: epsilon by its unit, and by Theorem 5.1."""
    told = model.privacy
    run.privacy(told, **labels)
    if math.isfinite(told["epsilon"]):
        run.metric(f"epsilon_{told['unit']}", told["epsilon"], **labels)
    if "epsilon_theorem" in told:
        run.metric("epsilon_theorem", told["epsilon_theorem"], **labels)


def judge_all(
    run: records.Run, setting: Setting, samples: Sequence[torch.Tensor], *, copies: bool = True, **labels
) -> dict[tuple[str, str], float]:
    """Record what each client's pictures of `setting.labels` are worth to it; return (metric, group) -> their mean.

    The mean over the clients is recorded, too, as client "all".
    """
    each = [scores(setting, own, client=client, copies=copies) for client, own in enumerate(samples)]
    for client, found in enumerate(each):
        _record(run, found, client=client, **labels)
    means = {place: float(np.mean([found[place] for found in each])) for place in each[0]}
    _record(run, means, client="all", **labels)
    return means


def judge(
    run: records.Run, setting: Setting, samples: torch.Tensor, *, client: int, copies: bool = True, **labels
) -> dict[str, float]:
    """Record the `scores` of pictures drawn for one client; return the minority's."""
    found = scores(setting, samples, client=client, copies=copies)
    _record(run, found, client=client, **labels)
    return {metric: value for (metric, group), value in found.items() if group == "minority"}


def scores(
    setting: Setting, samples: torch.Tensor, *, client: int, copies: bool = True
) -> dict[tuple[str, str], float]:
    """Return (metric, group) -> what pictures of `setting.labels`, drawn for one client, are worth to it.

    By group of classes: label accuracy, Fréchet distance (as it is and corrected for the number of pictures), KID,
    precision, recall, all against the test pictures; with `copies`, the copy test against the client's own pictures.
    """
    table = image_quality.group_scores(
        setting.judge, images.to_tensor(setting.test.images), setting.test.labels, samples, setting.labels.numpy(),
        groups=setting.groups(client), generator=numpy_generator(setting.seed, "judge"),
    )
    found = {(row["metric"], row["group"]): row["value"] for row in table.to_dict("records")}
    for group, classes in setting.groups(client).items() if copies else ():
        report = copy_report(setting, samples, client, classes)
        found["closer_to_train", group] = report.closer_to_train.value
        found["memorised", group] = report.memorised.value
    return found


def copy_report(
    setting: Setting, samples: torch.Tensor, client: int, classes: Sequence[int]
) -> image_quality.CopyTest:
    """Return the copy test of samples of `classes` against the client's own pictures and as many that nobody holds."""
    generator = numpy_generator(setting.seed, "copies", client)
    own = setting.clients[client]
    own_images = own.images[np.isin(own.labels.numpy(), classes)]
    spare = setting.spare[np.isin(setting.train.labels[setting.spare], classes)]
    test = setting.test.images[np.isin(setting.test.labels, classes)]
    held_out = images.to_tensor(np.concatenate([setting.train.images[spare], test]))
    count = min(len(own_images), len(held_out), MOST_COPIES)
    picked = samples[np.isin(setting.labels.numpy(), classes)]
    return image_quality.copy_test(
        _some(picked, MOST_COPIES, generator), _some(own_images, count, generator), _some(held_out, count, generator)
    )


def downstream(
    run: records.Run, setting: Setting, samples: torch.Tensor, labels: np.ndarray, *, client: int, steps: int = 600,
    **names,
) -> image_quality.Downstream:
    """Record what a classifier trained on `samples` is worth on real test pictures; the groups are the client's."""
    found = image_quality.tstr(
        samples, labels, images.to_tensor(setting.test.images), setting.test.labels, classes=setting.classes,
        seed=setting.seed, steps=steps, progress=False,
    )
    values = {"accuracy": found.accuracy, "worst_recall": found.worst_recall, "recall_gap": found.gap}
    values |= {f"{group}_recall": found.group(classes) for group, classes in setting.groups(client).items()}
    for name, value in values.items():
        run.metric(name, value, client=client, **names)
    return found


def real(setting: Setting, client: int | None = None) -> torch.Tensor:
    """Return real pictures of `setting.labels`: the ceiling (None: training pictures nobody holds), or a client's own.

    A client's own pictures of a class are repeated where it has fewer than are asked for: what oversampling would give.
    """
    generator = numpy_generator(setting.seed, "real", -1 if client is None else client)
    if client is None:
        source, labels = setting.train.images[setting.spare], setting.train.labels[setting.spare]
        if min(np.bincount(labels, minlength=setting.classes)) < setting.per_class:
            source, labels = setting.train.images, setting.train.labels
        source = images.to_tensor(source)
    else:
        source, labels = setting.clients[client].images, setting.clients[client].labels.numpy()
    rows = []
    for label in range(setting.classes):
        own = np.flatnonzero(labels == label)
        rows += [generator.choice(own, setting.per_class, replace=len(own) < setting.per_class)] if len(own) else []
    return source[np.concatenate(rows)]


def show(setting: Setting, drawn: Mapping[str, torch.Tensor], columns: int = 1) -> dict[str, torch.Tensor]:
    """Return the first `columns` samples of every class of each method, in the order of the classes, for a picture."""
    places = torch.cat([torch.nonzero(setting.labels == label).flatten()[:columns] for label in range(setting.classes)])
    return {name: samples[places] for name, samples in drawn.items()}


def _named(pictures: ImageSet) -> str:
    """Return what the cache knows a picture set by: the coloured set is made of the grey one's file."""
    return f"{pictures.sha256} {pictures.name} {' x '.join(map(str, pictures.images.shape[1:]))}"


def _record(run: records.Run, found: Mapping[tuple[str, str], float], **labels) -> None:
    for (metric, group), value in found.items():
        run.metric(metric, value, group=group, **labels)


def _some(pictures: torch.Tensor, count: int, generator: np.random.Generator) -> torch.Tensor:
    return pictures[np.sort(generator.permutation(len(pictures))[:count])]
