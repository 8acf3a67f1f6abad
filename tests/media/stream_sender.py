"""Serve frames as an MPEG transport stream to one listener, then go away: `python stream_sender.py PORT FRAMES`.

A program of its own, quick to start: it stands for a camera.
"""

from __future__ import annotations

import sys

import av
import numpy as np


def main(port: int, count: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (count, 48, 64, 3), dtype=np.uint8)
    with av.open(f"tcp://127.0.0.1:{port}?listen=1&listen_timeout=60000", "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for t, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = t
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
