"""Chapter 3: a network learns. Write what is missing, then run `tinygen gradcheck exercise.py`.

Then let it learn XOR: `python exercise.py` trains it, and ends below .1 nats.
"""

import numpy as np


def relu_forward(x):
    return np.maximum(x, 0), x


def relu_backward(dout, cache):
    """Exercise 3.1: the gradient by x. At x = 0 it is 0."""
    x = cache
    return dout * (x > 0)


class Network:
    """Two linear layers with a relu between, and a cross entropy.

    Attributes:
        params: the arrays W1 (D, H), b1 (H,), W2 (H, C), b2 (C,), by name.
    """

    def __init__(self, input_dim=4, hidden_dim=5, num_classes=3, seed=0):
        r = np.random.default_rng(seed)
        self.params = {
            "W1": r.standard_normal((input_dim, hidden_dim)) / np.sqrt(input_dim),
            "b1": np.zeros(hidden_dim),
            "W2": r.standard_normal((hidden_dim, num_classes)) / np.sqrt(hidden_dim),
            "b2": np.zeros(num_classes),
        }

    def loss(self, X, y):
        """Exercise 3.2: the mean cross entropy of X (N, D) and classes y (N,), and its gradients by name.

        Forward to the scores, back from the loss; each layer's gradient is the next one's upstream gradient.
        """
        p = self.params
        a = X @ p["W1"] + p["b1"]
        h, mask = relu_forward(a)
        scores = h @ p["W2"] + p["b2"]
        scores = scores - scores.max(axis=1, keepdims=True)
        log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        rows = np.arange(len(X))
        ds = np.exp(log_p)
        ds[rows, y] -= 1
        ds /= len(X)
        da = relu_backward(ds @ p["W2"].T, mask)
        grads = {"W1": X.T @ da, "b1": da.sum(axis=0), "W2": h.T @ ds, "b2": ds.sum(axis=0)}
        return -log_p[rows, y].mean(), grads


def train(steps=500, lr=0.5):
    """Gradient descent on XOR: the loss at the end, in nats."""
    r = np.random.default_rng(1)
    X = r.standard_normal((256, 2))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    network = Network(2, 32, 2)
    for _ in range(steps):
        loss, grads = network.loss(X, y)
        for name, p in network.params.items():
            p -= lr * grads[name]
    return loss


if __name__ == "__main__":
    print(f"{train():.4f} nats")
