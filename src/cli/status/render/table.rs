//! The servers, a line each, in as many columns as there is room for.
//!
//! On a narrow terminal columns are left out before anything is broken over two lines, the ones
//! first that say least; a wide one shows more. What is not known is `?`, never 0.

use crate::admin::ServerReport;
use crate::cli::status::render::{Glyphs, Style, mark, state};
use crate::cli::status::tree::Leaf;
use crate::cli::status::words::{bytes, seconds};

/// What is told of each server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Server,
    Role,
    State,
    Timeline,
    Lsn,
    LagBytes,
    LagTime,
    Sessions,
    Weight,
    Version,
}

/// What everybody is shown, in this order.
const USUAL: [Column; 8] = [
    Column::Server,
    Column::Role,
    Column::State,
    Column::Timeline,
    Column::Lsn,
    Column::LagBytes,
    Column::LagTime,
    Column::Sessions,
];

/// What a wide terminal shows as well.
const MORE: [Column; 2] = [Column::Weight, Column::Version];

/// From so many columns on a terminal is wide.
const WIDE: usize = 120;

/// What goes where there is no room, in this order; then names are shortened.
const GOES: [Column; 4] = [Column::Version, Column::Weight, Column::Lsn, Column::Timeline];

/// What goes if that was not enough.
const GOES_LAST: [Column; 2] = [Column::Role, Column::Sessions];

/// Least that is left of a name, in characters.
const NAME_MIN: usize = 16;

/// The table of a report.
pub(super) fn table(leaves: &[Leaf<'_>], style: Style) -> Vec<String> {
    let room = style.columns.unwrap_or(usize::MAX);
    let mut shown = USUAL.to_vec();
    if style.columns.is_some_and(|columns| columns >= WIDE) {
        shown.extend(MORE);
    }
    let too_wide = |shown: &[Column]| width(&rows(leaves, shown)) > room;
    for goes in GOES {
        if too_wide(&shown) {
            shown.retain(|column| *column != goes);
        }
    }
    let mut going = GOES_LAST.iter();
    loop {
        let mut rows = rows(leaves, &shown);
        shorten(&mut rows, leaves, room, style.glyphs);
        if width(&rows) > room
            && let Some(goes) = going.next()
        {
            shown.retain(|column| column != goes);
            continue;
        }
        return lines(&rows, leaves, &shown, style);
    }
}

/// The head and the servers, cell by cell.
fn rows(leaves: &[Leaf<'_>], shown: &[Column]) -> Vec<Vec<String>> {
    let head = shown.iter().map(|column| column.head().to_owned()).collect();
    let of = |leaf: &Leaf<'_>| shown.iter().map(|column| column.cell(leaf)).collect();
    std::iter::once(head).chain(leaves.iter().map(of)).collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// How wide each column is.
fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| length(cell)).max().unwrap_or(0)
    };
    (0..columns).map(width).collect()
}

/// How wide the table is: two spaces before each column.
fn width(rows: &[Vec<String>]) -> usize {
    widths(rows).iter().map(|width| width + 2).sum()
}

/// Takes the middle out of names, as far as the room asks for it.
fn shorten(rows: &mut [Vec<String>], leaves: &[Leaf<'_>], room: usize, glyphs: Glyphs) {
    let excess = width(rows).saturating_sub(room);
    if excess == 0 {
        return;
    }
    let widest = widths(rows).first().copied().unwrap_or(0);
    let cells = rows.iter_mut().skip(1).filter_map(|row| row.first_mut());
    for (cell, leaf) in cells.zip(leaves) {
        let name = leaf.server.name.as_str();
        let before = length(cell) - length(name);
        let most = widest.saturating_sub(excess + before).max(NAME_MIN);
        if length(name) > most {
            let front = most / 2;
            let back = length(name) - (most - front - 1);
            let start = cell.chars().take(before + front);
            let end = name.chars().skip(back);
            *cell = start.chain([glyphs.gap()]).chain(end).collect();
        }
    }
}

fn lines(rows: &[Vec<String>], leaves: &[Leaf<'_>], shown: &[Column], style: Style) -> Vec<String> {
    let widths = widths(rows);
    let marks =
        std::iter::once(None).chain(leaves.iter().map(|leaf| Some(mark(leaf.server.state))));
    let lines = rows.iter().zip(marks).map(|(row, mark)| {
        let mut line = String::new();
        for ((cell, width), column) in row.iter().zip(&widths).zip(shown) {
            line.push_str("  ");
            line.push_str(&column.pad(cell, *width));
        }
        let line = line.trim_end().to_owned();
        // The sign is put in last: what colours it has no width.
        match mark {
            Some(mark) => line.replacen(SIGN, &style.mark(mark), 1),
            None => line,
        }
    });
    lines.collect()
}

/// Stands for a server's sign while columns are measured; no name can hold it.
const SIGN: char = '\u{1}';

impl Column {
    const fn head(self) -> &'static str {
        match self {
            Self::Server => "SERVER",
            Self::Role => "ROLE",
            Self::State => "STATE",
            Self::Timeline => "TL",
            Self::Lsn => "LSN",
            Self::LagBytes => "LAG",
            Self::LagTime => "",
            Self::Sessions => "SESSIONS",
            Self::Weight => "WEIGHT",
            Self::Version => "VERSION",
        }
    }

    fn cell(self, leaf: &Leaf<'_>) -> String {
        let server = leaf.server;
        let unknown = || "?".to_owned();
        match self {
            Self::Server => format!("{}{SIGN} {}", leaf.branch, server.name),
            Self::Role => server.role.clone().unwrap_or_else(unknown),
            Self::State => state(server),
            Self::Timeline => server.timeline.map_or_else(unknown, |timeline| timeline.to_string()),
            Self::Lsn => server.lsn.clone().unwrap_or_else(unknown),
            Self::LagBytes => lag(server, server.lag_bytes.map(bytes)),
            Self::LagTime => lag(server, server.lag_seconds.map(seconds)),
            Self::Sessions => match (server.sessions.active, server.sessions.limit) {
                (active, 0) => active.to_string(),
                (active, limit) => format!("{active} / {limit}"),
            },
            Self::Weight => server.weight.to_string(),
            Self::Version => server.version.clone().unwrap_or_else(unknown),
        }
    }

    /// Numbers to the right, words to the left.
    fn pad(self, cell: &str, width: usize) -> String {
        let space = " ".repeat(width.saturating_sub(length(cell)));
        match self {
            Self::Timeline | Self::LagBytes | Self::LagTime | Self::Sessions | Self::Weight => {
                format!("{space}{cell}")
            }
            Self::Server | Self::Role | Self::State | Self::Lsn | Self::Version => {
                format!("{cell}{space}")
            }
        }
    }
}

/// A primary has none.
fn lag(server: &ServerReport, known: Option<String>) -> String {
    match known {
        Some(lag) => lag,
        None if server.is_primary() => String::new(),
        None => "?".to_owned(),
    }
}
