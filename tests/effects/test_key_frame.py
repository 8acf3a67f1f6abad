"""Where only one clip is judged, the exact gradient is all that teaches the others (`feature_tasks.py`)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.effects.feature_tasks import CHANNELS, KEY_FRAME, KeyFrameTask, Numbers, key_frame_videos, learn_key_frame
from wholereel import config
from wholereel.errors import ConfigError
from wholereel.models.video_model import VideoModel
from wholereel.training.strategies import create_strategy

STEPS = 2000


def gradients(row: str) -> dict[str, torch.Tensor]:
    """Of one batch, at weights with which the memory is read."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VideoModel(Numbers(), config.Memory(value="separate", dim=8, detach=KEY_FRAME[row].detach)).double()
        torch.nn.init.normal_(model.memories["last"].w_o.weight)
    task = KeyFrameTask(model, config.Task(multi_label=True), 1)
    batch = key_frame_videos(8, torch.randn(3, CHANNELS, generator=generator), generator)
    KEY_FRAME[row].gradient(task, batch.__class__(**{**vars(batch), "clips_BNTCHW": batch.clips_BNTCHW.double()}))
    return {name: parameter.grad for name, parameter in task.named_parameters() if parameter.grad is not None}


def test_truncation_and_detaching_take_the_same_from_the_judged_clip_and_all_from_the_others():
    exact, truncated, detached = (gradients(row) for row in ("exact", "truncated", "memory detached"))
    full = gradients("backbone frozen at random")  # the row's plain graph; nothing is frozen here
    for name, gradient in full.items():
        torch.testing.assert_close(exact[name], gradient, rtol=1e-10, atol=1e-14)
    assert set(full) - set(detached) == {"model.memories.last.w_k.weight", "model.memories.last.w_v.weight"}
    key = "model.memories.last.w_k.weight"
    assert (truncated[key] - exact[key]).norm() > 0.1 * exact[key].norm()
    head = "model.clip_model.fc.weight"
    torch.testing.assert_close(truncated[head], exact[head], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(detached[head], exact[head], rtol=1e-10, atol=1e-14)


def test_multi_iteration_refuses_the_task():
    task = KeyFrameTask(VideoModel(Numbers(), config.Memory()), config.Task(multi_label=True), 1)
    with pytest.raises(ConfigError, match="clips that only push into the memory"):
        create_strategy(config.Strategy("multi_iteration"), torch.enable_grad).check(task)


@pytest.mark.effects
@pytest.mark.parametrize("row", KEY_FRAME)
def test_only_the_exact_gradient_learns_it(row):
    """10 to 35 s of one core for each of the three seeds."""
    accuracies = [learn_key_frame(KEY_FRAME[row], seed=seed, steps=STEPS) for seed in range(3)]
    print(row, accuracies)
    if row == "exact":
        assert min(accuracies) >= 0.97
    elif row not in ("backbone frozen at random", "memory detached"):  # random features suffice now and then
        assert max(accuracies) <= 0.60


@pytest.mark.effects
def test_a_detached_memory_stays_at_chance_where_random_features_do_not_suffice():
    row = replace(KEY_FRAME["memory detached"], small=True)
    assert max(learn_key_frame(row, seed=seed, steps=STEPS) for seed in range(3)) <= 0.60
