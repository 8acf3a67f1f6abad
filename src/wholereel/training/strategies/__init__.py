"""How the gradient of a video's loss is obtained when its N clips may not fit together, or come one after the other."""

from __future__ import annotations

from collections.abc import Callable

from wholereel import config
from wholereel.errors import ConfigError
from wholereel.training.strategies.exact import Exact
from wholereel.training.strategies.full import BatchReduction, Full
from wholereel.training.strategies.multi_iteration import Accumulate, StepPerClip
from wholereel.training.strategies.sequential import Sequential
from wholereel.training.strategies.strategy import Autocast, Plan, Strategy

__all__ = ["STRATEGIES", "Plan", "Sequential", "Strategy", "create_strategy"]

STRATEGIES: dict[str, dict[str | None, Callable[[Autocast], Strategy | Sequential]]] = {
    "full": {None: Full},
    "exact": {None: Exact},
    "batch_reduction": {None: BatchReduction},
    "multi_iteration": {"step": StepPerClip, "accumulate": Accumulate},
    "sequential": {None: Sequential},
}


def create_strategy(settings: config.Strategy, autocast: Autocast) -> Strategy | Sequential:
    """The strategy of that name (and variant, where it has several).

    Raises: ConfigError: there is no such strategy or variant.
    """
    if settings.name not in STRATEGIES:
        raise ConfigError(f"there is no strategy {settings.name!r}. Strategies: {', '.join(STRATEGIES)}.")
    variants = STRATEGIES[settings.name]
    if None in variants:
        return variants[None](autocast)
    if settings.variant not in variants:
        legal = ", ".join(str(variant) for variant in variants)
        raise ConfigError(f"strategy {settings.name!r} has no variant {settings.variant!r}. Variants: {legal}.")
    return variants[settings.variant](autocast)
