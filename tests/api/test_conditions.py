"""Conditions flip only when they flip, and Ready names the cause that one can act on."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from stoker.api.conditions import (
    ConditionType,
    Reason,
    find,
    ready_condition,
    reference_markdown,
    set_condition,
)
from stoker.api.reasons import GUIDES
from stoker.api.v1alpha1 import Condition, ConditionStatus

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def condition(kind, status, reason=Reason.SERVING, message="", at=NOON, generation=1):
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=at,
        observed_generation=generation,
    )


ACCEPTED = condition(ConditionType.ACCEPTED, TRUE, Reason.ACCEPTED)
AVAILABLE = condition(ConditionType.AVAILABLE, TRUE, Reason.SERVING, "2 of 2 serve")


class TestSetCondition:
    def test_the_first_one_is_taken_as_it_is(self):
        assert set_condition((), ACCEPTED) == (ACCEPTED,)

    def test_the_time_stays_while_the_status_stays(self):
        later = condition(
            ConditionType.ACCEPTED, TRUE, Reason.ACCEPTED, "other", NOON + timedelta(hours=1), generation=2
        )
        (kept,) = set_condition((ACCEPTED,), later)
        assert kept.last_transition_time == NOON
        assert (kept.message, kept.observed_generation) == ("other", 2)

    @pytest.mark.parametrize("status", [FALSE, UNKNOWN])
    def test_the_time_moves_when_the_status_flips(self, status):
        later = condition(ConditionType.ACCEPTED, status, at=NOON + timedelta(hours=1))
        assert set_condition((ACCEPTED,), later) == (later,)

    def test_others_are_left_alone_and_the_order_is_always_the_same(self):
        new = [condition(kind, TRUE) for kind in ConditionType]
        for shuffled in itertools.permutations(new, 6):
            conditions: tuple[Condition, ...] = ()
            for one in shuffled:
                conditions = set_condition(conditions, one)
            assert conditions == tuple(new)

    def test_a_condition_of_a_later_release_is_kept_at_the_end(self):
        foreign = condition("Later", TRUE)
        assert set_condition((foreign,), ACCEPTED) == (ACCEPTED, foreign)

    def test_setting_twice_is_setting_once(self):
        once = set_condition((ACCEPTED,), AVAILABLE)
        assert set_condition(once, AVAILABLE) == once


class TestFind:
    def test_one_that_was_never_set_is_none(self):
        assert find((ACCEPTED,), ConditionType.READY) is None
        assert find((ACCEPTED,), ConditionType.ACCEPTED) is ACCEPTED


class TestReady:
    def test_accepted_and_available_is_ready_for_the_reason_of_available(self):
        assert ready_condition((ACCEPTED, AVAILABLE)) == (TRUE, Reason.SERVING, "2 of 2 serve")

    def test_a_refused_spec_comes_before_all_else(self):
        refused = condition(ConditionType.ACCEPTED, FALSE, Reason.INVALID_SPEC, "spec.x")
        down = condition(ConditionType.AVAILABLE, FALSE, Reason.CRASH_LOOP)
        assert ready_condition((refused, down)) == (FALSE, Reason.INVALID_SPEC, "spec.x")
        assert ready_condition((refused, AVAILABLE))[1] == Reason.INVALID_SPEC

    @pytest.mark.parametrize("vague", [Reason.NO_READY_REPLICA, Reason.STARTING, Reason.UNSCHEDULABLE])
    def test_missing_gpus_explain_missing_replicas(self, vague):
        short = condition(ConditionType.CAPACITY_GRANTED, FALSE, Reason.INSUFFICIENT_GPUS, "needs 4")
        down = condition(ConditionType.AVAILABLE, FALSE, vague)
        assert ready_condition((ACCEPTED, short, down)) == (FALSE, Reason.INSUFFICIENT_GPUS, "needs 4")

    def test_a_cause_in_the_replicas_themselves_comes_before_missing_gpus(self):
        short = condition(ConditionType.CAPACITY_GRANTED, FALSE, Reason.INSUFFICIENT_GPUS)
        down = condition(ConditionType.AVAILABLE, FALSE, Reason.IMAGE_PULL_FAILED, "no such tag")
        assert ready_condition((ACCEPTED, short, down)) == (FALSE, Reason.IMAGE_PULL_FAILED, "no such tag")

    def test_a_fleet_that_serves_but_cannot_grow_is_ready_and_says_so(self):
        short = condition(
            ConditionType.CAPACITY_GRANTED, FALSE, Reason.INSUFFICIENT_GPUS, "2 GPUs are missing"
        )
        status, reason, message = ready_condition((ACCEPTED, short, AVAILABLE))
        assert (status, reason) == (TRUE, Reason.SERVING)
        assert message == "2 of 2 serve; it cannot grow: 2 GPUs are missing"

    def test_unknown_is_not_false(self):
        dark = condition(ConditionType.AVAILABLE, UNKNOWN, Reason.INTERNAL_ERROR, "see the log")
        assert ready_condition((ACCEPTED, dark)) == (UNKNOWN, Reason.INTERNAL_ERROR, "see the log")

    def test_false_is_worse_than_unknown(self):
        dark = condition(ConditionType.ACCEPTED, UNKNOWN, Reason.INTERNAL_ERROR)
        down = condition(ConditionType.AVAILABLE, FALSE, Reason.CRASH_LOOP)
        assert ready_condition((dark, down))[:2] == (FALSE, Reason.CRASH_LOOP)

    @pytest.mark.parametrize("conditions", [(), (ACCEPTED,), (AVAILABLE,)])
    def test_what_was_never_set_is_unknown(self, conditions):
        status, reason, message = ready_condition(conditions)
        assert (status, reason) == (UNKNOWN, Reason.NOT_OBSERVED)
        assert "is not known yet" in message

    @pytest.mark.parametrize("status", list(ConditionStatus))
    @pytest.mark.parametrize("kind", [ConditionType.SCALING_ACTIVE, ConditionType.PROGRESSING])
    def test_metrics_and_progress_never_touch_it(self, kind, status):
        other = condition(kind, status, Reason.METRICS_STALE)
        assert ready_condition((ACCEPTED, AVAILABLE, other)) == ready_condition((ACCEPTED, AVAILABLE))


class TestReasons:
    def test_every_reason_has_its_guide(self):
        assert set(GUIDES) == set(Reason)

    @pytest.mark.parametrize("reason", list(Reason))
    def test_is_one_word_as_kubernetes_wants_it(self, reason):
        assert reason.isalpha()
        assert reason[0].isupper()
        assert len(reason) <= 64

    @pytest.mark.parametrize("guide", GUIDES.values(), ids=list(GUIDES))
    def test_the_guide_is_made_of_sentences(self, guide):
        assert all(text.strip() == text and text[-1] in ".?" and "  " not in text for text in guide)

    def test_the_page_explains_every_condition_and_reason(self):
        page = reference_markdown()
        assert all(f"| `{kind}` | " in page for kind in ConditionType)
        assert all(f"\n### {reason}\n\n{GUIDES[reason].means}\n" in page for reason in Reason)
