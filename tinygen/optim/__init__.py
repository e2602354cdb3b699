"""What trains parameters: optimizers, learning-rate schedules, gradient clipping and weight averages."""

from tinygen.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, StepLR
from tinygen.optim.optimizer import SGD, Adam, AdamW, ExponentialMovingAverage, Optimizer, clip_grad_norm_

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
]  # fmt: skip
