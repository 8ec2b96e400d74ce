//! What is never given to the parser, because it would stall every client of a shard.
//!
//! Each limit is checked without looking at quotes: so nothing can hide behind them, and a text
//! that only looks dangerous goes to the primary.

use super::NeedsPrimary;

/// Longest text that is parsed, in bytes: about 2 ms of parsing.
pub(super) const MAX_PARSED: usize = 64 * 1024;

/// Deepest nesting of comments that is parsed. PostgreSQL's lexer takes quadratic time in it:
/// 16,000 openers took 8.5 s.
pub(super) const MAX_COMMENT_DEPTH: u32 = 32;

/// Longest run of operator characters that is parsed. PostgreSQL's lexer reads such a run to its
/// end for every token in it: 62 kB of `+-+-` took 1.7 s. No operator has more than 63.
///
/// Source: the rule for `{operator}` and that for `{xcstart}` in `parser/scan.l`.
pub(super) const MAX_OPERATOR_RUN: usize = 256;

/// Refuses texts that are too long to be parsed between two packets, or nested to stall.
pub(super) fn check(sql: &[u8]) -> Result<(), NeedsPrimary> {
    if sql.len() > MAX_PARSED {
        return Err(NeedsPrimary::TooLong);
    }
    if sql.contains(&0) {
        return Err(NeedsPrimary::Unparsed);
    }
    let stalls = comment_depth(sql) > MAX_COMMENT_DEPTH || longest_run(sql) > MAX_OPERATOR_RUN;
    if stalls { Err(NeedsPrimary::TooDeep) } else { Ok(()) }
}

/// The longest run of operator characters, in quotes or not.
fn longest_run(sql: &[u8]) -> usize {
    let (mut run, mut longest) = (0, 0);
    for byte in sql {
        run = if is_operator_character(*byte) { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// `op_chars` in `parser/scan.l`. Asked of each byte: a search through a list takes a tenth of all
/// that a new text costs, or a twentieth, as the compiler likes.
const fn is_operator_character(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}

/// An upper bound, less one, of how deep comments are nested.
///
/// Quotes aren't looked at, so nothing in them can hide an opener: outside a comment the count
/// only starts too high; in a comment it moves as the lexer's own does. Where the count started
/// too high, `*/*` may be taken for an end and then a star where the lexer sees a beginning;
/// that is the one by which the count can fall short.
fn comment_depth(sql: &[u8]) -> u32 {
    let (mut depth, mut deepest) = (0_u32, 0_u32);
    let mut rest = sql;
    loop {
        rest = match rest {
            [b'/', b'*', tail @ ..] => {
                depth += 1;
                deepest = deepest.max(depth);
                tail
            }
            [b'*', b'/', tail @ ..] if depth > 0 => {
                depth -= 1;
                tail
            }
            [_, tail @ ..] => tail,
            [] => return deepest,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_operator_characters_are_bounded() {
        let text = |run: &str, times| format!("SELECT 1 {} 1", run.repeat(times));
        for run in ["+-", "/**/", "@", "+"] {
            let times = MAX_OPERATOR_RUN / run.len();
            assert_eq!(check(text(run, times).as_bytes()), Ok(()), "{run}");
            assert_eq!(check(text(run, times + 1).as_bytes()), Err(NeedsPrimary::TooDeep), "{run}");
            assert_eq!(check(text(&format!("{run} "), 1_000).as_bytes()), Ok(()), "{run}");
        }
    }

    #[test]
    fn nesting_is_counted_whatever_is_quoted() {
        let cases: &[(&str, u32)] = &[
            ("SELECT 1", 0),
            ("/* a */ SELECT 1 /* b */", 1),
            ("/* /* /* */ */ */", 3),
            ("SELECT 2*/*x*/3", 1),
            ("SELECT '/*', '/*'", 2),
            ("*/*/*", 2),
        ];
        for (text, depth) in cases {
            assert_eq!(comment_depth(text.as_bytes()), *depth, "{text}");
        }
    }
}
