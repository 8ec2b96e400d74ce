//! The password file: `host:port:database:user:password` a line, `*` for anything.
//!
//! Source: PostgreSQL manual, 34.16 "The Password File"; `passwordFromFile` in `fe-connect.c`.

use crate::backend::Secret;
use crate::config::hosts::Address;

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'w> {
    pub(super) address: &'w Address,
    pub(super) database: &'w str,
    pub(super) user: &'w str,
}

/// The password of the first line that fits.
pub(super) fn find(file: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    file.lines().find_map(|line| password(line, wanted))
}

fn password(line: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    if line.starts_with('#') {
        return None;
    }
    let fields = fields(line);
    let [host, port, database, user, password] = fields.as_slice() else {
        return None;
    };
    let Address { host: address, port: number } = wanted.address;
    // libpq looks up its default socket directory as `localhost`.
    let local = ["/tmp", "/var/run/postgresql", "/run/postgresql"].contains(&address.as_str());
    let host_fits = fits(host, address) || (local && fits(host, "localhost"));
    let rest_fits = fits(port, &number.to_string())
        && fits(database, wanted.database)
        && fits(user, wanted.user);
    (host_fits && rest_fits && !password.text.is_empty())
        .then(|| Secret::new(password.text.clone()))
}

/// One field, and whether it was the bare `*`.
#[derive(Debug, Default)]
struct Field {
    text: String,
    escaped: bool,
}

fn fits(field: &Field, value: &str) -> bool {
    (field.text == "*" && !field.escaped) || field.text == value
}

/// Splits at the first four colons; a backslash takes the sign behind it literally.
fn fields(line: &str) -> Vec<Field> {
    let mut fields = vec![Field::default()];
    let mut signs = line.chars();
    while let Some(sign) = signs.next() {
        let last = fields.len() == 5;
        if sign == ':' && !last {
            fields.push(Field::default());
            continue;
        }
        if let Some(field) = fields.last_mut() {
            if sign == '\\' {
                field.escaped = true;
                field.text.extend(signs.next());
            } else {
                field.text.push(sign);
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n\
        db1:5432:postgres:watch:one\n\
        *:*:*:a\\:b:tw\\:o\n\
        localhost:*:*:watch:socket\n\
        broken line\n\
        *:*:*:watch:any:thing\n";

    fn look(host: &str, port: u16, user: &str) -> Option<String> {
        let address = Address { host: host.to_owned(), port };
        let wanted = Wanted { address: &address, database: "postgres", user };
        find(FILE, &wanted).map(|secret| secret.reveal().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        assert_eq!(look("db1", 5432, "watch").as_deref(), Some("one"));
        assert_eq!(look("db1", 5433, "watch").as_deref(), Some("any:thing"));
        assert_eq!(look("/tmp", 5433, "watch").as_deref(), Some("socket"));
        assert_eq!(look("db1", 1, "a:b").as_deref(), Some("tw:o"));
        assert_eq!(look("db1", 1, "nobody"), None);
    }
}
