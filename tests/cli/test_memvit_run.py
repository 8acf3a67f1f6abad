"""A model with a memory of its own, from the command line: trained on streams, measured, killed on a file, resumed."""

from __future__ import annotations

import json

import pytest

from wholereel.cli.main import main
from wholereel.inference.stream_track import Engine

RECIPE = """
from dataclasses import replace
from wholereel.config import World
from wholereel.recipes import load_recipe

def tiny(seed=0):
    whole = load_recipe("memvit_cue_probe", seed=seed)
    world = World("cue_probe", sizes={"train": 4, "val": 4, "test": 4}, options={"size": 32, "longest": 1})
    train = whole.stages["learn"]
    options = {"frames": 2, "crop": 32, "width": 8, "remember": [2], "reach": 4}
    data, model = replace(train.data, limit=2), replace(train.model, weights=None, options=options)
    train = replace(train, model=model, data=data, epochs=1, batch=2, val=None)
    return replace(whole, name="tiny", stages={"short": world, "learn": train}, main="learn")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memvit")
    (folder / "tiny_memvit.py").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        assert main(["train", "tiny_memvit:tiny", "--out", str(folder / "run"), "--devices", "cpu"]) == 0
    return folder / "run"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_is_measured_once_a_clip(run, tmp_path):
    words = ["evaluate", str(run), "--data", str(run / "short"), "--out", str(tmp_path), "--device", "cpu"]
    assert main(words) == 0
    clips = lines(tmp_path / "predictions.jsonl")
    assert len(clips) == len({clip["id"] for clip in clips}) == 4 * 40
    assert sum(clip["label"]["labels"] is not None for clip in clips) == 4 * 18


def test_a_stream_of_a_file_says_what_the_test_said_and_goes_on_after_a_kill(run, tmp_path, monkeypatch):
    words = ["evaluate", str(run), "--data", str(run / "short"), "--out", str(tmp_path / "test"), "--device", "cpu"]
    assert main(words) == 0
    judged = lines(tmp_path / "test" / "predictions.jsonl")
    name = judged[0]["id"].partition("#")[0]
    video = str(run / "short" / "videos" / f"{name}.mp4")
    whole, parts, state = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl", tmp_path / "state"
    words = ["stream", str(run), video, "--device", "cpu", "--plain"]
    assert main([*words, "--out", str(whole)]) == 0
    said = [line["top"][0][0] for line in lines(whole)]
    own = sorted((clip for clip in judged if clip["id"].startswith(name)), key=lambda clip: clip["id"])
    assert said == [clip["label"]["predicted"] for clip in own]

    judge_clips, calls = Engine.judge_clips, []

    class Killed(BaseException):
        pass

    def dying(self, tracks, clips):
        calls.append(len(clips))
        if len(calls) == 20:
            raise Killed
        return judge_clips(self, tracks, clips)

    words += ["--out", str(parts), "--state", str(state), "--save-every", "4"]
    monkeypatch.setattr(Engine, "judge_clips", dying)
    with pytest.raises(Killed):
        main(words)
    monkeypatch.setattr(Engine, "judge_clips", judge_clips)
    assert state.exists()
    assert len(lines(parts)) < len(lines(whole))
    assert main(words) == 0
    assert parts.read_text() == whole.read_text()
