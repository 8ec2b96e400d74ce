//! A server lost: what was not shown is run again, what may have been done is never done twice,
//! and whoever can stay connected does.

mod marks;
mod phantoms;
mod primary;
mod restart;
mod standby;
