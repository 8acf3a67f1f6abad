"""Evaluation end to end on encoded files: equal to the predictor, to itself over processes, honest about failures."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.inference.builders import moving_square, package
from wholereel import config
from wholereel.datasets.manifest import Manifest, read_manifest
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.evaluate import evaluate
from wholereel.evaluation.loading import shard
from wholereel.inference import Predictor
from wholereel.models.package import load_package

VIEWS = config.Views(config.Clips("uniform", 3, 4, 2), short_side=36, crop=32)
COVERAGE = replace(VIEWS, clips=replace(VIEWS.clips, coverage=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eleven videos of different lengths, in two folders."""
    root = tmp_path_factory.mktemp("data")
    for number in range(11):
        right = number % 2 == 0
        path = root / ("right" if right else "left") / f"v{number}.mp4"
        moving_square(path, frames=9 + 4 * number, right=right, seed=number)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return package(tmp_path_factory.mktemp("package"), config.Memory())


@pytest.mark.parametrize(
    "views",
    [
        VIEWS,
        COVERAGE,
        replace(VIEWS, crops=3),
        replace(VIEWS, crops=3, memory_over="all", combine="softmax_mean"),
        replace(COVERAGE, clips=replace(COVERAGE.clips, plan="contiguous", frame_rate=5.0)),
    ],
    ids=["plain", "coverage", "three crops", "one memory", "contiguous"],
)
def test_scores_are_those_of_the_predictor(model, data, views):
    manifest = read_manifest(data)
    results = evaluate(model, manifest, views, batch=4, workers=0, device="cpu")
    predictor = Predictor(model, views=views, device="cpu", chunk=2)
    for record, sample in zip(results.records, manifest.samples, strict=True):
        prediction = predictor(sample.path)
        assert list(record.scores) == pytest.approx(prediction.scores_K.tolist(), abs=1e-5)
        assert record.views == len(prediction.seconds_N2) * views.crops


def test_shared_and_alone_readings_of_clip_accuracy(model, data):
    loaded, manifest = load_package(model), read_manifest(data)
    results = evaluate(loaded, manifest, VIEWS, workers=0, device="cpu")
    shared = Predictor(loaded, views=VIEWS, device="cpu")
    right = sum(
        int((shared(sample.path).clip_scores_NK.argmax(1) == record.target[0]).sum())
        for sample, record in zip(manifest.samples, results.records, strict=True)
    )
    assert results.metrics["clip_top1_shared"] == right / 33
    single = Predictor(loaded, clips=replace(VIEWS.clips, count=1), device="cpu")  # its only clip is the middle one
    for record, sample in list(zip(results.records, manifest.samples, strict=True))[:2]:
        one = evaluate(loaded, _only(manifest, record.index), single.views, workers=0, device="cpu")
        assert one.records[0].alone_right == one.records[0].shared_right
        assert (single(sample.path).scores_K.argmax() == record.target[0]).int() == one.records[0].alone_right


def _only(manifest: Manifest, index: int) -> Manifest:
    return replace(manifest, samples=manifest.samples[index : index + 1])


def test_without_memory_both_readings_agree(data, tmp_path):
    results = evaluate(package(tmp_path, None), read_manifest(data), VIEWS, workers=0, device="cpu")
    assert results.metrics["clip_top1_shared"] == results.metrics["clip_top1_alone"]
    assert "no memory: each view is judged alone" in results.protocol["text"]


def test_failed_samples_are_listed_and_left_out(model, data, tmp_path):
    manifest = read_manifest(data)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    cut = tmp_path / "cut.mp4"
    whole = manifest.samples[-1].path.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    samples = list(manifest.samples)
    samples[0] = replace(samples[0], path=broken)
    samples[1] = replace(samples[1], path=tmp_path / "missing.mp4")
    samples[2] = replace(samples[2], start=100.0)
    results = evaluate(
        model, replace(manifest, samples=tuple(samples)), VIEWS, batch=2, workers=1, device="cpu", out=tmp_path / "out"
    )
    assert len(results.records) == 8
    assert [record.index for record in results.records] == list(range(3, 11))
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (stored["evaluated"], stored["samples"]) == (8, 11)
    reasons = {fault["id"]: fault["reason"] for fault in stored["faults"]}
    assert set(reasons) == {samples[index].id for index in range(3)}
    assert "broken.mp4" in reasons[samples[0].id]
    assert "no frame between 100.0 s" in reasons[samples[2].id]
    assert "8 of 11 evaluated" in str(results)


def test_protocol_is_named_in_words_and_numbers(model, data, tmp_path):
    views = replace(VIEWS, crops=3, memory_over="all", combine="softmax_mean")
    settings = config.Data(split="test", limit=4)
    for name in ("one", "two"):
        evaluate(model, read_manifest(data), views, data=settings, workers=0, device="cpu", out=tmp_path / name)
    stored = json.loads((tmp_path / "one" / "results.json").read_text())["protocol"]
    for words in (
        "4 videos, 2 classes",
        "3 clips",
        "4 frames at stride 2",
        "3 crops",
        "32 x 32 pixels",
        "one memory holds",
    ):
        assert words in stored["text"]
    assert "softmax outputs, averaged" in stored["text"]
    assert (stored["samples"], stored["split"], stored["views"]["memory_over"]) == (4, "test", "all")
    assert stored["memory"]["interaction"] == "assoc"
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_classes_are_matched_by_name(model, data):
    manifest = read_manifest(data)
    swapped = replace(
        manifest,
        classes={"label": ("right", "left")},
        samples=tuple(replace(s, labels={"label": 1 - s.labels["label"]}) for s in manifest.samples),
    )
    assert evaluate(model, swapped, VIEWS, workers=0, device="cpu").confusion_KK == (
        evaluate(model, manifest, VIEWS, workers=0, device="cpu").confusion_KK
    )
    with pytest.raises(DataError, match="1 class in column 'label' .* know: 'up', expected among the model's 2"):
        evaluate(model, replace(manifest, classes={"label": ("left", "up")}), VIEWS, workers=0)
    with pytest.raises(DataError, match="no label column 'verb'"):
        evaluate(model, manifest, VIEWS, data=config.Data(labels=("verb",)), workers=0)
    with pytest.raises(DataError, match="0 labels in column 'label', expected exactly one"):
        evaluate(model, replace(manifest, samples=(replace(manifest.samples[0], labels={}),)), VIEWS, workers=0)
    with pytest.raises(DataError, match="no samples to evaluate"):
        evaluate(model, replace(manifest, samples=()), VIEWS, workers=0)
    with pytest.raises(ConfigError, match="draws its clips"):
        evaluate(model, manifest, replace(VIEWS, clips=config.Clips()), workers=0)


@pytest.mark.parametrize(
    "views", [VIEWS, replace(VIEWS, clips=replace(VIEWS.clips, plan="contiguous", frame_rate=5.0))]
)
def test_kept_frames_give_the_same_result(model, data, tmp_path, views):
    manifest, settings = read_manifest(data), config.Data(split=None, cache=True)
    decoded = evaluate(model, manifest, views, data=settings, workers=0, device="cpu")
    for _ in ("filling", "reading"):
        kept = evaluate(model, manifest, views, data=settings, workers=0, device="cpu", cache_dir=tmp_path)
        assert kept == decoded
    assert len(list(tmp_path.glob("*.npy"))) == 11


def test_a_model_in_training_keeps_its_modes(model, data):
    loaded = load_package(model)
    loaded.model.train()
    frozen = next(iter(loaded.model.clip_model.stages.values())).eval()
    evaluate(loaded, read_manifest(data), VIEWS, data=config.Data(limit=2), workers=0, device="cpu")
    assert loaded.model.training
    assert not frozen.training


def test_multi_label(data, tmp_path):
    manifest = read_manifest(data)
    several = replace(
        manifest,
        multi_label=True,
        samples=tuple(
            replace(s, labels={"label": (0, 1) if i % 3 == 0 else ()}) for i, s in enumerate(manifest.samples)
        ),
    )
    folder = package(tmp_path, config.Memory(), multi_label=True, aggregate="max")
    results = evaluate(folder, several, replace(VIEWS, combine="sigmoid_max"), workers=0, device="cpu")
    assert set(results.metrics) == {"video_map", "video_map_weighted", "video_hit1"}
    assert [row.videos for row in results.per_class] == [4, 4]


def test_shards_are_disjoint_and_complete():
    for world_size in (1, 2, 3, 13):
        parts = [shard(11, rank, world_size) for rank in range(world_size)]
        assert sorted(index for part in parts for index in part) == list(range(11))
    with pytest.raises(ValueError, match=r"\[0, 2\), got 2"):
        shard(11, 2, 2)


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_give_the_same_files(model, data, tmp_path, world_size):
    alone = evaluate(model, read_manifest(data), VIEWS, workers=0, device="cpu", out=tmp_path / "one")
    # fork: starting fresh interpreters that import torch takes longer than all other tests of this folder together
    arguments = (world_size, _free_port(), str(model), str(data), str(tmp_path))
    mp.start_processes(_worker, arguments, nprocs=world_size, start_method="fork")
    assert len(alone.records) == 11
    for name in ("results.json", "confusion.csv", "per_class.csv"):
        assert (tmp_path / "several" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    lines = [(tmp_path / folder / "predictions.jsonl").read_text().splitlines() for folder in ("one", "several")]
    for ours, theirs in zip(*lines, strict=True):
        one, several = json.loads(ours), json.loads(theirs)
        assert several.pop("scores") == pytest.approx(one.pop("scores"), abs=2e-6)
        assert one == several


def _worker(rank, world_size, port, model, data, out):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        results = evaluate(model, read_manifest(data), VIEWS, batch=3, workers=0, device="cpu", out=f"{out}/several")
        counts = [None] * world_size
        dist.all_gather_object(counts, results.metrics)
        assert len(results.records) == 11
        assert all(one == counts[0] for one in counts)
    finally:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
