"""Chunked scoring equals one forward pass over all clips, for every place and kind of memory."""

from __future__ import annotations

import pytest
import torch

from wholereel import config
from wholereel.inference.scoring import ClipChunk, from_rows, score_clips, to_rows
from wholereel.models.registry import create_model
from wholereel.models.video_model import VideoModel

MEMORIES = {
    "none": None,
    "last": config.Memory(),
    "max": config.Memory(interaction="max"),
    "order": config.Memory(clip_pos=4),
    "residual": config.Memory(infusion="residual"),
    "middle": config.Memory(after=("stage2",)),
    "two": config.Memory(after=("stage1", "last"), position_norm="sum"),
    "avg residual middle": config.Memory(after=("stage2",), interaction="avg", infusion="residual"),
    "nonlocal": config.Memory(interaction="nl_softmax"),
}


def build(memory: config.Memory | None) -> VideoModel:
    torch.manual_seed(0)
    model = VideoModel(create_model("tiny2d", num_classes=3), _renamed(memory)).eval()
    for parameter in model.memories.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


def _renamed(memory: config.Memory | None) -> config.Memory | None:
    """`stage1` and `stage2` are places in any model: its first and second stage."""
    if memory is None:
        return None
    names = list(create_model("tiny2d", num_classes=3).stages)
    places = {"stage1": names[0], "stage2": names[1], "last": "last"}
    return config.Memory(**{**vars(memory), "after": tuple(places[name] for name in memory.after)})


def chunks_of(clips_RNCTHW, valid_RN, size):
    order_RN = torch.arange(valid_RN.shape[1]).expand_as(valid_RN)
    for begin in range(0, valid_RN.shape[1], size):
        part = slice(begin, begin + size)
        yield ClipChunk(clips_RNCTHW[:, part], valid_RN[:, part], order_RN[:, part])


@pytest.mark.parametrize("name", MEMORIES)
def test_chunks_equal_one_forward_pass(name):
    model = build(MEMORIES[name])
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(2, 5, 3, 2, 16, 16, generator=generator, dtype=torch.float64)
    valid = torch.tensor([[True] * 5, [True, True, True, False, False]])
    with torch.no_grad():
        whole, _ = model(clips, None, valid)
        alone, _ = model(clips.flatten(0, 1))
    for size in (1, 2, 5):
        scored = score_clips(model, lambda size=size: chunks_of(clips, valid, size), alone=True)
        torch.testing.assert_close(scored.shared_RNK[valid], whole[valid], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(scored.alone_RNK[valid], alone.view_as(whole)[valid], rtol=1e-9, atol=1e-9)
    if MEMORIES[name] is not None:
        assert not torch.allclose(scored.shared_RNK[valid], scored.alone_RNK[valid], rtol=1e-3)


def test_rows_hold_the_clips_of_one_crop():
    views = torch.arange(2 * 12).view(2, 12)  # 4 clips x 3 crops
    rows = to_rows(views, 3, memory_over="crop")
    assert rows.tolist()[:3] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert torch.equal(from_rows(rows, 3, memory_over="crop"), views)
    assert torch.equal(to_rows(views, 3, memory_over="all"), views)


def test_errors():
    model = build(MEMORIES["last"])
    with pytest.raises(ValueError, match="no clip"):
        score_clips(model, lambda: iter(()))
    with pytest.raises(ValueError, match="eval mode"):
        score_clips(model.train(), lambda: iter(()))
