"""How the gradient of a video's loss is obtained when its N clips may not fit together, or come one after the other."""

from __future__ import annotations

from collections.abc import Callable

from wholereel import config
from wholereel.errors import ConfigError
from wholereel.training.distributed import Ranks
from wholereel.training.segment_graphs import SegmentGraphs
from wholereel.training.strategies.exact import Exact
from wholereel.training.strategies.full import BatchReduction, Full
from wholereel.training.strategies.multi_iteration import Accumulate, StepPerClip
from wholereel.training.strategies.sequential import Sequential
from wholereel.training.strategies.strategy import Autocast, Plan, Strategy

__all__ = ["STRATEGIES", "Plan", "Sequential", "Strategy", "create_strategy"]

# Of every strategy what makes it from the precision; `exact` has settings of its own, see `create_strategy`.
STRATEGIES: dict[str, dict[str | None, Callable[[Autocast], Strategy]]] = {
    "full": {None: Full},
    "exact": {None: Exact},
    "batch_reduction": {None: BatchReduction},
    "multi_iteration": {"step": StepPerClip, "accumulate": Accumulate},
    "sequential": {None: Sequential},
}


def create_strategy(settings: config.Strategy, autocast: Autocast, ranks: Ranks | None = None) -> Strategy:
    """The strategy of that name (and variant, where it has several).

    Args:
        ranks: of this process; one process where `None`.
    Raises: ConfigError: there is no such strategy or variant, or it cannot share the clips of a video between
        processes.
    """
    if settings.name not in STRATEGIES:
        raise ConfigError(f"there is no strategy {settings.name!r}. Strategies: {', '.join(STRATEGIES)}.")
    if settings.name == "exact":
        graphs = SegmentGraphs() if settings.graphs else None
        return Exact(autocast, settings.resident, ranks or Ranks(), graphs)
    if settings.resident != 1 or settings.graphs or (ranks is not None and ranks.clip_parallel > 1):
        raise ConfigError(
            f"strategy {settings.name!r} takes the clips of a video together or one by one, in one process: it knows "
            f"neither strategy.resident, strategy.graphs nor clip_parallel. Leave them as they are, or use 'exact'."
        )
    variants = STRATEGIES[settings.name]
    if None in variants:
        return variants[None](autocast)
    if settings.variant not in variants:
        legal = ", ".join(str(variant) for variant in variants)
        raise ConfigError(f"strategy {settings.name!r} has no variant {settings.variant!r}. Variants: {legal}.")
    return variants[settings.variant](autocast)
