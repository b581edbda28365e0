"""What the models are written with: durations, quantities, patterns, times and messages."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stoker.api.fields import (
    MAX_MESSAGE,
    RANGE,
    RULES,
    ApiModel,
    Between,
    Duration,
    Message,
    Pattern,
    QuantityBetween,
    Rule,
    Timestamp,
)


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("90s", 90.0),
            ("1h30m", 5400.0),
            ("500ms", 0.5),
            ("1.5h", 5400.0),
            ("0s", 0.0),
            ("1m1m", 120.0),
            ("2m0.5s1ms", 120.501),
            ("999999h", 3_599_996_400.0),
        ],
    )
    def test_seconds_are_what_go_reads(self, text, seconds):
        assert Duration(text).seconds == pytest.approx(seconds)

    @pytest.mark.parametrize(
        "text",
        ["", "10", "1x", "-1s", "1 s", "s", "1d", "1h ", "1h\n", "1.s", ".5s", "1e3s", "1000000h", "1s" * 11],
    )
    def test_anything_else_is_refused_with_what_to_write(self, text):
        with pytest.raises(ValueError, match=r"is not a duration: write a duration such as 90s, 10m or"):
            Duration(text)

    def test_keeps_the_text_that_the_user_wrote(self):
        class Model(ApiModel):
            wait: Duration

        assert Model.model_validate({"wait": "60s"}).model_dump(mode="json") == {"wait": "60s"}

    def test_a_number_is_refused(self):
        with pytest.raises(ValidationError):
            TypeAdapter(Duration).validate_python(60)

    @given(st.integers(0, 9999), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
    def test_adds_up_its_parts(self, hours, minutes, seconds, milliseconds):
        text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
        assert Duration(text).seconds == pytest.approx(
            hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
        )


class TestBetween:
    @pytest.mark.parametrize("text", ["10ms", "1m", "60s"])
    def test_bounds_are_within(self, text):
        assert TypeAdapter(Annotated[Duration, Between("10ms", "1m")]).validate_python(text) == text

    @pytest.mark.parametrize("text", ["9ms", "61s"])
    def test_what_is_outside_is_refused_with_the_bounds(self, text):
        with pytest.raises(ValidationError, match="write a duration from 10ms to 1m"):
            TypeAdapter(Annotated[Duration, Between("10ms", "1m")]).validate_python(text)

    def test_its_schema_has_the_rule_of_the_duration_and_its_own(self):
        schema = TypeAdapter(Annotated[Duration, Between("10ms", "1m")]).json_schema()
        assert [rule["message"] for rule in schema[RULES]] == [
            Duration.HINT,
            "write a duration from 10ms to 1m",
        ]
        assert tuple(schema[RANGE]) == ("10ms", "1m")


class TestQuantity:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("512Mi", 512 * 2**20),
            ("8Gi", 2**33),
            ("1.5Gi", 1.5 * 2**30),
            ("100G", 1e11),
            ("1k", 1e3),
            ("7", 7),
        ],
    )
    def test_bytes(self, text, size):
        assert QuantityBetween.bytes(text) == size

    @pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "-1Gi", "1gb", "1e9", "1Pi"])
    def test_anything_else_is_refused(self, text):
        with pytest.raises(ValueError, match="is not a quantity of bytes"):
            QuantityBetween.bytes(text)

    @pytest.mark.parametrize(
        ("text", "good"), [("1Gi", True), ("2Gi", True), ("1023Mi", False), ("2049Mi", False)]
    )
    def test_bounds(self, text, good):
        adapter = TypeAdapter(Annotated[str, QuantityBetween("1Gi", "2Gi")])
        if good:
            assert adapter.validate_python(text) == text
        else:
            with pytest.raises(ValidationError, match="from 1Gi to 2Gi"):
                adapter.validate_python(text)


class TestPattern:
    def test_all_of_the_text_must_match(self):
        adapter = TypeAdapter(Annotated[str, Pattern("a|b", "write a or b")])
        assert adapter.validate_python("a") == "a"
        for text in ("ab", "xa", "b\n", ""):
            with pytest.raises(ValidationError, match="write a or b"):
                adapter.validate_python(text)

    def test_in_the_schema_it_is_a_rule_with_advice(self):
        schema = TypeAdapter(Annotated[str, Pattern("a|b", "write a or b")]).json_schema()
        assert schema[RULES] == [{"rule": "self.matches(r'^(?:a|b)$')", "message": "write a or b"}]


class TestRule:
    def test_names_the_child_that_it_is_about(self):
        assert Rule("true", "no", ".child").schema() == {
            "rule": "true",
            "message": "no",
            "fieldPath": ".child",
        }

    def test_without_a_child_it_is_about_the_value(self):
        assert "fieldPath" not in Rule("true", "no").schema()


class TestTimestamp:
    class Model(ApiModel):
        at: Timestamp

    def test_is_written_in_utc_with_whole_seconds(self):
        at = datetime(2026, 1, 2, 3, 4, 5, 678_900, timezone(timedelta(hours=2)))
        assert self.Model(at=at).model_dump() == {"at": "2026-01-02T01:04:05Z"}

    @given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)))  # noqa: DTZ001 - hypothesis wants it
    def test_what_is_written_equals_what_is_read_back(self, at):
        model = self.Model(at=at)
        assert self.Model.model_validate(model.model_dump()) == model

    def test_a_time_without_zone_is_refused(self):
        with pytest.raises(ValidationError, match="has no time zone"):
            self.Model(at=datetime(2026, 1, 1))  # noqa: DTZ001 - this is the case


class TestMessage:
    @given(st.integers(0, 3 * MAX_MESSAGE).map("é".__mul__))
    @example("é" * MAX_MESSAGE)
    @example("é" * (MAX_MESSAGE + 1))
    def test_is_cut_and_never_refused(self, text):
        message = TypeAdapter(Message).validate_python(text)
        assert len(message) <= MAX_MESSAGE
        assert message == text or (message.endswith("…") and text.startswith(message[:-1]))


class TestApiModel:
    class Model(ApiModel):
        two_words: int = 1

    def test_is_camel_case_outside(self):
        assert self.Model.model_validate({"twoWords": 2}).model_dump() == {"twoWords": 2}
        assert self.Model(two_words=2).two_words == 2

    def test_is_frozen(self):
        with pytest.raises(ValidationError):
            self.Model().two_words = 3

    def test_what_it_does_not_know_is_ignored(self):
        assert self.Model.model_validate({"later": True}) == self.Model()

    def test_infinity_is_no_number(self):
        class Floating(ApiModel):
            value: float

        with pytest.raises(ValidationError):
            Floating(value=float("inf"))
