"""Time line of an MP4/MOV file from its header alone: an hour of video in milliseconds, without reading the media data.

Only plain files are understood: one sample table for pictures, no fragments, an edit list that cuts nothing away. For
all others the answer is None, and the packets are read instead. Source: ISO/IEC 14496-12 (boxes tkhd, elst, stts, ctts,
stss, stsz, stco). The ticks are those of FFmpeg's demuxer.
Extra axes: P samples (packets) in file order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from wholereel.media._packet_index import Timeline, timeline_from_table
from wholereel.media.byte_ranges import byte_count, open_bytes

__all__ = ["predict_from_mp4_header", "missing_samples"]

Box = memoryview
ONE = 0x10000  # play rate 1.0 of an edit


@dataclass(frozen=True)
class SampleTable:
    """Samples of the picture track; `ends_P` is the file position just after each."""

    dts_P: np.ndarray
    offsets_P: np.ndarray
    sizes_P: np.ndarray
    keys_P: np.ndarray
    ends_P: np.ndarray
    timescale: int
    shift: int  # media time of the first shown tick


def predict_from_mp4_header(path: str, track_id: int, time_base: Fraction) -> Timeline | None:
    """Time line of a track; None if the header is not of the plain kind or the file is cut off.

    Args:
        track_id: the track's number in the file.
        time_base: seconds per tick that the demuxer uses; must agree with the header.
    """
    table = _sample_table(path, track_id)
    if table is None or Fraction(1, table.timescale) != time_base or table.ends_P.max() > byte_count(path):
        return None
    pts_P = table.dts_P + table.offsets_P - table.shift
    if pts_P[0] != 0:
        return None  # the demuxer's own rules for odd starts are not repeated here
    columns = (pts_P, table.dts_P - table.shift, table.sizes_P, table.keys_P, np.zeros_like(pts_P))
    return timeline_from_table(np.stack(columns, axis=1).astype(np.int64), time_base)


def missing_samples(path: str, track_id: int) -> int:
    """How many samples of a track the header promises beyond the end of the file."""
    table = _sample_table(path, track_id)
    return 0 if table is None else int((table.ends_P > byte_count(path)).sum())


def _sample_table(path: str, track_id: int) -> SampleTable | None:
    moov = _read_moov(path)
    if moov is None:
        return None
    movie_scale = 0
    for kind, box in _boxes(moov):
        if kind == b"mvhd":
            movie_scale = _u32(box, 20 if box[0] else 12)
        elif kind == b"mvex":
            return None  # fragments follow
    for kind, box in _boxes(moov):
        if kind == b"trak":
            children = dict(_boxes(box))
            header = children[b"tkhd"]
            if _u32(header, 20 if header[0] else 12) == track_id:
                return _track_table(children, movie_scale)
    return None


def _track_table(track: dict[bytes, Box], movie_scale: int) -> SampleTable | None:
    media = dict(_boxes(track[b"mdia"]))
    timescale = _u32(media[b"mdhd"], 20 if media[b"mdhd"][0] else 12)
    table = dict(_boxes(dict(_boxes(media[b"minf"]))[b"stbl"]))
    if b"stsz" not in table or timescale == 0:
        return None
    sizes_P = _sizes(table[b"stsz"])
    durations_P = _runs(table[b"stts"], ">u4")
    if len(sizes_P) == 0 or len(durations_P) != len(sizes_P):
        return None
    dts_P = np.concatenate([[0], np.cumsum(durations_P)[:-1]])
    offsets_P = _runs(table[b"ctts"], ">i4") if b"ctts" in table else np.zeros_like(dts_P)
    if len(offsets_P) != len(dts_P):
        return None
    keys_P = np.ones(len(dts_P), dtype=bool)
    if b"stss" in table:
        keys_P[:] = False
        keys_P[np.frombuffer(table[b"stss"][8:], ">u4").astype(np.int64) - 1] = True
    begins = dts_P + offsets_P
    end = int((begins + durations_P).max())
    shift = _edit_shift(track.get(b"edts"), int(begins.min()), end, Fraction(timescale, movie_scale or 1))
    if shift is None:
        return None
    ends_P = _positions(table, sizes_P) + sizes_P
    return SampleTable(dts_P, offsets_P, sizes_P, keys_P, ends_P, timescale, shift)


def _edit_shift(edits: Box | None, first: int, end: int, scale: Fraction) -> int | None:
    """Media time at which showing begins; None if an edit list does more than say that."""
    if edits is None:
        return 0
    listed = dict(_boxes(edits)).get(b"elst")
    if listed is None or _u32(listed, 4) != 1:
        return None
    form = ">qqi" if listed[0] else ">iii"
    duration, media_time, rate = struct.unpack_from(form, listed, 8)
    # The last frame may be cut by rounding of the movie's clock, no more.
    cuts_end = duration and (duration + 1) * scale + media_time < end
    return None if rate != ONE or media_time != first or cuts_end else media_time


def _sizes(stsz: Box) -> np.ndarray:
    same, count = _u32(stsz, 4), _u32(stsz, 8)
    if same:
        return np.full(count, same, dtype=np.int64)
    return np.frombuffer(stsz[12 : 12 + 4 * count], ">u4").astype(np.int64)


def _runs(box: Box, kind: str) -> np.ndarray:
    """Expand a table of (count, value)."""
    pairs = np.frombuffer(box[8 : 8 + 8 * _u32(box, 4)], ">u4").reshape(-1, 2)
    values = np.ascontiguousarray(pairs[:, 1]).view(kind).astype(np.int64)
    return np.repeat(values, pairs[:, 0].astype(np.int64))


def _positions(table: dict[bytes, Box], sizes_P: np.ndarray) -> np.ndarray:
    """File position of each sample: chunks begin where stco/co64 says, samples lie in them without gaps."""
    wide = b"co64" in table
    chunks = np.frombuffer(table[b"co64" if wide else b"stco"][8:], ">u8" if wide else ">u4").astype(np.int64)
    runs = np.frombuffer(table[b"stsc"][8:], ">u4").astype(np.int64).reshape(-1, 3)
    lengths = np.diff(np.append(runs[:, 0] - 1, len(chunks)))
    per_chunk = np.repeat(runs[:, 1], lengths)
    chunk_of_P = np.repeat(np.arange(len(chunks)), per_chunk)[: len(sizes_P)]
    before_P = np.concatenate([[0], np.cumsum(sizes_P)[:-1]])
    first_of_chunk = np.minimum(np.concatenate([[0], np.cumsum(per_chunk)[:-1]]), len(sizes_P) - 1)
    return chunks[chunk_of_P] + before_P - before_P[first_of_chunk][chunk_of_P]


def _read_moov(path: str) -> Box | None:
    """Content of the movie header; None if there is none or the file holds fragments."""
    with open_bytes(path) as file:
        length = byte_count(path)
        at, found = 0, None
        while at + 8 <= length:
            file.seek(at)
            head = file.read(16)
            size, kind = _u32(memoryview(head), 0), head[4:8]
            skip = 8
            if size == 1 and len(head) == 16:
                size, skip = struct.unpack_from(">Q", head, 8)[0], 16
            elif size == 0:
                size = length - at
            if size < skip or kind == b"moof":
                return None
            if kind == b"moov":
                file.seek(at + skip)
                found = memoryview(file.read(size - skip))
            at += size
        return found


def _boxes(data: Box) -> Iterator[tuple[bytes, Box]]:
    at = 0
    while at + 8 <= len(data):
        size, kind, skip = _u32(data, at), bytes(data[at + 4 : at + 8]), 8
        if size == 1 and at + 16 <= len(data):
            size, skip = struct.unpack_from(">Q", data, at + 8)[0], 16
        elif size == 0:
            size = len(data) - at
        if size < skip:
            return
        yield kind, data[at + skip : at + size]
        at += size


def _u32(data: Box, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])
