"""A file judged by a model of streams: the scores are those of the evaluation on streams."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.evaluation.test_streams import LENGTHS, VIEWS, folder, package  # noqa: F401  (folder is a fixture)
from wholereel.config import Data, Streams
from wholereel.datasets.manifest import read_manifest
from wholereel.errors import ConfigError
from wholereel.evaluation.streams import evaluate_streams
from wholereel.inference.predict_in_order import predict_in_order


@pytest.mark.parametrize("hop", [None, 0.5])
def test_scores_are_those_of_the_evaluation(folder, hop):  # noqa: F811
    given = replace(package(), streams=Streams(hop=hop))
    results = evaluate_streams(given, read_manifest(folder), VIEWS, data=Data(workers=0), batch=2)
    for video in range(2):
        prediction = predict_in_order(given, folder / f"{video}.mp4", device="cpu")
        records = [record for record in results.records if record.id.startswith(f"v{video}#")]
        assert prediction.seconds_N2.tolist() == [[record.begin, record.end] for record in records]
        expected = torch.tensor([record.scores["label"] for record in records])
        torch.testing.assert_close(prediction.clip_scores_NK, expected, rtol=1e-4, atol=1e-5)
        assert prediction.duration == pytest.approx(LENGTHS[video] / 4)
        assert float(prediction.scores_K.sum()) == pytest.approx(1.0, abs=1e-5)


def test_models_that_judge_clips_together_are_refused(folder):  # noqa: F811
    with pytest.raises(ConfigError, match="use Predictor"):
        predict_in_order(replace(package(), streams=None), folder / "0.mp4")
