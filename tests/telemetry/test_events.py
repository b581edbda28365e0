"""Events: how they are written, bounded and repeated, and that they never fail a plan."""

import asyncio

import pytest

from stoker.clients.errors import Forbidden, NotFound, Transient
from stoker.core.plan import Event
from stoker.core.readings import Key
from stoker.telemetry import events
from stoker.telemetry.events import Recorder, micro_time, normalised

KEY = Key("ml", "llama")


class FakeKube:
    """Keeps what is written; ``fail`` holds errors for the next calls."""

    def __init__(self):
        self.created, self.merged, self.fail = [], [], []
        self.written = asyncio.Event()

    async def create(self, manifest):
        if self.fail:
            raise self.fail.pop(0)
        self.created.append(manifest)
        self.written.set()
        return manifest

    async def merge(self, api_version, kind, namespace, name, body):
        if self.fail:
            raise self.fail.pop(0)
        self.merged.append((api_version, kind, namespace, name, body))
        return body


class Bench:
    def __init__(self):
        self.now = 1_700_000_000.0
        self.kube = FakeKube()
        self.counted = []
        self.recorder = Recorder(
            self.kube, instance="stoker-0", clock=lambda: self.now, on_event=self.counted.append
        )

    def say(self, message="3 to 4", *, uid="u-1", reason="ScaledUp", kind="Normal"):
        self.recorder.record(KEY, uid, Event(kind, reason, message, "Scale"))


@pytest.fixture
def bench():
    return Bench()


async def test_an_event_is_what_kubectl_describe_shows(bench):
    bench.say("from 3 to 4 replicas")
    await bench.recorder.flush()
    (made,) = bench.kube.created
    assert made["metadata"]["namespace"] == "ml"
    assert made["metadata"]["name"].startswith("llama.")
    del made["metadata"]
    assert made == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": "2023-11-14T22:13:20.000000Z",
        "reportingController": "stoker.dev/operator",
        "reportingInstance": "stoker-0",
        "action": "Scale",
        "reason": "ScaledUp",
        "type": "Normal",
        "note": "from 3 to 4 replicas",
        "regarding": {
            "apiVersion": "stoker.dev/v1alpha1",
            "kind": "ModelDeployment",
            "namespace": "ml",
            "name": "llama",
            "uid": "u-1",
        },
    }


async def test_names_are_unique(bench):
    for i in range(20):
        bench.say(f"{i} to 4")
    await bench.recorder.flush()
    assert len({made["metadata"]["name"] for made in bench.kube.created}) == 20


async def test_the_same_again_becomes_a_series_told_now_and_then(bench):
    bench.say("waited 1.5 s")
    await bench.recorder.flush()
    for i in range(4):
        bench.say(f"waited {i}.7 s")
    await bench.recorder.flush()
    assert bench.kube.merged == []
    bench.now += events.SERIES_SECONDS
    bench.say("waited 3.1 s")
    await bench.recorder.flush()
    await bench.recorder.flush()
    name = bench.kube.created[0]["metadata"]["name"]
    series = {"series": {"count": 6, "lastObservedTime": micro_time(bench.now)}}
    assert bench.kube.merged == [("events.k8s.io/v1", "Event", "ml", name, series)]
    assert len(bench.kube.created) == 1
    assert bench.counted == ["sent", *["aggregated"] * 5]


@pytest.mark.parametrize(
    "other",
    [
        {"message": "4 to 5"},
        {"uid": "u-2"},
        {"reason": "ScaledDown"},
        {"kind": "Warning"},
    ],
)
async def test_another_thing_is_another_event(bench, other):
    bench.say()
    bench.say(**other)
    await bench.recorder.flush()
    assert len(bench.kube.created) == 2


async def test_one_object_cannot_flood_and_leaves_the_others_their_share(bench):
    for i in range(100):
        bench.say(f"{i} to 4")
    bench.say(uid="u-2")
    await bench.recorder.flush()
    by_uid = [made["regarding"]["uid"] for made in bench.kube.created]
    assert (by_uid.count("u-1"), by_uid.count("u-2")) == (25, 1)
    assert bench.counted.count("dropped") == 75
    bench.now += 300
    bench.say("one more")
    bench.say("one too many")
    await bench.recorder.flush()
    assert len(bench.kube.created) == 27


async def test_all_objects_together_cannot_flood(bench):
    for i in range(1000):
        bench.say(uid=f"u-{i}")
    await bench.recorder.flush()
    assert len(bench.kube.created) == events.TOTAL_BURST


async def test_what_is_not_said_again_is_forgotten(bench):
    for i in range(10):
        bench.say(uid=f"u-{i}")
    await bench.recorder.flush()
    bench.now += 25 * 300
    await bench.recorder.flush()
    assert bench.recorder._series == {}
    assert bench.recorder._limits.objects == {}
    bench.say(uid="u-1")
    await bench.recorder.flush()
    assert len(bench.kube.created) == 11


async def test_memory_is_bounded(bench, monkeypatch):
    monkeypatch.setattr(events, "MAX_SERIES", 3)
    for i in range(5):
        bench.say(f"{i} to 4")
    assert len(bench.recorder._series) == 3
    assert bench.counted == ["dropped", "dropped"]


async def test_a_busy_server_is_asked_again_and_not_hammered(bench):
    bench.say("a")
    bench.say("b")
    bench.kube.fail = [Transient("busy")]
    await bench.recorder.flush()
    assert bench.kube.created == []
    await bench.recorder.flush()
    assert [made["note"] for made in bench.kube.created] == ["a", "b"]


async def test_it_is_given_up_in_the_end(bench):
    bench.say("a")
    bench.kube.fail = [Transient("busy")] * events.MAX_ATTEMPTS
    for _ in range(events.MAX_ATTEMPTS + 2):
        await bench.recorder.flush()
    assert bench.kube.created == []
    assert bench.counted == ["failed"]


async def test_a_refused_event_leaves_the_others(bench):
    bench.say("a")
    bench.say("b")
    bench.kube.fail = [Forbidden("no")]
    await bench.recorder.flush()
    assert [made["note"] for made in bench.kube.created] == ["b"]
    assert bench.counted == ["failed", "sent"]


async def test_a_series_whose_event_expired_starts_anew(bench):
    bench.say("a")
    await bench.recorder.flush()
    bench.now += events.SERIES_SECONDS
    bench.say("a")
    bench.kube.fail = [NotFound("gone")]
    await bench.recorder.flush()
    bench.say("a")
    await bench.recorder.flush()
    assert len(bench.kube.created) == 2
    assert bench.kube.merged == []


async def test_the_task_sends_at_once_and_survives_bugs(bench):
    bench.kube.fail = [ZeroDivisionError("a bug")]
    running = asyncio.create_task(bench.recorder.run())
    bench.say("a")
    await asyncio.wait_for(bench.kube.written.wait(), 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_task_sends_the_last_words_when_it_ends(bench):
    running = asyncio.create_task(bench.recorder.run())
    await asyncio.sleep(0)
    bench.say("bye")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [made["note"] for made in bench.kube.created] == ["bye"]


async def test_a_long_note_is_cut_to_what_the_server_takes(bench):
    bench.say("ä" * 2000)
    await bench.recorder.flush()
    note = bench.kube.created[0]["note"]
    assert len(note.encode()) <= 1024
    assert note.endswith("ä…")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("412.7 tokens/s", "98.1 tokens/s", True),
        ("for 3m", "for 1h 30m", True),
        ("since 2026-11-23T16:00:00Z", "since 2026-11-24T07:01:02.5Z", True),
        ("a  b", "a b", True),
        ("from 3 to 4", "from 4 to 5", False),
        ("pod llama-ab12-3", "pod llama-ab12-4", False),
    ],
)
def test_what_always_differs_is_left_out(one, other, same):
    assert (normalised(one) == normalised(other)) is same
