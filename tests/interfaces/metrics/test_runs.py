"""What an execution manager shows: each run as it stands now, whether it has a process or not."""

from __future__ import annotations

from dataclasses import replace

from qmtl.interfaces.execution.policy import Phase
from qmtl.interfaces.execution.state_dir import RunStatus
from qmtl.interfaces.metrics.runs import health_of, showing
from tests.interfaces.metrics.scraping import LOOPBACK, Scrape, ask

UP = RunStatus("up", "s.py", "w1", "kafka://h:1", Phase.RUNNING, 7, 1_500, None, 2, -9, 0)
DOWN = replace(UP, run="down", phase=Phase.GIVEN_UP, pid=None, restarts=5, last_exit=3)
NEW = replace(UP, run="new", phase=Phase.WAITING, pid=None, started_ms=None, restarts=0, last_exit=None)


def test_each_run_is_shown_as_it_stands_at_the_scrape() -> None:
    runs = [UP, DOWN, NEW]
    with showing(lambda: tuple(runs), LOOPBACK, 0) as url:
        shown = Scrape(url)
        rows = [
            tuple(
                shown.get(f"qmtl_run_{name}", run=run)
                for name in ("up", "restarts_total", "last_exit_code", "start_timestamp_seconds")
            )
            for run in ("up", "down", "new")
        ]
        assert rows == [(1, 2, -9, 1.5), (0, 5, 3, 1.5), (0, 0, None, None)]
        for one in runs:
            phases = {each: shown.get("qmtl_run_phase", run=one.run, phase=each.value) for each in Phase}
            assert phases == {each: float(each is one.phase) for each in Phase}
        assert ask(f"{url}/healthz").status == 503
        runs.remove(DOWN)
        assert Scrape(url).get("qmtl_run_up", run="down") is None
        assert ask(f"{url}/healthz").status == 200


def test_a_manager_is_well_unless_a_run_is_over_that_should_not_be() -> None:
    ready, said = health_of([UP, DOWN, replace(NEW, phase=Phase.FAILED)])
    assert not ready
    assert said["reasons"] == ["down is given_up", "new is failed"]
    for phase in (Phase.WAITING, Phase.STOPPING, Phase.STOPPED, Phase.ENDED):
        assert health_of([UP, replace(NEW, phase=phase)])[0]
