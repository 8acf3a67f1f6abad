"""A step on meta tensors: `full` grows with the clips, `exact` does not; and the count is the one of real tensors."""

from __future__ import annotations

import torch

from wholereel import config
from wholereel.models import create_model
from wholereel.models.video_model import VideoModel
from wholereel.ops.live_bytes import LiveBytes
from wholereel.training.step_memory import STRATEGY_SETTINGS, step_bytes


def test_exact_holds_one_clip_whatever_their_number() -> None:
    with torch.device("meta"):
        model = VideoModel(create_model("tiny_r2plus1d", num_classes=5, norm="batch"), config.Memory(dim=8))
    found = {(row.strategy, row.clips): row.peak for row in step_bytes(model, (3, 8, 32, 32), (1, 8))}
    assert {name for name, _ in found} == set(STRATEGY_SETTINGS)
    assert found["full", 8] >= 7 * found["full", 1]
    assert found["exact", 1] <= 1.05 * found["full", 1]
    assert found["exact", 8] <= 1.10 * found["exact", 1]
    assert found["multi_iteration/accumulate", 8] <= 1.10 * found["multi_iteration/accumulate", 1]


def test_blocks_in_the_middle_keep_maps() -> None:
    with torch.device("meta"):
        model = VideoModel(
            create_model("tiny_r2plus1d", num_classes=5, norm="batch"), config.Memory(after=("layer2",), dim=8)
        )
    peaks = [row.peak for row in step_bytes(model, (3, 8, 32, 32), (2, 6), strategies=("exact",))]
    one_map = 4 * 64 * 4 * 4 * 4  # layer2 of a clip
    assert 4 * one_map <= peaks[1] - peaks[0] <= 4 * 4 * one_map


def test_live_bytes_counts_storages_once_and_forgets_what_is_gone() -> None:
    weight = torch.ones(1000)
    with LiveBytes([weight]) as live:
        a = torch.zeros(100)
        view, inplace = a[10:], a.add_(1)
        assert live.now() == 400
        b = weight * 2
        assert live.now() == 4400
        del b
        assert live.now() == 400
        del a, view, inplace
        assert live.now() == 0
        weight.mul_(2)
    assert live.peak == 4400
    live.note(weight)
    assert live.now() == 0
