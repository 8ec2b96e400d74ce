"""Judges what PostgreSQL's own suites said through pgsteer against what they said straight at the
server, by a closed list.

A list is a directory. A test whose output differs must have a file NAME.diff there: the reason in
lines that begin with '# ', then the very hunks. So a new wrong line in a test that differs anyway
fails as one elsewhere does, and so does a listed difference that is not seen any more. Every test
is run. Nothing is left out of the comparison but the hunks' line numbers and what MASKS names.

  @@            this hunk is always seen
  @@ by chance  it may be seen: it hangs on which backend a session happens to get
  differs       a file that names those that make no sense here, each under its reason: they must
                differ, in whatever way
  not-judged    a file that names those whose output hangs on chance in more ways than can be
                listed; another list must judge them

  compare.py judge LIST DIRECT THROUGH       directories of results
  compare.py accept LIST DIRECT THROUGH      the same, after it has rewritten the list
"""

import dataclasses
import difflib
import pathlib
import re
import sys

# What differs from run to run and means nothing, for all tests and for single ones: numbers of
# processes; how far libpq had written when the error came back.
MASKS = {
    "": [(re.compile(r"\b(PID|pid) \d+"), r"\1 N")],
    "uniqviol.out": [
        (re.compile(r"^[.E]*(switch to reading)?$"), ""),
        (re.compile(r"^result \d+/\d+: (\d+|pipeline aborted)$"), ""),
        (re.compile(r"^result \d+/\d+ "), "result N "),
        (re.compile(r"\(id\)=\(\d+\)"), "(id)=(N)"),
    ],
}
# Lines around a difference: enough to tell one place of a file from another.
CONTEXT = 3
ALWAYS, BY_CHANCE = "@@", "@@ by chance"
UNEXPLAINED = "# to be explained"

Hunk = tuple[str, ...]
Outputs = dict[str, list[str]]


@dataclasses.dataclass
class Entry:
    """One test that differs: why, and how."""

    reason: list[str]
    hunks: list[tuple[str, Hunk]]

    def allows(self, seen: list[Hunk]) -> bool:
        """Whether these are the listed hunks, in order, none missing but those by chance."""
        left = list(seen)
        for kind, hunk in self.hunks:
            if left and left[0] == hunk:
                left.pop(0)
            elif kind == ALWAYS:
                return False
        return not left

    def text(self) -> list[str]:
        return self.reason + [line for kind, hunk in self.hunks for line in (kind, *hunk)]


@dataclasses.dataclass
class List:
    """What is known to differ in one suite and mode."""

    entries: dict[str, Entry]
    differs: set[str]
    not_judged: set[str]


def lines(path: pathlib.Path) -> list[str]:
    """Of any encoding: byte for byte."""
    return path.read_text("latin-1").split("\n")


def names(path: pathlib.Path) -> set[str]:
    named = lines(path) if path.exists() else []
    return {line for line in named if line and not line.startswith("#")}


def entry(path: pathlib.Path) -> Entry:
    found = Entry([], [])
    for line in lines(path)[:-1]:
        if line in (ALWAYS, BY_CHANCE):
            found.hunks.append((line, ()))
        elif found.hunks:
            kind, hunk = found.hunks[-1]
            found.hunks[-1] = (kind, (*hunk, line))
        else:
            found.reason.append(line)
    return found


def read_list(where: pathlib.Path) -> List:
    entries = {path.stem: entry(path) for path in sorted(where.glob("*.diff"))}
    return List(entries, names(where / "differs"), names(where / "not-judged"))


def masked(path: pathlib.Path) -> list[str]:
    masks = MASKS[""] + MASKS.get(path.name, [])
    kept: list[str] = []
    for line in lines(path):
        for pattern, put in masks:
            line = pattern.sub(put, line)
        # What was masked away entirely counts once, however often it came.
        if line or not kept or kept[-1]:
            kept.append(line)
    return kept


def read_outputs(where: pathlib.Path) -> Outputs:
    """By the test's name; a trace of messages has a name of its own."""
    files = sorted(path for path in where.iterdir() if path.is_file())
    return {path.name.removesuffix(".out"): masked(path) for path in files}


def difference(direct: list[str], through: list[str]) -> list[Hunk]:
    found: list[Hunk] = []
    for line in list(difflib.unified_diff(direct, through, n=CONTEXT, lineterm=""))[2:]:
        if line.startswith("@@ "):
            found.append(())
        else:
            found[-1] = (*found[-1], line)
    return found


def complaint(name: str, known: List, direct: Outputs, through: Outputs) -> list[str]:
    """What is wrong with one test; nothing if it is as straight at the server, or as listed."""
    if name not in direct or name not in through:
        return [f"{name}: has not run"]
    listed = known.entries.get(name)
    if name in known.not_judged:
        return [f"{name}: is listed, and not judged"] if listed else []
    seen = difference(direct[name], through[name])
    if name in known.differs:
        if listed:
            return [f"{name}: is listed twice"]
        return [] if seen else [f"{name}: is to differ, and does not"]
    if listed is None:
        listed = Entry([], [])
    elif not listed.reason or UNEXPLAINED in listed.reason:
        return [f"{name}: is listed without a reason"]
    if listed.allows(seen):
        return []
    shown = Entry(listed.reason, [(ALWAYS, hunk) for hunk in seen])
    told = difflib.unified_diff(listed.text(), shown.text(), "listed", "seen", n=1, lineterm="")
    return [f"{name}: does not differ as listed", *(f"    {line}" for line in told)]


def verdict(known: List, direct: Outputs, through: Outputs) -> dict[str, list[str]]:
    """For every test that was run or is listed, what is wrong with it."""
    mentioned = set(direct) | set(through) | set(known.entries) | known.differs | known.not_judged
    return {name: complaint(name, known, direct, through) for name in sorted(mentioned)}


def blind_spots(known: List, direct: Outputs, through: Outputs) -> list[str]:
    """Breaks a run that passed in every way that must be noticed; says what was not."""
    run = [name for name in through if name not in known.not_judged]
    judged = [name for name in run if name not in known.differs]
    surely = [
        name for name in known.entries if ALWAYS in (kind for kind, _ in known.entries[name].hunks)
    ]
    surely += known.differs
    bogus = ["a line that the server never said"]
    kept = {name: known.entries[name] for name in known.entries if name not in surely}
    less = dataclasses.replace(known, entries=kept, differs=set())
    broken = [
        ("a wrong line", known, judged, {name: through[name] + bogus for name in judged}),
        ("a test that has not run", known, run, {}),
        ("an unlisted difference", less, surely, through),
        ("a difference that vanished", known, surely, through | {n: direct[n] for n in surely}),
    ]
    return [
        f"{name}: {what} is not noticed"
        for what, by, where, said in broken
        for name in where
        if not complaint(name, by, direct, said)
    ]


def judge(list_dir: pathlib.Path, direct_dir: pathlib.Path, through_dir: pathlib.Path) -> int:
    known, direct, through = read_list(list_dir), read_outputs(direct_dir), read_outputs(through_dir)
    found = verdict(known, direct, through)
    wrong = {name: told for name, told in found.items() if told}
    for line in (line for told in wrong.values() for line in told):
        print(line)
    unnoticed = [] if wrong else blind_spots(known, direct, through)
    for line in unnoticed:
        print(line)
    right = [name for name in found if name in through and name not in wrong]
    listed = [name for name in right if name in known.entries]
    senseless = [name for name in right if name in known.differs]
    passed_over = [name for name in right if name in known.not_judged]
    same = len(right) - len(listed) - len(senseless) - len(passed_over)
    print(
        f"{same} as straight at the server, {len(listed)} as listed, {len(senseless)} differ as they"
        f" must, {len(passed_over)} not judged, {len(wrong) + len(unnoticed)} FAILED"
    )
    return 1 if wrong or unnoticed or not same else 0


def accept(list_dir: pathlib.Path, direct_dir: pathlib.Path, through_dir: pathlib.Path) -> int:
    known, direct, through = read_list(list_dir), read_outputs(direct_dir), read_outputs(through_dir)
    list_dir.mkdir(parents=True, exist_ok=True)
    for name in sorted(set(direct) & set(through) - known.not_judged - known.differs):
        seen = difference(direct[name], through[name])
        old = known.entries.get(name, Entry([UNEXPLAINED], []))
        if old.allows(seen):
            continue
        kinds = {hunk: kind for kind, hunk in old.hunks}
        new = Entry(old.reason, [(kinds.get(hunk, ALWAYS), hunk) for hunk in seen])
        path = list_dir / f"{name}.diff"
        if seen:
            path.write_text("\n".join([*new.text(), ""]), "latin-1")
        else:
            path.unlink()
    return judge(list_dir, direct_dir, through_dir)


def main() -> int:
    acts = {"judge": judge, "accept": accept}
    act = acts.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if act is None or len(sys.argv) != 5:
        print(__doc__, file=sys.stderr)
        return 2
    return act(*map(pathlib.Path, sys.argv[2:]))


sys.exit(main())
