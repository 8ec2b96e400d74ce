//! How a session's bytes are to be read as SQL.

/// The two settings of a session that change what its bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Dialect {
    /// From `client_encoding`.
    pub encoding: Encoding,
    /// From `standard_conforming_strings`.
    pub strings: Strings,
}

/// What bytes from 0x80 up can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// UTF-8.
    #[default]
    Utf8,
    /// Bytes below 0x80 are always ASCII (LATIN1, WIN1252, EUC, `SQL_ASCII`, ...): the rest can
    /// be blanked out without moving a quote.
    AsciiSafe,
    /// A byte below 0x80 may be the tail of a character, so that a backslash or a bar may be
    /// none (SJIS, BIG5, GBK, UHC, GB18030, JOHAB, and whatever we don't know): not parsed.
    Unsafe,
}

/// What a backslash in `'...'` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strings {
    /// A backslash: `standard_conforming_strings = on`.
    #[default]
    Standard,
    /// The start of an escape: off. Not parsed.
    Escaping,
}

impl Dialect {
    /// The dialect of a session with this `client_encoding`, as the server reports it.
    pub fn from_encoding_name(client_encoding: &str) -> Self {
        Self { encoding: Encoding::from_name(client_encoding), strings: Strings::Standard }
    }

    /// The same with what the server reports for `standard_conforming_strings`.
    #[must_use]
    pub fn with_standard_conforming_strings(self, reported: &str) -> Self {
        let strings = if reported == "on" { Strings::Standard } else { Strings::Escaping };
        Self { strings, ..self }
    }
}

impl Encoding {
    /// Reads an encoding's name as PostgreSQL does: case and everything but letters and digits
    /// don't count. An unknown name is `Unsafe`.
    ///
    /// Source: PostgreSQL manual, 24.3.1 "Supported Character Sets"; `clean_encoding_name` in
    /// `common/encnames.c`.
    pub fn from_name(name: &str) -> Self {
        let clean: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|letter| letter.to_ascii_lowercase())
            .collect();
        if clean == "utf8" || clean == "unicode" {
            Self::Utf8
        } else if ASCII_SAFE.contains(&clean.as_str()) {
            Self::AsciiSafe
        } else {
            Self::Unsafe
        }
    }
}

/// Every encoding whose multi-byte characters, if it has any, hold no byte below 0x80.
const ASCII_SAFE: &[&str] = &[
    "sqlascii",
    "abc",
    "alt",
    "euccn",
    "eucjp",
    "eucjis2004",
    "euckr",
    "euctw",
    "iso88591",
    "iso885910",
    "iso885913",
    "iso885914",
    "iso885915",
    "iso885916",
    "iso88592",
    "iso88593",
    "iso88594",
    "iso88595",
    "iso88596",
    "iso88597",
    "iso88598",
    "iso88599",
    "koi8",
    "koi8r",
    "koi8u",
    "latin1",
    "latin10",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "muleinternal",
    "tcvn",
    "tcvn5712",
    "vscii",
    "win",
    "win1250",
    "win1251",
    "win1252",
    "win1253",
    "win1254",
    "win1255",
    "win1256",
    "win1257",
    "win1258",
    "win866",
    "win874",
    "windows1250",
    "windows1251",
    "windows1252",
    "windows1253",
    "windows1254",
    "windows1255",
    "windows1256",
    "windows1257",
    "windows1258",
    "windows866",
    "windows874",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_sorted_by_what_a_tail_byte_can_be() {
        for name in ["UTF8", "utf-8", "Unicode"] {
            assert_eq!(Encoding::from_name(name), Encoding::Utf8, "{name}");
        }
        for name in ["LATIN1", "SQL_ASCII", "WIN1252", "EUC_JP", "ISO-8859-15", "windows-1250"] {
            assert_eq!(Encoding::from_name(name), Encoding::AsciiSafe, "{name}");
        }
        for name in ["SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SHIFT_JIS_2004", "", "x"] {
            assert_eq!(Encoding::from_name(name), Encoding::Unsafe, "{name}");
        }
    }
}
