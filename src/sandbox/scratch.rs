//! A directory that ends with its owner, and takes with it every process that works in it.
//!
//! Three ways lead there, all through the same script (`guard.sh`):
//! - The value is dropped: the guard is told, and waited for.
//! - The process dies, even by `kill -9`: the guard is a child of ours that reads from a pipe
//!   whose only other end we hold; the kernel closes it, and the guard goes to work.
//! - The guard was killed as well: the next [`Scratch`] on this machine sweeps first. The owner
//!   holds a lock (`flock`) on the directory for as long as it lives, so a directory that can
//!   be locked is nobody's; no pid is trusted, which another process might have by now.
//!
//! A newborn directory is not locked for a moment. The owner therefore looks, once it has the
//! lock, whether the directory is still there, and makes another if a sweeper was faster.

use crate::sandbox::SandboxError;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use tracing::warn;

/// The script that ends what works in a directory, and removes it.
const GUARD: &str = include_str!("guard.sh");
/// What every directory of ours is called, before its number.
const PREFIX: &str = "pgsteer-sandbox-";
/// How many names are tried before giving up: others' leftovers that we may not remove.
const NAMES_MAX: u32 = 1000;
/// Longest path in which a unix socket `/server/.s.PGSQL.12345` still fits (108 bytes).
const BASE_LEN_MAX: usize = 50;

/// Number of the next directory of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory that ends with its owner, and takes with it every process that works in it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    guard: Child,
    /// Says to sweepers that the owner lives.
    _lock: File,
}

impl Scratch {
    /// Removes what dead owners left, and makes a fresh directory in the place for temporary
    /// files (`TMPDIR`).
    ///
    /// # Errors
    /// [`SandboxError::File`] if there is no room or no permission, or no shell for the guard.
    pub fn new() -> Result<Self, SandboxError> {
        let base = base();
        sweep(&base);
        let (path, lock) = make(&base)?;
        let mut command = guard(&path, "wait");
        match command.stdin(Stdio::piped()).spawn() {
            Ok(guard) => Ok(Self { path, guard, _lock: lock }),
            Err(source) => {
                drop(fs::remove_dir(&path));
                Err(SandboxError::File { what: "start the guard of", path, source })
            }
        }
    }

    /// The directory; absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // The guard's own loops are bounded, so this ends.
        let ended = self.guard.wait().map(drop);
        complain_if_there(&self.path, &ended);
    }
}

/// Where directories are made.
fn base() -> PathBuf {
    let named = std::env::temp_dir();
    let base = named.canonicalize().unwrap_or(named);
    // A unix socket's path is short by definition; some temporary directories are not.
    if base.as_os_str().len() > BASE_LEN_MAX { PathBuf::from("/tmp") } else { base }
}

/// Makes a directory, locked.
fn make(base: &Path) -> Result<(PathBuf, File), SandboxError> {
    let mut tries = 0..NAMES_MAX;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("{PREFIX}{}-{number}", std::process::id()));
        // Others may pass through, to the servers' own directories, but not look around.
        match fs::DirBuilder::new().mode(0o711).create(&path).and_then(|()| lock(&path)) {
            Ok(Some(lock)) => return Ok((path, lock)),
            Ok(None) if tries.next().is_some() => {}
            Err(error) if retries(&error) && tries.next().is_some() => {}
            Ok(None) => {
                return Err(SandboxError::file("lock", path)(io::ErrorKind::TimedOut.into()));
            }
            Err(source) => return Err(SandboxError::file("create", path)(source)),
        }
    }
}

/// Whether another name may do: this one is taken, or a sweeper was faster.
fn retries(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound)
}

/// Locks a directory; `None` if its owner lives, or if it is not there any more.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let dir = File::open(path)?;
    match dir.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    let still = fs::metadata(path).is_ok_and(|now| {
        dir.metadata().is_ok_and(|then| (then.dev(), then.ino()) == (now.dev(), now.ino()))
    });
    Ok(still.then_some(dir))
}

/// Ends and removes what dead owners left. Whatever is not ours to remove stays.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.filter_map(Result::ok) {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !(is_ours && is_dir && is_mine(&entry.path())) {
            continue;
        }
        if let Ok(Some(lock)) = lock(&entry.path()) {
            let ended = guard(&entry.path(), "now").stdin(Stdio::null()).status().map(drop);
            complain_if_there(&entry.path(), &ended);
            drop(lock);
        }
    }
}

/// The guard should have removed this.
fn complain_if_there(path: &Path, ended: &io::Result<()>) {
    if ended.is_err() || path.exists() {
        warn!(path = %path.display(), ?ended, "a sandbox could not be removed");
    }
}

/// Whether a user like us made this: in a directory that all may write to, anybody may have
/// given his own a name like ours.
fn is_mine(path: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|entry| entry.uid() == me)
}

/// The guard of a directory, in a process group of its own: a Ctrl-C at the terminal is for us.
fn guard(path: &Path, when: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    // By way of a variable: the script's text would fill the screen of whoever runs `ps`.
    command.env("PGSTEER_GUARD", GUARD).args(["-c", "eval \"$PGSTEER_GUARD\"", "pgsteer-guard"]);
    command.arg(path).arg(when);
    command.current_dir("/").process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_ends_with_its_value_and_takes_its_processes_along() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        let inside = path.join("work");
        fs::create_dir(&inside).unwrap();
        let mut sleeper = Command::new("sleep").arg("600").current_dir(&inside).spawn().unwrap();

        drop(scratch);

        assert!(!path.exists());
        assert!(!sleeper.wait().unwrap().success(), "the process was not ended");
    }

    #[test]
    fn a_living_owner_is_not_swept_and_a_dead_one_is() {
        let scratch = Scratch::new().unwrap();
        let orphan = base().join(format!("{PREFIX}orphan-{}", std::process::id()));
        fs::create_dir_all(orphan.join("primary/data")).unwrap();

        sweep(&base());

        assert!(scratch.path().exists(), "a living owner's directory was removed");
        assert!(!orphan.exists(), "a dead owner's directory stayed");
    }
}
