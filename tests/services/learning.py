"""Datasets, models and updates for tests, without HTTP and without a worker."""

from __future__ import annotations

from typing import Any

import numpy as np

from app import ids
from app.db import clock, touch
from app.methods.parts.statistics import Statistics
from app.schemas.models import ModelCreate
from app.schemas.updates import UpdateCreate
from app.services import jobs
from app.services.datasets import shards
from app.services.jobs import ClaimedJob, Signal
from app.services.models import models, snapshots, updates
from app.tables import Dataset, ErasedRow, Job, LedgerEntry, RestrictedRow, Version
from workers import runner

WIDTH = 4
AXES = {"ant": 0, "bee": 1, "cat": 2, "dog": 3}


def a_dataset(
    service, tenant_id, labels, *, split=None, x=None, seed=0, width=WIDTH, targets=None, **changes
):
    """A dataset of vectors near one axis per class, stored as an upload is; `labels` one per row."""
    rng = np.random.default_rng(seed)
    names = tuple(sorted({label for label in labels if label is not None}, key=str.encode))
    if x is None:
        x = 0.1 * rng.standard_normal((len(labels), width))
        for at, label in enumerate(labels):
            x[at, AXES.get(label, 0) % width] += 1
    split = np.zeros(len(labels), np.uint8) if split is None else np.asarray(split, np.uint8)
    index = np.array([-1 if label is None else names.index(label) for label in labels], np.int32)
    dataset_id = ids.new()
    stored = [
        shards.write(
            service,
            tenant_id=tenant_id,
            dataset_id=dataset_id,
            positions=np.arange(at, min(at + 8, len(labels))),
            x=np.asarray(x[at : at + 8], np.float32),
            labels=index[at : at + 8],
            names=names,
            split=split[at : at + 8],
            targets=None if targets is None else np.asarray(targets[at : at + 8], np.float64),
        )
        for at in range(0, len(labels), 8)
    ]
    counts = {
        name: {
            "train": int(np.sum((index == i) & (split == 0))),
            "eval": int(np.sum((index == i) & (split == 1))),
        }
        for i, name in enumerate(names)
    }
    with service.db.begin() as session:
        values: dict[str, Any] = {
            "id": dataset_id,
            "tenant_id": tenant_id,
            "created_at": clock(session),
            "name": "rows",
            "format": "npz",
            "kind": "rows",
            "shape": [width],
            "dtype": "float32",
            "rows": len(labels),
            "train_rows": int(np.sum(split == 0)),
            "eval_rows": int(np.sum(split == 1)),
            "has_labels": bool(names),
            "has_targets": targets is not None,
            "classes": counts,
            "report": {},
        }
        row = Dataset(**{**values, **changes})
        session.add(row)
        session.flush()
        session.add_all(stored)
    return row


def rows(**counts):
    """`rows(ant=3, bee=2)`: that many labels of each class, in turn through the classes."""
    left = dict(counts)
    labels = []
    while any(left.values()):
        for name in left:
            if left[name]:
                labels.append(name)
                left[name] -= 1
    return labels


def a_model(service, caller, **changes):
    body = {
        "name": f"model {ids.new().hex}",
        "task": "classification",
        "input": {"kind": "vector", "shape": [WIDTH]},
        **changes,
    }
    return models.create(service, caller, ModelCreate.model_validate(body))


def an_update(datasets, method="ncm", params=None, **fields):
    return UpdateCreate.model_validate(
        {
            "datasets": [ids.encode("dst", row.id) for row in datasets],
            "method": {"name": method, "params": params or {}},
            **fields,
        }
    )


def submit(service, caller, model, datasets, method="ncm", params=None, **fields):
    return updates.submit(service, caller, model.id, an_update(datasets, method, params, **fields))


def claim(service, *queues: str) -> ClaimedJob:
    """The next job of these queues (all), claimed as a worker does; there has to be one."""
    claimed = jobs.claim(service, queues or ("cpu", "gpu", "io"), "test")
    assert claimed is not None
    return claimed


def run_next(service):
    """Claim the next job and run it here, as the process that computes would; gives it as it ended."""
    claimed = claim(service)
    runner.run(service, claimed, lambda: Signal.CONTINUE)
    return job(service, claimed.id)


def run_all(service, *, may_fail=False):
    """Run every job that may begin, and those that they queue; how many. They have to succeed."""
    count = 0
    while (claimed := jobs.claim(service, ["cpu", "gpu", "io"], "test")) is not None:
        runner.run(service, claimed, lambda: Signal.CONTINUE)
        done = job(service, claimed.id)
        assert may_fail or done.state == "succeeded", done.error
        count += 1
    return count


def job(service, job_id):
    with service.db.read() as session:
        return session.get_one(Job, job_id)


def learn(service, caller, model, datasets, method="ncm", params=None, **fields):
    """Submit, run, and give the version that was published."""
    submit(service, caller, model, datasets, method, params, **fields)
    done = run_next(service)
    assert done.state == "succeeded", done.error
    with service.db.read() as session:
        return session.get_one(Version, ids.decode("ver", done.result["version_id"]))


def statistics_of(service, version) -> Statistics:
    """The statistics that a version stored; it has to have some."""
    found = snapshots.load(service, version.id, statistics=True).snapshot.statistics
    assert found is not None
    return found


def restrict(service, dataset, *positions):
    """What the receipt of a forget request writes."""
    request_id = ids.new()
    with service.db.begin() as session:
        for position in positions:
            session.add(
                RestrictedRow(
                    dataset_id=dataset.id,
                    position=position,
                    request_id=request_id,
                    tenant_id=dataset.tenant_id,
                )
            )
        touch(session)
    return request_id


def erase(service, tenant_id, dataset, *positions):
    """What the approval of a forget request writes."""
    request_id = ids.new()
    with service.db.begin() as session:
        entry = LedgerEntry(
            tenant_id=tenant_id,
            request_id=request_id,
            kind="approve",
            scope="samples",
            actor="test",
            created_at=clock(session),
        )
        session.add(entry)
        session.flush()
        for position in positions:
            session.add(
                ErasedRow(
                    dataset_id=dataset.id, position=position, sequence=entry.sequence, tenant_id=tenant_id
                )
            )
        touch(session)
    return request_id


def lift(service, tenant_id, request_id):
    """What the cancellation of an approved request writes."""
    with service.db.begin() as session:
        session.add(
            LedgerEntry(
                tenant_id=tenant_id,
                request_id=request_id,
                kind="lift",
                scope="samples",
                actor="test",
                created_at=clock(session),
            )
        )
        touch(session)
