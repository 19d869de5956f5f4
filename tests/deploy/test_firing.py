"""Every alert fires in what it is for, at the sample at which it is to, and is quiet in what is next to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import pytest

from tests.deploy.firing import fired, load

RULES: Final = load()


class Case(NamedTuple):
    """A scenario of an alert: by job, the samples at which it fires; nothing where it is quiet."""

    alert: str
    law: str
    series: Mapping[str, str]
    fires: Mapping[str, str]
    every: str = "1m"


def of(series: str, label: str) -> str:
    """The series with another label."""
    name, _, inside = series.partition("{")
    which = label.partition("=")[0]
    kept = [one for one in inside.removesuffix("}").split(",") if one and one.partition("=")[0] != which]
    return f"{name}{{{','.join([*kept, label])}}}"


def above(alert: str, series: str, bound: int, for_: int, law: str = "") -> list[Case]:
    """A gauge that is above a bound for so many samples, and one of another log that is as high as it may be."""
    high, low = f"{bound + 1}x{for_ + 2}", f"{bound}x{for_ + 2}"
    other = of(series, 'job="second"')
    shorter = f"{bound + 1}x{max(for_ - 1, 0)} {bound}x3"
    return [
        Case(alert, f"{law}above, in the job where it is", {series: high, other: low}, {"qmtl": f"{for_}.."}),
        Case(alert, f"{law}above in another job", {series: low, other: high}, {"second": f"{for_}.."}),
        Case(alert, f"{law}not for long enough", {series: shorter}, {} if for_ else {"qmtl": "0..1"}),
        Case(alert, f"{law}two tell as much as may be", {series: low, of(series, 'instance="z"'): low}, {}),
        Case(alert, f"{law}not told", {series: "_x30"}, {}),
    ]


def counted(alert: str, series: str, window: int, bound: int, for_: int = 0, beside: str = "") -> list[Case]:
    """A counter of a process, which begins anew with it: what it counted is heard of, whenever the first sample of it came."""
    more, less, rest = bound + 1, bound, {beside: f"1x{4 * window}"} if beside else {}
    other = of(series, 'job="second"')
    away = 2 * window

    def case(law: str, samples: str, first: int | None, last: int, **others: str) -> Case:
        told = {"qmtl": f"{first + for_}..{last}"} if first is not None else {}
        return Case(alert, law, {series: samples, **others, **rest}, told)

    return [
        case("more while it is scraped", f"0x{window} {more}x{window * 2}", window + 1, 2 * window),
        case("as much as it may be", f"0x{window} {less}x{window * 2}", None, 0),
        case("the first sample has it", f"_x3 {more}x{2 * window}", 3, window + 3),
        case("the first sample has as much as may be", f"_x3 {less}x{2 * window}", None, 0),
        case("a restart has it", f"9x{2 * window} _ 0 {more}x{2 * window}", None, 0)._replace(
            fires={"qmtl": f"{for_}..{window} {2 * window + 3 + for_}..{3 * window + 2}"}
        ),
        case(
            "nobody was there for long",
            f"0x{window} _x{away} {more}x{window * 2}",
            3 * window + 1,
            4 * window + 1,
        ),
        case(
            "another log is well",
            f"0x{window} {more}x{window * 2}",
            window + 1,
            2 * window,
            **{other: "0x30"},
        ),
        case("nothing is told", "_x30", None, 0),
    ]


def counted_by_log(alert: str, series: str, window: int, every: str = "1m") -> list[Case]:
    """A count of the log, which goes on over whoever tells it."""
    other = of(series, 'job="second"')
    there = of(series, 'instance="z"')

    def case(law: str, told: Mapping[str, str], fires: Mapping[str, str]) -> Case:
        return Case(alert, law, told, fires, every)

    end = window + 5
    return [
        case("one more", {series: f"0x4 1x{2 * window}"}, {"qmtl": f"5..{end}"}),
        case("none", {series: f"0x{3 * window}"}, {}),
        case("the first sample has it", {series: f"_x5 2x{2 * window}"}, {"qmtl": f"5..{end}"}),
        case("in another log", {series: "0x30", other: f"0x4 1x{2 * window}"}, {"second": f"5..{end}"}),
        case(
            "both tell it while a task moves",
            {series: f"0x{window + 1}", there: f"_x{window} 0x{window}"},
            {},
        ),
        case("nothing is told", {series: "_x30"}, {}),
    ]


def away(alert: str, series: str, window: int) -> list[Case]:
    """What came while nobody told the count of the log for long, and what did not."""
    gone = 4 * window
    back = window + 2 + gone
    told = {"qmtl": f"0..{window}"}
    return [
        Case(
            alert,
            "while nobody told it",
            {series: f"0x{window + 1} _x{gone} 1x{2 * window}"},
            {"qmtl": f"{back}..{back + window}"},
        ),
        Case(
            alert,
            "nothing new while nobody told it",
            {series: f"3x{window + 1} _x{gone} 3x{2 * window}"},
            told,
        ),
    ]


OURS = 'qmtl_worker_tasks{processor="nodes",instance="a"}'
THEIRS = 'qmtl_worker_tasks{job="second",processor="nodes",instance="b"}'

WORKERS = [
    Case("QmtlWorkerDown", "down for a minute", {'up{instance="a"}': "1x2 0x5"}, {"qmtl": "4.."}),
    Case("QmtlWorkerDown", "down at one sample", {'up{instance="a"}': "1x2 0 1x3"}, {}),
    Case(
        "QmtlWorkerDown",
        "never up, of a job that is called ours",
        {'up{job="qmtl-2"}': "0x3"},
        {"qmtl-2": "1.."},
    ),
    Case(
        "QmtlWorkerDown",
        "a whole log of another name is lost, while one is well",
        {'up{instance="a"}': "1x9", OURS: "4x9", 'up{job="second"}': "1x2 0x6", THEIRS: "4x2 _x6"},
        {"second": "4.."},
    ),
    Case(
        "QmtlWorkerDown",
        "and stays so for days",
        {'up{job="second"}': "1 0x100", THEIRS: "4 _x100"},
        {"second": "2.."},
        "1h",
    ),
    Case(
        "QmtlWorkerDown",
        "what is none of ours",
        {'up{job="nginx"}': "0x9", 'up{instance="a"}': "1x9", OURS: "4x9"},
        {},
    ),
    Case("QmtlNobodyOwnsATask", "for two minutes", {OURS: "4x2 0x6"}, {"qmtl": "5.."}),
    Case("QmtlNobodyOwnsATask", "for less", {OURS: "4x2 0x1 4x3"}, {}),
    Case(
        "QmtlNobodyOwnsATask",
        "one has none, as another has all",
        {OURS: "0x9", 'qmtl_worker_tasks{processor="nodes",instance="c"}': "4x9"},
        {},
    ),
    Case(
        "QmtlNobodyOwnsATask",
        "in one log, while another is well",
        {OURS: "4x9", THEIRS: "4x2 0x6"},
        {"second": "5.."},
    ),
    Case("QmtlNobodyOwnsATask", "all of a log are gone", {OURS: "4x9", THEIRS: "4x2 _x6"}, {"second": "5.."}),
    Case(
        "QmtlNobodyOwnsATask",
        "all of a processor are gone",
        {OURS: "4x2 _x6", 'qmtl_worker_tasks{processor="trading",instance="a"}': "1x8"},
        {"qmtl": "5.."},
    ),
    Case("QmtlNobodyOwnsATask", "gone since a day", {OURS: "4 _x40"}, {"qmtl": "2..24"}, "1h"),
    Case("QmtlNobodyOwnsATask", "never there", {'up{instance="a"}': "0x9"}, {}),
]

POLLED = 'qmtl_worker_last_poll_timestamp_seconds{processor="nodes",instance="a"}'
TICKED = "qmtl_clock_newest_timestamp_seconds"
RESTORES = 'qmtl_task_phase{processor="nodes",instance="a",phase="restoring"}'
POSITION = 'processor="nodes",task="0",topic="x",partition="0"'


def transactions(job: str, committed: int, failed: int, outcome: str = "aborted") -> dict[str, str]:
    begin = f'qmtl_transactions_total{{job="{job}",processor="nodes",task="0",outcome='
    return {f'{begin}"committed"}}': f"0+{committed}x20", f'{begin}"{outcome}"}}': f"0+{failed}x20"}


def histogram(
    name: str, job: str, each: Mapping[str, int], labels: str = "", count: int = 20, then: int = 0
) -> dict[str, str]:
    """Buckets, each with what is added to it at every sample, and for how many nothing is added then."""
    end = f" {{}}x{then}" if then else ""
    return {
        f'{name}_bucket{{job="{job}",le="{le}"{labels}}}': f"0+{by}x{count}{end.format(by * count)}"
        for le, by in each.items()
    }


def slow(each: Mapping[str, int], task: str = "0") -> dict[str, str]:
    return histogram("qmtl_transaction_duration_seconds", "qmtl", each, f',processor="nodes",task="{task}"')


NODES_0 = ',processor="nodes",task="0"'
SECONDS = "qmtl_transaction_duration_seconds"
FAST, SLOW = {"5": 1000, "10": 1000, "+Inf": 1000}, {"5": 0, "10": 10, "+Inf": 10}

TASKS = [
    Case("QmtlWorkerHangs", "no poll for more than a minute", {POLLED: "0+60x3 180x6"}, {"qmtl": "6.."}),
    Case("QmtlWorkerHangs", "a poll a minute ago", {POLLED: "0 0+60x9"}, {}),
    Case("QmtlWorkerHangs", "always half a second longer ago", {POLLED: "0 -0.5+60x9"}, {"qmtl": "2.."}),
    Case("QmtlWorkerHangs", "it restores", {POLLED: "0x9", RESTORES: "1x9"}, {}),
    Case(
        "QmtlWorkerHangs",
        "one of its name restores in another job",
        {POLLED: "0x9", RESTORES.replace("{", '{job="second",'): "1x9"},
        {"qmtl": "3.."},
    ),
    Case("QmtlWorkerHangs", "not told", {POLLED: "0 _x9"}, {}),
    Case("QmtlClockStands", "no tick for more than five minutes", {TICKED: "0x20"}, {"qmtl": "11.."}),
    Case("QmtlClockStands", "a tick each minute", {TICKED: "0+60x20"}, {}),
    Case("QmtlClockStands", "always five minutes behind", {TICKED: "-300+60x20"}, {}),
    Case("QmtlClockStands", "ahead of the wall until that has come", {TICKED: "1000x20"}, {"qmtl": "5..12"}),
    Case(
        "QmtlClockStands",
        "one worker knows of no tick yet",
        {TICKED: "0+60x20", of(TICKED, 'instance="z"'): "0x20"},
        {},
    ),
    Case(
        "QmtlClockStands",
        "that of another log goes on",
        {TICKED: "0x20", of(TICKED, 'job="second"'): "0+60x20"},
        {"qmtl": "11.."},
    ),
    Case("QmtlClockStands", "not told", {TICKED: "_x20"}, {}),
    *above("QmtlLag", f"qmtl_input_lag_offsets{{{POSITION}}}", 10_000, 5),
    *above("QmtlEventTimeLag", f"qmtl_input_lag_seconds{{{POSITION}}}", 300, 5),
    *above(
        "QmtlTaskRefused", 'qmtl_restore_stalled_seconds{processor="nodes",task="0",cause="refused"}', 0, 0
    ),
    Case(
        "QmtlTaskRefused",
        "it waits for something else",
        {'qmtl_restore_stalled_seconds{cause="silent_log"}': "9x9"},
        {},
    ),
    *above("QmtlRunGivenUp", 'qmtl_run_phase{run="a",phase="given_up"}', 0, 0),
    Case(
        "QmtlRunGivenUp", "it failed", {'qmtl_run_phase{run="a",phase="failed"}': "0x2 1x9"}, {"qmtl": "3.."}
    ),
    Case("QmtlRunGivenUp", "it is done", {'qmtl_run_phase{run="a",phase="ended"}': "1x9"}, {}),
    *counted("QmtlRunRestarts", 'qmtl_run_restarts_total{instance="a",run="a"}', 10, 2),
    *above("QmtlRestoreRunsLong", 'qmtl_restore_running_seconds{processor="nodes",task="0"}', 300, 0),
    Case(
        "QmtlLastStableOffsetStuck",
        "an open transaction",
        {
            f"qmtl_input_high_watermark{{{POSITION}}}": "5 9x9",
            f"qmtl_input_stable_offset{{{POSITION}}}": "5x10",
        },
        {"qmtl": "2.."},
    ),
    Case(
        "QmtlLastStableOffsetStuck",
        "it moves",
        {
            f"qmtl_input_high_watermark{{{POSITION}}}": "99x9",
            f"qmtl_input_stable_offset{{{POSITION}}}": "0+1x9",
        },
        {},
    ),
    Case(
        "QmtlLastStableOffsetStuck",
        "it moves no more",
        {
            f"qmtl_input_high_watermark{{{POSITION}}}": "99x9",
            f"qmtl_input_stable_offset{{{POSITION}}}": "0+1x3 3x5",
        },
        {"qmtl": "5.."},
    ),
    Case(
        "QmtlLastStableOffsetStuck",
        "nothing waits",
        {f"qmtl_input_high_watermark{{{POSITION}}}": "9x9", f"qmtl_input_stable_offset{{{POSITION}}}": "9x9"},
        {},
    ),
    Case("QmtlTransactionsAbort", "one in ten", transactions("qmtl", 18, 2), {"qmtl": "6.."}),
    Case("QmtlTransactionsAbort", "one in twenty", transactions("qmtl", 19, 1), {}),
    Case(
        "QmtlTransactionsAbort",
        "one in fifteen, by two outcomes",
        transactions("qmtl", 28, 1) | transactions("qmtl", 28, 1, "unknown"),
        {"qmtl": "6.."},
    ),
    Case(
        "QmtlTransactionsAbort", "by another outcome", transactions("qmtl", 18, 2, "fenced"), {"qmtl": "6.."}
    ),
    Case(
        "QmtlTransactionsAbort",
        "beside a log with many that commit",
        transactions("qmtl", 18, 2) | transactions("second", 900, 0),
        {"qmtl": "6.."},
    ),
    Case("QmtlTransactionsSlow", "all are slow", histogram(SECONDS, "qmtl", SLOW, NODES_0), {"qmtl": "11.."}),
    Case("QmtlTransactionsSlow", "none is", histogram(SECONDS, "qmtl", FAST, NODES_0), {}),
    Case(
        "QmtlTransactionsSlow",
        "beside a fast log",
        histogram(SECONDS, "qmtl", SLOW, NODES_0) | histogram(SECONDS, "second", FAST, NODES_0),
        {"qmtl": "11.."},
    ),
    Case(
        "QmtlTransactionsSlow",
        "5 of 1000 are slower",
        slow({"4": 0, "5": 995, "10": 1000, "+Inf": 1000}),
        {},
    ),
    Case(
        "QmtlTransactionsSlow",
        "2 % are slower",
        slow({"4": 0, "5": 98, "6": 100, "+Inf": 100}),
        {"qmtl": "11.."},
    ),
    Case(
        "QmtlTransactionsSlow",
        "one task of two",
        slow({"5": 100, "10": 100, "+Inf": 100}) | slow(SLOW, task="1"),
        {"qmtl": "11.."},
    ),
    Case(
        "QmtlTransactionsSlow",
        "until there are none",
        histogram(SECONDS, "qmtl", SLOW, NODES_0, 12, 20),
        {"qmtl": "11..16"},
    ),
    Case(
        "QmtlBrokersLost",
        "by two errors together",
        {
            f'qmtl_log_client_errors_total{{error="{one}"}}': "0x12 3x9"
            for one in ("_TRANSPORT", "_ALL_BROKERS_DOWN")
        },
        {"qmtl": "14..22"},
    ),
    Case("QmtlTransactionsSlow", "not for long enough", histogram(SECONDS, "qmtl", SLOW, NODES_0, 10), {}),
    *counted("QmtlDeadLetters", 'qmtl_dead_letters_total{processor="nodes",task="0",code="QMTL-200"}', 15, 0),
    *counted("QmtlLateRecords", 'qmtl_late_records_total{processor="nodes",task="0"}', 15, 0),
    *counted("QmtlExpiredCuts", 'qmtl_expired_cuts_total{processor="nodes",task="0",topic="t"}', 15, 0),
    *above("QmtlNotMeasured", 'qmtl_sample_age_seconds{instance="a",sample="inputs"}', 120, 2, "an age "),
    *counted("QmtlNotMeasured", 'qmtl_sample_failures_total{instance="a",sample="inputs"}', 10, 5, 2),
    Case(
        "QmtlNotMeasured", "of tables", {'qmtl_sample_age_seconds{instance="a",sample="tables"}': "999x9"}, {}
    ),
    *counted("QmtlBrokersLost", 'qmtl_log_client_errors_total{instance="a",error="_TRANSPORT"}', 10, 5, 1),
    Case(
        "QmtlBrokersLost",
        "another error",
        {'qmtl_log_client_errors_total{error="_TIMED_OUT"}': "0x3 99x9"},
        {},
    ),
]

DIFFS = "diff_duration_ms"
QUICK, LATE = {"200": 1000, "300": 1000, "+Inf": 1000}, {"200": 0, "300": 10, "+Inf": 10}
WITHIN, BEYOND = {"100": 1000, "200": 1000, "+Inf": 1000}, {"100": 0, "200": 10, "+Inf": 10}
MADE, FAILED = "queue_create_success_total", "queue_create_error_total"
HITS = 'cross_context_cache_hit_total{processor="nodes",task="1"}'
RUNS = 'qmtl_worker_tasks{instance="a",processor="topicadmin"}'
LOST = 'qmtl_log_client_errors_total{instance="a",error="_ALL_BROKERS_DOWN"}'
HELD = 'nodecache_resident_bytes{processor="nodes",instance="a",task='

GRAPH = [
    Case("DagDiffsSlow", "all take more", histogram(DIFFS, "qmtl", LATE), {"qmtl": "6.."}),
    Case("DagDiffsSlow", "none takes more", histogram(DIFFS, "qmtl", QUICK), {}),
    Case(
        "DagDiffsSlow",
        "beside a log of many",
        histogram(DIFFS, "qmtl", LATE) | histogram(DIFFS, "second", QUICK),
        {"qmtl": "6.."},
    ),
    Case("DagDiffsSlow", "not for long enough", histogram(DIFFS, "qmtl", LATE, count=5), {}),
    Case(
        "DagDiffsSlow",
        "exactly what may be",
        histogram(DIFFS, "qmtl", {"200": 95, "300": 100, "+Inf": 100}),
        {},
    ),
    Case(
        "DagDiffsSlow",
        "6 % take more",
        histogram(DIFFS, "qmtl", {"200": 94, "201": 100, "+Inf": 100}),
        {"qmtl": "6.."},
    ),
    Case(
        "DagDiffsSlow",
        "until there are none",
        histogram(DIFFS, "qmtl", LATE, count=3, then=20),
        {"qmtl": "6..7"},
    ),
    Case(
        "DagDiffsSlow",
        "what two processes took together",
        histogram(DIFFS, "qmtl", {"200": 100, "300": 100, "+Inf": 100})
        | histogram(DIFFS, "qmtl", {"200": 0, "300": 20, "+Inf": 20}, ',instance="z"'),
        {"qmtl": "6.."},
    ),
    Case("DagDiffsSlow", "there is none", histogram(DIFFS, "qmtl", dict.fromkeys(LATE, 0)), {}),
    *counted_by_log("DagQueueNotCreated", FAILED, 15),
    *away("DagQueueNotCreated", FAILED, 15),
    Case(
        "DagQueueNotCreated", "not told for two days", {FAILED: "3x2 _x8 3x4"}, {"qmtl": "0..1 11..12"}, "6h"
    ),
    *counted_by_log("DagQueueNotRemoved", 'queue_remove_error_total{code="QMTL-326"}', 24, "1h"),
    Case(
        "DagQueueNotRemoved",
        "by a cause that was not met before",
        {
            'queue_remove_error_total{code="QMTL-326"}': "0x40",
            'queue_remove_error_total{code="QMTL-902"}': "_x4 1x36",
        },
        {"qmtl": "4..28"},
        "1h",
    ),
    *counted_by_log("DagQueueNotArchived", "queue_archive_error_total", 24, "1h"),
    *above("DagSentinelGap", "sentinel_gap_count", 0, 0),
    *above("DagHandoverStalls", "qmtl_dag_handovers_open", 0, 10),
    Case(
        "DagNodeCacheLarge",
        "two tasks together",
        {f'{HELD}"0"}}': "3e9x9", f'{HELD}"1"}}': "3e9x9"},
        {"qmtl": "5.."},
    ),
    Case(
        "DagNodeCacheLarge",
        "a byte more than may be",
        {f'{HELD}"0"}}': "3e9x9", f'{HELD}"1"}}': "2000000001x9"},
        {"qmtl": "5.."},
    ),
    Case(
        "DagBrokersLost",
        "by two errors together",
        {LOST: "0x6 2x4", LOST.replace("_ALL_BROKERS_DOWN", "_TRANSPORT"): "0x6 1x4", RUNS: "1x11"},
        {"qmtl": "7..11"},
    ),
    Case("DagNodeCacheLarge", "as much as may be", {f'{HELD}"0"}}': "3e9x9", f'{HELD}"1"}}': "2e9x9"}, {}),
    Case(
        "DagNodeCacheLarge",
        "two workers",
        {f'{HELD}"0"}}': "3e9x9", f'{HELD.replace(chr(34) + "a", chr(34) + "b")}"1"}}': "3e9x9"},
        {},
    ),
    Case("DagOrphansRise", "for three hours", {"orphan_queue_total": "0+1x9"}, {"qmtl": "6.."}, "30m"),
    Case("DagOrphansRise", "as many as there were", {"orphan_queue_total": "7x9"}, {}, "30m"),
    Case("DagOrphansRise", "more than then, and fewer since", {"orphan_queue_total": "0 9-1x5"}, {}, "30m"),
    Case("DagOrphansRise", "more since, and fewer than then", {"orphan_queue_total": "9 0+1x5"}, {}, "30m"),
    Case("DagOrphansRise", "more than then, and as many since", {"orphan_queue_total": "0 5x9"}, {}, "30m"),
    Case(
        "DagOrphansRise", "more since, and as many as then", {"orphan_queue_total": "3 0+1x3 3x1"}, {}, "30m"
    ),
    Case("DagOrphansRise", "not told three hours ago", {"orphan_queue_total": "0+1x5"}, {}, "30m"),
    *above("DagManyNodes", "compute_nodes_total", 50_000, 10),
    *above("DagManyQueues", "queues_total", 100_000, 10),
    *above("DagNodesNearLimit", "compute_nodes_total", 40_000, 10),
    *above("DagQueuesNearLimit", "queues_total", 80_000, 10),
    *above("DagNoWriter", 'no_active_writer{processor="dagmanager"}', 0, 1),
    *counted("DagBrokersLost", LOST, 5, 2, beside=RUNS),
    Case(
        "DagBrokersLost",
        "of another processor",
        {LOST: "0x5 9x5", RUNS.replace("topicadmin", "trading"): "1x11"},
        {},
    ),
    *counted(
        "DagClusterUnreachable", 'qmtl_topic_request_failures_total{instance="a",cause="unreachable"}', 5, 2
    ),
    Case(
        "DagClusterUnreachable",
        "refused",
        {'qmtl_topic_request_failures_total{cause="refused"}': "0x5 9x5"},
        {},
    ),
    *above("DagTopicsUnderReplicated", "qmtl_topics_under_replicated", 0, 15),
    *counted_by_log("DagDiffStalled", "qmtl_dag_diff_ack_timeouts_total", 10),
    *away("DagDiffStalled", "qmtl_dag_diff_ack_timeouts_total", 10),
    *above("DagCrossContextHit", "cross_context_cache_hits_uncleared", 0, 0),
    *counted_by_log("DagCrossContextHit", HITS, 15),
    *away("DagCrossContextHit", HITS, 15),
    Case("DagCrossContextHit", "heard of, and cleared", {HITS.replace("nodes", "dagmanager"): "0x3 9x9"}, {}),
    *counted("DagBrokerLoadUnknown", 'qmtl_broker_load_failures_total{instance="a",cause="timeout"}', 60, 0),
    Case("DagSloDiffs", "all take more", histogram(DIFFS, "qmtl", BEYOND), {"qmtl": "1.."}, "1d"),
    Case(
        "DagSloDiffs",
        "one in twenty exactly that",
        histogram(DIFFS, "qmtl", {"100": 95, "200": 100, "+Inf": 100}),
        {"qmtl": "1.."},
        "1d",
    ),
    Case(
        "DagSloDiffs",
        "within 28 days",
        histogram(DIFFS, "qmtl", BEYOND, count=2, then=40),
        {"qmtl": "1..29"},
        "1d",
    ),
    Case(
        "DagSloDiffs",
        "what two processes took together",
        histogram(DIFFS, "qmtl", {"100": 100, "200": 100, "+Inf": 100})
        | histogram(DIFFS, "qmtl", {"100": 0, "200": 20, "+Inf": 20}, ',instance="z"'),
        {"qmtl": "1.."},
        "1d",
    ),
    Case("DagSloDiffs", "none takes more", histogram(DIFFS, "qmtl", WITHIN), {}, "1d"),
    Case(
        "DagSloDiffs",
        "beside a log of many",
        histogram(DIFFS, "qmtl", BEYOND) | histogram(DIFFS, "second", WITHIN),
        {"qmtl": "1.."},
        "1d",
    ),
    Case("DagSloQueues", "one in 500", {MADE: "0+499x40", FAILED: "0+1x40"}, {"qmtl": "1.."}, "1d"),
    Case("DagSloQueues", "one in 1000", {MADE: "0+999x40", FAILED: "0+1x40"}, {}, "1d"),
    Case("DagSloQueues", "one in 2000", {MADE: "0+1999x40", FAILED: "0+1x40"}, {}, "1d"),
    Case("DagSloQueues", "before the first sample", {MADE: "9x9", FAILED: "1x9"}, {"qmtl": "0.."}, "1d"),
    Case("DagSloQueues", "longer ago", {MADE: "0 9x70", FAILED: "0 1x70"}, {"qmtl": "1..30"}, "1d"),
    Case(
        "DagSloQueues",
        "beside a log of many",
        {
            MADE: "0+499x9",
            FAILED: "0+1x9",
            f'{MADE}{{job="second"}}': "0+9999x9",
            f'{FAILED}{{job="second"}}': "0x9",
        },
        {"qmtl": "1.."},
        "1d",
    ),
    Case("DagSloGap", "within 90 days", {"sentinel_gap_count": "0x2 1 0x99"}, {"qmtl": "3..93"}, "1d"),
    Case(
        "DagSloGap",
        "in another log",
        {"sentinel_gap_count": "0x9", 'sentinel_gap_count{job="second"}': "1x9"},
        {"second": "0.."},
        "1d",
    ),
    Case("DagSloGap", "none", {"sentinel_gap_count": "0x99"}, {}, "1d"),
]

LIVE = [
    *above("QmtlLiveOrderUnknown", 'qmtl_live_orders_unproven_seconds{instance="a"}', 120, 1),
    *above("QmtlVenueMissing", 'qmtl_live_sessions_missing{instance="a"}', 0, 2),
    *counted("QmtlLiveOrdersTooOld", 'qmtl_live_orders_refused_total{instance="a",code="QMTL-723"}', 15, 0),
    Case(
        "QmtlLiveOrdersTooOld",
        "for another reason",
        {'qmtl_live_orders_refused_total{instance="a",code="QMTL-720"}': "0x3 9x9"},
        {},
    ),
]

CASES = (*WORKERS, *TASKS, *GRAPH, *LIVE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.law}")
def test_an_alert_fires_when_it_is_to_and_is_quiet_else(case: Case) -> None:
    assert fired(RULES, case.alert, case.series, case.every) == case.fires


def test_every_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    alerts = {rule.name for rule in RULES if rule.is_alert}
    assert alerts == {case.alert for case in CASES if case.fires}
    assert alerts == {case.alert for case in CASES if not case.fires}
