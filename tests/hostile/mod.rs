//! Whatever bytes come: what each reader of bytes that strangers send must do with them.
//!
//! One function a target, from bytes to nothing; it panics where a promise is broken. They are run
//! by `tests/it/fuzzed.rs` on a few thousand changes of good messages, and by `make fuzz` on what
//! its coverage leads to. So nothing here knows where bytes come from, and only what the library
//! shows to everybody is used.
//!
//! Each holds what is tested against something that can't have the same mistake: a few lines that
//! do the same slowly, the same bytes in other pieces, the same question without a cache, or what
//! was written before it was read.

mod backend;
mod config;
mod framer;
mod scram;
mod sql;
mod startup;

pub(crate) use framer::groups_as_they_arrive;
pub(crate) use sql::facts_do_not_depend_on;

/// One reader of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// What it is called: also the file in `fuzz/fuzz_targets`.
    pub(crate) name: &'static str,
    /// Takes any bytes.
    pub(crate) run: fn(&[u8]),
    /// Bytes that get far, to begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub(crate) const TARGETS: [Target; 6] = [
    Target { name: "framer", run: framer::run, seeds: framer::seeds },
    Target { name: "startup", run: startup::run, seeds: startup::seeds },
    Target { name: "sql", run: sql::run, seeds: sql::seeds },
    Target { name: "scram", run: scram::run, seeds: scram::seeds },
    Target { name: "config", run: config::run, seeds: config::seeds },
    Target { name: "backend", run: backend::run, seeds: backend::seeds },
];

/// The target of this name.
pub(crate) fn target(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target {name}"))
}

/// Decisions that follow from the bytes themselves, so that a find repeats.
pub(crate) struct Whim(u64);

impl Whim {
    pub(crate) fn of(data: &[u8]) -> Self {
        // FNV-1a.
        let mixed = data.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self(mixed)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // The steps of `splitmix64`.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let mixed = mixed ^ (mixed >> 31);
        usize::try_from(mixed % u64::try_from(limit).unwrap()).unwrap()
    }
}

/// One message.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    pgsteer::wire::frame::write(&mut out, tag, |out| out.extend_from_slice(body));
    out
}
