//! How the kernel schedules a shard's thread: as a batch thread, which becomes ready without
//! pushing aside whoever runs.
//!
//! A proxy is woken by every message. If each of these pushes the sender aside, the shard runs once
//! a message; if the sender is let run until it waits for something itself, the shard finds several
//! messages at once and sleeps less often (decision 0022). An idle processor takes either at once.
//!
//! Only shards: the control plane must run when it is due, also beside a busy shard.

use std::io;
use std::mem::MaybeUninit;

/// Makes the calling thread a batch thread, unless whoever started pgsteer chose a policy for it.
#[expect(unsafe_code, reason = "no crate sets the policy and leaves the niceness as it is")]
pub(super) fn be_a_batch_thread() -> io::Result<()> {
    let mut policy = 0;
    let mut param = MaybeUninit::<libc::sched_param>::uninit();
    // SAFETY: the thread is the calling one; both pointers are to values of the right type that
    // outlive the call.
    let got = unsafe {
        libc::pthread_getschedparam(libc::pthread_self(), &raw mut policy, param.as_mut_ptr())
    };
    told(got)?;
    if policy != libc::SCHED_OTHER {
        return Ok(());
    }
    // SAFETY: as above; `param` was filled in by the call that succeeded.
    let set = unsafe {
        libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_BATCH, param.as_ptr())
    };
    told(set)
}

fn told(errno: libc::c_int) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}
