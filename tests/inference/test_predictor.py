"""A package and a file in, a prediction out: preprocessing, chunks, plans, what users see, and errors."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from tests.datasets.broken_files import truncated_video
from tests.inference.builders import CLIPS, moving_square, package
from wholereel import config
from wholereel.errors import CheckpointError, ConfigError, VideoError
from wholereel.inference import Predictor, VideoPrediction
from wholereel.inference.predictor import best_precision, find_package
from wholereel.media.augment import test_crops as crops_of
from wholereel.media.clip_plans import plan_clips
from wholereel.media.clip_reading import read_clips
from wholereel.media.model_input import to_model_input
from wholereel.media.video_reader import VideoReader
from wholereel.models import VideoModel, create_model
from wholereel.models.package import load_package, save_package

NORMS = (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return moving_square(tmp_path_factory.mktemp("video") / "square.mp4", frames=37, right=True, seed=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    package(folder / "with_memory" / "best", config.Memory())
    return folder


def test_a_rule_for_several_labels_is_refused_for_one(run, video):
    predictor = Predictor(run, device="cpu")
    predictor.views = replace(predictor.views, combine="sigmoid_max")
    with pytest.raises(ConfigError, match="'sigmoid_max' does not fit a model with task.multi_label=False"):
        predictor(video)


def test_prediction_is_the_models_own_answer_to_its_own_preprocessing(run, video):
    predictor = Predictor(run, device="cpu")
    prediction = predictor(video)
    with VideoReader(video, size=36) as reader:
        times = plan_clips(reader.frame_count, 10.0, config.Clips(plan="uniform", count=3, frames=4, stride=2))
        pixels = crops_of(read_clips(reader, times).clips_NTCHW, 36, 32, 1)
    with torch.no_grad():
        clips = to_model_input(pixels[None], mean=predictor.package.mean, std=predictor.package.std)
        logits_BNK, _ = predictor.model(clips)
    torch.testing.assert_close(prediction.scores_K, logits_BNK.mean(1)[0].softmax(0))
    torch.testing.assert_close(prediction.clip_scores_NK, logits_BNK[0].softmax(1))
    assert prediction.seconds_N2.flatten().tolist() == pytest.approx([0.0, 0.8, 1.4, 2.2, 2.9, 3.7])
    assert prediction.duration == pytest.approx(3.7)
    assert prediction.model == "tiny2d + memory"


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("memory_over", ["crop", "all"])
def test_chunk_size_does_not_matter(run, video, crops, memory_over):
    views = config.Views(
        config.Clips("contiguous", 100, 4, 2), short_side=36, crop=32, crops=crops, memory_over=memory_over
    )
    one, many = (Predictor(run, device="cpu", views=views, chunk=chunk)(video) for chunk in (1, 100))
    assert len(one.seconds_N2) == 5  # 37 frames in clips of 8
    torch.testing.assert_close(one.scores_K, many.scores_K, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.clip_scores_NK, many.clip_scores_NK, rtol=1e-5, atol=1e-6)


def test_other_clips_and_a_part_of_the_video(run, video):
    predictor = Predictor(run, device="cpu", clips=config.Clips("contiguous", 100, 4, 1, frame_rate=5.0))
    prediction = predictor(video, start=1.0, end=3.0)
    assert prediction.seconds_N2[0, 0] == 1.0
    assert prediction.seconds_N2[-1, 1] == pytest.approx(3.0)
    assert prediction.duration == pytest.approx(2.0)


@pytest.mark.parametrize("aggregate", ["prob", "max"])
def test_multi_label_scores_do_not_sum_to_one(tmp_path, video, aggregate):
    predictor = Predictor(package(tmp_path, None, multi_label=True, aggregate=aggregate), device="cpu")
    prediction = predictor(video)
    expected = prediction.clip_scores_NK.mean(0) if aggregate == "prob" else prediction.clip_scores_NK.amax(0)
    torch.testing.assert_close(prediction.scores_K, expected)
    assert prediction.to_dict()["label"] is None


def test_bfloat16_is_close(run, video):
    exact, rounded = (Predictor(run, device="cpu", precision=p)(video).scores_K for p in ("fp32", "bf16"))
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0)
    with pytest.raises(ConfigError, match="precision='fp8' is neither"):
        Predictor(run, device="cpu", precision="fp8")(video)


def test_folded_norms_change_rounding_alone_and_the_measured_precision_is_taken(run, tmp_path, video):
    torch.manual_seed(0)
    spec = config.Model("tiny2d", options={"norm": "batch"}, memory=config.Memory())
    model = VideoModel(create_model("tiny2d", num_classes=2, norm="batch"), spec.memory)
    for module in model.modules():
        if isinstance(module, NORMS):
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    reads = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "short_side": 36, "crop": 32, "clips": CLIPS}
    task = config.Task()
    folder = save_package(tmp_path, model, spec=spec, num_classes=2, classes=("a", "b"), task=task, input=reads)
    given = load_package(folder)
    plain, folded = (Predictor(given, device="cpu", fold=fold) for fold in (False, True))
    assert plain.model is given.model
    assert any(isinstance(module, NORMS) for module in given.model.modules())
    assert not any(isinstance(module, NORMS) for module in folded.model.modules())
    torch.testing.assert_close(folded(video).scores_K, plain(video).scores_K, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="Tiny has no BatchNorm that could be folded"):
        Predictor(run, device="cpu", fold=True)
    assert Predictor(run, device="cpu", precision="auto").precision == best_precision(torch.device("cpu"))
    assert best_precision(torch.device("meta")) == "fp32"


def test_what_users_see(run, video):
    prediction = Predictor(run, device="cpu")(video)
    data = json.loads(prediction.to_json())
    assert data["label"] == prediction.label == prediction.top(1)[0][0]
    assert sum(data["scores"]) == pytest.approx(1.0, abs=1e-5)
    assert [clip["begin"] for clip in data["clips"]] == [0.0, 1.4, 2.9]
    first, second, *_ = str(prediction).splitlines()
    assert first.endswith("square.mp4 (3.7 s, 3 clips)")
    assert second.split()[0] == prediction.label
    assert prediction.top(99) == prediction.top(2)
    with pytest.raises(ValueError, match="count >= 1, got 0"):
        prediction.top(0)


def test_a_file_that_is_cut_off_is_said_to_be(run, video, tmp_path):
    truncated_video(tmp_path / "cut.avi")
    prediction = Predictor(run, device="cpu")(tmp_path / "cut.avi")
    assert prediction.truncated
    assert prediction.to_dict()["truncated"] is True
    assert str(prediction).splitlines()[1].strip().startswith("The file is cut off: ")
    whole = Predictor(run, device="cpu")(video)
    assert not whole.truncated
    assert whole.to_dict()["truncated"] is False
    assert "cut off" not in str(whole)


def test_top_keeps_the_order_of_equal_classes():
    zeros = torch.zeros(0, 2, dtype=torch.float64)
    prediction = VideoPrediction("x", 1.0, ("a", "b", "c"), torch.tensor([0.25, 0.5, 0.25]), zeros, torch.zeros(0, 3))
    assert [name for name, _ in prediction.top(3)] == ["b", "a", "c"]
    with pytest.raises(ValueError, match=r"2 classes and 0 clips got scores \(3,\)"):
        VideoPrediction("x", 1.0, ("a", "b"), torch.zeros(3), zeros, torch.zeros(0, 2))


def test_package_is_found_in_a_run(run, tmp_path):
    best = run / "with_memory" / "best"
    assert find_package(best) == find_package(best.parent) == find_package(run) == best
    for name in ("one", "two"):
        shutil.copytree(best, tmp_path / name / "best")
    with pytest.raises(CheckpointError, match=r"2 model packages here \(.*one.best, .*two.best\), expected one"):
        Predictor(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        Predictor(tmp_path / "three")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no model package here"):
        Predictor(tmp_path / "empty")


def test_a_stage_without_a_best_package_counts_with_its_last(run, tmp_path):
    best = run / "with_memory" / "best"
    shutil.copytree(best, tmp_path / "one" / "last")
    assert find_package(tmp_path) == find_package(tmp_path / "one") == tmp_path / "one" / "last"
    shutil.copytree(best, tmp_path / "one" / "best")
    assert find_package(tmp_path) == tmp_path / "one" / "best"
    shutil.copytree(best, tmp_path / "two" / "last")
    with pytest.raises(CheckpointError, match=r"2 model packages here \(.*one.best, .*two.last\)"):
        find_package(tmp_path)


def test_errors_name_the_file_or_the_setting(run, tmp_path, video):
    predictor = Predictor(run, device="cpu")
    broken = tmp_path / "broken.mp4"
    broken.write_text("this is no video")
    for path in (broken, tmp_path / "missing.mp4"):
        with pytest.raises(VideoError, match=path.name):
            predictor(path)
    with pytest.raises(VideoError, match=r"square.mp4: no frame between 9.0 s"):
        predictor(video, start=9.0)
    with pytest.raises(ConfigError, match="'stratified' draws its clips"):
        Predictor(run, views=config.Views(clips=CLIPS))
    with pytest.raises(ConfigError, match=r"clips\.count must be at least 1, got 0"):  # no fault of the video
        Predictor(run, views=config.Views(config.Clips("uniform", count=0)))
    with pytest.raises(ConfigError, match="crop=140 must be positive and at most"):
        Predictor(run, views=config.Views(short_side=128, crop=140))
    with pytest.raises(ConfigError, match="not both"):
        Predictor(run, clips=CLIPS, views=config.Views())
    with pytest.raises(ConfigError, match="chunk must be at least 1"):
        Predictor(run, chunk=0)
