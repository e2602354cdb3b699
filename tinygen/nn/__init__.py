"""Neural networks: modules, layers, initial values, and the functions that they are made of."""

from tinygen.nn import functional, init
from tinygen.nn.conv_layers import (
    AvgPool2d, CircularPad2d, ConstantPad2d, Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, MaskedConv2d,
    MaxPool2d, PixelShuffle, PixelUnshuffle, ReflectionPad2d, ReplicationPad2d, Unfold, Upsample, ZeroPad2d,
)  # fmt: skip
from tinygen.nn.layers import (
    ELU, LSTM, BatchNorm1d, BatchNorm2d, Dropout, Embedding, Flatten, GatedActivation, Identity, LayerNorm,
    LeakyReLU, Linear, LogSoftmax, LSTMCell, ReLU, Sigmoid, Softmax, Softplus, Tanh,
)  # fmt: skip
from tinygen.nn.module import Module, ModuleList, Parameter, Sequential

__all__ = [
    "ELU",
    "LSTM",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "CircularPad2d",
    "ConstantPad2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GatedActivation",
    "Identity",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MaskedConv2d",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "PixelShuffle",
    "PixelUnshuffle",
    "ReLU",
    "ReflectionPad2d",
    "ReplicationPad2d",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "Unfold",
    "Upsample",
    "ZeroPad2d",
    "functional",
    "init",
]  # fmt: skip
