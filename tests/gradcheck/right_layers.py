"""Right layers and losses as text, made at random: parameters broadcast in every way, labels of every kind.

python -m tests.gradcheck.right_layers 2000        # counts the verdicts of `tinygen gradcheck` on so many
"""

import linecache
import re
import sys
from types import ModuleType

import numpy as np

from tinygen.gradcheck import GradcheckReport
from tinygen.gradcheck.command import check_target
from tinygen.gradcheck.targets import targets

# How a parameter is used with x, and how the gradient of x's shape is summed to the parameter's: by x's axes.
FORMS = {
    2: [("{p}", "{g}.sum(axis=0)"), ("{p}", "{g}.sum(0, keepdims=True)"), ("{p}", "{g}.sum(1, keepdims=True)"),
        ("{p}[:, None]", "{g}.sum(axis=1)"), ("{p}[None]", "{g}.sum(axis=0)"),
        ("{p}.reshape(1, -1)", "{g}.sum(axis=0)")],
    3: [("{p}", "{g}.sum(axis=(0, 1))"), ("{p}", "{g}.sum(axis=0)"), ("{p}", "{g}.sum(axis=(0, 1), keepdims=True)")],
    4: [("{p}[:, None, None]", "{g}.sum(axis=(0, 2, 3))"), ("{p}.reshape(1, -1, 1, 1)", "{g}.sum(axis=(0, 2, 3))"),
        ("{p}", "{g}.sum(axis=(0, 2, 3), keepdims=True)"), ("{p}", "{g}.sum(axis=(0, 2, 3))[:, None, None]")],
    0: [("{p}", "{g}"), ("{p}", "{g}.sum()"), ("{p}", "{g}.sum().reshape(1)"),
        ("{p}", "unbroadcast({g}, np.shape({p}))"),
        ("{p}", "{g}.sum(axis=tuple(range({g}.ndim - 1)))")],
}  # fmt: skip
UNPACKED = {2: "N, D", 3: "N, T, D", 4: "N, C, H, W"}
HELPER = """import numpy as np
def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(k for k, n in enumerate(shape) if n == 1), keepdims=True).reshape(shape)
"""
NAMES = {
    "bias": ["b", "bias", "beta", "shift", "offset"],
    "scale": ["g", "gamma", "scale", "w", "alpha", "s", "gain"],
    "prelu": ["a", "alpha", "slope", "w"],
    "rmsnorm": ["g", "gamma", "weight", "scale"],
}


def layer(r: np.random.Generator) -> str:
    """The text of a pair: bias, scale, scale and bias, PReLU or RMSNorm."""
    kind = str(r.choice(["bias", "scale", "film", "prelu", "rmsnorm", "rmsnorm_bias"]))
    axes = int(r.choice([0, 2, 2, 2, 3, 4]))
    forms = FORMS[axes]
    x = str(r.choice(["x", "X", "inp", "z"]))
    (use, back), (use2, back2) = (forms[k] for k in r.integers(len(forms), size=2))
    first, both = kind.partition("_")[0], kind in ("film", "rmsnorm_bias")
    p = str(r.choice(NAMES["scale" if kind == "film" else first]))
    q = str(r.choice(["b", "bias", "beta", "shift"]))
    q = q if q != p else "bias"
    fill = lambda text, g="", name=p: text.replace("{p}", name).replace("{g}", g)  # noqa: E731
    pre, P, Q = "", fill(use), fill(use2, name=q)
    if first == "rmsnorm":
        pre = f"    r = np.sqrt(({x} * {x}).mean(axis=-1, keepdims=True) + 1e-5)\n    n = {x} / r\n"
        out, dx, g = f"n * {P}", f"dout * {P} / r - n * (dout * {P} * n).mean(axis=-1, keepdims=True) / r", "(dout * n)"
    elif kind == "bias":
        out, dx, g = f"{x} + {P}", "dout", "dout"
    elif kind == "prelu":
        out = f"np.where({x} > 0, {x}, {P} * {x})"
        dx, g = f"dout * np.where({x} > 0, 1, {P})", f"(dout * {x} * ({x} <= 0))"
    else:
        out, dx, g = f"{x} * {P}", f"dout * {P}", f"(dout * {x})"
    args = [x, p, *([q] if both else [])]
    unpack = f"    {UNPACKED[axes]} = {x}.shape\n" if axes and r.random() < 0.5 else ""
    grads = [f"d{x} = {dx}", f"d{p} = {fill(back, g)}", *([f"d{q} = {fill(back2, 'dout', q)}"] if both else [])]
    names, listed = ", ".join(f"d{a}" for a in args), ", ".join(args)
    given = "dout, cache" if r.random() < 0.7 or both else f"dout, {listed}"
    body = f"    {listed} = cache\n" if given == "dout, cache" else ""
    returned = names if r.random() < 0.8 else "{" + ", ".join(f"'{a}': d{a}" for a in args) + "}"
    cache = f", ({listed})" if given == "dout, cache" else ""
    word = str(r.choice([kind, f"my_{kind}", "layer", "op1"]))
    return (
        f"{HELPER}def {word}_forward({listed}):\n{unpack}{pre}    out = {out}{f' + {Q}' if both else ''}\n"
        f"    return out{cache}\ndef {word}_backward({given}):\n{body}{pre}"
        + "".join(f"    {line}\n" for line in grads) + f"    return {returned}\n"
    )  # fmt: skip


ROWS = ["p = 1 / (1 + np.exp(-{x}))", "p = np.exp({x}) / np.exp({x}).sum(axis=-1, keepdims=True)"]
# Name; lines before; the loss of each element (or row); the gradient by x of their sum; whether elements are rows.
LOSSES = [
    ("mse", "", "({x} - {y})**2", "2 * ({x} - {y})", False),
    ("half_mse", "", "0.5 * ({x} - {y})**2", "{x} - {y}", False),
    ("mae", "", "np.abs({x} - {y})", "np.sign({x} - {y})", False),
    ("huber", "e = {x} - {y}", "np.where(np.abs(e) < 1, e * e / 2, np.abs(e) - 0.5)", "np.clip(e, -1, 1)", False),
    ("bce", "", "-({y} * np.log({x}) + (1 - {y}) * np.log(1 - {x}))", "({x} - {y}) / ({x} * (1 - {x}))", False),
    ("logistic", ROWS[0], "-({y} * np.log(p) + (1 - {y}) * np.log(1 - p))", "p - {y}", False),
    ("hinge", "", "np.maximum(0, 1 - {x} * {y})", "-{y} * ({x} * {y} < 1)", False),
    ("squared_hinge", "m = np.maximum(0, 1 - {x} * {y})", "m**2", "-2 * {y} * m", False),
    ("sign_logistic", "m = {x} * {y}", "np.log1p(np.exp(-m))", "-{y} / (1 + np.exp(m))", False),
    ("poisson", "", "np.exp({x}) - {y} * {x}", "np.exp({x}) - {y}", False),
    ("cross_entropy", ROWS[1], "-np.log(p[np.arange(len({x})), {y}])", "p - np.eye({x}.shape[1])[{y}]", True),
    ("one_hot", ROWS[1], "-({y} * np.log(p)).sum(axis=-1)", "p - {y}", True),
    ("nll", "", "-np.log({x}[np.arange(len({x})), {y}])", "-np.eye({x}.shape[1])[{y}] / {x}", True),
    ("soft_nll", "", "-({y} * np.log({x})).sum(axis=-1)", "-{y} / {x}", True),
    ("kl", "", "({y} * np.log(({y} + 1e-9) / {x})).sum(axis=-1)", "-{y} / {x}", True),
]


def loss(r: np.random.Generator) -> str:
    """The text of a loss: loss(x, y) -> loss, dx, or a pair that doesn't differentiate y."""
    name, before, value, dx, rows = LOSSES[int(r.integers(len(LOSSES)))]
    pairs = [("x", "y"), ("pred", "target"), ("logits", "labels"), ("scores", "y"), ("p", "t"), ("y_pred", "y_true"),
             ("y_hat", "y"), ("x", "t")]  # fmt: skip
    x, y = pairs[int(r.integers(len(pairs)))]
    if x == "p" and before.startswith("p"):
        x = "x"
    total, over = [("sum()", "1"), ("sum() / len({x})", "len({x})"), ("mean()", "len({x})" if rows else "{x}.size")][
        int(r.integers(3))
    ]
    check = r.choice(["", "    N, C = {x}.shape\n" if rows else "    assert {x}.shape == {y}.shape\n"])
    before = f"    {before}\n" if before else ""
    if r.random() < 0.6:
        text = (
            f"def {name}_loss({{x}}, {{y}}):\n{check}{before}    loss = ({value}).{total}\n"
            f"    d{{x}} = ({dx}) / {over}\n    return loss, d{{x}}\n"
        )
    else:
        text = (
            f"def {name}_forward({{x}}, {{y}}):\n{check}{before}    return ({value}).{total}, ({{x}}, {{y}})\n"
            f"def {name}_backward(dout, cache):\n    {{x}}, {{y}} = cache\n{before}"
            f"    d{{x}} = dout * ({dx}) / {over}\n"
            f"    return d{{x}}\n"
        )
    return HELPER + text.replace("{x}", x).replace("{y}", y)


MODELS = [  # of z = X @ w + b: the loss of each example, its gradient by z
    ("0.5 * (z - y)**2", "z - y"),
    ("np.log1p(np.exp(-y * z))", "-y / (1 + np.exp(y * z))"),
    ("np.log1p(np.exp(z)) - y * z", "1 / (1 + np.exp(-z)) - y"),
    ("np.maximum(0, 1 - y * z)", "-y * (y * z < 1)"),
]


def model(r: np.random.Generator) -> str:
    """The text of a linear model's loss with the gradients of its parameters."""
    value, dz = MODELS[int(r.integers(len(MODELS)))]
    w, column, bias = str(r.choice(["w", "W", "theta"])), r.random() < 0.4, r.random() < 0.4
    order = [[w, "X", "y"], ["X", "y", w]][int(r.integers(2))]
    over = str(r.choice(["len(y)", "1"]))
    args = [*order, *(["b"] if bias else [])]
    check = f"    assert {w}.shape[1] == 1\n" if column else ""
    z = f"X @ {w}" + (" + b" if bias else "")
    db = "    db = dz.sum(axis=0)\n" if bias else ""
    returned = f"d{w}, db" if bias else f"d{w}"
    return (
        f"import numpy as np\ndef linear_loss({', '.join(args)}):\n{check}    z = {z}\n"
        f"    loss = ({value}).sum() / {over}\n    dz = ({dz}) / {over}\n    d{w} = X.T @ dz\n{db}"
        f"    return loss, {returned}\n"
    )


def right_layer(seed: int) -> str:
    """The text of one of them."""
    r = np.random.default_rng(seed)
    return (layer, layer, layer, loss, loss, model)[int(r.integers(6))](r)


def spoiled(text: str) -> str:
    """The same with one gradient 1.5 times as large."""
    return re.sub(r"(    return (?:loss, |\{'\w+': )?)(d\w+)(?=[,}\n])(?!.*cache)", r"\g<1>1.5 * \2", text)


def verdict(text: str) -> GradcheckReport:
    """The report of `tinygen gradcheck` on a file with that text, without the file."""
    module = ModuleType("right_layer")
    name = "<right layer>"
    linecache.cache[name] = len(text), None, text.splitlines(True), name
    exec(compile(text, name, "exec"), vars(module))
    for value in vars(module).values():
        if callable(value):
            value.__module__ = module.__name__
    (target,) = targets(module)
    return check_target(target)


def main(count: int) -> None:
    """Print those that are called wrong, and how often each verdict was given."""
    counts: dict[str, int] = {}
    for seed in range(count):
        text = right_layer(seed)
        report = verdict(text)
        counts[report.verdict] = counts.get(report.verdict, 0) + 1
        if not report:
            print(f"seed {seed}\n{text.replace(HELPER, '')}{report}\n", flush=True)
    print(counts)


if __name__ == "__main__":
    main(int(sys.argv[1]))
