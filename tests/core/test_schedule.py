"""Which bounds hold when: against a clock that is watched minute by minute."""

from __future__ import annotations

import itertools
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoker.api.v1alpha1 import Scaling, Schedule
from stoker.core.schedule import Bounds, bounds

MINUTE = timedelta(minutes=1)


def schedule(start: str, end: str, zone: str = "UTC", name: str = "day", **held: int) -> Schedule:
    return Schedule(name=name, time_zone=zone, start=start, end=end, **(held or {"min_replicas": 5}))


def scaling(*schedules: Schedule, least: int = 1, most: int = 10) -> Scaling:
    return Scaling(min_replicas=least, max_replicas=most, schedules=schedules)


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def opens(one: Schedule, moment: float) -> bool:
    return bool(bounds(scaling(one), moment).open)


# --- Against brute force -------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """A cron expression as sets: minutes and hours of the day, and weekdays (0 is Sunday)."""

    minutes: frozenset[int]
    hours: frozenset[int]
    weekdays: frozenset[int]

    def __str__(self) -> str:
        days = "*" if len(self.weekdays) == 7 else _listed(self.weekdays)
        return f"{_listed(self.minutes)} {_listed(self.hours)} * * {days}"

    def __contains__(self, wall: datetime) -> bool:
        day = wall.isoweekday() % 7
        return wall.minute in self.minutes and wall.hour in self.hours and day in self.weekdays


def _listed(numbers: frozenset[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


EVERY_DAY = frozenset(range(7))
times = st.builds(
    Times,
    st.frozensets(st.integers(0, 59), min_size=1, max_size=2),
    st.frozensets(st.integers(0, 4) | st.integers(0, 23), min_size=1, max_size=3),
    st.just(EVERY_DAY) | st.frozensets(st.integers(0, 6), min_size=1, max_size=4),
)
CHANGES = {
    # Zone: a time near which its clocks change; Kathmandu's do not, and are a quarter of an hour off.
    "Europe/Berlin": ("2026-03-29T01:00", "2026-10-25T01:00"),
    "America/New_York": ("2026-03-08T07:00", "2026-11-01T06:00"),
    "Australia/Lord_Howe": ("2026-04-04T15:00", "2026-10-03T15:30"),  # by half an hour
    "Asia/Kathmandu": ("2026-05-01T00:00",),
    "UTC": ("2026-02-28T12:00",),
}
moments = st.sampled_from([(zone, text) for zone, texts in CHANGES.items() for text in texts])


def watched(start: Times, end: Times, zone: ZoneInfo, since: datetime, until: datetime) -> list[bool]:
    """Whether the schedule is open, minute by minute, for one who watches a clock of the zone.

    Each time on the clock counts once: those that it skips in the minute in which it is set.
    """
    shown = since.astimezone(zone).replace(tzinfo=None) - MINUTE
    is_open, states, moment = False, [], since
    while moment < until:
        clock = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        while shown < clock:
            shown += MINUTE
            is_open = shown in start or (is_open and shown not in end)
        states.append(is_open)
        moment += MINUTE
    return states


@given(times, times, moments, st.integers(-180, 180))
@example(
    Times(frozenset({30}), frozenset({2}), EVERY_DAY),
    Times(frozenset({45}), frozenset({2}), EVERY_DAY),
    ("Europe/Berlin", "2026-03-29T01:00"),
    0,
)
def test_a_schedule_is_what_one_sees_who_watches_the_clock(start, end, change, minutes):
    name, text = change
    zone, moment = ZoneInfo(name), datetime.fromisoformat(text).replace(tzinfo=UTC) + minutes * MINUTE
    # A week and a day before, every edge has come once.
    since, until = moment - timedelta(days=8), moment + timedelta(hours=3)
    states = watched(start, end, zone, since, until)
    one = scaling(schedule(str(start), str(end), name))
    for minute in range(len(states) - 240, len(states), 7):
        found = bounds(one, (since + minute * MINUTE).timestamp())
        assert bool(found.open) == states[minute], since + minute * MINUTE
        if found.until is not None and found.until < until.timestamp():
            change_at = round((found.until - since.timestamp()) / 60)
            assert all(state == states[minute] for state in states[minute:change_at])


@given(times, times, st.sampled_from(sorted(CHANGES)), st.integers(0, 3 * 365 * 86_400))
def test_until_is_the_next_change_or_an_edge_that_changes_nothing(start, end, zone, seconds):
    now = at("2025-01-01T00:00") + seconds
    one = scaling(schedule(str(start), str(end), zone))
    found = bounds(one, now)
    assert found.until is not None
    assert found.until > now
    assert bounds(one, found.until - 1).open == found.open


# --- The days on which clocks are set ------------------------------------------------------------


class TestDaylightSaving:
    BERLIN = "Europe/Berlin"

    def test_a_start_that_is_skipped_comes_when_clocks_are_set(self):
        one = schedule("30 2 * * *", "0 6 * * *", self.BERLIN)
        assert not opens(one, at("2026-03-29T01:59:59", self.BERLIN))
        assert opens(one, at("2026-03-29T03:00:00", self.BERLIN))

    def test_a_window_of_the_skipped_hour_is_empty(self):
        one = schedule("0 2 * * *", "59 2 * * *", self.BERLIN)
        assert not any(opens(one, at("2026-03-29T00:00", self.BERLIN) + 60 * m) for m in range(23 * 60))

    def test_a_break_in_the_skipped_hour_does_not_become_a_day(self):
        one = schedule("0 3 * * *", "0 2 * * *", self.BERLIN)
        assert opens(one, at("2026-03-29T12:00", self.BERLIN))

    def test_a_window_of_the_repeated_hour_opens_once(self):
        one = schedule("0 2 * * *", "30 2 * * *", self.BERLIN)
        assert opens(one, at("2026-10-25T02:10", self.BERLIN, fold=0))
        assert not opens(one, at("2026-10-25T02:40", self.BERLIN, fold=0))
        assert not opens(one, at("2026-10-25T02:10", self.BERLIN, fold=1))

    def test_a_window_across_the_repeated_hour_is_an_hour_longer(self):
        one = schedule("0 22 * * *", "0 6 * * *", self.BERLIN)
        found = bounds(scaling(one), at("2026-10-24T22:00", self.BERLIN))
        assert found.until - at("2026-10-24T22:00", self.BERLIN) == 9 * 3600

    def test_office_hours_stay_office_hours(self):
        one = schedule("0 8 * * MON-FRI", "0 18 * * MON-FRI", "America/New_York")
        for day in ("2026-03-06", "2026-03-09"):  # the clocks change in between
            assert not opens(one, at(f"{day}T07:59", "America/New_York"))
            assert opens(one, at(f"{day}T08:00", "America/New_York"))
            assert not opens(one, at(f"{day}T18:00", "America/New_York"))

    def test_a_day_that_a_country_skipped_is_no_day(self):
        one = schedule("0 8 30 12 *", "0 18 30 12 *", "Pacific/Apia")  # went from the 29th to the 31st
        assert not opens(one, at("2011-12-31T00:00", "Pacific/Apia"))


def test_the_time_zones_come_with_the_operator():
    # A slim image has no zones of its own.
    try:
        zoneinfo.reset_tzpath(to=[])
        assert ZoneInfo.no_cache("Australia/Lord_Howe").key == "Australia/Lord_Howe"
    finally:
        zoneinfo.reset_tzpath()


class TestWindows:
    def test_across_midnight_and_the_weekend(self):
        one = schedule("0 22 * * FRI", "0 6 * * MON")
        assert [opens(one, at(f"2026-11-{day}T12:00")) for day in (27, 28, 29, 30)] == [
            False,
            True,
            True,
            False,
        ]
        assert opens(one, at("2026-11-30T05:59:59"))
        assert not opens(one, at("2026-11-30T06:00"))

    def test_a_window_that_ends_as_the_next_begins_stays_open(self):
        one = schedule("0 8,12 * * *", "0 12,18 * * *")
        assert opens(one, at("2026-11-23T12:00"))
        assert bounds(scaling(one), at("2026-11-23T12:00")).until == at("2026-11-23T18:00")

    def test_a_date_that_comes_every_four_years(self):
        one = schedule("0 0 29 2 *", "0 0 1 3 *")
        assert opens(one, at("2028-02-29T23:00"))
        assert bounds(scaling(one), at("2026-01-01T00:00")).until == at("2028-02-29T00:00")

    def test_seconds_do_not_matter(self):
        one = schedule("0 8 * * *", "0 18 * * *")
        assert not opens(one, at("2026-11-23T07:59:59") + 0.999)
        assert opens(one, at("2026-11-23T08:00:00"))


# --- Several -------------------------------------------------------------------------------------

NOON = at("2026-11-23T12:00")


def always(name: str, **held: int) -> Schedule:
    return schedule("0 0 * * *", "59 23 * * *", name=name, **held)


class TestSeveral:
    def test_without_schedules_the_spec_s_own(self):
        assert bounds(scaling(), NOON) == Bounds(1, 10)

    def test_a_closed_one_changes_nothing_and_is_awaited(self):
        found = bounds(scaling(schedule("0 20 * * *", "0 22 * * *")), NOON)
        assert found == Bounds(1, 10, until=at("2026-11-23T20:00"))

    def test_the_highest_minimum_and_the_lowest_maximum(self):
        found = bounds(
            scaling(
                always("a", min_replicas=3, max_replicas=9),
                always("b", min_replicas=4),
                always("c", max_replicas=7),
            ),
            NOON,
        )
        assert (found.least, found.least_by) == (4, "schedules[b].minReplicas")
        assert (found.most, found.most_by) == (7, "schedules[c].maxReplicas")
        assert found.open == ("a", "b", "c")
        assert found.conflict == ""

    def test_a_schedule_may_go_beyond_both_bounds_of_the_spec(self):
        found = bounds(scaling(always("a", min_replicas=0, max_replicas=50), least=2), NOON)
        assert (found.least, found.most) == (0, 50)

    def test_contradiction_is_settled_for_the_minimum_and_said(self):
        found = bounds(scaling(always("peak", min_replicas=6), always("cap", max_replicas=4)), NOON)
        assert (found.least, found.most) == (6, 6)
        assert found.conflict == (
            "schedules[peak].minReplicas is 6 and schedules[cap].maxReplicas is 4: the minimum counts"
        )

    def test_until_is_the_first_change_of_any(self):
        found = bounds(
            scaling(always("a", min_replicas=2), schedule("0 15 * * *", "0 16 * * *", name="b")), NOON
        )
        assert found.until == at("2026-11-23T15:00")

    @given(
        st.lists(
            st.tuples(st.none() | st.integers(0, 20), st.none() | st.integers(0, 20)).filter(
                lambda held: held != (None, None)
            ),
            max_size=4,
        ),
        st.integers(0, 5),
        st.integers(5, 20),
    )
    def test_each_minimum_is_kept_and_each_maximum_unless_a_minimum_forbids(self, held, least, most):
        made = [
            always(
                f"s{n}",
                **{
                    k: v for k, v in zip(("min_replicas", "max_replicas"), pair, strict=True) if v is not None
                },
            )
            for n, pair in enumerate(held)
        ]
        found = bounds(scaling(*made, least=least, most=most), NOON)
        assert found.least <= found.most
        assert all(found.least >= low for low, _ in held if low is not None)
        above = [high for _, high in held if high is not None and found.most > high]
        assert bool(found.conflict) or not above
        assert all(found.most == found.least for _ in above)

    def test_the_order_of_the_list_does_not_matter(self):
        some = (always("a", min_replicas=2), always("b", max_replicas=3), always("c", min_replicas=4))
        results = {
            (f.least, f.most, f.until)
            for order in itertools.permutations(some)
            for f in [bounds(scaling(*order), NOON)]
        }
        assert len(results) == 1


class TestApplied:
    HELD = Bounds(5, 8, "schedules[a].minReplicas", "schedules[a].maxReplicas", ("a",), NOON)

    def test_the_section_with_the_bounds_of_the_moment(self):
        spec = scaling(least=2, most=4)
        found = self.HELD.applied(spec)
        assert (found.min_replicas, found.max_replicas) == (5, 8)
        assert (spec.min_replicas, spec.max_replicas) == (2, 4)

    def test_the_very_same_section_while_none_is_open(self):
        spec = scaling(least=2, most=4)
        assert Bounds(2, 4).applied(spec) is spec

    def test_a_decision_names_the_schedule_and_its_end(self):
        assert self.HELD.named("minReplicas", "minReplicas is 5") == (
            "schedules[a].minReplicas",
            "minReplicas is 5 (schedules[a].minReplicas until 2026-11-23T12:00Z)",
        )

    def test_what_no_schedule_limited_stays_as_it_is(self):
        assert self.HELD.named("windows.up", "waiting") == ("windows.up", "waiting")
        assert Bounds(2, 4).named("minReplicas", "so") == ("minReplicas", "so")


@pytest.mark.parametrize("zone", sorted(CHANGES))
def test_a_year_of_midnights_opens_a_year_of_days(zone):
    one = scaling(schedule("0 0 * * *", "0 12 * * *", zone))
    now, opened = at("2026-01-01T00:00", zone), 0
    while now < at("2027-01-01T00:00", zone):
        found = bounds(one, now)
        opened += bool(found.open)
        now = found.until
    assert opened == 365
