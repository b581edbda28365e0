"""Results that are known: found again by what was run and by the code that ran it."""

import pytest

from bench.replay import experiments, store
from bench.replay.experiments import Case, Job, key_of
from bench.replay.scores import Ledger
from bench.replay.store import Store, code_of, syntax


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STOKER_REPLAY_STORE", str(tmp_path))
    return tmp_path


def test_what_was_kept_is_found_again_by_its_key_and_code_alone(monkeypatch):
    Store("stoker utilization").save("one", {"a": 1.5})
    assert Store("stoker utilization").load("one") == {"a": 1.5}
    assert Store("stoker utilization").load("two") is None
    assert Store("keda waiting").load("one") is None
    monkeypatch.setattr(store, "code_of", lambda _: "another version")
    assert Store("stoker utilization").load("one") is None


def test_stokers_code_counts_for_stoker_alone(monkeypatch, tmp_path):
    before = {policy: code_of(policy) for policy in ("", "keda waiting", "stoker utilization")}
    changed = tmp_path / "operator"
    changed.mkdir()
    (changed / "core.py").write_text("x = 1")
    monkeypatch.setattr(store, "ROOT", store.ROOT)
    monkeypatch.setattr(store, "_OPERATOR", ("operator/stoker/core",))
    after = {policy: code_of(policy) for policy in before}
    assert before["stoker utilization"] != after["stoker utilization"]
    assert (before[""], before["keda waiting"]) == (after[""], after["keda waiting"])


def test_words_are_no_code():
    plain = "def f(x):\n    return x + 1\n"
    spoken = '"""Module."""\n\n\ndef f(x):  # adds\n    """Add."""\n    return x + 1\n'
    assert syntax(plain) == syntax(spoken)
    assert syntax(plain) != syntax(plain.replace("1", "2"))


def test_where_traces_lie_does_not_tell_runs_apart_and_all_else_does(tmp_path):
    job = Job(Case("burst"), "keda waiting", 5.0)
    assert key_of(job) == key_of(Job(Case("burst", traces=tmp_path), "keda waiting", 5.0))
    others = [
        Job(Case("burst", seed=1), "keda waiting", 5.0),
        Job(Case("burst"), "keda waiting", 5.0, "shorter"),
        Job(Case("burst"), "keda waiting", 5.0, fault="half-300s"),
    ]
    assert len({key_of(one) for one in (job, *others)}) == 4


def test_a_run_is_not_played_twice(monkeypatch):
    played = []

    ledger = Ledger(0.0, 3600.0, 9)
    ledger.decided(0.0, 3)
    monkeypatch.setattr(experiments, "play", lambda job: played.append(job) or ledger)
    job = Job(Case("burst"), "keda waiting", 5.0)
    first, second = experiments.run(job), experiments.run(job)
    assert first == second
    assert second.targets == [(0.0, 3)]
    assert played == [job]
