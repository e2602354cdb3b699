"""Training of parameters: optimizers, learning-rate schedules, gradient clipping and weight averages."""

from tinygen.optim.adaptive import Adadelta, Adagrad, Adamax, Lion, NAdam, RAdam, RMSprop
from tinygen.optim.lr_scheduler import (
    ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, CyclicLR, ExponentialLR, LambdaLR, LinearLR,
    LRScheduler, MultiplicativeLR, MultiStepLR, OneCycleLR, PolynomialLR, ReduceLROnPlateau, SequentialLR, StepLR,
)  # fmt: skip
from tinygen.optim.optimizer import (
    SGD, Adam, AdamW, ExponentialMovingAverage, Optimizer, clip_grad_norm_, clip_grads_with_norm_, get_total_norm,
)  # fmt: skip

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "ExponentialMovingAverage",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "Optimizer",
    "StepLR",
    "clip_grad_norm_",
    "clip_grads_with_norm_",
    "get_total_norm",
]  # fmt: skip
