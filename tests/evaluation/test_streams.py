"""Evaluation on streams: each clip once, the same numbers however many videos and processes, names of classes count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from wholereel import config
from wholereel.batches import Fault
from wholereel.config import Clips, Data, Model, Streams, Task, Views
from wholereel.datasets.manifest import read_manifest
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.measure import measure
from wholereel.evaluation.stream_results import ClipRecord, summarise_streams
from wholereel.evaluation.streams import evaluate_streams
from wholereel.media.video_writer import write_video
from wholereel.models.package import Package, build_model, load_package, save_package
from wholereel.training.distributed import Launch, process_group

SIDE = 16
CLIPS = Clips(frames=2, stride=2)
VIEWS = Views(clips=CLIPS, short_side=SIDE, crop=SIDE)
LENGTHS = (20, 12, 28, 8, 16)
CLASSES = ("walk", "sit", "lie")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Five videos at 4 frames per second, an action in every second clip of a second."""
    folder = tmp_path_factory.mktemp("films")
    lines, generator = [], np.random.default_rng(0)
    for video, frames in enumerate(LENGTHS):
        pixels = generator.integers(0, 255, (frames, SIDE, SIDE, 3), dtype=np.uint8)
        write_video(folder / f"{video}.mp4", pixels, frame_rate=4, gop=4)
        events = [[(video + second) % 3, second, second + 1.0] for second in range(0, frames // 4, 2)]
        lines.append({"id": f"v{video}", "path": f"{video}.mp4", "events": events})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "classes.json").write_text(json.dumps({"label": list(CLASSES)}))
    return folder


def package(**changes) -> Package:
    spec = Model("memvit_tiny", options={"frames": 2, "crop": SIDE, "width": 8, **changes.pop("options", {})})
    spaces = changes.pop("spaces", {"label": CLASSES})
    sizes = tuple(map(len, spaces.values()))
    torch.manual_seed(0)
    model = build_model(spec, sizes if len(sizes) > 1 else sizes[0]).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("head"):
            torch.nn.init.normal_(parameter, std=0.5)
    classes = tuple(name for names in spaces.values() for name in names)
    colours = model.info.mean, model.info.std
    task = Task(kind="stream", **changes)
    return Package(model, spec, classes, task, CLIPS, SIDE, SIDE, *colours, {}, spaces, Streams())


def test_every_clip_once_whatever_is_read_together(folder):
    manifest, found = read_manifest(folder), []
    for batch in (1, 2, 4):
        results = evaluate_streams(package(), manifest, VIEWS, data=Data(workers=0), batch=batch)
        assert results.evaluated == sum(LENGTHS) // 4
        assert results.labelled == 3 + 2 + 4 + 1 + 2
        found.append(results)
    for results in found[1:]:
        assert results.metrics == found[0].metrics
        for ours, theirs in zip(results.records, found[0].records, strict=True):
            assert (ours.id, ours.targets) == (theirs.id, theirs.targets)
            assert ours.scores["label"] == pytest.approx(theirs.scores["label"], abs=1e-5)
    by_hand = stream_by_hand(folder)
    for record in found[0].records:
        assert record.scores["label"] == pytest.approx(by_hand[record.id], abs=1e-5)
    assert "12 of them have a label" in str(found[0])


def stream_by_hand(folder):
    """Scores by clip: one video after the other, without the house's loader."""
    from wholereel.media.model_input import to_model_input
    from wholereel.media.video_reader import VideoReader

    given, scores = package(), {}
    for video, frames in enumerate(LENGTHS):
        pixels = VideoReader(folder / f"{video}.mp4", size=SIDE).read(indices=range(frames)).pixels_TCHW
        state = given.model.init_state(1)
        for clip in range(frames // 4):
            clip_1CTHW = to_model_input(pixels[None, 4 * clip : 4 * clip + 4 : 2], mean=given.mean, std=given.std)
            with torch.no_grad():
                logits, state = given.model(clip_1CTHW, state)
            scores[f"v{video}#{clip:04d}"] = logits.softmax(-1)[0].tolist()
    return scores


def worker(rank, folder, out):
    torch.set_num_threads(1)
    with process_group(Launch(rank, 2, rank, f"file://{out}/meeting"), torch.device("cpu")):
        results = measure(package(), read_manifest(folder), VIEWS, data=Data(workers=0), batch=2, out=out / "two")
    torch.save(dict(results.metrics), out / f"rank{rank}.pt")


def test_two_processes_find_what_one_finds(folder, tmp_path):
    mp.start_processes(worker, (folder, tmp_path), nprocs=2, start_method="fork")
    measure(package(), read_manifest(folder), VIEWS, data=Data(workers=0), out=tmp_path / "one")
    assert (tmp_path / "one" / "results.json").read_text() == (tmp_path / "two" / "results.json").read_text()
    # A batch of another size may be summed in another order: scores are written with six digits.
    lines = [(tmp_path / run / "predictions.jsonl").read_text().splitlines() for run in ("one", "two")]
    for first, second in zip(*(map(json.loads, of_run) for of_run in lines), strict=True):
        scores = [line["label"].pop("scores") for line in (first, second)]
        assert first == second
        assert scores[1] == pytest.approx(scores[0], abs=2e-6)
    one = json.loads((tmp_path / "one" / "results.json").read_text())["metrics"]
    for rank in range(2):
        both = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert {name: round(value, 6) for name, value in both.items()} == one


def test_classes_are_matched_by_name(folder, tmp_path):
    for name in folder.iterdir():
        (tmp_path / name.name).symlink_to(name)
    (tmp_path / "classes.json").unlink()
    (tmp_path / "classes.json").write_text(json.dumps({"label": ["lie", "walk", "sit"]}))
    manifest = read_manifest(tmp_path)
    names = {record.id: record.targets["label"] for record in measure(package(), manifest, VIEWS).records}
    same = {record.id: record.targets["label"] for record in measure(package(), read_manifest(folder), VIEWS).records}
    turned = {0: 2, 1: 0, 2: 1}
    assert {id: label and (turned[label[0]],) for id, label in same.items()} == names
    with pytest.raises(DataError, match="1 class in column 'label' that the model does not know: 'lie'"):
        measure(package(spaces={"label": ("walk", "sit")}), manifest, VIEWS)
    with pytest.raises(DataError, match="has no label column 'verb'"):
        measure(package(spaces={"verb": CLASSES}), manifest, VIEWS)
    with pytest.raises(ConfigError, match="judges whole videos, not streams"):
        evaluate_streams(replace(package(), streams=None), manifest, VIEWS)


@pytest.mark.parametrize(("label", "multi_label", "found"), [("all", False, "several labels"), ("shown", True, "one")])
def test_labels_of_another_kind_than_in_training_are_refused(folder, label, multi_label, found):
    other = Data(workers=0, streams=Streams(label=label))
    with pytest.raises(ConfigError, match=f"clips have {found}.*{label}.*task.multi_label={multi_label}; use data"):
        evaluate_streams(package(multi_label=multi_label), read_manifest(folder), VIEWS, data=other)


def test_frames_have_labels_of_their_own(folder):
    given = package(options={"frame_level": True})
    parts = Data(workers=0, streams=Streams(frames=2))
    results = measure(given, read_manifest(folder), VIEWS, data=parts)
    assert results.evaluated == 2 * sum(LENGTHS) // 4
    assert {record.id.rpartition("/")[2] for record in results.records} == {"0", "1"}
    assert results.records[1].begin == 0.5
    both = [record.targets["label"] for record in results.records if record.id.startswith("v0#0002")]
    assert both == [(2,), (2,)]


def test_several_labels_a_clip(folder):
    data = Data(workers=0, streams=Streams(label="all"))
    results = measure(package(multi_label=True), read_manifest(folder), VIEWS, data=data)
    assert results.labelled == results.evaluated  # a clip that shows nothing says so
    assert 0 <= results.metrics["clip_map"] <= 1


def test_packages_with_several_label_spaces(tmp_path):
    spaces = {"verb": ("take", "put"), "noun": ("cup", "pan", "egg")}
    given = package(spaces=spaces)
    inputs = {name: getattr(given, name) for name in ("mean", "std", "short_side", "crop", "clips")}
    options = {"spec": given.spec, "num_classes": 5, "classes": given.classes, "task": given.task, "input": inputs}
    save_package(tmp_path, given.model, **options, spaces=spaces, streams=Streams(steps="samples"))
    again = load_package(tmp_path)
    assert again.spaces == spaces
    assert again.streams == Streams(steps="samples")
    clip = torch.randn(1, 3, 2, SIDE, SIDE)
    ours, theirs = (one.model(clip, one.model.init_state(1))[0] for one in (given, again))
    assert [tuple(part.shape) for part in theirs] == [(1, 2), (1, 3)]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    built = build_model(replace(given.spec, weights=f"file:{tmp_path}"), (2, 3))
    assert all(torch.equal(a, b) for a, b in zip(given.model.parameters(), built.parameters(), strict=True))
    other = build_model(replace(given.spec, weights=f"file:{tmp_path}"), (2, 4))  # other classes: fresh heads
    assert other.head.projection[1].weight.shape[0] == 4
    assert torch.equal(other.norm.weight, given.model.norm.weight)
    with pytest.raises(ValueError, match="one after the other"):
        save_package(tmp_path, given.model, **options, spaces={"verb": ("take", "put")})


def test_weights_of_another_memory_length(tmp_path):
    given = package(options={"reach": 2})
    inputs = {name: getattr(given, name) for name in ("mean", "std", "short_side", "crop", "clips")}
    save_package(tmp_path, given.model, spec=given.spec, num_classes=3, classes=CLASSES, task=given.task, input=inputs)
    longer = build_model(config.Model(given.spec.name, f"file:{tmp_path}", {**given.spec.options, "reach": 4}), 3)
    ours, theirs = (model.blocks[0].attn.rel_pos_mem_t for model in (given.model, longer))
    assert torch.equal(theirs[: len(ours)], ours)
    assert torch.equal(theirs[-1], ours[-1])
    none = build_model(config.Model(given.spec.name, f"file:{tmp_path}", {**given.spec.options, "reach": 0}), 3)
    assert torch.equal(none.head.projection.weight, given.model.head.projection.weight)


def records(rows):
    scores = {"verb": (0.6, 0.4), "noun": (0.1, 0.7, 0.2)}
    return [ClipRecord(id, 0.0, 1.0, {"verb": verb, "noun": noun}, scores) for id, verb, noun in rows]


def test_numbers_of_pairs_and_of_what_has_no_label():
    spaces = {"verb": ("take", "put"), "noun": ("cup", "pan", "egg")}
    rows = [("a", (0,), (1,)), ("b", (1,), (1,)), ("c", (0,), (2,)), ("d", None, None)]
    results = summarise_streams(
        records(rows), [Fault("e", "e.mp4", "gone")], spaces=spaces, multi_label=False, protocol={}
    )
    assert results.metrics["verb_top1"] == pytest.approx(2 / 3)
    assert results.metrics["noun_top1"] == pytest.approx(2 / 3)
    # (take, pan) 0.42, (put, pan) 0.28, (take, egg) 0.12, ...
    assert results.metrics["action_top1"] == pytest.approx(1 / 3)
    assert results.metrics["action_top5"] == 1.0
    assert (results.samples, results.evaluated, results.labelled) == (5, 4, 3)
    nothing = summarise_streams(records([("a", None, None)]), [], spaces=spaces, multi_label=False, protocol={})
    assert all(np.isnan(value) for value in nothing.metrics.values())
    assert nothing.to_dict()["metrics"]["action_top1"] is None
    with pytest.raises(ValueError, match="judged twice"):
        summarise_streams(records([rows[0], rows[0]]), [], spaces=spaces, multi_label=False, protocol={})
