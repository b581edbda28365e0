"""The reference page has every field, its type, its bounds and the rules."""

import pytest

from stoker.api.fields import RULES
from stoker.api.reference import render

PAGE = render(
    {
        "description": "A thing.",
        RULES: [{"rule": "true", "message": "write a name", "fieldPath": ".metadata.name"}],
        "properties": {
            "spec": {
                "type": "object",
                "description": "What.",
                "required": ["names"],
                RULES: [{"rule": "true", "message": "a or b"}],
                "properties": {
                    "names": {
                        "type": "array",
                        "description": "Names.",
                        "maxItems": 3,
                        "items": {
                            "type": "object",
                            "description": "One name.",
                            "properties": {
                                "kind": {"type": "string", "enum": ["A", "B"], "description": "a | b."},
                                "text": {
                                    "type": "string",
                                    "maxLength": 9,
                                    "description": "Text.",
                                    RULES: [{"rule": "true", "message": "write letters"}],
                                },
                                "labels": {
                                    "type": "object",
                                    "additionalProperties": {"type": "string"},
                                    "description": "Labels.",
                                },
                            },
                        },
                    },
                    "any": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                        "properties": {"hidden": {"type": "string", "description": "Hidden."}},
                        "description": "Anything.",
                    },
                },
            },
            "status": {"type": "object", "description": "Now.", "properties": {}},
        },
    }
)


@pytest.mark.parametrize(
    "line",
    [
        "- `metadata.name`: write a name",
        "## spec",
        "| `names` | list of objects, required | Names. *At most 3 entries.* |",
        "| `any` | object | Anything. |",
        "- `all`: a or b",
        "## spec.names[]",
        "| `kind` | `A` or `B` | a \\| b. |",
        "| `text` | string | Text. *At most 9 characters; write letters.* |",
        "| `labels` | map of strings | Labels. |",
        "## status",
    ],
)
def test_has_the_line(line):
    assert line in PAGE.splitlines()


def test_what_passes_through_has_no_section():
    assert "Hidden." not in PAGE
