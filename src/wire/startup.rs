//! The first packet of a connection: what the client wants, before anything is agreed.
//!
//! It is the only message without a tag, and the one that anybody can send. [`size`] says how
//! long it is, [`read`] what it asks for; both work on complete bytes and never panic. The
//! packet is read here and not by `pgwire`, which takes a value without its end for an empty
//! one and turns bytes that are not UTF-8 into replacement characters: two users could become
//! one.
//!
//! Versions are agreed on as by PostgreSQL 18: each minor one up to [`Minor::LATEST`] is spoken as
//! it was asked for, a later one is answered with that. 3.1 was never released and is spoken like
//! 3.0.
//!
//! Source: PostgreSQL manual, 55.2.1 "Start-up" and 55.7 "Message Formats";
//! `ProcessStartupPacket` in `postmaster/postmaster.c` (since 18 `tcop/backend_startup.c`).

use crate::pg::SqlState;
use crate::wire::message::{ErrorReport, TooLong};
use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::startup::NegotiateProtocolVersion;

/// The longest first packet without its length word, in bytes.
///
/// Source: `MAX_STARTUP_PACKET_LENGTH` in `libpq/pqcomm.h`.
const BODY_MAX: usize = 10_000;
/// The longest name of a user or a database that a server keeps, in bytes (`NAMEDATALEN - 1`).
const NAME_MAX: usize = 63;
/// Protocol 3, as the upper half of a version.
const MAJOR: i32 = 3 << 16;

const CANCEL_CODE: [u8; 4] = 80_877_102_u32.to_be_bytes();
const SSL_CODE: [u8; 4] = 80_877_103_u32.to_be_bytes();
const GSSENC_CODE: [u8; 4] = 80_877_104_u32.to_be_bytes();

/// What a client's first packet asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// TLS, before anything else is said.
    Ssl,
    /// GSSAPI encryption.
    GssEnc,
    /// To cancel what another connection is doing.
    Cancel(CancelKey),
    /// A session.
    Startup(Startup),
}

/// Whose statement is to be cancelled. Its `Debug` hides the key, which is a secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The process id from `BackendKeyData`.
    pub pid: i32,
    /// The key from `BackendKeyData`.
    pub key: Box<[u8]>,
}

/// A wish for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// Who.
    pub user: String,
    /// Where; the user's name unless it was given.
    pub database: String,
    /// Every other parameter in the order in which a server applies them, `options` taken apart.
    pub settings: Vec<(String, String)>,
    /// Whether the connection takes replication commands.
    pub replication: Replication,
    /// Which protocol is spoken.
    pub minor: Minor,
    /// What must be said about that before the login goes on.
    pub negotiation: Negotiation,
}

/// Whether a connection takes replication commands.
///
/// Source: PostgreSQL manual, 55.4 "Streaming Replication Protocol".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replication {
    /// It doesn't.
    #[default]
    None,
    /// `replication=true`: those, and no SQL.
    Physical,
    /// `replication=database`: both.
    Database,
}

/// A minor version of protocol 3 that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor(u16);

/// What the client asked for that we do not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Negotiation {
    /// Nothing.
    Agreed,
    /// A later minor version, or these protocol options.
    Offer {
        /// The names of the options, `_pq_.` included.
        unknown_options: Vec<String>,
    },
}

/// Why a first packet is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length word can't be one.
    #[error("invalid length of startup packet")]
    Length,
    /// It is the first byte of a TLS handshake.
    #[error("direct TLS connections are not supported here")]
    DirectTls,
    /// A protocol that we don't speak.
    #[error("unsupported frontend protocol {major}.{minor}: pgsteer speaks 3.0 to 3.2")]
    Version {
        /// Major number.
        major: u16,
        /// Minor number.
        minor: u16,
    },
    /// The parameters are not pairs of texts with an end.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// No user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// A text that is not UTF-8.
    #[error("startup parameter \"{name}\" is not valid UTF-8")]
    Encoding {
        /// Which parameter.
        name: String,
    },
    /// `replication` is neither `database` nor a Boolean.
    #[error("invalid value for parameter \"replication\": \"{value}\"")]
    ReplicationValue {
        /// What it is.
        value: String,
    },
    /// `options` holds something else than settings.
    #[error("invalid command-line argument for server process: {argument}")]
    Options {
        /// The argument.
        argument: String,
    },
}

impl Minor {
    /// The first one, which every client speaks.
    pub const FIRST: Self = Self(0);
    /// The last one that we know.
    pub const LATEST: Self = Self(2);

    /// Whether the secret of a cancel key may have more than four bytes.
    ///
    /// Source: PostgreSQL manual, 55.2.8 "Canceling Requests in Progress".
    pub fn has_long_keys(self) -> bool {
        self >= Self(2)
    }
}

impl StartupError {
    /// What the client is told, before the connection ends.
    pub fn report(&self) -> ErrorReport {
        let (cause, remedy) = self.cause_and_remedy();
        let report = ErrorReport::fatal(self.sqlstate(), self.to_string());
        report.with_detail(cause).with_hint(remedy)
    }

    const fn cause_and_remedy(&self) -> (&'static str, &'static str) {
        match self {
            Self::Length => (
                "A connection begins with its length, which is at most 10,004 bytes.",
                "Only clients of PostgreSQL can connect here; is this one?",
            ),
            Self::DirectTls => (
                "The connection begins with TLS, and there is none on it.",
                "Set tls.cert and tls.key, or leave sslnegotiation at its default, postgres.",
            ),
            Self::Version { .. } => (
                "PostgreSQL 7.4 and later speak version 3 of the protocol, and no other.",
                "Use a driver that speaks version 3; with libpq, leave max_protocol_version at \
                 its default.",
            ),
            Self::Layout => (
                "What a client says of itself comes in pairs of texts, and a zero byte ends them.",
                "Most likely a defect of the driver: use a newer one, or another.",
            ),
            Self::NoUser => (
                "Who logs in has to say as whom.",
                "Name a user in the connection string (user=...), or in PGUSER.",
            ),
            Self::Encoding { .. } => (
                "It is compared with what pgsteer knows as UTF-8.",
                "Names of users and databases must be UTF-8 to pass through pgsteer.",
            ),
            Self::ReplicationValue { .. } => (
                "It says whether the connection is for replication, and of what kind.",
                "Valid values are: \"false\", 0, \"true\", 1, \"database\".",
            ),
            Self::Options { .. } => (
                "It is none that sets a parameter.",
                "Only -c name=value and --name=value can be used in options.",
            ),
        }
    }

    const fn sqlstate(&self) -> SqlState {
        match self {
            Self::Length | Self::Layout => SqlState::PROTOCOL_VIOLATION,
            Self::DirectTls | Self::Version { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::NoUser => SqlState::INVALID_AUTHORIZATION,
            Self::Encoding { .. } | Self::ReplicationValue { .. } => {
                SqlState::INVALID_PARAMETER_VALUE
            }
            Self::Options { .. } => SqlState(*b"42601"), // syntax_error, as PostgreSQL says
        }
    }
}

/// How many bytes the first packet has, its length word included; `None` while fewer than four
/// have arrived.
///
/// # Errors
/// [`StartupError::Length`] if it is shorter or longer than PostgreSQL would take.
pub fn size(bytes: &[u8]) -> Result<Option<usize>, StartupError> {
    let [a, b, c, d, ..] = *bytes else { return Ok(None) };
    if [a, b] == [0x16, 0x03] {
        return Err(StartupError::DirectTls); // a TLS record of type "handshake", version 3.x
    }
    let total = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if (8..=BODY_MAX + 4).contains(&total) { Ok(Some(total)) } else { Err(StartupError::Length) }
}

/// Reads one whole first packet, length word included.
pub fn read(packet: &[u8]) -> Result<FirstPacket, StartupError> {
    if size(packet)? != Some(packet.len()) {
        return Err(StartupError::Length);
    }
    let (code, body) = packet
        .get(4..)
        .and_then(|rest| rest.split_first_chunk::<4>())
        .ok_or(StartupError::Length)?;
    match (*code, body.is_empty()) {
        (SSL_CODE, true) => Ok(FirstPacket::Ssl),
        (GSSENC_CODE, true) => Ok(FirstPacket::GssEnc),
        (CANCEL_CODE, _) => cancel(body).map(FirstPacket::Cancel),
        ([0, 3, high, low], _) => {
            startup(body, u16::from_be_bytes([high, low])).map(FirstPacket::Startup)
        }
        ([a, b, c, d], _) => Err(StartupError::Version {
            major: u16::from_be_bytes([a, b]),
            minor: u16::from_be_bytes([c, d]),
        }),
    }
}

/// Appends the `NegotiateProtocolVersion` that says what is spoken, and which options are not
/// known.
///
/// The number is the whole version and not only the minor part, as PostgreSQL itself sends it.
///
/// # Errors
/// [`TooLong`] if the client would not take it.
pub fn write_negotiation(
    out: &mut Vec<u8>,
    minor: Minor,
    unknown_options: &[String],
) -> Result<(), TooLong> {
    let version = MAJOR | i32::from(minor.0);
    let message = NegotiateProtocolVersion::new(version, unknown_options.to_vec());
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer).map_err(|_| TooLong)?;
    out.extend_from_slice(&buffer);
    Ok(())
}

fn cancel(body: &[u8]) -> Result<CancelKey, StartupError> {
    match body.split_first_chunk::<4>() {
        Some((pid, key)) if (4..=256).contains(&key.len()) => {
            Ok(CancelKey { pid: i32::from_be_bytes(*pid), key: key.into() })
        }
        Some(_) | None => Err(StartupError::Length),
    }
}

fn startup(body: &[u8], minor: u16) -> Result<Startup, StartupError> {
    let mut user = String::new();
    let mut database = String::new();
    let mut from_options = Vec::new();
    let mut settings = Vec::new();
    let mut unknown_options = Vec::new();
    let mut wanted = Replication::None;
    for (name, value) in pairs(body)? {
        let name = text(name, "name")?;
        if name == "application_name" {
            // A server replaces what is not ASCII in it anyway.
            settings.push((name, String::from_utf8_lossy(value).into_owned()));
            continue;
        }
        let value = text(value, &name)?;
        match name.as_str() {
            "user" => user = value,
            "database" => database = value,
            "options" => from_options = options(&value)?,
            "replication" => wanted = replication(value)?,
            _ if name.starts_with("_pq_.") => unknown_options.push(name),
            _ => settings.push((name, value)),
        }
    }
    if user.is_empty() {
        return Err(StartupError::NoUser);
    }
    let user = truncated(user);
    let database = if database.is_empty() { user.clone() } else { truncated(database) };
    // A server applies what `options` says first, so the same setting by name wins.
    from_options.append(&mut settings);
    let spoken = Minor::LATEST.min(Minor(minor));
    let negotiation = if spoken == Minor(minor) && unknown_options.is_empty() {
        Negotiation::Agreed
    } else {
        Negotiation::Offer { unknown_options }
    };
    let (settings, replication) = (from_options, wanted);
    Ok(Startup { user, database, settings, replication, minor: spoken, negotiation })
}

/// A parameter's name and value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The parameters: pairs of texts that each end with a zero, then one more zero.
fn pairs(body: &[u8]) -> Result<Vec<Pair<'_>>, StartupError> {
    let texts = body.strip_suffix(&[0]).ok_or(StartupError::Layout)?;
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let texts = texts.strip_suffix(&[0]).ok_or(StartupError::Layout)?;
    let mut pieces = texts.split(|byte| *byte == 0);
    let mut pairs = Vec::new();
    while let Some(name) = pieces.next() {
        match pieces.next() {
            Some(value) if !name.is_empty() => pairs.push((name, value)),
            Some(_) | None => return Err(StartupError::Layout),
        }
    }
    Ok(pairs)
}

fn text(bytes: &[u8], name: &str) -> Result<String, StartupError> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| StartupError::Encoding { name: name.to_owned() })
}

/// A name as the server will see it: cut to what fits into its catalogs.
fn truncated(mut name: String) -> String {
    if let Some(end) = (0..=NAME_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end))
    {
        name.truncate(end);
    }
    name
}

fn replication(value: String) -> Result<Replication, StartupError> {
    match value.to_ascii_lowercase().as_str() {
        "false" | "off" | "no" | "0" | "f" | "n" => Ok(Replication::None),
        "true" | "on" | "yes" | "1" | "t" | "y" => Ok(Replication::Physical),
        "database" => Ok(Replication::Database),
        _ => Err(StartupError::ReplicationValue { value }),
    }
}

/// The settings in `options`: `-c name=value`, `-cname=value` and `--name=value`, parted by
/// white space, which a backslash protects.
///
/// Source: `pg_split_opts` in `utils/init/postinit.c`, `ParseLongOption` in `utils/misc/guc.c`.
fn options(line: &str) -> Result<Vec<(String, String)>, StartupError> {
    let mut settings = Vec::new();
    let mut arguments = split(line).into_iter();
    while let Some(argument) = arguments.next() {
        let refused = || StartupError::Options { argument: argument.clone() };
        let setting = match argument.strip_prefix("--").or_else(|| argument.strip_prefix("-c")) {
            Some("") if argument == "-c" => arguments.next().ok_or_else(refused)?,
            Some(setting) => setting.to_owned(),
            None => return Err(refused()),
        };
        let (name, value) = setting.split_once('=').ok_or_else(refused)?;
        if name.is_empty() {
            return Err(refused());
        }
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split(line: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => current.get_or_insert_default().extend(letters.next()),
            space if is_space(space) => arguments.extend(current.take()),
            other => current.get_or_insert_default().push(other),
        }
    }
    arguments.extend(current);
    arguments
}

/// C's `isspace` in the C locale.
const fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C')
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "CancelKey({}, ***)", self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{write_cancel_request, write_startup};
    use proptest::prelude::*;

    fn packet(code: &[u8], body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(4 + code.len() + body.len()).unwrap();
        [&length.to_be_bytes(), code, body].concat()
    }

    fn started(params: &[(&str, &str)]) -> Result<Startup, StartupError> {
        let mut out = Vec::new();
        write_startup(&mut out, params).unwrap();
        let FirstPacket::Startup(startup) = read(&out)? else { panic!("no startup") };
        Ok(startup)
    }

    /// Whatever comes out, nothing broke.
    fn tried<T>(_outcome: T) {}

    #[test]
    fn the_four_kinds_are_told_apart() {
        assert_eq!(read(&crate::wire::message::SSL_REQUEST), Ok(FirstPacket::Ssl));
        assert_eq!(read(&packet(&GSSENC_CODE, b"")), Ok(FirstPacket::GssEnc));
        let mut out = Vec::new();
        write_cancel_request(&mut out, -5, b"abcd");
        let key = CancelKey { pid: -5, key: (*b"abcd").into() };
        assert!(!format!("{key:?}").contains("97"), "the key is a secret");
        assert_eq!(read(&out), Ok(FirstPacket::Cancel(key)));
        assert_eq!(started(&[("user", "alice")]).unwrap().database, "alice");
    }

    #[test]
    fn options_come_apart_and_names_win_over_them() {
        let startup = started(&[
            ("user", "u"),
            ("database", "d"),
            ("options", r"-c work_mem=1MB --search-path=a\ b,c  -cgeqo=off"),
            ("work_mem", "2MB"),
        ])
        .unwrap();
        let expected =
            [("work_mem", "1MB"), ("search_path", "a b,c"), ("geqo", "off"), ("work_mem", "2MB")];
        assert_eq!(startup.settings, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(startup.negotiation, Negotiation::Agreed);
    }

    #[test]
    fn options_that_are_no_settings_are_refused() {
        for options in ["-d 5", "work_mem=1MB", "-c", "-c work_mem", "--=1", "-"] {
            let refused = started(&[("user", "u"), ("options", options)]);
            assert!(matches!(refused, Err(StartupError::Options { .. })), "{options}");
        }
    }

    #[test]
    fn replication_is_a_boolean_or_a_databases() {
        let cases = [
            ("off", Some(Replication::None)),
            ("0", Some(Replication::None)),
            ("true", Some(Replication::Physical)),
            ("ON", Some(Replication::Physical)),
            ("1", Some(Replication::Physical)),
            ("database", Some(Replication::Database)),
            ("maybe", None),
            ("", None),
        ];
        for (value, expected) in cases {
            let startup = started(&[("user", "u"), ("replication", value)]);
            assert_eq!(startup.map(|startup| startup.replication).ok(), expected, "{value}");
        }
    }

    /// As PostgreSQL 18 does it.
    #[test]
    fn a_version_is_spoken_as_asked_or_the_latest_is_offered() {
        let (plain, fancy): (&[u8], &[u8]) = (b"user\0u\0\0", b"user\0u\0_pq_.fancy\0on\0\0");
        let offers = |minor: u8, names: &[u8]| Some([&[0, 3, 0, minor], names].concat());
        let (none, one) = (b"\0\0\0\0".as_slice(), b"\0\0\0\x01_pq_.fancy\0".as_slice());
        let cases = [
            ([0, 3, 0, 0], plain, 0, None),
            ([0, 3, 0, 0], fancy, 0, offers(0, one)),
            ([0, 3, 0, 1], plain, 1, None),
            ([0, 3, 0, 1], fancy, 1, offers(1, one)),
            ([0, 3, 0, 2], plain, 2, None),
            ([0, 3, 0, 2], fancy, 2, offers(2, one)),
            ([0, 3, 0, 3], plain, 2, offers(2, none)),
            ([0, 3, 0x27, 0x0F], fancy, 2, offers(2, one)),
            ([0, 3, 0xFF, 0xFF], plain, 2, offers(2, none)),
        ];
        for (version, body, spoken, offered) in cases {
            let FirstPacket::Startup(startup) = read(&packet(&version, body)).unwrap() else {
                panic!("no startup")
            };
            assert_eq!(startup.minor, Minor(spoken), "{version:?}");
            assert_eq!(startup.minor.has_long_keys(), spoken == 2, "{version:?}");
            let message = match startup.negotiation {
                Negotiation::Agreed => None,
                Negotiation::Offer { unknown_options } => {
                    let mut out = Vec::new();
                    write_negotiation(&mut out, startup.minor, &unknown_options).unwrap();
                    assert_eq!(out.first(), Some(&b'v'));
                    assert_eq!(size(&out[1..]), Ok(Some(out.len() - 1)));
                    Some(out[5..].to_vec())
                }
            };
            assert_eq!(message, offered, "{version:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases: [(Vec<u8>, StartupError); 10] = [
            (packet(&[0, 2, 0, 0], b""), StartupError::Version { major: 2, minor: 0 }),
            (packet(&[0, 4, 0, 1], b""), StartupError::Version { major: 4, minor: 1 }),
            (packet(&[0, 3, 0, 0], b""), StartupError::Layout),
            (packet(&[0, 3, 0, 0], b"user\0u"), StartupError::Layout),
            (packet(&[0, 3, 0, 0], b"user\0\0"), StartupError::Layout),
            (packet(&[0, 3, 0, 0], b"\0"), StartupError::NoUser),
            (
                packet(&[0, 3, 0, 0], b"user\0\xFF\0\0"),
                StartupError::Encoding { name: "user".into() },
            ),
            (b"GET / HTTP/1.1\r\n".to_vec(), StartupError::Length),
            (vec![0x16, 3, 1, 2, 0, 1], StartupError::DirectTls),
            (packet(&CANCEL_CODE, b"abcdef"), StartupError::Length),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(&bytes), Err(expected), "{bytes:?}");
        }
        assert_eq!(size(&[0, 0, 0x27, 0x14]), Ok(Some(10_004)));
        assert_eq!(size(&[0, 0, 0x27, 0x15]), Err(StartupError::Length));
        assert_eq!(size(&[0, 0, 0, 7]), Err(StartupError::Length));
        assert_eq!(size(&[0, 0, 0]), Ok(None));
    }

    #[test]
    fn a_name_is_cut_where_the_server_cuts_it() {
        let long = "é".repeat(40);
        let startup = started(&[("user", &long)]).unwrap();
        assert_eq!(startup.user, "é".repeat(31));
        assert_eq!(startup.database, startup.user);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..80)) {
            tried(size(&body));
            tried(read(&body));
            tried(read(&packet(&[0, 3, 0, 0], &body)));
            tried(read(&packet(&CANCEL_CODE, &body)));
        }

        #[test]
        fn any_options_are_read_or_refused(line in ".{0,60}") {
            tried(options(&line));
        }
    }
}
