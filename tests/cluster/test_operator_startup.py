"""Time to ready, measured on pods that a scheduler placed and a kubelet started."""

from collections.abc import Callable

from tests.cluster.operator_lab import ANNOTATION, Json, Lab, manifest

SLOW = {f"{ANNOTATION}/image-pull-seconds": "2", f"{ANNOTATION}/load-seconds": "5"}
CLOCK = 1.0
"""Objects carry whole seconds: a part may show so much less."""


def startup(lab: Lab, samples: int) -> Json:
    """The one entry of ``status.startup``, once it counts so many starts."""

    def entry() -> Json | None:
        found = lab.status().get("startup", [])
        return found[0] if found and found[0]["samples"] == samples else None

    found = lab.until(f"{samples} starts", entry)
    assert found is not None
    return found


def test_a_start_is_split_into_its_parts_and_known_after_a_restart(lab: Lab):
    lab.start()
    lab.apply(manifest(replicas=2, annotations=SLOW, drain={"timeout": "1s"}))
    lab.until_serving(2)
    found = startup(lab, 2)
    assert found["accelerator"] == "gpu"
    assert found["imagePull"]["p50Seconds"] >= 2 - CLOCK
    assert found["load"]["p50Seconds"] >= 5 - CLOCK
    assert found["p90Seconds"] >= 7 - CLOCK
    parts = sum(found[part]["p50Seconds"] for part in ("scheduling", "imagePull", "load"))
    assert abs(parts - found["p50Seconds"]) <= 2 * CLOCK

    lab.operator.kill()
    lab.operator.restart()
    lab.patch("modeldeployments/llm", {"spec": {"replicas": 3}})
    lab.until_serving(3)
    startup(lab, 3)
    lab.patch("modeldeployments/llm", {"spec": {"replicas": 0}})
    lab.until("nothing left", lambda: not lab.pods(live=False))
    assert startup(lab, 3)["load"]["p50Seconds"] >= 5 - CLOCK


def test_waiting_for_a_gpu_is_no_start_up(lab: Lab, own_node: Callable[[], Json]):
    accelerator = own_node()
    lab.start()
    lab.apply(manifest(replicas=3, accelerators=[accelerator]))
    lab.until_serving(2)
    startup(lab, 2)
    lab.until_verdict("CapacityGranted", "False/InsufficientGPUs")
    lab.stays("two serve and one waits", lambda: len(lab.serving()) == 2, 12)
    own_node()
    lab.until_serving(3)
    found = startup(lab, 3)
    assert found["p90Seconds"] < 12, "the wait counted"
