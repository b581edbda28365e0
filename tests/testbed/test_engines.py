"""The process of the engines: its control port, its start, its end."""

import os
import select
import signal
import subprocess
import sys
import textwrap

import aiohttp
import pytest
from aiohttp import web

from testbed.engine import MetricsFault
from testbed.engines import EngineFleet, EngineFleetError, control_app
from tests.testbed.simulated import (
    a_pod,
    kubeconfig,
    serving,
    url,
)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
        yield session


async def test_the_control_port(http):
    pod = a_pod()
    async with serving(pod, a_pod("q")) as engines:
        runner = web.AppRunner(control_app(engines))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        control = f"http://127.0.0.1:{runner.addresses[0][1]}/testbed"
        async with http.post(f"{control}/faults", json={"pods": ["ns/p"], "metrics": "error"}) as answer:
            assert answer.status == 200
        async with http.get(url(pod, "/metrics")) as answer:
            assert answer.status == 500
        async with http.post(f"{control}/faults", json={"metrics": "gone"}) as answer:
            assert "must be one of none, error" in (await answer.json())["error"]
        async with http.get(f"{control}/stats") as answer:
            assert set((await answer.json())["pods"]) == {"ns/p", "ns/q"}
        await runner.cleanup()


def test_the_fleet_s_process_starts_answers_and_ends(tmp_path):
    with EngineFleet(kubeconfig(tmp_path), log=tmp_path / "log") as fleet:
        assert fleet.stats()["totals"]["served"] == 0
        fleet.break_metrics(MetricsFault.NAN)
        pid = fleet.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(EngineFleetError, match="not running"):
        fleet.stats()


def test_a_fleet_that_cannot_start_says_where_to_look(tmp_path):
    with pytest.raises(EngineFleetError, match=r"ended at once; see .*log"):
        EngineFleet(tmp_path / "missing", log=tmp_path / "log").start()
    assert "missing" in (tmp_path / "log").read_text()


def test_the_fleet_s_process_ends_with_a_parent_that_is_killed(tmp_path):
    script = f"""
        import os, pathlib, time
        from testbed.engines import EngineFleet
        fleet = EngineFleet(pathlib.Path({str(kubeconfig(tmp_path))!r}))
        fleet.start()
        print(fleet.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    child = os.pidfd_open(pid)
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert select.select([child], [], [], 30)[0], "the process outlived its parent"
    finally:
        os.close(child)
        parent.stdout.close()
