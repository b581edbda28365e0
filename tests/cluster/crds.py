"""Wait for a CRD."""

import time

from testbed.access import Access

ESTABLISHED = 'jsonpath={.status.conditions[?(@.type=="Established")].status}'
DEADLINE_SECONDS = 30.0


def wait_until_established(access: Access, *names: str) -> None:
    """Return when the API serves the kinds of these CRDs.

    `kubectl wait` fails at once on a CRD that is too young to have conditions ("accessor error: <nil>").
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    for name in names:
        while access.kubectl("get", "crd", name, "-o", ESTABLISHED) != "True":
            assert time.monotonic() < deadline, f"CRD {name} is not established"
            time.sleep(0.1)
