//! What is in the memory of a process.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

/// Whether these bytes are anywhere in the writable memory of a process.
pub fn remembers(pid: u32, needle: &str) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    // A search of its own, for one without optimisation takes a minute.
    let mut grep = Command::new("grep")
        .args(["-acF", needle])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut sink = grep.stdin.take().unwrap();
    let mut looked_at = 0;
    for line in maps.lines() {
        let mut words = line.split(' ');
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let place = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let size = usize::try_from(place(to) - place(from)).unwrap();
        let mut bytes = vec![0; size];
        // Some pieces of the map are the kernel's own.
        if memory.read_exact_at(&mut bytes, place(from)).is_ok() {
            looked_at += size;
            sink.write_all(&bytes).unwrap();
        }
    }
    drop(sink);
    assert!(looked_at > 1_000_000, "the memory could not be read");
    // 0: found, 1: not found.
    let status = grep.wait().unwrap().code().unwrap();
    assert!(status < 2, "grep failed");
    status == 0
}
