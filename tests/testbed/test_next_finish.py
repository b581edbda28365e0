"""`Replica.next_finish`: whoever looks at an engine at these times alone misses no finish."""

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.replica import EventKind, Replica, Request
from testbed.replica_models import ReplicaModel

SMALL = ReplicaModel("small", "made up", 1000, 100, 1000, 50, 64, max_sequences=6, max_batched_tokens=12)

load = st.lists(
    st.tuples(st.integers(0, 200_000), st.integers(1, 40), st.integers(1, 24)), min_size=1, max_size=25
)


@settings(max_examples=500)
@given(load)
def test_every_finish_falls_on_a_time_that_was_named(jobs):
    replica, late = Replica(SMALL), []
    wake: int | None = None
    left = len(jobs)

    def look() -> None:
        nonlocal wake, left
        finished = [e for e in replica.advance(wake) if e.kind is EventKind.FINISHED]
        late.extend(e for e in finished if e.time_ns != wake)
        left -= len(finished)
        wake = replica.next_finish()

    for number, (at, prompt, output) in enumerate(sorted(jobs)):
        while wake is not None and wake <= at:
            look()
        replica.submit(Request(number, prompt, output), at)
        soonest = at + output * SMALL.base_ns
        wake = soonest if wake is None else min(wake, soonest)
    while wake is not None:
        look()
    assert late == []
    assert left == 0


def test_pure_decoding_is_skipped_in_one_go():
    replica = Replica(SMALL)
    request = Request(0, 5, 20)
    replica.submit(request, 0)
    replica.advance(replica.next_event())  # the prompt
    looked = replica.next_finish()
    replica.advance(looked)
    assert request.finished_ns == looked


def test_nothing_finishes_in_an_idle_engine():
    assert Replica(SMALL).next_finish() is None
