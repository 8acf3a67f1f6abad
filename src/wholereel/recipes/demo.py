"""The first thing to run: a whole experiment in ten minutes on two slow cores, from encoded files to a report.

Smaller than `match8` in videos and epochs, otherwise the same stages.
"""

from __future__ import annotations

from wholereel.config import Recipe, World
from wholereel.recipes.worlds import EVENTS8_SIZES, VIDEO_SIZES, pretrain_events8, video_stages

__all__ = ["demo"]

MATCH8 = {**VIDEO_SIZES, "val": 100, "test": 300}


def demo(seed: int = 0) -> Recipe:
    """Collaborative memory against late averaging on `match8`, with report and a prediction on one video.

    Source: our world, `docs/worlds/`. Command: `wholereel demo`.
    """
    stages = {
        "events8": World("events8", seed=seed, sizes=EVENTS8_SIZES),
        "match8": World("match8", seed=seed, sizes=MATCH8),
        "pretrain": pretrain_events8(seed=seed),
        **video_stages("match8", seed=seed, epochs=12),
    }
    return Recipe(
        "demo",
        stages,
        "the first run: memory against averaging on generated videos, with a report",
        main="collaborative_memory",
        measured="docs/lab.md",
    )
