//! Cancel requests that reach another pgsteer than that of their session: `cancel.peers`.

use crate::auth::postgres::certificates;
use crate::raw::{Raw, cancel, query};
use crate::support::{cluster, program};
use pgsteer::sandbox::{Cluster, Plan, Proxy, StatementLog};
use pgsteer::tasks;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LOGIN: [(&str, &str); 2] = [("user", "postgres"), ("database", "postgres")];

/// Two that know each other, and one that knows nobody.
struct Fleet {
    peers: [Proxy; 2],
    stranger: Proxy,
    cluster: Cluster,
}

impl Fleet {
    /// With this mode of pooling, and one more peer, the third.
    fn build(mode: &str, third: SocketAddr) -> Self {
        let cluster = cluster(&Plan::new().standbys(0).log(StatementLog::Off));
        let named = |name: &str| Proxy::new(program(), cluster.workshop(name).unwrap()).unwrap();
        let [first, second, stranger] = ["first", "second", "stranger"].map(named);
        let all = [first.address(), second.address(), third].map(|peer| format!("\"{peer}\""));
        let all = all.join(", ");
        let server = cluster.primary().address();
        let start = |proxy: Proxy, cancel: &str| {
            let toml = format!("[pool]\nmode = \"{mode}\"\n[failover]\nmode = \"off\"\n{cancel}");
            let proxy = proxy.toml(&toml).unwrap().args(["--server", &server]);
            proxy.start().unwrap();
            proxy.await_ready().unwrap();
            proxy
        };
        let knows = |number: u8| format!("[cancel]\npeers = [{all}]\nnumber = {number}\n");
        let peers = [start(first, &knows(1)), start(second, &knows(2))];
        Self { peers, stranger: start(stranger, ""), cluster }
    }

    fn await_running(&self) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                   AND pid <> pg_backend_pid() AND query LIKE '%mine%'";
        self.cluster.primary().await_value(sql, "1", "running the statement").unwrap();
    }
}

/// Somebody who counts who comes, and says nothing.
async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    drop(tasks::spawn("silent", async move {
        let mut all = Vec::new();
        loop {
            all.push(listener.accept().await.unwrap());
            counted.fetch_add(1, Ordering::Relaxed);
        }
    }));
    (address, came)
}

/// By a key of either protocol, in either mode, and at whichever pgsteer it arrives; but with the
/// whole key only, and, which is the opposite, not at one that knows of no peers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_finds_its_session_at_another_pgsteer() {
    for mode in ["transaction", "session"] {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let fleet = Fleet::build(mode, closed);
        let [first, second] = fleet.peers.each_ref().map(Proxy::address);
        for minor in [0, 2] {
            for (here, there) in [(first, second), (second, first)] {
                let mut mine = Raw::connect_by(here, minor, &LOGIN).await.unwrap();
                assert_eq!(mine.secret.len(), if minor == 0 { 4 } else { 32 });
                mine.send(&query("SELECT pg_sleep(3600) /* mine */")).await;
                fleet.await_running();
                let mut wrong = mine.secret.clone();
                *wrong.last_mut().unwrap() ^= 1;
                cancel(there, mine.pid, &wrong).await;
                cancel(there, mine.pid ^ 1, &mine.secret).await;
                cancel(fleet.stranger.address(), mine.pid, &mine.secret).await;
                fleet.await_running();
                cancel(there, mine.pid, &mine.secret).await;
                let answer = mine.ready().await;
                assert_eq!(answer.code().as_deref(), Some("57014"), "{mode} {minor}: {answer:?}");
                assert_eq!(mine.value("SELECT 1").await, "1");
                // Nor does a request that comes home by a detour hit anything later.
                cancel(there, mine.pid, &mine.secret).await;
                assert_eq!(mine.value("SELECT 2 FROM pg_sleep(0.1)").await, "2");
                mine.leave().await;
            }
        }
        for proxy in &fleet.peers {
            let log = proxy.log();
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}

/// A key is shown to who has the right certificate; and, which is the opposite, not to one whose
/// authority or name is another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_to_no_peer_that_can_not_be_verified() {
    let cluster = cluster(&Plan::new().standbys(0).log(StatementLog::Off));
    let files = cluster.workshop("certificates").unwrap();
    certificates(&files);
    let file = |name: &str| files.join(name).display().to_string();
    let named = |name: &str| Proxy::new(program(), cluster.workshop(name).unwrap()).unwrap();
    let server = cluster.primary().address();
    let start = |proxy: Proxy, toml: &str| {
        let toml = format!("[failover]\nmode = \"off\"\n{toml}");
        let proxy = proxy.toml(&toml).unwrap().args(["--server", &server]);
        proxy.start().unwrap();
        proxy.await_ready().unwrap();
        proxy
    };
    let there = named("there");
    let port = there.address().port();
    let (cert, key) = (file("server.crt"), file("server.key"));
    let there = start(
        there,
        &format!(
            "[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n\
             [cancel]\npeers = [\"10.0.0.1:1\", \"localhost:{port}\"]\nnumber = 2\n"
        ),
    );
    let cases = [
        ("localhost", "verify-full", "ca.crt", true),
        ("127.0.0.1", "verify-ca", "ca.crt", true),
        ("127.0.0.1", "verify-full", "ca.crt", false),
        ("localhost", "verify-ca", "other-ca.crt", false),
        ("localhost", "require", "other-ca.crt", false),
    ];
    let mut mine = Raw::connect_by(there.address(), 2, &LOGIN).await.unwrap();
    let mut locker = cluster.primary().connect("postgres").unwrap();
    for (at, (host, mode, root, passes)) in cases.into_iter().enumerate() {
        let here = start(
            named(&format!("here-{at}")),
            &format!(
                "[cancel]\npeers = [\"10.0.0.1:1\", \"{host}:{port}\"]\nnumber = 1\n\
                 sslmode = \"{mode}\"\nsslrootcert = \"{}\"\n",
                file(root)
            ),
        );
        // It ends a second after it is let go on, unless it is cancelled.
        locker.rows("SELECT pg_advisory_lock(4711)").unwrap();
        let held = "SELECT pg_sleep(1) FROM pg_advisory_xact_lock(4711) /* mine */";
        mine.send(&query(held)).await;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                   AND pid <> pg_backend_pid() AND query LIKE '%mine%'";
        cluster.primary().await_value(sql, "1", "running the statement").unwrap();
        cancel(here.address(), mine.pid, &mine.secret).await;
        if !passes {
            locker.rows("SELECT pg_advisory_unlock_all()").unwrap();
        }
        let code = mine.ready().await.code();
        locker.rows("SELECT pg_advisory_unlock_all()").unwrap();
        let expected = passes.then_some("57014");
        assert_eq!(code.as_deref(), expected, "{host} {mode} {root}");
        let told = here.log().contains("was not passed on");
        assert_eq!(told, !passes, "{host} {mode} {root}: {}", here.log());
    }
}

/// What a peer is sent: the first packet of each connection behind the question for TLS.
async fn next_packet(listener: &TcpListener) -> Vec<u8> {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut question = [0; 8];
    tcp.read_exact(&mut question).await.unwrap();
    tcp.write_all(b"N").await.unwrap();
    let mut packet = vec![0; 4];
    tcp.read_exact(&mut packet).await.unwrap();
    let length = u32::from_be_bytes(packet[..4].try_into().unwrap());
    packet.resize(usize::try_from(length).unwrap(), 0);
    tcp.read_exact(&mut packet[4..]).await.unwrap();
    packet
}

/// A request is passed on once, to whom its key names, or to all if it names nobody; one that was
/// passed on goes no further, whatever it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_passed_on_goes_no_further() {
    let third = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fleet = Fleet::build("transaction", third.local_addr().unwrap());
    let [first, second] = fleet.peers.each_ref().map(Proxy::address);
    let soon = Duration::from_secs(10);
    let numbered = |number: i32| number << 23 | 5;
    let of_third = [b"pgsteer\x03".as_slice(), &[7; 24]].concat();
    let cases = [(numbered(3), b"abcd".to_vec()), (4711, b"abcd".to_vec()), (4711, of_third)];
    for (pid, key) in cases {
        let asked = tasks::spawn("client", {
            let key = key.clone();
            async move { cancel(first, pid, &key).await }
        });
        let packet = pgsteer::timer::timeout(soon, next_packet(&third)).await.expect("passed on");
        asked.await.unwrap();
        assert_eq!(packet[8..12], pid.to_be_bytes());
        assert!(packet.ends_with(&key) && packet.len() > 12 + key.len(), "marked: {packet:?}");
        for address in [first, second] {
            let mut again = TcpStream::connect(address).await.unwrap();
            again.write_all(&packet).await.unwrap();
            let mut rest = Vec::new();
            drop(again.read_to_end(&mut rest).await);
            assert_eq!(rest, b"", "nobody is told anything");
        }
    }
    // Its own, those of nobody, and keys that no pgsteer gave out are nobody else's business.
    let cases = [(numbered(1), b"abcd".to_vec()), (numbered(9), b"abcd".to_vec())];
    let cases = cases.into_iter().chain([(numbered(3), vec![7; 32]), (4711, vec![7; 200])]);
    for (pid, key) in cases {
        cancel(first, pid, &key).await;
    }
    let quiet = pgsteer::timer::timeout(Duration::from_millis(500), third.accept()).await;
    assert!(quiet.is_err(), "it was passed on again");
}

/// A peer that is silent holds up those who ask for it for a while, in bounded number, and nobody
/// else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_holds_nobody_up_for_long() {
    let (third, came) = silent().await;
    let fleet = Fleet::build("transaction", third);
    let [first, _] = fleet.peers.each_ref().map(Proxy::address);
    let began = pgsteer::clock::now();
    let asked: Vec<_> = (0..200)
        .map(|at| tasks::spawn("client", async move { cancel(first, 3 << 23 | at, b"abcd").await }))
        .collect();
    let mut other = Raw::connect_by(first, 0, &LOGIN).await.unwrap();
    assert_eq!(other.value("SELECT 1").await, "1");
    for asked in asked {
        asked.await.unwrap();
    }
    let came = came.load(Ordering::Relaxed);
    assert!((1..=64).contains(&came), "{came} at a time");
    let took = pgsteer::clock::now().since(began);
    assert!(took < Duration::from_secs(30), "{took:?}");
    // There is room again, and the key was not told.
    let mut mine = Raw::connect_by(fleet.peers[1].address(), 0, &LOGIN).await.unwrap();
    mine.send(&query("SELECT pg_sleep(3600) /* mine */")).await;
    fleet.await_running();
    cancel(first, mine.pid, &mine.secret).await;
    assert_eq!(mine.ready().await.code().as_deref(), Some("57014"));
    let log = fleet.peers[0].log();
    assert!(log.contains("was not passed on") && !log.contains("abcd"), "{log}");
}
