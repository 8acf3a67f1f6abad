"""Detection: losses by hand, the same gradient by every exact strategy, what context clips learn."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.models.test_detector import MEMORIES
from tests.tasks.detections import CLASSES, detection_task, detector, key_batch
from tests.training.tiny import video_model
from wholereel import config
from wholereel.batches import Target
from wholereel.errors import ConfigError
from wholereel.tasks import TASKS
from wholereel.tasks.detection import DetectionTask
from wholereel.training.checks import check_train
from wholereel.training.strategies import create_strategy

VALID = torch.tensor([[True, True, True], [False, True, True]])


def gradients(task, batch, strategy):
    task.zero_grad()
    way = create_strategy(config.Strategy(strategy), nullcontext)
    losses, _ = way.backward(task, batch, lambda losses: losses.total(), lambda: None)
    return losses, {name: p.grad for name, p in task.named_parameters() if p.grad is not None}


def test_the_loss_is_the_mean_over_boxes_and_classes():
    task, batch = detection_task(MEMORIES[0][0]), key_batch()
    assert TASKS["detect"] is DetectionTask
    losses = task(batch)
    boxes = batch.target.boxes
    rows = torch.tensor([[1.0], [1.0], [4.0]])  # clip 1 of the first video twice, clip 1 of the second
    logits, _ = task.model(task.inputs(batch), boxes_R5=torch.cat([rows, boxes.xyxy_R4], 1))
    expected = F.binary_cross_entropy_with_logits(logits, boxes.labels_RK)
    torch.testing.assert_close(losses.total(), expected)
    assert losses.parts["boxes"].count == 3


@pytest.mark.parametrize("judged", ["centre", "all"])
@pytest.mark.parametrize(("memory", "read"), [(None, "clip"), *MEMORIES])
def test_exact_is_the_full_gradient(memory, read, judged):
    task = detection_task(memory, read, dropout=0.0).double()
    batch = key_batch(judged=judged, valid=VALID)
    full_losses, full = gradients(task, batch, "full")
    exact_losses, exact = gradients(task, batch, "exact")
    torch.testing.assert_close(exact_losses.total(), full_losses.total(), rtol=1e-12, atol=0)
    assert exact.keys() == full.keys()
    for name in full:
        torch.testing.assert_close(exact[name], full[name], rtol=1e-10, atol=1e-10 * full[name].abs().max().item())
    if memory is not None and judged == "centre":  # clips without boxes have taught the encoder something
        alone = replace(batch, valid_BN=torch.tensor([[False, True, False]] * 2))
        _, centre = gradients(task, alone, "full")
        assert not torch.allclose(
            centre["model.clip_model.stem.spatial.conv.weight"], full["model.clip_model.stem.spatial.conv.weight"]
        )


def test_the_order_of_boxes_does_not_matter():
    task, batch = detection_task(MEMORIES[1][0], "roi").double(), key_batch(judged="all")
    boxes = batch.target.boxes
    order = torch.randperm(len(boxes.video_R), generator=torch.Generator().manual_seed(3))
    mixed = replace(
        boxes, **{name: getattr(boxes, name)[order] for name in ("xyxy_R4", "video_R", "clip_R", "labels_RK")}
    )
    other = replace(batch, target=Target(batch.target.labels, mixed))
    for strategy in ("full", "exact"):
        torch.testing.assert_close(
            gradients(task, other, strategy)[0].total(), gradients(task, batch, strategy)[0].total()
        )
    torch.testing.assert_close(task.predict(other).scores["label"], task.predict(batch).scores["label"][order])


def test_a_batch_without_boxes_costs_nothing():
    task, batch = detection_task(MEMORIES[0][0]), key_batch()
    boxes = batch.target.boxes
    none = replace(boxes, **{name: getattr(boxes, name)[:0] for name in ("xyxy_R4", "video_R", "clip_R", "labels_RK")})
    part = task(replace(batch, target=Target(batch.target.labels, none))).parts["boxes"]
    assert (part.sum.item(), part.count.item()) == (0.0, 0.0)


@pytest.mark.parametrize("variant", ["step", "accumulate"])
def test_truncated_gradients_are_refused(variant):
    strategy = create_strategy(config.Strategy("multi_iteration", variant), nullcontext)
    with pytest.raises(
        ConfigError, match=r"cannot serve DetectionTask: clips that only push .* get no gradient at all"
    ):
        strategy.check(detection_task(MEMORIES[0][0]))


def test_predictions_and_their_metrics():
    task = detection_task(MEMORIES[0][0]).eval()
    batch = key_batch()
    prediction = task.predict(batch)
    alone = task.predict(batch, alone=True)
    assert prediction.scores["label"].shape == (3, CLASSES)
    assert prediction.boxes is batch.target.boxes
    assert not torch.allclose(prediction.scores["label"], alone.scores["label"])
    logits, _ = task.model(
        task.inputs(batch)[:, 1], boxes_R5=torch.cat([torch.tensor([[0.0], [0], [1]]), batch.target.boxes.xyxy_R4], 1)
    )
    torch.testing.assert_close(alone.scores["label"], logits.sigmoid())
    perfect = replace(prediction, scores={"label": batch.target.boxes.labels_RK})
    counts = task.metrics().add(perfect, batch.target)
    assert counts.value() == {"map": 1.0, "map_activitynet": 1.0, "key_frames": 2.0, "boxes": 3.0}
    wrong = replace(prediction, scores={"label": 1 - batch.target.boxes.labels_RK})
    both = counts.merge(task.metrics().add(replace(wrong, ids=("c", "d")), batch.target))
    assert both.value()["map"] < 1.0
    assert both.value()["key_frames"] == 4.0


def test_models_and_data_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"task\.kind='detect' judges boxes: set model\.boxes"):
        DetectionTask(video_model(), config.Task("detect"), CLASSES)
    with pytest.raises(ValueError, match="the model has 3 classes, the task 4"):
        DetectionTask(detector(), config.Task("detect"), 4)
    task, batch = detection_task(), key_batch()
    with pytest.raises(ConfigError, match="needs a set of key frames with boxes"):
        task(replace(batch, target=Target(batch.target.labels)))
    with pytest.raises(ValueError, match=r"labels_RK is None"):
        task(replace(batch, target=Target({}, replace(batch.target.boxes, labels_RK=None))))
    with pytest.raises(ValueError, match="says nothing of whole clips"):
        task.losses(torch.zeros(2, 3, CLASSES), batch)


def settings(kind="detect", boxes=True, multi_label=True, crop=0):
    model = config.Model("tiny2d", boxes=config.BoxHead() if boxes else None)
    augment = config.Augment((32, 32), crop)
    return config.Train(model, config.Data(augment=augment), config.Task(kind, multi_label=multi_label))


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (settings(boxes=False), r"task\.kind='detect' and model\.boxes=None do not fit"),
        (settings("classify", crop=32), r"task\.kind='classify' and model\.boxes=BoxHead.* do not fit"),
        (settings(multi_label=False), r"set task\.multi_label=True"),
        (settings("classify", boxes=False), r"data\.augment\.crop=0 \(whole pictures\) is for task\.kind='detect'"),
    ],
)
def test_settings_that_contradict_each_other(train, words):
    check_train(settings())
    with pytest.raises(ConfigError, match=words):
        check_train(train)
