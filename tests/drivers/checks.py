"""What the Python programs share: they run their checks in order, and say how each went."""

import sys
import threading


class Checks:
    """The checks of one driver, each a function: `@check` above it, its name is its title."""

    def __init__(self, driver):
        self.driver = driver
        self.functions = []

    def __call__(self, function):
        self.functions.append(function)
        return function

    def run(self, call=lambda function: function()):
        """Runs all of them by `call`; the program's exit code."""
        failed = 0
        for function in self.functions:
            title = function.__name__.replace("_", " ").strip()
            try:
                call(function)
                print(f"PASS {self.driver}: {title}")
            except Exception as error:
                failed += 1
                why = " ".join(f"{type(error).__name__}: {error}".split())
                print(f"FAIL {self.driver}: {title}: {why}")
            sys.stdout.flush()
        return 1 if failed else 0


# What is wrong, and what every driver must be told of it.
def mistakes(table):
    return [
        ("SELECT 1/0", "22012"),
        ("SELECT nothing", "42703"),
        ("SELEKT", "42601"),
        (f"INSERT INTO {table} VALUES (1, 'again')", "23505"),
    ]


def in_a_moment(seconds, action):
    """Does it in another thread, so much later."""
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer
