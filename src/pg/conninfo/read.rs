//! From the text to keywords and values.

use super::{Conninfo, InvalidConninfo};

/// What libpq takes for a URI.
const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

impl Conninfo {
    /// Reads either form.
    ///
    /// # Errors
    /// [`InvalidConninfo`], where libpq would refuse it, too.
    pub fn parse(text: &str) -> Result<Self, InvalidConninfo> {
        match SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) {
            Some(rest) => uri(rest),
            None => keywords(text),
        }
    }

    /// The last mention of a keyword counts.
    fn store(&mut self, keyword: &str, value: String) -> Result<(), InvalidConninfo> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if keyword.is_empty() || !keyword.bytes().all(plain) {
            return Err(InvalidConninfo::Keyword);
        }
        self.pairs.retain(|(known, _)| known != keyword);
        self.pairs.push((keyword.to_owned(), value));
        Ok(())
    }
}

fn keywords(text: &str) -> Result<Conninfo, InvalidConninfo> {
    let mut read = Conninfo::default();
    let mut rest = skip_spaces(text);
    while !rest.is_empty() {
        let end = rest.find(|sign| sign == '=' || is_space(sign)).unwrap_or(rest.len());
        let (keyword, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let behind = skip_spaces(behind).strip_prefix('=').ok_or(InvalidConninfo::NoValue)?;
        let behind = skip_spaces(behind);
        let (value, behind) = match behind.strip_prefix('\'') {
            Some(quoted) => quoted_value(quoted)?,
            None => plain_value(behind),
        };
        read.store(keyword, value)?;
        rest = skip_spaces(behind);
    }
    Ok(read)
}

/// A value up to the next space; a backslash takes the next sign as it is.
fn plain_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '\\' => value.extend(signs.next().map(|(_, sign)| sign)),
            _ if is_space(sign) => return (value, text.get(at..).unwrap_or_default()),
            _ => value.push(sign),
        }
    }
    (value, "")
}

/// A value up to the quote that ends it; the first one is gone already.
fn quoted_value(text: &str) -> Result<(String, &str), InvalidConninfo> {
    let mut value = String::new();
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '\\' => value.extend(signs.next().map(|(_, sign)| sign)),
            '\'' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            _ => value.push(sign),
        }
    }
    Err(InvalidConninfo::Unterminated)
}

fn skip_spaces(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// C's `isspace` in the locale that servers run libpq in.
const fn is_space(sign: char) -> bool {
    matches!(sign, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// What stands behind the scheme: `[user[:password]@][host[:port],...][/dbname][?key=value&...]`.
fn uri(text: &str) -> Result<Conninfo, InvalidConninfo> {
    let mut read = Conninfo::default();
    let mut rest = text;
    let (before, from) = until(text, &['@', '/']);
    if let Some(behind) = from.strip_prefix('@') {
        let credentials = before;
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        for (keyword, value) in [("user", user), ("password", password)] {
            if !value.is_empty() {
                read.store(keyword, decode(value)?)?;
            }
        }
        rest = behind;
    }
    let rest = addresses(rest, &mut read)?;
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    if let Some(database) = path.strip_prefix('/').filter(|name| !name.is_empty()) {
        read.store("dbname", decode(database)?)?;
    }
    if let Some(query) = query {
        parameters(query, &mut read)?;
    }
    Ok(read)
}

/// Hosts and ports; returns what stands behind them.
fn addresses<'t>(text: &'t str, read: &mut Conninfo) -> Result<&'t str, InvalidConninfo> {
    let (mut hosts, mut ports) = (String::new(), String::new());
    let mut rest = text;
    loop {
        let (host, behind) = match rest.strip_prefix('[') {
            Some(inside) => {
                let (host, behind) =
                    inside.split_once(']').filter(|(host, _)| !host.is_empty()).ok_or(BRACKETS)?;
                if !behind.is_empty() && !behind.starts_with([':', '/', '?', ',']) {
                    return Err(BRACKETS);
                }
                (host, behind)
            }
            None => until(rest, &[':', '/', '?', ',']),
        };
        hosts.push_str(host);
        rest = behind;
        if let Some(behind) = rest.strip_prefix(':') {
            let (port, behind) = until(behind, &['/', '?', ',']);
            ports.push_str(port);
            rest = behind;
        }
        let Some(next) = rest.strip_prefix(',') else { break };
        hosts.push(',');
        ports.push(',');
        rest = next;
    }
    for (keyword, value) in [("host", hosts), ("port", ports)] {
        if !value.is_empty() {
            read.store(keyword, decode(&value)?)?;
        }
    }
    Ok(rest)
}

const BRACKETS: InvalidConninfo = InvalidConninfo::Brackets;

/// `key=value&key=value`.
fn parameters(query: &str, read: &mut Conninfo) -> Result<(), InvalidConninfo> {
    for parameter in query.split_terminator('&') {
        let (keyword, value) = parameter.split_once('=').ok_or(InvalidConninfo::NoValue)?;
        if value.contains('=') {
            return Err(InvalidConninfo::NoValue);
        }
        let (keyword, value) = (decode(keyword)?, decode(value)?);
        // As JDBC's URIs have it.
        if keyword == "ssl" && value == "true" {
            read.store("sslmode", "require".to_owned())?;
        } else {
            read.store(&keyword, value)?;
        }
    }
    Ok(())
}

/// The text up to the first of these signs, and the rest with it.
fn until<'t>(text: &'t str, signs: &[char]) -> (&'t str, &'t str) {
    text.split_at_checked(text.find(signs).unwrap_or(text.len())).unwrap_or((text, ""))
}

fn decode(text: &str) -> Result<String, InvalidConninfo> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(InvalidConninfo::Percent);
        };
        let decoded = u8::try_from(high * 16 + low).unwrap_or_default();
        if decoded == 0 {
            return Err(InvalidConninfo::Percent);
        }
        bytes.push(decoded);
    }
    String::from_utf8(bytes).map_err(|_| InvalidConninfo::Percent)
}
