"""`qmtl world`: create worlds, open and close order gates."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import count
from typing import Final

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.foundation.common.ids import require_id
from qmtl.foundation.common.money import parse_decimal
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, log_option, looking

_FINGERPRINT: Final = re.compile("blake3:[0-9a-f]{64}")


@click.group()
def world() -> None:
    """Create worlds and open or close the order gates of their strategies."""


@world.command("create")
@click.argument("world_id")
@log_option
@click.option("--currency", default="USD", show_default=True)
@click.option("--initial-cash", default="100000", show_default=True, help="Of each strategy's account.")
@click.option("--fee-rate", default="0.001", show_default=True, help="Fraction of the notional.")
@click.option(
    "--slippage-rate", default="0.0005", show_default=True, help="Fraction of the price against the taker."
)
@click.option(
    "--fingerprint",
    "dataset_fingerprint",
    default="",
    help="Of the bars that the world runs on, as `qmtl data fingerprint` tells it; without it, on whatever comes.",
)
def create(
    world_id: str,
    log_address: str,
    currency: str,
    initial_cash: str,
    fee_rate: str,
    slippage_rate: str,
    dataset_fingerprint: str,
) -> None:
    """Create the world WORLD_ID; creating it again with the same settings changes nothing.

    With the first one a log begins: the topics of QMTL that are not there are made, on Kafka, too.

    WORLD_ID is a part of keys and a prefix of topics: 1 to 200 ASCII letters, digits, '_', '-', and single points between them.
    """
    from qmtl.foundation.contracts.world import CreateWorld, WorldSettings
    from qmtl.interfaces.cli import session
    from qmtl.interfaces.client import command_id
    from qmtl.runtime.data.instruments import default_instruments

    require_id("WORLD_ID", world_id)
    settings = WorldSettings(
        currency,
        parse_decimal(initial_cash, "--initial-cash"),
        parse_decimal(fee_rate, "--fee-rate"),
        parse_decimal(slippage_rate, "--slippage-rate"),
        default_instruments(),
        _fingerprint(dataset_fingerprint),
    )
    parts = [currency, initial_cash, fee_rate, slippage_rate, *filter(None, [dataset_fingerprint])]
    with session.client(log_address, begins=True) as client:
        wish = command_id("create", world_id, *parts)
        client.command(CreateWorld(wish, world_id, settings, session.now_ms()))
    render.line(f"world {world_id} exists")


def _fingerprint(text: str) -> str:
    """A fingerprint as it is written, or an empty text.

    Raises:
        UsageError: another form: it would never be that of any bars.
    """
    if text and _FINGERPRINT.fullmatch(text) is None:
        raise UsageError(
            f"--fingerprint was {text[:80]!r}; it is blake3: and 64 hex digits.",
            "Take it from `qmtl data fingerprint`.",
        )
    return text


@world.command("list")
@log_option
@format_option
def list_worlds(log_address: str, as_json: bool) -> None:
    """List all worlds with their settings; with --format json each is one line."""
    from qmtl.engine.view import TableView
    from qmtl.foundation.common.money import text
    from qmtl.foundation.wire.registry import codec

    with looking(log_address) as opened:
        found = TableView(opened, "world.state", codec).refresh().rows()
    heads = (
        "world",
        "status",
        "currency",
        "initial cash",
        "fee rate",
        "slippage rate",
        "dataset fingerprint",
    )
    rows = [
        (
            row.world_id,
            row.status.value,
            row.settings.currency,
            text(row.settings.initial_cash),
            text(row.settings.fee_rate),
            text(row.settings.slippage_rate),
            row.settings.dataset_fingerprint or ("" if as_json else "-"),
        )
        for row in found
    ]
    if as_json:
        for one in rows:
            render.json_line({head.replace(" ", "_"): cell for head, cell in zip(heads, one, strict=True)})
        return
    render.table(heads, rows, title="worlds")


def _drain(context: click.Context, parameter: click.Parameter, value: str) -> tuple[bool, bool]:
    """Whether a gate drains, and whether what is open is cancelled.

    Raises:
        click.BadParameter: neither a truth value nor `cancel`.
    """
    if value.strip().lower() == "cancel":
        return True, True
    return bool(click.BOOL.convert(value, parameter, context)), False


@world.group("activation")
def activation() -> None:
    """Order gates."""


@activation.command("set")
@click.argument("world_id")
@click.option("--strategy", "strategy_id", required=True)
@click.option("--side", type=click.Choice(["long", "short"]), required=True)
@click.option("--active", type=click.BOOL, required=True, metavar="true|false")
@click.option("--weight", default="1", show_default=True, help="0 to 1, multiplies every quantity.")
@click.option(
    "--freeze",
    type=click.BOOL,
    default=False,
    show_default=True,
    metavar="true|false",
    help="Block everything, exits too.",
)
@click.option(
    "--drain",
    default="false",
    show_default=True,
    metavar="true|false|cancel",
    callback=_drain,
    help="Block new orders, let open ones end; or cancel these.",
)
@click.option(
    "--effective-mode",
    type=click.Choice(["validate", "compute-only", "paper", "live", "shadow"]),
    default=None,
    help="`live` sends orders to the venue, `paper` simulates them, the others place none; without it as it is, paper at first.",
)
@log_option
def set_activation(
    world_id: str,
    strategy_id: str,
    side: str,
    active: bool,
    weight: str,
    freeze: bool,
    drain: tuple[bool, bool],
    effective_mode: str | None,
    log_address: str,
) -> None:
    """Open or close the order gate of one side of a strategy by hand."""
    from qmtl.foundation.contracts.world import EffectiveMode, PositionSide, SetActivation
    from qmtl.interfaces.cli import session
    from qmtl.interfaces.client import command_id

    factor: Decimal = parse_decimal(weight, "--weight")
    with session.client(log_address) as client:
        known = client.view("activation").get(world_id, strategy_id, side)
        version = 0 if known is None else known.version
        before = EffectiveMode.PAPER if known is None else known.effective_mode
        mode = before if effective_mode is None else EffectiveMode(effective_mode)
        parts = (
            "activate",
            world_id,
            strategy_id,
            side,
            version,
            int(active),
            weight,
            int(freeze),
            sum(drain),
            *(() if mode is EffectiveMode.PAPER else (mode.value,)),
        )
        answered = client.view("world.outcomes")
        ids = (command_id(*parts, *([turn] if turn else [])) for turn in count())
        wish = next(one for one in ids if (found := answered.get(world_id, one)) is None or found.accepted)
        client.command(
            SetActivation(
                wish,
                world_id,
                strategy_id,
                PositionSide(side),
                active,
                factor,
                freeze,
                drain[0],
                mode,
                session.now_ms(),
                drain[1],
            )
        )
        row = client.view("activation").get(world_id, strategy_id, side)
    state = "active" if row.active else "inactive"
    render.line(f"{row.etag}: {state}, {row.effective_mode.value}")
    render.note("note: set by hand; a policy schedule of the world may change it back")
