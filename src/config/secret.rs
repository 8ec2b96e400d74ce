//! Where a secret is kept: in the text, in a file, or in the environment.

use crate::backend::Secret;
use crate::config::node::Entry;
use crate::config::node::Kind;
use crate::config::node::Node;
use crate::config::problem::NAME_A_FILE;
use crate::config::problem::Notes;
use crate::config::problem::Place;
use crate::config::setting::Setting;
use crate::config::setting::quoted;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

/// The longest secret that is read from a file.
const LONGEST: u64 = 64 * 1024;

/// Bits of a file's mode that let others read it: anything beyond 0640.
const OPEN_TO_OTHERS: u32 = 0o137;

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretSource {
    /// There is none.
    None,
    /// In the configuration itself.
    Text(Secret),
    /// In a file, whose last line break does not count.
    File(PathBuf),
    /// In a variable of the environment.
    Env(String),
}

impl Setting for SecretSource {
    fn form() -> String {
        "text, { file = \"PATH\" } or { env = \"NAME\" }".to_owned()
    }

    fn read(node: &Node, notes: &mut Notes) -> Option<Self> {
        match &node.kind {
            Kind::Text(text) | Kind::Word(text) if text.is_empty() => Some(Self::None),
            Kind::Text(text) | Kind::Word(text) => Some(Self::Text(Secret::new(text.clone()))),
            Kind::Table(entries) => from_table(node, entries, notes),
            Kind::Integer(_) | Kind::Float(_) | Kind::Bool(_) | Kind::DateTime | Kind::List(_) => {
                let message = format!("expected a secret, found {}", node.describe());
                let help = "write text in quotes, { file = \"PATH\" } or { env = \"NAME\" }";
                notes.error(&node.place, message, help);
                None
            }
        }
    }

    fn write(&self) -> String {
        match self {
            Self::None => quoted(""),
            Self::Text(_) => quoted("***"),
            Self::File(path) => format!("{{ file = {} }}", quoted(&path.display().to_string())),
            Self::Env(name) => format!("{{ env = {} }}", quoted(name)),
        }
    }
}

fn from_table(node: &Node, entries: &[Entry], notes: &mut Notes) -> Option<SecretSource> {
    let help = "write { file = \"PATH\" } or { env = \"NAME\" }";
    let [Entry { name, name_place, node: value }] = entries else {
        notes.error(&node.place, "a secret has one source".to_owned(), help);
        return None;
    };
    match (name.as_str(), &value.kind) {
        ("file", Kind::Text(path)) => Some(SecretSource::File(PathBuf::from(path))),
        ("env", Kind::Text(name)) => Some(SecretSource::Env(name.clone())),
        ("file" | "env", _) => {
            notes.error(&value.place, "expected text in quotes".to_owned(), "");
            None
        }
        _ => {
            notes.error(name_place, format!("a secret cannot come from `{name}`"), help);
            None
        }
    }
}

impl SecretSource {
    /// Fetches the secret.
    pub(super) fn fetch(
        &self,
        env: &BTreeMap<String, String>,
        place: &Place,
        notes: &mut Notes,
    ) -> Option<Secret> {
        match self {
            Self::None => None,
            Self::Text(secret) => Some(secret.clone()),
            Self::Env(name) => {
                let secret = env.get(name).filter(|text| !text.is_empty());
                if secret.is_none() {
                    let message = format!("the environment variable {name} is not set");
                    notes.error(place, message, "set it, or write { file = \"PATH\" }");
                }
                secret.cloned().map(Secret::new)
            }
            Self::File(path) => from_file(path, place, notes),
        }
    }
}

fn from_file(path: &Path, place: &Place, notes: &mut Notes) -> Option<Secret> {
    let shown = path.display();
    let text = match read_short(path) {
        Ok((text, mode)) => {
            if mode & OPEN_TO_OTHERS != 0 {
                let message =
                    format!("{shown} has mode {:04o}: others can read the secret", mode & 0o7777);
                notes.warning(place, message, format!("chmod 0640 {shown}"));
            }
            text
        }
        Err(error) => {
            notes.error(
                place,
                format!("cannot read the secret from {shown}: {error}"),
                NAME_A_FILE,
            );
            return None;
        }
    };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        notes.error(place, format!("the secret file {shown} is empty"), "");
        return None;
    }
    Some(Secret::new(text.to_owned()))
}

fn read_short(path: &Path) -> std::io::Result<(String, u32)> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok((text, about.mode()))
}

/// Whether others than the owner and the group can use a file that holds a secret.
pub(super) const fn open_to_others(mode: u32) -> bool {
    mode & OPEN_TO_OTHERS != 0
}
