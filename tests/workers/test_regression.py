"""Models of task regression: learned exactly, predicted, measured, taken out."""

import asyncio
import json

import numpy as np
import pytest
from sqlalchemy import func, select

from app.errors import UnsupportedTask, ValidationFailed
from app.methods.parts.grid import quantise
from app.schemas.models import GRID
from app.services.memory import Memory
from app.services.models import artifacts, snapshots
from app.services.predictions.predict import Ask, Predictor
from app.services.predictions.turns import at_once
from app.tables import VersionClass
from tests.conftest import STACKS
from tests.services.learning import a_dataset, a_model, learn, run_next, submit

WIDTH = 5
STEP = 2.0**-8

both_stacks = pytest.mark.parametrize("stack", STACKS, indirect=True)


@pytest.fixture
def stack(request):
    return getattr(request, "param", "embedded")


@pytest.fixture
def model(service, caller):
    return a_regression(service, caller)


def a_regression(service, caller, **changes):
    spec = {"kind": "table", "shape": [WIDTH], "grid": {"exponent": -8}, "target": {"exponent": -8}}
    return a_model(service, caller, task="regression", input=spec, **changes)


def measured(rows=60, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, WIDTH)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5, 0.0, 3.0]) + 4 + 0.1 * rng.standard_normal(rows)
    return x, y


def sent(service, tenant, x, y, **changes):
    return a_dataset(
        service, tenant.id, [None] * len(x), x=x, targets=y, width=WIDTH, kind="table", **changes
    )


def ridge(x, y, k=-4):
    """Weights and intercept of centred ridge regression in float64, on the grid, by the normal equations."""
    z = quantise(x, parse_grid(-8))[0].astype(np.float64)
    t = np.rint(y / STEP)
    n = len(z)
    gram = n * z.T @ z - np.outer(z.sum(0), z.sum(0))
    j = int(np.floor(np.log2(np.trace(gram) / z.shape[1])))
    weight = np.linalg.solve(gram + 2.0 ** (j + k) * np.eye(z.shape[1]), n * z.T @ t - z.sum(0) * t.sum())
    return weight, (t.mean() - z.mean(0) @ weight) * STEP


def parse_grid(exponent):
    return GRID.validate_python({"exponent": exponent})


def test_weights_are_those_of_centred_ridge_regression(service, tenant, caller, model):
    x, y = measured()
    version = learn(service, caller, model, [sent(service, tenant, x, y)], "ridge_regression")
    head = snapshots.load(service, version.id).snapshot.head
    assert head is not None
    weight, bias = ridge(x, y)
    np.testing.assert_allclose(head.weight[0].numpy(), weight, rtol=1e-6)
    np.testing.assert_allclose(head.bias.numpy(), [bias], rtol=1e-6)


@both_stacks
@pytest.mark.parametrize("changes", [{}, {"expansion": {"width": 16, "seed": 1}}, {"ridge": "gcv"}])
def test_updates_in_another_order_equal_joint_training(service, tenant, caller, changes):
    x, y = measured()
    joint = a_regression(service, caller, **changes)
    at_once_ = learn(service, caller, joint, [sent(service, tenant, x, y)], "ridge_regression")
    apart = a_regression(service, caller, **changes)
    order = np.random.default_rng(2).permutation(len(x))
    for part in np.array_split(order, 3):
        last = learn(service, caller, apart, [sent(service, tenant, x[part], y[part])], "ridge_regression")
    digests = [service.vault.key(version.key_id).digests for version in (at_once_, last)]
    assert digests[0]["weights"] == digests[1]["weights"]
    assert digests[0]["statistics"] == digests[1]["statistics"]


def test_it_is_measured_on_rows_that_it_never_learned(service, tenant, caller, model):
    x, y = measured()
    split = np.arange(60) % 3 == 2
    version = learn(service, caller, model, [sent(service, tenant, x, y, split=split)], "ridge_regression")
    weight, bias = ridge(x[~split], y[~split])
    guess = quantise(x[split], parse_grid(-8))[0] * STEP @ weight + bias
    error = guess - y[split]
    assert version.metrics == {
        "rows": 20,
        "r2": pytest.approx(1 - (error**2).sum() / ((y[split] - y[split].mean()) ** 2).sum(), rel=1e-5),
        "rmse": pytest.approx((error**2).mean() ** 0.5, rel=1e-5),
        "mae": pytest.approx(np.abs(error).mean(), rel=1e-5),
    }


def test_it_has_neither_classes_nor_centroids(service, tenant, caller, model):
    version = learn(service, caller, model, [sent(service, tenant, *measured())], "ridge_regression")
    after = snapshots.load(service, version.id).snapshot
    assert (after.classes, dict(after.centroids)) == ((), {})
    with service.db.read() as session:
        query = select(func.count()).select_from(VersionClass).filter_by(version_id=version.id)
        assert session.scalar(query) == 0


def predicted(service, caller, model, ask):
    memory = Memory(service.db, 60)
    memory.start()
    predictor = Predictor(service, memory)
    try:
        return json.loads(asyncio.run(predictor.predict(caller, model.id, at_once(lambda: ask), 1)))
    finally:
        predictor.close()
        memory.stop()


def test_predictions_are_values(service, tenant, caller, model):
    x, y = measured()
    learn(service, caller, model, [sent(service, tenant, x, y)], "ridge_regression")
    answer = predicted(service, caller, model, Ask(x[:7]))
    weight, bias = ridge(x, y)
    values = [row["value"] for row in answer["predictions"]]
    np.testing.assert_allclose(values, quantise(x[:7], parse_grid(-8))[0] * STEP @ weight + bias, rtol=1e-5)
    assert all(set(row) == {"value"} for row in answer["predictions"])


def test_a_regression_has_no_best_classes(service, tenant, caller, model):
    x, y = measured()
    learn(service, caller, model, [sent(service, tenant, x, y)], "ridge_regression")
    with pytest.raises(ValidationFailed):
        predicted(service, caller, model, Ask(x[:1], top_k=2))


def test_an_artifact_of_it_has_one_row_and_no_classes(service, tenant, caller, model):
    version = learn(service, caller, model, [sent(service, tenant, *measured())], "ridge_regression")
    taken = artifacts.export(service, caller, model.id, version.number, None)
    assert b'"classes": []' in b"".join(taken.parts)


def test_a_target_outside_the_grid_is_refused(service, tenant, caller, model):
    x, y = measured()
    y[3] = 987654321.0
    datasets = [sent(service, tenant, *measured(seed=1)), sent(service, tenant, x, y)]
    submit(service, caller, model, datasets, "ridge_regression")
    done = run_next(service)
    assert (done.state, done.error["cause"]) == ("failed", "invalid-input")
    assert "position 3" in done.error["detail"]
    assert "987654321" not in str(done.error)
    assert [fault["pointer"] for fault in done.error["errors"]] == ["/datasets/1"]


def test_rows_without_targets_are_refused(service, tenant, caller, model):
    x, _y = measured()
    with pytest.raises(ValidationFailed) as error:
        submit(
            service,
            caller,
            model,
            [a_dataset(service, tenant.id, ["ant"] * 60, x=x, width=WIDTH)],
            "ridge_regression",
        )
    assert error.value.errors[0].pointer == "/datasets/0"


def test_a_classifier_method_does_not_serve_it(service, tenant, caller, model):
    with pytest.raises(UnsupportedTask):
        submit(service, caller, model, [sent(service, tenant, *measured())], "analytic")


def test_the_grid_of_targets_is_for_regressions(service, caller):
    spec = {"kind": "table", "shape": [WIDTH]}
    with pytest.raises(ValidationFailed) as error:
        a_model(service, caller, task="regression", input=spec)
    assert error.value.errors[0].pointer == "/input/target"
    with pytest.raises(ValidationFailed):
        a_model(service, caller, input={**spec, "target": {"exponent": -4}})
