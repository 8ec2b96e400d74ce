//! From words to rules; every mistake with its line, the word, and what to write instead.

use super::token::{Field, Line, Quoted, Word, lines};
use super::{Address, Certificate, Connection, Name, Rule, RuleMethod, masked};
use regex::{Regex, RegexBuilder};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most memory that one pattern may take once it is compiled, in bytes.
const PATTERN_MAX: usize = 1 << 20;

/// A line that is no rule of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
    /// What to write instead; empty if that is plain.
    pub remedy: String,
}

impl fmt::Display for RuleError {
    /// `line: what`, to be put behind the name of a file and a colon.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.line, self.what)
    }
}

/// Why a line is none of ours, before it is known which.
struct Wrong {
    what: String,
    remedy: String,
}

fn wrong<T>(what: impl Into<String>, remedy: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { what: what.into(), remedy: remedy.into() })
}

pub(super) fn rules(text: &str) -> Result<Vec<Rule>, Vec<RuleError>> {
    let mut rules = Vec::new();
    let mut errors = Vec::new();
    for line in lines(text) {
        match rule(&line) {
            Ok(rule) => rules.push(rule),
            Err(Wrong { what, remedy }) => {
                errors.push(RuleError { line: line.number, what, remedy });
            }
        }
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

fn rule(line: &Line) -> Result<Rule, Wrong> {
    if line.unclosed {
        return wrong("a quote is not closed", "a name ends on the line where it begins");
    }
    let mut fields = line.fields.iter();
    let connection = connection(one(fields.next(), "the type of connection")?)?;
    let databases = each(fields.next(), "a database", database)?;
    let users = each(fields.next(), "a user", user)?;
    let address = match connection {
        Connection::Local => None,
        Connection::Host | Connection::HostSsl | Connection::HostNoSsl => {
            let written = one(fields.next(), "an address")?;
            // A mask stands in a field of its own behind an address without a length.
            let bare = !written.text.contains('/') && written.text.parse::<IpAddr>().is_ok();
            let mask = if bare { Some(one(fields.next(), "a mask")?) } else { None };
            Some(addresses(written, mask)?)
        }
    };
    let method = method(one(fields.next(), "a method")?)?;
    let mut certificate = Certificate::NotNeeded;
    for option in fields {
        certificate = clientcert(one(Some(option), "an option")?, (connection, method))?;
    }
    match (method, connection) {
        (RuleMethod::Cert, Connection::Local | Connection::Host | Connection::HostNoSsl) => {
            wrong("`cert` needs a connection with TLS", "begin the line with hostssl")
        }
        (RuleMethod::Peer, Connection::Host | Connection::HostSsl | Connection::HostNoSsl) => {
            wrong("`peer` is for socket files", "begin the line with local")
        }
        _ => Ok(Rule {
            line: line.number,
            method,
            certificate,
            connection,
            databases,
            users,
            address,
        }),
    }
}

/// The only word of a field.
fn one<'f>(field: Option<&'f Field>, what: &str) -> Result<&'f Word, Wrong> {
    const SHAPE: &str = "a line is: TYPE DATABASE USER [ADDRESS] METHOD [OPTION]";
    match field.map(Vec::as_slice) {
        Some([word]) => Ok(word),
        Some([first, ..]) => wrong(format!("more than {what} from `{}` on", first.text), SHAPE),
        Some([]) | None => wrong(format!("{what} is missing"), SHAPE),
    }
}

/// The words of a field, each read as one name.
fn each(
    field: Option<&Field>,
    what: &str,
    read: fn(&Word) -> Result<Name, Wrong>,
) -> Result<Vec<Name>, Wrong> {
    match field {
        Some(words) => words.iter().map(read).collect(),
        None => one(None, what).map(|_| Vec::new()),
    }
}

fn connection(word: &Word) -> Result<Connection, Wrong> {
    match word.text.as_str() {
        "local" => Ok(Connection::Local),
        // There is no encryption by GSSAPI here, so who has none of it is everybody.
        "host" | "hostnogssenc" => Ok(Connection::Host),
        "hostssl" => Ok(Connection::HostSsl),
        "hostnossl" => Ok(Connection::HostNoSsl),
        "hostgssenc" => wrong("`hostgssenc`: there is no GSSAPI encryption", "write hostssl"),
        "include" | "include_if_exists" | "include_dir" => wrong(
            format!("`{}`: other files are not read from here", word.text),
            "put their lines into this file",
        ),
        other => wrong(
            format!("`{other}` is no type of connection"),
            "one of: local, host, hostssl, hostnossl",
        ),
    }
}

fn database(word: &Word) -> Result<Name, Wrong> {
    if word.is("samerole") || word.is("samegroup") {
        let what = format!("`{}`: who is a member of what is not known here", word.text);
        return wrong(what, "name the databases, or use sameuser or a pattern: /^app_");
    }
    if word.is("sameuser") {
        return Ok(Name::SameUser);
    }
    if word.is("replication") {
        return Ok(Name::Replication);
    }
    name(word)
}

fn user(word: &Word) -> Result<Name, Wrong> {
    if word.text.starts_with('+') && word.quoted == Quoted::No {
        let what = format!("`{}`: who is a member of what is not known here", word.text);
        return wrong(what, "name the users, or use a pattern: /^app_");
    }
    name(word)
}

fn name(word: &Word) -> Result<Name, Wrong> {
    // A pattern is one also in quotes, or none could have a comma.
    if let Some(pattern) = word.text.strip_prefix('/') {
        return compiled(pattern).map(Name::Like);
    }
    if word.quoted == Quoted::Yes {
        return Ok(Name::Is(word.text.clone()));
    }
    if word.text == "all" {
        return Ok(Name::All);
    }
    if word.text.starts_with('@') {
        let what = format!("`{}`: other files are not read from here", word.text);
        return wrong(what, "put the names into this line, or quote a name that begins with @");
    }
    Ok(Name::Is(word.text.clone()))
}

fn compiled(pattern: &str) -> Result<Regex, Wrong> {
    let built = RegexBuilder::new(pattern).size_limit(PATTERN_MAX).build();
    built.or_else(|_| {
        let what = format!("`/{pattern}` is no pattern that is understood");
        wrong(what, "a pattern that has a comma or a space is quoted as a whole: \"/...\"")
    })
}

fn addresses(word: &Word, mask: Option<&Word>) -> Result<Address, Wrong> {
    let written = word.text.as_str();
    if word.is("all") {
        return Ok(Address::All);
    }
    if word.is("samehost") {
        return Ok(Address::SameHost);
    }
    if word.is("samenet") {
        return wrong("`samenet`: the networks of this machine are not asked for", "name them");
    }
    let (address, length) = match written.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (written, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return wrong(
            format!("`{written}` is no address; names of hosts are not looked up"),
            "write all, samehost, or an address and its length: 10.0.0.0/8, ::1/128",
        );
    };
    let mask = match (length, mask) {
        (Some(length), _) => of_length(address, length),
        (None, Some(mask)) => mask.text.parse().ok().filter(|mask| is_mask(*mask)),
        (None, None) => None,
    };
    let network = mask.and_then(|mask| Some((masked(address, mask)?, mask)));
    match (network, length) {
        (Some((network, mask)), _) => Ok(Address::Network { address: network, mask }),
        (None, Some(length)) => {
            let what = format!("`{length}` is no length for the address {address}");
            wrong(what, "at most 32 for IPv4, and 128 for IPv6")
        }
        (None, None) => wrong(
            format!("behind the address {address} stands neither a length nor a mask"),
            format!("write {address}/{}", if address.is_ipv4() { "32" } else { "128" }),
        ),
    }
}

/// The mask of so many bits.
fn of_length(address: IpAddr, length: &str) -> Option<IpAddr> {
    let length: u32 = length.parse().ok()?;
    match address {
        IpAddr::V4(_) if length <= u32::BITS => {
            let bits = u32::MAX.checked_shl(u32::BITS - length).unwrap_or(0);
            Some(IpAddr::V4(Ipv4Addr::from(bits)))
        }
        IpAddr::V6(_) if length <= u128::BITS => {
            let bits = u128::MAX.checked_shl(u128::BITS - length).unwrap_or(0);
            Some(IpAddr::V6(Ipv6Addr::from(bits)))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Whether it is ones and then zeros: anything else is an address in a mask's place.
fn is_mask(mask: IpAddr) -> bool {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones() + mask.to_bits().trailing_zeros() >= 32,
        IpAddr::V6(mask) => mask.to_bits().leading_ones() + mask.to_bits().trailing_zeros() >= 128,
    }
}

fn method(word: &Word) -> Result<RuleMethod, Wrong> {
    const OURS: &str = "one of: trust, reject, scram-sha-256, md5, cert, peer";
    match word.text.as_str() {
        "trust" => Ok(RuleMethod::Trust),
        "reject" => Ok(RuleMethod::Reject),
        "scram-sha-256" => Ok(RuleMethod::ScramSha256),
        "md5" => Ok(RuleMethod::Md5),
        "cert" => Ok(RuleMethod::Cert),
        "peer" => Ok(RuleMethod::Peer),
        "password" => wrong(
            "`password` would have clients send their passwords",
            "write scram-sha-256: clients notice no difference",
        ),
        other @ ("ident" | "gss" | "sspi" | "ldap" | "radius" | "pam" | "bsd" | "oauth") => {
            wrong(format!("the method `{other}` is not supported"), OURS)
        }
        other => wrong(format!("`{other}` is no method"), OURS),
    }
}

fn clientcert(
    word: &Word,
    (connection, method): (Connection, RuleMethod),
) -> Result<Certificate, Wrong> {
    match word.text.split_once('=') {
        Some(("clientcert", _)) if connection != Connection::HostSsl => {
            wrong("`clientcert` needs a connection with TLS", "begin the line with hostssl")
        }
        Some(("clientcert", "verify-full")) => Ok(Certificate::OfTheUser),
        Some(("clientcert", "verify-ca")) if method == RuleMethod::Cert => wrong(
            "`cert` looks at the name, too: clientcert=verify-ca contradicts it",
            "leave the option out",
        ),
        Some(("clientcert", "verify-ca")) => Ok(Certificate::Verified),
        Some(("clientcert", other)) => {
            wrong(format!("`{other}` is no value of clientcert"), "one of: verify-ca, verify-full")
        }
        Some(("map", _)) => wrong(
            "`map`: names are not mapped to others here",
            "give the certificate or the user of the system the name of the role",
        ),
        Some(("clientname", "CN")) => Ok(Certificate::NotNeeded),
        Some(_) | None => {
            let what = format!("the option `{}` is not supported", word.text);
            wrong(what, "the only one is clientcert=verify-ca or verify-full")
        }
    }
}
