"""The operator's own metrics: names, values, and what the fleet's gauges show."""

import re

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stoker.api.status import DemandStatus, ModelDeploymentStatus, ScalingStatus
from stoker.core.readings import Key
from stoker.telemetry.metrics import FleetRow, Metrics


def values(metrics):
    """{name{sorted label values}: value} of everything that Stoker itself counts."""
    text = generate_latest(metrics.registry).decode()
    return {
        f"{s.name}{{{','.join(sorted(s.labels.values()))}}}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.name.startswith("stoker_")
    }


@pytest.mark.parametrize(
    ("hook", "arguments", "expected"),
    [
        ("kube_request", ("get", "pods", "404", 0.1), {"stoker_kube_requests_total{404,get,pods}": 1}),
        (
            "kube_request",
            ("get", "pods", "404", 0.1),
            {"stoker_kube_request_duration_seconds_sum{get,pods}": 0.1},
        ),
        ("prometheus_query", ("running", "ok", 0.1), {"stoker_prometheus_queries_total{ok,running}": 1}),
        (
            "prometheus_query",
            ("running", "ok", 0.1),
            {"stoker_prometheus_query_duration_seconds_count{running}": 1},
        ),
        ("event", ("sent",), {"stoker_events_total{sent}": 1}),
        ("tick", ("decide", 0.2), {"stoker_tick_duration_seconds_sum{decide}": 0.2}),
        ("decided", (12.5,), {"stoker_last_tick_timestamp_seconds{}": 12.5}),
        ("queue", (3, 1.5), {"stoker_queue_depth{}": 3, "stoker_queue_oldest_age_seconds{}": 1.5}),
        ("reconciled", ("done",), {"stoker_reconciles_total{done}": 1}),
        ("action", ("create_pod",), {"stoker_actions_total{create_pod}": 1}),
        ("scaled", ("TokenRate",), {"stoker_scaling_decisions_total{TokenRate}": 1}),
        ("loop_lag", (0.3,), {"stoker_event_loop_lag_seconds_sum{}": 0.3}),
    ],
)
def test_hooks(hook, arguments, expected):
    metrics = Metrics()
    getattr(metrics, hook)(*arguments)
    assert values(metrics).items() >= expected.items()


def demand(signal, freshness):
    return DemandStatus(signal=signal, unit="x", freshness=freshness, covered=0, expected=0)


def test_the_fleet_is_read_at_each_scrape():
    metrics = Metrics()
    rows = []
    metrics.fleet(lambda: rows)
    assert not [name for name in values(metrics) if "replicas" in name]
    status = ModelDeploymentStatus(
        replicas=4,
        ready_replicas=3,
        desired_replicas=5,
        scaling=ScalingStatus(
            mode="Active",
            demand=(demand("running", "Fresh"), demand("waiting", "Stale"), demand("x", "Missing")),
        ),
    )
    rows.append(FleetRow(Key("ml", "a"), status, draining=1))
    seen = values(metrics)
    rows.clear()
    assert {name: value for name, value in seen.items() if "{a,ml" in name} == {
        "stoker_replicas_existing{a,ml}": 4,
        "stoker_replicas_ready{a,ml}": 3,
        "stoker_replicas_desired{a,ml}": 5,
        "stoker_replicas_draining{a,ml}": 1,
        "stoker_signal_fresh{a,ml,running}": 1,
        "stoker_signal_fresh{a,ml,waiting}": 0,
        "stoker_signal_fresh{a,ml,x}": 0,
    }
    assert not [name for name in values(metrics) if "{a,ml" in name]


def test_what_is_unknown_has_no_series():
    metrics = Metrics()
    metrics.fleet(lambda: [FleetRow(Key("ml", "a"), ModelDeploymentStatus())])
    assert [name for name in values(metrics) if "{a,ml" in name] == ["stoker_replicas_draining{a,ml}"]


def test_names_follow_the_conventions():
    """https://prometheus.io/docs/practices/naming/."""
    families = list(text_string_to_metric_families(generate_latest(Metrics().registry).decode()))
    ours = [f for f in families if f.name.startswith("stoker_")]
    assert len(ours) > 10
    for family in ours:
        assert re.fullmatch(r"stoker_[a-z]+(_[a-z]+)*", family.name), family.name
        assert family.documentation.endswith("."), family.name
        if family.type == "histogram" or "duration" in family.name:
            assert family.name.endswith("_seconds"), family.name


def test_two_operators_in_one_process_do_not_meet():
    one, other = Metrics(), Metrics()
    one.event("sent")
    assert "stoker_events_total{sent}" not in values(other)
