"""`wholereel stream`: lines of a file, going on after a kill, and a folder as a live source."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.cli import killed_stream
from tests.inference.builders import CLIPS, moving_square, package
from tests.media import stream_sender
from wholereel import config
from wholereel.cli.main import main
from wholereel.inference import Predictor
from wholereel.inference.stream import MODES
from wholereel.inference.stream_track import Engine


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    package(folder, config.Memory(dim=8))
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return moving_square(tmp_path_factory.mktemp("video") / "square.mp4", frames=90, right=True, seed=1)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_late_read_ends_with_the_offline_answer(run, video, tmp_path, capsys):
    out = tmp_path / "clips.jsonl"
    assert main(["stream", str(run), str(video), "--mode", "late_read", "--out", str(out), "--device", "cpu"]) == 0
    clips = config.Clips(plan="contiguous", count=1000, frames=CLIPS.frames, stride=CLIPS.stride)
    offline = Predictor(run, clips=clips, device="cpu")(video)
    found = lines(out)
    final = [line for line in found if line["final"]]
    assert len(final) == len(offline.seconds_N2)
    assert len(found) == 2 * len(final) - 1  # what is left at the end is a clip only then
    assert final[-1]["video_top"][0][0] == offline.label
    assert final[-1]["video_top"][0][1] == pytest.approx(float(offline.scores_K.max()), abs=1e-5)
    assert "so far" in capsys.readouterr().out


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_that_fell_over_goes_on_and_ends_the_same(run, video, tmp_path, monkeypatch, mode):
    whole, parts, state = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl", tmp_path / "state"
    words = ["stream", str(run), str(video), "--mode", mode, "--device", "cpu"]
    assert main([*words, "--out", str(whole)]) == 0
    words += ["--out", str(parts), "--state", str(state), "--save-every", "3"]
    judge_clips, calls = Engine.judge_clips, []

    class Killed(BaseException):
        pass

    def dying(self, tracks, clips):
        calls.append(len(clips))
        if len(calls) == 8:
            raise Killed
        return judge_clips(self, tracks, clips)

    monkeypatch.setattr(Engine, "judge_clips", dying)
    with pytest.raises(Killed):
        main(words)
    monkeypatch.setattr(Engine, "judge_clips", judge_clips)
    assert len(lines(parts)) < len(lines(whole))
    assert main(words) == 0
    assert parts.read_text() == whole.read_text()
    assert main(words) == 0  # there is nothing left to do
    assert parts.read_text() == whole.read_text()


@pytest.mark.parametrize("mode", ["late_read"])
def test_a_killed_stream_goes_on_and_ends_the_same(run, video, tmp_path, mode):
    """Killed as hard as it gets, in a process of its own."""
    whole, parts, state = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl", tmp_path / "state"
    words = ["stream", str(run), str(video), "--mode", mode, "--device", "cpu"]
    assert main([*words, "--out", str(whole)]) == 0
    words += ["--out", str(parts), "--state", str(state), "--save-every", "3"]
    killed = subprocess.run([sys.executable, killed_stream.__file__, "8", *words], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert state.exists()
    assert len(lines(parts)) < len(lines(whole))
    assert main(words) == 0
    assert parts.read_text() == whole.read_text()


def test_a_stream_that_is_asked_to_stop_keeps_everything(run, video, tmp_path, monkeypatch, capsys):
    whole, parts, state = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl", tmp_path / "state"
    words = ["stream", str(run), str(video), "--device", "cpu", "--plain"]
    assert main([*words, "--out", str(whole)]) == 0
    judge_clips, calls = Engine.judge_clips, []

    def asked(self, tracks, clips):
        calls.append(len(clips))
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return judge_clips(self, tracks, clips)

    monkeypatch.setattr(Engine, "judge_clips", asked)
    before = signal.getsignal(signal.SIGTERM)
    assert main([*words, "--out", str(parts), "--state", str(state)]) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert "stopped; the same command goes on, from" in capsys.readouterr().err
    assert len(lines(parts)) == 5
    assert main([*words, "--out", str(parts), "--state", str(state)]) == 0
    assert parts.read_text() == whole.read_text()


def test_parts_in_processes_of_their_own_and_their_merge(run, video, tmp_path):
    whole, merged = tmp_path / "whole.jsonl", tmp_path / "merged.jsonl"
    words = ["stream", str(run), str(video), "--mode", "two_sweep", "--device", "cpu"]
    assert main([*words, "--out", str(whole)]) == 0
    for part in ("1/2", "2/2"):
        assert main([*words, "--part", part, "--state", str(tmp_path / part[0])]) == 0
    assert main([*words, "--merge", str(tmp_path / "2"), str(tmp_path / "1"), "--out", str(merged)]) == 0
    assert [line["clip"] for line in lines(merged)] == [line["clip"] for line in lines(whole)]
    for ours, theirs in zip(lines(merged), lines(whole), strict=True):
        assert ours["final"] == theirs["final"] == True  # noqa: E712
        assert [score for _, score in ours["top"]] == pytest.approx([s for _, s in theirs["top"]], abs=2e-6)


def test_a_source_that_dies_and_returns_then_the_command_that_does(run, tmp_path, capsys):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out, state = tmp_path / "clips.jsonl", tmp_path / "state"
    words = ["stream", str(run), f"tcp://someone:s3cret@127.0.0.1:{port}", "--device", "cpu", "--give-up", "6"]
    words += ["--out", str(out), "--state", str(state), "--longest-gap", "0.5"]

    def send(times):
        for _ in range(times):
            subprocess.run([sys.executable, stream_sender.__file__, str(port), "30"], check=True, timeout=120)

    for times in (2, 1):
        thread = threading.Thread(target=send, args=(times,))
        thread.start()
        time.sleep(0.5)
        assert main(words) == 0
        thread.join()
    said = capsys.readouterr()
    assert "opened again in" in said.err
    assert "going on after" in said.err
    assert "s3cret" not in said.err + said.out + out.read_text() + str(state.read_bytes())
    found = lines(out)
    assert [line["clip"] for line in found] == list(range(len(found)))
    assert all(a["end"] <= b["end"] for a, b in itertools.pairwise(found))
    assert all(line["end"] - line["begin"] < 0.5 for line in found)  # no clip from both sides of a gap
    assert len(found) == 3 * 4  # three times 30 frames: three clips of 8, and one that ends with the last


def test_a_folder_that_is_written_to(run, video, tmp_path, capsys):
    folder = tmp_path / "camera"
    folder.mkdir()
    for name in ("1.mp4", "2.mp4"):
        (folder / name).write_bytes(video.read_bytes())
        os.utime(folder / name, (time.time() - 10,) * 2)
    out = tmp_path / "clips.jsonl"
    assert main(["stream", str(run), str(folder), "--policy", "block", "--give-up", "0.5", "--out", str(out)]) == 0
    found = lines(out)
    assert found[-1]["end"] == pytest.approx(18.0, abs=0.1)
    assert all(line["final"] for line in found)
    assert "given up" in capsys.readouterr().err


def test_several_sources_in_one_batch_stopped_and_resumed(run, video, tmp_path, monkeypatch, capsys):
    other = moving_square(tmp_path / "other.mp4", frames=33, right=False, seed=2)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    sources = [str(video), str(tmp_path / "broken.mp4"), str(other), str(video)]
    words = ["stream", str(run), *sources, "--device", "cpu", "--rows", "2", "--save-every", "1"]
    whole, parts, state = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl", tmp_path / "state"
    assert main([*words, "--out", str(whole)]) == 0
    said = capsys.readouterr()
    assert "left out: " in said.err
    assert said.out.splitlines()[0].startswith(str(video))
    alone = tmp_path / "alone.jsonl"
    assert main(["stream", str(run), str(other), "--device", "cpu", "--out", str(alone)]) == 0
    ours = [line for line in lines(whole) if line["number"] == 2]
    for line, expected in zip(ours, lines(alone), strict=True):
        assert line.pop("source") == str(other)
        assert line.pop("number") == 2
        assert (line["clip"], line["begin"], line["end"]) == (expected["clip"], expected["begin"], expected["end"])
        assert line["top"][0][1] == pytest.approx(expected["top"][0][1], abs=2e-6)
    judge_clips, calls = Engine.judge_clips, []

    class Killed(BaseException):
        pass

    def dying(self, tracks, clips):
        calls.append(len(clips))
        if len(calls) == 9:
            raise Killed
        return judge_clips(self, tracks, clips)

    monkeypatch.setattr(Engine, "judge_clips", dying)
    with pytest.raises(Killed):
        main([*words, "--out", str(parts), "--state", str(state)])
    monkeypatch.setattr(Engine, "judge_clips", judge_clips)
    assert main([*words, "--out", str(parts), "--state", str(state)]) == 0
    assert sorted(parts.read_text().splitlines()) == sorted(whole.read_text().splitlines())
    assert main([*words, "--part", "1/2", "--state", str(state)]) == 2
    assert main(["stream", str(run), str(other), "--part", "1/2"]) == 2
    assert "--part needs --state FILE" in capsys.readouterr().err
    assert main(["stream", str(run)]) == 2
    assert "name at least one SOURCE" in capsys.readouterr().err


def test_wrong_settings(run, video, capsys):
    assert main(["stream", str(run), str(video), "--save-every", "0"]) == 2
    assert "must be at least 1" in capsys.readouterr().err
    assert main(["stream", str(run), str(video), "--window", "3"]) == 2
    assert "--window is a setting of --mode window, the mode here is causal" in capsys.readouterr().err
    assert main(["stream", str(run), str(video), "--mode", "window", "--decay", "0.5"]) == 2
    assert "--decay is a setting of --mode ema, the mode here is window" in capsys.readouterr().err
