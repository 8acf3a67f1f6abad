"""Small pictures for pages, as JPEG through PyAV (no further imaging package is needed)."""

from __future__ import annotations

import av
from torch import Tensor

__all__ = ["encode_jpeg"]


def encode_jpeg(pixels_CHW: Tensor, *, quantiser: int = 3) -> bytes:
    """A picture as the bytes of a JPEG file.

    Args:
        pixels_CHW: uint8 RGB (C = 3), on the CPU.
        quantiser: FFmpeg's scale, 2 (best) to 31.
    Raises: ValueError: another shape or type.
    """
    if pixels_CHW.ndim != 3 or pixels_CHW.shape[0] != 3 or str(pixels_CHW.dtype) != "torch.uint8":
        raise ValueError(f"a picture must be uint8 (3, H, W), got {pixels_CHW.dtype} {tuple(pixels_CHW.shape)}")
    frame = av.VideoFrame.from_ndarray(pixels_CHW.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
    encoder = av.VideoCodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj444p"
    encoder.time_base = encoder.framerate = 1  # type: ignore[assignment]
    encoder.options = {"qmin": str(quantiser), "qmax": str(quantiser)}
    packets = [*encoder.encode(frame.reformat(format="yuvj444p")), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
