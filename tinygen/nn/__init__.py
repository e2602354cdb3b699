"""Neural networks: modules, layers, initial values, and the functions that they are made of."""

from tinygen.nn import functional, init, utils
from tinygen.nn.conv_layers import (
    AvgPool2d, CircularPad2d, ConstantPad2d, Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, MaskedConv2d,
    MaxPool2d, PixelShuffle, PixelUnshuffle, ReflectionPad2d, ReplicationPad2d, Unfold, Upsample, ZeroPad2d,
)  # fmt: skip
from tinygen.nn.criteria import (
    BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, GaussianNLLLoss, HuberLoss, KLDivLoss, L1Loss, MSELoss, NLLLoss,
    SmoothL1Loss,
)  # fmt: skip
from tinygen.nn.layers import (
    ELU, GELU, LSTM, Bilinear, Dropout, Embedding, Flatten, GatedActivation, Identity, LeakyReLU, Linear, LogSoftmax,
    LSTMCell, Mish, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh,
)  # fmt: skip
from tinygen.nn.module import Module, ModuleList, Parameter, Sequential
from tinygen.nn.multihead import MultiheadAttention
from tinygen.nn.norm_layers import (
    BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm, RMSNorm,
)  # fmt: skip

__all__ = [
    "ELU",
    "GELU",
    "LSTM",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Bilinear",
    "CircularPad2d",
    "ConstantPad2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GatedActivation",
    "GaussianNLLLoss",
    "GroupNorm",
    "HuberLoss",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "KLDivLoss",
    "L1Loss",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaskedConv2d",
    "MaxPool2d",
    "Mish",
    "Module",
    "ModuleList",
    "MultiheadAttention",
    "NLLLoss",
    "Parameter",
    "PixelShuffle",
    "PixelUnshuffle",
    "RMSNorm",
    "ReLU",
    "ReflectionPad2d",
    "ReplicationPad2d",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Tanh",
    "Unfold",
    "Upsample",
    "ZeroPad2d",
    "functional",
    "init",
    "utils",
]  # fmt: skip
