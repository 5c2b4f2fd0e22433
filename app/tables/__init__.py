"""Every table, one file per subject."""

from app.tables.base import Base
from app.tables.data import Dataset, Sample, SampleSubject, Shard, Upload
from app.tables.erasure import AuditEvent, Change, ErasedRow, LedgerEntry, LedgerTarget, RestrictedRow
from app.tables.jobs import Checkpoint, Holder, Job, JobDataset, JobEvent
from app.tables.models import (
    Alias,
    AliasMove,
    Centroid,
    Export,
    FeatureMap,
    Model,
    ModelClass,
    Version,
    VersionClass,
    VersionDataset,
)
from app.tables.policies import Decision, Offer
from app.tables.tenants import ApiKey, IdempotencyRecord, Tenant

__all__ = [
    "Alias",
    "AliasMove",
    "ApiKey",
    "AuditEvent",
    "Base",
    "Centroid",
    "Change",
    "Checkpoint",
    "Dataset",
    "Decision",
    "ErasedRow",
    "Export",
    "FeatureMap",
    "Holder",
    "IdempotencyRecord",
    "Job",
    "JobDataset",
    "JobEvent",
    "LedgerEntry",
    "LedgerTarget",
    "Model",
    "ModelClass",
    "Offer",
    "RestrictedRow",
    "Sample",
    "SampleSubject",
    "Shard",
    "Tenant",
    "Upload",
    "Version",
    "VersionClass",
    "VersionDataset",
]
