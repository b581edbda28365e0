"""What Prometheus sends becomes samples or a reason, whatever it is."""

import json
import math

import pytest

from stoker.clients.answers import Course, Matrix, Span, read, read_range
from stoker.core.signals import Failed, Sample, Samples


def vector(*values, **extra):
    result = [{"metric": {"pod": f"p{i}"}, "value": [100.5, v]} for i, v in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": result}, **extra}


def body(answer):
    return json.dumps(answer).encode()


def test_samples_keep_labels_value_and_time():
    answer = read(200, body(vector("1.5", "0")))
    assert answer == Samples((Sample({"pod": "p0"}, 1.5, 100.5), Sample({"pod": "p1"}, 0.0, 100.5)))


def test_no_series_is_an_empty_answer_and_no_failure():
    assert read(200, body(vector())) == Samples(())


@pytest.mark.parametrize(("text", "value"), [("+Inf", math.inf), ("-Inf", -math.inf), ("1e+09", 1e9)])
def test_infinities_are_kept_as_numbers(text, value):
    answer = read(200, body(vector(text)))
    assert isinstance(answer, Samples)
    assert answer.samples[0].value == value


def test_nan_is_kept_as_nan():
    answer = read(200, body(vector("NaN")))
    assert isinstance(answer, Samples)
    assert math.isnan(answer.samples[0].value)


def test_warnings_of_partial_data_are_seen():
    answer = read(200, body(vector("1", warnings=["store 10.0.0.7:10901 is unavailable"])))
    assert isinstance(answer, Samples)
    assert answer.warnings == ("store 10.0.0.7:10901 is unavailable",)


@pytest.mark.parametrize("warnings", ["text", {"a": 1}, 7])
def test_warnings_of_another_shape_still_warn(warnings):
    answer = read(200, body(vector("1", warnings=warnings)))
    assert isinstance(answer, Samples)
    assert len(answer.warnings) == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "'matrix'"),
        ({"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}, "'scalar'"),
        ({"status": "success", "data": {"resultType": "vector", "result": None}}, "instant vector"),
        ({"status": "success", "data": None}, "no data"),
        ({"status": "success"}, "no data"),
        (vector(1.5), "no sample"),
        (vector("abc"), "could not convert"),
        (vector(None), "no sample"),
        (vector("1") | {"data": {"resultType": "vector", "result": ["x"]}}, "no sample"),
        ({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}}, "no sample"),
        (
            {
                "status": "success",
                "data": {"resultType": "vector", "result": [{"metric": {}, "histogram": [1, {}]}]},
            },
            "native histogram",
        ),
        (
            {
                "status": "success",
                "data": {"resultType": "vector", "result": [{"metric": {"a": 1}, "value": [1, "1"]}]},
            },
            "labels",
        ),
    ],
)
def test_a_malformed_answer_fails_with_the_reason(answer, why):
    failed = read(200, body(answer))
    assert isinstance(failed, Failed)
    assert why in failed.why
    assert not failed.unreachable


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, b""),
        (200, b"<html>login</html>"),
        (200, b"\xff\xfe"),
        (200, b"[" * 100_000),
        (200, b"[]"),
        (200, b'"text"'),
        (200, b'{"kind": "Status"}'),
        (200, b'{"status": ["success"]}'),
        (502, b"bad gateway"),
    ],
)
def test_what_is_not_prometheus_is_unreachable(status, text):
    failed = read(status, text)
    assert isinstance(failed, Failed)
    assert failed.unreachable
    assert f"HTTP {status}" in failed.why


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b'[NaN, "1"]', "unexpected character"),
        (b'[-Infinity, "1"]', "no digit"),
        (b'[1e400, "1"]', "infinity"),
        (b"[1%s]" % (b"0" * 400), "infinity"),
        (b"[1%s]" % (b"0" * 5000), "infinity"),
        (b'[1, "\\ud800"]', "surrogate"),
        (b'[1, "\xed\xa0\x80"]', "UTF-8"),
        (b'[1, "\xff"]', "UTF-8"),
        (b"[" * 1025 + b"]" * 1025, "depth"),
        (b"[" * 100_000, "depth"),
        (b"[1, ", ""),
    ],
)
def test_what_no_json_says_in_the_midst_of_an_answer_fails_it_with_the_reason(value, why):
    failed = read(200, body(vector("1")).replace(b'[100.5, "1"]', value))
    assert isinstance(failed, Failed)
    assert failed.unreachable
    assert "HTTP 200 with a body that is no JSON: {" in failed.why
    assert why in failed.why


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "error", "error": "HERE"},
        {"status": "success", "data": {"resultType": "HERE"}},
        {"status": "success", "data": {"resultType": "vector", "result": ["HERE"]}},
        {"status": "success", "data": {"resultType": "vector", "result": []}, "warnings": "HERE"},
    ],
)
def test_what_is_nested_too_deeply_to_be_quoted_still_raises_nothing(answer):
    deep = b"[" * 1018 + b"]" * 1018  # almost all that orjson takes, and more than Python 3.11 can quote
    answer = read(200, body(answer).replace(b'"HERE"', deep))
    assert isinstance(answer, Failed) or answer.warnings


def test_a_byte_order_mark_is_no_json():
    assert isinstance(read(200, b"\xef\xbb\xbf" + body(vector("1"))), Failed)


def test_a_body_that_can_grow_reads_as_one_that_cannot():
    assert read(200, bytearray(body(vector("1")))) == read(200, body(vector("1")))
    assert read(502, bytearray(b"bad gateway")) == read(502, b"bad gateway")


def test_texts_of_labels_are_kept_once_over_all_answers_and_times_once_in_each():
    first, again = (read(200, body(vector("1", "2"))).samples for _ in range(2))
    assert [one.labels["pod"] for one in first] == ["p0", "p1"]
    assert all(a.labels["pod"] is b.labels["pod"] for a, b in zip(first, again, strict=True))
    assert first[0].at is first[1].at


def test_samples_of_several_times_keep_each_its_own_as_a_float():
    answer = vector("1", "2", "3")
    for at, one in zip((7, 8.5, 7), answer["data"]["result"], strict=True):
        one["value"][0] = at
    times = [sample.at for sample in read(200, body(answer)).samples]
    assert times == [7.0, 8.5, 7.0]
    assert {type(at) for at in times} == {float}


@pytest.mark.parametrize(
    ("status", "unreachable"), [(400, False), (422, False), (503, False), (401, True), (403, True)]
)
def test_an_error_of_prometheus_is_told_in_its_own_words(status, unreachable):
    answer = {"status": "error", "errorType": "bad_data", "error": "parse error:\n unexpected <aggr:sum>"}
    expected = Failed(f"HTTP {status}, bad_data: parse error: unexpected <aggr:sum>", unreachable=unreachable)
    assert read(status, body(answer)) == expected


def test_a_long_reason_is_cut():
    failed = read(400, body({"status": "error", "error": "x" * 10_000}))
    assert isinstance(failed, Failed)
    assert len(failed.why) < 400


# --- Matrices ------------------------------------------------------------------------------------

MINUTE = Span(1000.0, 1060.0, 15.0)


def matrix(*series, **extra):
    result = [{"metric": {"pod": f"p{i}"}, "values": points} for i, points in enumerate(series)]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}, **extra}


@pytest.mark.parametrize(
    ("span", "count"), [(MINUTE, 5), (Span(0, 59, 15), 4), (Span(7, 7, 5), 1), (Span(0, 0.3, 0.1), 4)]
)
def test_a_span_counts_both_its_ends(span, count):
    assert span.count == count


def test_points_are_numbered_by_their_instant_and_absent_ones_stay_absent():
    answer = read_range(
        MINUTE, 200, body(matrix([[1000, "1"], [1030, "NaN"], [1060, "+Inf"]], [[1015, "2"]]))
    )
    assert isinstance(answer, Matrix)
    first, second = answer.courses
    assert first.labels == {"pod": "p0"}
    assert sorted(first.values) == [0, 2, 4]
    assert first.values[0] == 1.0
    assert math.isnan(first.values[2])
    assert first.values[4] == math.inf
    assert second == Course({"pod": "p1"}, {1: 2.0})


def test_a_matrix_without_series_is_an_empty_answer():
    assert read_range(MINUTE, 200, body(matrix(warnings=["half"]))) == Matrix((), ("half",))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (vector("1"), "'vector'"),
        (matrix([[1000, None]]), "no points"),
        (matrix([[1000]]), "not enough values"),
        (matrix([["x", "1"]]), "no points"),
        (matrix([[1000, "abc"]]), "could not convert"),
        (matrix([[900, "1"]]), "outside of the time"),
        (matrix([[1075, "1"]]), "outside of the time"),
        (matrix(None), "no series"),
        (matrix() | {"data": {"resultType": "matrix", "result": ["x"]}}, "no series"),
        (
            {
                "status": "success",
                "data": {"resultType": "matrix", "result": [{"metric": {}, "histograms": []}]},
            },
            "native histogram",
        ),
        (
            {
                "status": "success",
                "data": {"resultType": "matrix", "result": [{"metric": {"a": 1}, "values": []}]},
            },
            "no text",
        ),
    ],
)
def test_a_malformed_matrix_says_what_is_wrong(answer, why):
    failed = read_range(MINUTE, 200, body(answer))
    assert isinstance(failed, Failed)
    assert why in failed.why
