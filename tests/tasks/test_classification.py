"""The classification task: losses, predictions with shared memory and alone, what it measures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.tiny import CLASSES, SIZE, clip_batch, tiny_task, video_model
from wholereel import config
from wholereel.batches import Blend, Erased, Target
from wholereel.config import Erasing, Mixing
from wholereel.media.mixed_input import draw_blend
from wholereel.media.windows import draw_patches
from wholereel.ops.aggregate import aggregate_scores
from wholereel.tasks import TASKS
from wholereel.tasks.classification import ClassificationTask
from wholereel.tasks.counts import ClassificationCounts

MEMORY = config.Memory(dim=8)
MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_forward_is_losses_of_the_models_logits():
    task, batch = tiny_task(MEMORY), clip_batch([0, 1], valid=MASK)
    logits, _ = task.model(task.inputs(batch), None, batch.valid_BN)
    torch.testing.assert_close(task(batch).total(), task.losses(logits, batch).total())
    assert TASKS["classify"] is ClassificationTask


def test_inputs_of_some_clips_are_those_of_all():
    task, batch = tiny_task(MEMORY), clip_batch([0, 1], valid=MASK)
    assert torch.equal(task.inputs(batch, slice(1, 3)), task.inputs(batch)[:, 1:3])


@pytest.mark.parametrize("aggregate", ["logits", "prob", "max", "clip", "mix"])
def test_predict_aggregates_as_trained(aggregate):
    task, batch = tiny_task(MEMORY, aggregate=aggregate).eval(), clip_batch([0, 1], valid=MASK)
    prediction = task.predict(batch)
    logits, _ = task.model(task.inputs(batch), None, batch.valid_BN)
    torch.testing.assert_close(prediction.clip_logits["label"], logits.detach())
    torch.testing.assert_close(prediction.scores["label"], aggregate_scores(logits.detach(), MASK, aggregate))
    assert not prediction.scores["label"].requires_grad
    assert prediction.seconds_BN2.shape == (2, 3, 2)
    assert prediction.seconds_BN2[0, 0].tolist() == [0.0, 3.0]
    assert prediction.final_B.all()


def test_alone_each_clip_has_only_its_own_memory():
    task, batch = tiny_task(MEMORY).eval(), clip_batch([0, 1], valid=MASK)
    alone = task.predict(batch, alone=True).clip_logits["label"]
    for n in range(3):
        logits, _ = task.model(task.inputs(batch)[:, n])
        torch.testing.assert_close(alone[:, n], logits.detach())
    shared = task.predict(batch).clip_logits["label"]
    assert not torch.allclose(alone[0], shared[0])
    torch.testing.assert_close(alone[1, 0], shared[1, 0])  # the video of one valid clip


def test_invalid_clips_do_not_matter():
    task = tiny_task(MEMORY)
    batch, other = clip_batch([0, 1], valid=MASK), clip_batch([0, 1], valid=MASK)
    other.clips_BNTCHW[1, 1:] = 255
    torch.testing.assert_close(task(batch).total(), task(other).total())
    torch.testing.assert_close(task.predict(batch).scores["label"], task.predict(other).scores["label"])


def test_counts_of_parts_merge_to_those_of_the_whole():
    task = tiny_task(MEMORY).eval()
    batches = [clip_batch([0, 1], valid=MASK), clip_batch([2, 3], valid=MASK), clip_batch([4, 5])]
    parts = [task.metrics().add(task.predict(batch), batch.target) for batch in batches]
    whole = task.metrics()
    for batch in batches:
        whole = whole.add(task.predict(batch), batch.target)
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert merged.value() == whole.value()
    assert int(whole.clip.total) == 4 + 4 + 6
    assert set(whole.value()) == {"video_top1", "clip_top1", "video_mean_class", "videos"}
    assert whole.value()["videos"] == 6


def test_multi_label_measures_average_precision():
    task, batch = tiny_task(MEMORY, multi_label=True).eval(), clip_batch([0, 1, 2])
    batch = replace(batch, target=Target({"label": torch.eye(3)}))
    assert task(batch).parts["video"].count == 3
    prediction = task.predict(batch)
    values = task.metrics().add(prediction, batch.target).value()
    assert 0 <= values["video_map"] <= 1
    assert "video_mean_class" not in values
    single = ClassificationCounts.zero("label", 3, multi_label=False)
    with pytest.raises(ValueError, match="cannot merge single-label counts with multi-label"):
        single.merge(task.metrics())
    with pytest.raises(ValueError, match="cannot merge multi-label counts with single-label"):
        task.metrics().merge(single)


def test_dropout_of_the_task_stands_in_front_of_the_classifier():
    assert tiny_task(dropout=0.5).model.clip_model.dropout.p == 0.5
    assert [tuple(p.shape) for p in tiny_task().head_parameters()] == [(3, 32), (3,)]


def test_classes_must_agree():
    with pytest.raises(ValueError, match="the model has 3 classes, the task 5"):
        ClassificationTask(video_model(), config.Task(), 5)
    assert len(CLASSES) == 3


BLEND = Blend(
    torch.tensor([1, 0]), torch.tensor([0.75, 0.75], dtype=torch.float64), torch.tensor([[0, 4, 2, 6], [0, 4, 2, 6]])
)
ERASED = (Erased(0, 1, 1, 2, 3, 4, seed=5), Erased(1, 0, 0, 0, 2, 2, seed=6), Erased(1, 2, 3, 3, 4, 2, seed=7))


def test_inputs_are_erased_then_blended_and_some_clips_as_all_are():
    task, batch = tiny_task(MEMORY), clip_batch([0, 1])
    changed = replace(batch, erased=ERASED, blend=BLEND)
    plain, done = task.inputs(batch), task.inputs(changed)
    erased_only = task.inputs(replace(batch, erased=ERASED))
    assert (erased_only != plain).any(2)[0, 1].sum() == 4 * 3 * 4  # T, height, width
    expected = erased_only.clone()
    expected[..., 0:4, 2:6] = erased_only.flip(0)[..., 0:4, 2:6]
    assert torch.equal(done, expected)
    for clips in (slice(0, 1), slice(1, 3), slice(2, 3)):
        assert torch.equal(task.inputs(changed, clips), done[:, clips])
    assert torch.equal(task.inputs(batch), plain)


def test_blended_videos_are_asked_for_both_labels():
    task, batch = tiny_task(MEMORY).double(), clip_batch([0, 1], valid=MASK)
    logits = torch.randn(2, 3, len(CLASSES), dtype=torch.float64)
    own = task.losses(logits, batch).parts["video"]
    swapped = replace(batch, target=Target({"label": batch.target.labels["label"].flip(0)}))
    other = task.losses(logits, swapped).parts["video"]
    both = task.losses(logits, replace(batch, blend=BLEND)).parts["video"]
    torch.testing.assert_close(both.sum, 0.75 * own.sum + 0.25 * other.sum, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both.count, own.count)


def test_who_learns_from_blended_and_erased_videos_alone_knows_whole_ones():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task = tiny_task()
        optimiser = torch.optim.AdamW(task.parameters(), lr=1e-2)
        for step in range(60):
            generator = torch.Generator().manual_seed(step)
            batch = clip_batch(torch.randint(0, 300, (6,), generator=generator).tolist())
            patches = [
                replace(patch, row=row, clip=clip)
                for row in range(6)
                for clip in range(3)
                for patch in draw_patches(Erasing(probability=1.0), SIZE, SIZE, generator)
            ]
            blend = draw_blend(Mixing(), 6, SIZE, SIZE, generator)
            loss = task(replace(batch, erased=tuple(patches), blend=blend)).total()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert loss.detach() > 0.2  # what is mixed cannot be certain
    whole = clip_batch(list(range(1000, 1030)))
    scores_BK = task.eval().predict(whole).scores["label"]
    assert (scores_BK.argmax(1) == whole.target.labels["label"]).all()
