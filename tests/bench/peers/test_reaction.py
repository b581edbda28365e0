"""What is made of reactions, and which steps are taken."""

from itertools import pairwise

import pytest

from bench.peers import reaction
from bench.peers.fleets import Side
from bench.peers.reaction import Reaction, Step, _figures, _pair, steps


def taken(side, *seconds, replicas=20):
    return [Reaction(side, value, None if value is None else value + 1, replicas, 1.5) for value in seconds]


def test_each_side_has_its_spread():
    figures = _figures([*taken(Side.KEDA, 2.0, 8.0, 14.0), *taken(Side.STOKER, 1.0, 2.0, 4.0)])
    assert figures["keda"]["visible_to_first_pod_seconds"] == {"min": 2.0, "median": 8.0, "max": 14.0, "n": 3}
    assert figures["stoker"]["visible_to_all_pods_seconds"]["max"] == 5.0
    assert figures["stoker_goals_met"]


@pytest.mark.parametrize("seconds", [(1.0, 3.5, 4.0), (1.0, 2.0, 7.0), (1.0, 2.0, None), (None,)])
def test_the_goals_are_missed_by_a_median_a_maximum_or_a_sample_without_an_answer(seconds):
    assert not _figures([*taken(Side.KEDA, 2.0), *taken(Side.STOKER, *seconds)])["stoker_goals_met"]


def test_a_side_that_never_answers_has_no_spread():
    side = _figures([*taken(Side.KEDA, None, None), *taken(Side.STOKER, 1.0)])["keda"]
    assert side["visible_to_first_pod_seconds"] is None
    assert side["without_reaction"] == 2
    assert side["first_and_all_seconds"] == [[None, None], [None, None]]


def test_both_sides_take_a_step_from_the_same_start_with_room_above():
    pair = _pair(Step(2, 20, 1), 0)
    assert {fleet.contender.side for fleet in pair} == set(Side)
    assert {(fleet.minimum, fleet.target) for fleet in pair} == {(2, reaction.TARGET)}
    assert all(fleet.maximum > 20 for fleet in pair)
    assert len({fleet.namespace for fleet in pair}) == 2


@pytest.mark.parametrize("step", reaction.STEPS)
def test_samples_are_spread_over_the_phases_of_every_clock(step):
    found = [reaction.phase(step, number) for number in range(step.samples)]
    assert found == sorted(found)
    assert max(found) - min(found) > reaction.PHASE_SECONDS * (1 - 2 / step.samples)
    for period in (5.0, reaction.PHASE_SECONDS):
        within = sorted(at % period for at in found)
        gaps = [later - earlier for earlier, later in pairwise([within[-1] - period, *within])]
        assert max(gaps) < period / 2


def test_the_number_of_samples_can_be_stated():
    assert [step.samples for step in steps(1)] == [1] * len(reaction.STEPS)
    assert steps(0) == reaction.STEPS
