"""What stands for the other end of a live source in tests: senders of streams, a web server that breaks off."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH, RATE = 48, 64, 25


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def send(url: str, format: str, frames: int, *, pace: float = 0.0, options: dict[str, str] | None = None) -> None:
    """Encode moving noise to any address that FFmpeg writes to, `pace` seconds for each frame."""
    picture = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    with av.open(url, "w", format=format, options=options or {}) as container:
        fast = {"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
        stream = container.add_stream("libx264", rate=RATE, options=fast)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number, 1), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
            time.sleep(pace)
        container.mux(stream.encode(None))


@contextmanager
def sending(*args, **settings) -> Iterator[threading.Thread]:
    """`send` in a thread."""
    thread = threading.Thread(target=send, args=args, kwargs=settings)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(timeout=30)


class Web(ThreadingHTTPServer):
    """Serves a folder: with ranges, like a file store; `/endless/FILE` without a length, like a live stream.

    Attributes:
        break_at: bytes after which the next answer breaks off, once; 0 = it does not.
        password: of user "someone", if any is wanted.
        asked: paths so far.
    """

    daemon_threads = True

    def __init__(self, folder: Path, password: str = "", break_at: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Answer, directory=str(folder)))
        self.break_at, self.password, self.asked = break_at, password, []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server_port}/{path}"

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()


class _Answer(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Web = self.server  # type: ignore[assignment]
        server.asked.append(self.path)
        wanted = "Basic " + base64.b64encode(f"someone:{server.password}".encode()).decode()
        if server.password and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        endless = self.path.startswith("/endless/")
        name = self.path.removeprefix("/endless").split("?")[0]
        file = Path(self.directory) / name.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        begin = 0 if endless else int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if "Range" in self.headers and not endless else 200)
        if not endless:
            self.send_header("Content-Length", str(len(data) - begin))
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        rest = data[begin:]
        if server.break_at and len(rest) > server.break_at:
            rest, server.break_at = rest[: server.break_at], 0
        try:
            self.wfile.write(rest)
        except ConnectionError:
            return

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Camera(socketserver.ThreadingTCPServer):
    """An RTSP server that is pulled from: transport streams in RTP over the same connection, then it closes.

    Attributes:
        stream: an MPEG transport stream. password: of user "someone", if any is wanted.
        asked: methods so far.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, stream: bytes, password: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Played)
        self.stream, self.password, self.asked = stream, password, []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, user: str = "") -> str:
        return f"rtsp://{user}127.0.0.1:{self.server_address[1]}/live"

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()


class _Played(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        camera: Camera = self.server  # type: ignore[assignment]
        while (request := self.rfile.readline().decode().split()) and len(request) > 1:
            headers = {}
            while line := self.rfile.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            method = request[0]
            camera.asked.append(method)
            wanted = "Basic " + base64.b64encode(f"someone:{camera.password}".encode()).decode()
            if camera.password and method != "OPTIONS" and headers.get("authorization") != wanted:
                self._answer(headers, "401 Unauthorized", {"WWW-Authenticate": 'Basic realm="camera"'})
                continue
            if method == "DESCRIBE":
                described = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n"
                self._answer(headers, "200 OK", {"Content-Type": "application/sdp"}, described)
            elif method == "SETUP":
                self._answer(headers, "200 OK", {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1", "Session": "1"})
            elif method == "OPTIONS":
                self._answer(headers, "200 OK", {"Public": "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"})
            else:
                self._answer(headers, "200 OK", {"Session": "1"})
            if method in ("PLAY", "TEARDOWN"):
                if method == "PLAY":
                    self._play(camera.stream)
                return

    def _answer(self, asked: dict[str, str], status: str, headers: dict[str, str], body: str = "") -> None:
        headers = {"CSeq": asked.get("cseq", "0"), **headers, "Content-Length": str(len(body))}
        lines = [f"RTSP/1.0 {status}", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def _play(self, stream: bytes) -> None:
        size = 7 * 188  # whole packets of the transport stream
        with contextlib.suppress(ConnectionError):
            for number, begin in enumerate(range(0, len(stream), size)):
                packet = struct.pack("!BBHII", 0x80, 33, number % 2**16, number * 900, 1) + stream[begin : begin + size]
                self.wfile.write(struct.pack("!cBH", b"$", 0, len(packet)) + packet)


if __name__ == "__main__":  # for protocols whose two ends cannot live in one process
    for _ in range(100):
        try:
            send(sys.argv[1], sys.argv[2], int(sys.argv[3]), pace=0.005, options={"rtsp_transport": "tcp"})
            break
        except OSError:  # nobody listens yet
            time.sleep(0.1)
