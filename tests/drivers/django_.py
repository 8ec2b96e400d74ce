"""A small application on Django (`library`): migrations, models, transactions, cursors.

For poolers in transaction mode Django advises to give up its server-side cursors
(DISABLE_SERVER_SIDE_CURSORS) and to leave parameters to the client. Here both are the server's.
"""

import datetime
import os
import sys
import threading
import uuid

import django
from django.conf import settings
from django.core.management import call_command

from checks import Checks

# Each run has a schema of its own.
schema = f"drv_django_{uuid.uuid4().hex[:8]}"
tls = {"sslmode": os.environ.get("PGSSLMODE", "prefer")}
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "library"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["PGDATABASE"],
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"],
            "PASSWORD": os.environ["PGPASSWORD"],
            "OPTIONS": {**tls, "server_side_binding": True, "options": f"-c search_path={schema}"},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, F
from django.db.utils import DataError
from django.utils import timezone
from library.models import Author, Book

check = Checks(f"django {django.__version__}")


@check
def migrations():
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {schema}")
    call_command("migrate", verbosity=0)
    call_command("migrate", "library", "0001", verbosity=0)
    columns = lambda: [  # noqa: E731
        column.name
        for column in connection.introspection.get_table_description(
            connection.cursor(), "library_book"
        )
    ]
    assert "copies" not in columns(), columns()
    call_command("migrate", verbosity=0)
    assert "copies" in columns(), columns()
    # The models are what the migrations made.
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@check
def an_application():
    ada = Author.objects.create(name="Ada", born=datetime.date(1815, 12, 10))
    Book.objects.create(author=ada, title="Notes", about={"pages": 66}, lent=timezone.now())
    Book.objects.bulk_create(Book(author=ada, title=f"Volume {n}") for n in range(200))
    assert Author.objects.annotate(n=Count("books")).get(name="Ada").n == 201
    assert Book.objects.select_related("author").get(about__pages=66).author == ada
    assert Book.objects.filter(title__startswith="Volume").update(copies=F("copies") + 1) == 200
    assert Book.objects.filter(copies=2).count() == 200
    grace, created = Author.objects.get_or_create(name="Grace")
    assert created and Author.objects.get_or_create(name="Grace") == (grace, False)
    user = User.objects.create_user("ada", password="of lovelace")
    assert User.objects.get(pk=user.pk).username == "ada"
    assert ada.delete()[0] == 202


@check
def own_writes():
    for number in range(50):
        written = Author.objects.create(name=f"own {number}")
        assert Author.objects.get(pk=written.pk).name == f"own {number}"
        assert Author.objects.filter(name__startswith="own").count() == number + 1


@check
def transactions():
    try:
        with transaction.atomic():
            Author.objects.create(name="undone")
            raise ValueError
    except ValueError:
        pass
    assert not Author.objects.filter(name="undone").exists()
    with transaction.atomic():
        kept = Author.objects.create(name="kept")
        try:
            with transaction.atomic():
                Author.objects.create(name="kept")
        except IntegrityError as error:
            assert error.__cause__.sqlstate == "23505"
        Author.objects.select_for_update().filter(pk=kept.pk).update(name="kept, indeed")
    assert Author.objects.get(pk=kept.pk).name == "kept, indeed"


@check
def cursors():
    author = Author.objects.create(name="of many")
    Book.objects.bulk_create(Book(author=author, title=str(n)) for n in range(1000))
    # Outside of a transaction these are WITH HOLD.
    titles = [int(book.title) for book in author.books.order_by("pk").iterator(chunk_size=100)]
    assert titles == list(range(1000))
    with transaction.atomic():
        assert sum(1 for _ in author.books.iterator(chunk_size=100)) == 1000


@check
def errors():
    try:
        Book.objects.create(author=Author.objects.create(name="debtor"), title="", copies=-1)
        raise AssertionError("copies that are not there were taken")
    except IntegrityError as error:
        assert error.__cause__.sqlstate == "23514", error.__cause__.sqlstate
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1/0")
        raise AssertionError("no error")
    except DataError as error:
        assert error.__cause__.sqlstate == "22012", error.__cause__.sqlstate
    assert Author.objects.filter(name="debtor").exists()


@check
def many_at_once():
    failures = []

    def one(number):
        try:
            with transaction.atomic():
                author = Author.objects.create(name=f"crowd {number}")
                Book.objects.create(author=author, title="of the crowd")
            assert author.books.count() == 1
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    crowd = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert not failures, failures[0]


@check
def tidying_up():
    call_command("migrate", "library", "zero", verbosity=0)
    assert connection.introspection.table_names().count("library_book") == 0
    with connection.cursor() as cursor:
        cursor.execute("SET client_min_messages = warning")
        cursor.execute(f"DROP SCHEMA {schema} CASCADE")


sys.exit(check.run())
