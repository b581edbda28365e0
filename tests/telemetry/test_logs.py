"""Log lines: one JSON object each, or text for a terminal."""

import io
import json
import logging
import warnings

import pytest
import structlog

from stoker.telemetry import logs


@pytest.fixture
def lines():
    """(form, level) -> what is logged from then on; the process's logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}

    def configure(form="json", least="info"):
        stream = io.StringIO()
        logs.configure(form, least, stream)
        if form == "console":
            return stream.getvalue
        return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    yield configure
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.configure(**config)


def test_json_has_a_line_per_record_with_what_log_stores_look_for(lines):
    read = lines()
    structlog.get_logger("stoker.loop").info("create pod", pod="llama-0", n=3)
    (line,) = read()
    assert list(line)[:4] == ["timestamp", "level", "logger", "message"]
    assert (line["level"], line["logger"], line["message"]) == ("info", "stoker.loop", "create pod")
    assert (line["pod"], line["n"]) == ("llama-0", 3)
    assert line["timestamp"].endswith("Z")


def test_libraries_go_the_same_way(lines):
    read = lines()
    logging.getLogger("kopf.reactor").warning("watching %s", "pods")
    (line,) = read()
    assert (line["level"], line["logger"], line["message"]) == ("warning", "kopf.reactor", "watching pods")


def test_python_warnings_are_logged(lines):
    read = lines()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "DeprecationWarning: old" in read()[0]["message"]


@pytest.mark.parametrize("name", ["httpx", "httpcore", "kopf", "kopf.objects", "aiohttp.access"])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_chatty_libraries_are_quiet(lines, name, level):
    read = lines(least=level)
    logging.getLogger(name).info("chat")
    assert read() == []


def test_the_level_counts(lines):
    read = lines(least="warning")
    structlog.get_logger("stoker").info("no")
    structlog.get_logger("stoker").warning("yes")
    assert [line["message"] for line in read()] == ["yes"]


def test_a_traceback_is_in_its_line(lines):
    read = lines()
    try:
        {}["x"]
    except KeyError:
        structlog.get_logger("stoker").exception("boom")
    (line,) = read()
    assert "KeyError: 'x'" in line["exception"]


def test_the_console_is_for_people(lines):
    read = lines("console")
    try:
        {}["hf_abcdefghijkl"]
    except KeyError:
        structlog.get_logger("stoker").exception("boom", pod="llama-0")
    text = read()
    assert "boom" in text
    assert "pod=llama-0" in text
    assert "KeyError" in text
    assert "hf_" not in text
    assert "\x1b" not in text


SECRETS = [
    "Authorization: Bearer abcdef123456",
    "{'authorization': 'Basic bWU6cGFzcw=='}",
    "sent Bearer abcdef123456",
    "hf_abcdefghijkl",
    "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl",
    "http://me:hunter22@prometheus",
]
MARKS = ("abcdef123456", "bWU6", "hf_abc", "eyJ", "hunter22")


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_like_a_secret_is_hidden_wherever_it_stands(lines, text):
    read = lines()
    log = structlog.get_logger("stoker")
    log.info(text)
    log.info("x", detail=text, nested={"a": [text]}, pair=(text, "b"))
    logging.getLogger("lib").warning("said %s", text)
    try:
        {}[text]
    except KeyError:
        log.exception("boom")
    output = json.dumps(read())
    assert len(read()) == 4
    assert not [mark for mark in MARKS if mark in output]


@pytest.mark.parametrize(
    "name", ["token", "api_key", "hf_token", "password", "Authorization", "client-secret"]
)
def test_a_field_named_like_a_secret_is_hidden(lines, name):
    read = lines()
    structlog.get_logger("stoker").info("x", **{name: "short"}, nested={name: "short"})
    (line,) = read()
    assert (line[name], line["nested"][name]) == (logs.HIDDEN, logs.HIDDEN)


@pytest.mark.parametrize("field", ["tokens_per_second", "secret_name", "key"])
def test_ordinary_fields_are_shown(lines, field):
    read = lines()
    structlog.get_logger("stoker").info("basic settings of the bearer", **{field: "llama"})
    (line,) = read()
    assert (line[field], line["message"]) == ("llama", "basic settings of the bearer")
