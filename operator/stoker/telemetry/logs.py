"""Logs: structlog for everybody, also for kopf and every library that uses the standard library's logging.

Rules of this module:

* One line per record, to stderr: JSON for machines, or aligned and coloured for people.
* No secret leaves: fields named like one are replaced, and so is what looks like a token within any text.
* Libraries are quiet: one that logs each request or each event at INFO would drown the operator's own words.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN: Final = "[hidden]"

QUIET: Final[Mapping[str, int]] = {
    "aiohttp.access": logging.WARNING,
    "httpcore": logging.WARNING,  # each step of each connection
    "httpx": logging.WARNING,  # each request, at INFO
    "kopf": logging.WARNING,  # each handler of each event, at INFO
    "kubernetes": logging.INFO,  # whole bodies, at DEBUG
    "urllib3": logging.INFO,
}


def configure(form: str = "json", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging for the process; a second call replaces the first.

    Args:
        form: ``json`` or ``console``.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        stream: where lines go; stderr by default.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,  # before hiding: a traceback may quote a secret as well
        hide_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(form, stream)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(capture=True)


def _renderer(form: str, stream: TextIO) -> list[Processor]:
    if form == "json":
        # "message" is what Fluent Bit, Loki and Cloud Logging look for.
        return [
            structlog.processors.EventRenamer("message"),
            _in_reading_order,
            structlog.processors.JSONRenderer(default=str),
        ]
    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    # The traceback is text by now, with its secrets hidden.
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _in_reading_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    first = ("timestamp", "level", "logger", "message")
    return {name: event[name] for name in first if name in event} | dict(event)


_SECRET_FIELD = re.compile(
    r"(^|_|-)(token|password|passwd|secret|authorization|api_?key|cookie)s?$", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"(?i:\bauthorization\W{1,4}\w+ +)[^\s'\"]+"  # a header with its name
    r"|(?i:\b(?:bearer|basic) +)(?=\S*\d)[A-Za-z0-9._~+/=-]{8,}"  # and without; words have no digits
    r"|\bhf_[A-Za-z0-9]{8,}"  # Hugging Face
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]+"  # JSON web tokens, such as those of service accounts
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password in a URL
)


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Processor: replace secrets, by the name of their field and by how they look, at any depth."""
    return {name: _hidden(name, value) for name, value in event.items()}


def _hidden(name: str, value: Any) -> Any:
    if _SECRET_FIELD.search(name):
        return HIDDEN
    if isinstance(value, str):
        return _SECRET_TEXT.sub(HIDDEN, value)
    if isinstance(value, Mapping):
        return {key: _hidden(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not name.startswith("_"):
        return [_hidden("", item) for item in value]
    return value
