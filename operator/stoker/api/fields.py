"""What the models are written with: the base model, checked scalar types, and CEL rules.

One declaration serves both readers of the API. The operator parses with pydantic; the API server validates
with the schema that `schema.py` makes of the same models. A constraint is therefore written once, as one of

- a bound that both know (`Field(ge=…, le=…, max_length=…)`),
- a `Pattern`, which is a regular expression and a sentence that says what to write instead: the API server's
  own message for a pattern shows only the expression, so in the schema it becomes a CEL rule with that
  sentence,
- a `Rule`, a CEL expression that only the API server evaluates, on a type or, through `rules=`, on a model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, reduce
from typing import Annotated, Any, ClassVar, Final, NamedTuple, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

JSONSchema: TypeAlias = dict[str, Any]

RULES: Final = "x-kubernetes-validations"
LIST_TYPE: Final = "x-kubernetes-list-type"
LIST_MAP_KEYS: Final = "x-kubernetes-list-map-keys"
RANGE: Final = "x-range"
"""Bounds as `(low, high)` for the text of a field; they are no part of the CRD."""
MAX_MESSAGE: Final = 1024
"""Longest message in status, in characters: more is noise in `kubectl describe`, and is cut."""


@dataclass(frozen=True)
class Rule:
    """One CEL rule of the API server.

    Attributes:
        rule: CEL over `self`; true when the value is fine.
        message: what is wrong and what to write instead.
        field: child that the message is about, as a CEL field path (`.minReplicas`); empty means `self`.
    """

    rule: str
    message: str
    field: str = ""

    def schema(self) -> JSONSchema:
        """Return the rule as an entry of `x-kubernetes-validations`."""
        entry = {"rule": self.rule, "message": self.message}
        return entry | ({"fieldPath": self.field} if self.field else {})

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JSONSchema:
        return with_rule(handler(core), self)


@dataclass(frozen=True)
class Pattern:
    """A regular expression, the same to RE2 and to Python's `re`, and what to write instead."""

    regex: str
    hint: str

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JSONSchema:
        return with_rule(handler(core), Rule(matches(self.regex), self.hint))

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.regex, value):
            raise ValueError(f"{value!r}: {self.hint}")
        return value


def with_rule(schema: JSONSchema, rule: Rule) -> JSONSchema:
    """Return the schema with one more CEL rule."""
    return schema | {RULES: [*schema.get(RULES, []), rule.schema()]}


def matches(regex: str) -> str:
    """Return the CEL expression that is true when all of `self` matches."""
    return f"self.matches(r'^(?:{regex})$')"


class Duration(str):
    """A span of time as Go writes it: `90s`, `1h30m`, `500ms`.

    It stays the text that the user wrote, so that it goes back to the API server unchanged; `seconds` is its
    value.
    """

    __slots__ = ()

    # Twenty characters of these cannot overflow the 292 years that CEL's `duration()` holds.
    REGEX: ClassVar = r"(?:[0-9]{1,6}(?:\.[0-9]{1,3})?(?:ms|s|m|h))+"
    MAX_LENGTH: ClassVar = 20
    HINT: ClassVar = "write a duration such as 90s, 10m or 1h30m (units: h, m, s, ms)"

    def __new__(cls, text: str) -> Self:
        """Check the text.

        Raises:
            ValueError: when `text` is not a duration.
        """
        if len(text) > cls.MAX_LENGTH or not re.fullmatch(cls.REGEX, text):
            raise ValueError(f"{text!r} is not a duration: {cls.HINT}")
        return super().__new__(cls, text)

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return _seconds(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JSONSchema:
        return with_rule({"type": "string", "maxLength": cls.MAX_LENGTH}, Rule(matches(cls.REGEX), cls.HINT))


_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@lru_cache(maxsize=1024)
def _seconds(text: str) -> float:
    """Kept: a fleet has few different durations, and asks for them at every tick."""
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", text)
    return sum((float(number) * _UNITS[unit] for number, unit in parts), 0.0)


@dataclass(frozen=True)
class Between:
    """Bounds, inclusive, of a `Duration`; CEL compares, for a schema cannot."""

    low: str
    high: str

    @property
    def hint(self) -> str:
        """What to write."""
        return f"write a duration from {self.low} to {self.high}"

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JSONSchema:
        # What is no duration at all is the other rule's to tell; here it would only be an evaluation error.
        inside = f"duration(self) >= duration('{self.low}') && duration(self) <= duration('{self.high}')"
        rule = Rule(f"!{matches(Duration.REGEX)} || ({inside})", self.hint)
        return with_rule(handler(core), rule) | {RANGE: (self.low, self.high)}

    def _check(self, value: Duration) -> Duration:
        if not Duration(self.low).seconds <= value.seconds <= Duration(self.high).seconds:
            raise ValueError(f"{value!r}: {self.hint}")
        return value


@dataclass(frozen=True)
class QuantityBetween:
    """Bounds, inclusive, of a quantity of bytes; both must be plain binary ones such as `64Mi`."""

    low: str
    high: str

    REGEX: ClassVar = r"[0-9]{1,12}(?:\.[0-9]{1,3})?(?:[KMGT]i|[kMGT])?"
    _UNITS: ClassVar = {
        unit: float(base**power)
        for base, units in ((1000, ("", "k", "M", "G", "T")), (1024, ("", "Ki", "Mi", "Gi", "Ti")))
        for power, unit in enumerate(units)
    }

    @property
    def hint(self) -> str:
        """What to write."""
        return f"write a quantity of bytes from {self.low} to {self.high}, such as 8Gi"

    @classmethod
    def bytes(cls, text: str) -> float:
        """Return the size in bytes.

        Raises:
            ValueError: when `text` is not a quantity.
        """
        if not re.fullmatch(cls.REGEX, text):
            raise ValueError(f"{text!r} is not a quantity of bytes such as 512Mi or 8Gi")
        number = text.rstrip("KMGTki")
        return float(number) * cls._UNITS[text[len(number) :]]

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JSONSchema:
        compare = f"quantity(self).compareTo(quantity('{self.low}')) >= 0"
        compare += f" && quantity(self).compareTo(quantity('{self.high}')) <= 0"
        rule = Rule(f"{matches(self.REGEX)} && {compare}", self.hint)
        return with_rule(handler(core), rule) | {RANGE: (self.low, self.high)}

    def _check(self, value: str) -> str:
        if not self.bytes(self.low) <= self.bytes(value) <= self.bytes(self.high):
            raise ValueError(f"{value!r}: {self.hint}")
        return value


def _cut(value: object) -> object:
    """Cut an over-long text: a status must never fail to be written because a message is long."""
    if isinstance(value, str) and len(value) > MAX_MESSAGE:
        return f"{value[: MAX_MESSAGE - 1]}…"
    return value


def _utc(value: datetime) -> datetime:
    """Return whole seconds in UTC, as Kubernetes writes times; so what is written equals what is read back.

    Raises:
        ValueError: when the time has no zone.
    """
    if value.tzinfo is None:
        raise ValueError(
            f"{value.isoformat()} has no time zone: give an aware datetime, or RFC 3339 text with Z"
        )
    return value.astimezone(UTC).replace(microsecond=0)


def _rfc3339(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


Timestamp = Annotated[
    datetime, AfterValidator(_utc), PlainSerializer(_rfc3339, return_type=str, when_used="always")
]
Message = Annotated[str, BeforeValidator(_cut), Field(max_length=MAX_MESSAGE)]


class FieldError(NamedTuple):
    """What is wrong with one field: its path, such as `spec.template.spec.volumes[0]`, and what to do."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ApiModel(BaseModel):
    """Base of every model: frozen, camelCase outside, and what it does not know the API server has pruned."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules over the whole object."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JSONSchema:
        schema = handler.resolve_ref_schema(handler(core))
        return reduce(with_rule, cls.rules, schema)
