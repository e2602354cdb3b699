"""Neural networks: modules, layers, initial values, and the functions that they are made of."""

from tinygen.nn import functional, init
from tinygen.nn.layers import (
    ELU, Conv2d, ConvTranspose2d, Dropout, Embedding, Flatten, Identity, LeakyReLU, Linear, LogSoftmax, MaskedConv2d,
    ReLU, Sigmoid, Softmax, Softplus, Tanh,
)  # fmt: skip
from tinygen.nn.module import Module, ModuleList, Parameter, Sequential
