"""JPEG bytes decode to the picture that went in."""

from __future__ import annotations

import io

import av
import pytest
import torch

from wholereel.report.images import encode_jpeg


@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_picture_comes_back(size):
    ramp = torch.linspace(20, 230, size[0] * size[1]).view(size).to(torch.uint8)
    pixels_CHW = torch.stack([ramp, ramp.flip(0), torch.full(size, 90, dtype=torch.uint8)])
    data = encode_jpeg(pixels_CHW)
    assert data.startswith(b"\xff\xd8")
    assert data.endswith(b"\xff\xd9")
    with av.open(io.BytesIO(data), format="mjpeg") as container:
        decoded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    difference = torch.from_numpy(decoded).permute(2, 0, 1).float() - pixels_CHW.float()
    assert difference.abs().mean() < 2.5
    assert difference.mean(dim=(1, 2)).abs().max() < 1.5  # no shift of colours (studio against full range)


def test_errors():
    with pytest.raises(ValueError, match=r"uint8 \(3, H, W\), got torch.float32 \(3, 4, 4\)"):
        encode_jpeg(torch.zeros(3, 4, 4))
