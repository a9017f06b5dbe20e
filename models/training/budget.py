"""Training by the clock: a wall-clock budget and a learning rate that follows it."""

import math
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CosineCycle:
    """A linear warm-up by iterations, under a half cosine over the time budget.

    The rate at a part p of the budget is `peak * (weight * (1 + cos(pi p)) / 2 + floor)`.
    """

    peak: float
    warmup_iterations: int
    floor: float
    weight: float

    def learning_rate(self, iteration: int, part_of_budget: float) -> float:
        warmup = min(1, iteration / self.warmup_iterations)
        cosine = 0.5 * (1 + math.cos(math.pi * part_of_budget))
        return self.peak * warmup * (cosine * self.weight + self.floor)


@dataclass
class Budget:
    """The seconds that a training run may take, counted from its creation."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def elapsed_seconds(self) -> float:
        return time.monotonic() - self.started

    def part(self) -> float:
        """How much of the budget is used, 0..1."""
        return self.elapsed_seconds() / self.seconds

    def is_left(self) -> bool:
        return self.elapsed_seconds() < self.seconds
