"""What the other tests of the documentation rely on."""

import pytest

from tests.docs.markdown import Command, anchors, blocks, commands, links

PAGE = """# A `page` of (mine)

See [there](other.md#x), ![a picture](p.png), not `[this](gone.md)`.

```console
$ kubectl get pods
NAME                    READY   AGE
chat-5d8f2c1a-0         1/1     12s
$ kubectl wait \\
    --timeout=1m
```

1. In a list:

   ```yaml
   kind: X
   ```
"""


def test_links_blocks_and_anchors():
    assert links(PAGE) == ["other.md#x", "p.png"]
    assert anchors(PAGE) == {"a-page-of-mine"}
    assert blocks(PAGE, "yaml") == ["kind: X\n"]


def test_commands_and_what_they_print():
    first, second = commands(PAGE)
    assert (first.text, len(first.shown)) == ("kubectl get pods", 2)
    assert second.text == "kubectl wait \\\n    --timeout=1m"
    assert first.missing("NAME  READY  AGE\nchat-00000000-0  1/1  3m4s\n") is None


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "NAME  READY  AGE\n",
        "NAME  READY  AGE\nchat-00000000-0  0/1  3s\n",
        "NAME  READY  AGE\nchat-00000000-1  1/1  3s\n",
        "chat-00000000-0  1/1  3s\nNAME  READY  AGE\n",
    ],
)
def test_what_was_not_printed_is_missed(printed: str):
    first, _ = commands(PAGE)
    assert first.missing(printed) is not None


def test_a_page_may_leave_text_out():
    command = Command("x", ["…", "23 requests", "…"])
    assert Command("x", ["by …: 1 of 2"]).missing("by the way: 1 of 2") is None
    assert Command("x", ["by …: 1 of 2"]).missing("by the way: 2 of 2") is not None
    assert command.missing("a\n17 requests\nb\n") is None
    assert command.missing("a\n17 apples\nb\n") == "23 requests"


def test_an_error_that_is_shown_is_expected():
    assert Command("x", ['The ModelDeployment "x" is invalid: …']).fails
    assert not Command("x", ["fine"]).fails
    assert not Command("x").fails
