"""psycopg 3 through pgsteer. Usage: psycopg3.py URI"""

import sys
import threading
import time
import uuid

import psycopg
from psycopg import errors

uri = sys.argv[1]
table = f"drv_psycopg_{uuid.uuid4().hex[:8]}"
checks = []


def check(function):
    checks.append(function)
    return function


@check
def simple_statements():
    with psycopg.connect(uri, autocommit=True) as conn:
        cur = psycopg.ClientCursor(conn)
        cur.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, note text)")
        cur.execute(f"INSERT INTO {table} VALUES (%s, %s)", (1, "it's"))
        assert cur.rowcount == 1
        assert cur.execute(f"SELECT note FROM {table}").fetchall() == [("it's",)]
        cur.execute("SELECT 1; SELECT 2")
        assert cur.fetchone() == (1,) and cur.nextset() and cur.fetchone() == (2,)


@check
def prepared_statements():
    with psycopg.connect(uri, autocommit=True) as conn:
        for number in range(20):
            row = conn.execute("SELECT %s::int + 1", (number,), prepare=True).fetchone()
            assert row == (number + 1,), row
        for number in range(10):
            conn.execute(
                f"INSERT INTO {table} VALUES (%s, %s)", (100 + number, "p"), prepare=True
            )
            # The write is this session's own, so the read must see it, wherever it goes.
            seen = conn.execute(
                f"SELECT count(*) FROM {table} WHERE id >= 100", prepare=True
            ).fetchone()
            assert seen == (number + 1,), seen


@check
def pipelined_statements():
    with psycopg.connect(uri, autocommit=True) as conn, conn.pipeline():
        cursors = [conn.execute("SELECT %s::int", (number,)) for number in range(100)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(100))


@check
def transactions():
    with psycopg.connect(uri) as conn:
        with conn.transaction():
            conn.execute(f"INSERT INTO {table} VALUES (2, 'kept')")
            try:
                with conn.transaction():
                    conn.execute(f"INSERT INTO {table} VALUES (3, 'undone')")
                    raise ValueError
            except ValueError:
                pass
        try:
            with conn.transaction():
                conn.execute(f"INSERT INTO {table} VALUES (4, 'undone')")
                raise ValueError
        except ValueError:
            pass
        ids = conn.execute(f"SELECT id FROM {table} WHERE id IN (2, 3, 4)").fetchall()
        assert ids == [(2,)], ids


@check
def copy_both_ways():
    with psycopg.connect(uri, autocommit=True) as conn:
        with conn.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for number in range(1000, 6000):
                copy.write_row((number, "c" * 100))
        with conn.cursor().copy(f"COPY (SELECT * FROM {table} WHERE id >= 1000) TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 5000
        try:
            with conn.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write("not a number\tx\n")
            raise AssertionError("a bad row was taken")
        except errors.InvalidTextRepresentation:
            pass
        assert conn.execute("SELECT 1").fetchone() == (1,)


@check
def cancel():
    with psycopg.connect(uri, autocommit=True) as conn:
        timer = threading.Timer(0.5, conn.cancel)
        start = time.monotonic()
        timer.start()
        try:
            conn.execute("SELECT pg_sleep(30)")
            raise AssertionError("the statement was not cancelled")
        except errors.QueryCanceled as error:
            assert error.sqlstate == "57014", error.sqlstate
        assert time.monotonic() - start < 10
        # The connection lives, and no late cancel hits the next statement.
        for _ in range(50):
            assert conn.execute("SELECT 1").fetchone() == (1,)


@check
def listen_and_notify():
    with psycopg.connect(uri, autocommit=True) as listener:
        with psycopg.connect(uri, autocommit=True) as sender:
            listener.execute(f"LISTEN {table}")
            sender.execute(f"NOTIFY {table}, 'hello'")
            heard = next(listener.notifies(timeout=10), None)
            assert heard and heard.payload == "hello", heard


@check
def errors_with_sqlstate():
    with psycopg.connect(uri, autocommit=True) as conn:
        for sql, code in [
            ("SELECT 1/0", "22012"),
            ("SELECT nothing", "42703"),
            ("SELEKT", "42601"),
            (f"INSERT INTO {table} VALUES (1, 'again')", "23505"),
        ]:
            try:
                conn.execute(sql)
                raise AssertionError(f"{sql}: no error")
            except psycopg.Error as error:
                assert error.sqlstate == code, (sql, error.sqlstate)
        assert conn.execute("SELECT 1").fetchone() == (1,)


@check
def large_rows():
    with psycopg.connect(uri, autocommit=True) as conn:
        size = 20 * 1024 * 1024
        assert len(conn.execute("SELECT repeat('x', %s)", (size,)).fetchone()[0]) == size
        echoed = conn.execute("SELECT length(%s::text)", ("y" * size,)).fetchone()
        assert echoed == (size,)


@check
def server_side_cursor():
    with psycopg.connect(uri) as conn, conn.cursor(name="c") as cur:
        cur.itersize = 100
        cur.execute("SELECT generate_series(1, 1000)")
        assert sum(row[0] for row in cur) == 500500


failed = 0
for function in checks:
    name = function.__name__.replace("_", " ")
    try:
        function()
        print(f"psycopg {psycopg.__version__}: {name}: ok")
    except Exception as error:
        failed += 1
        print(f"psycopg {psycopg.__version__}: {name}: FAILED: {type(error).__name__}: {error}")
with psycopg.connect(uri, autocommit=True) as conn:
    conn.execute(f"DROP TABLE IF EXISTS {table}")
sys.exit(1 if failed else 0)
