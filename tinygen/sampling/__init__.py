"""How images are drawn from an autoregressive model, each of the network's numbers computed once."""
