"""A small application on SQLAlchemy, by psycopg and by asyncpg; its migrations are Alembic's."""

import asyncio
import os
import sys
import threading
import uuid
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from checks import Checks

# Each run has a schema of its own.
schema = f"drv_alchemy_{uuid.uuid4().hex[:8]}"
check = Checks(f"sqlalchemy {sa.__version__}")
# Where to is in PGHOST and its like: both drivers read them by themselves.
engine = sa.create_engine(
    "postgresql+psycopg://",
    connect_args={"options": f"-c search_path={schema}", "prepare_threshold": 2},
    pool_size=10,
)
alone = sa.create_engine(
    "postgresql+psycopg://", connect_args={"options": f"-c search_path={schema}"}, pool_size=1
)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(100), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("authors.id"))
    title: Mapped[str] = mapped_column(sa.Text)
    about: Mapped[dict | None] = mapped_column(JSONB)
    author: Mapped[Author] = relationship(back_populates="books")
    __table_args__ = (sa.Index("books_title", "title"),)


def alembic(connection):
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic_library"))
    config.attributes.update(connection=connection, metadata=Base.metadata)
    return config


@check
def migrations():
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    with alone.connect() as connection:
        command.upgrade(alembic(connection), "head")
        command.downgrade(alembic(connection), "0001")
        connection.rollback()
        tables = sorted(sa.inspect(connection).get_table_names())
        assert tables == ["alembic_version", "authors"], tables
        connection.rollback()
        command.upgrade(alembic(connection), "head")
        # The classes are what the migrations made.
        command.check(alembic(connection))


@check
def an_application():
    with Session(engine) as session:
        ada = Author(name="Ada", books=[Book(title="Notes", about={"pages": 66})])
        ada.books += [Book(title=f"Volume {number}") for number in range(500)]
        session.add_all([ada, Author(name="Grace")])
        session.commit()
        count = sa.select(sa.func.count()).select_from(Book).join(Book.author)
        assert session.scalar(count.where(Author.name == "Ada")) == 501
        thick = sa.select(Book).where(Book.about["pages"].as_integer() == 66)
        assert session.scalars(thick).one().author is ada
        session.execute(sa.update(Book).values(about={"pages": 1}).where(Book.about.is_(None)))
        session.commit()
        titles = sa.select(Book.title).execution_options(yield_per=100, stream_results=True)
        assert sum(1 for _ in session.scalars(titles)) == 501


@check
def own_writes():
    # In a transaction, as is usual, reads are the primary's; without one they are a standby's.
    with Session(alone.execution_options(isolation_level="AUTOCOMMIT")) as session:
        for number in range(50):
            session.add(Author(name=f"own {number}"))
            session.commit()
            seen = sa.select(sa.func.count()).where(Author.name.startswith("own"))
            assert session.scalar(seen) == number + 1


@check
def transactions():
    with Session(alone) as session:
        session.add(Author(name="undone"))
        session.flush()
        session.rollback()
        assert session.scalar(sa.select(Author).where(Author.name == "undone")) is None
        session.add(Author(name="kept"))
        try:
            with session.begin_nested():
                session.add(Author(name="Ada"))
        except exc.IntegrityError as error:
            assert error.orig.sqlstate == "23505"
        session.commit()
        assert session.scalar(sa.select(Author).where(Author.name == "kept"))
    serializable = alone.execution_options(isolation_level="SERIALIZABLE")
    with serializable.connect() as connection:
        assert connection.scalar(sa.text("SHOW transaction_isolation")) == "serializable"
    with alone.connect().execution_options(postgresql_readonly=True) as connection:
        try:
            connection.execute(sa.delete(Author))
            raise AssertionError("a read-only transaction wrote")
        except exc.InternalError as error:
            assert error.orig.sqlstate == "25006", error.orig.sqlstate


@check
def errors():
    with Session(alone) as session:
        for sql, code in [("SELECT 1/0", "22012"), ("SELECT nothing", "42703")]:
            try:
                session.execute(sa.text(sql))
                raise AssertionError(f"{sql}: no error")
            except exc.DBAPIError as error:
                assert error.orig.sqlstate == code and not error.connection_invalidated
            session.rollback()
            assert session.scalar(sa.text("SELECT 1")) == 1


@check
def many_at_once():
    failures = []

    def one(number):
        try:
            with Session(engine) as session, session.begin():
                author = Author(name=f"crowd {number}", books=[Book(title="of the crowd")])
                session.add(author)
        except Exception as error:
            failures.append(error)

    crowd = [threading.Thread(target=one, args=(number,)) for number in range(30)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert not failures, failures[0]


@check
def by_asyncpg():
    async def application():
        settings = {"server_settings": {"search_path": schema}}
        engine = create_async_engine("postgresql+asyncpg://", connect_args=settings, pool_size=10)

        async def one(number):
            async with AsyncSession(engine) as session:
                session.add(Author(name=f"async {number}"))
                await session.commit()
                seen = sa.select(Author).where(Author.name == f"async {number}")
                assert (await session.scalars(seen)).one()

        await asyncio.gather(*(one(number) for number in range(50)))
        async with AsyncSession(engine) as session:
            rows = await session.stream_scalars(sa.select(Book.id).execution_options(yield_per=50))
            assert len([row async for row in rows]) == 531
        await engine.dispose()

    os.environ.setdefault("PGSSLMODE", "prefer")
    asyncio.run(application())


@check
def tidying_up():
    with alone.connect() as connection:
        command.downgrade(alembic(connection), "base")
    with engine.begin() as connection:
        connection.execute(sa.schema.DropSchema(schema, cascade=True))


sys.exit(check.run())
