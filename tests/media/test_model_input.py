import pytest
import torch

from wholereel.media.model_input import to_model_input

MEAN, STD = (0.45, 0.4, 0.35), (0.225, 0.2, 0.25)


@pytest.mark.parametrize("shape", [(2, 3, 4, 3, 5, 6), (2, 4, 3, 5, 6), (4, 3, 5, 6)])
def test_pixels_are_permuted_and_normalised(shape):
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = to_model_input(pixels, mean=MEAN, std=STD)
    plain = (pixels.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(ours, plain.transpose(-4, -3).float(), rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous()


def test_the_type_is_of_the_result_only():
    pixels = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    half = to_model_input(pixels, mean=MEAN, std=STD, dtype=torch.bfloat16)
    assert torch.equal(half, to_model_input(pixels, mean=MEAN, std=STD).to(torch.bfloat16))


def test_the_given_pixels_are_not_changed():
    pixels = torch.full((1, 2, 3, 4, 4), 7, dtype=torch.uint8)
    to_model_input(pixels, mean=MEAN, std=STD)
    assert (pixels == 7).all()


def test_wrong_pixels_are_refused():
    with pytest.raises(ValueError, match=r"must be uint8 \.\.\.TCHW, got torch.float32"):
        to_model_input(torch.zeros(2, 3, 4, 4), mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="3 channels, but mean has 1 and std 3 numbers"):
        to_model_input(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), mean=(0.5,), std=STD)
