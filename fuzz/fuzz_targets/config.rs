//! The target `config`: see `tests/hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsteer_fuzz::run("config", data));
