# ruff: noqa: E501
"""The course: exercises, which are the solutions with holes, and wrong answers that `tinygen gradcheck` has to name.

    python docs/course/grade.py            # how each wrong answer is graded
    python docs/course/grade.py --write    # make the exercises of the solutions again

A function whose docstring begins with "Exercise" is a hole. Each wrong answer is one edit of a solution, with the cause
that a teacher would name, `a|b` where either will do.
"""

from __future__ import annotations

import ast
import linecache
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tinygen.gradcheck.command import check_file
from tinygen.gradcheck.report import GradcheckReport
from tinygen.tape import REGISTRY

COURSE = Path(__file__).parent


class Wrong(NamedTuple):
    """A wrong answer: in the solution of a chapter, `old` becomes `new`; gradcheck's target shows it."""

    chapter: str
    target: str
    old: str
    new: str
    cause: str


WRONG = [
    Wrong("1-tape", "diamond_backward", "parent.grad = parent.grad + g", "parent.grad = g", "factor|overwritten|missing path"),
    Wrong("1-tape", "diamond_backward", "in reversed(order)", "in order", "no gradient|zero|factor|only part|missing path"),
    Wrong("1-tape", "diamond_backward", "self.grad = self.grad + gradient", "self.grad = np.ones_like(self.data)", "upstream ignored"),
    Wrong("1-tape", "diamond_backward", "order.append(value)  # after all that it was made from", "pass", "no gradient|zero|factor|only part"),
    Wrong("1-tape", "knot_backward", "for parent in value.parents:\n                    visit(parent)\n                order.append(value)",
          "order.append(value)\n                for parent in value.parents:\n                    visit(parent)", "missing path|zero"),
    Wrong("2-rules", "tanh_backward", "y * y", "y", "local factor"),
    Wrong("2-rules", "tanh_backward", "dout * (1 - y * y)", "1 - y * y", "upstream ignored"),
    Wrong("2-rules", "scale_backward", "(dout * x).sum(axis=0)", "dout * x", "missing sum"),
    Wrong("2-rules", "scale_backward", "(dout * x).sum(axis=0)", "(dout * x).mean(axis=0)", "factor"),
    Wrong("2-rules", "scale_backward", "return dout * gamma,", "return dout,", "local factor"),
    Wrong("2-rules", "linear_backward", "x.T @ dout", "dout.T @ x", "transposed"),
    Wrong("2-rules", "linear_backward", "dout.sum(axis=0)", "dout", "missing sum|wrong shape"),
    Wrong("2-rules", "linear_backward", "dout @ w.T, x.T @ dout,", "x.T @ dout, dout @ w.T,", "swapped"),
    Wrong("2-rules", "softmax_loss", "dx / len(x)", "dx", "factor"),
    Wrong("2-rules", "softmax_loss", "dx[rows, y] -= 1", "dx[rows, y] += 1", "missing term"),
    Wrong("2-rules", "bump", "-gout * x * out", "gout * x * out", "factor"),
    Wrong("2-rules", "bump", "-gout * x * out", "-gout * out", "local factor|wrong variable"),
    Wrong("3-network", "relu_backward", "dout * (x > 0)", "dout", "mask"),
    Wrong("3-network", "relu_backward", "dout * (x > 0)", "dout * (x < 0)", "mask"),
    Wrong("3-network", "relu_backward", "dout * (x > 0)", "(x > 0) * 1.0", "upstream ignored"),
    Wrong("3-network", "Network", "log_p[rows, y].mean()", "log_p[rows, y].sum()", "factor"),
    Wrong("3-network", "Network", "X.T @ da", "da.T @ X", "transposed|wrong shape"),
    Wrong("3-network", "Network", "\"b2\": ds.sum(axis=0)", "\"b2\": ds.mean(axis=0)", "factor"),
    Wrong("3-network", "Network", "ds /= len(X)", "pass", "factor"),
    Wrong("3-network", "Network", "da.sum(axis=0)", "ds.sum()", "wrong shape|raises"),
    Wrong("3-network", "Network", "X.T @ da", "X.T @ np.ones_like(da)", "local factor|upstream ignored"),
    Wrong("3-network", "Network", "relu_backward(ds @ p[\"W2\"].T, mask)", "ds @ p[\"W2\"].T", "mask|local factor"),
    Wrong("4-masks", "conv_backward", "dw[:, :, i, j] = np", "dw[:, :, -1 - i, -1 - j] = np", "flipped"),
    Wrong("4-masks", "conv_backward", "dpadded[:, :, rows, columns] +=", "dpadded[:, :, rows, columns] =", "overwritten"),
    Wrong("4-masks", "conv_backward", "dout.sum(axis=(0, 2, 3))", "dout.mean(axis=(0, 2, 3))", "factor"),
    Wrong("4-masks", "conv_backward", "[:, :, pad : pad + h, pad : pad + wide]", "[:, :, :h, :wide]", "shifted"),
    Wrong("4-masks", "masked_backward", "dw * mask_of(\"A\", 3, 3)", "dw", "mask"),
    Wrong("5-sampling", "order_loss", "for i in range(height) for j in range(width)", "for j in range(width) for i in range(height)", "transposed"),
    Wrong("5-sampling", "order_loss", "for i in range(height)", "for i in reversed(range(height))", "flipped"),
    Wrong("5-sampling", "order_loss", "range(width)", "range(1, width)", "factor|slice"),
    Wrong("5-sampling", "naive_loss", "mean[i, j] + noise[i, j]", "mean[i, j]", "zero"),
    Wrong("5-sampling", "naive_loss", "mean[i, j] + noise[i, j]", "mean[i, j] + noise[0, 0]", "slice"),
    Wrong("5-sampling", "naive_loss", "    for i, j in order(*noise.shape):\n        mean, _ = network(x)", "    mean, _ = network(x)\n    for i, j in order(*noise.shape):", "factor|recurrence"),
    Wrong("5-sampling", "remembering_loss", "h[:, i, j] = hidden_at(x, i, j)", "hidden_at(x, i, j)", "zero"),
    Wrong("5-sampling", "remembering_loss", "h[:, i, j] = hidden_at(x, i, j)", "h[:, j, i] = hidden_at(x, i, j)", "transposed"),
    Wrong("5-sampling", "remembering_loss", "h[:, i, j] = hidden_at(x, i, j)", "_, h = network(x)", "factor"),
    Wrong("5-sampling", "remembering_loss", "h[:, i, j] = hidden_at(x, i, j)\n        x[i, j] = mean_at(h, i, j) + noise[i, j]",
          "x[i, j] = mean_at(h, i, j) + noise[i, j]\n        h[:, i, j] = hidden_at(x, i, j)", "missing term"),
    Wrong("5-sampling", "remembering_loss", "return x, h", "return x, network(x)[1]", "factor"),
    Wrong("6-vae", "kl_backward", "dout * mean,", "dout * 2 * mean,", "factor"),
    Wrong("6-vae", "kl_backward", "np.exp(log_var) - 1)", "np.exp(log_var))", "local factor|missing term"),
    Wrong("6-vae", "reparameterize_backward", "dout * 0.5 * np.exp(log_var / 2) * noise", "dout * np.exp(log_var / 2) * noise", "factor"),
    Wrong("6-vae", "reparameterize_backward", "np.exp(log_var / 2) * noise", "np.exp(log_var) * noise", "local factor"),
    Wrong("6-vae", "bernoulli_loss", "(p - y) / len(x)", "p - y", "factor"),
    Wrong("6-vae", "bernoulli_loss", "(p - y) / len(x)", "(p + y) / len(x)", "missing term"),
    Wrong("7-gan", "discriminator_backward", "(sigmoid(real) - 1), dout * sigmoid(fake)", "sigmoid(real), dout * sigmoid(fake)", "missing term|local factor|wrong variable"),
    Wrong("7-gan", "discriminator_backward", "(sigmoid(real) - 1), dout * sigmoid(fake)", "(sigmoid(real) - 1), -dout * sigmoid(fake)", "factor"),
    Wrong("7-gan", "minimax_backward", "-dout * sigmoid(fake)", "dout * (sigmoid(fake) - 1)", "missing term|local factor|wrong variable"),
    Wrong("7-gan", "saturation_backward", "dout * (sigmoid(fake) - 1)", "sigmoid(fake) - 1", "upstream ignored"),
    Wrong("7-gan", "penalty_backward", "dw + x.T @ da", "dw", "missing path|missing term"),
    Wrong("7-gan", "penalty_backward", "dout * 2 * (norm - 1)", "dout * (norm - 1)", "factor"),
    Wrong("8-kernel", "tanh_backward", "(1 - y[i] * y[i])", "y[i]", "local factor|wrong variable"),
    Wrong("8-kernel", "tanh_backward", "gradient[i] * (1", "(1", "upstream ignored"),
    Wrong("8-kernel", "tanh_backward", "long i = 0; i < n", "long i = 0; i < n - 1", "only part|border|slice"),
    Wrong("8-kernel", "tanh_backward", "y[i] * y[i]", "y[0] * y[i]", "local factor|wrong variable"),
    Wrong("8-kernel", "tanh_backward", "dx[i] = gradient", "dx[0] += gradient", "only part|factor|wrong axis"),
]  # fmt: skip


def exercise(chapter: str) -> str:
    """The text of a chapter's exercise: its solution with the bodies of the holes taken out."""
    text = (COURSE / "solutions" / f"{chapter}.py").read_text()
    lines = text.splitlines(keepends=True)
    for node in reversed(list(ast.walk(ast.parse(text)))):
        if isinstance(node, ast.FunctionDef) and (ast.get_docstring(node) or "").startswith("Exercise"):
            number = (ast.get_docstring(node) or "").partition(":")[0].removeprefix("Exercise ")
            indent = " " * node.body[0].col_offset
            lines[node.body[1].lineno - 1 : node.end_lineno] = [
                f'{indent}raise NotImplementedError("exercise {number}")\n'
            ]
    return "".join(lines)


def chapters() -> list[str]:
    """The names of all chapters that have an exercise."""
    return sorted(path.stem for path in (COURSE / "solutions").glob("*.py"))


def graded(text: str, target: str = "") -> list[GradcheckReport]:
    """What `tinygen gradcheck` says of an answer."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "exercise.py"
        file.write_text(text)
        linecache.checkcache()
        known = set(REGISTRY)
        try:
            return list(check_file(file, target))
        finally:
            for name in set(REGISTRY) - known:  # ops of the answer, so that the next one can define them again
                del REGISTRY[name]


def answer(wrong: Wrong) -> GradcheckReport:
    """The report about a wrong answer."""
    text = (COURSE / "solutions" / f"{wrong.chapter}.py").read_text()
    start = text.find(wrong.old, max(text.find(f"def {wrong.target}("), 0))
    start = start if start >= 0 else text.rfind(wrong.old)
    assert start >= 0, wrong
    (report,) = graded(text[:start] + wrong.new + text[start + len(wrong.old) :], wrong.target)
    return report


def named(wrong: Wrong, report: GradcheckReport) -> bool:
    """Whether the first problem names the cause."""
    return report.cause in wrong.cause.split("|")


def main() -> None:
    """Print how each wrong answer is graded, or write the exercises."""
    if "--write" in sys.argv:
        for chapter in chapters():
            (COURSE / chapter).mkdir(exist_ok=True)
            (COURSE / chapter / "exercise.py").write_text(exercise(chapter))
        return
    reports = [(wrong, answer(wrong)) for wrong in WRONG]
    for wrong, report in reports:
        mark = "ok" if named(wrong, report) else "MISSED" if report else "misnamed"
        print(f"{mark:9}{wrong.target:24}{wrong.cause:44}{report.cause:18}{wrong.new!r}")
    right = sum(named(wrong, report) for wrong, report in reports)
    print(f"{len(reports)} wrong answers: {sum(not r for _, r in reports)} caught, {right} named")


if __name__ == "__main__":
    main()
