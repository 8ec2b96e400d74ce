//! The system's allocator, with a counter for the threads that serve clients.

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// How the threads are called whose requests count.
const COUNTED: &str = "shard-";
/// The frames of a backtrace that are shown: enough to see whose doing it is.
const FRAMES_SHOWN: usize = 5;
/// Most requests that are looked at closely: a backtrace takes long.
const TRACED_MAX: u64 = 200;

/// Counts, and asks the system.
#[derive(Debug)]
pub struct Counting;

/// Requests for memory, on all threads that count.
static REQUESTS: AtomicU64 = AtomicU64::new(0);
/// Bytes that those threads have asked for and not given back.
static LIVE: AtomicI64 = AtomicI64::new(0);
/// How many of the next requests are to be looked at closely.
static TO_TRACE: AtomicU64 = AtomicU64::new(0);
/// Where they were made.
static TRACED: Mutex<Vec<Backtrace>> = Mutex::new(Vec::new());

/// Whether a thread's requests count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// It is not known yet.
    Unasked,
    Yes,
    /// It does not, or is occupied with counting.
    No,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts::Unasked) };
}

/// How many requests there were so far.
pub fn requests() -> u64 {
    REQUESTS.load(Ordering::Relaxed)
}

/// How many bytes the counted threads hold.
pub fn live() -> i64 {
    LIVE.load(Ordering::Relaxed)
}

/// Looks closely at the next requests.
pub fn trace() {
    TRACED.lock().unwrap().clear();
    TO_TRACE.store(TRACED_MAX, Ordering::Relaxed);
}

/// Where those were made, and how many of them.
pub fn places() -> BTreeMap<String, usize> {
    TO_TRACE.store(0, Ordering::Relaxed);
    let mut places = BTreeMap::new();
    for trace in TRACED.lock().unwrap().drain(..) {
        *places.entry(place(&trace.to_string())).or_default() += 1;
    }
    places
}

/// The innermost frames of a backtrace that are our own, each with its line.
fn place(trace: &str) -> String {
    let lines: Vec<_> = trace.lines().map(str::trim).collect();
    let frames = lines.windows(2).filter_map(|pair| {
        let (function, at) = (pair[0].split_once(": ")?.1, pair[1].strip_prefix("at ./src/")?);
        Some(format!("{} (src/{at})", function.trim_start_matches("pgsteer::")))
    });
    frames.take(FRAMES_SHOWN).collect::<Vec<_>>().join(" < ")
}

/// Counts one request of this thread, by which it holds so many more bytes.
fn count(more: usize) {
    // At a thread's end there is nothing left to ask; it serves nobody any more.
    let counts = COUNTS.try_with(Cell::get).unwrap_or(Counts::No);
    match counts {
        Counts::No => {}
        Counts::Yes => counted(more),
        Counts::Unasked => {
            set(Counts::No);
            let thread = std::thread::current();
            let serves = thread.name().is_some_and(|name| name.starts_with(COUNTED));
            drop(thread);
            set(if serves { Counts::Yes } else { Counts::No });
            if serves {
                counted(more);
            }
        }
    }
}

fn counted(more: usize) {
    LIVE.fetch_add(i64::try_from(more).unwrap_or(0), Ordering::Relaxed);
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    let less = |left: u64| left.checked_sub(1);
    if TO_TRACE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
        set(Counts::No);
        TRACED.lock().unwrap().push(Backtrace::force_capture());
        set(Counts::Yes);
    }
}

/// A thread that counts holds so many bytes less.
fn given_back(less: usize) {
    if COUNTS.try_with(Cell::get).unwrap_or(Counts::No) == Counts::Yes {
        LIVE.fetch_sub(i64::try_from(less).unwrap_or(0), Ordering::Relaxed);
    }
}

fn set(counts: Counts) {
    COUNTS.try_with(|cell| cell.set(counts)).unwrap_or(());
}

#[expect(unsafe_code, reason = "there is no other way to be an allocator")]
// SAFETY: each call is passed on as it came to the system's allocator, which keeps the promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        given_back(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(old, layout) }
    }
}
