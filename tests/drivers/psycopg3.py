"""psycopg 3 through pgsteer; where to is in PGHOST and its like."""

import sys
import time
import uuid

import psycopg
from psycopg import errors

from checks import Checks, in_a_moment, mistakes

LARGE = 8 * 1024 * 1024
table = f"drv_psycopg_{uuid.uuid4().hex[:8]}"
check = Checks(f"psycopg {psycopg.__version__}")


def connect(**options):
    return psycopg.connect(**{"autocommit": True, **options})


@check
def statements():
    with connect() as conn:
        cur = psycopg.ClientCursor(conn)
        cur.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, note text)")
        cur.execute(f"INSERT INTO {table} VALUES (%s, %s)", (1, "it's"))
        assert cur.rowcount == 1
        assert cur.execute(f"SELECT note FROM {table}").fetchall() == [("it's",)]
        cur.execute("SELECT 1; SELECT 2")
        assert cur.fetchone() == (1,) and cur.nextset() and cur.fetchone() == (2,)


@check
def prepared_statements():
    with connect() as conn:
        for number in range(20):
            row = conn.execute("SELECT %s::int + 1", (number,), prepare=True).fetchone()
            assert row == (number + 1,), row
        # By itself it prepares what was said five times.
        for number in range(20):
            assert conn.execute("SELECT %s::int - 1", (number,)).fetchone() == (number - 1,)


@check
def pipelines():
    with connect() as conn:
        with conn.pipeline():
            cursors = [conn.execute("SELECT %s::int", (number,)) for number in range(100)]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(100))
        # A mistake ends its part of the pipeline, and only that.
        with conn.pipeline() as pipeline:
            first = conn.execute("SELECT 1")
            wrong = conn.execute("SELECT 1/0")
            skipped = conn.execute("SELECT 2")
            try:
                pipeline.sync()
                raise AssertionError("the mistake was not told")
            except errors.DivisionByZero:
                pass
            last = conn.execute("SELECT 3")
            pipeline.sync()
            assert first.fetchone() == (1,) and last.fetchone() == (3,)
            assert wrong.statusmessage is None and skipped.statusmessage is None
        assert conn.execute("SELECT 1").fetchone() == (1,)


@check
def own_writes():
    with connect() as conn:
        for number in range(50):
            conn.execute("INSERT INTO drv_own_writes VALUES (%s, %s)", (table, number))
            for _ in range(3):
                count = "SELECT count(*) FROM drv_own_writes WHERE run = %s"
                seen = conn.execute(count, (table,)).fetchone()
                assert seen == (number + 1,), seen


@check
def transactions():
    with connect(autocommit=False) as conn:
        with conn.transaction():
            conn.execute(f"INSERT INTO {table} VALUES (2, 'kept')")
            try:
                with conn.transaction():
                    conn.execute(f"INSERT INTO {table} VALUES (3, 'undone')")
                    raise ValueError
            except ValueError:
                pass
        conn.execute(f"INSERT INTO {table} VALUES (4, 'undone')")
        conn.rollback()
        ids = conn.execute(f"SELECT id FROM {table} WHERE id IN (2, 3, 4)").fetchall()
        assert ids == [(2,)], ids
        conn.commit()
        conn.read_only = True
        try:
            conn.execute(f"INSERT INTO {table} VALUES (5, 'refused')")
            raise AssertionError("a read-only transaction wrote")
        except errors.ReadOnlySqlTransaction:
            conn.rollback()


@check
def two_phases():
    with connect(autocommit=False) as conn, connect() as other:
        conn.tpc_begin(conn.xid(1, table, "kept"))
        conn.execute(f"INSERT INTO {table} VALUES (5, 'in two phases')")
        conn.tpc_prepare()
        conn.tpc_commit()
        conn.tpc_begin(conn.xid(1, table, "undone"))
        conn.execute(f"DELETE FROM {table} WHERE id = 5")
        conn.tpc_prepare()
        # Whoever knows its name may end it.
        waiting = [xid for xid in other.tpc_recover() if xid.gtrid == table]
        assert len(waiting) == 1, waiting
        other.tpc_rollback(waiting[0])
        conn.close()
        seen = other.execute(f"SELECT note FROM {table} WHERE id = 5").fetchall()
        assert seen == [("in two phases",)], seen


@check
def copy():
    with connect() as conn:
        with conn.cursor().copy(f"COPY {table} FROM STDIN") as copying:
            for number in range(1000, 6000):
                copying.write_row((number, "c" * 100))
        out = f"COPY (SELECT * FROM {table} WHERE id >= 1000) TO STDOUT"
        with conn.cursor().copy(out) as copying:
            assert sum(1 for _ in copying.rows()) == 5000
        with conn.cursor().copy(out + " (FORMAT binary)") as copying:
            copying.set_types(["int4", "text"])
            assert sum(1 for _ in copying.rows()) == 5000
        try:
            with conn.cursor().copy(f"COPY {table} FROM STDIN") as copying:
                copying.write("not a number\tx\n")
            raise AssertionError("a bad row was taken")
        except errors.InvalidTextRepresentation:
            pass
        assert conn.execute("SELECT 1").fetchone() == (1,)


@check
def cancel():
    with connect() as conn:
        start = time.monotonic()
        in_a_moment(0.5, conn.cancel)
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
def notifications():
    with connect() as listener, connect() as other:
        listener.execute(f"LISTEN {table}")
        heard = []

        def until(last):
            for notify in listener.notifies(timeout=10):
                heard.append(notify.payload)
                if notify.payload == last:
                    return
            raise AssertionError(f"{last} did not come: {heard}")

        other.execute(f"NOTIFY {table}, 'idle'")
        until("idle")
        listener.execute(f"NOTIFY {table}, 'own'")
        until("own")
        for number in range(20):
            other.execute(f"NOTIFY {table}, 'busy {number}'")
            listener.execute(f"SELECT count(*) FROM {table}")
            listener.execute(f"UPDATE {table} SET note = note WHERE id = 1")
        other.execute(f"NOTIFY {table}, 'end'")
        until("end")
        assert heard == ["idle", "own", *(f"busy {n}" for n in range(20)), "end"], heard
        listener.execute(f"UNLISTEN {table}")
        other.execute(f"NOTIFY {table}, 'too late'")
        assert list(listener.notifies(timeout=0.3)) == []


@check
def errors_():
    with connect() as conn:
        for sql, code in mistakes(table):
            try:
                conn.execute(sql)
                raise AssertionError(f"{sql}: no error")
            except psycopg.Error as error:
                assert error.sqlstate == code, (sql, error.sqlstate)
            assert conn.execute("SELECT 1").fetchone() == (1,)
        notices = []
        conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        conn.execute("DO $$ BEGIN RAISE NOTICE 'noted'; END $$")
        assert notices == ["noted"], notices


@check
def large_rows():
    with connect() as conn:
        assert len(conn.execute("SELECT repeat('x', %s)", (LARGE,)).fetchone()[0]) == LARGE
        echoed = conn.execute("SELECT length(%s::text)", ("y" * LARGE,)).fetchone()
        assert echoed == (LARGE,)
        conn.execute(f"INSERT INTO {table} VALUES (7, %s)", ("z" * LARGE,))
        note = conn.execute(f"SELECT note FROM {table} WHERE id = 7").fetchone()[0]
        assert note == "z" * LARGE
        conn.execute(f"DELETE FROM {table} WHERE id = 7")


@check
def cursors():
    with connect(autocommit=False) as conn, conn.cursor(name="c") as cur:
        cur.itersize = 100
        cur.execute("SELECT generate_series(1, 1000)")
        assert sum(row[0] for row in cur) == 500500


@check
def tidying_up():
    with connect() as conn:
        conn.execute(f"DROP TABLE {table}")


sys.exit(check.run())
