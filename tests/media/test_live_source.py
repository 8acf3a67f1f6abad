"""Live sources: a stream that dies and returns, a growing folder, slow readers, sources that never come."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from tests.media import stream_sender
from tests.media.nasty_files import moving
from wholereel.errors import ConfigError, VideoError
from wholereel.media.live_source import LiveSource, is_live
from wholereel.media.video_reader import VideoReader
from wholereel.media.video_writer import write_video


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_stream_that_dies_and_returns():
    port, lines = free_port(), []

    def send_twice():
        for _ in range(2):
            subprocess.run([sys.executable, stream_sender.__file__, str(port), "30"], check=True, timeout=120)

    thread = threading.Thread(target=send_twice)
    thread.start()
    source = LiveSource(f"tcp://127.0.0.1:{port}", chunk=8, policy="block", give_up=60.0, log=lines.append)
    seconds: list[float] = []
    for frames in source:
        seconds += frames.seconds_T.tolist()
        if len(seconds) == 60:
            break
    thread.join()
    assert len(seconds) == 60
    assert source.connections == 2
    assert all(b > a for a, b in itertools.pairwise(seconds))
    np.testing.assert_allclose(np.diff(seconds[:30]), 0.04, atol=1e-3)
    assert seconds[30] - seconds[29] > 0.1  # the time that passed without a stream
    assert any("opened again" in line for line in lines)


def test_a_growing_folder(tmp_path):
    def write(name, seed):
        write_video(tmp_path / name, moving(20, seed=seed), frame_rate=25, gop=10)

    write("a.mp4", 0)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    write("c.mp4", 1)
    late = threading.Timer(1.0, write, ("d.mp4", 2))
    late.start()
    lines = []
    found = list(LiveSource(tmp_path, chunk=8, policy="block", give_up=3.0, log=lines.append))
    late.join()
    expected = [
        VideoReader(tmp_path / name).read(indices=range(20)).pixels_TCHW for name in ("a.mp4", "c.mp4", "d.mp4")
    ]
    assert torch.equal(torch.cat([f.pixels_TCHW for f in found]), torch.cat(expected))
    seconds_T = torch.cat([f.seconds_T for f in found])
    torch.testing.assert_close(seconds_T, torch.arange(60, dtype=torch.float64) / 25, rtol=0, atol=1e-9)
    assert any(line.startswith("left out: ") and "b.mp4" in line for line in lines)


@pytest.mark.parametrize(("policy", "lost"), [("block", False), ("drop", True)])
def test_a_slow_reader(tmp_path, policy, lost):
    write_video(tmp_path / "a.mp4", moving(120), frame_rate=25, gop=10)
    old = time.time() - 10
    os.utime(tmp_path / "a.mp4", (old, old))
    source = LiveSource(tmp_path, chunk=4, policy=policy, room=2, give_up=0.5, log=lambda line: None)
    seen = 0
    for frames in source:
        seen += len(frames)
        time.sleep(0.15 if seen < 16 else 0.0)
    assert seen + source.dropped == 120
    assert (source.dropped > 0) == lost


def test_a_source_that_never_comes_and_settings_that_cannot_be(tmp_path):
    port = free_port()
    with pytest.raises(VideoError, match=rf"tcp://127.0.0.1:{port}: cannot be opened"):
        list(LiveSource(f"tcp://127.0.0.1:{port}", give_up=0.5, log=lambda line: None))
    with pytest.raises(ConfigError, match="policy='wait' is none of 'auto', 'block' and 'drop'"):
        LiveSource("udp://x", policy="wait")
    with pytest.raises(ConfigError, match="give_up and stall positive"):
        LiveSource("udp://x", give_up=0)
    assert is_live("rtsp://camera/1")
    assert is_live("/dev/video0")
    assert is_live(tmp_path)
    assert not is_live(tmp_path / "a.mp4")
