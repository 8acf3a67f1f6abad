"""Learning rates by step, parameter groups, averaging of weights."""

from __future__ import annotations

import pytest
import torch

from tests.training.tiny import tiny_task
from wholereel import config
from wholereel.errors import ConfigError
from wholereel.training.averaging import WeightAverage
from wholereel.training.optimiser import create_optimizer, load_optimizer_state, param_groups, set_lr
from wholereel.training.schedule import lr_factor, peak_lr

OPTIM = config.Optim(warmup=1.0, warmup_start=0.1, final=0.2)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.1), (2, 0.28), (9, 0.91), (10, 1.0), (30, 0.6), (50, 0.2), (99, 0.2)]
)
def test_warmup_and_cosine(step, factor):
    assert lr_factor(OPTIM, step=step, steps_per_epoch=10, epochs=5) == pytest.approx(factor)


def test_constant_without_warmup():
    optim = config.Optim(schedule="constant", warmup=0.0)
    assert {lr_factor(optim, step=step, steps_per_epoch=4, epochs=2) for step in range(9)} == {1.0}


def test_fractional_and_complete_warmup():
    half = config.Optim(warmup=0.5, warmup_start=0.0)
    assert [lr_factor(half, step=step, steps_per_epoch=4, epochs=1) for step in range(3)] == [0.0, 0.5, 1.0]
    only = config.Optim(warmup=2.0, warmup_start=0.0)  # the run ends with its warm-up
    assert lr_factor(only, step=4, steps_per_epoch=2, epochs=2) == 1.0


def test_peak_is_linear_in_the_batch_where_asked():
    assert peak_lr(config.Optim(lr=0.1), videos=8) == 0.1
    assert peak_lr(config.Optim(lr=0.1, lr_batch=64), videos=8) == pytest.approx(0.0125)
    assert peak_lr(config.Optim(lr=0.1, lr_batch=64), videos=8, strategy_scale=0.25) == pytest.approx(0.003125)


def test_groups_hold_every_parameter_once_with_its_decay_and_factor():
    task = tiny_task(config.Memory(dim=8), norm="batch")
    optim = config.Optim(lr=1.0, weight_decay=0.01, memory_lr=10.0, head_lr=2.0)
    groups = {group["name"]: group for group in param_groups(task, optim)}
    table = {name: (group["factor"], group["weight_decay"], len(group["params"])) for name, group in groups.items()}
    assert table == {
        "backbone": (1.0, 0.01, 4),
        "backbone (no decay)": (1.0, 0.0, 8),
        "memory": (10.0, 0.01, 3),
        "head": (2.0, 0.01, 1),
        "head (no decay)": (2.0, 0.0, 1),
    }
    listed = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in task.parameters())
    optimizer = create_optimizer(task, optim)
    set_lr(optimizer, 0.5)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups}["memory"] == 5.0


def test_frozen_parameters_are_left_out():
    task = tiny_task()
    task.model.clip_model.stem.requires_grad_(False)
    optimizer = create_optimizer(task, config.Optim("adamw"))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(task.parameters())) - 3
    with pytest.raises(ConfigError, match="no optimiser 'lion'. Optimisers: sgd, adamw"):
        create_optimizer(task, config.Optim("lion"))


def test_loaded_state_keeps_momenta_but_not_old_settings():
    task = tiny_task()
    old = create_optimizer(task, config.Optim(weight_decay=0.1))
    for parameter in task.parameters():
        parameter.grad = torch.ones_like(parameter)
    old.step()
    new = create_optimizer(task, config.Optim(weight_decay=0.2))
    load_optimizer_state(new, old.state_dict())
    assert {group["weight_decay"] for group in new.param_groups} == {0.2, 0.0}
    parameter = next(task.parameters())
    assert torch.equal(new.state[parameter]["momentum_buffer"], old.state[parameter]["momentum_buffer"])


def test_average_follows_its_formula_and_gives_weights_back():
    module = torch.nn.BatchNorm1d(2)
    average = WeightAverage(module, 0.5)
    expected = torch.ones(2)
    for update in range(1, 9):
        with torch.no_grad():
            module.weight.add_(1.0)
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    with average.applied():
        torch.testing.assert_close(module.weight.detach(), expected)
        assert int(module.num_batches_tracked) == 0
    assert torch.equal(module.weight.detach(), torch.full((2,), 9.0))
    copy = WeightAverage(torch.nn.BatchNorm1d(2), 0.5)
    copy.load_state_dict(average.state_dict())
    assert copy.updates == 8
    torch.testing.assert_close(copy.average["weight"], expected)
    with pytest.raises(ValueError, match="module with other keys"):
        WeightAverage(torch.nn.Linear(2, 2), 0.5).load_state_dict(average.state_dict())
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1.0"):
        WeightAverage(module, 1.0)


def test_steps_divide_by_ten():
    optim = config.Optim(schedule="steps", steps=(4, 6.5), warmup=1.0, warmup_start=0.1)
    factors = {step: lr_factor(optim, step=step, steps_per_epoch=10, epochs=8) for step in (0, 10, 39, 40, 64, 65, 79)}
    assert factors == pytest.approx({0: 0.1, 10: 1.0, 39: 1.0, 40: 0.1, 64: 0.1, 65: 0.01, 79: 0.01})
