"""What trains parameters: optimizers, learning-rate schedules, gradient clipping and weight averages."""

from tinygen.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, StepLR
from tinygen.optim.optimizer import SGD, Adam, AdamW, ExponentialMovingAverage, Optimizer, clip_grad_norm_
