"""Frames of one open file by index, each checked against the time line before it is believed.

With a predicted time line decoding jumps to key packets; every frame that comes out must be the one that the prediction
names. With a counted one decoding runs from the beginning, and frame i is the i-th that comes out: right by definition.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import av
import av.error
import numpy as np
from av.video.stream import VideoStream

from wholereel.media._bitstream import SKIPPABLE_CODECS, STARTS_CLEANLY, nal_length_size
from wholereel.media._container import open_video, video_packets
from wholereel.media._packet_index import Timeline

__all__ = ["Decoder", "PredictionError"]

# A jump is worth it if it saves more than so many decoded frames: in a container with an index it costs less than one
# small frame, elsewhere the demuxer searches the file.
JUMP_COST_FRAMES = {"mov": 0, "matroska": 0, "avi": 0}
SEARCHED_JUMP_COST_FRAMES = 8
SEEK_ATTEMPTS = 3


Landing = Literal["landed", "missed", "unclean"]


class PredictionError(Exception):
    """The decoder returned something else than the time line said; the frames must be counted."""


class Decoder:
    """One open container. Not safe to share between threads or processes.

    Args:
        path: file.
        threads: of the codec (slices, never frames).
    """

    def __init__(self, path: str, threads: int) -> None:
        self._path, self._threads = path, threads
        self._open()

    def _open(self) -> None:
        self.container, self.stream = open_video(self._path, self._threads)
        self._fresh = True
        codec = self.stream.codec_context
        self._codec = codec.codec.canonical_name
        self._nal_length = nal_length_size(self._codec, codec.extradata)
        self._skipping = False
        self._drains = True
        family = self.container.format.name.split(",")[0]
        self._jump_cost = JUMP_COST_FRAMES.get(family, SEARCHED_JUMP_COST_FRAMES)

    def close(self) -> None:
        """Give back the file."""
        self.container.close()

    def __del__(self) -> None:
        # PyAV's containers and streams refer to each other: files would stay open until the garbage collector runs.
        if hasattr(self, "container"):
            self.container.close()

    def rewind(self) -> None:
        """Go to the beginning by opening anew: the only jump that needs no trust."""
        if not self._fresh:
            self.close()
            self._open()

    def packets(self, *, flush: bool = True) -> Iterator[av.Packet[VideoStream]]:
        """Packets from where the demuxer stands."""
        self._fresh = False
        return video_packets(self.container, self.stream, flush=flush)

    def sequential(self) -> Iterator[av.VideoFrame]:
        """All frames from the beginning; packets that do not decode give none."""
        self.rewind()
        for packet in self.packets():
            yield from self._decode(packet, strict=False)

    def frames(self, timeline: Timeline, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The wanted frames (strictly increasing indices, all decodable) with their indices.

        Raises: PredictionError: the prediction does not hold; frames given before that were right in time and content.
        """
        if timeline.ticks_F is None:
            yield from self._counted(wanted)
            return
        for part in self._parts(timeline, timeline.ticks_F, wanted):
            done = 0
            while done < len(part):
                for index, frame in self._run(timeline, timeline.ticks_F, part[done:]):
                    yield index, frame
                    done += 1

    def forward(self, timeline: Timeline, begin: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """All frames from `begin` on, in order."""
        yield from self.frames(timeline, range(begin, timeline.decodable))

    def _counted(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        position = 0
        for index, frame in enumerate(self.sequential()):
            if index == wanted[position]:
                yield index, frame
                position += 1
                if position == len(wanted):
                    return
        raise PredictionError(f"frame {wanted[position]} did not decode")

    def _parts(self, timeline: Timeline, ticks_F: np.ndarray, wanted: Sequence[int]) -> list[Sequence[int]]:
        """Wanted frames between one jump and the next: cut where frames before a key frame need not be decoded."""
        if isinstance(wanted, range):  # streaming: nothing to jump over, and no array of an hour's frames
            return [wanted]
        wanted_W = np.asarray(wanted)
        keys_W = np.searchsorted(timeline.key_ticks_K, ticks_F[wanted_W], side="right") - 1
        begins_W = np.searchsorted(ticks_F, timeline.key_ticks_K[keys_W])
        cuts = np.flatnonzero(begins_W[1:] - wanted_W[:-1] - 1 > self._jump_cost) + 1
        return [part.tolist() for part in np.split(wanted_W, cuts)]

    def _run(
        self, timeline: Timeline, ticks_F: np.ndarray, wanted: Sequence[int]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Wanted frames after one jump; may end early, and must then be called for the rest."""
        every = isinstance(wanted, range)
        due = set() if every else set(ticks_F[list(wanted)].tolist())
        skippable = not every and self._codec in SKIPPABLE_CODECS
        key, packets = self._land(timeline, wanted[0])
        check = _OrderCheck(ticks_F, int(timeline.key_ticks_K[key]), gaps=skippable)
        done, drain = 0, False
        for packet in packets:
            unwanted = packet.size > 0 and packet.pts not in due
            self._skip(skippable and unwanted)
            frames = self._decode(packet, strict=True)
            if not unwanted and packet.size and not every:
                due.discard(packet.pts)
                # The decoder has all it needs and gives up the pictures it holds back: a few packets less per jump.
                drain = not due and self._drains
                frames += self._decode_rest() if drain else []
            for frame in frames:
                if drain and frame.interlaced_frame:  # its second field may lie in the next packet
                    self._drains = False
                    return
                index = check.index_of(frame)
                if index is None or index < wanted[done]:
                    continue
                if index > wanted[done]:
                    raise PredictionError(f"frame {wanted[done]} was not returned")
                yield index, frame
                done += 1
                if done == len(wanted):
                    return
            if drain:
                break
        raise PredictionError(f"frame {wanted[done]} was not returned before the end")

    def _land(self, timeline: Timeline, target: int) -> tuple[int, Iterator[av.Packet[VideoStream]]]:
        """Bring the demuxer to a key packet at or before a frame: the key's number, and the packets from it on."""
        key, back = timeline.key_before(target), 0
        for _ in range(SEEK_ATTEMPTS):
            if key < 0:
                break
            landing, packets = self._seek(timeline, key, max(0, key - back))
            if landing == "landed":
                return key, packets
            key, back = (key - 1, 0) if landing == "unclean" else (key, 2 * back + 1)
        self.rewind()
        return 0, self.packets()

    def _seek(self, timeline: Timeline, key: int, goal: int) -> tuple[Landing, Iterator[av.Packet[VideoStream]]]:
        """Ask the demuxer for key packet `goal` and walk to key packet `key`; packets follow from there on."""
        key_tick = int(timeline.key_ticks_K[key])
        self._fresh = False
        try:
            self.container.seek(int(timeline.key_dts_K[goal]), stream=self.stream)
        except (av.error.FFmpegError, OSError):
            return "missed", iter(())
        packets = self.packets()
        for packet in packets:
            if packet.pts is None or (packet.is_keyframe and packet.pts > key_tick):
                break
            if packet.pts == key_tick:
                # The size tells a whole packet from one that a transport stream resumed in the middle.
                if not packet.is_keyframe or packet.size != timeline.key_sizes_K[key]:
                    break
                if not self._starts_cleanly(packet):
                    return "unclean", iter(())
                return "landed", itertools.chain([packet], packets)
        return "missed", iter(())

    def _starts_cleanly(self, packet: av.Packet[VideoStream]) -> bool:
        check = STARTS_CLEANLY.get(self._codec)
        return check is None or check(bytes(packet), self._nal_length)

    def _skip(self, unwanted: bool) -> None:
        """Let the decoder pass over pictures that no other one refers to, while they are not wanted."""
        if unwanted != self._skipping:
            self.stream.codec_context.skip_frame = "NONREF" if unwanted else "DEFAULT"
            self._skipping = unwanted

    def _decode_rest(self) -> list[av.VideoFrame]:
        """Frames held back; afterwards the decoder takes packets only after a jump."""
        try:
            return self.stream.codec_context.decode(None)
        except EOFError:
            return []
        except av.error.FFmpegError as error:
            raise PredictionError(f"held back frames do not decode ({error})") from error

    def _decode(self, packet: av.Packet[VideoStream], *, strict: bool) -> list[av.VideoFrame]:
        try:
            return self.stream.codec_context.decode(packet if packet.size else None)
        except EOFError:
            return []
        except av.error.FFmpegError as error:
            if strict:
                raise PredictionError(f"a packet does not decode ({error})") from error
            return []


class _OrderCheck:
    """Recognises frames by their time, and that none is missing, repeated or out of order.

    Args:
        ticks_F: times of all frames.
        begin: time of the key packet that decoding began with.
        gaps: frames may be missing because the decoder was told to pass over some; never the key frame.
    """

    def __init__(self, ticks_F: np.ndarray, begin: int, *, gaps: bool) -> None:
        self._ticks_F, self._begin, self._gaps = ticks_F, begin, gaps
        self._next = int(np.searchsorted(ticks_F, begin))
        self._key_due = self._next < len(ticks_F) and ticks_F[self._next] == begin

    def index_of(self, frame: av.VideoFrame) -> int | None:
        """Index of the next frame; None for one to ignore, because it may refer to what was jumped over."""
        if frame.pts is None:
            raise PredictionError("a frame came without time")
        if frame.pts < self._begin:
            return None
        index = self._next
        if index >= len(self._ticks_F) or self._ticks_F[index] != frame.pts:
            index = int(np.searchsorted(self._ticks_F, frame.pts))
            known = index < len(self._ticks_F) and self._ticks_F[index] == frame.pts
            if not known or index < self._next or self._key_due or not self._gaps:
                raise PredictionError(f"a frame at tick {frame.pts} came where frame {self._next} was expected")
        self._next, self._key_due = index + 1, False
        return index
