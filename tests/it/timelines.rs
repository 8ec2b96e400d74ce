//! The algebra of timelines, against a model that knows every byte.
//!
//! A random tree of branches is grown; a position is the bytes that lead to it. What
//! `History::covers` says must be what the sets of bytes say, for every pair of positions.

use pgsteer::pg::{Lsn, Position, SystemId, Timeline};
use pgsteer::topology::{Coverage, Fork, History};

/// A branch: which one it left, and where.
#[derive(Debug, Clone, Copy)]
struct Branch {
    parent: usize,
    at: u64,
}

/// A number of a cheap generator: the seed is all there is to a case.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Branch 0 is timeline 1; each later one leaves an earlier one somewhere.
fn tree(seed: &mut u64) -> Vec<Branch> {
    let mut branches = vec![Branch { parent: 0, at: 0 }];
    for _ in 0..next(seed) % 6 {
        let parent = usize::try_from(next(seed)).unwrap() % branches.len();
        let at = branches[parent].at + next(seed) % 40;
        branches.push(Branch { parent, at });
    }
    branches
}

/// On which branch the byte before `lsn` lies, for a log that ends on `branch`.
fn owner(branches: &[Branch], branch: usize, byte: u64) -> usize {
    if branch == 0 || byte >= branches[branch].at {
        return branch;
    }
    owner(branches, branches[branch].parent, byte)
}

/// Whether a log that ends at `(branch, lsn)` begins with the log that ends at `wanted`.
fn holds(branches: &[Branch], (branch, lsn): (usize, u64), wanted: (usize, u64)) -> bool {
    lsn >= wanted.1
        && (0..wanted.1)
            .all(|byte| owner(branches, branch, byte) == owner(branches, wanted.0, byte))
}

/// The line of descent of one branch, as its history file tells it.
fn history(branches: &[Branch], current: usize) -> History {
    let mut forks = Vec::new();
    let mut at = current;
    while at != 0 {
        let Branch { parent, at: fork } = branches[at];
        forks.push(Fork { timeline: timeline(parent), at: Lsn(fork) });
        at = parent;
    }
    forks.reverse();
    History::new(timeline(current), forks)
}

fn timeline(branch: usize) -> Timeline {
    Timeline(u32::try_from(branch).unwrap() + 1)
}

fn position((branch, lsn): (usize, u64)) -> Position {
    Position { system: SystemId(1), timeline: timeline(branch), lsn: Lsn(lsn) }
}

#[test]
fn covers_says_what_the_bytes_say() {
    let (mut covered, mut lost, mut diverged) = (0, 0, 0);
    for case in 0..3_000_u64 {
        let mut seed = case;
        let branches = tree(&mut seed);
        let current = usize::try_from(next(&mut seed)).unwrap() % branches.len();
        let history = history(&branches, current);
        for _ in 0..20 {
            let mut place = || {
                let branch = usize::try_from(next(&mut seed)).unwrap() % branches.len();
                (branch, branches[branch].at + next(&mut seed) % 60)
            };
            let (server, wanted) = (place(), place());
            let said = history.covers(position(server), position(wanted));
            let told = format!("seed {case}: {branches:?}, on {current}: {server:?} {wanted:?}");
            // The whole of a place's log is on the current line of descent.
            let kept = |place: (usize, u64)| holds(&branches, (current, u64::MAX), place);
            match said {
                Coverage::Covers => {
                    covered += 1;
                    assert!(holds(&branches, server, wanted), "{told}");
                    assert!(kept(server) && kept(wanted), "{told}");
                }
                Coverage::Behind => {
                    assert!(server.1 < wanted.1 && kept(server) && kept(wanted), "{told}");
                }
                Coverage::Lost => {
                    lost += 1;
                    assert!(!kept(wanted), "{told}");
                }
                Coverage::Diverged => {
                    diverged += 1;
                    assert!(!kept(server), "{told}");
                }
                // Not a word on branches that are not on the line of descent.
                Coverage::Unrelated => {
                    let known = |place: (usize, u64)| history.knows(timeline(place.0));
                    assert!(!known(server) || !known(wanted), "{told}");
                }
            }
        }
    }
    assert!(covered > 1_000 && lost > 100 && diverged > 100, "{covered} {lost} {diverged}");
}

#[test]
fn covering_grows_with_the_log_and_carries_over() {
    for case in 0..2_000_u64 {
        let mut seed = case;
        let branches = tree(&mut seed);
        let current = branches.len() - 1;
        let history = history(&branches, current);
        let mut on_line = Vec::new();
        for _ in 0..12 {
            let lsn = next(&mut seed) % 200;
            on_line.push(position((owner(&branches, current, lsn.saturating_sub(1)), lsn)));
        }
        for a in &on_line {
            assert_eq!(history.covers(*a, *a), Coverage::Covers, "seed {case}: {a}");
            for b in &on_line {
                for c in &on_line {
                    let ab = history.covers(*a, *b) == Coverage::Covers;
                    let bc = history.covers(*b, *c) == Coverage::Covers;
                    let ac = history.covers(*a, *c) == Coverage::Covers;
                    assert!(!(ab && bc) || ac, "seed {case}: {a} {b} {c}");
                }
            }
        }
    }
}
