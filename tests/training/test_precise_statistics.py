"""Running statistics as the plain mean over batches: BatchNorm then normalises those batches as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wholereel.training.norms import precise_statistics


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3), nn.Dropout(0.9), nn.Conv3d(3, 2, 1), nn.BatchNorm3d(2))


def test_statistics_are_means_over_the_batches() -> None:
    model = network().train()
    batches = [torch.randn(4, 2, 2, 3, 3) * scale + scale for scale in (1.0, 3.0, 5.0)]
    model(batches[0])  # what stood there before has no part in it
    assert precise_statistics(model, batches, model) == 3
    inner = [model[0](batch) for batch in batches]
    means = torch.stack([x.mean((0, 2, 3, 4)) for x in inner]).mean(0)
    variances = torch.stack([x.var((0, 2, 3, 4)) for x in inner]).mean(0)
    torch.testing.assert_close(model[1].running_mean, means)
    torch.testing.assert_close(model[1].running_var, variances)
    # the second norm read what the first made with each batch's own statistics, and nothing was dropped
    normed = [nn.functional.batch_norm(x, None, None, model[1].weight, model[1].bias, True) for x in inner]
    means = torch.stack([model[3](x).mean((0, 2, 3, 4)) for x in normed]).mean(0)
    torch.testing.assert_close(model[4].running_mean, means)
    assert all(part.training for part in model.modules())
    assert [model[1].momentum, model[4].momentum] == [0.1, 0.1]


def test_without_batches_nothing_changes() -> None:
    model = network().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="precise statistics need at least one batch"):
        precise_statistics(model, [], model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(part.training for part in model.modules())
