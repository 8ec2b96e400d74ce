//! The HTTP endpoints, over a real socket, without any PostgreSQL.

mod orders;

use pgsteer::admin::{Health, Listening, Operators, Shown, Sources, StatusReport};
use pgsteer::board::Board;
use pgsteer::control::Steward;
use pgsteer::metrics::{Build, Metrics};
use pgsteer::pg::SystemId;
use pgsteer::route::{Consistency, LagLimit};
use pgsteer::sandbox::eventually;
use pgsteer::topology::Topology;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The endpoints of a proxy with one server that was never seen.
struct Admin {
    address: SocketAddr,
    health: Arc<Health>,
    board: Arc<Board>,
    _runtime: Runtime,
}

impl Admin {
    fn start() -> Self {
        let steward = Steward::unavailable("this is a test", Arc::default(), metrics());
        Self::with(Operators { steward, token: None, settings: Arc::default() })
    }

    fn with(operators: Operators) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let listening = runtime.block_on(Listening::bind(loopback)).unwrap();
        let address = listening.address();
        let board = Arc::new(Board::new(Topology::unseen(Box::new([]))));
        let health = Arc::new(Health::new(1));
        let max_lag = LagLimit { bytes: Some(16 << 20), time: Some(Duration::from_secs(1)) };
        let shown = Shown { consistency: Consistency::Session, max_lag };
        let sources = Sources {
            board: Arc::clone(&board),
            metrics: metrics(),
            health: Arc::clone(&health),
            shown: Arc::new(arc_swap::ArcSwap::from_pointee(shown)),
            explain: Box::new(|database, sql| serde_json::json!([database, sql])),
            operators,
        };
        let serving = listening.serve(Arc::new(sources), CancellationToken::new());
        let entered = runtime.enter();
        drop(pgsteer::tasks::spawn("admin", serving));
        drop(entered);
        Self { address, health, board, _runtime: runtime }
    }

    /// Sends these bytes, and reads until the other side closes.
    fn say(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The other side may refuse before it has read everything.
        stream.write_all(request.as_bytes()).unwrap_or(());
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or(0);
        String::from_utf8(answer).unwrap()
    }

    fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = self.say(&request);
        parsed(&answer)
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&["db1:5432".into()], Build::default()).unwrap())
}

/// The status and the body.
fn parsed(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn every_path_answers() {
    let admin = Admin::start();

    assert_eq!(admin.get("/livez"), (200, "ok\n".to_owned()));
    let (status, metrics) = admin.get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("\npgsteer_server_up{server=\"db1:5432\"} 0\n"), "{metrics}");
    let (status, report) = admin.get("/status");
    let report: StatusReport = serde_json::from_str(&report).unwrap();
    assert_eq!((status, report.consistency.as_str()), (200, "session"));
    assert_eq!(report.primary, None);
    let routed = admin.get("/route?database=shop&sql=SELECT%201");
    assert_eq!(routed, (200, "[\"shop\",\"SELECT 1\"]\n".to_owned()));
    assert_eq!(admin.get("/nothing").0, 404);
}

#[test]
fn ready_is_who_was_told_so_and_has_seen_the_servers() {
    let admin = Admin::start();
    let (status, body) = admin.get("/readyz?verbose");
    assert_eq!(status, 503);
    assert!(body.contains("[-] listening\n") && body.contains("[+] not draining\n"), "{body}");

    admin.health.listening();
    let seen = Topology { system: Some(SystemId(1)), ..Topology::unseen(Box::new([])) };
    admin.board.publish(Arc::new(seen));

    assert_eq!(admin.get("/readyz"), (200, "ok\n".to_owned()));
    assert_eq!(admin.get("/readyz?require=primary").0, 503);
    assert_eq!(admin.get("/readyz?require=luck").0, 400);
    admin.health.draining();
    assert_eq!(admin.get("/readyz").0, 503);
    assert_eq!(admin.get("/livez").0, 200);
}

#[test]
fn a_statement_comes_as_the_body() {
    let admin = Admin::start();
    let request = "POST /route?database=shop HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                   content-length: 8\r\n\r\nSELECT 1";

    assert!(admin.say(request).ends_with("[\"shop\",\"SELECT 1\"]\n"));
    let refused = admin.say("DELETE /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("GET, HEAD"), "{refused}");
}

#[test]
fn what_is_too_large_or_too_slow_is_refused_and_others_are_answered() {
    let admin = Admin::start();
    let long = "x".repeat(100_000);
    let head = admin.say(&format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"));
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 4"), "{head}");
    let many = "name: x\r\n".repeat(200);
    let headers = admin.say(&format!("GET /livez HTTP/1.1\r\n{many}\r\n"));
    assert!(headers.is_empty() || headers.starts_with("HTTP/1.1 4"), "{headers}");
    let body = format!(
        "POST /route HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\nconnection: close\r\n\r\n{}",
        "x".repeat(3_000_000)
    );
    let body = admin.say(&body);
    assert!(body.is_empty() || body.starts_with("HTTP/1.1 413 "), "{body}");
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}hello"] {
        let mut stream = TcpStream::connect(admin.address).unwrap();
        stream.write_all(garbage.as_bytes()).unwrap();
    }
    // Slow ones take all the places; they lose them after the read timeout.
    let slow: Vec<_> = (0..70).map(|_| TcpStream::connect(admin.address).unwrap()).collect();
    let request = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answered = || admin.say(request).starts_with("HTTP/1.1 200 ").then_some(());
    assert!(eventually(Duration::from_mins(1), answered).is_some(), "no place comes free");
    drop(slow);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let admin = Admin::start();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(Listening::bind(admin.address)).unwrap_err().to_string();

    assert!(error.contains(&admin.address.to_string()) && error.contains("--http"), "{error}");
}

/// Prometheus' own judge of names, help and units: this machine's, or the one that
/// `scripts/setup.sh` unpacked.
#[test]
fn promtool_finds_nothing() {
    let (_, metrics) = Admin::start().get("/metrics");
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/promtool");
    let tool = if unpacked.exists() { unpacked } else { "promtool".into() };
    let mut checker = Command::new(tool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: scripts/setup.sh test fetches it");
    checker.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let found = checker.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&found.stderr).into_owned()
        + &String::from_utf8_lossy(&found.stdout);
    assert!(found.status.success() && said.trim().is_empty(), "{said}");
}
