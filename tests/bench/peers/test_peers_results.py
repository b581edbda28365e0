"""The results' file: sections that replace themselves alone, each with its origin."""

import json

from bench.peers import results


def test_a_section_replaces_itself_alone(tmp_path):
    path = tmp_path / "results" / "peers.json"
    results.save("ramp", {"cells": 1}, path)
    results.save("faults", {"rows": []}, path)
    results.save("ramp", {"cells": 2}, path)
    sections = json.loads(path.read_text())["sections"]
    assert list(sections) == ["faults", "ramp"]
    assert sections["ramp"]["cells"] == 2


def test_each_section_says_where_when_and_how(tmp_path):
    path = tmp_path / "peers.json"
    results.save("ramp", {}, path)
    measured = json.loads(path.read_text())["sections"]["ramp"]["measured"]
    assert measured["command"].startswith("python -m bench.peers")
    assert measured["versions"]["keda-operator"] == "v2.21.0"
    assert {"date", "commit", "machine"} < measured.keys()
