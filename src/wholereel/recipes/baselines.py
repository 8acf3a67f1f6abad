"""The relatives of the memory at equal compute: clip level, late averaging, non-local, feature bank, memory.

All roads start from one pre-trained clip model and are then given the same number of clip forwards and backwards at the
same learning rates: a step holds equally many clips on all roads, and clip-level roads make as many more epochs as the
others have clips a video. What the bank costs (one forward of each video's clips, no backward) comes on top.
Sources: arXiv 1608.00859 (consensus before softmax), 1711.07971 (non-local), 1812.05038 (feature banks), 2104.01198
(memory). Networks and schedules are ours.
"""

from __future__ import annotations

from dataclasses import replace

from wholereel.config import (
    BankHead,
    BankWindow,
    Data,
    Evaluate,
    Extract,
    Memory,
    Recipe,
    Stage,
    Task,
    Train,
    Views,
    World,
)
from wholereel.recipes.weizmann import weizmann
from wholereel.recipes.worlds import EVENTS8_SIZES, VIDEO_SIZES, VIEWS, pretrain_events8, video_stages

__all__ = ["match8_baselines", "relatives", "weizmann_baselines"]


def relatives(
    late_average: Train,
    test: Data,
    views: Views,
    *,
    width: int,
    memory: Memory,
    bank_data: tuple[Data, ...],
    bank_width: int,
) -> dict[str, Stage]:
    """Five roads, each with its test, from the settings of one of them.

    Args:
        late_average: N clips a video, no memory, weights `"stage:pretrain"`.
        test: the samples that are judged, and views: how.
        width: of the features that non-local blocks and banks see.
        memory: of the road with memory.
        bank_data: what the banks are made of, training data first, then those of the test.
        bank_width: inner width of the bank's operator.
    """
    clips = late_average.data.clips
    count = clips.count
    single = replace(clips, plan="random", count=1)
    clip_level = replace(
        late_average,
        data=replace(late_average.data, clips=single),
        task=Task(aggregate="logits"),
        batch=late_average.batch * count,
        epochs=late_average.epochs * count,
        validate_every=late_average.validate_every * count,
    )
    attention = Memory(interaction="nl_softmax", infusion="residual", norm="batch", dim=max(1, width // 2))
    with_bank = replace(clip_level.model, bank=BankHead(width=bank_width))
    train_bank, test_bank = (BankWindow(f"stage:{name}", seconds=WHOLE) for name in ("bank_train", "bank_test"))
    roads: dict[str, Train] = {
        "clip_level": clip_level,
        "late_average": late_average,
        "non_local": replace(late_average, model=replace(late_average.model, memory=attention)),
        "feature_bank": replace(
            clip_level, model=with_bank, data=replace(clip_level.data, bank=train_bank), val=None, select=None
        ),
        "collaborative_memory": replace(late_average, model=replace(late_average.model, memory=memory)),
    }
    banks = {
        f"bank_{name}": Extract("stage:pretrain", data, views, chunk=32)
        for name, data in zip(("train", "test"), bank_data, strict=True)
    }
    tests = {f"test_{name}": Evaluate(f"stage:{name}", test, views, batch=32) for name in roads}
    tests["test_feature_bank"] = replace(tests["test_feature_bank"], data=replace(test, bank=test_bank))
    return {**banks, **roads, **tests}


WHOLE = 1e6  # seconds: every clip reads the bank of its whole video


def match8_baselines(seed: int = 0) -> Recipe:
    """Five ways to learn `match8` from one pre-trained network with the same number of clips seen.

    Ceilings of the world: 9/14 for whatever adds clips up (clip level, late averaging), 1.0 for what lets them meet.
    Source: module. Measured, seeds 0 to 2: docs/papers/collaborative_memory.md. Cost: 17 minutes of one core.
    Command: `wholereel train match8_baselines --out runs/match8_baselines`.
    """
    base = video_stages("match8", seed=seed)
    late_average, test = base["late_average"], base["test_late_average"]
    memory = base["collaborative_memory"]
    assert isinstance(late_average, Train)
    assert isinstance(memory, Train)
    assert isinstance(test, Evaluate)
    assert memory.model.memory is not None
    stages: dict[str, Stage] = {
        "events8": World("events8", seed=seed, sizes=EVENTS8_SIZES),
        "match8": World("match8", seed=seed, sizes=VIDEO_SIZES),
        "pretrain": pretrain_events8(seed=seed),
        **relatives(
            late_average,
            test.data,
            VIEWS,
            width=128,
            memory=memory.model.memory,
            bank_data=(late_average.data, test.data),
            bank_width=64,
        ),
    }
    return Recipe(
        "match8_baselines",
        stages,
        "memory and its relatives at equal compute",
        main="collaborative_memory",
        measured="docs/papers/collaborative_memory.md",
    )


def weizmann_baselines(seed: int = 0) -> Recipe:
    """The same on real footage: the Weizmann actions, split by person.

    One clip shows all that is needed here, so nothing of the comparison is promised. Data, source: `weizmann`.
    Measured (two seeds): between 0.883 and 0.917 for all five. Cost: 7 minutes of one processor core a seed.
    Command: `wholereel train weizmann_baselines --data WEIZMANN --out runs/weizmann_baselines`.
    """
    named = weizmann(seed=seed)
    pretrain, late_average, test = (named.stages[name] for name in ("pretrain", "late_average", "test_late_average"))
    memory = named.stages["collaborative_memory"]
    assert isinstance(late_average, Train)
    assert isinstance(memory, Train)
    assert isinstance(test, Evaluate)
    assert memory.model.memory is not None
    centre = replace(test.views, crops=1)
    stages: dict[str, Stage] = {
        "pretrain": pretrain,
        **relatives(
            late_average,
            test.data,
            centre,
            width=64,
            memory=memory.model.memory,
            bank_data=(late_average.data, test.data),
            bank_width=32,
        ),
    }
    return Recipe(
        "weizmann_baselines",
        stages,
        "real footage: memory and its relatives at equal compute (--data)",
        main="collaborative_memory",
        measured="docs/papers/collaborative_memory.md",
    )
