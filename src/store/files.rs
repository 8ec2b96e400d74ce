//! Files that hold what must not be lost: read strictly, written whole.

use crate::store::StoreError;
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest file that is read: a record with all its changes takes a hundredth of it.
const LONGEST: u64 = 4 * 1024 * 1024;
/// What is appended to the name of a file while it is written.
const DRAFT: &str = ".new";
/// Others may write.
const OTHERS_WRITE: u32 = 0o002;
/// In such a directory nobody removes or renames what is another's.
const STICKY: u32 = 0o1000;

/// Whether others may look into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privacy {
    /// They may; they may not change it.
    Readable,
    /// They may not.
    Secret,
}

impl Privacy {
    /// Bits that the file's mode must not have.
    const fn forbidden(self) -> u32 {
        match self {
            Self::Readable => 0o022,
            Self::Secret => 0o077,
        }
    }
}

/// Whose files are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Only our own.
    Us,
    /// Anybody's, if we are the superuser of the machine, who may read everything anyway.
    UsOrAnybodyForRoot,
}

/// Why a file was not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// What stood there still does.
    Kept(StoreError),
    /// It may be there or not, and may or may not last.
    Unsure(StoreError),
}

impl Unwritten {
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Kept(error) | Self::Unsure(error) => error,
        }
    }
}

/// Makes the directory if it is not there, for us alone.
pub(super) fn make_directory(path: &Path) -> Result<(), StoreError> {
    let failed = |what| move |source| StoreError::Directory { what, path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make"))?;
    let mode = fs::metadata(path).map_err(failed("look at"))?.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(StoreError::Open { path: path.to_owned(), mode });
    }
    // Better now than in the middle of a failover.
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(io::Error::from)
        .map_err(failed("write in"))
}

/// Reads a file of ours; `None` if there is none.
pub(super) fn read(path: &Path, privacy: Privacy) -> Result<Option<String>, StoreError> {
    read_of(path, privacy, Owner::Us)
}

/// The same of a file that may be somebody else's.
pub(super) fn read_of(
    path: &Path,
    privacy: Privacy,
    owner: Owner,
) -> Result<Option<String>, StoreError> {
    let file = match open(path, OFlags::RDONLY) {
        Ok(file) => file,
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    check(&file, path, (privacy, owner))?;
    let mut text = Vec::new();
    file.take(LONGEST.saturating_add(1)).read_to_end(&mut text).map_err(io_error("read", path))?;
    let broken = |what: &str| StoreError::Broken { path: path.to_owned(), what: what.to_owned() };
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > LONGEST {
        return Err(broken("it is far too long"));
    }
    String::from_utf8(text).map(Some).map_err(|_| broken("it is not text"))
}

/// Puts `text` in the place of a file, durably: a reader finds the old text or the new one.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Unwritten> {
    let draft = draft_of(path);
    written(&draft, text).map_err(Unwritten::Kept)?;
    fs::rename(&draft, path).map_err(io_error("replace", path)).map_err(Unwritten::Kept)?;
    // Until the directory is on the disk, the old name may come back with the machine.
    let parent = path.parent().unwrap_or(Path::new("."));
    sync_directory(parent).map_err(Unwritten::Unsure)
}

/// Removes a file, durably; that there is none is as good.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", path)(error)),
    }
}

/// Gives a file another name in its directory, durably; that there is none is as good.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::rename(from, to) {
        Ok(()) => sync_directory(to.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("rename", from)(error)),
    }
}

/// Locks a file for as long as the returned value lives; our number is written into it for
/// whoever finds it locked.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let mut file = open(path, OFlags::RDWR | OFlags::CREATE)?;
    check(&file, path, (Privacy::Readable, Owner::Us))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.take(16).read_to_string(&mut text);
            let holder = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(StoreError::Locked { path: path.to_owned(), holder });
        }
        Err(fs::TryLockError::Error(error)) => return Err(io_error("lock", path)(error)),
    }
    let wrote = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    wrote.map_err(io_error("write", path))?;
    Ok(file)
}

/// Locks a directory for a moment; whoever else does so is done within milliseconds.
pub(super) fn wait_for_lock(directory: &Path) -> Result<File, StoreError> {
    let file = File::open(directory).map_err(io_error("open", directory))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::Error(error)) => return Err(io_error("lock", directory)(error)),
        }
    }
    Err(StoreError::Locked { path: directory.to_owned(), holder: None })
}

/// How often, and how far apart: three seconds altogether.
const LOCK_TRIES: u32 = 150;
/// See above.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn written(draft: &Path, text: &str) -> Result<(), StoreError> {
    // What a crash left there is nobody's; another's mode and owner are not taken over.
    remove_draft(draft)?;
    let mut file = open(draft, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    let wrote = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    wrote.map_err(|source| {
        drop(fs::remove_file(draft));
        io_error("write", draft)(source)
    })
}

fn remove_draft(draft: &Path) -> Result<(), StoreError> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", draft)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(DRAFT);
    PathBuf::from(name)
}

/// Never through a link, and new files for us alone.
fn open(path: &Path, flags: OFlags) -> Result<File, StoreError> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(rustix::io::Errno::LOOP) => Err(StoreError::Kind { path: path.to_owned() }),
        Err(error) => Err(io_error("open", path)(error.into())),
    }
}

fn check(file: &File, path: &Path, (privacy, owner): (Privacy, Owner)) -> Result<(), StoreError> {
    let about = file.metadata().map_err(io_error("look at", path))?;
    let path = path.to_owned();
    if !about.is_file() {
        return Err(StoreError::Kind { path });
    }
    let us = rustix::process::geteuid();
    let any = owner == Owner::UsOrAnybodyForRoot && us.is_root();
    let us = us.as_raw();
    if about.uid() != us && !any {
        return Err(StoreError::Owner { path, owner: about.uid(), us });
    }
    let mode = about.mode() & 0o7777;
    if mode & privacy.forbidden() != 0 {
        return Err(StoreError::Mode { path, mode });
    }
    Ok(())
}

/// Has the names in a directory last.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("sync", path))
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}
