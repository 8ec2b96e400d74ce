//! Whatever is wrong outside: a clear word about it, and nobody else is disturbed.

mod knocking;
mod messages;
mod servers;
mod start;
mod torture;
