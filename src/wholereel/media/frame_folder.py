"""Videos that are kept as numbered pictures, read like a video file; a single picture is a video of one frame.

Frame i is the i-th picture by the number at the end of its name (`00001.jpg`, `frame_0000000001.jpg`,
`46GP8-000001.jpg`). Pictures are decoded by Pillow, so JPEG pixels are those of libjpeg, which the published frame sets
were read with. Not here: making such folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from wholereel.errors import VideoError
from wholereel.media._convert import target_size
from wholereel.media.frames import Frames
from wholereel.media.remote_files import local_copy
from wholereel.media.video_reader import VideoMetadata, VideoReader

__all__ = ["FrameFolder", "FrameReader", "PICTURE_SUFFIXES", "open_frames"]

PICTURE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))
NUMBER = re.compile(r"\d+$")
TICK = Fraction(1, 1_000_000)  # times are exact up to rounding, so frames are looked up within half a microsecond


class FrameReader(Protocol):
    """What `VideoReader` and `FrameFolder` have in common; a context manager."""

    @property
    def metadata(self) -> VideoMetadata: ...

    @property
    def frame_count(self) -> int: ...

    @property
    def seconds_T(self) -> Tensor: ...

    def read(self, *, indices: Sequence[int] | None = None, seconds: Sequence[float] | Tensor | None = None) -> Frames:
        """As `VideoReader.read`."""
        ...

    def stream(self, *, start: float = 0.0, chunk: int = 16) -> Iterator[Frames]:
        """As `VideoReader.stream`."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> FrameReader: ...

    def __exit__(self, *exception: object) -> None: ...


class FrameFolder:
    """Random access to the frames of a folder of pictures; keeps no file open, so threads and forks are free.

    Args:
        path: the folder, or one picture, which may be remote (`s3://...`).
        frame_rate: pictures per second; of a single picture it may be `None`: it lasts one second.
        size: as in `VideoReader`; scaled bilinearly, anti-aliased.
    Raises: VideoError: no such folder, no pictures in it, names without numbers, a number twice, or a picture missing
        between two others. ValueError: a size or a rate that cannot be, or a folder without a rate.
    """

    def __init__(
        self, path: str | Path, *, frame_rate: float | None = None, size: int | tuple[int, int] | None = None
    ) -> None:
        for length in size if isinstance(size, tuple) else (size,):
            if length is not None and length < 1:
                raise ValueError(f"size must be positive, got {size}")
        self.path, self.size = str(path), size
        self._pictures = _pictures(Path(local_copy(path)))
        if frame_rate is None and Path(path).is_dir():
            raise VideoError(
                path,
                "a folder of pictures has no frame rate of its own",
                "frame_rate, in pictures per second, in the manifest",
            )
        self._rate = 1.0 if frame_rate is None else frame_rate
        if not self._rate > 0:
            raise ValueError(f"frame_rate must be positive, got {frame_rate}")
        self._seconds_F = np.arange(len(self._pictures), dtype=np.float64) / self._rate
        self._stored: tuple[int, int] | None = None

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.frame_count

    def __repr__(self) -> str:
        return f"FrameFolder({self.path!r}, frame_rate={self._rate}, size={self.size})"

    def close(self) -> None:
        """Nothing is open; here because readers of files have it."""

    @property
    def frame_count(self) -> int:
        """Number of pictures."""
        return len(self._pictures)

    @property
    def seconds_T(self) -> Tensor:
        """float64 time of every frame: its place divided by the rate."""
        return torch.from_numpy(self._seconds_F.copy())

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The file of each frame."""
        return tuple(self._pictures)

    @property
    def metadata(self) -> VideoMetadata:
        """Size and kind of the first picture, with the rate that was given."""
        with _opened(self._pictures[0]) as picture:
            mode, kind = picture.mode, (picture.format or "").lower()
        height, width = self._size()
        count, duration = self.frame_count, self.frame_count / self._rate
        return VideoMetadata(
            self.path, width, height, 0, self._rate, count, duration, 0.0, kind, mode, TICK, False, "pictures"
        )

    def read(self, *, indices: Sequence[int] | None = None, seconds: Sequence[float] | Tensor | None = None) -> Frames:
        """Read frames in any order, with repeats; all as `VideoReader.read`."""
        if indices is not None and seconds is None:
            asked = np.asarray(indices, dtype=np.int64).reshape(-1)
            wrong = asked[(asked < 0) | (asked >= self.frame_count)]
            if len(wrong):
                raise IndexError(f"{self.path}: frame {wrong[0]} of a video of {self.frame_count} frames")
        elif seconds is not None and indices is None:
            asked = self._at(np.asarray(seconds, dtype=np.float64).reshape(-1))
        else:
            raise ValueError("read() takes either indices or seconds")
        wanted, places = np.unique(asked, return_inverse=True)
        height, width = target_size(*self._size(), self.size)
        pictures_THWC = np.empty((len(wanted), height, width, 3), dtype=np.uint8)
        for place, index in enumerate(wanted):
            pictures_THWC[place] = np.asarray(self._decode(self._pictures[index], height, width))
        pixels_TCHW = torch.from_numpy(pictures_THWC[places]).permute(0, 3, 1, 2)
        return Frames(pixels_TCHW, torch.from_numpy(self._seconds_F[asked]))

    def stream(self, *, start: float = 0.0, chunk: int = 16) -> Iterator[Frames]:
        """Read on to the end, `chunk` frames at a time; all as `VideoReader.stream`."""
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        for first in range(int(self._at(np.array([start]))[0]), self.frame_count, chunk):
            yield self.read(indices=range(first, min(first + chunk, self.frame_count)))

    def _at(self, times: np.ndarray) -> np.ndarray:
        if np.isnan(times).any():
            raise ValueError("seconds contain a value that is not a number")
        found = np.searchsorted(self._seconds_F, times + float(TICK) / 2, side="right") - 1
        return found.clip(0, self.frame_count - 1)

    def _size(self) -> tuple[int, int]:
        """Height and width of the first picture, which all others must have."""
        if self._stored is None:
            with _opened(self._pictures[0]) as picture:
                self._stored = picture.height, picture.width
        return self._stored

    def _decode(self, path: Path, height: int, width: int) -> Image.Image:
        with _opened(path) as picture:
            if (picture.height, picture.width) != self._size():
                found, stored = f"{picture.width}x{picture.height}", f"{self._size()[1]}x{self._size()[0]}"
                raise VideoError(path, f"is {found}", f"{stored}, as the first picture of the folder")
            try:
                rgb = picture.convert("RGB")
            except (OSError, SyntaxError, ValueError) as error:
                raise VideoError(path, f"does not decode ({error})", "", "Copy it again.") from error
        return rgb if rgb.size == (width, height) else rgb.resize((width, height), Image.Resampling.BILINEAR)


def open_frames(
    path: str | Path, *, frame_rate: float | None = None, size: int | tuple[int, int] | None = None
) -> FrameReader:
    """A reader for a video file, a folder of numbered pictures or a single picture.

    Args:
        path, size: as in `VideoReader`.
        frame_rate: of a folder of pictures; files know their own.
    Raises: VideoError: it cannot be read.
    """
    if os.path.isdir(path) or os.path.splitext(path)[1].lower() in PICTURE_SUFFIXES:
        return FrameFolder(path, frame_rate=frame_rate, size=size)
    return VideoReader(path, size=size)


def _pictures(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise VideoError(path, "no such file or folder", "a folder of numbered pictures")
        return [path]
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    pictures = [name for name in names if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise VideoError(path, f"holds no pictures among its {len(names)} files", "numbered pictures such as 00001.jpg")
    numbers: dict[int, str] = {}
    for name in pictures:
        found = NUMBER.search(os.path.splitext(name)[0])
        if found is None:
            raise VideoError(path, f"the name {name!r} ends in no number", "numbered pictures such as 00001.jpg")
        number = int(found[0])
        if number in numbers:
            raise VideoError(path, f"{numbers[number]!r} and {name!r} have the same number", "different numbers")
        numbers[number] = name
    first, last = min(numbers), max(numbers)
    if last - first + 1 != len(numbers):
        missing = next(number for number in range(first, last) if number not in numbers)
        raise VideoError(
            path,
            f"picture {missing} is missing between {first} and {last}",
            "every number once",
            "Times would be wrong behind the gap: copy or extract the folder again.",
        )
    return [path / numbers[number] for number in range(first, last + 1)]


def _opened(path: Path) -> Any:
    try:
        return Image.open(path)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise VideoError(path, "is empty (0 bytes)", "a picture", "Copy it again.") from error
        raise VideoError(
            path, f"cannot be opened as a picture ({type(error).__name__})", "", "Copy it again."
        ) from error
