//! A link that can be made slow.

use pgsteer::clock;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// Leads to a server; what comes back from there may be slow. What it leads goes on until either
/// end closes it.
pub struct Relay {
    address: SocketAddr,
    way: Arc<Way>,
}

struct Way {
    target: OnceLock<SocketAddr>,
    /// Bytes a second that come back.
    pace: AtomicU32,
    closed: AtomicBool,
}

/// What could not be passed on in its time, on a crowded machine, is made up for, up to so much.
const SLACK: Duration = Duration::from_secs(1);

impl Relay {
    /// One that leads nowhere yet, and is fast.
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (target, closed) = (OnceLock::new(), AtomicBool::new(false));
        let way = Arc::new(Way { target, pace: AtomicU32::new(1 << 30), closed });
        let own = Arc::clone(&way);
        thread::spawn(move || {
            while !own.closed.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => lead(stream, &own),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { address, way }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn lead_to(&self, target: SocketAddr) {
        self.way.target.set(target).unwrap();
    }

    /// So many bytes a second come back from now on, over all connections each.
    pub fn slow_down(&self, bytes: u32) {
        self.way.pace.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.way.closed.store(true, Ordering::SeqCst);
    }
}

fn lead(from: TcpStream, way: &Arc<Way>) {
    from.set_nonblocking(false).unwrap();
    let Some(Ok(to)) = way.target.get().map(TcpStream::connect) else { return };
    let (back, there) = (to.try_clone().unwrap(), from.try_clone().unwrap());
    thread::spawn(move || pass(from, to, || 1 << 30));
    let way = Arc::clone(way);
    thread::spawn(move || pass(back, there, || way.pace.load(Ordering::SeqCst)));
}

/// Passes on what comes until it ends.
fn pass(mut from: TcpStream, mut to: TcpStream, pace: impl Fn() -> u32) {
    let mut buffer = vec![0; 1 << 14];
    // When what was passed on so far has had its time.
    let mut due = clock::now();
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        let began = clock::now();
        let time = Duration::from_secs(1) * u32::try_from(read).unwrap() / pace();
        due = due.max(began - SLACK) + time;
        thread::sleep(due.since(began));
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        stream.shutdown(std::net::Shutdown::Both).unwrap_or_default();
    }
}
