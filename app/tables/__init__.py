"""Every table, one file per subject."""

from app.tables.base import Base
from app.tables.data import Dataset, RowIndex, Sample, SampleSubject, Shard, Upload
from app.tables.erasure import (
    AuditEvent,
    Change,
    ErasedRow,
    LedgerEntry,
    LedgerTarget,
    Restore,
    RestrictedRow,
)
from app.tables.forget import (
    Certificate,
    Delivery,
    ForgetItem,
    ForgetRequest,
    ForgetTarget,
    SigningKey,
)
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
    "Certificate",
    "Change",
    "Checkpoint",
    "Dataset",
    "Decision",
    "Delivery",
    "ErasedRow",
    "Export",
    "FeatureMap",
    "ForgetItem",
    "ForgetRequest",
    "ForgetTarget",
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
    "Restore",
    "RestrictedRow",
    "RowIndex",
    "Sample",
    "SampleSubject",
    "Shard",
    "SigningKey",
    "Tenant",
    "Upload",
    "Version",
    "VersionClass",
    "VersionDataset",
]
