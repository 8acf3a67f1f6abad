"""Published protocols: the views that they make of a model's own, end to end, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.inference.builders import CLIPS, moving_square, package
from wholereel import config
from wholereel.datasets.manifest import read_manifest
from wholereel.errors import ConfigError
from wholereel.evaluation.evaluate import evaluate
from wholereel.evaluation.protocols import PROTOCOLS, published_views
from wholereel.inference import Predictor

OWN = config.Views(replace(CLIPS, frame_rate=30.0, coverage=True), short_side=256, crop=224)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_views_of_every_protocol(name):
    protocol = PROTOCOLS[name]
    views = published_views(name, OWN, multi_label=protocol.combine == "sigmoid_max")
    assert (views.clips.plan, views.clips.count, views.crops) == (protocol.rule, protocol.clips, protocol.crops)
    assert (views.clips.frames, views.clips.stride, views.clips.frame_rate) == (CLIPS.frames, CLIPS.stride, 30.0)
    assert not views.clips.coverage
    assert views.crop == views.short_side == (256 if protocol.size == "short_side" else 224)
    assert f"{protocol.clips}x{protocol.crops}" in name


def test_what_is_refused():
    with pytest.raises(ConfigError, match="no protocol 'kinetics_10x4'. Did you mean 'kinetics_10x3'"):
        published_views("kinetics_10x4", OWN, multi_label=False)
    with pytest.raises(ConfigError, match="'charades_10x3' is for any number of labels a video; this model gives one"):
        published_views("charades_10x3", OWN, multi_label=False)


@pytest.mark.parametrize("name", ["kinetics_10x3", "kinetics_5x1", "something_1x3"])
def test_end_to_end(name, tmp_path):
    for number, right in enumerate((True, False, True)):
        moving_square(tmp_path / "data" / ("right" if right else "left") / f"{number}.mp4", frames=9 + 20 * number,
                      right=right, seed=number)  # fmt: skip
    model = package(tmp_path / "package", config.Memory())
    own = config.Views(CLIPS, short_side=36, crop=32)
    views = published_views(name, own, multi_label=False)
    manifest = read_manifest(tmp_path / "data")
    results = evaluate(model, manifest, views, batch=2, workers=0, device="cpu")
    assert [record.views for record in results.records] == [PROTOCOLS[name].clips * PROTOCOLS[name].crops] * 3
    where = "middle frames" if name == "something_1x3" else "as in facebookresearch/SlowFast"
    assert where in results.protocol["text"]
    for record, sample in zip(results.records, manifest.samples, strict=True):
        alone = Predictor(model, views=views, device="cpu")(sample.path)
        assert list(record.scores) == pytest.approx(alone.scores_K.tolist(), abs=1e-5)


def test_means_of_logits_and_of_softmax_outputs_are_two_rules(tmp_path):
    path = moving_square(tmp_path / "a.mp4", frames=40, right=True, seed=0)
    model = package(tmp_path / "package", None, aggregate="prob")
    views = config.Views(replace(CLIPS, plan="classic"), short_side=36, crop=32)
    scores = {
        combine: Predictor(model, views=replace(views, combine=combine), device="cpu")(path).scores_K
        for combine in ("task", "softmax_mean", "logits_mean")
    }
    assert torch.equal(scores["task"], scores["softmax_mean"])
    clips_NK = Predictor(model, views=replace(views, combine="logits_mean"), device="cpu")(path).clip_scores_NK
    expected_K = clips_NK.double().log().mean(0).softmax(0)
    torch.testing.assert_close(scores["logits_mean"].double(), expected_K, rtol=1e-5, atol=1e-6)
