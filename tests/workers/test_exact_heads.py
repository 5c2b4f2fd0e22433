"""Heads that learn exactly, through the service: statistics per version, and what they are made from."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete

from app import ids
from app.errors import ClassNameConflict, MissingData, ValidationFailed, VersionTainted
from app.methods.parts import statistics as exact
from app.methods.parts.expansion import Expansion, expand, longest_row
from app.methods.parts.grid import quantise
from app.services.models import snapshots, versions
from app.tables import Dataset, Model, ModelClass, RestrictedRow, VersionDataset
from tests.conftest import STACKS
from tests.services.learning import (
    a_dataset,
    a_model,
    erase,
    learn,
    restrict,
    rows,
    run_next,
    submit,
)
from tests.services.test_snapshots import flip

DOC = Path(__file__).parents[2] / "docs" / "exact-heads.md"
WIDTH = 6
EXPANSION = {"width": 24, "seed": 3}

both_stacks = pytest.mark.parametrize("stack", STACKS, indirect=True)


@pytest.fixture
def stack(request):
    return getattr(request, "param", "embedded")


@pytest.fixture
def model(service, caller):
    return an_exact_model(service, caller)


def an_exact_model(service, caller, **changes):
    shape = {"kind": "vector", "shape": [WIDTH]}
    return a_model(service, caller, **{"input": shape, "expansion": EXPANSION, **changes})


def many(seed=0):
    """Labels and rows of four classes, unevenly many of each."""
    labels = rows(ant=11, bee=7, cat=5, dog=9)
    x = np.random.default_rng(seed).standard_normal((len(labels), WIDTH)).astype(np.float32)
    x[np.arange(len(labels)), [ord(name[0]) % WIDTH for name in labels]] += 2
    return labels, x


def sent(service, tenant, labels, x, index, **changes):
    chosen = [labels[i] for i in index]
    return a_dataset(service, tenant.id, chosen, x=x[index], width=WIDTH, **changes)


def some(service, tenant):
    """A dataset of twenty rows."""
    labels, x = many()
    return sent(service, tenant, labels, x, np.arange(20))


def digests(service, version):
    key = service.vault.key(version.key_id)
    return key.digests["statistics"], key.digests["weights"]


def reference(labels, x, expansion=EXPANSION):
    """The statistics of rows, from the rows themselves."""
    names = tuple(sorted(set(labels)))
    grid, _ = quantise(x, "normalised")
    index = np.array([names.index(name) for name in labels])
    if expansion is None:
        return exact.accumulate(names, index, [grid], WIDTH)
    found = Expansion(**expansion)
    wide = expand(grid, found, longest_row(WIDTH, True))
    return exact.accumulate(names, index, [wide], found.width, found)


@both_stacks
@pytest.mark.parametrize("method", ["analytic", "lda", "naive_bayes"])
def test_three_mixed_updates_in_another_order_equal_joint_training(service, tenant, caller, method):
    labels, x = many()
    joint = an_exact_model(service, caller)
    every = sent(service, tenant, labels, x, np.arange(len(labels)))
    at_once = learn(service, caller, joint, [every], method)

    apart = an_exact_model(service, caller)
    order = np.random.default_rng(4).permutation(len(labels))
    for part in np.array_split(order, 3):
        data = sent(service, tenant, labels, x, part)
        last = learn(service, caller, apart, [data], method, on_conflict="extend")

    assert digests(service, last) == digests(service, at_once)
    assert digests(service, last)[0] == reference(labels, x).digest()
    assert last.id != at_once.id


@both_stacks
def test_statistics_of_a_parent_that_kept_none_come_from_stored_rows(service, tenant, caller, model):
    labels, x = many()
    parts = np.array_split(np.arange(len(labels)), 4)
    methods = ("ncm", "analytic", "teen", "analytic")
    made = [
        learn(service, caller, model, [sent(service, tenant, labels, x, part)], method, on_conflict="extend")
        for part, method in zip(parts, methods, strict=True)
    ]
    assert [version.statistics_file_id is not None for version in made] == [False, True, False, True]
    assert digests(service, made[1])[0] == reference(labels[:16], x[:16]).digest()
    assert digests(service, made[3])[0] == reference(labels, x).digest()


def test_rows_that_trained_the_network_are_in_the_statistics(service, tenant, caller):
    network = {"name": "mlp", "params": {"hidden": [8]}}
    model = a_model(service, caller, network=network, expansion=EXPANSION)
    first = a_dataset(service, tenant.id, rows(ant=6, bee=6))
    learn(service, caller, model, [first], "supervised", {"epochs": 1, "batch_size": 8})
    second = learn(service, caller, model, [a_dataset(service, tenant.id, rows(cat=4))], "analytic")
    found = snapshots.load(service, second.id, statistics=True).snapshot.statistics
    assert found is not None
    assert dict(zip(found.classes, found.counts, strict=True)) == {"ant": 6, "bee": 6, "cat": 4}


def test_a_row_that_the_parent_left_out_comes_in_once_when_it_is_free(service, tenant, caller, model):
    labels, x = many()
    data = sent(service, tenant, labels, x, np.arange(len(labels)))
    request = restrict(service, data, 2, 5)
    learn(service, caller, model, [data], "analytic")
    release(service, request)
    learn(service, caller, model, [data], "ncm", on_conflict="extend")
    last = learn(service, caller, model, [], "lda")
    assert digests(service, last)[0] == reference(labels, x).digest()


def release(service, request_id):
    with service.db.begin() as session:
        session.execute(delete(RestrictedRow).where(RestrictedRow.request_id == request_id))


@both_stacks
@pytest.mark.parametrize("method", ["analytic", "teen"])
def test_another_head_of_the_same_rows_costs_no_row(service, tenant, caller, method, monkeypatch):
    labels, x = many()
    model = an_exact_model(service, caller)
    data = sent(service, tenant, labels, x, np.arange(len(labels)), split=[0] * 28 + [1] * 4)
    learn(service, caller, model, [data], "analytic" if method != "analytic" else "lda")
    again = learn(service, caller, model, [], method)

    direct = learn(service, caller, an_exact_model(service, caller), [data], method)
    mine, theirs = (service.vault.key(version.key_id).digests for version in (again, direct))
    assert mine["weights"] == theirs["weights"]
    assert mine.get("statistics") == theirs.get("statistics")
    assert again.metrics["rows"] == 4  # measured again
    assert again.metrics["per_class"] == direct.metrics["per_class"]
    assert uses(service, again) == {(data.id, "train", True), (data.id, "evaluate", False)}


def uses(service, version):
    with service.db.read() as session:
        found = session.query(VersionDataset).filter_by(version_id=version.id)
        return {(edge.dataset_id, edge.role, edge.inherited) for edge in found}


@pytest.mark.parametrize("method", ["fetril", "supervised"])
def test_a_method_that_needs_rows_refuses_none(service, tenant, caller, model, method):
    learn(service, caller, model, [some(service, tenant)], "analytic")
    with pytest.raises(MissingData) as error:
        submit(service, caller, model, [], method)
    assert error.value.errors[0].pointer in ("/datasets", "/method/name")


def test_a_model_without_versions_has_no_head_to_remake(service, caller, model):
    with pytest.raises(MissingData) as error:
        submit(service, caller, model, [], "analytic")
    assert error.value.errors[0].pointer == "/datasets"


def test_statistics_that_cannot_be_made_any_more_are_missing_data(service, tenant, caller, model):
    data = some(service, tenant)
    learn(service, caller, model, [data], "ncm")
    with service.db.begin() as session:
        row = session.get_one(Dataset, data.id)
        row.deleted_at = row.created_at
    with pytest.raises(MissingData) as error:
        submit(service, caller, model, [], "analytic")
    assert ids.encode("dst", data.id) in error.value.detail


def test_rows_that_an_ancestor_summed_need_not_be_there_any_more(service, tenant, caller, model):
    labels, x = many()
    parts = np.array_split(np.arange(len(labels)), 3)
    data = [sent(service, tenant, labels, x, part) for part in parts]
    for one, method in zip(data[:2], ("lda", "ncm"), strict=True):
        learn(service, caller, model, [one], method, on_conflict="extend")
    with service.db.begin() as session:
        row = session.get_one(Dataset, data[0].id)
        row.deleted_at = row.created_at
    last = learn(service, caller, model, [data[2]], "analytic", on_conflict="extend")
    assert digests(service, last)[0] == reference(labels, x).digest()


def test_an_update_reads_new_rows_and_the_stored_statistics_only(service, tenant, caller, monkeypatch):
    read = {}
    for past in (24, 240):
        model = an_exact_model(service, caller)
        rng = np.random.default_rng(past)
        labels = [("ant", "bee", "cat")[i % 3] for i in range(past)]
        old = sent(service, tenant, labels, rng.standard_normal((past, WIDTH)), np.arange(past))
        learn(service, caller, model, [old], "analytic")
        new = sent(service, tenant, ["ant"] * 8, rng.standard_normal((8, WIDTH)), np.arange(8))
        with monkeypatch.context() as patch:
            sizes: list[int] = []
            opened = service.vault.open

            def counted(id, key, opened=opened, sizes=sizes):
                raw = opened(id, key)
                sizes.append(len(raw))
                return raw

            patch.setattr(service.vault, "open", counted)
            learn(service, caller, model, [new], "analytic", on_conflict="extend")
        read[past] = sorted(sizes)
    assert read[24] == read[240]


def test_a_retired_class_takes_no_rows(service, tenant, caller, model):
    labels, x = many()
    learn(service, caller, model, [sent(service, tenant, labels, x, np.arange(16))], "analytic")
    with service.db.begin() as session:
        row = session.query(ModelClass).filter_by(model_id=model.id, name="bee").one()
        row.retired_at = row.created_at
    with pytest.raises(ClassNameConflict):
        submit(
            service,
            caller,
            model,
            [sent(service, tenant, labels, x, np.arange(16, 32))],
            "analytic",
            on_conflict="extend",
        )


def test_statistics_of_another_expansion_are_refused(service, tenant, caller, model):
    labels, x = many()
    learn(service, caller, model, [sent(service, tenant, labels, x, np.arange(16))], "analytic")
    with service.db.begin() as session:
        session.get_one(Model, model.id).expansion = {"width": 24, "seed": 4}
    submit(
        service,
        caller,
        model,
        [sent(service, tenant, labels, x, np.arange(16, 32))],
        "analytic",
        on_conflict="extend",
    )
    done = run_next(service)
    assert done.state == "failed"
    assert done.error["cause"] == "invalid-input"
    assert done.error["errors"][0]["pointer"] == "/base"


@pytest.mark.parametrize("expansion", [EXPANSION, None])
def test_the_lines_of_the_document_give_the_digest_of_a_version(service, tenant, caller, expansion):
    [code] = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(DOC), "exec"), names)
    labels, x = many()
    model = an_exact_model(service, caller, expansion=expansion)
    version = learn(service, caller, model, [sent(service, tenant, labels, x, np.arange(32))], "lda")
    assert names["digest"](x, labels, expansion) == digests(service, version)[0]


def test_a_tampered_file_of_statistics_is_found(service, tenant, caller, model):
    data = some(service, tenant)
    version = learn(service, caller, model, [data], "analytic")
    flip(service.vault.files._path(version.statistics_file_id))
    submit(service, caller, model, [], "lda")
    done = run_next(service)
    assert (done.state, done.error["cause"]) == ("failed", "artifact-corrupt")
    assert snapshots.load(service, version.id).snapshot.head is not None  # it predicts all the same


def test_teen_chooses_on_the_evaluation_dataset_and_says_so(service, tenant, caller):
    labels, x = many()
    judge = sent(service, tenant, labels, x, np.arange(len(labels)))
    model = an_exact_model(service, caller, evaluation=ids.encode("dst", judge.id))
    more, y = many(seed=7)
    base = sent(service, tenant, more * 2, np.concatenate([y, y + 0.1]), np.arange(2 * len(more)))
    learn(service, caller, model, [base], "ncm")
    few = a_dataset(service, tenant.id, ["eel", "eel"], width=WIDTH, seed=5)
    chosen = learn(service, caller, model, [few], "teen", {"choose": True, "shots": 5})
    assert (judge.id, "select", False) in uses(service, chosen)
    given = learn(service, caller, model, [], "teen", {"shots": 5})
    assert (judge.id, "select", True) in uses(service, given)  # of an ancestor


def test_choosing_needs_an_evaluation_dataset(service, tenant, caller, model):
    learn(service, caller, model, [some(service, tenant)], "ncm")
    with pytest.raises(ValidationFailed) as error:
        submit(service, caller, model, [], "teen", {"choose": True})
    assert error.value.errors[0].pointer == "/evaluation"


def test_a_version_shows_the_digest_of_its_statistics(service, tenant, caller, model):
    labels, x = many()
    version = learn(service, caller, model, [sent(service, tenant, labels, x, np.arange(32))], "analytic")
    shown = versions.read_one(service, caller.tenant_id, model.id, version.number).digests
    assert shown["statistics"] == reference(labels, x).digest()
    assert set(shown) == {"file", "statistics_file", "statistics", "weights"}


def test_a_tainted_base_gives_no_statistics(service, tenant, caller, model):
    data = some(service, tenant)
    learn(service, caller, model, [data], "analytic")
    erase(service, tenant.id, data, 3)
    with pytest.raises(VersionTainted):
        submit(service, caller, model, [], "lda")
