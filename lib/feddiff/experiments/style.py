"""One look for every figure: sizes in inches, a palette safe for colour-blind readers, files that are byte-stable."""

import io
import math
from functools import wraps
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from feddiff.experiments import files, scales

# Okabe and Ito (2008), in an order whose neighbours also differ in lightness; yellow is left out (too pale on white).
# Then brown and indigo of Tol's palettes: nine data sets in all, and no two colours nearer to each other than Okabe and
# Ito's own, to colour-blind eyes either.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#661100", "#332288")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "h")
GREY, PALE = "#5F5F5F", "#C8C8C8"
WIDTH, COLUMN = 7.0, 3.4

# Methods in the order in which tables and figures list them: label -> (what a reader sees, colour, marker).
METHODS = {
    "real": ("real training rows", "#000000", "*"),
    "ours": ("diffusion, recipe “ours”", "#0072B2", "o"),
    "strongest": ("diffusion from a private tree", "#0072B2", "D"),
    "strongest_start": ("private tree, no training", "#56B4E9", "D"),
    "strongest_private": ("the same, codec inside ε", "#0072B2", "^"),
    "paper": ("diffusion, recipe “paper”", "#D55E00", "s"),
    "bias_only": ("histogram start, no training", "#56B4E9", "v"),
    "dp_given_label": ("DP histograms given the label", "#009E73", "^"),
    "dp_marginals": ("DP histograms", "#CC79A7", "D"),
    "given_label": ("marginals given the label", "#5F5F5F", "P"),
    "independent": ("independent marginals", "#5F5F5F", "X"),
    "majority": ("majority class", "#5F5F5F", "|"),
    # Pictures: what is measured against (grey), clients alone (orange), PFDM (blue), trained with DP (green, pink).
    "real_pictures": ("real pictures", "#000000", "*"),
    "own_pictures": ("own pictures as they are", "#5F5F5F", "P"),
    "own_repeated": ("own pictures, rare classes repeated", "#5F5F5F", "X"),
    "centralised": ("centralised", "#000000", "o"),
    "fedavg": ("FedAvg", "#000000", "s"),
    "local": ("local", "#D55E00", "o"),
    "local_pooled": ("clients alone, releases put together", "#D55E00", "s"),
    "local_clip": ("local, clip flag", "#D55E00", "v"),
    "local_range_clip": ("local, clip flag, t ≤ t0", "#D55E00", "^"),
    "local_balanced": ("local, balanced batches", "#E69F00", "s"),
    "pfdm_v1": ("PFDM v1, t0 = 100", "#0072B2", "o"),
    "pfdm_v1_balanced": ("PFDM v1, t0 = 100, balanced", "#0072B2", "s"),
    "pfdm_cvpr": ("PFDM cvpr, t0 = 690", "#56B4E9", "o"),
    "pfdm_cvpr_balanced": ("PFDM cvpr, t0 = 690, balanced", "#56B4E9", "s"),
    "dp_local": ("DP-SGD, a client", "#009E73", "^"),
    "dp_fedavg": ("DP-SGD, federated", "#009E73", "D"),
    "fedavg_dp": ("FedAvg, noised moves", "#CC79A7", "D"),
    # Tables: rivals of the diffusion model; copulas red, PrivBayes orange, GANs light blue.
    "copula": ("Gaussian copula", "#D55E00", "P"),
    "dp_copula": ("DP Gaussian copula", "#D55E00", "P"),
    "privbayes": ("PrivBayes, Laplace", "#E69F00", "s"),
    "privbayes_gaussian": ("PrivBayes, Gaussian noise", "#E69F00", "D"),
    "dp_gan": ("DP-GAN", "#56B4E9", "X"),
    "gan_linear": ("GAN, linear (CTGAN-like)", "#56B4E9", "^"),
    "gan_conv": ("GAN, convolutions (CTAB-GAN-like)", "#56B4E9", "v"),
    "tab_ddpm": ("TabDDPM-like", "#009E73", "v"),
}

# Where PFDM's local stage starts, in the order of the ladder: start -> (what a reader sees, colour).
STARTS = {
    "noise": ("(a) N(0, I): no server", "#5F5F5F"),
    "class_mean": ("(b) class mean of the uploads", "#56B4E9"),
    "class_gaussian": ("(c) class Gaussian of the uploads", "#56B4E9"),
    "global": ("(d) PFDM: the global denoiser", "#0072B2"),
    "uploads": ("(r) the uploads themselves", "#009E73"),
    "oracle": ("(e) oracle: all pictures, noised afresh", "#D55E00"),
    "clean_global": ("(f) oracle: centralised samples, noised", "#D55E00"),
}

METRICS = {
    "column_shapes": "column shapes (0–1, higher is better)",
    "pair_trends": "pair trends (0–1, higher is better)",
    "pair_trends_quantile": "pair trends, quantile bins (0–1, higher is better)",
    "accuracy": "accuracy (0–1, higher is better)",
    "balanced_accuracy": "balanced accuracy (0–1, higher is better)",
    "roc_auc": "ROC AUC (0–1, higher is better)",
    "attack_risk": "attack risk, mean of games (0–1, lower is better)",
    "copy_share": "share of copies (0–1, lower is better)",
    "label_accuracy": "label accuracy (0–1, higher is better)",
    "frechet": "Fréchet distance (lower is better)",
    "frechet_corrected": "Fréchet distance, corrected for the number of pictures (lower is better)",
    "kid": "kernel distance (lower is better)",
    "precision": "precision (0–1, higher is better)",
    "recall": "recall (0–1, higher is better)",
    "closer_to_train": "nearer to own training pictures than to unseen ones (0.5 is ideal)",
    "memorised": "share memorised (0–1, lower is better)",
    "ink_purity": "light in the strongest channel (1/3–1, real pictures have 1)",
    "ink_distance": "inks apart from the client's own (0–1, lower is better)",
    "worst_recall": "worst class (recall, 0–1, higher is better)",
    "recall_gap": "best less worst class (0–1, lower is better)",
    "minority_recall": "minority classes (recall, 0–1, higher is better)",
    "majority_recall": "majority classes (recall, 0–1, higher is better)",
    "seconds": "time (s)",
}

RC = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8, "axes.titlesize": 8.5,
    "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5,
    "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7,
    "axes.grid": True, "grid.color": "#E6E6E6", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "lines.linewidth": 1.4, "lines.markersize": 4.5, "errorbar.capsize": 0, "pdf.fonttype": 42, "ps.fonttype": 42,
    "savefig.dpi": 200, "figure.dpi": 100, "figure.constrained_layout.use": True, "svg.hashsalt": "feddiff",
    "axes.titlelocation": "left", "axes.titleweight": "bold", "path.simplify": True,
}


class NothingToDraw(ValueError):
    """The records lack what a figure shows; the message says what."""


def styled(function):
    """Let a figure function run under the style, whatever the caller's matplotlib settings are."""
    @wraps(function)
    def drawn(*arguments, **options):
        with matplotlib.rc_context(RC):
            return function(*arguments, **options)
    return drawn


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """Return (figure, axes array of shape (rows, columns)); sizes in inches; no global figure state is touched."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def focus(
    panel, values, axis: str = "x", *, spread: float = 0.5, low: float = -math.inf, high: float = math.inf
) -> None:
    """Set the limits of an axis by its points, `spread` times their range beyond them, within low..high.

    An interval of two or three seeds can be many times as long as all differences that a panel is there to show; a bar
    that runs out of the panel says enough. low, high: the metric's range.
    """
    values = [float(value) for value in values if math.isfinite(value)]
    if not values:
        return
    room = spread * max(max(values) - min(values), 0.02)
    getattr(panel, f"set_{axis}lim")(max(low, min(values) - room), min(high, max(values) + room))


def method_name(method: str) -> str:
    """Return what a reader sees for a method label (the label itself when it is not one of METHODS)."""
    return METHODS[method][0] if method in METHODS else method.replace("_", " ")


def metric_name(metric: str, *, direction: bool = True) -> str:
    """Return a metric's axis label, with range and direction unless `direction` is False."""
    name = METRICS.get(metric, metric.replace("_", " "))
    return name if direction else name.split(" (")[0]


def epsilon_name(text: str) -> str:
    """Return the tick label of a budget: "inf" is the infinity sign."""
    return "∞" if text == "inf" else text


def colours(names) -> dict[str, tuple[str, str]]:
    """Return name -> (colour, marker) for sorted `names`; ValueError beyond the palette."""
    names = sorted(set(names))
    if len(names) > len(PALETTE):
        raise ValueError(f"{len(names)} series, but the palette has {len(PALETTE)} colours; draw panels instead")
    return {name: (PALETTE[index], MARKERS[index]) for index, name in enumerate(names)}


def finish(figure: Figure, notebook: str, name: str, scale: str) -> tuple[Path, ...]:
    """Write figures/<scale>/<notebook>--<name>.png and, but at quick, .pdf, and return the paths, the PNG last.

    A quick figure says on its face that it is no result, so nobody needs it in print; its PDF, whose fonts are cut to
    the characters used, would take longer than all the rest of a report.
    """
    scales.check(scale)
    if scale == "quick" and not getattr(figure, "_feddiff_stamped", False):
        figure.text(
            0.5, 0.5, "quick scale: not a result", ha="center", va="center", rotation=18, fontsize=22, color="#B22222",
            alpha=0.16, weight="bold", zorder=10,
        )
        figure.suptitle("quick scale: not a result", fontsize=7.5, color="#B22222", x=0.995, ha="right")
        figure._feddiff_stamped = True
    stem = scales.figures_folder(scale) / f"{notebook}--{name}"
    paths = []
    with matplotlib.rc_context(RC):
        # The layout is solved once and then kept: it is most of the time, and both files show the same picture. Text
        # is hinted to whole pixels, so its width is that of the file only at the file's resolution.
        figure.set_dpi(RC["savefig.dpi"])
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        # No dates and no versions inside the files, so that the same records give the same bytes.
        prints = {} if scale == "quick" else {".pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
        for suffix, metadata in {**prints, ".png": {"Software": None}}.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], metadata=metadata, dpi=RC["savefig.dpi"])
            paths.append(files.write_bytes(stem.with_name(stem.name + suffix), buffer.getvalue()))
    return tuple(paths)


def picture(path: Path, width: float = WIDTH):
    """Return the PNG at `path` for display in a notebook, `width` inches wide on the page it was drawn for."""
    from IPython.display import Image

    return Image(filename=str(path), width=int(120 * width))
