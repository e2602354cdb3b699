"""Neural networks: modules, layers, initial values, and the functions that they are made of."""

from tinygen.nn import functional, init
from tinygen.nn.layers import (
    ELU, LSTM, AvgPool2d, BatchNorm1d, BatchNorm2d, Conv2d, ConvTranspose2d, Dropout, Embedding,
    Flatten, GatedActivation, Identity, LayerNorm, LeakyReLU, Linear, LogSoftmax, LSTMCell, MaskedConv2d,
    MaxPool2d, ReLU, Sigmoid, Softmax, Softplus, Tanh, Upsample,
)  # fmt: skip
from tinygen.nn.module import Module, ModuleList, Parameter, Sequential

__all__ = [
    "ELU", "LSTM", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Conv2d", "ConvTranspose2d", "Dropout", "Embedding",
    "Flatten", "GatedActivation", "Identity", "LSTMCell", "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax",
    "MaskedConv2d", "MaxPool2d", "Module", "ModuleList", "Parameter", "ReLU", "Sequential", "Sigmoid", "Softmax",
    "Softplus", "Tanh", "Upsample", "functional", "init",
]  # fmt: skip
