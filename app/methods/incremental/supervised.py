"""`supervised`: train network and head on the first classes.

Cross-entropy by stochastic gradient descent with Nesterov momentum, a short warm-up and a cosine schedule
(Loshchilov & Hutter, "SGDR", 2017). On the `normalised` grid the head reads features of length one, its
scores multiplied by a fixed scale (Wang et al., "NormFace", 2017), because that is what is stored and
served: the published head equals the trained one up to the rounding of the grid.

Images are jittered, and with `turns` every class turned by a quarter is a class of its own during training
(Lee et al., "Self-supervised Label Augmentation", 2020; Zhu et al., "PASS", 2021): the network must then
look at more than what tells the first classes apart, which is what classes that come later live on. Only
the rows of the head for images as they came are published.

Everything random comes from (seed, epoch), so a run that resumes from the checkpoint of an epoch ends with
the same bytes as one that was never interrupted, on one machine with one number of threads.
Cost: epochs * rows forward and backward passes (four times with `turns`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from app.methods import networks
from app.methods.base import (
    Context,
    Data,
    Head,
    Kind,
    Method,
    Outcome,
    Params,
    Reads,
    Rows,
    Snapshot,
    Split,
    Task,
    Unfit,
)
from app.methods.parts.augment import Jitter, quarter_turns, turns_of
from app.methods.parts.centroids import class_centroids
from app.methods.parts.features import embed
from app.methods.parts.training import batches, copied, optimizer_of, resume, set_lr, state_of

MAX_STEP_VALUES = 2**29  # float32 values inside the network in one step: 2 GiB, and again for gradients

Augmentation = Callable[[torch.Tensor, torch.Tensor, np.random.Generator], tuple[torch.Tensor, torch.Tensor]]


class SupervisedParams(Params):
    """How to train; the defaults suit small images and a few thousand rows."""

    epochs: int = Field(30, ge=1, le=500, description="Passes over the rows.")
    batch_size: int = Field(
        64, ge=8, le=1_024, description="Rows per step (about; batches are of even size)."
    )
    lr: float = Field(0.1, ge=1e-6, le=10, description="Largest learning rate, after the warm-up.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum; 0 for plain descent.")
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="L2 penalty on weights; none on biases and norms."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each label spread over all classes."
    )
    scale: float = Field(
        8.0, ge=1, le=100, description="What scores of normalised features are multiplied by in training."
    )
    shift: float = Field(0.08, ge=0, le=0.5, description="Images: moved by up to this share of their sides.")
    rotate: float = Field(10.0, ge=0, le=180, description="Images: rotated by up to so many degrees.")
    zoom: float = Field(0.1, ge=0, le=0.5, description="Images: made smaller or larger by up to this share.")
    flip: bool = Field(False, description="Images: mirrored at random; not for digits or letters.")
    turns: bool = Field(
        True,
        description="Images: learn quarter turns of each class as classes of their own. Four times the work; "
        "better features for classes that come later.",
    )


class Classifier(nn.Module):
    """Network and linear head while they train; `scale` is None where features are not normalised."""

    def __init__(self, network: nn.Module, width: int, classes: int, scale: float | None) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Linear(width, classes)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Stored rows (n, *shape) to logits (n, classes)."""
        features = self.network(x)
        if self.scale is None:
            logits: torch.Tensor = self.head(features)
            return logits
        return F.linear(F.normalize(features) * self.scale, self.head.weight, self.head.bias)


def run(before: Snapshot, data: Data, params: SupervisedParams, ctx: Context) -> Outcome:
    """Train on the rows of `new` and give the first version: network, head and centroids."""
    rows = data[Split.NEW]
    _check(before, rows, params)
    model = _model(before, len(rows.classes), params, ctx.seed)
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True):
        last = _train(model, rows, before, params, ctx)
    return _outcome(model, rows, before, params, last, ctx)


def _check(before: Snapshot, rows: Rows, params: SupervisedParams) -> None:
    if before.classes:
        raise Unfit(
            "supervised trains the first version of a model; this one knows classes already: "
            "add more with fetril or ncm",
            "/method/name",
        )
    if before.network.name == "identity":
        raise Unfit(
            "network 'identity' has nothing to train: use ncm or fetril, or a model with network 'mlp' or "
            "'convnet'",
            "/method/name",
        )
    if len(np.unique(rows.labels)) < max(2, len(rows.classes)):
        raise Unfit("supervised needs at least two classes, and rows of each", "/datasets")
    values = networks.activations(before.network, before.input) * params.batch_size * _turns(before, params)
    if values > MAX_STEP_VALUES:
        raise Unfit("a step would need too much memory: lower batch_size", "/method/params/batch_size")


def _turns(before: Snapshot, params: SupervisedParams) -> int:
    return turns_of(before.input.shape) if params.turns and before.input.kind == "image" else 1


def _model(before: Snapshot, classes: int, params: SupervisedParams, seed: int) -> Classifier:
    """From the weights of the model if it was created with some, else from the seed."""
    network = networks.seeded_build(before.network, before.input, seed)
    if before.weights:
        network.load_state_dict(dict(before.weights))
    width = networks.width(before.network, before.input)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(
            network,
            width,
            classes * _turns(before, params),
            params.scale if before.grid == "normalised" else None,
        )


def _train(
    model: Classifier, rows: Rows, before: Snapshot, params: SupervisedParams, ctx: Context
) -> dict[str, float]:
    """Train `model` in place on the device of the context. Loss and accuracy of the last epoch."""
    inputs, labels = torch.from_numpy(rows.load()), torch.tensor(rows.labels)
    augment = _augmentation(before, params, len(rows.classes))
    model.to(ctx.device).train()
    optimizer = optimizer_of(model, params.lr, params.momentum, params.weight_decay)
    first, measured = resume(model, optimizer, ctx.checkpoint, ctx.device)
    for epoch in range(first, params.epochs):
        rng = np.random.default_rng((ctx.seed, epoch))
        loss_sum, hits, seen, done = 0.0, 0, 0, epoch * len(labels)
        parts = batches(len(labels), params.batch_size, rng)
        for step, batch in enumerate(parts, start=epoch * len(parts)):
            x, y = augment(inputs[batch].to(ctx.device), labels[batch].to(ctx.device), rng)
            set_lr(optimizer, params.lr, step, len(parts), params.epochs * len(parts))
            logits = model(x)
            loss = F.cross_entropy(logits, y, label_smoothing=params.label_smoothing)
            if not torch.isfinite(loss):
                raise _diverged(epoch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.item() * len(y)
            hits += int((logits.detach().argmax(dim=1) == y).sum())
            seen += len(y)
            done += len(batch)
            measured = {"loss": loss_sum / seen, "accuracy": hits / seen}
            ctx.report(done, (params.epochs + 1) * len(labels), f"epoch {epoch + 1}", **measured)
        if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
            raise _diverged(epoch)
        if ctx.checkpoint is not None:
            ctx.checkpoint.save(state_of(model, optimizer, epoch + 1, measured))
    return measured


def _diverged(epoch: int) -> Unfit:
    return Unfit(f"training diverged in epoch {epoch + 1}: try a smaller lr", "/method/params/lr")


def _augmentation(before: Snapshot, params: SupervisedParams, classes: int) -> Augmentation:
    if before.input.kind != "image":
        return lambda x, y, _: (x, y)
    jitter = Jitter(params.shift, params.rotate, params.zoom, params.flip)

    def augment(
        x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = jitter(x, rng)
        return quarter_turns(x, y, classes) if params.turns else (x, y)

    return augment


def _outcome(
    model: Classifier,
    rows: Rows,
    before: Snapshot,
    params: SupervisedParams,
    measured: dict[str, float],
    ctx: Context,
) -> Outcome:
    """Put the rows on the grid, as they came, and publish network, head and centroids."""
    clipped: list[int] = []
    features = embed(model.network, rows.blocks(), before.grid, ctx.device, on_clipped=clipped.append)
    reported = _reported(
        features, params.epochs * len(rows.labels), (params.epochs + 1) * len(rows.labels), ctx
    )
    centroids = class_centroids(rows.labels, rows.classes, reported)
    weight = model.head.weight.detach().cpu()[: len(rows.classes)] * (model.scale or 1.0)
    bias = model.head.bias.detach().cpu()[: len(rows.classes)].clone()
    after = replace(
        before,
        weights=copied(model.network.state_dict()),
        classes=rows.classes,
        head=Head(weight, bias, normalise=before.grid == "normalised"),
        centroids=centroids,
    )
    size = sum(p.numel() for p in model.network.parameters())
    return Outcome(after, {**measured, "network_parameters": size, "clipped_values": sum(clipped)})


def _reported(
    blocks: Iterator[NDArray[np.int16]], done: int, total: int, ctx: Context
) -> Iterator[NDArray[np.int16]]:
    for block in blocks:
        done += len(block)
        ctx.report(done, total, "features")
        yield block


METHOD = Method(
    name="supervised",
    kind=Kind.UPDATE,
    tasks=frozenset({Task.CLASSIFICATION}),
    needs=frozenset({Split.NEW}),
    reads=Reads.INPUTS,
    params=SupervisedParams,
    run=run,
    summary="Trains network and head on the first classes of a model.",
    source="Loshchilov & Hutter, SGDR (ICLR 2017); Wang et al., NormFace (2017); Lee et al., Self-supervised "
    "Label Augmentation (ICML 2020)",
    trains_network=True,
)
