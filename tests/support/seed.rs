//! Chance that can be repeated.

/// A row of numbers that depends on its seed alone.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The same numbers for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The seed in `SEED`, else a new one; it is printed, and shown when the test fails.
    pub fn from_env() -> Self {
        let named = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = named.unwrap_or_else(|| pgsteer::clock::now().nanos() % 1_000_000);
        let test = std::thread::current().name().unwrap_or("").to_owned();
        eprintln!("repeat with: SEED={seed} cargo test --test e2e {test}");
        Self::new(seed)
    }

    /// The next number. `splitmix64`: Steele, Lea and Flood, "Fast splittable pseudorandom number
    /// generators", 2014.
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }
}
