//! Lines, fields and words of `pg_hba.conf`.
//!
//! Fields are parted by white space, the words of a field by commas. A word in double quotes is
//! taken as it is: no keyword, no comma, no comment. A line that ends with a backslash goes on in
//! the next one.
//!
//! Source: `next_token` and `tokenize_auth_file` in `libpq/hba.c`.

/// A word, and whether it was quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) quoted: Quoted,
}

/// Whether a word's beginning was quoted: then it means nothing special.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoted {
    Yes,
    No,
}

/// A field: words that were parted by commas.
pub(super) type Field = Vec<Word>;

/// A line that says something.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, from 1.
    pub(super) number: usize,
    pub(super) fields: Vec<Field>,
    /// Whether a quote is open at its end.
    pub(super) unclosed: bool,
}

impl Word {
    /// Whether it is this keyword, which a quoted word never is.
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.quoted == Quoted::No && self.text == keyword
    }
}

/// The lines of a text that say something.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let mut found = Vec::new();
    let mut numbered = (1..).zip(text.lines());
    while let Some((number, line)) = numbered.next() {
        let mut whole = line.to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            let Some((_, next)) = numbered.next() else { break };
            whole.push_str(next);
        }
        let line = fields(number, &whole);
        if !line.fields.is_empty() || line.unclosed {
            found.push(line);
        }
    }
    found
}

/// A word that is being read.
struct Open {
    text: String,
    quoted: Quoted,
}

fn fields(number: usize, line: &str) -> Line {
    let mut line_read = Line { number, fields: Vec::new(), unclosed: false };
    let mut field: Field = Vec::new();
    let mut word: Option<Open> = None;
    // A comma promises another word, white space in between or not.
    let mut goes_on = false;
    let mut in_quotes = false;
    for letter in line.chars() {
        match letter {
            '"' => {
                in_quotes = !in_quotes;
                word.get_or_insert(Open { text: String::new(), quoted: Quoted::Yes });
            }
            _ if in_quotes => {
                if let Some(open) = &mut word {
                    open.text.push(letter);
                }
            }
            '#' => break,
            ',' => {
                field.extend(word.take().map(closed));
                goes_on = true;
            }
            space if space.is_ascii_whitespace() => {
                if let Some(open) = word.take() {
                    field.push(closed(open));
                    goes_on = false;
                }
                if !goes_on && !field.is_empty() {
                    line_read.fields.push(std::mem::take(&mut field));
                }
            }
            other => {
                if word.is_none() && !goes_on && !field.is_empty() {
                    line_read.fields.push(std::mem::take(&mut field));
                }
                let open = word.get_or_insert(Open { text: String::new(), quoted: Quoted::No });
                open.text.push(other);
                goes_on = false;
            }
        }
    }
    field.extend(word.map(closed));
    if !field.is_empty() {
        line_read.fields.push(field);
    }
    line_read.unclosed = in_quotes;
    line_read
}

fn closed(open: Open) -> Word {
    Word { text: open.text, quoted: open.quoted }
}
