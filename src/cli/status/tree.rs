//! Who follows whom: the servers in the order and with the branches in which they are drawn.

use crate::admin::ServerReport;
use crate::admin::StatusReport;
use crate::cli::status::render::Glyphs;
use crate::cli::status::render::Twig;

/// One server in the tree.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    pub server: &'a ServerReport,
    /// What is drawn before its name.
    pub branch: String,
}

/// The servers, each behind the one that it follows.
pub(super) fn tree(report: &StatusReport, glyphs: Glyphs) -> Vec<Leaf<'_>> {
    let mut leaves = Vec::new();
    let mut rest: Vec<&ServerReport> = report.servers.iter().collect();
    // The primary first, then whatever hangs on nothing that is known.
    let is_root = |server: &ServerReport| parent(server, report).is_none();
    let (first, others): (Vec<_>, Vec<_>) = report
        .servers
        .iter()
        .filter(|server| is_root(server))
        .partition(|server| report.primary.as_ref() == Some(&server.name));
    for root in first.into_iter().chain(others) {
        grow(root, ("", ""), &mut Garden { report, glyphs, rest: &mut rest, leaves: &mut leaves });
    }
    // Two that say that they follow each other are no tree; nobody is left out.
    for server in rest {
        leaves.push(Leaf { server, branch: String::new() });
    }
    leaves
}

struct Garden<'a, 'b> {
    report: &'a StatusReport,
    glyphs: Glyphs,
    /// Who is not drawn yet.
    rest: &'b mut Vec<&'a ServerReport>,
    leaves: &'b mut Vec<Leaf<'a>>,
}

/// Draws a server and its followers; `(before, below)`: what stands before its name, and before
/// those of its followers.
fn grow<'a>(server: &'a ServerReport, (before, below): (&str, &str), garden: &mut Garden<'a, '_>) {
    garden.rest.retain(|other| other.name != server.name);
    garden.leaves.push(Leaf { server, branch: before.to_owned() });
    let report = garden.report;
    let followers: Vec<_> = report
        .servers
        .iter()
        .filter(|other| parent(other, report) == Some(server.name.as_str()))
        .collect();
    let last = followers.last().map(|last| last.name.clone());
    for follower in followers {
        if garden.rest.iter().all(|other| other.name != follower.name) {
            continue;
        }
        let is_last = last.as_ref() == Some(&follower.name);
        let twig = if is_last { Twig::Last } else { Twig::Inner };
        let (branch, trunk) = garden.glyphs.branch(twig);
        let place = (format!("{below}{branch}"), format!("{below}{trunk}"));
        grow(follower, (&place.0, &place.1), garden);
    }
}

/// Whom a server hangs on: whom it follows, else the primary where that is likely.
fn parent<'a>(server: &'a ServerReport, report: &'a StatusReport) -> Option<&'a str> {
    if server.is_primary() {
        return None;
    }
    let known = server.upstream.as_deref();
    known.or(report.primary.as_deref()).filter(|parent| *parent != server.name)
}
