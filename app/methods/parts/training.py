"""What a training loop needs beside its loss: batches, optimiser, schedule, and a state to resume from."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, cos, pi
from typing import Any

import numpy as np
import torch
from torch import nn

from app.methods.base import Checkpoint


def batches(rows: int, size: int, rng: np.random.Generator) -> list[torch.Tensor]:
    """A random order in even parts: none of a single row, which batch norm refuses."""
    return [torch.from_numpy(part) for part in np.array_split(rng.permutation(rows), ceil(rows / size))]


def optimizer_of(model: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Gradient descent with Nesterov momentum; weight decay on matrices and kernels only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors},
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)


def set_lr(optimizer: torch.optim.SGD, peak: float, step: int, warmup: int, total: int) -> None:
    """Up in a straight line over the first epoch, down along half a cosine; a function of `step` alone."""
    lr = peak * min(1.0, (step + 1) / warmup) * 0.5 * (1 + cos(pi * step / total))
    for group in optimizer.param_groups:
        group["lr"] = lr


def state_of(
    model: nn.Module, optimizer: torch.optim.SGD, epoch: int, measured: dict[str, float]
) -> dict[str, torch.Tensor]:
    """All that the next epoch depends on. Copies: the caller may write them while training goes on."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        if (momentum := optimizer.state[parameter].get("momentum_buffer")) is not None:
            state[f"momentum.{name}"] = momentum
    state["epoch"] = torch.tensor(epoch)
    state |= {
        f"measured.{name}": torch.tensor(value, dtype=torch.float64) for name, value in measured.items()
    }
    return copied(state)


def resume(
    model: nn.Module, optimizer: torch.optim.SGD, checkpoint: Checkpoint | None, device: torch.device
) -> tuple[int, dict[str, float]]:
    """Load the checkpoint, if there is one: the first epoch still to do, and what the last one measured."""
    state = checkpoint.load() if checkpoint is not None else None
    if state is None:
        return 0, {}
    model.load_state_dict(_named(state, "model."))
    for name, parameter in model.named_parameters():
        if (momentum := state.get(f"momentum.{name}")) is not None:
            optimizer.state[parameter]["momentum_buffer"] = momentum.to(device).clone()
    return int(state["epoch"]), {name: value.item() for name, value in _named(state, "measured.").items()}


def copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the CPU, row-major, sharing no memory with what goes on training."""
    return {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()
    }


def _named(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
