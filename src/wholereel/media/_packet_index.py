"""Time line of a video without decoding it: which frames there are, when, and where decoding may begin.

A prediction: the decoder has the last word (`_decoder.py` checks every frame against it). Where the packets themselves
show that the prediction would be wrong, there is none, and the frames must be counted by decoding.
Extra axes: F frames in the order of presentation, K key packets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from wholereel.media._bitstream import FRAMES_IN_PACKET, TRUSTED_CODECS

__all__ = ["Timeline", "predict_from_packets", "timeline_from_table"]

MAX_REORDER = 16  # no codec here holds back more pictures


@dataclass(frozen=True)
class Timeline:
    """Frames of a video in the order of presentation.

    Args:
        seconds_F: float64 time after the first frame, strictly increasing.
        ticks_F: the stored presentation time by which a decoded frame is recognised; None if frames must be counted.
        key_ticks_K, key_dts_K, key_sizes_K: presentation and decoding time and bytes of packets where decoding may
        begin. decodable: the first so many frames exist; fewer than F only for a file that is cut off.
    """

    seconds_F: np.ndarray
    ticks_F: np.ndarray | None
    key_ticks_K: np.ndarray
    key_dts_K: np.ndarray
    key_sizes_K: np.ndarray
    decodable: int

    @property
    def frames(self) -> int:
        return len(self.seconds_F)

    def key_before(self, frame: int) -> int:
        """Position in the key lists of the last key packet shown no later than a frame."""
        assert self.ticks_F is not None
        return int(np.searchsorted(self.key_ticks_K, self.ticks_F[frame], side="right")) - 1


def predict_from_packets(
    container: InputContainer, stream: VideoStream, packets: Iterable[av.Packet[VideoStream]]
) -> Timeline | None:
    """Time line from all packets of a stream, undecoded; None if the frames must be counted instead."""
    codec = stream.codec_context.codec.canonical_name
    if codec not in TRUSTED_CODECS or stream.time_base is None:
        return None
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        return None  # AVI stores no presentation times: those of reordered frames are guesses
    shown = FRAMES_IN_PACKET.get(codec)
    rows: list[tuple[int, int, int, bool, bool]] = []
    for packet in packets:
        if packet.pts is None or packet.is_corrupt:
            return None
        frames = shown(bytes(packet)) if shown is not None else 1
        if frames != 1 and (codec != "vp8" or packet.is_keyframe):
            return None
        discarded = packet.is_discard or frames == 0
        dts = packet.pts if packet.dts is None else packet.dts  # Matroska stores none, and seeks by presentation time
        rows.append((packet.pts, dts, packet.size, packet.is_keyframe, discarded))
    if not rows:
        return None
    return timeline_from_table(np.array(rows, dtype=np.int64), stream.time_base)


def timeline_from_table(packets_P5: np.ndarray, time_base: Fraction) -> Timeline | None:
    """Time line of packets in file order.

    Args:
        packets_P5: int64 columns presentation time, decoding time, bytes, is a key packet, is decoded but not shown.
    Returns: None if the times do not make sense or decoding could not begin with the first packet.
    """
    pts_P, dts_P, sizes_P = packets_P5[:, 0], packets_P5[:, 1], packets_P5[:, 2]
    keys_P, discarded_P = packets_P5[:, 3] != 0, packets_P5[:, 4] != 0
    ticks_F = np.sort(pts_P[~discarded_P])
    if not keys_P[0] or len(ticks_F) == 0 or np.any(np.diff(ticks_F) <= 0):
        return None
    # Frames shown before the first key frame refer to what is not in the file.
    if np.any(pts_P < pts_P[0]):
        return None
    # A time line that jumps back (joined recordings) would interleave its parts when sorted.
    if np.any(np.maximum.accumulate(pts_P)[: -MAX_REORDER - 1] >= pts_P[MAX_REORDER + 1 :]):
        return None
    key_ticks_K = pts_P[keys_P]
    if np.any(np.diff(key_ticks_K) <= 0) or np.any(np.diff(dts_P[keys_P]) <= 0):
        return None
    return Timeline(
        seconds_F=seconds_after_first(ticks_F, time_base),
        ticks_F=ticks_F,
        key_ticks_K=key_ticks_K,
        key_dts_K=dts_P[keys_P],
        key_sizes_K=sizes_P[keys_P],
        decodable=len(ticks_F),
    )


def counted_timeline(ticks: list[int | None], rate: Fraction, time_base: Fraction | None, promised: int) -> Timeline:
    """Time line of frames that were counted by decoding all of them.

    Args:
        ticks: stored presentation time of each decoded frame, in the decoder's order, which is the right one.
        rate: frames per second; times are `index / rate` if the stored ones are missing or do not increase.
        promised: frames that the file should have had; times of the missing ones go on at `rate`.
    """
    known = [t for t in ticks if t is not None]
    sound = time_base is not None and len(known) == len(ticks) and bool(np.all(np.diff(known) > 0))
    if sound and time_base is not None:
        seconds_F = seconds_after_first(np.array(known, dtype=np.int64), time_base)
    else:
        seconds_F = np.arange(len(ticks)) / float(rate)
    missing = max(0, promised - len(ticks))
    if missing:
        rest = seconds_F[-1] + np.arange(1, missing + 1) / float(rate)
        seconds_F = np.concatenate([seconds_F, rest])
    none_K = np.zeros(0, dtype=np.int64)
    return Timeline(seconds_F, None, none_K, none_K, none_K, decodable=len(ticks))


def seconds_after_first(ticks_F: np.ndarray, time_base: Fraction) -> np.ndarray:
    """float64; one rounding only, so that equal times of two files compare equal."""
    return (ticks_F - ticks_F[0]) * time_base.numerator / time_base.denominator
