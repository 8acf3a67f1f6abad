"""Shards of features, logits and scores: equal to what the model says itself, whatever the division; and resumable."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from tests.inference.builders import CLIPS, moving_square, package
from wholereel import config
from wholereel.cli.main import main
from wholereel.config import Clips, Data, Extract, Views
from wholereel.datasets.feature_shards import FeatureShards, shard_file
from wholereel.datasets.manifest import read_manifest
from wholereel.errors import ConfigError, DataError
from wholereel.inference import Predictor
from wholereel.inference import extract as module
from wholereel.inference.extract import extract
from wholereel.inference.views import VideoViews
from wholereel.media.model_input import to_model_input

VIEWS = Views(clips=dataclasses.replace(CLIPS, plan="contiguous", count=1000), short_side=36, crop=32)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for index, frames in enumerate((37, 9, 24, 50, 16)):
        folder = root / ("left", "right")[index % 2]
        folder.mkdir(exist_ok=True)
        moving_square(folder / f"v{index}.mp4", frames=frames, right=bool(index % 2), seed=index)
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    package(folder / "best", None)
    return folder


def settings(**changed) -> Extract:
    return dataclasses.replace(Extract("", Data(split=None), VIEWS, chunk=3), **changed)


def test_features_and_scores_are_the_models_own(videos, plain, tmp_path):
    manifest = read_manifest(videos)
    done = extract(settings(what=("features", "logits", "scores")), manifest, tmp_path, package=plain, device="cpu")
    assert (done.made, done.kept, done.videos, done.faults) == ((0,), (), 5, 0)
    shards = FeatureShards(tmp_path)
    assert sorted(shards) == sorted(sample.id for sample in manifest.samples)
    predictor = Predictor(plain, device="cpu", views=VIEWS)
    for sample in manifest.samples:
        found = shards[sample.id]
        with VideoViews(sample.path, VIEWS) as video, torch.no_grad():
            clips = to_model_input(video.read()[None], mean=predictor.package.mean, std=predictor.package.std)[0]
            assert torch.equal(found.seconds_M2, video.seconds_N2)
            model = predictor.model.clip_model
            features = model.forward_head(model.forward_features(clips), pre_logits=True)
        torch.testing.assert_close(found.clips["features"], features)
        torch.testing.assert_close(found.clips["logits"], model.fc(features))
        torch.testing.assert_close(found.video["scores"], predictor(sample.path).scores_K)
        part = shards.read(sample.id, slice(1, 3))
        assert torch.equal(part.clips["features"], found.clips["features"][1:3])
        assert torch.equal(shards.seconds(sample.id), found.seconds_M2)


def test_any_division_holds_the_same(videos, plain, tmp_path):
    manifest = read_manifest(videos)
    for shards in (1, 2, 7):  # with seven, two are empty
        for number in reversed(range(shards)):
            extract(settings(shards=shards), manifest, tmp_path / str(shards), package=plain, only=[number])
    one, *others = (FeatureShards(tmp_path / str(shards)) for shards in (1, 2, 7))
    for other in others:
        assert set(other) == set(one)
        assert all(torch.equal(other[id_].clips["features"], one[id_].clips["features"]) for id_ in one)


def test_what_is_there_is_kept_and_what_broke_off_is_made(videos, plain, tmp_path, monkeypatch):
    manifest = read_manifest(videos)
    untouched, calls = module._video, []

    def breaks_off(sample, *rest):
        calls.append(sample.id)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return untouched(sample, *rest)

    monkeypatch.setattr(module, "_video", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        extract(settings(shards=2), manifest, tmp_path, package=plain)
    assert [file.name for file in tmp_path.iterdir()] == ["features-00000-of-00002.safetensors"]
    with pytest.raises(DataError, match=r"lacks 1 of 2 shards: 1. Run the extraction again; --shard 1/2 makes one"):
        FeatureShards(tmp_path)
    done = extract(settings(shards=2), manifest, tmp_path, package=plain)
    assert (done.made, done.kept) == ((1,), (0,))
    assert extract(settings(shards=2), manifest, tmp_path, package=plain).made == ()
    assert len(FeatureShards(tmp_path)) == 5
    with pytest.raises(ConfigError, match=r"was made with other settings \(views\). Choose another folder"):
        extract(settings(shards=2, views=dataclasses.replace(VIEWS, crop=28)), manifest, tmp_path, package=plain)


def test_a_file_that_cannot_be_read_is_listed(videos, plain, tmp_path):
    root = shutil.copytree(videos, tmp_path / "videos")
    (root / "left" / "broken.mp4").write_bytes(b"no video")
    done = extract(settings(), read_manifest(root), tmp_path / "out", package=plain)
    assert (done.videos, done.faults) == (5, 1)
    shards = FeatureShards(tmp_path / "out")
    (fault,) = shards.faults
    assert fault["path"].endswith("broken.mp4")
    with pytest.raises(DataError, match="could not be read"):
        shards[fault["id"]]
    with pytest.raises(DataError, match="has nothing on sample 'unknown'"):
        shards["unknown"]


def test_a_clip_each_half_second(videos, plain, tmp_path):
    clips = Clips("contiguous", 1000, frames=4, stride=2, hop=0.5)
    extract(settings(views=dataclasses.replace(VIEWS, clips=clips)), read_manifest(videos), tmp_path, package=plain)
    shards = FeatureShards(tmp_path)
    (longest,) = [id_ for id_ in shards if "v3" in id_]
    begins = shards.seconds(longest)[:, 0].tolist()
    assert begins == pytest.approx([0.5 * n for n in range(9)] + [4.2])


def test_settings_that_cannot_be(videos, plain, tmp_path):
    manifest = read_manifest(videos)
    package(tmp_path / "memory" / "best", config.Memory())
    for changed, message in [
        ({"what": ("feature",)}, r"what must be some of features, logits, scores, each once; got \['feature'\]"),
        ({"what": ()}, "each once; got"),
        ({"views": dataclasses.replace(VIEWS, crops=3)}, "views.crops=3, use 1"),
        ({"shards": 0}, "shards and chunk must be at least 1, got 0 and 3"),
    ]:
        with pytest.raises(ConfigError, match=message):
            extract(settings(**changed), manifest, tmp_path / "out", package=plain)
    with pytest.raises(ConfigError, match=r"numbered from 0 to 1, got \[2\]"):
        extract(settings(shards=2), manifest, tmp_path / "out", package=plain, only=[2])
    with pytest.raises(ConfigError, match="there are no features of a clip"):
        extract(settings(), manifest, tmp_path / "out", package=tmp_path / "memory")
    done = extract(settings(what=("logits",)), manifest, tmp_path / "out", package=tmp_path / "memory")
    assert done.videos == 5
    twice = dataclasses.replace(manifest, samples=(*manifest.samples, manifest.samples[0]))
    with pytest.raises(DataError, match="occurs twice"):
        extract(settings(), twice, tmp_path / "twice", package=plain)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no shards"):
        FeatureShards(tmp_path / "none")


def test_command(videos, plain, tmp_path, capsys):
    words = ["extract", str(plain), "--data", str(videos), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*words, "--shard", "1/2"]) == 0
    assert "3 videos" in capsys.readouterr().out
    assert shard_file(tmp_path / "out", 0, 2).is_file()
    assert main([*words, "--shards", "2", "--what", "features"]) == 0
    assert "in 1 shards, 1 shards were there" in capsys.readouterr().out
    assert len(FeatureShards(tmp_path / "out")) == 5
    for wrong in ("0/2", "3/2", "2"):
        assert main([*words, "--shard", wrong]) == 2
        assert f"--shard {wrong}: expected I/N with I from 1 to N" in capsys.readouterr().err
