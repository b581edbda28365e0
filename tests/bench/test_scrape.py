from bench.controller.scrape import Scrape

TEXT = """\
# TYPE stoker_kube_requests counter
stoker_kube_requests_total{verb="apply",resource="pods",code="200"} 3
stoker_kube_requests_total{verb="apply",resource="services",code="200"} 1
stoker_kube_requests_total{verb="list",resource="pods",code="200"} 9
stoker_kube_requests_total{verb="delete",resource="pods",code="404"} 0
# TYPE stoker_tick_duration_seconds histogram
stoker_tick_duration_seconds_bucket{phase="decide",le="+Inf"} 4
stoker_tick_duration_seconds_count{phase="decide"} 4
stoker_tick_duration_seconds_sum{phase="decide"} 2
# TYPE stoker_queue_depth gauge
stoker_queue_depth 5
"""


def test_totals_are_over_the_labels_given():
    scrape = Scrape.parse(TEXT)
    assert scrape.total("stoker_kube_requests_total") == 13
    assert scrape.total("stoker_kube_requests_total", resource="pods", code="200") == 12
    assert scrape.total("stoker_queue_depth") == 5
    assert scrape.total("absent") == 0


def test_reads_are_no_writes_and_nothing_is_not_listed():
    assert Scrape.parse(TEXT).writes == {"apply": 4}


def test_differences_count_what_is_new_from_zero():
    later = TEXT.replace("} 3", "} 5") + 'stoker_kube_requests_total{verb="create",code="201"} 2\n'
    changed = Scrape.parse(later).since(Scrape.parse(TEXT))
    assert changed.writes == {"apply": 2, "create": 2}
    assert changed.total("stoker_queue_depth") == 0


def test_the_mean_of_a_histogram():
    scrape = Scrape.parse(TEXT)
    assert scrape.mean("stoker_tick_duration_seconds", phase="decide") == 0.5
    assert scrape.mean("stoker_tick_duration_seconds", phase="act") == 0
