"""python -m benchmarks.models.autoencoders: the lecture on autoencoders and VAEs, measured (slides 9 to 12, 37 to 99).

Each part prints a table and writes pictures into --out; all of them together take minutes on one core. Fashion-MNIST.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's own threads would get in the way of tinygen's

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import likelihoods as table_of_likelihoods
from benchmarks.models.likelihoods import SEED, Entry, training
from tinygen import kernels
from tinygen.baselines.density import GaussianMixture, Histogram, KernelDensity
from tinygen.baselines.kmeans import kmeans, mutual_information, purity
from tinygen.baselines.pca import PCA
from tinygen.cli.parser import Parser
from tinygen.metrics.distance import frechet_distance, precision_recall
from tinygen.metrics.features import feature_net
from tinygen.metrics.metric import Chart
from tinygen.metrics.quality import calibration
from tinygen.models.family import Batch
from tinygen.models.model import Model
from tinygen.models.probing import fine_tuned
from tinygen.models.vae.autoencoder import Autoencoder
from tinygen.models.vae.estimates import ACTIVE, activity, elbo, importance_bound, prior_estimate
from tinygen.report.images import save_plot

SEEDS = range(6)
data = functools.cache(table_of_likelihoods.data)  # the features and the calibration go with a data set's identity


@functools.cache
def trained(epochs: float, levels: int = 2, model: str = "vae", lr: float = 1e-3, **options: Any) -> tuple[Any, float]:
    """A model after so many epochs in batches of 64, and the seconds that they took."""
    state = training(Entry(model, model, options, levels, lr), data(levels)[0])
    state.config.epochs, start = epochs, time.process_time()
    state.model.train()
    while state.done < 1:
        state.advance(state.done)
    return state.model.eval(), time.process_time() - start


def table(head: str, rows: Iterable[Sequence[Any]]) -> str:
    """Markdown."""
    lines = [head, " | ".join("---" for _ in head.split("|"))]
    lines += [" | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def spread(values: Sequence[float], scale: float = 1) -> str:
    """Mean and standard deviation."""
    return f"{scale * np.mean(values):.2f} +- {scale * np.std(values, ddof=1):.2f}"


def drawn(model: Model, out: Path, *names: str, prefix: str = "") -> None:
    """Write plots of a model."""
    train, test = data(model.levels)
    for name in names:
        found = model.family.plots[name](model, train, test, np.random.default_rng(SEED))
        save_plot(out / f"{prefix or type(model).__name__.lower()}-{name}.png", found, model.levels)


# ------------------------------------------------------------------------------------------------------------ the parts


def clusters(out: Path) -> str:
    """Slides 9 to 11: k-means against the classes, PCA's share of the variance."""
    train, _ = data(256)
    x = train.images.reshape(len(train), -1).astype(np.float32) / 255
    found = [kmeans(x, 10, np.random.default_rng(seed)) for seed in SEEDS]
    rows = [
        ("k-means, k = 10: purity", spread([purity(f.labels, train.labels) for f in found])),
        ("k-means, k = 10: mutual information", spread([mutual_information(f.labels, train.labels) for f in found])),
    ]
    explained = PCA(x, 128).explained
    rows += [(f"PCA: variance explained by {k}", f"{explained[k - 1]:.3f}") for k in (2, 20, 64, 128)]
    return table("Fashion-MNIST, 60,000 images | ", rows)


def densities(out: Path) -> str:
    """Slide 12: the density of one variable, an image's mean brightness; mean log-likelihood of the test set."""
    (train, test), kinds = data(256), dict[str, Any]()
    x, new = (d.images.mean(axis=(1, 2, 3)) / 255 for d in (train, test))
    kinds["one Gaussian"] = GaussianMixture(x, 1)
    kinds["histogram, 40 bins"] = Histogram(x, 40)
    kinds["kernel density, of 5,000"] = KernelDensity(x[:5000])
    kinds["mixture of 5 Gaussians"] = GaussianMixture(x, 5, 100)
    save_plot(out / "densities.png", densities_chart(x, kinds), 256)
    rows = [(name, f"{np.log(np.maximum(p.density(new), 1e-9)).mean():.4f}") for name, p in kinds.items()]
    return table("density of the mean brightness | log-likelihood of the test set, nats", rows)


def densities_chart(x: np.ndarray, kinds: dict[str, Any]) -> Chart:
    """Densities over the values of x (N,), of which there is a histogram behind."""

    def draw(axes: Any) -> None:
        at = np.linspace(0, x.max(), 500)
        axes.hist(x, 120, density=True, color="0.85", label="training images")
        for name, p in kinds.items():
            axes.plot(at, p.density(at), label=name)
        axes.set(xlabel="mean brightness", ylabel="density")
        axes.legend()

    return Chart(draw, "Densities of the mean brightness of an image")


def autoencoder(out: Path) -> str:
    """Slides 42 to 46 and 49: an autoencoder against PCA with codes of the same size; why it can't generate."""
    (model, seconds), (train, test) = trained(4, 256, "autoencoder", 2e-3, latent=64), data(256)
    (metric,) = model.family.metrics(model, train, test, np.random.default_rng(SEED))
    drawn(model, out, "reconstruct", "generate", "interpolate", "scatter")
    rows = [("autoencoder, 64 numbers", metric.value), *metric.baselines.items(), ("seconds of training", seconds)]
    return table("test set | mean squared error, of 1,000", rows)


def finetuning(out: Path) -> str:
    """Slides 47 and 48: classifiers from the autoencoder's encoder and from scratch, with few labels."""
    (pretrained, _), (train, test) = trained(4, 256, "autoencoder", 2e-3, latent=64), data(256)
    rows = []
    for labels in (100, 1000):
        found: dict[bool, list[float]] = {True: [], False: []}
        for seed in SEEDS:
            new = Autoencoder(train.images.shape[1:], 256, latent=64, rng=np.random.default_rng(seed))
            for started, model in ((True, pretrained), (False, new)):
                found[started].append(fine_tuned(model, train, test, labels, seed))
        gain = np.subtract(found[True], found[False])
        rows.append((labels, *(spread(found[k], 100) for k in (True, False)), spread(list(gain), 100)))
    return table(f"labels, {len(SEEDS)} seeds | accuracy from the autoencoder, % | from scratch, % | gain", rows)


GATE = {"epochs": 17, "likelihood": "bernoulli"}


def vae(out: Path) -> str:
    """Slides 66 to 97: the VAE of Kingma & Welling, 784-400-20, on thresholded images."""
    model, seconds = trained(**GATE)
    train, test = data(2)
    metrics = model.family.metrics(model, train, test, np.random.default_rng(SEED))
    drawn(model, out, "reconstruct", "prior", "traverse", "interpolate", "variables", "scatter")
    rows = [(m.name, f"{m.value:.2f}" + (f" +- {m.error:.2f}" if m.error else ""), m.unit) for m in metrics]
    rows += [(name, f"{v:.2f}", metrics[4].unit) for name, v in metrics[4].baselines.items()]
    return table("VAE 784-400-20, 17 epochs | test set |", [*rows, ("training", f"{seconds:.0f}", "s of one core")])


def bounds(out: Path) -> str:
    """Slides 64, 65 and 80: how tight the bound is, and how the estimate from the prior spreads, by draws of z."""
    (model, _), (_, test) = trained(**GATE), data(2)
    images, rows = test.images[:100], []
    for k in (1, 10, 100, 1000, 5000):
        repeated = [f(model, images, k, np.random.default_rng(seed)) for f in (importance_bound, prior_estimate)
                    for seed in range(5)]  # fmt: skip
        posterior, prior = np.reshape(repeated, (2, 5, -1))
        rows.append((k, *(f"{v.mean():.1f} (+- {v.std(axis=0, ddof=1).mean():.1f})" for v in (posterior, prior))))
    head = "draws of z | log p(x), 100 images, z from q(z given x) | z from the prior"
    return table(head + ", nats (+- of an image, over repetitions)", rows)


def variants(out: Path) -> str:
    """Slide 98: other posteriors, bounds and networks after equally many images."""
    options: dict[str, dict[str, Any]] = {
        "Gaussian": {}, "mixture of 4 Gaussians": {"model": "mixture-vae"}, "IWAE, K = 5": {"model": "iwae"},
        "20 variables of 10 categories": {"model": "categorical-vae"}, "convolutional": {"network": "conv"},
        "beta 0.25": {"beta": 0.25}, "beta 4": {"beta": 4.0}, "beta 16": {"beta": 16.0},
    }  # fmt: skip
    return compared(options, {"likelihood": "bernoulli"}, 2, out)


def likelihoods(out: Path) -> str:
    """Slide 57: decoders for gray values."""
    options: dict[str, dict[str, Any]] = {
        "discretized logistic": {}, "Gaussian, sigma learned": {"likelihood": "gaussian"},
        "Gaussian, sigma 0.2": {"likelihood": "gaussian", "sigma": 0.2},
    }  # fmt: skip
    return compared(options, {}, 256, out)


def compared(options: dict[str, dict[str, Any]], common: dict[str, Any], levels: int, out: Path) -> str:
    rows = []
    for name, own in options.items():
        model, seconds = trained(3, levels, **common, **own)
        _, test = data(levels)
        rng = np.random.default_rng(SEED)
        reconstruction, kl = (part.mean() for part in elbo(model, test.images, rng))
        bound = -importance_bound(model, test.images[:200], 500, rng).mean()
        active = f"{(activity(model, test.images) > ACTIVE).sum()} of {model.latent}"
        shown = [f"{v:.1f}" for v in (reconstruction + kl, reconstruction, kl, bound, seconds)]
        bits = f"{model.bits_per_dim(reconstruction + kl):.3f}"
        rows.append((name, *shown[:1], bits, *shown[1:4], active, shown[4]))
        drawn(model, out, "traverse", "prior", prefix=name.replace(" ", "-").replace(",", ""))
    head = "3 epochs | -ELBO, nats | bits/dim | reconstruction | KL | weighted bound, K = 500, of 200 images"
    return table(f"{head} | active | s", rows)


def manifold(out: Path) -> str:
    """Slide 94: a VAE of two latent variables, its plane and the classes on it."""
    model, _ = trained(10, latent=2, likelihood="bernoulli")
    drawn(model, out, "manifold", "scatter", prefix="plane")
    bound = model.family.validation(model, Batch(data(2)[1].images), np.random.default_rng(0))
    return table("VAE of two variables, 10 epochs | nats", [("-ELBO", bound)])


def generation(out: Path) -> str:
    """Slides 49 and 92: codes from the prior, decoded by a VAE and by an autoencoder, beside a linear model."""
    train, test = data(256)
    model, _ = trained(20, 256, lr=2e-3, network="conv", hidden=16, beta=8.0)
    plain, _ = trained(4, 256, "autoencoder", 2e-3, latent=64)
    net, rng = feature_net(train), np.random.default_rng(SEED)
    codes = PCA(plain.encode(train.images), plain.latent)
    drawn(model, out, "prior", "reconstruct", prefix="gray")
    known = calibration(train, test)
    rows = [(name, known.distance[name], known.precision[name], known.recall[name]) for name in known.distance]
    for name, images in {
        "VAE, means of p(x given z)": model.decode(model.codes(10_000, rng)),
        "autoencoder, codes from N(0, I)": plain.decode(plain.codes(10_000, rng)),
        "autoencoder, codes from N(mean, covariance)": plain.decode(codes.sample(10_000, rng)),
    }.items():
        real, fake = (net.of(x)[0] for x in (test.images, np.round(images).astype(np.uint8)))
        rows.append((name, frechet_distance(real, fake), *precision_recall(real, fake)))
    return table("10,000 images | FD* | precision | recall", rows)


PARTS: dict[str, Callable[[Path], str]] = {f.__name__: f for f in (
    clusters, densities, autoencoder, finetuning, vae, bounds, variants, likelihoods, manifold, generation,
)}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the parts that are named, or all."""
    p = Parser(prog="python -m benchmarks.models.autoencoders", description=__doc__.splitlines()[0])
    p.add_argument("parts", nargs="*", metavar="PART", choices=PARTS, help="of %(choices)s (default: all)")
    p.add_argument("--out", type=Path, default=Path("benchmarks/results/autoencoders"), help="(default %(default)s)")
    args = p.parse_args(argv)
    kernels.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.parts or PARTS:
        text = f"{(PARTS[name].__doc__ or '').strip()}\n\n{PARTS[name](args.out)}\n"
        (args.out / f"{name}.md").write_text(text)
        print(f"{name}: {text}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
