"""Compiled or not, a run gives the same."""

import subprocess
import sys

import pytest

from bench.replay import speed

RUN = """
import sys
from bench.replay import speed
if sys.argv[1] == "compiled":
    speed.accelerate()
from bench.replay.fleet import StartUp
from bench.replay.policies import signals
from bench.replay.policies.hpa import HorizontalPodAutoscaler
from bench.replay.simulation import Leak, Setting, simulate
from bench.replay.traces import poisson
from testbed.replica_models import model_named
arrivals = poisson(14.0, 0.0, 900.0, (1500, 200), seed=1)
model = model_named("qwen3-32b-2xh100")
setting = Setting(model, arrivals, 900.0, StartUp(60), 1, maximum=9, warm_up=0.0, leak=Leak(0, 100.0, 0.1))
ledger = simulate(setting, HorizontalPodAutoscaler(signals.in_flight(), 30.0, 1, 9))
print(ledger.score(), ledger.targets)
"""


def played(how: str) -> str:
    answer = subprocess.run([sys.executable, "-c", RUN, how], capture_output=True, text=True, check=True)
    return answer.stdout


def test_compiled_modules_give_the_same_results():
    plain = played("plain")
    assert "Score(requests=" in plain
    assert played("compiled") == plain


def test_it_is_too_late_once_a_module_has_been_imported():
    assert "bench.replay.simulation" in sys.modules or __import__("bench.replay.simulation")
    with pytest.raises(RuntimeError, match=r"bench\.replay\.simulation.* too late"):
        speed.accelerate()


def test_without_a_compiler_it_goes_on_as_it_is(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("STOKER_REPLAY_STORE", str(tmp_path))
    monkeypatch.setattr(speed, "MODULES", ("testbed.replica_models_that_nobody_wrote",))
    monkeypatch.setattr(speed, "_digest", lambda: "digest")
    path = list(sys.path)
    assert speed.accelerate() is False
    assert "not compiled" in capsys.readouterr().err
    assert sys.path == path
