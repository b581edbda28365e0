"""The conversion from models to a structural schema, rule by rule, and the files that are made of it."""

import enum
import itertools
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from stoker.api import conditions, schema
from stoker.api.fields import RULES, ApiModel, Between, Duration, Rule
from stoker.api.scalars import map_by


class Kind(enum.StrEnum):
    A = "A"
    B = "B"


class Leaf(ApiModel):
    """A leaf."""

    size: Annotated[int, Field(ge=1, le=5)] = 2
    """How large
    it is."""
    label: Annotated[str, Field(max_length=5)] = ""
    """Nothing by default."""


class Tree(ApiModel):
    """A tree."""

    kind: Kind = Kind.A
    """Which."""
    leaf: Leaf = Leaf()
    """The leaf of this tree."""
    other: Leaf | None = None
    """Perhaps another."""
    leaves: Annotated[tuple[Leaf, ...], Field(max_length=3, json_schema_extra=map_by("size"))] = (Leaf(),)
    """Many."""
    words: Annotated[dict[str, Annotated[str, Field(max_length=9)]], Field(max_length=2)] = {}  # noqa: RUF012
    """Words."""
    count: Annotated[int, Field(ge=0)] | None = None
    """No upper bound."""
    share: Annotated[float, Field(ge=0, le=1)]
    """A share."""
    wait: Annotated[Duration, Between("1s", "1m")] = Duration("5s")
    """A wait."""
    sure: bool = False
    """Whether."""

    rules = (Rule("true", "never", ".leaf"),)


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    return schema.structural(Tree)


@pytest.fixture(scope="module")
def fields(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["properties"]


class TestConversion:
    def test_references_are_written_out(self, fields):
        assert fields["leaf"]["properties"]["size"]["type"] == "integer"

    def test_a_fields_own_text_wins_over_that_of_its_type(self, fields):
        assert fields["leaf"]["description"] == "The leaf of this tree."
        assert fields["leaves"]["items"]["description"] == "A leaf."

    def test_an_optional_field_is_its_type(self, fields):
        assert (fields["other"]["type"], fields["count"]["type"]) == ("object", "integer")
        assert "default" not in fields["other"]

    def test_texts_are_one_line_that_ends_with_default_and_bounds(self, fields):
        size = fields["leaf"]["properties"]["size"]
        assert size["description"] == "How large it is. Default: 2. From 1 to 5."
        assert fields["wait"]["description"] == "A wait. Default: 5s. From 1s to 1m."
        assert fields["sure"]["description"] == "Whether. Default: false."
        assert fields["count"]["description"] == "No upper bound."

    def test_a_default_that_says_nothing_is_left_out(self, fields):
        assert "default" not in fields["leaf"]["properties"]["label"]
        assert "default" not in fields["words"]

    def test_the_default_of_an_object_is_written_out_without_what_says_nothing(self, fields):
        assert fields["leaf"]["default"] == {"size": 2}
        assert fields["leaves"]["default"] == [{"size": 2}]

    def test_a_default_of_false_is_a_default(self, fields):
        assert fields["sure"]["default"] is False

    def test_enumerations_are_texts(self, fields):
        assert fields["kind"] == {
            "description": "Which. Default: A.",
            "type": "string",
            "enum": ["A", "B"],
            "default": "A",
        }

    def test_numbers_have_a_format(self, fields):
        assert fields["leaf"]["properties"]["size"]["format"] == "int32"
        assert fields["count"]["format"] == "int64"
        assert fields["share"]["format"] == "double"

    def test_required_is_what_has_no_default(self, tree):
        assert tree["required"] == ["share"]

    def test_rules_stand_on_the_object(self, tree):
        assert tree[RULES] == [{"rule": "true", "message": "never", "fieldPath": ".leaf"}]

    def test_what_the_api_server_does_not_take_is_refused_with_its_path(self):
        class Bad(ApiModel):
            """Bad."""

            inner: Annotated[int, Field(gt=0)]
            """Exclusive bounds are a bool in structural schemas."""

        with pytest.raises(ValueError, match=r"Bad\.inner: exclusiveMinimum: not part of a"):
            schema.structural(Bad)

    def test_two_types_in_one_field_are_refused(self):
        class Bad(ApiModel):
            """Bad."""

            either: int | str
            """Either."""

        with pytest.raises(ValueError, match=r"Bad\.either: more than one type"):
            schema.structural(Bad)

    def test_constants_are_refused(self):
        class Bad(ApiModel):
            """Bad."""

            fixed: Literal["x"]
            """A constant."""

        with pytest.raises(ValueError, match=r"Bad\.fixed: const"):
            schema.structural(Bad)


def walk(path: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    children = [*node.get("properties", {}).items()]
    children += [("[]", node[inner]) for inner in ("items", "additionalProperties") if inner in node]
    yield from itertools.chain.from_iterable(walk(f"{path}.{name}", child) for name, child in children)


@pytest.fixture(scope="module")
def nodes() -> dict[str, dict[str, Any]]:
    """Every node below spec and status, by its path."""
    root = schema.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return dict(itertools.chain(walk("spec", root["spec"]), walk("status", root["status"])))


class TestHygiene:
    def test_every_text_is_bounded(self, nodes):
        free = [path for path, node in nodes.items() if node["type"] == "string" and "maxLength" not in node]
        assert [path for path in free if "enum" not in nodes[path] and "format" not in nodes[path]] == []

    def test_every_list_is_bounded_and_says_how_it_is_applied(self, nodes):
        needed = {"maxItems", "x-kubernetes-list-type"}
        lists = {path: node for path, node in nodes.items() if node["type"] == "array"}
        assert [path for path, node in lists.items() if not needed <= node.keys()] == []

    def test_every_map_is_bounded(self, nodes):
        maps = {path: node for path, node in nodes.items() if "additionalProperties" in node}
        assert [path for path, node in maps.items() if "maxProperties" not in node] == []

    def test_every_number_of_the_spec_is_bounded(self, nodes):
        numbers = {path: node for path, node in nodes.items() if node["type"] in {"integer", "number"}}
        free = [path for path, node in numbers.items() if not {"minimum", "maximum"} <= node.keys()]
        assert [path for path in free if path.startswith("spec")] == []

    def test_every_field_has_a_text(self, nodes):
        fields = {path: node for path, node in nodes.items() if not path.endswith("[]")}
        assert [path for path, node in fields.items() if not node["description"].endswith(".")] == []

    def test_every_field_of_the_spec_says_what_it_is_when_unset(self, nodes):
        silent = []
        for path, node in nodes.items():
            optional = node.get("properties", {}).keys() - set(node.get("required", []))
            for name in optional if path.startswith("spec") else ():
                field = nodes[f"{path}.{name}"]
                told = re.search("Unset|Refused", field["description"])
                if "default" not in field and not told:
                    silent.append(f"{path}.{name}")
        assert silent == []

    def test_every_rule_says_what_to_do(self, nodes):
        words = {"write", "set", "remove", "lower", "use"}
        messages = {rule["message"] for node in nodes.values() for rule in node.get(RULES, [])}
        assert len(messages) > 30
        assert [message for message in messages if not words & set(message.split())] == []


class TestFiles:
    def test_the_crd_is_checked_in(self, repository):
        text = (repository / "crds/stoker.dev_modeldeployments.yaml").read_text()
        assert text == schema.crd_yaml(), "run `stoker generate`"
        assert yaml.safe_load(text) == schema.crd()

    @pytest.mark.parametrize(
        ("name", "text"),
        [("api", schema.reference_markdown()), ("conditions", conditions.reference_markdown())],
    )
    def test_the_reference_is_checked_in(self, repository, name, text):
        assert (repository / f"docs/reference/{name}.md").read_text() == text, "run `stoker generate`"

    def test_write_makes_all_of_them(self, tmp_path):
        schema.write(tmp_path)
        assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
            "crds/stoker.dev_modeldeployments.yaml",
            "docs/reference/api.md",
            "docs/reference/conditions.md",
        ]
