"""Tasks of streams: losses by hand, what has no label counts for nothing, boxes travel with their rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from wholereel import config
from wholereel.batches import IGNORED, Blend, Boxes, Erased, StreamBatch, Target
from wholereel.datasets.manifest import Manifest
from wholereel.datasets.sample import Sample
from wholereel.errors import ConfigError
from wholereel.models.package import build_model
from wholereel.tasks.create import create_task
from wholereel.tasks.losses import without_tail
from wholereel.tasks.stream_classification import StreamClassification, space_loss
from wholereel.tasks.stream_detection import StreamDetection

SIDE = 32
SPACES = {"verb": ("take", "put"), "noun": ("cup", "pan", "egg")}


def model(num_classes, **options):
    torch.manual_seed(0)
    spec = config.Model("memvit_tiny", options={"frames": 2, "crop": SIDE, "width": 8, **options})
    return build_model(spec, num_classes)


def batch(labels, *, boxes=None, rows=3, seed=0) -> StreamBatch:
    generator = torch.Generator().manual_seed(seed)
    return StreamBatch(
        clip_BTCHW=torch.randint(0, 255, (rows, 2, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8),
        valid_B=torch.ones(rows, dtype=torch.bool),
        starts_B=torch.ones(rows, dtype=torch.bool),
        seconds_B2=torch.zeros(rows, 2, dtype=torch.float64),
        target=Target(labels, boxes),
        ids=tuple(map(str, range(rows))),
    )


def test_spaces_add_up_and_each_counts_what_has_a_label():
    task = StreamClassification(model((2, 3)), config.Task("stream"), SPACES)
    verb, noun = torch.tensor([1, IGNORED, 0]), torch.tensor([2, 2, 1])
    given = batch({"verb": verb, "noun": noun})
    losses, _ = task(given, task.begin(given))
    (verb_logits, noun_logits), _ = task.model(task.inputs(given), task.begin(given))
    expected = F.cross_entropy(verb_logits[[0, 2]], verb[[0, 2]]) + F.cross_entropy(noun_logits, noun)
    torch.testing.assert_close(losses.total(), expected)
    assert {name: int(part.count) for name, part in losses.parts.items()} == {"verb": 2, "noun": 3}


@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 2]), torch.tensor([[0, 1], [IGNORED, 1], [2, IGNORED]])])
def test_frames_have_the_labels_of_their_clip_or_their_own(labels):
    task = StreamClassification(model(3, frame_level=True), config.Task("stream"), {"label": ("a", "b", "c")})
    given = batch({"label": labels})
    losses, _ = task(given, task.begin(given))
    logits, _ = task.model(task.inputs(given), task.begin(given))
    assert logits.shape == (3, 2, 3)
    every = labels[:, None].expand(3, 2) if labels.ndim == 1 else labels
    expected = F.cross_entropy(logits.flatten(0, 1), every.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(losses.total(), expected)
    assert int(losses.parts["label"].count) == int((every >= 0).sum())


def test_rows_without_label_or_clip_give_no_gradient_even_if_they_are_not_a_number():
    logits = torch.randn(4, 3, requires_grad=True)
    broken = torch.where(torch.tensor([False, True, False, True])[:, None], torch.nan, logits)
    valid_B = torch.tensor([True, True, True, False])
    part = space_loss(broken, torch.tensor([0, IGNORED, 2, 1]), valid_B)
    assert float(part.count) == 2
    part.sum.backward()
    assert torch.equal(logits.grad[[1, 3]], torch.zeros(2, 3))
    none = space_loss(broken, torch.full((4,), IGNORED), valid_B)
    assert (float(none.sum.detach()), float(none.count)) == (0.0, 0.0)
    several = space_loss(torch.zeros(2, 3), torch.tensor([[1.0, 0, 0], [-1, -1, -1]]), valid_B[:2], multi_label=True)
    assert float(several.sum) == pytest.approx(0.693147, abs=1e-5)
    assert float(several.count) == 1
    with pytest.raises(ValueError, match=r"need labels of shape \(4,\), got \(4, 2\)"):
        space_loss(broken, torch.zeros(4, 2, dtype=torch.int64), valid_B)


def test_a_model_with_other_classes_is_refused():
    with pytest.raises(ConfigError, match="the model has 3 classes, the label spaces verb, noun 5"):
        StreamClassification(model(3), config.Task("stream"), SPACES)


def boxes(rows, labels=True) -> Boxes:
    """One box in each of these rows."""
    count = len(rows)
    corners = torch.tensor([[2.0, 2, 14, 20], [10, 8, 30, 30], [0, 0, 31, 31]])[:count]
    return Boxes(
        xyxy_R4=corners,
        video_R=torch.tensor(rows),
        clip_R=torch.zeros(count, dtype=torch.int64),
        seconds_R=torch.zeros(count, dtype=torch.float64),
        labels_RK=torch.eye(4)[:count] if labels else None,
    )


def detector(**options):
    return StreamDetection(
        model(4, boxes=True, **options), config.Task("stream_detect", multi_label=True), {"label": tuple("abcd")}
    )


def test_boxes_of_rows_are_those_of_each_row_alone():
    task = detector().eval()
    together = batch({}, boxes=boxes([0, 0, 2]))
    prediction, state = task.predict(together, task.begin(together))
    again, _ = task.predict(together, state)
    for row in (0, 2):
        mine = torch.tensor([0, 1]) if row == 0 else torch.tensor([2])
        own = boxes([0, 0, 2])
        own = replace(own, **{name: getattr(own, name)[mine] for name in vars(own) if getattr(own, name) is not None})
        alone = batch({}, boxes=replace(own, video_R=torch.zeros_like(mine)))
        alone = replace(
            alone, clip_BTCHW=together.clip_BTCHW[row : row + 1], valid_B=alone.valid_B[:1],
            starts_B=alone.starts_B[:1], seconds_B2=alone.seconds_B2[:1], ids=("0",),
        )  # fmt: skip
        first, state = task.predict(alone, task.begin(alone))
        second, _ = task.predict(alone, state)
        torch.testing.assert_close(first.scores["label"], prediction.scores["label"][mine], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(second.scores["label"], again.scores["label"][mine], rtol=1e-4, atol=1e-5)
    assert not torch.equal(again.scores["label"], prediction.scores["label"])  # the memory speaks


def test_the_loss_of_boxes_and_a_step_without_any():
    task = detector().eval()
    given = batch({}, boxes=boxes([0, 0, 2]))
    losses, state = task(given, task.begin(given))
    logits_RK, _ = task.judge(given, task.begin(given))
    expected = F.binary_cross_entropy_with_logits(logits_RK, torch.eye(4)[:3])
    torch.testing.assert_close(losses.total(), expected)
    empty, _ = task(batch({}), state)
    assert float(empty.parts["boxes"].count) == 0
    assert float(empty.parts["boxes"].sum.detach()) == 0
    with pytest.raises(ValueError, match="labels_RK is None"):
        task(batch({}, boxes=boxes([0, 1], labels=False)), state)


def test_what_a_detector_of_streams_needs():
    with pytest.raises(ConfigError, match="set its option boxes=True"):
        StreamDetection(model(4), config.Task("stream_detect", multi_label=True), {"label": tuple("abcd")})
    with pytest.raises(ConfigError, match="multi_label must be True"):
        StreamDetection(model(4, boxes=True), config.Task("stream_detect"), {"label": tuple("abcd")})


def test_rare_classes_are_left_out_of_others_losses():
    """With drop 1 a loss is that over the true class and the frequent ones alone; outside of training all count."""
    tails = {"verb": torch.tensor([False, False]), "noun": torch.tensor([False, True, True])}
    task = StreamClassification(model((2, 3)), config.Task("stream", tail_drop=1.0, tail_below=5), SPACES, tails)
    verb, noun = torch.tensor([1, 0, 0]), torch.tensor([0, 2, IGNORED])
    given = batch({"verb": verb, "noun": noun})
    losses, _ = task(given, task.begin(given))
    (verb_logits, noun_logits), _ = task.model(task.inputs(given), task.begin(given))
    torch.testing.assert_close(losses.parts["verb"].sum, F.cross_entropy(verb_logits, verb, reduction="sum"))
    alone = F.cross_entropy(noun_logits[1:2, [0, 2]], torch.tensor([1]))  # of a cup nothing else is left: 0
    torch.testing.assert_close(losses.parts["noun"].sum, alone)
    task.eval()
    losses, _ = task(given, task.begin(given))
    (_, noun_logits), _ = task.model(task.inputs(given), task.begin(given))
    torch.testing.assert_close(losses.parts["noun"].sum, F.cross_entropy(noun_logits[:2], noun[:2], reduction="sum"))


def test_a_rare_class_is_left_out_as_often_as_asked():
    labels = torch.zeros(4000, dtype=torch.int64)
    logits = without_tail(torch.zeros(4000, 3), labels, torch.tensor([True, True, False]), drop=0.25)
    assert bool((logits[:, [0, 2]] == 0).all())  # the true class, and a frequent one
    assert 0.22 < float((logits[:, 1] < 0).double().mean()) < 0.28


def test_what_is_rare_is_counted_in_the_training_split(tmp_path):
    samples = tuple(
        Sample(str(n), tmp_path / f"{n}.mp4", None, None, split, {"verb": n % 2, "noun": 0 if n < 5 else 2})
        for n, split in enumerate(["train"] * 6 + ["val"] * 9)
    )
    manifest = Manifest(samples, SPACES, tmp_path)
    options = {"frames": 2, "crop": SIDE, "width": 8}
    train = config.Train(
        model=config.Model("memvit_tiny", options=options),
        data=config.Data(labels=("verb", "noun"), streams=config.Streams(steps="samples")),
        task=config.Task("stream", tail_drop=0.5, tail_below=3),
        strategy=config.Strategy("sequential"),
    )
    task, _ = create_task(train, manifest)
    assert isinstance(task, StreamClassification)
    assert {name: tail.tolist() for name, tail in task.tails.items()} == {
        "verb": [False, False],
        "noun": [False, True, True],
    }
    with pytest.raises(ConfigError, match=r"task.tail_drop=0.5 and task.tail_below=None belong together"):
        create_task(replace(train, task=config.Task("stream", tail_drop=0.5)), manifest)
    with pytest.raises(ConfigError, match=r"task.tail_drop=0.5 leaves rare classes out of a softmax"):
        StreamClassification(model((2, 3)), config.Task("stream", tail_drop=0.5), SPACES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_blended_rows_are_asked_for_both_labels(multi_label, frames, smoothing):
    """Row 0 has a partner without label, row 1 is its own partner, row 2 has no label itself."""
    blend = Blend(
        torch.tensor([2, 1, 0]),
        torch.tensor([0.3, 0.5, 0.3], dtype=torch.float64),
        torch.zeros(3, 4, dtype=torch.int64),
    )
    task = config.Task("stream", multi_label=multi_label, label_smoothing=smoothing)
    task = StreamClassification(model(3, frame_level=frames, **({"causal": True} if frames else {})), task, SPACES_3)
    labels = torch.tensor([1, 2, IGNORED])
    if multi_label:
        labels = torch.tensor([[0.0, 1, 1], [1, 0, 0], [IGNORED] * 3])
    logits = torch.randn(3, 2, 3, dtype=torch.float64) if frames else torch.randn(3, 3, dtype=torch.float64)
    task.judge = lambda batch, state: ({"label": logits}, state)
    both, _ = task(replace(batch({"label": labels}), blend=blend), None)
    options = {"multi_label": multi_label, "label_smoothing": smoothing}
    own, first, second = (
        space_loss(logits[rows], labels[kept], torch.ones(len(rows), dtype=torch.bool), **options)
        for rows, kept in (([0], [0]), ([2], [0]), ([1], [1]))
    )
    expected = 0.3 * own.sum + 0.7 * first.sum + second.sum
    torch.testing.assert_close(both.parts["label"].sum, expected, rtol=1e-12, atol=1e-12)
    count = 2.0 * (2 if frames else 1)
    torch.testing.assert_close(both.parts["label"].count, torch.tensor(count, dtype=torch.float64))


SPACES_3 = {"label": ("a", "b", "c")}


def test_clips_of_streams_are_erased_and_blended():
    task = StreamClassification(model(3), config.Task("stream"), SPACES_3)
    plain_batch = batch({"label": torch.tensor([0, 1, 2])})
    blend = Blend(torch.tensor([2, 1, 0]), torch.tensor([0.25, 1.0, 0.25]).double(), torch.zeros(3, 4).long())
    plain = task.inputs(plain_batch)
    erased = task.inputs(replace(plain_batch, erased=(Erased(2, 0, 4, 5, 6, 7, seed=8),)))
    assert torch.equal(erased[:2], plain[:2])
    assert (erased != plain)[2].any(0).sum() == 2 * 6 * 7
    done = task.inputs(replace(plain_batch, erased=(Erased(2, 0, 4, 5, 6, 7, seed=8),), blend=blend))
    torch.testing.assert_close(done[0], 0.25 * erased[0] + 0.75 * erased[2])
    assert torch.equal(done[1], plain[1])
