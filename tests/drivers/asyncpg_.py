"""asyncpg through pgsteer. Usage: asyncpg_.py URI"""

import asyncio
import sys
import time
import uuid

import asyncpg

uri = sys.argv[1]
table = f"drv_asyncpg_{uuid.uuid4().hex[:8]}"
checks = []


def check(function):
    checks.append(function)
    return function


@check
async def simple_statements(conn):
    await conn.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, note text)")
    assert await conn.execute(f"INSERT INTO {table} VALUES (1, 'a')") == "INSERT 0 1"
    assert await conn.fetchval(f"SELECT note FROM {table}") == "a"
    await conn.execute("SELECT 1; SELECT 2")


@check
async def prepared_statements(conn):
    statement = await conn.prepare("SELECT $1::int + 1")
    for number in range(20):
        assert await statement.fetchval(number) == number + 1
    for number in range(10):
        await conn.execute(f"INSERT INTO {table} VALUES ($1, $2)", 100 + number, "p")
        # The write is this session's own, so the read must see it, wherever it goes.
        seen = await conn.fetchval(f"SELECT count(*) FROM {table} WHERE id >= $1", 100)
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
async def copy_both_ways(conn):
    records = [(number, "c" * 100) for number in range(1000, 6000)]
    await conn.copy_records_to_table(table, records=records)
    received = bytearray()

    async def take(data):
        received.extend(data)

    await conn.copy_from_query(f"SELECT * FROM {table} WHERE id >= 1000", output=take)
    assert received.count(b"\n") == 5000, received.count(b"\n")


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
async def listen_and_notify(conn):
    heard = asyncio.get_running_loop().create_future()

    def on_notice(_conn, _pid, _channel, payload):
        if not heard.done():
            heard.set_result(payload)

    await conn.add_listener(table, on_notice)
    other = await asyncpg.connect(uri)
    await other.execute(f"NOTIFY {table}, 'hello'")
    assert await asyncio.wait_for(heard, 10) == "hello"
    await conn.remove_listener(table, on_notice)
    await other.close()


@check
async def errors_with_sqlstate(conn):
    for sql, code in [
        ("SELECT 1/0", "22012"),
        ("SELECT nothing", "42703"),
        ("SELEKT", "42601"),
        (f"INSERT INTO {table} VALUES (1, 'again')", "23505"),
    ]:
        try:
            await conn.fetch(sql)
            raise AssertionError(f"{sql}: no error")
        except asyncpg.PostgresError as error:
            assert error.sqlstate == code, (sql, error.sqlstate)
    assert await conn.fetchval("SELECT 1") == 1


@check
async def large_rows(conn):
    size = 20 * 1024 * 1024
    assert len(await conn.fetchval("SELECT repeat('x', $1)", size)) == size
    assert await conn.fetchval("SELECT length($1::text)", "y" * size) == size


@check
async def a_pool(_conn):
    async with asyncpg.create_pool(uri, min_size=5, max_size=20) as pool:

        async def one(number):
            async with pool.acquire() as conn:
                await conn.execute(f"SET application_name = 'app{number}'")
                await asyncio.sleep(0.01)
                return await conn.fetchval("SHOW application_name")

        names = await asyncio.gather(*(one(number) for number in range(100)))
        assert names == [f"app{number}" for number in range(100)], names


async def main():
    failed = 0
    for function in checks:
        name = function.__name__.replace("_", " ")
        conn = None
        try:
            conn = await asyncpg.connect(uri)
            await asyncio.wait_for(function(conn), 60)
            print(f"asyncpg {asyncpg.__version__}: {name}: ok")
        except Exception as error:
            failed += 1
            print(f"asyncpg {asyncpg.__version__}: {name}: FAILED: {type(error).__name__}: {error}")
        if conn is not None:
            try:
                await conn.close(timeout=5)
            except Exception:
                conn.terminate()
    conn = await asyncpg.connect(uri)
    await conn.execute(f"DROP TABLE IF EXISTS {table}")
    await conn.close()
    return 1 if failed else 0


sys.exit(asyncio.run(main()))
