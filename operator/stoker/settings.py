"""Settings: environment variables to one frozen record, read once at the start.

Rules of this module:

* A leaf: it imports nothing of Stoker, and no other module reads a ``STOKER_`` variable.
* Each setting says in one place its variable, default, bounds and meaning; the reference page is made of it.
* Every mistake is reported, all of them at once, with the variable's name and what to write instead.
* A secret is never a value here but the name of a file that holds it.
"""

# ruff: noqa: RUF009 - the calls in the defaults make dataclass fields

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

PREFIX: Final = "STOKER_"

T = TypeVar("T")


class SettingsError(Exception):
    """The environment holds settings that cannot be used; the message has a line for each."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """What a field's metadata says about its variable."""

    parse: Callable[[str], Any]
    """Raises ValueError with what to write instead."""
    doc: str
    shown: str
    """The default as it would be written in the environment."""
    values: str
    """What may be written, for the reference."""


def _setting(
    default: T, doc: str, parse: Callable[[str], T], *, values: str, shown: str = "", secret: bool = False
) -> T:
    """A dataclass field, typed as its value."""
    metadata = {"setting": _Setting(parse, doc, shown, values)}
    made: Any = field(default_factory=lambda: default, metadata=metadata, repr=not secret)
    value: T = made
    return value


# --- Kinds of settings ---------------------------------------------------------------------------


def _number(default: float, doc: str, *, least: float, most: float) -> float:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise ValueError(f"write a number from {least:g} to {most:g}")
        return value

    return _setting(default, doc, parse, values=f"{least:g} … {most:g}", shown=f"{default:g}")


def _whole(default: int, doc: str, *, least: int, most: int) -> int:
    def parse(text: str) -> int:
        # int() would also take "1_000" and "٣".
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"write a whole number from {least} to {most}")
        return int(text)

    return _setting(default, doc, parse, values=f"{least} … {most}", shown=str(default))


def _choice(default: str, doc: str, *choices: str) -> str:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"write one of {', '.join(choices)}")
        return text.lower()

    return _setting(default, doc, parse, values=", ".join(f"`{c}`" for c in choices), shown=default)


def _flag(doc: str) -> bool:
    def parse(text: str) -> bool:
        if text.lower() not in {"true", "false"}:
            raise ValueError("write true or false")
        return text.lower() == "true"

    return _setting(default=False, doc=doc, parse=parse, values="`true`, `false`", shown="false")


def _text(default: str, doc: str, *, values: str = "text") -> str:
    return _setting(default, doc, str, values=values, shown=default)


def _file(doc: str) -> Path | None:
    def parse(text: str) -> Path | None:
        return Path(text)

    return _setting(None, doc, parse, values="path")


def _url(default: str, doc: str) -> str:
    def parse(text: str) -> str:
        parts = urlsplit(text)  # raises ValueError itself for a broken IPv6 address
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("write an address such as http://prometheus.monitoring:9090")
        if parts.username or parts.password:
            raise ValueError("put no password into it: use STOKER_PROMETHEUS_USERNAME and …_PASSWORD_FILE")
        if parts.query or parts.fragment:
            raise ValueError("write it without ? and #")
        return text.rstrip("/")

    return _setting(default, doc, parse, values="URL", shown=default)


_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def _names(doc: str) -> tuple[str, ...]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        for name in names:
            if not _NAMESPACE.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no namespace: write names with commas between, such as ml,chat"
                )
        return names

    return _setting((), doc, parse, values="names with commas between")


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token


def _headers(doc: str) -> Mapping[str, str]:
    def parse(text: str) -> Mapping[str, str]:
        headers = {}
        for pair in filter(None, (pair.strip() for pair in text.split(","))):
            name, separator, value = (part.strip() for part in pair.partition("="))
            value = unquote(value)
            if not separator or not _HEADER.fullmatch(name) or not (value.isascii() and value.isprintable()):
                raise ValueError("write name=value pairs with commas between, values percent-encoded")
            headers[name] = value
        return headers

    return _setting(_NO_HEADERS, doc, parse, values="`name=value` with commas between", secret=True)


# --- The settings --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings; each field's variable is ``STOKER_`` and its name in capitals."""

    prometheus_url: str = _url(
        "",
        "Address of Prometheus, or of what speaks its query API, with the path prefix if there is one. "
        "Without it nothing is scaled.",
    )
    prometheus_timeout_seconds: float = _number(
        8, "Time for all queries of one tick. Later answers count as missing.", least=0.1, most=60
    )
    prometheus_bearer_token_file: Path | None = _file(
        "File with a bearer token for Prometheus; read again for each query."
    )
    prometheus_username: str = _text("", "User name for Prometheus; needs the password file.")
    prometheus_password_file: Path | None = _file("File with the password of that user.")
    prometheus_ca_file: Path | None = _file("Certificates (PEM) to verify Prometheus with.")
    prometheus_insecure_skip_verify: bool = _flag(
        "Accept any certificate of Prometheus: for tests, never in production."
    )
    prometheus_headers: Mapping[str, str] = _headers(
        "Headers for each query, for example `X-Scope-OrgID=team-a` for a tenant of Mimir."
    )
    namespaces: tuple[str, ...] = _names("Namespaces to work in; empty means all.")
    scaling_interval_seconds: float = _number(
        5, "Time between two looks at the metrics.", least=0.5, most=300
    )
    stale_after_seconds: float = _number(
        60,
        "A measurement older than this is shown, but never acted on to shrink a fleet.",
        least=1,
        most=3600,
    )
    resync_seconds: float = _number(
        300,
        "Time between two full comparisons with the API server, for events that were missed.",
        least=5,
        most=86400,
    )
    workers: int = _whole(16, "ModelDeployments acted on at the same time.", least=1, most=256)
    kube_qps: float = _number(
        200, "Requests per second to the API server in the long run; 0 means no limit.", least=0, most=10000
    )
    kube_burst: int = _whole(400, "Requests that may go at once after a pause.", least=1, most=100000)
    kube_concurrency: int = _whole(32, "Requests to the API server in flight at a time.", least=1, most=1000)
    kube_timeout_seconds: float = _number(10, "Time for one request to the API server.", least=0.1, most=60)
    kubeconfig: Path | None = _file(
        "Kubeconfig to use instead of the pod's service account; `KUBECONFIG` counts when this is not set."
    )
    kube_context: str = _text("", "Context of the kubeconfig; empty means its current one.")
    listen_address: str = _text(
        "0.0.0.0",  # noqa: S104 - the kubelet and Prometheus come from outside of the pod
        "Address to serve `/metrics`, `/healthz` and `/readyz` on.",
        values="IP address or host name",
    )
    listen_port: int = _whole(8080, "Port of the same; 0 takes a free one.", least=0, most=65535)
    log_format: str = _choice("json", "How log lines look.", "json", "console")
    log_level: str = _choice(
        "info", "The least severe log line to write.", "debug", "info", "warning", "error"
    )


def load(environ: Mapping[str, str]) -> Settings:
    """The settings of an environment. A variable that is empty counts as not set.

    Raises:
        SettingsError: names every variable that cannot be used, and says what to write.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for spec in fields(Settings):
        name, text = variable(spec), environ.get(variable(spec), "").strip()
        if not text:
            continue
        try:
            values[spec.name] = _of(spec).parse(text)
        except ValueError as error:
            shown = f" {text!r}" if spec.repr else ""
            problems.append(f"{name}{shown} cannot be used: {error}")
    if "kubeconfig" not in values and environ.get("KUBECONFIG"):
        values["kubeconfig"] = Path(environ["KUBECONFIG"])
    settings = Settings(**values)
    problems += _contradictions(settings)
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def unknown(environ: Mapping[str, str]) -> Mapping[str, str | None]:
    """Variables that look like Stoker's and are none, each with the likeliest meant one: for a warning.

    Kubernetes itself sets ``STOKER_SERVICE_HOST``, ``STOKER_METRICS_PORT_8080_TCP`` and the like for
    Services; those are left out (https://kubernetes.io/docs/concepts/services-networking/service/).
    """
    known = [variable(spec) for spec in fields(Settings)]
    strange = [name for name in environ if name.startswith(PREFIX) and name not in known]
    return {
        name: next(iter(difflib.get_close_matches(name, known, n=1)), None)
        for name in sorted(strange)
        if not _SERVICE_LINK.search(name)
    }


_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")


def variable(spec: Field[Any]) -> str:
    """The environment variable of a field of ``Settings``."""
    return PREFIX + spec.name.upper()


def reference_markdown() -> str:
    """The reference page of all settings."""
    rows = [
        f"| `{variable(spec)}` | {_default(_of(spec))} | {_of(spec).values} | {_of(spec).doc} |"
        for spec in fields(Settings)
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "The operator reads its settings from environment variables, once, when it starts.",
            "A value that cannot be used ends it with a message that names the variable.",
            "A variable that is empty counts as not set.",
            "",
            "| Variable | Default | Values | Meaning |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _of(spec: Field[Any]) -> _Setting:
    setting: _Setting = spec.metadata["setting"]
    return setting


def _default(setting: _Setting) -> str:
    return f"`{setting.shown}`" if setting.shown else "–"


def _contradictions(settings: Settings) -> list[str]:
    """What no single variable shows."""
    problems = []
    if settings.prometheus_username and settings.prometheus_bearer_token_file:
        problems.append(
            "STOKER_PROMETHEUS_USERNAME and STOKER_PROMETHEUS_BEARER_TOKEN_FILE: set only one of them"
        )
    if bool(settings.prometheus_username) != bool(settings.prometheus_password_file):
        problems.append("STOKER_PROMETHEUS_USERNAME and STOKER_PROMETHEUS_PASSWORD_FILE: set both or neither")
    if settings.stale_after_seconds <= settings.scaling_interval_seconds:
        problems.append(
            "STOKER_STALE_AFTER_SECONDS must be longer than STOKER_SCALING_INTERVAL_SECONDS, "
            f"not {settings.stale_after_seconds:g} s against {settings.scaling_interval_seconds:g} s"
        )
    return problems
