#!/bin/sh
# Brings a DAG message through its release gate, for a pipeline that has run the backtests before.
#
#   QMTL_LOG=kafka://HOST:PORT sh deploy/release.sh DAG.json RESULTS.jsonl WORLD [RELEASE]
#
# It begins a release, reports the results, and asks whether the gate has let it through. With RELEASE it goes on with one that was begun, so
# a pipeline that stopped half way can be run again: what was reported before is known, and counts once.
# Exit code: 0 where the release is approved, and has its first share; else that of the command that refused, which says why (6: the gate).
# A release that lacks backtests stays open: go on with it, or `qmtl service dagmanager release abandon`.
set -eu

if [ "$#" -lt 3 ] || [ "$#" -gt 4 ]; then
    echo "usage: release.sh DAG.json RESULTS.jsonl WORLD [RELEASE]" >&2
    exit 2
fi
dag=$1 results=$2 world=$3 release=${4:-}
: "${QMTL:=qmtl}" # may be several words, such as `python -m qmtl`

if [ -z "$release" ]; then
    begun=$($QMTL service dagmanager release start --file "$dag" --world "$world" --json)
    echo "$begun" >&2
    release=$(printf '%s\n' "$begun" | sed -n 's/.*"release_id": "\([^"]*\)".*/\1/p')
fi
$QMTL service dagmanager release backtest --release "$release" --file "$dag" --results "$results" >&2
$QMTL service dagmanager release check --release "$release"
