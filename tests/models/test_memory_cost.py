"""The memory's cost: every cell of a worked table, and formulas against what the operations are counted to."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from wholereel import config
from wholereel.memory import CollaborativeMemory
from wholereel.models import create_model
from wholereel.models.cost import memory_cost
from wholereel.models.profile import profile_model
from wholereel.models.video_model import VideoModel

MIB = 2**20
# Positions, channels, key width -> multiply-adds as written and as computed in 10^9, shares of the backbone's published
# multiply-adds in percent, parameters in 10^6, memory in MiB. Backbones: SlowFast-101 8x8 (slow res5, 224 pixels), both
# its pathways joined, 16x8 at 256 pixels; multiply-adds of one view of 256 pixels from facebookresearch/SlowFast,
# `projects/pytorchvideo/README.md`.
TABLE = [
    ((392, 2048, 256), 127.2, "0.463", "0.437", "0.36", "0.34", "1.57", "0.25"),
    ((392, 2048, 512), 127.2, "1.029", "0.926", "0.81", "0.73", "3.15", "1"),
    ((392, 2048, 1024), 127.2, "2.468", "2.058", "1.94", "1.62", "6.29", "4"),
    ((392, 2304, 512), 127.2, "1.132", "1.029", "0.89", "0.81", "3.54", "1"),
    ((1024, 2048, 512), 215.6, "2.685", "2.417", "1.25", "1.12", "3.15", "1"),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "-".join(map(str, row[0])))
def test_worked_example_to_the_digit(row: tuple) -> None:
    (positions, dim, keys), backbone, literal, reduced, literal_share, reduced_share, parameters, mib = row
    cost = memory_cost(config.Memory(dim=keys), dim, positions)
    assert f"{cost.literal / 1e9:.3f}" == literal
    assert f"{cost.reduced / 1e9:.3f}" == reduced
    assert f"{cost.literal / backbone / 1e7:.2f}" == literal_share
    assert f"{cost.reduced / backbone / 1e7:.2f}" == reduced_share
    assert f"{cost.parameters / 1e6:.2f}" == parameters
    assert f"{cost.state_bytes / MIB:g}" == mib
    block = CollaborativeMemory(dim, keys)
    assert cost.parameters == sum(parameter.numel() for parameter in block.parameters())


@pytest.mark.parametrize(
    ("positions", "clips", "macs", "affinity"),
    [
        (392, 1, "1.80", None),
        (392, 2, "1.96", None),
        (392, 4, "2.27", None),
        (392, 10, "3.22", "59"),
        (392, 30, "6.36", "528"),
        (1024, 10, "15.0", "400"),
    ],
)
def test_attention_over_all_clips_instead(positions: int, clips: int, macs: str, affinity: str | None) -> None:
    memory = config.Memory(interaction="nl_softmax", infusion="residual", dim=512)
    cost = memory_cost(memory, 2048, positions, clips=clips, before_head=False)
    assert f"{cost.literal / 1e9:.{len(macs.partition('.')[2])}f}" == macs
    assert cost.literal == cost.reduced  # elsewhere than in front of the head every position is read
    assert affinity is None or f"{cost.affinity_bytes / MIB:.0f}" == affinity


def test_the_memory_s_cost_is_linear_in_the_number_of_clips_and_attention_s_is_not() -> None:
    costs = {
        interaction: [
            memory_cost(config.Memory(interaction=interaction, dim=512), 2048, 392, clips=clips) for clips in (1, 8)
        ]
        for interaction in ("assoc", "avg", "max", "nl_dot", "nl_softmax")
    }
    for interaction in ("assoc", "avg", "max"):  # per clip, and a state that does not grow
        assert costs[interaction][0] == costs[interaction][1]
    one, eight = costs["nl_dot"]
    assert one.reduced == eight.reduced  # bracketed anew: linear like the memory, but all tokens are kept
    assert eight.literal > one.literal
    assert eight.state_bytes == 8 * one.state_bytes
    one, eight = costs["nl_softmax"]
    assert eight.reduced - one.reduced == 7 * 392**2 * 2 * 512


SETTINGS = [
    {"interaction": interaction, "infusion": infusion, "value": value, "dim": 6, "value_dim": value_dim}
    for interaction, infusion, value, value_dim in itertools.product(
        ("assoc", "max", "nl_dot", "nl_softmax"), ("gate", "residual"), ("tied", "separate"), (6, 5)
    )
    if value == "separate" or (interaction == "assoc" and value_dim == 6)
]


@pytest.mark.parametrize("before_head", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_formulas_are_what_the_operations_are_counted_to(settings: dict, before_head: bool) -> None:
    """Not counted by the formulas: tied values spare no projection of the pooled query in the library, D x P."""
    memory, clips = config.Memory(**settings), 3
    block = VideoModel(create_model("tiny_r3d", width=8), memory).memories["last"].to("meta")
    x_BNCTHW = torch.empty(1, clips, block.dim, 2, 3, 4, device="meta")
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        block(x_BNCTHW, pooled=before_head)
    cost = memory_cost(memory, block.dim, 24, clips=clips, before_head=before_head)
    pooled_reading = before_head or memory.infusion == "gate"
    spared = block.dim * 6 if memory.interaction == "assoc" and memory.value == "tied" and pooled_reading else 0
    if memory.interaction == "assoc" and memory.value == "tied" and not pooled_reading:
        spared = 24 * block.dim * 6  # queries are projected once as values and once as queries
    assert counted.get_total_flops() / 2 == clips * (cost.reduced + spared)


def test_stages_and_blocks_add_up_to_the_model() -> None:
    memory = config.Memory(after=("layer1", "last"), dim=8, value="separate")
    model = VideoModel(create_model("tiny_r2plus1d", num_classes=5), memory)
    found = profile_model(model, (3, 8, 32, 32), clips=3)
    assert [stage.name for stage in found.stages] == ["stem", "layer1", "layer2", "layer3", "head"]
    assert [stage.output for stage in found.stages[-2:]] == [(64, 4, 4, 4), (5,)]
    own = sum(stage.parameters for stage in found.stages) + sum(place.cost.parameters for place in found.places)
    assert own == sum(parameter.numel() for parameter in model.parameters())
    assert found.macs == found.cost.macs
    assert [(place.place, place.channels, place.positions) for place in found.places] == [
        ("layer1", 32, 8 * 8 * 8),
        ("last", 64, 64),
    ]
    assert not any(parameter.is_meta for parameter in model.parameters())  # the model is not changed


@pytest.mark.parametrize("name", ["tiny_r2plus1d", "tiny2d_peak"])
def test_kept_bytes_are_what_autograd_saves(name: str) -> None:
    model = VideoModel(create_model(name, num_classes=5), config.Memory(dim=8))
    found = profile_model(model, (3, 8, 32, 32))
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        logits, _ = model.train()(torch.zeros(1, 1, 3, 8, 32, 32))
    expected = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert logits.requires_grad
    assert found.kept_bytes == pytest.approx(expected, rel=0.02)  # results such as logits live, but are not saved
    assert sum(stage.kept_bytes for stage in found.stages) == pytest.approx(expected, rel=0.05)
    assert found.forward_bytes < found.kept_bytes
