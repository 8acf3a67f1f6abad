"""Addresses of live sources: what kind one is, how FFmpeg opens it, and how it may be shown.

Addresses of cameras hold passwords: everything that is logged, raised or stored shows them through `without_secrets`.
The defaults per kind are our choice; `options` overrides them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OpenOptions", "is_camera", "is_live", "open_options", "shown", "without_secrets"]

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp", "srt", "hls")
CAMERAS = {"/dev/video": "v4l2"}
PLAY_LISTS = (".m3u8", ".m3u")
DEFAULTS: dict[str, dict[str, str]] = {
    "rtsp": {"rtsp_transport": "tcp"},  # over UDP, one lost packet is a grey picture
    "rtsps": {"rtsp_transport": "tcp"},
    # A reader that is late loses packets, which is the sender's and the policy's business; it is no reason to give up.
    "udp": {"overrun_nonfatal": "1", "fifo_size": "50000"},
}
URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>]+")
HIDDEN = "***"
LISTEN_SECONDS = 10


@dataclass(frozen=True)
class OpenOptions:
    """What FFmpeg is told.

    Args:
        url: of the source. format: name of the demuxer, `None` = found out. options: of demuxer and protocol.
    """

    url: str
    format: str | None
    options: dict[str, str]


def is_camera(source: str | Path) -> bool:
    """Whether a source is a camera of this machine (Video4Linux)."""
    return any(str(source).startswith(prefix) for prefix in CAMERAS)


def is_live(source: str | Path) -> bool:
    """Whether a source is a URL, a play list, a camera or a folder, and not a file."""
    text = str(source)
    by_name = text.split("://", 1)[0].lower() in SCHEMES or text.lower().endswith(PLAY_LISTS)
    return by_name or is_camera(source) or Path(text).is_dir()


def open_options(source: str | Path, options: Mapping[str, str] | None = None) -> OpenOptions:
    """How a URL, play list or camera is opened.

    Args: options: FFmpeg's, by name; they come before ours. `format` names the demuxer (`mjpeg`, `mpegts` ...).
    """
    text = str(source)
    scheme = text.split("://", 1)[0].lower() if "://" in text else ""
    camera = next((kind for prefix, kind in CAMERAS.items() if text.startswith(prefix)), None)
    chosen = {**DEFAULTS.get(scheme, {}), **(options or {})}
    if "listen" in chosen.get("rtsp_flags", ""):
        chosen.setdefault("listen_timeout", str(LISTEN_SECONDS))  # FFmpeg's default of -1 is refused by FFmpeg
        if "rtsp_transport" not in (options or {}):
            del chosen["rtsp_transport"]  # the sender chooses
    return OpenOptions(text, chosen.pop("format", camera), chosen)


def shown(source: str | Path) -> str:
    """The source without user, password and the values of its query."""
    return without_secrets(str(source))


def without_secrets(text: str) -> str:
    """A text in which every URL has lost user, password, the values of its query, and the stream key of RTMP."""
    return URL.sub(lambda match: _shown_url(match[0]), text)


def _shown_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    place, mark, query = rest.partition("?")
    host, slash, path = place.partition("/")
    if "@" in place:  # a password may hold slashes that nobody escaped
        secret, _, rest_of_place = place.rpartition("@")
        host, slash, path = rest_of_place.partition("/")
        host = f"{HIDDEN}@{host}" if secret else host
    if scheme.lower().startswith("rtmp") and "/" in path:
        path = f"{path.rpartition('/')[0]}/{HIDDEN}"
    if mark:
        pairs = (pair.partition("=") for pair in re.split("[&;]", query))
        query = "&".join(f"{name}={HIDDEN}" if is_pair else HIDDEN for name, is_pair, _ in pairs)  # a bare token
    return f"{scheme}://{host}{slash}{path}{mark}{query}"
