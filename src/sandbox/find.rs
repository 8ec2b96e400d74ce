//! Where PostgreSQL's programs are on this machine.

use crate::pg::Version;
use crate::sandbox::Account;
use crate::sandbox::SandboxError;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The environment variable that names the directory.
const VARIABLE: &str = "PGSTEER_PG_BIN";

/// Directories with a version in the place of `*`, as packagers lay them out: Debian, the PGDG's
/// RPMs, Homebrew (Apple, Intel, Linux), Postgres.app. The newest version wins.
const PLACES: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// The programs of one PostgreSQL, and who runs them.
#[derive(Debug, Clone)]
pub struct Postgres {
    bin: PathBuf,
    version: Version,
    account: Account,
}

impl Postgres {
    /// Finds PostgreSQL: in `named`, else in `$PGSTEER_PG_BIN`, else where `pg_config` says, else
    /// where packagers put it, else on `PATH`.
    ///
    /// # Errors
    /// [`SandboxError::NoPostgres`] with the command that installs it;
    /// [`SandboxError::NotPrograms`] if the directory that was named does not hold it.
    pub fn find(named: Option<&Path>) -> Result<Self, SandboxError> {
        let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let bin = match (named, variable) {
            (Some(dir), _) => has_programs(dir.to_owned(), "--pg-bin")?,
            (None, Some(dir)) => has_programs(PathBuf::from(dir), VARIABLE)?,
            (None, None) => search()?,
        };
        let version = version(&bin)?;
        Ok(Self { bin, version, account: Account::of_this_process()? })
    }

    /// Its version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Who runs it.
    pub const fn account(&self) -> Account {
        self.account
    }

    /// The directory of its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// One of its programs, to be run by the right user in `dir`, with nothing of our own
    /// environment that would change where it connects or what it says.
    pub fn command(&self, program: &str, dir: &Path) -> Command {
        let mut command = Command::new(self.bin.join(program));
        self.account.runs(&mut command);
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.current_dir(dir).env("LC_ALL", "C");
        command
    }
}

fn has_programs(dir: PathBuf, named_by: &'static str) -> Result<PathBuf, SandboxError> {
    if holds_programs(&dir) { Ok(dir) } else { Err(SandboxError::NotPrograms { dir, named_by }) }
}

fn holds_programs(dir: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| dir.join(program).is_file())
}

/// Looks in all the places, in order.
fn search() -> Result<PathBuf, SandboxError> {
    let packaged = PLACES.iter().flat_map(|pattern| newest_first(pattern));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut candidates = pg_config().into_iter().chain(packaged).chain(on_path);
    candidates.find(|dir| holds_programs(dir)).ok_or_else(|| SandboxError::NoPostgres {
        looked: format!("pg_config, {}, PATH", PLACES.join(", ")),
        line: install_line(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
    })
}

/// What `pg_config --bindir` says; on Debian it may belong to the client library alone.
fn pg_config() -> Option<PathBuf> {
    let said = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    said.status.success().then(|| PathBuf::from(text.trim()))
}

/// The directories that a pattern with one `*` stands for, the highest version first.
fn newest_first(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return Vec::new() };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(f64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.parse().ok()?;
            Some((version, PathBuf::from(format!("{parent}/{name}{after}"))))
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// Reads `postgres (PostgreSQL) 15.20 (Debian ...)`.
fn version(bin: &Path) -> Result<Version, SandboxError> {
    let program = bin.join("postgres");
    let said = Command::new(&program).arg("--version").output();
    let said = said.map_err(SandboxError::file("run", &program))?;
    let text = String::from_utf8_lossy(&said.stdout);
    parse_version(&text).ok_or_else(|| SandboxError::Program {
        program,
        said: format!("{text}{}", String::from_utf8_lossy(&said.stderr)),
    })
}

fn parse_version(text: &str) -> Option<Version> {
    let number = text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    // A release candidate is `19beta1`: no minor version yet.
    let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok();
    Some(Version(digits(major)? * 10_000 + digits(minor).unwrap_or(0)))
}

/// The command that installs PostgreSQL on the system that `/etc/os-release` describes.
fn install_line(os_release: &str) -> String {
    let ids: Vec<&str> = os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split(' '))
        .collect();
    let line = INSTALL.iter().find(|(id, _)| ids.contains(id)).map(|(_, line)| *line);
    line.map_or_else(
        || {
            let all: Vec<String> =
                INSTALL.iter().map(|(id, line)| format!("\n  {line}   ({id})")).collect();
            all.concat()
        },
        str::to_owned,
    )
}

/// The system's `ID` or `ID_LIKE`, and its command.
const INSTALL: [(&str, &str); 6] = [
    ("debian", "sudo apt-get install postgresql"),
    ("fedora", "sudo dnf install postgresql-server"),
    ("arch", "sudo pacman -S postgresql"),
    ("suse", "sudo zypper install postgresql-server"),
    ("alpine", "sudo apk add postgresql"),
    ("macOS", "brew install postgresql@17"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_postgres_prints_it() {
        let cases = [
            ("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", 150_020),
            ("postgres (PostgreSQL) 18.4\n", 180_004),
            ("postgres (PostgreSQL) 19beta1\n", 190_000),
        ];
        for (text, number) in cases {
            assert_eq!(parse_version(text), Some(Version(number)), "{text}");
        }
        assert_eq!(parse_version("oops"), None);
    }

    #[test]
    fn the_line_to_install_is_that_of_the_system() {
        assert!(install_line("NAME=x\nID=ubuntu\nID_LIKE=debian\n").contains("apt-get"));
        assert!(install_line("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n").contains("dnf"));
        let unknown = install_line("ID=plan9\n");
        assert!(unknown.contains("apt-get") && unknown.contains("brew"));
    }

    #[test]
    fn a_directory_without_the_programs_is_named_in_the_error() {
        let error = Postgres::find(Some(Path::new("/nowhere"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no initdb and postgres in /nowhere, which --pg-bin names"
        );
    }
}
