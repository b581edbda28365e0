"""The command line: whatever is wrong is said in a line, without a trace, and ends with 2."""

import http.server
import threading

import pytest
import yaml
from typer.testing import CliRunner

from stoker.__main__ import app
from stoker.backtest.manifest import load
from stoker.backtest.runner import start_up_of


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "llama.yaml"
    spec = {"model": {"uri": "hf://org/name"}, "scaling": {"maxReplicas": 4}}
    kind = {"apiVersion": "stoker.dev/v1alpha1", "kind": "ModelDeployment"}
    path.write_text(yaml.safe_dump({**kind, "metadata": {"name": "llama"}, "spec": spec}))
    return path


def backtest(file, *options, **env):
    clean = {"STOKER_PROMETHEUS_URL": None, **env}
    return CliRunner(env=clean).invoke(app, ["backtest", "-f", str(file), *options])


def refusal(file, *options, **env):
    result = backtest(file, *options, **env)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture
def answering():
    """Starts a server that answers every request with one status and text; returns its address."""
    servers = []

    def start(status, text):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                """Say nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_nobody_at_that_address(file):
    said = refusal(file, "--prometheus", "http://127.0.0.1:9")
    assert said.startswith("Error: Prometheus did not answer query 'lastSample' for ")
    assert "http://127.0.0.1:9 cannot be asked" in said
    assert said.count("\n") == 1


def test_no_credentials(file, answering):
    said = refusal(file, "--prometheus", answering(401, "Unauthorized"))
    assert "HTTP 401" in said
    assert "STOKER_PROMETHEUS_BEARER_TOKEN_FILE" in said


def test_something_else_at_that_address(file, answering):
    assert "HTTP 200 with a body that is no JSON: Welcome" in refusal(
        file, "--prometheus", answering(200, "Welcome")
    )


def test_the_address_is_the_operators_setting_too(file):
    assert "http://127.0.0.1:9 cannot be asked" in refusal(file, STOKER_PROMETHEUS_URL="http://127.0.0.1:9")
    assert "Write --prometheus http://…, or set STOKER_PROMETHEUS_URL" in refusal(file)


@pytest.mark.parametrize("url", ["prometheus:9090", "http://user:secret@host:9090", "http://host/?a=b"])
def test_what_is_no_address(file, url):
    said = refusal(file, "--prometheus", url)
    assert "--prometheus" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--from", "1h", "--to", "2h"], "--from 1h is not before --to 2h"),
        (["--to", "2999-01-01"], "is in the future"),
        (["--from", "soon"], "--from 'soon' is no time"),
        (["--step", "1h"], "--step 1h: write one from 1s to 60s"),
        (["--start-up", "soon"], "--start-up: 'soon' is not a duration"),
        (["--pods", "("], "--pods '(' is no pattern"),
        (["--cost-per-gpu-hour", "-1"], "--cost-per-gpu-hour"),
        (["--namespace", "A b"], "namespace 'A b'"),
    ],
)
def test_options_that_cannot_be_meant(file, options, why):
    assert why in refusal(file, "--prometheus", "http://127.0.0.1:9", *options)


def test_a_setting_that_cannot_be_used(file):
    assert "STOKER_STALE_AFTER_SECONDS" in refusal(file, STOKER_STALE_AFTER_SECONDS="soon")


def test_each_error_of_a_file_has_its_line(file):
    obj = yaml.safe_load(file.read_text())
    obj["spec"]["scaling"] = {"maxReplicas": 2, "minReplicas": 3, "max": 1}
    file.write_text(yaml.safe_dump(obj))
    said = refusal(file)
    first, second = said.splitlines()
    assert first == f"Error: {file}: spec.scaling.max: is no field: correct its name, or remove it"
    assert second.startswith(
        f"{file}: spec.scaling.minReplicas: minReplicas is greater than maxReplicas: lower"
    )


def test_a_picture_is_refused_before_anything_is_asked(file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert "stoker[plot]" in refusal(file, "--plot", "x.png")


def test_start_up_is_the_option_then_the_status_then_a_guess(file):
    plain = load(file, None)
    obj = yaml.safe_load(file.read_text())
    startup = [{"accelerator": "gpu", "p50Seconds": 100, "p90Seconds": 130, "samples": 9}]
    file.write_text(yaml.safe_dump({**obj, "status": {"startup": startup}}))
    measured = load(file, None)
    assert start_up_of(measured, 50.0) == (50.0, "--start-up")
    assert start_up_of(measured, None) == (130.0, "p90 of status.startup in the file")
    assert start_up_of(plain, None) == (240.0, "a guess: set --start-up")


def test_the_help_names_every_option():
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["backtest", "--help"])
    assert result.exit_code == 0
    for option in (
        "--from",
        "--to",
        "--step",
        "--json",
        "--plot",
        "--start-up",
        "--cost-per-gpu-hour",
        "--pods",
    ):
        assert option in result.stdout
