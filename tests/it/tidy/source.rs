//! The house as text: its files, and Rust source with comments, strings or tests taken out.
//!
//! What is taken out leaves blanks and line breaks behind, so that places keep their line numbers.

use std::path::{Path, PathBuf};

/// One file, by its path from the root of the repository.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

/// Names that are no part of the repository, wherever they stand in a path.
const NOT_OURS: [&str; 4] = [".git", "target", "node_modules", ".venv"];

/// Every text file beneath `folder`, in the order of the paths.
pub(super) fn files_beneath(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).ok()?;
        let path = path.strip_prefix(root).ok()?.to_str()?.to_owned();
        Some(File { path, text })
    };
    paths.into_iter().filter_map(read).collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        let ours = entry.file_name().to_str().is_some_and(|name| !NOT_OURS.contains(&name));
        if kind.is_dir() && ours {
            collect(&entry.path(), into);
        } else if kind.is_file() && ours {
            into.push(entry.path());
        }
    }
}

/// Every file of Rust in the library, the binary and the tests.
pub(super) fn rust_files() -> Vec<File> {
    let mut files = files_beneath("src");
    files.extend(files_beneath("tests"));
    files.retain(|file| is_rust(&file.path));
    files
}

/// Whether a path is that of Rust.
pub(super) fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// Whether a path is that of a page.
pub(super) fn is_page(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "md")
}

/// One file, empty if it is not there.
pub(super) fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// The top module of a file in `src`: `wire` for `src/wire/frame.rs`.
pub(super) fn top_module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    Some(inside.split('/').next()?.trim_end_matches(".rs"))
}

/// What is blanked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Code alone.
    Code,
    /// Code and what stands in its strings.
    CodeAndStrings,
    /// Code and comments.
    CodeAndComments,
    /// What stands in strings alone.
    Strings,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Text,
}

/// The source with everything but `keep` blanked.
pub(super) fn only(keep: Keep, text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    for (at, part) in parts(&chars).into_iter().enumerate() {
        let kept = match part {
            Part::Code => keep != Keep::Strings,
            Part::Comment => keep == Keep::CodeAndComments,
            Part::Text => matches!(keep, Keep::CodeAndStrings | Keep::Strings),
        };
        out.push(if kept || chars[at] == '\n' { chars[at] } else { ' ' });
    }
    out
}

/// Which part of the source each character belongs to; quotes count as code.
fn parts(chars: &[char]) -> Vec<Part> {
    let mut parts = vec![Part::Code; chars.len()];
    let mut at = 0;
    while at < chars.len() {
        let (from, to, part) = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => (at, line_end(chars, at), Part::Comment),
            ('/', Some('*')) => (at, comment_end(chars, at), Part::Comment),
            ('"', _) => (at + 1, text_end(chars, at + 1), Part::Text),
            ('r', Some('"' | '#')) if !continues_a_word(chars, at) => match raw(chars, at) {
                Some((from, to)) => (from, to, Part::Text),
                None => (at, at, Part::Code),
            },
            ('\'', _) => match character_end(chars, at) {
                Some(to) => (at + 1, to, Part::Text),
                None => (at, at, Part::Code),
            },
            _ => (at, at, Part::Code),
        };
        let to = to.min(chars.len());
        parts[from.min(to)..to].fill(part);
        at = to.max(at) + usize::from(part != Part::Comment);
    }
    parts
}

fn line_end(chars: &[char], from: usize) -> usize {
    chars[from..].iter().position(|c| *c == '\n').map_or(chars.len(), |length| from + length)
}

fn comment_end(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_u32);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn text_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at
}

/// The inside of `r"..."`, `r#"..."#`.
fn raw(chars: &[char], at: usize) -> Option<(usize, usize)> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let from = at + 1 + hashes + 1;
    if chars.get(from - 1) != Some(&'"') {
        return None;
    }
    let ends = |end: usize| {
        chars[end] == '"'
            && chars
                .get(end + 1..=end + hashes)
                .is_some_and(|after| after.iter().all(|c| *c == '#'))
    };
    Some((from, (from..chars.len()).find(|end| ends(*end)).unwrap_or(chars.len())))
}

fn continues_a_word(chars: &[char], at: usize) -> bool {
    // `br"..."` is a raw string, too.
    let before = at.checked_sub(1).map(|before| chars[before]);
    before.is_some_and(|c| (c.is_alphanumeric() || c == '_') && c != 'b')
}

/// The end of a character, or `None` for a lifetime.
fn character_end(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        return chars[at + 2..].iter().skip(1).position(|c| *c == '\'').map(|end| at + 3 + end);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 2)
}

/// The source with every item behind `#[cfg(test)]` blanked. Give it code without strings.
pub(super) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(from) = out.find(MARK) {
        let to = item_end(&out, from + MARK.len());
        let blank: String =
            out[from..to].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(from..to, &blank);
    }
    out
}

fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_u32;
    for (at, sign) in code[from..].char_indices() {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (sign == ';' || sign == '}') && depth == 0 {
            return from + at + 1;
        }
    }
    code.len()
}

/// Whether a file of `src` is nothing but tests.
pub(super) fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The words of a text with the number of their line; `_` belongs to a word.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().zip(1..).flat_map(|(line, number)| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .map(move |word| (number, word))
    })
}

#[test]
fn comments_strings_and_tests_are_told_from_code() {
    let text = "use a; // use b\n/* /* c */ d */ let e = \"f // g\"; 'h' r#\"i\" j\"# &'k l\n\
                #[cfg(test)]\nmod m { fn n() { o } }\nfn p() {} '\\'' q b\"r\" '\"' s\n";

    assert_eq!(
        squeezed(&only(Keep::CodeAndComments, text)),
        squeezed(
            &text
                .replace("f // g", "")
                .replace("'h'", "''")
                .replace("i\" j", "")
                .replace("'\\''", "''")
                .replace("\"r\"", "\"\"")
                .replace("'\"'", "''")
        )
    );
    let code = only(Keep::Code, text);
    assert_eq!(code.lines().count(), text.lines().count());
    let left: Vec<_> = words(&code).map(|(_, word)| word).collect();
    let expected =
        ["use", "a", "let", "e", "r", "k", "l", "cfg", "test", "mod", "m", "fn", "n", "o"];
    assert_eq!(left[..expected.len()], expected);
    assert_eq!(left[expected.len()..], ["fn", "p", "q", "b", "s"]);
    let left = without_tests(&code);
    assert!(!left.contains('o') && left.contains('p'), "{left}");
    let strings = only(Keep::Strings, text);
    let strings: Vec<_> = words(&strings).map(|(_, word)| word).collect();
    assert_eq!(strings, ["f", "g", "h", "i", "j", "r"]);
}

/// The text without blanks.
fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
