//! The store on a disk: swaps, locks, what can't be believed, and writers that are killed.

use pgsteer::failover::{Appointed, By, Change, Kind, Loss, Phase, Promise, Record, WeakPromise};
use pgsteer::pg::{Lsn, SystemId, Timeline};
use pgsteer::sandbox::{Scratch, eventually};
use pgsteer::store::{FileStore, MemoryStore, Note, Store, StoreError, SwapError, Token, salts};
use pgsteer::topology::Epoch;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A record that says its own number in three places, so that a mixture would be seen.
fn numbered(number: u64) -> Record {
    let padding = usize::try_from(number % 50).unwrap();
    let change = |number| Change {
        epoch: Epoch(number),
        kind: Kind::Failover,
        by: By::Evidence,
        from: Some("a".into()),
        to: "b".into(),
        timeline: Timeline(2),
        fork: Some(Lsn(number)),
        loss: Loss::None,
        began: number,
        ended: number,
    };
    Record {
        epoch: Epoch(number),
        phase: Phase::Stable,
        primary: Appointed {
            server: "a".into(),
            epoch: Epoch(number),
            system: SystemId(7),
            timeline: Timeline(1),
            fork: None,
        },
        promise: Promise::Asynchronous(WeakPromise::NotSeen),
        changes: vec![change(number); padding],
    }
}

fn servers() -> Vec<Arc<str>> {
    ["db1:5432", "db2:5432"].map(Arc::from).into()
}

fn open(dir: &Path) -> Result<Store, StoreError> {
    FileStore::open(dir, &servers()).map(Store::File)
}

/// A directory that is not there yet, in one that ends with the test.
fn fresh() -> (Scratch, PathBuf) {
    let scratch = Scratch::new().unwrap();
    let state = scratch.path().join("state");
    (scratch, state)
}

/// Opens what this process, or the one that began it, held until now: a child that another thread
/// has forked meanwhile has the lock as well, until it runs its program.
fn once_let_go<T>(open: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let holders = [std::process::id(), std::os::unix::process::parent_id()];
    let opened = eventually(Duration::from_mins(1), || match open() {
        Err(StoreError::Locked { holder: Some(holder), .. }) if holders.contains(&holder) => None,
        ended => Some(ended),
    });
    opened.unwrap_or_else(open)
}

fn both() -> (Scratch, [Store; 2]) {
    let (scratch, state) = fresh();
    let file = open(&state).unwrap();
    (scratch, [Store::Memory(MemoryStore::default()), file])
}

#[tokio::test]
async fn a_swap_needs_the_revision_that_it_expects() {
    let (_scratch, stores) = both();
    for store in stores {
        assert_eq!(store.load().await.unwrap(), None);

        let first = store.swap(None, &numbered(1)).await.unwrap();
        let again = store.swap(None, &numbered(2)).await;
        assert!(matches!(again, Err(SwapError::Raced)), "{store:?}: nothing was expected");
        let second = store.swap(Some(first), &numbered(3)).await.unwrap();
        let late = store.swap(Some(first), &numbered(4)).await;
        assert!(matches!(late, Err(SwapError::Raced)), "{store:?}: an old one was expected");

        assert_eq!(store.load().await.unwrap(), Some((numbered(3), second)));
    }
}

#[tokio::test]
async fn of_many_that_swap_at_once_one_wins() {
    let (_scratch, stores) = both();
    for store in stores {
        let swaps = (1..=8).map(|number| {
            let store = store.clone();
            async move { store.swap(None, &numbered(number)).await.map(|_| number) }
        });
        let done = futures_util::future::join_all(swaps).await;
        let winners: Vec<_> = done.into_iter().filter_map(Result::ok).collect();

        let [winner] = winners[..] else { panic!("{store:?}: {winners:?}") };
        assert_eq!(store.load().await.unwrap().unwrap().0, numbered(winner));
    }
}

#[tokio::test]
async fn notes_are_kept_by_server_and_shown_to_nobody() {
    let (scratch, stores) = both();
    let secret = "host=a password=very-secret";
    for store in &stores {
        let note = Note::new().with("primary_conninfo", secret).with("restore_command", "");
        store.keep("db1:5432", note.clone()).await.unwrap();
        store.keep("db2:5432", Note::new().with("primary_conninfo", "host=b")).await.unwrap();
        store.forget("db2:5432").await.unwrap();

        assert_eq!(store.note("db1:5432").await.unwrap(), Some(note.clone()));
        assert_eq!(store.note("db2:5432").await.unwrap(), None);
        assert!(!format!("{note:?} {store:?}").contains("very-secret"));
    }
    let state = scratch.path().join("state");
    let holding: Vec<_> = std::fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| std::fs::read_to_string(path).unwrap().contains("very-secret"))
        .collect();
    let [file] = &holding[..] else { panic!("{holding:?}") };
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);

    // A mistake in it is told without its text.
    let cut = std::fs::read_to_string(file).unwrap().replace("very-secret\"", "very-secret");
    std::fs::write(file, cut).unwrap();
    let error = stores[1].note("db1:5432").await.unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()) && !error.contains("secret\""), "{error}");
    assert!(!error.contains("very"), "{error}");
}

#[test]
fn a_second_process_is_told_who_holds_it() {
    let (_scratch, state) = fresh();
    let first = open(&state).unwrap();

    let second = open(&state).unwrap_err();
    let pid = std::process::id();
    assert!(
        matches!(second, StoreError::Locked { holder: Some(holder), .. } if holder == pid),
        "{second}"
    );

    drop(first);
    once_let_go(|| open(&state)).unwrap();
}

/// What lies there and can't be believed is an error that names the file, not a new beginning.
#[tokio::test]
async fn what_can_not_be_believed_is_refused() {
    let (_scratch, state) = fresh();
    let store = open(&state).unwrap();
    store.swap(None, &numbered(1)).await.unwrap();
    let Store::File(file) = &store else { unreachable!() };
    let path = file.path();
    let good = std::fs::read_to_string(&path).unwrap();
    drop(store);

    let wrong = [
        ("", "can't be understood"),
        (&good[..good.len() / 2], "can't be understood"),
        (&good.replace("\"format\": 1", "\"format\": 2"), "has format 2"),
        (&good.replace("\"epoch\": 1,", "\"epoch\": 1, \"novelty\": 1,"), "can't be understood"),
        (&good.replace("\"7\"", "\"seven\""), "`seven` is no system identifier"),
    ];
    for (text, says) in wrong {
        std::fs::write(&path, text).unwrap();
        let error = once_let_go(|| open(&state)).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(&path.display().to_string()), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it was touched");
    }

    std::fs::write(&path, &good).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let error = once_let_go(|| open(&state)).unwrap_err().to_string();
    assert!(error.contains("mode 0666") && error.contains("chmod 0600"), "{error}");

    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    let error = once_let_go(|| open(&state)).unwrap_err();
    assert!(matches!(error, StoreError::Kind { .. }), "{error}");
}

#[test]
fn a_directory_that_can_not_be_used_is_refused_with_the_remedy() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = open(&file.join("state")).unwrap_err().to_string();
    assert!(error.contains("failover.state_dir"), "{error}");

    let wide = scratch.path().join("wide");
    std::fs::create_dir(&wide).unwrap();
    std::fs::set_permissions(&wide, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = open(&wide).unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    // Within it, a directory of our own is good.
    open(&wide.join("state")).unwrap();
    assert_eq!(std::fs::metadata(wide.join("state")).unwrap().permissions().mode() & 0o7777, 0o700);
}

/// A changed list of servers does not pass for a new set.
#[tokio::test]
async fn a_record_follows_when_servers_are_added() {
    let (_scratch, state) = fresh();
    let more: Vec<Arc<str>> = ["db3:5432", "db2:5432", "db1:5432"].map(Arc::from).into();
    let store = open(&state).unwrap();
    store.swap(None, &numbered(5)).await.unwrap();
    store.keep("db1:5432", Note::new().with("a", "b")).await.unwrap();

    let error = FileStore::open(&state, &more).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "another works with it: {error}");
    drop(store);
    let grown = Store::File(once_let_go(|| FileStore::open(&state, &more)).unwrap());

    assert_eq!(grown.load().await.unwrap().unwrap().0, numbered(5));
    assert!(grown.note("db1:5432").await.unwrap().is_some());
    let error = open(&state).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "the old list is the same set: {error}");

    // Others' sets are left alone.
    let others: Vec<Arc<str>> = ["db9:5432"].map(Arc::from).into();
    let others = Store::File(FileStore::open(&state, &others).unwrap());
    assert_eq!(others.load().await.unwrap(), None);
}

#[test]
fn a_token_is_read_only_where_it_is_one() {
    let (_scratch, state) = fresh();
    let store = FileStore::open(&state, &servers()).unwrap();
    let (token, path) = store.new_token().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

    let read = Token::read(&path).unwrap();
    assert!(token.is(read.reveal()));
    assert!(!token.is("") && !token.is(&read.reveal().replace('a', "b").replace('1', "2")));
    assert!(Token::read_own(&path).is_ok());
    if rustix::process::geteuid().is_root() {
        // Root may order, but goes nowhere because another user says so.
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(Token::read(&path).is_ok() && Token::read_own(&path).is_err());
    }
    let (next, _) = store.new_token().unwrap();
    assert!(!next.is(token.reveal()), "a token outlives its process");

    std::fs::write(&path, "root:x:0:0").unwrap();
    assert!(Token::read(&path).is_err(), "any file passes for a token");
}

#[test]
fn what_salts_are_made_of_is_made_once_and_shown_to_nobody() {
    let (_scratch, state) = fresh();
    let path = state.join("salts");
    let made = salts(&state).unwrap();
    assert_ne!(made, [0; 32]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    // Also while a pgsteer keeps its record there.
    let store = FileStore::open(&state, &servers()).unwrap();
    assert_eq!(salts(&state).unwrap(), made);
    drop(store);

    for other in ["", "pgsteer-salts-00", "root:x:0:0", &"pgsteer-salts-+f".repeat(8)] {
        std::fs::write(&path, other).unwrap();
        let told = salts(&state).unwrap_err().to_string();
        assert!(told.contains("salts") && told.contains("remove it"), "{told}");
    }
    std::fs::remove_file(&path).unwrap();
    assert_ne!(salts(&state).unwrap(), made, "another one");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(salts(&state).is_err(), "others could read it");
}

/// A disk that does not say that what was written lasts: who reads finds what stood there before,
/// and nothing until that lasts.
#[tokio::test]
async fn what_may_not_last_is_not_read_and_not_passed_for_kept() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return write_where_nothing_lasts(Path::new(&dir)).await;
    }
    let (scratch, state) = fresh();
    std::fs::create_dir(&state).unwrap();
    // Where anybody may go: a checkout in /root is closed to others.
    let copy = scratch.path().join("it");
    // By another process: what is open for writing can't be run, and here it would be open in a
    // child as well that another thread forks meanwhile.
    let own = std::env::current_exe().unwrap();
    assert!(Command::new("cp").arg(own).arg(&copy).status().unwrap().success());
    let mut child = Command::new(copy);
    let test = "store::what_may_not_last_is_not_read_and_not_passed_for_kept";
    child.args(["--exact", test, "--nocapture"]).env(CHILD, &state).current_dir("/");
    if rustix::process::geteuid().is_root() {
        // Nothing is closed to the superuser of the machine.
        std::os::unix::fs::chown(&state, Some(NOBODY), None).unwrap();
        child.uid(NOBODY).gid(NOBODY);
    }
    let done = child.output().unwrap();
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(done.status.success() && said[0].contains("1 passed"), "{}", said.concat());
}

/// `nobody` on Debian.
const NOBODY: u32 = 65_534;

async fn write_where_nothing_lasts(dir: &Path) {
    let chmod = |mode| std::fs::set_permissions(dir, PermissionsExt::from_mode(mode)).unwrap();
    let note = || Note::new().with("primary_conninfo", "host=a");
    chmod(0o700);
    let store = open(dir).unwrap();
    for before in [None, Some(numbered(1))] {
        let known = store.load().await.unwrap();
        assert_eq!(known.as_ref().map(|(record, _)| record), before.as_ref());
        let revision = known.as_ref().map(|(_, revision)| *revision);

        // Files in it may be made and renamed; but it can't be opened, and so not be synced.
        chmod(0o300);
        let unsure = store.swap(revision, &numbered(9)).await;
        assert!(matches!(unsure, Err(SwapError::Unsure(_))), "{unsure:?}");
        assert!(store.load().await.is_err(), "it is read, and may not last");
        let failed = store.swap(revision, &numbered(9)).await;
        assert!(matches!(failed, Err(SwapError::Failed(_))), "{failed:?}");

        chmod(0o700);
        assert_eq!(store.load().await.unwrap(), known, "what was not written is there");
        store.swap(revision, &numbered(1)).await.unwrap();
    }

    chmod(0o300);
    assert!(store.keep("db1:5432", note()).await.is_err());
    assert!(store.keep("db1:5432", note()).await.is_err(), "it stands there, and may not last");
    assert!(store.note("db1:5432").await.is_err(), "it is read, and may not last");
    chmod(0o700);
    store.keep("db1:5432", note()).await.unwrap();

    chmod(0o300);
    assert!(store.forget("db1:5432").await.is_err());
    assert!(store.forget("db1:5432").await.is_err(), "it is gone, and may come back");
    chmod(0o700);
    store.forget("db1:5432").await.unwrap();
    assert_eq!(store.note("db1:5432").await.unwrap(), None);
}

/// Says to a copy of this test that it is the child, and where it writes.
const CHILD: &str = "PGSTEER_TEST_STORE";
/// How often the child is killed.
const KILLS: u64 = 60;

/// However a writer ends, what it leaves is one of the records that it wrote, whole, and no older
/// than the last that it was told to be durable.
#[tokio::test]
async fn a_writer_that_is_killed_leaves_a_whole_record() {
    if let Some(dir) = std::env::var_os(CHILD) {
        write_for_ever(Path::new(&dir)).await;
    }
    let (_scratch, state) = fresh();
    let test = "store::a_writer_that_is_killed_leaves_a_whole_record";
    let mut last = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, &state)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Long enough for a first record in each run, and otherwise anywhere in a write.
        let told = state.join("told");
        let until = || std::fs::read_to_string(&told).ok().and_then(|text| text.parse().ok());
        let mut tries = 0..30_000;
        while until().unwrap_or(0) <= last {
            assert!(tries.next().is_some(), "the child writes nothing");
            pgsteer::timer::sleep(Duration::from_millis(1)).await;
        }
        pgsteer::timer::sleep(Duration::from_micros(kill * 131 % 9000)).await;
        child.kill().unwrap();
        child.wait().unwrap();

        let store = open(&state).unwrap();
        let (found, _) = store.load().await.unwrap().unwrap();
        let number = found.epoch.0;
        assert_eq!(found, numbered(number), "it is a mixture");
        assert!(number >= until().unwrap_or(0), "it is older than what was durable");
        last = number;
    }
    assert!(last > KILLS, "the child wrote only {last} records in {KILLS} lives");
}

/// Never returns: it is killed.
async fn write_for_ever(dir: &Path) {
    let store = once_let_go(|| open(dir)).unwrap();
    let (mut number, mut revision) = match store.load().await.unwrap() {
        Some((record, revision)) => (record.epoch.0, Some(revision)),
        None => (0, None),
    };
    loop {
        number += 1;
        revision = Some(store.swap(revision, &numbered(number)).await.unwrap());
        std::fs::write(dir.join("told.new"), number.to_string()).unwrap();
        std::fs::rename(dir.join("told.new"), dir.join("told")).unwrap();
    }
}
