"""What single packets say about themselves: do they give one frame, and may decoding begin with them?

Only what is needed to trust a packet list without decoding; every doubt is answered with "no".
Sources: ISO/IEC 14496-2 (VOP header), ISO/IEC 14496-10 7.3.1 and D.1.8 (NAL units, recovery point), ISO/IEC 23008-2
table 7-1, RFC 6386 9.1 (VP8 frame tag), the VP9 bitstream specification 6.2 and annex B (superframes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

__all__ = ["FRAMES_IN_PACKET", "STARTS_CLEANLY", "TRUSTED_CODECS", "SKIPPABLE_CODECS"]


def _one(data: bytes) -> int:
    return 1


def mpeg4_frames(data: bytes) -> int:
    """1 for a packet of exactly one coded picture; 0 for packed pictures and "not coded" place holders."""
    first = data.find(b"\x00\x00\x01\xb6")
    packed = first < 0 or data.find(b"\x00\x00\x01\xb6", first + 4) >= 0
    return 0 if packed or len(data) < 16 else 1


def vp8_frames(data: bytes) -> int:
    """0 for hidden (alternate reference) frames."""
    return data[0] >> 4 & 1


def vp9_frames(data: bytes) -> int:
    """Number of shown frames in a packet, which may be a superframe."""
    return sum(_vp9_shown(frame) for frame in _vp9_split(data))


def _vp9_split(data: bytes) -> Iterator[bytes]:
    marker = data[-1]
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    size = 2 + count * width
    if marker & 0xE0 != 0xC0 or len(data) < size or data[-size] != marker:
        yield data
        return
    begin = 0
    for i in range(count):
        length = int.from_bytes(data[len(data) - size + 1 + i * width :][:width], "little")
        yield data[begin : begin + length]
        begin += length


def _vp9_shown(frame: bytes) -> int:
    if not frame or frame[0] >> 6 != 2:
        return 0
    shift = 3 - (frame[0] & 0x30 == 0x30)  # profile 3 has one more bit before
    show_existing = frame[0] >> shift & 1
    return 1 if show_existing else frame[0] >> (shift - 2) & 1


def _always(data: bytes, nal_length: int) -> bool:
    return True


def vp8_starts(data: bytes, nal_length: int) -> bool:
    return data[0] & 1 == 0


def hevc_starts(data: bytes, nal_length: int) -> bool:
    """A random access picture (IDR, BLA, CRA); what is shown before it is left to the caller, who discards it."""
    return any(16 <= nal[0] >> 1 & 63 <= 21 for nal in nal_units(data, nal_length))


def h264_starts(data: bytes, nal_length: int) -> bool:
    """An IDR picture, or a recovery point that promises exact pictures at once (open groups of pictures).

    A key flag alone is not enough: streams with gradual refresh carry it too, and are not exact after a jump.
    """
    for nal in nal_units(data, nal_length):
        kind = nal[0] & 31
        if kind == 5 or (kind == 6 and _recovers_at_once(nal[1:])):
            return True
        if kind == 1:
            return False
    return False


def _recovers_at_once(sei: bytes) -> bool:
    at = 0
    while at + 2 < len(sei):
        kind, at = _sei_number(sei, at)
        size, at = _sei_number(sei, at)
        # recovery_frame_cnt = 0 is the bit 1, exact_match_flag the bit after it, broken_link_flag the third
        if kind == 6 and at < len(sei):
            return sei[at] >> 5 == 0b110
        at += size
    return False


def _sei_number(sei: bytes, at: int) -> tuple[int, int]:
    value = 0
    while at < len(sei) and sei[at] == 255:
        value, at = value + 255, at + 1
    return value + (sei[at] if at < len(sei) else 0), at + 1


def nal_units(data: bytes, nal_length: int) -> Iterator[bytes]:
    """The first 32 bytes of each unit; before one stand `nal_length` bytes of size, or a start code if that is 0."""
    at = 0
    if nal_length:
        while at + nal_length < len(data):
            size = int.from_bytes(data[at : at + nal_length], "big")
            at += nal_length
            if size:
                yield data[at : at + min(size, 32)]
            at += size
        return
    while (at := data.find(b"\x00\x00\x01", at)) >= 0:
        at += 3
        if at < len(data):
            yield data[at : at + 32]


FRAMES_IN_PACKET: dict[str, Callable[[bytes], int]] = {"mpeg4": mpeg4_frames, "vp8": vp8_frames, "vp9": vp9_frames}
STARTS_CLEANLY: dict[str, Callable[[bytes, int], bool]] = {"h264": h264_starts, "hevc": hevc_starts, "vp8": vp8_starts}
# One packet is one frame, and a key packet stands alone: only these packet lists are believed, others are counted.
TRUSTED_CODECS = frozenset(
    {"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "vp8", "vp9", "av1", "mjpeg", "prores", "dnxhd", "ffv1"}
)
# The decoder's "skip what no other frame refers to" is exact here. Not in HEVC: what is no reference within a sub-layer
# may be one for a higher layer.
SKIPPABLE_CODECS = frozenset({"h264", "mpeg4", "mpeg1video", "mpeg2video"})


def nal_length_size(codec: str, extradata: bytes | None) -> int:
    """Bytes of size before each unit as the codec's header says; 0 for start codes."""
    if not extradata or extradata[0] != 1:
        return 0
    at = {"h264": 4, "hevc": 21}.get(codec)
    return 0 if at is None or len(extradata) <= at else (extradata[at] & 3) + 1
