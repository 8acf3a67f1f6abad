"""Real loopback streams: HTTP with and without an end, HLS, UDP, RTSP; what breaks off, is silent, or is secret."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time

import av
import av.error
import numpy as np
import pytest
import torch

from tests.media import stream_servers
from tests.media.nasty_files import moving
from tests.media.stream_servers import RATE, Camera, Web, free_port, free_udp_port, send, sending
from wholereel.errors import VideoError
from wholereel.media.frame_queue import PushedFrames
from wholereel.media.frames import Frames
from wholereel.media.live_source import LiveSource, is_live
from wholereel.media.source_address import open_options, shown, without_secrets
from wholereel.media.video_reader import VideoReader
from wholereel.media.video_writer import write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("web")
    write_video(path / "a.mp4", moving(60), frame_rate=RATE, gop=10)
    send(str(path / "long.mkv"), "matroska", 80)
    send(str(path / "live.ts"), "mpegts", 30)
    send(str(path / "list.m3u8"), "hls", 60, options={"hls_time": "1", "hls_list_size": "0"})
    return path


def read(source: LiveSource, frames: int | None = None) -> Frames:
    """All frames, or the first so many."""
    parts, count = [], 0
    for part in source:
        parts.append(part)
        count += len(part)
        if frames is not None and count >= frames:
            break
    pixels = torch.cat([part.pixels_TCHW for part in parts])
    seconds = torch.cat([part.seconds_T for part in parts])
    assert all(b > a for a, b in itertools.pairwise(seconds.tolist()))
    return Frames(pixels[:frames], seconds[:frames])


def test_a_file_behind_a_url_ends_and_every_frame_comes(folder):
    lines = []
    with Web(folder) as web:
        source = LiveSource(web.url("a.mp4"), room=1, chunk=4, give_up=3, log=lines.append)
        found = []
        for frames in source:  # policy auto: a file can wait for a slow reader
            found.append(frames)
            time.sleep(0.01)
    with VideoReader(folder / "a.mp4") as reader:
        expected = reader.read(indices=range(60))
    assert torch.equal(torch.cat([frames.pixels_TCHW for frames in found]), expected.pixels_TCHW)
    torch.testing.assert_close(torch.cat([frames.seconds_T for frames in found]), expected.seconds_T)
    assert (source.connections, source.dropped) == (1, 0)
    assert lines[-1].endswith("a.mp4: end")


def test_a_file_that_breaks_off_goes_on_where_it_was(folder):
    lines = []
    with Web(folder, break_at=60_000) as web:
        source = LiveSource(web.url("long.mkv"), give_up=3, log=lines.append)
        found = read(source)
        assert len(web.asked) > 1
    with VideoReader(folder / "long.mkv") as reader:
        expected = reader.read(indices=range(80))
    assert source.connections == 2
    assert torch.equal(found.pixels_TCHW, expected.pixels_TCHW)
    torch.testing.assert_close(found.seconds_T, expected.seconds_T)
    assert sum("opened again" in line for line in lines) == 1


def test_a_stream_without_an_end_is_opened_again(folder):
    with Web(folder) as web:
        source = LiveSource(web.url("endless/live.ts"), policy="block", give_up=3, log=lambda line: None)
        found = read(source, 60)
    assert source.connections == 2
    assert found.seconds_T[30] - found.seconds_T[29] > 0.1  # the time without a stream


def test_play_lists_by_http_and_from_a_file(folder):
    with Web(folder) as web:
        by_http = read(LiveSource(web.url("list.m3u8"), give_up=3, log=lambda line: None))
        assert [path for path in web.asked if path.endswith(".ts")]
    from_file = read(LiveSource(folder / "list.m3u8", give_up=3, log=lambda line: None))
    assert len(by_http) == len(from_file) == 60
    assert torch.equal(by_http.pixels_TCHW, from_file.pixels_TCHW)
    np.testing.assert_allclose(np.diff(by_http.seconds_T), 1 / RATE, atol=1e-3)


def test_a_play_list_that_is_still_being_written(folder, tmp_path):
    lines = (folder / "list.m3u8").read_text().splitlines()
    for part in folder.glob("list*.ts"):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    parts = [number for number, line in enumerate(lines) if line.endswith(".ts")]
    growing = tmp_path / "list.m3u8"
    growing.write_text("\n".join(lines[: parts[1] + 1]) + "\n")
    timer = threading.Timer(0.5, growing.write_text, ("\n".join(lines) + "\n",))
    timer.start()
    with Web(tmp_path) as web:
        found = read(LiveSource(web.url("list.m3u8"), give_up=8, policy="block", log=lambda line: None), 60)
    timer.join()
    assert len(found) == 60


def test_datagrams_and_silence():
    port, lines = free_udp_port(), []
    source = LiveSource(f"udp://127.0.0.1:{port}", give_up=1.0, stall=0.5, log=lines.append)
    source.open()
    time.sleep(0.3)
    with sending(f"udp://127.0.0.1:{port}?pkt_size=1316", "mpegts", 60, pace=0.01):
        found = read(source)
    assert len(found) > 40  # frames before the first whole one are lost
    assert any("nothing for 0.5 s; opened again in 0.2 s" in line for line in lines)
    assert "given up" in lines[-1]


def test_a_camera_that_calls_us_and_calls_again():
    port, lines = free_port(), []
    address = f"rtsp://127.0.0.1:{port}/live"
    words = [sys.executable, stream_servers.__file__, address, "rtsp", "40"]

    def call_twice():
        for _ in range(2):
            subprocess.run(words, check=True, timeout=60)

    thread = threading.Thread(target=call_twice)
    thread.start()
    source = LiveSource(address, options={"rtsp_flags": "listen"}, give_up=30, chunk=4, log=lines.append)
    found = read(source, 60)
    thread.join()
    assert source.connections == 2
    assert len(found) == 60


def test_a_camera_that_is_pulled_from_and_closes(folder):
    """RTSP as most cameras speak it: described, set up and played over one connection, and again after it closed."""
    lines = []
    with Camera((folder / "live.ts").read_bytes(), password="s3cret") as camera:
        source = LiveSource(camera.url("someone:s3cret@"), policy="block", give_up=10, log=lines.append)
        found = read(source, 45)  # of two connections of 30 frames
        assert camera.asked.count("PLAY") == source.connections == 2
        with pytest.raises(VideoError, match=r"rtsp://\*\*\*@.*the server wants other credentials"):
            read(LiveSource(camera.url("someone:wr0ng@"), give_up=30, log=lines.append))
    with VideoReader(folder / "live.ts") as reader:
        expected = reader.read(indices=range(30))
    first = int(found.seconds_T.diff().argmax()) + 1  # frames of the first connection
    assert 28 <= first <= 30  # a picture that waits for its successor may be lost where the camera hangs up
    for begin, count in ((0, first), (first, 45 - first)):
        assert torch.equal(found.pixels_TCHW[begin : begin + count], expected.pixels_TCHW[:count])
        steps = found.seconds_T[begin : begin + count].diff()
        torch.testing.assert_close(steps, expected.seconds_T[:count].diff(), rtol=0, atol=1e-3)
    assert not any(secret in line for line in lines for secret in ("someone", "s3cret", "wr0ng"))


def test_passwords_are_used_and_never_shown(folder):
    lines = []
    with Web(folder, password="s3cret") as web:
        good = LiveSource(web.url("a.mp4?token=abc123", "someone:s3cret@"), give_up=3, log=lines.append)
        assert len(read(good)) == 60
        bad = LiveSource(web.url("a.mp4?token=abc123", "someone:wr0ng@"), give_up=30, log=lines.append)
        begin = time.monotonic()
        with pytest.raises(VideoError, match=r"the server wants other credentials") as error:
            read(bad)
        assert time.monotonic() - begin < 5  # not after `give_up`
    nobody = LiveSource(f"tcp://someone:s3cret@127.0.0.1:{free_port()}", give_up=0.3, log=lines.append)
    with pytest.raises(VideoError, match=r"tcp://\*\*\*@127.0.0.1") as refused:
        read(nobody)
    said = "\n".join([*lines, str(error.value), str(refused.value), repr(good), repr(nobody)])
    for secret in ("s3cret", "wr0ng", "someone", "abc123"):
        assert secret not in said


def test_a_slow_reader_is_no_silence_of_a_source_with_an_end(monkeypatch):
    def connection(source, limit):
        source.connections += 1
        for second in range(3 * source.connections - 3, 3 * source.connections):
            source._position, source._last_clock = float(second), time.monotonic()
            yield Frames(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.tensor([float(second)]).double())
        if source.connections == 1:
            raise OSError(None, "broke off while the reader was busy")

    monkeypatch.setattr(LiveSource, "_connection", connection)
    source, seconds = LiveSource("http://host/a.mp4", policy="block", room=1, give_up=0.4), []
    for frames in source:
        seconds += frames.seconds_T.tolist()
        time.sleep(0.7 if len(seconds) == 1 else 0.0)
    assert seconds == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("rtsp://user:pa:ss@camera:554/live/1", "rtsp://***@camera:554/live/1"),
        ("rtsp://user:p/a@ss@camera/live", "rtsp://***@camera/live"),
        ("https://host/a.m3u8?token=xyz&start=3", "https://host/a.m3u8?token=***&start=***"),
        ("http://camera/live?abc123", "http://camera/live?***"),
        ("srt://host:9000?passphrase=secret;mode=caller", "srt://host:9000?passphrase=***&mode=***"),
        ("rtmp://host/app/stream-key", "rtmp://host/app/***"),
        ("udp://239.0.0.1:1234", "udp://239.0.0.1:1234"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_what_an_address_looks_like_in_a_log(address, expected):
    assert shown(address) == expected
    assert without_secrets(f"[Errno 111] Connection refused: '{address}'").count(expected) == 1


def test_how_sources_are_opened():
    assert open_options("rtsp://camera/1").options == {"rtsp_transport": "tcp"}
    assert open_options("rtsp://camera/1", {"rtsp_transport": "udp"}).options == {"rtsp_transport": "udp"}
    assert open_options("rtsp://x/1", {"rtsp_flags": "listen"}).options == {
        "rtsp_flags": "listen",
        "listen_timeout": "10",
    }
    camera = open_options("/dev/video2", {"video_size": "640x480", "framerate": "15", "input_format": "mjpeg"})
    assert (camera.url, camera.format) == ("/dev/video2", "v4l2")
    assert camera.options == {"video_size": "640x480", "framerate": "15", "input_format": "mjpeg"}
    assert open_options("tcp://host:1", {"format": "mjpeg"}).format == "mjpeg"
    assert open_options("udp://host:1").options["overrun_nonfatal"] == "1"
    assert is_live("list.M3U8")
    assert not is_live("a.mp4")


def test_what_no_patience_will_mend_is_an_error_at_once(monkeypatch):
    begin = time.monotonic()
    with pytest.raises(VideoError, match=r"/dev/video77: no such camera, expected a Video4Linux device"):
        list(LiveSource("/dev/video77", give_up=30))

    def forbidden(*args, **settings):
        raise av.error.PermissionError(13, "Permission denied", "/dev/video0")

    monkeypatch.setattr(av, "open", forbidden)
    with pytest.raises(VideoError, match=r"/dev/video0: may not be read by this user\. Add the user to the group"):
        list(LiveSource("/dev/video0", give_up=30))
    monkeypatch.undo()
    with pytest.raises(VideoError, match=r"hls://nowhere/a: this build of FFmpeg lacks the protocol or format"):
        list(LiveSource("hls://nowhere/a", give_up=30))
    assert time.monotonic() - begin < 5


def test_frames_that_a_program_pushes():
    source = PushedFrames(frame_rate=10, policy="block", room=4)
    picture = np.zeros((6, 8, 3), np.uint8)

    def fill():
        for number in range(20):
            picture[:] = number
            source.put(picture)
        source.put(Frames(torch.zeros(2, 3, 6, 8, dtype=torch.uint8), torch.tensor([2.0, 2.1], dtype=torch.float64)))
        source.end()
        source.put(picture)  # nobody is there any more

    thread = threading.Thread(target=fill)
    thread.start()
    found = list(source)
    thread.join()
    seconds_T = torch.cat([frames.seconds_T for frames in found])
    torch.testing.assert_close(seconds_T, torch.arange(22, dtype=torch.float64) / 10)
    assert [int(frames.pixels_TCHW.max()) for frames in found[:20]] == list(range(20))
    assert source.dropped == 0
    full = PushedFrames(policy="drop", room=3)
    for number in range(8):
        full.put(torch.full((3, 6, 8), number, dtype=torch.uint8), number)
    full.end()
    assert [float(frames.seconds_T) for frames in full] == [6.0, 7.0]  # all that waited went at once, twice
    assert full.dropped == 6
    with pytest.raises(ValueError, match=r"a picture is a uint8 array \(H, W, 3\) or tensor \(3, H, W\), got ndarray"):
        full.put(np.zeros((6, 8), np.uint8))
