"""What clients have used of vendors: counted for each, kept across restarts, priced, and shown everywhere."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from click.testing import CliRunner

from gateway.access import MemoryCounters, hash_key
from gateway.access.usage import Usage, UsageBook, usage_file
from gateway.admin.usage import report
from gateway.cli import main
from gateway.config import load
from gateway.errors import ConfigError
from gateway.model import Money
from gateway.observe import Metrics
from tests.kit.gateway import CANARY, one_route, running
from tests.kit.seen import admin_port
from tests.kit.wire import answering, connect, get, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.gateway import Running

KEYS = {name: f"gp_CANARY-usage-{name}-0123456789" for name in ("web", "batch")}
MISSING = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
PRICE = {"per_call": 0.35, "currency": "EUR"}
TODAY = time.strftime("%Y-%m-%d", time.gmtime())


def config(port: int, folder: Path | None = None, **route: Any) -> dict[str, Any]:
    clients: list[dict[str, Any]] = [{"name": name, "key_sha256": hash_key(key)} for name, key in KEYS.items()]
    state = {"state_file": str(folder / "state.json")} if folder else {}
    return {**one_route(port, **route), "clients": clients, **state}


async def call(it: Running, *names: str) -> None:
    app = await connect(it.address)
    for name in names:
        await app.send(get("/v/a", f"X-Gatepass-Key: {KEYS[name]}"))
        await app.message()
    app.close()
    await asyncio.sleep(0.05)


async def usage(url: str, month: str = "") -> dict[str, Any]:
    async with aiohttp.ClientSession() as browser, browser.get(f"{url}/usage.json{month}") as answer:
        assert answer.status == 200
        return dict(await answer.json())


async def test_every_client_is_counted_with_or_without_a_budget_and_priced() -> None:
    async with vendor(answering(ok(), ok(), MISSING, ok())) as there:
        settings = config(there.port, price=PRICE)
        settings["clients"][0]["budgets"] = [{"route": "v", "per": "day", "hard": 100}]
        async with running(settings) as it, admin_port(it) as url:
            await call(it, "web", "web", "web", "batch")
            data = await usage(url)
            async with aiohttp.ClientSession() as browser, browser.get(f"{url}/status") as answer:
                page = await answer.text()
            assert it.metric("gatepass_client_billed_calls_total", client="web", route="v") == 2
            assert it.metric("gatepass_route_price_per_call", route="v", currency="EUR") == 0.35
    batch = {"client": "batch", "route": "v", "calls": 1, "billed": 1, "cost": "0.35", "currency": "EUR"}
    web = {"client": "web", "route": "v", "calls": 3, "billed": 2, "cost": "0.70", "currency": "EUR"}
    assert data == {
        "month": TODAY[:7],
        "kept_from": None,
        "totals": [batch, web],
        "days": [{**batch, "day": TODAY}, {**web, "day": TODAY}],
        "complete": True,
    }
    assert "Usage, this month" in page
    assert "0.70 EUR" in page


async def test_without_a_price_there_are_calls_and_no_cost_and_refused_calls_are_none() -> None:
    async with vendor(answering(ok(), ok())) as there:
        settings = config(there.port, deny=["/denied"])
        async with running(settings) as it, admin_port(it) as url:
            await call(it, "web")
            app = await connect(it.address)
            await app.send(get("/v/a", "X-Gatepass-Key: gp_CANARY-unknown"))
            await app.message()
            app.close()
            [row] = (await usage(url))["totals"]
    assert (row["client"], row["calls"], row["billed"], row["cost"], row["currency"]) == ("web", 1, 1, None, None)


async def test_usage_survives_a_restart_with_a_state_file(tmp_path: Path) -> None:
    async with vendor(answering(*[ok()] * 9)) as there:
        for calls in (2, 3):
            async with running(config(there.port, tmp_path, price=PRICE)) as it, admin_port(it) as url:
                await call(it, *["web"] * calls)
                [row] = (await usage(url))["totals"]
    assert (row["calls"], row["billed"], row["cost"]) == (5, 5, "1.75")


async def test_many_rows_of_usage_are_not_written_with_each_call_of_a_budget(tmp_path: Path) -> None:
    """They have a file of their own, which is written at most every ten seconds and at the end."""
    async with vendor(answering(ok())) as there:
        settings = config(there.port, tmp_path)
        settings["clients"][0]["budgets"] = [{"route": "v", "per": "day", "hard": 100}]
        async with running(settings) as it:
            await call(it, "web")
    rows = {name: json.loads((tmp_path / name).read_text())["counts"] for name in ("state.json", "state.json.usage")}
    assert [row["period"] for row in rows["state.json"]] == [TODAY]
    assert [row["period"] for row in rows["state.json.usage"]] == [f"billed {TODAY}", f"calls {TODAY}"]


@pytest.mark.parametrize("existing", [False, True])
def test_the_file_of_usage_is_beside_the_real_state_file(existing: bool, tmp_path: Path) -> None:
    real = tmp_path / "real" / "state.json"
    real.parent.mkdir()
    (tmp_path / "link.json").symlink_to(real)
    if existing:
        real.touch()
    assert usage_file(tmp_path / "link.json") == real.with_name("state.json.usage")


async def test_where_the_folder_takes_no_file_usage_is_kept_in_memory_and_the_log_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    async with vendor(answering(ok())) as there, running(config(there.port, tmp_path)) as it, admin_port(it) as url:
        await call(it, "web")
        [row] = (await usage(url))["totals"]
    assert row["calls"] == 1
    assert '"event":"usage_in_memory"' in it.log
    assert not (tmp_path / "state.json.usage").exists()


def test_days_are_separate_and_two_months_of_them_are_kept() -> None:
    metrics, store, now = Metrics(), MemoryCounters(), [1_760_000_000.0]
    book = UsageBook(store, metrics, lambda: now[0])
    client = metrics.client("web", "v")
    for day in range(100):
        client.calls.value += 2
        client.billed.value += 1
        book.collect()
        now[0] += 86_400
        assert day < 100
    assert len(store.all()) == 2 * 62
    days = book.days("2026-01")
    assert [(each.calls, each.billed) for each in days] == [(2, 1)] * len(days)
    assert days[0].day == "2026-01-01"
    assert book.days("2031-01") == []


@pytest.mark.parametrize("month", ["2026-13", "2026", "x", "2026-1", "2026-11-01", "%00"])
async def test_a_month_that_is_none_is_a_mistake(month: str) -> None:
    async with (
        running(one_route(1)) as it,
        admin_port(it) as url,
        aiohttp.ClientSession() as browser,
        browser.get(f"{url}/usage.json?month={month}") as answer,
    ):
        assert answer.status == 400
        assert "as 2026-11" in (await answer.json())["title"]


async def test_a_month_that_is_not_kept_is_told_from_one_without_calls() -> None:
    today = datetime.now(UTC).date()
    two_months_ago, last_year = today - timedelta(days=63), today - timedelta(days=400)
    next_month = today + timedelta(days=33)
    run = CliRunner().invoke
    async with running(one_route(1)) as it, admin_port(it) as url:
        for day, kept in ((today, True), (two_months_ago, False), (last_year, False)):
            shown = await asyncio.to_thread(run, main, ["usage", "--url", url, "--month", day.strftime("%Y-%m")])
            assert shown.exit_code == 0
            first = today - timedelta(days=61)
            expected = "" if kept else f"Calls before {first} are no longer kept and may be missing.\n"
            assert shown.stderr == expected
        ahead = await asyncio.to_thread(run, main, ["usage", "--url", url, "--month", next_month.strftime("%Y-%m")])
    assert ahead.exit_code == 1
    assert f"month: {next_month:%Y-%m} has not begun" in ahead.output


@pytest.mark.parametrize(
    ("amount", "billed", "cost"),
    [
        ("0.35", 2, "0.70"),
        ("0.1", 3, "0.30"),
        ("0.0015", 3, "0.0045"),
        ("0.005", 1, "0.005"),
        ("0.125", 2, "0.250"),
        ("7", 3, "21.00"),
        ("0.000001", 1, "0.000001"),
        ("0.000001", 0, "0.000000"),
        ("999999999.999999", 10**12, "999999999999999000000.000000"),
    ],
)
def test_costs_are_exact(amount: str, billed: int, cost: str) -> None:
    days = [Usage("web", "v", "2026-11-28", billed, billed)]
    [row] = report("2026-11", days, {"v": Money(Decimal(amount), "KWD")})["days"]
    assert row["cost"] == cost


def test_the_costs_of_days_add_up_to_the_total() -> None:
    days = [Usage("web", "v", f"2026-11-{day:02}", day, day) for day in range(1, 31)]
    shown = report("2026-11", days, {"v": Money(Decimal("0.0035"), "EUR")})
    [total] = shown["totals"]
    assert sum(Decimal(row["cost"]) for row in shown["days"]) == Decimal(total["cost"]) == Decimal("1.6275")


async def test_the_command_prints_a_table_and_csv() -> None:
    async with (
        vendor(answering(ok(), ok())) as there,
        running(config(there.port, price=PRICE)) as it,
        admin_port(it) as url,
    ):
        await call(it, "web", "batch")
        run = CliRunner().invoke
        shown = await asyncio.to_thread(run, main, ["usage", "--url", url])
        lines = await asyncio.to_thread(run, main, ["usage", "--url", url, "--csv", "--month", TODAY[:7]])
        wrong = await asyncio.to_thread(run, main, ["usage", "--url", url, "--month", "2026-13"])
    assert shown.exit_code == 0
    assert [line.split() for line in shown.output.splitlines()[-2:]] == [
        ["batch", "v", "1", "1", "0.35", "EUR"],
        ["web", "v", "1", "1", "0.35", "EUR"],
    ]
    rows = list(csv.DictReader(io.StringIO(lines.output)))
    assert [(row["client"], row["day"], row["calls"], row["cost"]) for row in rows] == [
        ("batch", TODAY, "1", "0.35"),
        ("web", TODAY, "1", "0.35"),
    ]
    assert wrong.exit_code == 2
    assert "as 2026-11" in wrong.output


# ------------------------------------------------------------------------------------------------------------- budgets


def loaded(folder: Path, budget: dict[str, Any], price: dict[str, Any] | None) -> Any:
    settings = config(1)
    settings["routes"]["v"] |= {"price": price} if price else {}
    settings["clients"][0]["budgets"] = [{"route": "v", "per": "month", **budget}]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return load([path], environ={"CANARY": CANARY})


@pytest.mark.parametrize(
    ("budget", "calls"),
    [
        ({"hard": "500 EUR"}, (1428, None)),
        ({"hard": "0.35 EUR"}, (1, None)),
        ({"soft": "7 EUR", "hard": "35 EUR"}, (100, 20)),
        ({"soft": 10, "hard": "35 EUR"}, (100, 10)),
        ({"hard": 7}, (7, None)),
    ],
)
def test_a_budget_in_money_is_as_many_calls_as_it_pays_for(
    tmp_path: Path, budget: dict[str, Any], calls: tuple[int, int | None]
) -> None:
    [made] = loaded(tmp_path, budget, PRICE).clients[0].budgets
    assert (made.hard, made.soft) == calls


@pytest.mark.parametrize(
    ("budget", "price", "words"),
    [
        ({"hard": "500 EUR"}, None, "an amount needs a `price` of the route"),
        ({"hard": "500 USD"}, PRICE, "the price of the route is in EUR"),
        ({"soft": "0.1 EUR"}, PRICE, "is less than one call costs"),
        ({"hard": "500 euros"}, PRICE, "as 500 EUR"),
        ({"hard": "-5 EUR"}, PRICE, "as 500 EUR"),
        ({"soft": "9 EUR", "hard": "8 EUR"}, PRICE, "`soft` is above `hard`"),
        ({"hard": 7}, {"per_call": 0, "currency": "EUR"}, "must be an amount of more than zero"),
        ({"hard": 7}, {"per_call": 1, "currency": "euro"}, "must be a currency, as EUR"),
        ({"hard": 7}, {"per_call": 1}, "currency"),
    ],
)
def test_a_budget_or_price_that_makes_no_sense_is_a_mistake(
    tmp_path: Path, budget: dict[str, Any], price: dict[str, Any] | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml") as caught:
        loaded(tmp_path, budget, price)
    assert words in str(caught.value)


def test_a_price_is_exact(tmp_path: Path) -> None:
    [route] = loaded(tmp_path, {"hard": 7}, {"per_call": 0.1, "currency": "EUR"}).routes
    assert route.price.amount * 3 == Decimal("0.3")
