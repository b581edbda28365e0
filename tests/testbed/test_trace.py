"""The recorded trace and its superposition."""

import gzip
from collections import Counter
from itertools import pairwise

import pytest

from testbed.trace import Stage, TraceError, TraceRequest, load_azure, stage, superpose

TINY = (TraceRequest(0.0, 1, 10), TraceRequest(2.0, 2, 20), TraceRequest(9.0, 3, 30))


@pytest.fixture(scope="module")
def azure():
    return load_azure()


def test_the_azure_trace_is_whole(azure):
    assert len(azure) == 19_366
    assert azure[0] == TraceRequest(0.0, 374, 44)
    assert azure[1].arrival == pytest.approx(4.314579)
    assert azure[-1].arrival == pytest.approx(3501.722, abs=0.01)
    assert sum(r.prompt_tokens for r in azure) / len(azure) == pytest.approx(1155, abs=1)
    assert sum(r.output_tokens for r in azure) / len(azure) == pytest.approx(211, abs=1)


def test_arrivals_are_in_order(azure):
    assert all(a.arrival <= b.arrival for a, b in pairwise(azure))
    many = superpose(azure, copies=3)
    assert all(a.arrival <= b.arrival for a, b in pairwise(many))


def test_copies_add_up_and_keep_every_request(azure):
    many = superpose(azure, copies=4)
    assert len(many) == pytest.approx(4 * len(azure), abs=4)
    lengths = Counter((r.prompt_tokens, r.output_tokens) for r in many)
    assert lengths == Counter(
        {k: 4 * n for k, n in Counter((r.prompt_tokens, r.output_tokens) for r in azure).items()}
    )


def test_a_shift_moves_arrivals_and_wraps_around():
    assert superpose(TINY, shifts=[1.0]) == [
        TraceRequest(pytest.approx(1.0), 2, 20),
        TraceRequest(pytest.approx(8.0), 3, 30),
        TraceRequest(pytest.approx(8.000001), 1, 10),
    ]


def test_gaps_between_arrivals_are_never_compressed(azure):
    shifted = superpose(azure, shifts=[100.0], window=(0.0, 1000.0))
    original = [r for r in azure if 100 <= r.arrival < 1100]
    assert [r.arrival for r in shifted] == pytest.approx([r.arrival - 100 for r in original])


def test_a_window_is_cut_out_and_counted_from_its_start():
    assert superpose(TINY, shifts=[0.0], window=(1.5, 9.0)) == [TraceRequest(0.5, 2, 20)]


def test_a_window_may_be_longer_than_the_trace():
    assert len(superpose(TINY, shifts=[0.0], window=(0.0, 26.0))) == 8


def test_the_same_seed_gives_the_same_traffic(azure):
    assert superpose(azure, copies=2, seed=7) == superpose(azure, copies=2, seed=7)
    assert superpose(azure, copies=2, seed=7) != superpose(azure, copies=2, seed=8)


def test_stages_change_the_number_of_copies(azure):
    traffic = stage(azure, [Stage(0, 1), Stage(300, 6), Stage(600, 1)], 900, seed=1)
    counts = Counter(int(r.arrival // 300) for r in traffic)
    assert set(counts) == {0, 1, 2}
    assert 4 * counts[0] < counts[1]
    assert 4 * counts[2] < counts[1]


def test_a_copy_plays_on_across_stages(azure):
    whole = stage(azure, [Stage(0, 2)], 600, seed=3)
    assert stage(azure, [Stage(0, 2), Stage(250, 2)], 600, seed=3) == whole


@pytest.mark.parametrize("arguments", [{}, {"copies": 1, "shifts": [1.0]}])
def test_copies_and_shifts_exclude_each_other(arguments):
    with pytest.raises(ValueError, match="either"):
        superpose(TINY, **arguments)


def test_an_empty_trace_is_refused():
    with pytest.raises(ValueError, match="empty"):
        superpose((), copies=1)


HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_requests_without_prompt_or_answer_are_left_out(tmp_path):
    path = tmp_path / "t.csv.gz"
    lines = ["2023-11-16 18:15:46.0,5,0", "2023-11-16 18:15:47.0,0,5", "2023-11-16 18:15:48.5,5,6"]
    path.write_bytes(gzip.compress((HEADER + "\r\n".join(lines)).encode()))
    assert load_azure(path) == (TraceRequest(2.5, 5, 6),)


@pytest.mark.parametrize("line", ["2023-11-16 18:15:46.0,five,1", "yesterday,5,1", "2023-11-16 18:15:46.0"])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "t.csv"
    path.write_text(f"{HEADER}{line}\n")
    with pytest.raises(TraceError, match=r"t\.csv, line 2"):
        load_azure(path)
