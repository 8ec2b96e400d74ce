"""asyncpg through pgsteer; where to is in PGHOST and its like."""

import asyncio
import sys
import time
import uuid

import asyncpg

from checks import Checks, mistakes

LARGE = 8 * 1024 * 1024
# Far more than any check takes, in seconds.
PATIENCE = 60
table = f"drv_asyncpg_{uuid.uuid4().hex[:8]}"
check = Checks(f"asyncpg {asyncpg.__version__}")


@check
async def statements(conn):
    await conn.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, note text)")
    assert await conn.execute(f"INSERT INTO {table} VALUES (1, 'a')") == "INSERT 0 1"
    assert await conn.fetchval(f"SELECT note FROM {table}") == "a"
    await conn.execute("SELECT 1; SELECT 2")


@check
async def prepared_statements(conn):
    statement = await conn.prepare("SELECT $1::int + 1")
    for number in range(20):
        assert await statement.fetchval(number) == number + 1
    # Its columns change under a statement that is prepared: it is told, and prepares anew.
    await conn.execute(f"CREATE TABLE {table}_wide (a int)")
    assert await conn.fetch(f"SELECT * FROM {table}_wide") == []
    await conn.execute(f"ALTER TABLE {table}_wide ADD b int")
    await conn.execute(f"INSERT INTO {table}_wide VALUES (1, 2)")
    rows = await conn.fetch(f"SELECT * FROM {table}_wide")
    assert [tuple(row) for row in rows] == [(1, 2)], rows
    await conn.execute(f"DROP TABLE {table}_wide")


@check
async def own_writes(conn):
    for number in range(50):
        await conn.execute("INSERT INTO drv_own_writes VALUES ($1, $2)", table, number)
        for _ in range(3):
            count = "SELECT count(*) FROM drv_own_writes WHERE run = $1"
            seen = await conn.fetchval(count, table)
            assert seen == number + 1, seen


@check
async def types_are_described(conn):
    # asyncpg asks the catalog about types that it does not know, with Flush instead of Sync.
    await conn.execute(f"CREATE TYPE {table}_mood AS ENUM ('sad', 'ok')")
    assert await conn.fetchval(f"SELECT 'ok'::{table}_mood") == "ok"
    assert await conn.fetchval(f"SELECT ARRAY['ok', 'sad']::{table}_mood[]") == ["ok", "sad"]
    await conn.execute(f"DROP TYPE {table}_mood")


@check
async def many_at_once(conn):
    await conn.executemany(
        f"INSERT INTO {table} VALUES ($1, $2)", [(number, "m") for number in range(200, 400)]
    )
    count = await conn.fetchval(f"SELECT count(*) FROM {table} WHERE note = 'm'")
    assert count == 200, count


@check
async def transactions(conn):
    async with conn.transaction():
        await conn.execute(f"INSERT INTO {table} VALUES (2, 'kept')")
        try:
            async with conn.transaction():
                await conn.execute(f"INSERT INTO {table} VALUES (3, 'undone')")
                raise ValueError
        except ValueError:
            pass
    try:
        async with conn.transaction():
            await conn.execute(f"INSERT INTO {table} VALUES (4, 'undone')")
            raise ValueError
    except ValueError:
        pass
    rows = await conn.fetch(f"SELECT id FROM {table} WHERE id IN (2, 3, 4)")
    assert [row["id"] for row in rows] == [2], rows
    async with conn.transaction(readonly=True):
        assert await conn.fetchval("SHOW transaction_read_only") == "on"


@check
async def cursors(conn):
    async with conn.transaction():
        total = 0
        async for row in conn.cursor("SELECT generate_series(1, 1000) AS n", prefetch=100):
            total += row["n"]
        assert total == 500500, total


@check
async def copy(conn):
    records = [(number, "c" * 100) for number in range(1000, 6000)]
    await conn.copy_records_to_table(table, records=records)
    received = bytearray()

    async def take(data):
        received.extend(data)

    await conn.copy_from_query(f"SELECT * FROM {table} WHERE id >= 1000", output=take)
    assert received.count(b"\n") == 5000, received.count(b"\n")
    try:
        await conn.copy_records_to_table(table, records=[(1, "there already")])
        raise AssertionError("a bad row was taken")
    except asyncpg.UniqueViolationError:
        pass
    assert await conn.fetchval("SELECT 1") == 1


@check
async def cancel(conn):
    start = time.monotonic()
    try:
        await conn.execute("SELECT pg_sleep(30)", timeout=0.5)
        raise AssertionError("the statement was not cancelled")
    except asyncio.TimeoutError:
        pass
    assert time.monotonic() - start < 10
    for _ in range(50):
        assert await conn.fetchval("SELECT 1") == 1


@check
async def notifications(conn):
    heard, news = [], asyncio.Event()

    def on_notice(_conn, _pid, _channel, payload):
        heard.append(payload)
        news.set()

    async def until(last):
        while last not in heard:
            news.clear()
            await asyncio.wait_for(news.wait(), 10)

    other = await asyncpg.connect()
    await conn.add_listener(table, on_notice)
    await other.execute(f"NOTIFY {table}, 'idle'")
    await until("idle")
    await conn.execute(f"NOTIFY {table}, 'own'")
    await until("own")
    for number in range(20):
        await other.execute(f"NOTIFY {table}, 'busy {number}'")
        await conn.fetchval(f"SELECT count(*) FROM {table}")
        await conn.execute(f"UPDATE {table} SET note = note WHERE id = 1")
    await other.execute(f"NOTIFY {table}, 'end'")
    await until("end")
    assert heard == ["idle", "own", *(f"busy {n}" for n in range(20)), "end"], heard
    await conn.remove_listener(table, on_notice)
    await other.close()


@check
async def errors(conn):
    for sql, code in mistakes(table):
        try:
            await conn.fetch(sql)
            raise AssertionError(f"{sql}: no error")
        except asyncpg.PostgresError as error:
            assert error.sqlstate == code, (sql, error.sqlstate)
        assert await conn.fetchval("SELECT 1") == 1


@check
async def large_rows(conn):
    assert len(await conn.fetchval("SELECT repeat('x', $1)", LARGE)) == LARGE
    assert await conn.fetchval("SELECT length($1::text)", "y" * LARGE) == LARGE


@check
async def pools(_conn):
    async with asyncpg.create_pool(min_size=5, max_size=20) as pool:

        async def one(number):
            async with pool.acquire() as conn:
                await conn.execute(f"SET application_name = 'app{number}'")
                await asyncio.sleep(0.01)
                return await conn.fetchval("SHOW application_name")

        names = await asyncio.gather(*(one(number) for number in range(100)))
        assert names == [f"app{number}" for number in range(100)], names


@check
async def tidying_up(conn):
    await conn.execute(f"DROP TABLE {table}")


async def on_its_own_connection(function):
    conn = await asyncpg.connect()
    try:
        await asyncio.wait_for(function(conn), PATIENCE)
    finally:
        try:
            await conn.close(timeout=5)
        except Exception:
            conn.terminate()


sys.exit(check.run(lambda function: asyncio.run(on_its_own_connection(function))))
