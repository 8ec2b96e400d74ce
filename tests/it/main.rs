//! Fast tests without an outside world, in one binary.

mod config;
