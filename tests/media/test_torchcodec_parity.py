"""TorchCodec and we return the same frames for the same times (where it is installed)."""

from importlib.util import find_spec

import pytest

from tests.media import torchcodec_parity


@pytest.mark.skipif(find_spec("torchcodec") is None, reason="TorchCodec is not installed")
def test_frames_are_those_of_torchcodec(capfd):
    assert torchcodec_parity.main() == 0
    assert capfd.readouterr().out.count("the same") == 8
