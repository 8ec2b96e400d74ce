//! Bytes to messages and back, without I/O.
//!
//! `frame` serves the relay: it finds messages by their headers and looks inside a few. The
//! other files build and read whole messages for the rare states: startup, login, errors that we
//! raise. `watch` goes along with what is only passed on.

pub mod frame;
pub mod message;
pub mod startup;
pub mod watch;
