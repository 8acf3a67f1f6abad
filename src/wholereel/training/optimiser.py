"""Parameter groups and the optimiser: what decays, and what learns at a rate of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from wholereel.config import Optim
from wholereel.errors import ConfigError
from wholereel.tasks import AnyTask
from wholereel.tasks.stream_task import StreamTask

__all__ = ["create_optimizer", "freeze", "load_optimizer_state", "param_groups", "set_lr"]


def param_groups(task: AnyTask, optim: Optim) -> list[dict[str, Any]]:
    """Trainable parameters by part (`backbone`, `memory`, `head`) and by decay.

    Norm parameters and biases (all parameters of one axis or none) do not decay.
    Returns: groups with `name`, `params`, `factor` on the learning rate and `weight_decay`; empty groups are left out.
    """
    part = {id(parameter): "backbone" for parameter in task.parameters()}
    memory = task.memory_parameters() if isinstance(task, StreamTask) else task.model.memories.parameters()
    part |= {id(parameter): "memory" for parameter in memory}
    part |= {id(parameter): "head" for parameter in task.head_parameters()}
    factors = {"backbone": 1.0, "memory": optim.memory_lr, "head": optim.head_lr}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for parameter in task.parameters():
        if parameter.requires_grad:
            groups.setdefault((part[id(parameter)], parameter.ndim > 1), []).append(parameter)
    return [
        {
            "name": name if decays else f"{name} (no decay)",
            "params": parameters,
            "factor": factors[name],
            "weight_decay": optim.weight_decay if decays else 0.0,
        }
        for (name, decays), parameters in groups.items()
    ]


def freeze(task: AnyTask, frozen: Sequence[str]) -> None:
    """Ask no gradient for parameters of the model whose names begin with one of these texts.

    Raises: ConfigError: a text that no name begins with, or nothing is left to learn.
    """
    named = dict(task.model.named_parameters())
    for beginning in frozen:
        found = [parameter for name, parameter in named.items() if name.startswith(beginning)]
        if not found or not beginning:
            names = ", ".join(list(named)[:5])
            raise ConfigError(f"optim.frozen: no parameter's name begins with {beginning!r}; names are {names}, ...")
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in task.parameters()):
        raise ConfigError(f"optim.frozen={tuple(frozen)} leaves nothing to learn.")


def create_optimizer(task: AnyTask, optim: Optim) -> Optimizer:
    """SGD or AdamW over `param_groups`; the learning rate is set at each step by `set_lr`.

    Raises: ConfigError: another name.
    """
    groups = param_groups(task, optim)
    if optim.name == "sgd":
        nesterov = optim.nesterov and optim.momentum > 0
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=nesterov)
    if optim.name == "adamw":
        return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas)
    raise ConfigError(f"there is no optimiser {optim.name!r}. Optimisers: sgd, adamw.")


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take over momenta and step counts; settings of the groups (decay, factors) stay the present ones."""
    present = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, present, strict=True):
        group.update(settings)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give each group `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
