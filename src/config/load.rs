//! From the outside world - a file, an environment, flags - to a [`Config`] or a report.

use crate::config::build::Builder;
use crate::config::keys;
use crate::config::layers::Flag;
use crate::config::layers::Layers;
use crate::config::problem::NAME_A_FILE;
use crate::config::problem::Notes;
use crate::config::problem::Place;
use crate::config::problem::Report;
use crate::config::problem::SourceFile;
use crate::config::secret;
use crate::config::types::Config;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

/// The longest file that is read; sixty keys need far less.
const LONGEST: u64 = 1024 * 1024;

/// What a configuration is made of. It is kept, so that a reload asks the same question again.
#[derive(Clone, Default)]
pub struct Request {
    /// The file, if any.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The command line, in order.
    pub flags: Vec<Flag>,
}

impl fmt::Debug for Request {
    /// Without the environment: it is full of secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, env: _, flags } = self;
        out.debug_struct("Request")
            .field("file", file)
            .field("flags", flags)
            .finish_non_exhaustive()
    }
}

/// A configuration, and what is not wrong but strange.
#[derive(Debug)]
pub struct Loaded {
    /// It.
    pub config: Config,
    /// Warnings only.
    pub warnings: Report,
}

impl Request {
    /// The variables of this process. What is not UTF-8 is left out unless it is ours; then its
    /// bad bytes are replaced, and its reader complains.
    pub fn env_of_process() -> BTreeMap<String, String> {
        std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                let value = match value.into_string() {
                    Ok(value) => value,
                    Err(value) if name.starts_with("PGSTEER_") => {
                        value.to_string_lossy().into_owned()
                    }
                    Err(_) => return None,
                };
                Some((name, value))
            })
            .collect()
    }

    /// Reads the file and checks everything.
    ///
    /// # Errors
    /// The [`Report`] has every error and every warning.
    pub fn load(&self) -> Result<Loaded, Report> {
        let Some(path) = &self.file else {
            return self.check(None, Notes::default());
        };
        let name = path.display().to_string();
        let (bytes, mode) = read(path).map_err(|error| {
            Report::of(&name, &format!("cannot read the file: {error}"), NAME_A_FILE)
        })?;
        let mut notes = Notes::default();
        let text = String::from_utf8(bytes).unwrap_or_else(|error| {
            let start = error.utf8_error().valid_up_to();
            let place = Place::File { start, end: start.saturating_add(1) };
            notes.error(&place, "the file is not UTF-8".to_owned(), "");
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        });
        if secret::open_to_others(mode) && holds_a_secret(&text) {
            let message = format!(
                "{name} holds a password and has mode {:04o}: others can read it",
                mode & 0o7777
            );
            let help = format!(
                "chmod 0640 {name}, or keep it elsewhere: password = {{ file = \"PATH\" }}"
            );
            notes.warning(&Place::Nowhere, message, help);
        }
        let file = SourceFile { path: name, text };
        self.check(Some(&file), notes)
    }

    /// The same with a text in the place of the file; `name` is what messages call it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_text(&self, name: &str, text: String) -> Result<Loaded, Report> {
        self.check(Some(&SourceFile { path: name.to_owned(), text }), Notes::default())
    }

    /// Where this configuration serves HTTP, whatever else may be wrong with it: for commands
    /// that only want to ask the running proxy. `None`: nowhere.
    ///
    /// # Errors
    /// The [`Report`] if the key `http` itself cannot be read.
    pub fn http(&self) -> Result<Option<SocketAddr>, Report> {
        let read = |path: &PathBuf| {
            let text = String::from_utf8(read(path).ok()?.0).ok()?;
            Some(SourceFile { path: path.display().to_string(), text })
        };
        let file = self.file.as_ref().and_then(read);
        let mut layers = Layers::new(Notes::default());
        if let Some(file) = &file {
            layers.add_file(&file.text);
        }
        layers.add_env(&self.env);
        layers.add_flags(&self.flags);
        layers.notes = Notes::default();
        let got = layers.get(&keys::HTTP, file.as_ref());
        if got.broken { Err(layers.notes.report(file.as_ref())) } else { Ok(got.value.0) }
    }

    fn check(&self, file: Option<&SourceFile>, notes: Notes) -> Result<Loaded, Report> {
        let mut layers = Layers::new(notes);
        if let Some(file) = file {
            layers.add_file(&file.text);
        }
        layers.add_env(&self.env);
        layers.add_flags(&self.flags);
        let (config, notes) = Builder { layers, file, env: &self.env }.build();
        let report = notes.report(file);
        config.map_or_else(
            || Err(report.clone()),
            |config| Ok(Loaded { config, warnings: report.clone() }),
        )
    }
}

fn read(path: &Path) -> std::io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok((bytes, about.mode()))
}

/// Whether the file has a password in plain text. A guess by the text: only a warning hangs on it.
fn holds_a_secret(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        line.strip_prefix("password").is_some_and(|rest| {
            rest.trim_start()
                .strip_prefix('=')
                .is_some_and(|value| value.trim_start().starts_with(['"', '\'']))
        })
    })
}
