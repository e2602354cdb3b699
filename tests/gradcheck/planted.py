"""Planted errors: each is one edit of layers.py, as students write them, with the cause that a teacher would name.

    python -m tests.gradcheck.planted          # checks every one as `tinygen gradcheck` does and prints the table

A cause is written `a|b` where a teacher would accept either word. PLANTED was written before the diagnosis.
"""
# ruff: noqa: E501

import linecache
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from tinygen.gradcheck.command import check_file
from tinygen.gradcheck.report import GradcheckReport

LAYERS = Path(__file__).with_name("layers.py")


class Planted(NamedTuple):
    function: str  # the function whose text is edited
    old: str
    new: str
    cause: str
    said: str = ""  # what the report says instead, where it misses the cause


PLANTED = [
    # affine
    Planted("affine_backward", "dout.sum(axis=0)", "dout.mean(axis=0)", "factor"),
    Planted("affine_backward", "db = dout.sum(axis=0)", "db = 4 / dout.shape[0] * dout.sum(axis=0)", "factor"),
    Planted("affine_backward", "db = dout.sum(axis=0)", "db = dout", "missing sum"),
    Planted("affine_backward", "dout.sum(axis=0)", "dout.sum(axis=0, keepdims=True)", "wrong shape"),
    Planted("affine_backward", "dout.sum(axis=0)", "dout.sum()", "wrong shape"),
    Planted("affine_backward", "(dout @ w.T).reshape(x.shape)", "dout @ w.T", "wrong shape"),
    Planted("affine_backward", "return dx, dw, db", "return dw, dx, db", "swapped"),
    Planted("affine_backward", "return dx, dw, db", "return dx, dw", "no gradient"),
    Planted("affine_backward", "    return dx, dw, db", "", "no gradient"),
    Planted("affine_backward", "x.reshape(x.shape[0], -1).T @ dout", "dout.T @ x.reshape(x.shape[0], -1)", "transposed"),
    Planted("affine_backward", "    db =", "    dw += x.reshape(x.shape[0], -1).T @ dout\n    db =", "factor"),
    Planted("affine_backward", ".T @ dout", ".T @ np.ones_like(dout)", "upstream ignored"),
    Planted("affine_backward", "db = dout.sum(axis=0)", "db = np.ones_like(b)", "upstream ignored"),
    Planted("affine_backward", "db = dout.sum(axis=0)", "db = dout[0]", "only part"),
    Planted("affine_backward", "dx = (dout", "dx = (-dout", "factor"),
    # activations and dropout
    Planted("relu_backward", "dout * (x > 0)", "dout", "mask"),
    Planted("relu_backward", "(x > 0)", "(x < 0)", "mask"),
    Planted("relu_backward", "dout * (x > 0)", "x * (x > 0)", "upstream ignored"),
    Planted("relu_backward", "dx = dout * (x > 0)", "dx = dout\n    dx[x <= 0] = 0", "changes upstream"),
    Planted("relu_backward", "dout * (x > 0)", "np.maximum(dout, 0)", "not linear|mask"),
    Planted("relu_backward", "dout * (x > 0)", "(dout.ravel(order='K') * (x.ravel() > 0)).reshape(x.shape)", "memory layout"),
    Planted("relu_forward", "np.maximum(0, x)", "np.maximum(0, x, out=x)", "changes input"),
    Planted("sigmoid_backward", "dout * y * (1 - y)", "dout * (1 - y)", "local factor"),
    Planted("sigmoid_backward", "dout * y * (1 - y)", "y * (1 - y)", "upstream ignored"),
    Planted("sigmoid_backward", "dout * y * (1 - y)", "dout * sigmoid(y) * (1 - sigmoid(y))", "local factor|wrong variable"),
    Planted("sigmoid_backward", "dout * y * (1 - y)", "dout * dout * y * (1 - y)", "not linear"),
    Planted("tanh_backward", "y**2", "y", "local factor"),
    Planted("tanh_backward", "(1 - y**2)", "y", "local factor|wrong variable"),
    Planted("dropout_backward", "dout * mask", "dout * (mask > 0)", "factor"),
    Planted("dropout_backward", "dout * mask", "dout", "mask"),
    Planted("dropout_backward", "dx = dout * mask", "mask *= dout\n        dx = mask", "changes cache"),
    # normalization
    Planted("batchnorm_backward", " + dvar * 2 * (x - mean) / N", "", "missing path"),
    Planted("batchnorm_backward", " + dmean / N", "", "missing path"),
    Planted("batchnorm_backward", " + dvar * 2 * (x - mean) / N + dmean / N", "", "missing path"),
    Planted("batchnorm_backward", "dmean / N", "dmean", "missing path"),
    Planted("batchnorm_backward", "std**-3", "std**-2", "missing path"),
    Planted("batchnorm_backward", "dxhat = dout * gamma", "dxhat = dout", "local factor"),
    Planted("batchnorm_backward", "np.sum(dout * xhat, axis=0)", "np.sum(dout * x, axis=0)", "wrong variable"),
    Planted("batchnorm_backward", "np.sum(dout * xhat, axis=0)", "dout * xhat", "missing sum"),
    Planted("batchnorm_backward", "dbeta = np.sum", "dbeta = np.mean", "factor"),
    Planted("batchnorm_backward_alt", ".mean(axis=0)) / std", ".mean(axis=0))", "local factor"),
    Planted("batchnorm_backward_alt", ".mean(axis=0)) / std", ".mean(axis=0)) / std**2", "local factor"),
    Planted("batchnorm_backward_alt", "dxhat.mean(axis=0)", "dxhat.sum(axis=0)", "missing path"),
    Planted("layernorm_backward", "dxhat.sum(axis=1, keepdims=True)", "dxhat.sum(axis=0, keepdims=True)", "wrong axis", said="unexplained"),
    Planted("layernorm_backward", "dgamma = (dout * xhat).sum(axis=0)", "dgamma = (dout * xhat).sum(axis=1)", "wrong shape|wrong axis"),
    Planted("layernorm_backward", "/ (D * std)", "/ std", "factor"),
    Planted("layernorm_backward", "/ (D * std)", "/ (N * std)", "factor"),
    Planted("spatial_groupnorm_backward", "dout.sum(axis=(0, 2, 3), keepdims=True)", "dout.sum(axis=(0, 2, 3))", "wrong shape"),
    Planted("spatial_groupnorm_backward", "(dout * gamma).reshape", "dout.reshape", "local factor"),
    Planted("spatial_batchnorm_backward", "dx.reshape(N, H, W, C).transpose(0, 3, 1, 2)", "dx.reshape(N, C, H, W)", "transposed"),
    # convolution
    Planted("conv_backward_naive", "dw[f] +=", "dw[f, :, ::-1, ::-1] +=", "flipped"),
    Planted("conv_backward_naive", "+= w[f] *", "+= w[f, :, ::-1, ::-1] *", "flipped"),
    Planted("conv_backward_naive", "+= w[f] *", "+= w[f].transpose(0, 2, 1) *", "transposed"),
    Planted("conv_backward_naive", "dw[f] +=", "dw[f] =", "overwritten"),
    Planted("conv_backward_naive", "left:left + WW] += w", "left:left + WW] = w", "overwritten"),
    Planted("conv_backward_naive", "dout.sum(axis=(0, 2, 3))", "dout.sum(axis=(2, 3))", "missing sum"),
    Planted("conv_backward_naive", "dout.sum(axis=(0, 2, 3))", "dout.mean(axis=(0, 2, 3))", "factor"),
    Planted("conv_backward_naive", "pad:pad + H, pad:pad + W", "pad:-pad, pad:-pad", "wrong shape"),
    Planted("conv_backward_naive", "pad:pad + H, pad:pad + W", ":H, :W", "shifted"),
    Planted("conv_backward_naive", "pad:pad + H, pad:pad + W", "pad:pad + H, pad:pad + H", "wrong shape|non-square"),
    Planted("conv_backward_naive", "top, left = i * stride, j * stride", "top, left = i, j", "stride"),
    Planted("conv_backward_naive", "for j in range(Wo)", "for j in range(Ho)", "non-square"),
    Planted("conv_backward_naive", "dxp[n, :, top:top + HH, left:left + WW] += w[f] *",
            "dxp[n, 0, top:top + HH, left:left + WW] += w[f, 0] *", "channel"),
    Planted("conv_backward_naive", "for i in range(Ho)", "for i in range(1, Ho - 1)", "border|only part"),
    Planted("conv_backward_naive", "dw[f] += xp[n, :,", "dw[f] += xp[0, :,", "wrong variable|batch"),
    Planted("conv_backward_naive", "db = dout.sum(axis=(0, 2, 3))", "db = dout[:, :, 0, 0].sum(axis=0)", "only part"),
    # pooling
    Planted("max_pool_backward_naive", "dx[n, c, top + r, left + s] +=", "dx[n, c, top:top + PH, left:left + PW] +=", "mask"),
    Planted("max_pool_backward_naive", "left + s] +=", "left + s] =", "overwritten"),
    Planted("max_pool_backward_naive", "np.zeros_like(x)", "np.zeros(x.shape, dtype=int)", "wrong dtype|raises"),
    Planted("max_pool_backward_naive", "top, left = i * stride, j * stride", "top, left = i * PH, j * PW", "stride"),
    Planted("avg_pool_backward_naive", " / (PH * PW)", "", "factor"),
    Planted("avg_pool_backward_naive", "+= dout", "= dout", "overwritten"),
    # recurrent
    Planted("rnn_step_backward", "dnext_h * (1 - next_h**2)", "dnext_h", "local factor"),
    Planted("rnn_step_backward", "next_h**2", "next_h", "local factor"),
    Planted("rnn_step_backward", "da @ Wh.T", "da @ Wh", "transposed"),
    Planted("rnn_step_backward", "prev_h.T @ da", "next_h.T @ da", "wrong variable"),
    Planted("rnn_step_backward", "db = da.sum(axis=0)", "db = da", "missing sum"),
    Planted("rnn_step_backward", "da.sum(axis=0)", "da.mean(axis=0)", "factor"),
    Planted("rnn_step_backward", "dx = da @ Wx.T", "dx = dnext_h @ Wx.T", "local factor"),
    Planted("rnn_backward", "dh[:, t] + dprev_h", "dh[:, t]", "recurrence"),
    Planted("rnn_backward", "        dWh += dWh_t", "        dWh = dWh_t", "overwritten"),
    Planted("rnn_backward", "dnext_h = dh[:, t] + dprev_h",
            "dh[:, t] = dprev_h + dh[:, t]\n        dnext_h = dh[:, t]", "changes upstream"),
    Planted("rnn_backward", "    dh0 = dprev_h", "    db /= T\n    dh0 = dprev_h", "factor"),
    Planted("rnn_backward", "dh0 = dprev_h", "dh0 = np.zeros_like(prev_h)", "zero"),
    Planted("rnn_backward", "reversed(range(T))", "range(T)", "recurrence"),
    Planted("rnn_backward", "dh[:, t] + dprev_h", "dprev_h if t < T - 1 else dh[:, t]", "only part"),
    Planted("rnn_backward", "dh[:, t] + dprev_h", "dh[:, t - 1] + dprev_h", "shifted"),
    Planted("lstm_step_backward", "dnext_c + dnext_h * o", "dnext_h * o", "missing path"),
    Planted("lstm_step_backward", "dc = dnext_c + dnext_h * o * (1 - tanh_c**2)", "dc = dnext_c", "missing path"),
    Planted("lstm_step_backward", "dnext_h * o * (1 - tanh_c**2)", "dnext_h * o", "local factor"),
    Planted("lstm_step_backward", "dc = dnext_c + dnext_h * o * (1 - tanh_c**2)",
            "dnext_c += dnext_h * o * (1 - tanh_c**2)\n    dc = dnext_c", "changes upstream"),
    Planted("lstm_step_backward", "do * o * (1 - o), dg * (1 - g**2)", "dg * (1 - g**2), do * o * (1 - o)", "permuted"),
    Planted("lstm_step_backward", "df = dc * prev_c", "df = dc * next_c", "gate"),
    Planted("lstm_step_backward", "df * f * (1 - f)", "df", "gate|local factor"),
    Planted("lstm_step_backward", "do * o * (1 - o)", "df * f * (1 - f)", "gate"),
    Planted("lstm_step_backward", "dprev_c = dc * f", "dprev_c = dc * i", "wrong variable|local factor"),
    Planted("lstm_step_backward", "dprev_c = dc * f", "dprev_c = dc", "local factor"),
    Planted("lstm_backward", "lstm_step_backward(dnext_h, dprev_c, cache[t])",
            "lstm_step_backward(dnext_h, np.zeros_like(dprev_c), cache[t])", "recurrence"),
    Planted("lstm_backward", "        dWx += dWx_t", "        dWx = dWx_t", "overwritten"),
    Planted("lstm_backward", "dprev_c, cache[t])", "dprev_c, cache[t][:2] + (cache[t - 1][9],) + cache[t][3:])", "time step"),
    Planted("lstm_backward", "    dh0 = dprev_h", "    dx = dx / T\n    dh0 = dprev_h", "factor"),
    Planted("word_embedding_backward", "np.add.at(dW, x, dout)", "dW[x] += dout", "overwritten"),
    Planted("temporal_affine_backward", "dout.sum(axis=(0, 1))", "dout.sum(axis=0)", "missing sum"),
    Planted("temporal_affine_backward", ".T @ flat", ".T @ flat / (N * T)", "factor"),
    # losses
    Planted("softmax_loss", "    dx /= N\n", "", "factor"),
    Planted("softmax_loss", "dx /= N", "dx *= 2 / N", "factor"),
    Planted("softmax_loss", "    dx[np.arange(N), y] -= 1\n", "", "missing term"),
    Planted("svm_loss", "    dx[np.arange(N), y] -= (margins > 0).sum(axis=1)\n", "", "missing term"),
    Planted("svm_loss", "-= (margins > 0).sum(axis=1)", "-= 1", "missing term"),
    Planted("softmax_loss_vectorized", " + 2 * reg * W", "", "missing term"),
    Planted("softmax_loss_vectorized", "+ 2 * reg * W", "+ reg * W", "missing term"),
    Planted("softmax_loss_vectorized", "X.T @ probs / N", "X.T @ probs", "factor"),
    Planted("svm_loss_naive", "                dW[:, y[i]] -= X[i]\n", "", "missing term"),
    Planted("svm_loss_naive", "    dW /= N\n", "", "factor"),
    Planted("temporal_softmax_loss", "    dflat *= keep[:, None]\n", "", "mask"),
    Planted("temporal_softmax_loss", "dflat /= N", "dflat /= N * T", "factor"),
    Planted("TwoLayerNet", '        grads["W1"] += self.reg * self.params["W1"]\n', "", "missing term"),
    Planted("TwoLayerNet", "relu_backward(dactive, cache2)", "dactive", "mask", said="unexplained"),
]

# Written after the diagnosis, which was not changed for them: at first sight 39 of these 45 causes were named.
HELD_OUT = [
    Planted("affine_backward", "dx = (dout @ w.T)", "dx = (dout @ w.T / dout.shape[1])", "factor"),
    Planted("affine_backward", "dout.sum(axis=0)", "dout[:-1].sum(axis=0)", "only part|border", said="shifted"),
    Planted("affine_backward", "db = dout.sum(axis=0)", "db = b * dout.sum(axis=0)", "local factor"),
    Planted("affine_backward", "x.reshape(x.shape[0], -1).T @ dout", "w", "upstream ignored"),
    Planted("relu_backward", "dout * (x > 0)", "np.abs(dout) * (x > 0)", "not linear"),
    Planted("relu_backward", "dout * (x > 0)", "dout * x * (x > 0)", "local factor"),
    Planted("tanh_backward", "dout * (1 - y**2)", "-dout * (1 - y**2)", "factor"),
    Planted("tanh_backward", "(1 - y**2)", "(1 - y**2) ** 2", "local factor"),
    Planted("sigmoid_backward", "dout * y * (1 - y)", "dout * y", "local factor"),
    Planted("dropout_backward", "dout * mask", "dout * (mask == 0)", "mask"),
    Planted("batchnorm_backward", "dxhat = dout * gamma", "dxhat = dout * gamma * gamma", "local factor"),
    Planted("batchnorm_backward", "dvar * 2 *", "dvar *", "missing path"),
    Planted("batchnorm_backward_alt", "return dx, dgamma, dbeta", "return dx, dbeta, dgamma", "swapped"),
    Planted("layernorm_backward", "dbeta = dout.sum(axis=0)", "dbeta = dout.sum(axis=0, keepdims=True)", "wrong shape"),
    Planted("layernorm_backward", " - xhat * (dxhat * xhat).sum(axis=1, keepdims=True)", "", "missing path"),
    Planted("spatial_batchnorm_backward", "dgamma, dbeta = batch", "dbeta, dgamma = batch", "swapped"),
    Planted("spatial_groupnorm_backward", " - d.mean(axis=2, keepdims=True)", "", "missing path"),
    Planted("conv_backward_naive", "dw[f] += xp[n, :, top:top + HH, left:left + WW]",
            "dw[f] += xp[n, :, top:top + HH, left:left + WW][:, ::-1]", "flipped"),
    Planted("conv_backward_naive", "w[f] * dout[n, f, i, j]", "w[f] * dout[n, f, j % Ho, i % Wo]", "transposed", said="border"),
    Planted("conv_backward_naive", "range(N)", "range(1)", "only part"),
    Planted("conv_backward_naive", "pad:pad + H, pad:pad + W", "pad - 1:pad - 1 + H, pad:pad + W", "shifted|wrong shape"),
    Planted("conv_backward_naive", "+= w[f] *", "-= w[f] *", "factor"),
    Planted("max_pool_backward_naive", "+= dout[n, c, i, j]", "+= window.max()", "upstream ignored"),
    Planted("max_pool_backward_naive", "window.argmax()", "window.argmin()", "mask"),
    Planted("avg_pool_backward_naive", "/ (PH * PW)", "/ PH", "factor"),
    Planted("rnn_step_backward", "dprev_h = da @ Wh.T", "dprev_h = dnext_h @ Wh.T", "local factor"),
    Planted("rnn_step_backward", "x.T @ da", "x.T @ dnext_h", "local factor"),
    Planted("rnn_backward", "        dWx += dWx_t", "        dWx = dWx_t", "overwritten"),
    Planted("rnn_backward", "dh0 = dprev_h", "dh0 = dnext_h", "wrong variable|local factor", said="unexplained"),
    Planted("rnn_backward", "        dnext_h = dh[:, t] + dprev_h", "        dnext_h = dh[:, t] + 2 * dprev_h", "recurrence"),
    Planted("lstm_step_backward", "da = np.hstack((di * i * (1 - i), df * f * (1 - f)", "da = np.hstack((df * f * (1 - f), di * i * (1 - i)", "permuted"),
    Planted("lstm_step_backward", "do = dnext_h * tanh_c", "do = dnext_h * next_c", "gate"),
    Planted("lstm_step_backward", "dg * (1 - g**2)", "dg * g * (1 - g)", "gate"),
    Planted("lstm_backward", "dh[:, t] + dprev_h", "dh[:, t]", "recurrence"),
    Planted("lstm_backward", "reversed(range(T))", "reversed(range(1, T))", "time step|zero|only part"),
    Planted("lstm_backward", "        db += db_t", "        db = db_t", "overwritten"),
    Planted("temporal_affine_backward", "dx = (flat @ w.T).reshape(N, T, D)", "dx = (flat @ w.T).reshape(T, N, D)", "wrong shape"),
    Planted("temporal_affine_backward", "db = dout.sum(axis=(0, 1))", "db = dout.mean(axis=(0, 1))", "factor"),
    Planted("word_embedding_backward", "np.add.at(dW, x, dout)", "np.add.at(dW, x[:, :-1], dout[:, :-1])", "only part|border"),
    Planted("softmax_loss", "dx[np.arange(N), y] -= 1", "dx[np.arange(N), y] += 1", "missing term"),
    Planted("svm_loss", "dx[margins > 0] = 1", "dx[margins > 0] = margins[margins > 0]", "local factor|wrong variable", said="unexplained"),
    Planted("svm_loss_naive", "dW[:, y[i]] -= X[i]", "dW[:, y[i]] += X[i]", "missing term"),
    Planted("softmax_loss_vectorized", "+ 2 * reg * W", "+ 2 * reg * np.abs(W)", "missing term", said="unexplained"),
    Planted("temporal_softmax_loss", "dflat[np.arange(N * T), labels] -= 1", "dflat[np.arange(N * T), labels] -= 2", "missing term", said="recurrence"),
    Planted("TwoLayerNet", "dactive, grads", "_, grads", "raises"),
]


def plant(p: Planted, folder: Path) -> GradcheckReport:
    """The report of `tinygen gradcheck` about the file with this one error in it."""
    source = LAYERS.read_text()
    start = re.search(rf"^(def|class) {p.function}\b", source, re.M).start()
    end = source.find("\n\n\n", start)
    end = len(source) if end < 0 else end
    text = source[start:end]
    assert text.count(p.old) == 1, p
    file = folder / "layers.py"
    file.write_text(source[:start] + text.replace(p.old, p.new) + source[end:])
    linecache.checkcache()
    (report,) = check_file(file, p.function.replace("_forward", "_backward"))
    return report


def named(p: Planted, report: GradcheckReport) -> bool:
    """True if the first problem names the right cause."""
    return report.cause in p.cause.split("|")


def main() -> None:
    """Print the table."""
    for title, errors in (("planted", PLANTED), ("planted after the diagnosis", HELD_OUT)):
        found = right = 0
        for p in errors:
            with tempfile.TemporaryDirectory() as folder:
                report = plant(p, Path(folder))
            found, right = found + (not report), right + named(p, report)
            mark = "ok" if named(p, report) else "MISSED" if report else "misnamed"
            print(f"{mark:9}{p.function:27}{p.cause:27}{report.cause:18}{p.new.strip()[:58]!r}")
        n = len(errors)
        print(f"{n} {title}: {found} detected ({found / n:.0%}), {right} with the right cause ({right / n:.0%})\n")


if __name__ == "__main__":
    main()
