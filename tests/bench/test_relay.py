import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from bench.controller.relay import ROUND_SECONDS, Answered, Relay


@pytest.fixture
def upstream():
    """A Prometheus that answers with the form that it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"value": [1, "' + body.rpartition(b"=")[2] + b'"]}')

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_answers_come_through_and_what_is_expected_is_noted_once(upstream):
    with Relay(upstream) as relay:
        relay.expect(12_001)
        assert httpx.post(f"{relay.url}/api/v1/query", data={"query": "12000"}).json()["value"][1] == "12000"
        assert relay.seen(12_001) is None
        httpx.post(f"{relay.url}/api/v1/query", data={"query": "12001"})
        first = relay.seen(12_001)
        httpx.post(f"{relay.url}/api/v1/query", data={"query": "12001"})
        assert first is not None
        assert first is relay.seen(12_001)
        assert first.asked_at <= first.answered_at


def test_a_round_begins_with_the_first_of_the_queries_that_are_close():
    relay = Relay("http://127.0.0.1:1")
    relay._asked = [10.0, 14.9, 15.0, 15.0 + ROUND_SECONDS / 2, 20.0]
    seen = Answered(15.0 + ROUND_SECONDS / 2, 15.9, b"")
    assert relay.round_of(seen) == 14.9
    relay._server.server_close()
