"""Names of classes: which are one, which look like one."""

import pytest

from app.errors import ClassNameConflict
from app.services.models import classes, models
from tests.services.learning import a_dataset, a_model, learn, rows


@pytest.fixture
def stack():
    return "embedded"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ant", "ant"),  # case
        ("STRASSE", "straße"),  # case folding that changes the length
        ("caf\u00e9", "cafe\u0301"),  # NFC, NFD
        ("\u0430nt", "ant"),  # Cyrillic a
        ("be\u0435", "bee"),  # Cyrillic e
        ("\u039f", "O"),  # Greek capital omicron
        ("\u03c1ig", "pig"),  # Greek rho
        ("ＡＮＴ", "ant"),  # full width
        ("\u0130", "i"),  # Latin capital I with a dot
        ("\U0001d41a", "a"),  # mathematical bold
    ],
)
def test_gives_one_key_to_names_that_look_alike(one, other):
    assert classes.name_key(one) == classes.name_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("ant", "aunt"), ("0", "O"), ("1", "l"), ("犬", "太"), ("é", "e"), ("🐜", "🐝"), ("م", "ن")],
)
def test_keeps_names_apart_that_can_be_told_apart(one, other):
    assert classes.name_key(one) != classes.name_key(other)


def test_gives_a_key_of_its_own_to_every_digit_and_letter():
    names = [*"0123456789abcdefghijklmnopqrstuvwxyz"]
    assert len({classes.name_key(name) for name in names}) == len(names)


def test_orders_classes_by_the_bytes_of_their_names():
    assert classes.byte_order(["b", "é", "a", "Z", "10", "9"]) == ("10", "9", "Z", "a", "b", "é")


@pytest.fixture
def model(service, tenant, caller):
    created = a_model(service, caller)
    learn(service, caller, created, [a_dataset(service, tenant.id, rows(ant=2, bee=2))])
    return created


def names_checked(service, tenant, model, name, *, extend):
    with service.db.read() as session:
        row = models.get(session, tenant.id, model.id)
        return classes.check_names(session, row, {name: "/datasets/0"}, extend=extend)


def test_refuses_a_known_class_unless_it_may_grow(service, tenant, model):
    with pytest.raises(ClassNameConflict) as refused:
        names_checked(service, tenant, model, "ant", extend=False)
    assert refused.value.errors[0].pointer == "/datasets/0"
    assert "cls_" in refused.value.related[0]
    assert list(names_checked(service, tenant, model, "ant", extend=True)) == ["ant"]


@pytest.mark.parametrize("name", ["Ant", "\u0430nt"])
def test_refuses_a_look_alike_of_a_class_in_any_case(service, tenant, model, name):
    with pytest.raises(ClassNameConflict, match="looks like 'ant'"):
        names_checked(service, tenant, model, name, extend=True)


def test_takes_a_new_name(service, tenant, model):
    assert names_checked(service, tenant, model, "cat", extend=False) == {}
