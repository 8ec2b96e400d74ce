//! The configuration as an operator meets it: files, variables, flags, mistakes.

mod layers;
mod mistakes;
mod noise;
mod reference;
mod rules;

use pgsteer::config::Config;
use pgsteer::config::Flag;
use pgsteer::config::Loaded;
use pgsteer::config::Report;
use pgsteer::config::Request;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// A directory that is gone with its owner.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pgsteer-it-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What a test says: a file's text, variables, flags.
#[derive(Default)]
pub(crate) struct Said<'s> {
    pub(crate) file: &'s str,
    pub(crate) env: &'s [(&'s str, &'s str)],
    pub(crate) flags: &'s [(&'s str, &'s str, &'s str)],
}

impl Said<'_> {
    /// Loads it; in the report, the file is called `pgsteer.toml`.
    pub(crate) fn load(&self) -> Result<Loaded, Report> {
        self.load_in(&Directory::new())
    }

    pub(crate) fn load_in(&self, directory: &Directory) -> Result<Loaded, Report> {
        let file = Some(directory.file("pgsteer.toml", self.file.as_bytes()));
        let env = self.env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let flags = self.flags.iter().map(|(name, key, value)| Flag {
            name: (*name).to_owned(),
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        });
        let mut env: std::collections::BTreeMap<String, String> = env.collect();
        env.entry("PGUSER".to_owned()).or_insert_with(|| "tester".to_owned());
        Request { file, env, flags: flags.collect() }.load()
    }

    /// The configuration; panics with the report.
    pub(crate) fn config(&self) -> Config {
        self.load().unwrap_or_else(|report| panic!("{report}")).config
    }

    /// Everything that is said about it, without the directory.
    pub(crate) fn told(&self) -> String {
        let directory = Directory::new();
        let report = match self.load_in(&directory) {
            Ok(loaded) => loaded.warnings,
            Err(report) => report,
        };
        report.to_string().replace(&format!("{}/", directory.path().display()), "")
    }
}
