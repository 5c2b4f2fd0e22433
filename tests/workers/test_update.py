"""One update job, from claim to publication."""

import numpy as np
import pytest
from sqlalchemy import func, select

from app import ids
from app.services import snapshots, versions
from app.tables import Version
from tests.services.learning import a_dataset, a_model, learn, rows, run_next, submit


def test_publishes_the_means_of_new_classes(service, tenant, caller):
    model = a_model(service, caller)
    data = a_dataset(service, tenant.id, rows(ant=6, bee=6, cat=6))
    version = learn(service, caller, model, [data])
    assert version.number == 1
    after = snapshots.load(service, version.id).snapshot
    assert after.classes == ("ant", "bee", "cat")
    assert {name: z.count for name, z in after.centroids.items()} == {"ant": 6, "bee": 6, "cat": 6}
