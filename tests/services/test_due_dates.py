"""When requests are due: calendar months, zones, and what is urgent."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from app.config import Forget
from app.services.forget import due


def utc(year, month, day, hour=0, minute=0):
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("asked", "zone", "expected"),
    [
        (utc(2026, 1, 15, 9), "UTC", utc(2026, 2, 15, 9)),
        (utc(2026, 1, 31, 9), "UTC", utc(2026, 2, 28, 9)),
        (utc(2028, 1, 31, 9), "UTC", utc(2028, 2, 29, 9)),
        (utc(2026, 12, 31, 9), "UTC", utc(2027, 1, 31, 9)),
        # in Berlin it is the 31st already, and summer time begins before the month is over
        (utc(2026, 1, 30, 23, 30), "Europe/Berlin", utc(2026, 2, 27, 23, 30)),
        (utc(2026, 3, 15, 9), "Europe/Berlin", utc(2026, 4, 15, 8)),
        # in Auckland it is the 1st, in UTC still the 31st
        (utc(2026, 1, 31, 12), "Pacific/Auckland", utc(2026, 2, 28, 12)),
    ],
)
def test_gdpr_gives_a_calendar_month_of_the_zone(asked, zone, expected):
    assert due.by_law("gdpr", asked, zone) == due.by_law(None, asked, zone) == expected


def test_gdpr_is_extended_from_the_day_it_was_asked():
    asked = utc(2026, 1, 31, 9)
    first = due.by_law("gdpr", asked, "UTC")
    assert due.extended("gdpr", asked, first, "UTC", 1) == utc(2026, 3, 31, 9)
    assert due.extended("gdpr", asked, first, "UTC", 2) == utc(2026, 4, 30, 9)
    assert due.extended("gdpr", asked, utc(2026, 2, 10), "UTC", 2) == utc(2026, 4, 10)  # one of its own


def test_ccpa_gives_45_days_and_90_with_notice():
    asked = utc(2026, 1, 1)
    first = due.by_law("ccpa", asked, "UTC")
    assert first == asked + timedelta(days=45)
    assert due.extended("ccpa", asked, first, "UTC", 2) == asked + timedelta(days=90)


def test_urgency_rises_as_the_day_comes_near_and_most_when_it_has_passed():
    now = utc(2026, 1, 1)
    left = [30, 14, 7, 2, 0, -5]
    assert [due.urgency(now + timedelta(days=days), now) for days in left] == [0, -1, -2, -3, -4, -4]


def test_a_zone_that_there_is_not_stops_start_up():
    with pytest.raises(ValidationError, match="no time zone"):
        Forget(time_zone="Mars/Olympus")
