"""A pod that publishes whatever a test puts onto its page: a queue, a gateway, a broker."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.cluster.operator_lab import Lab

PORT = 18900


class Page:
    """What the pod shows at `/metrics`; assign `text` to change it."""

    def __init__(self) -> None:
        self.text = ""


@contextmanager
def published(lab: Lab, create_pod: Callable[..., str], name: str) -> Iterator[Page]:
    """Start a pod with this name that Prometheus scrapes, and answer for it at its address."""
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": "/metrics",
    }
    create_pod(name, annotations=annotations, gpus=0)

    def address() -> str:
        (pod,) = [p for p in lab.items("pods") if p["metadata"]["name"] == name]
        return str(pod["status"].get("podIP", ""))

    page = Page()
    with http.server.ThreadingHTTPServer(
        (lab.until("the pod's address", address), PORT), _handler(page)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield page
        finally:
            server.shutdown()
            thread.join()


def _handler(page: Page) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page.text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
