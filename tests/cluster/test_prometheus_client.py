"""The Prometheus client against a real Prometheus: what no fake can promise."""

from stoker.clients.prometheus import Prometheus
from stoker.core.signals import Failed, Samples
from testbed.prometheus import Prometheus as PrometheusServer


async def test_a_real_prometheus_answers_by_name(prometheus: PrometheusServer):
    async with Prometheus(prometheus.url) as client:
        answers = await client.query_all(
            {
                "number": "vector(1.5)",
                "nothing": "absent_metric",
                "nan": "vector(0) / 0",
                "many": 'label_replace(vector(1), "pod", "a", "", "") or vector(2)',
                "wrong": "sum(",
                "scalar": "1",
                "long": " or ".join(["vector(1)"] * 2000),
            }
        )
    assert answers["number"].samples[0].value == 1.5
    assert answers["nothing"] == Samples(())
    assert answers["nan"].samples[0].value != answers["nan"].samples[0].value
    assert sorted((dict(s.labels), s.value) for s in answers["many"].samples if s.labels) == [
        ({"pod": "a"}, 1)
    ]
    assert isinstance(answers["wrong"], Failed)
    assert not answers["wrong"].unreachable
    assert "bad_data" in answers["wrong"].why
    assert isinstance(answers["scalar"], Failed)
    assert isinstance(answers["long"], Samples)


async def test_a_prometheus_that_is_asked_for_another_time(prometheus: PrometheusServer):
    async with Prometheus(prometheus.url) as client:
        answer = (await client.query_all({"time": "vector(time())"}, at=1_700_000_000.25))["time"]
    assert [(s.value, s.at) for s in answer.samples] == [(1_700_000_000.25, 1_700_000_000.25)]
