"""The live view: what its lines say, at any width, and how they are drawn over each other."""

from __future__ import annotations

import io
import re
import time

import pytest
import torch

from tests.inference.builders import moving_square, package
from wholereel import config
from wholereel.cli.main import main
from wholereel.cli.stream_lines import ESCAPE, Row, Status, block, table
from wholereel.cli.stream_view import LiveView, One, memory_megabytes
from wholereel.inference.stream import ClipScore

CLIP = ClipScore(
    7, 3671.3, 3673.4, torch.tensor([0.7, 0.05, 0.25]), torch.tensor([0.1, 0.2, 0.7]), ("run", "jump", "sit"), True
)
VERBS = ClipScore(
    0,
    0.0,
    1.0,
    torch.tensor([0.9, 0.1, 0.3, 0.7]),
    torch.tensor([0.9, 0.1, 0.3, 0.7]),
    ("open", "close", "door", "box"),
    False,
    spaces={"verb": ("open", "close"), "noun": ("door", "box")},
)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True

    def screen(self):
        """What is seen at the end: the cursor goes up and clears, nothing else is used."""
        lines = [""]
        for piece in re.split(r"(\x1b\[\d+F\x1b\[J|\n)", self.getvalue()):
            if piece == "\n":
                lines.append("")
            elif piece.endswith("\x1b[J"):
                up = int(piece[2 : piece.index("F")])
                lines = [*lines[: len(lines) - 1 - up], ""]
            else:
                lines[-1] += ESCAPE.sub("", piece)
        return lines


def live_status(**changes):
    status = Status("runs/mine", "rtsp://***@camera/1", "causal", connections=2, lag=0.42, dropped=24, clips=8)
    for name, value in changes.items():
        setattr(status, name, value)
    return status


def plain(lines):
    return [ESCAPE.sub("", line) for line in lines]


def test_the_lines_say_what_is_known():
    lines = plain(block(live_status(position=3674.0, memory=812.4, rate=4.06), CLIP, 2, 90))
    assert lines[0] == "runs/mine  causal  rtsp://***@camera/1"
    assert lines[1] == "live   at 1:01:14.0   connections 2"
    assert lines[3] == "clip 7   1:01:11.3 to 1:01:13.4"
    assert lines[4].split() == ["run", "█" * 28 + "░" * 12, "0.700"]
    assert lines[5].split() == ["sit", "█" * 10 + "░" * 30, "0.250"]
    assert lines[6] == "video so far"
    assert lines[7].split()[0] == "sit"
    assert lines[-1] == "lag 0.4 s   dropped 24   8 clips   4.1 clips/s   memory 812 MB"
    assert plain(block(live_status(silent=7.2), CLIP, 2, 90))[1].startswith("silent for 7 s   at")


def test_a_file_has_a_bar_and_sweeps_are_named():
    status = Status("run", "a.mp4", "two_sweep", position=900.0, duration=3600.0, sweep=1, sweeps=2, speed=40.04)
    lines = plain(block(status, None, 2, 80))
    assert lines[1].endswith("  0:15:00.0 of 1:00:00.0  25%   sweep 1 of 2")
    assert lines[1].startswith("█" * 8)
    assert lines[3] == "filling the memory; the last sweep judges"
    assert "40.0x real time" in lines[-1]


def test_label_spaces_and_clips_that_may_change():
    lines = plain(block(live_status(), VERBS, 1, 80))
    assert lines[3].endswith("may change")
    assert [line.split()[:2] for line in lines[4:6]] == [["verb:", "open"], ["noun:", "box"]]


@pytest.mark.parametrize("width", [20, 37, 60, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(width, unicode):
    for clip in (None, CLIP, VERBS):
        for status in (live_status(), Status("r" * 90, "a.mp4", "causal", duration=5.0)):
            lines = plain(block(status, clip, 3, width, unicode=unicode))
            assert max(map(len, lines)) <= width
            assert unicode or all(line.isascii() for line in lines)


def test_many_sources_have_a_line_each():
    rows = [
        Row("a.mp4", "ended", CLIP),
        Row("rtsp://***@camera/1", "reading", CLIP, lag=0.31, dropped=16),
        Row("broken.mp4", "failed"),
        *(Row(f"{number}.mp4") for number in range(30)),
    ]
    lines = plain(table(Status("run", "33 sources", "causal", clips=20, rate=2.0), rows, 110, 60))
    assert lines[0] == "run  causal  33 sources   1 reading   1 failed   30 waiting   1 ended"
    assert len(lines) == 33 + 4
    assert lines[2].split()[:3] == ["a.mp4", "ended", "1:01:13.4"]
    assert lines[3].endswith("0.70  run  lag 0.3 s  dropped 16")
    assert lines[4].split() == ["broken.mp4", "failed"]
    small = plain(table(Status("run", "33 sources", "causal"), rows, 40, 12))
    assert len(small) <= 12
    assert max(map(len, small)) <= 40
    assert small[2].lstrip().startswith("…")  # the end of a long name says more; what is read comes first
    assert [line.split()[-1] for line in small[4:9]] == ["waiting"] * 5


def test_the_block_is_drawn_over_itself_and_logs_stay_above():
    out, seen = Terminal(), []
    view = LiveView(One(live_status(), seen.append, 2), out)
    view.show(CLIP)
    view.log("camera: opened again in 0.2 s")
    view.log("camera: open")
    time.sleep(0.3)
    view.close()
    lines = out.screen()
    assert lines[:2] == ["camera: opened again in 0.2 s", "camera: open"]
    assert sum(line.startswith("runs/mine") for line in lines) == 1
    assert len(seen) >= 3
    assert out.getvalue().startswith("\x1b[?25l")  # no cursor
    assert out.getvalue().endswith("\x1b[?25h")


def test_the_command_shows_it_in_a_terminal_and_lines_elsewhere(tmp_path, monkeypatch):
    folder, video = tmp_path / "run", moving_square(tmp_path / "a.mp4", frames=40, right=True, seed=1)
    package(folder, config.Memory(dim=8))
    words = ["stream", str(folder), str(video), "--device", "cpu", "--top", "1"]
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert main(words) == 0
    lines = [line for line in terminal.screen() if line]
    assert lines[0] == f"{folder}  causal  {video}"[:79]
    assert "0:00:03.9 of 0:00:04.0" in lines[1]
    assert lines[2].startswith("clip 4   0:00:03.2 to 0:00:04.0")
    assert "5 clips" in lines[-1]
    pipe = Terminal()
    monkeypatch.setattr("sys.stdout", pipe)
    assert main([*words, "--plain"]) == 0
    assert "\x1b" not in pipe.getvalue()
    assert len(pipe.getvalue().splitlines()) == 5


def test_memory_is_that_of_this_process():
    assert 10 < memory_megabytes() < 100_000
