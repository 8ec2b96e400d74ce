//! Copies the data directory of a server that is not running.

use crate::sandbox::Account;
use crate::sandbox::SandboxError;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// Copies the directory `from`, with all beneath, to `to`, which must not exist, for `account`.
pub(super) fn copy_tree(from: &Path, to: &Path, account: Account) -> Result<(), SandboxError> {
    let mut open: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = open.pop() {
        make_dir(&to, account)?;
        for entry in fs::read_dir(&from).map_err(SandboxError::file("read", &from))? {
            let entry = entry.map_err(SandboxError::file("read", &from))?;
            let copy = to.join(entry.file_name());
            let kind = entry.file_type().map_err(SandboxError::file("read", entry.path()))?;
            if kind.is_dir() {
                open.push((entry.path(), copy));
            } else {
                fs::copy(entry.path(), &copy).map_err(SandboxError::file("copy to", &copy))?;
                account.owns(&copy)?;
            }
        }
    }
    Ok(())
}

/// The same for the directory of a server that runs: files come and go, and what `left_out` says
/// of a path within it is not copied.
pub(super) fn copy_live_tree(
    from: &Path,
    to: &Path,
    account: Account,
    left_out: &dyn Fn(&Path) -> bool,
) -> Result<(), SandboxError> {
    let mut open = vec![PathBuf::new()];
    while let Some(within) = open.pop() {
        make_dir(&to.join(&within), account)?;
        let there = from.join(&within);
        let entries = match fs::read_dir(&there) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(SandboxError::file("read", &there))?,
        };
        for entry in entries {
            let entry = entry.map_err(SandboxError::file("read", &there))?;
            let path = within.join(entry.file_name());
            if left_out(&path) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                Ok(_) => copy_live_file(&entry.path(), &to.join(&path), account)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(SandboxError::file("read", entry.path())(error)),
            }
        }
    }
    Ok(())
}

fn copy_live_file(from: &Path, to: &Path, account: Account) -> Result<(), SandboxError> {
    match fs::copy(from, to) {
        Ok(_) => account.owns(to),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(SandboxError::file("copy to", to)(error)),
    }
}

/// Makes a directory that only `account` can enter, as PostgreSQL asks of its data directory.
pub(super) fn make_dir(path: &Path, account: Account) -> Result<(), SandboxError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(SandboxError::file("create", path))?;
    account.owns(path)
}

/// Writes a file that only `account` can read.
pub(super) fn write_file(path: &Path, text: &str, account: Account) -> Result<(), SandboxError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).map_err(SandboxError::file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(SandboxError::file("protect", path))?;
    account.owns(path)
}
