//! What servers are shown, and what is trusted of them, is renewed without a restart.

use super::postgres::certificates;
use super::tls::client;
use crate::support::{Blueprint, await_that, end_backends};
use pgsteer::net::{ClientTls, Plain, Roots, ServerFiles, ServerTls, Stream, Verification};
use pgsteer::sandbox::{Auth, SUPERUSER, Scratch};
use pgsteer::tasks;
use std::path::Path;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

fn copy(dir: &Path, from: &str, to: &str) {
    std::fs::copy(dir.join(from), dir.join(to)).unwrap();
}

/// Somebody who shakes hands with one client once it is told to.
async fn server(dir: &Path, name: &str) -> (u16, oneshot::Sender<()>) {
    let file = |end: &str| dir.join(format!("{name}.{end}"));
    let files = ServerFiles { certificate: file("crt"), key: file("key"), client_ca: None };
    let tls = ServerTls::load(files).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (go_on, may) = oneshot::channel();
    drop(tasks::spawn("server", async move {
        let (tcp, _) = listener.accept().await.unwrap();
        may.await.unwrap();
        drop(tls.accept(Plain::Runtime(tcp)).await);
    }));
    (port, go_on)
}

/// A handshake with a server that began before a reload is brought to its end with what was
/// trusted then; the next one has what is trusted now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_harms_no_handshake_with_a_server_in_flight() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    copy(dir, "ca.crt", "trusted.crt");
    let roots = Roots::File(dir.join("trusted.crt"));
    let tls = ClientTls::new(Verification::AuthorityAndName, roots, None).unwrap();
    let shake = async |(port, go_on): (u16, oneshot::Sender<()>)| -> std::io::Result<Stream> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        go_on.send(()).unwrap();
        tls.connect("localhost", Plain::Runtime(tcp)).await
    };
    assert!(shake(server(dir, "server").await).await.is_ok());
    assert!(shake(server(dir, "self").await).await.is_err(), "not trusted yet");

    let (port, go_on) = server(dir, "server").await;
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut in_flight = Box::pin(tls.connect("localhost", Plain::Runtime(tcp)));
    let begun = std::time::Duration::from_millis(200);
    assert!(pgsteer::timer::timeout(begun, &mut in_flight).await.is_err(), "it waits");
    copy(dir, "self.crt", "trusted.crt");
    tls.reload().unwrap();
    go_on.send(()).unwrap();
    assert!(in_flight.await.is_ok());

    assert!(shake(server(dir, "server").await).await.is_err(), "no longer trusted");
    assert!(shake(server(dir, "self").await).await.is_ok());

    // What can't be used leaves the old one in place.
    std::fs::write(dir.join("trusted.crt"), "no certificate").unwrap();
    assert!(tls.reload().is_err());
    assert!(shake(server(dir, "self").await).await.is_ok());
}

/// Both sides get new certificates from other authorities. Backends that are open stay; until the
/// reload new ones are refused, and so they are while only one file of a pair is there.
#[test]
fn certificates_towards_servers_count_from_the_reload_on() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.path();
    certificates(dir);
    client(dir, "mine", ("ca", SUPERUSER));
    client(dir, "next", ("other-ca", SUPERUSER));
    copy(dir, "ca.crt", "trusted.crt");
    let at = |name: &str| dir.join(name).display().to_string();
    let toml = format!(
        "[servers]\nsslmode = \"verify-ca\"\nsslrootcert = {:?}\nsslcert = {:?}\nsslkey = {:?}\n",
        at("trusted.crt"),
        at("mine.crt"),
        at("mine.key"),
    );
    let house = Blueprint::new()
        .servers(|mut plan| {
            for file in ["server.crt", "server.key", "self.crt", "self.key"] {
                plan = plan.file(file, &std::fs::read_to_string(dir.join(file)).unwrap());
            }
            for file in ["ca.crt", "other-ca.crt"] {
                plan = plan.file(file, &std::fs::read_to_string(dir.join(file)).unwrap());
            }
            plan.standbys(0)
                .auth(Auth::Listed)
                .hba("hostssl all all 127.0.0.1/32 cert")
                .setting("ssl", "on")
                .setting("ssl_cert_file", "server.crt")
                .setting("ssl_key_file", "server.key")
                .setting("ssl_ca_file", "ca.crt")
        })
        .toml(&toml)
        .unhurried()
        .set("routing.hold_max", "300ms")
        .build();
    let config = std::fs::read_to_string(house.proxy.file()).unwrap();
    let primary = house.server("primary");
    let mut wire = house.wire();
    assert_eq!(wire.value("SELECT count(*) FROM pg_stat_ssl WHERE client_dn IS NOT NULL AND pid = pg_backend_pid()"), "1");

    for (name, file) in [
        ("ssl_cert_file", "self.crt"),
        ("ssl_key_file", "self.key"),
        ("ssl_ca_file", "other-ca.crt"),
    ] {
        primary.rows(&format!("ALTER SYSTEM SET {name} = '{file}'")).unwrap();
    }
    primary.rows("SELECT pg_reload_conf()").unwrap();
    primary.await_value("SHOW ssl_ca_file", "other-ca.crt", "reloaded").unwrap();
    assert_eq!(wire.value("SELECT 1"), "1", "the backend that is open is good");
    end_backends(primary, "client_port > 0");
    let refused = |wire: &mut crate::support::Wire| !wire.query("SELECT 1").is_good();
    assert!(refused(&mut wire), "with the old ones nobody comes in");

    copy(dir, "next.crt", "mine.crt");
    copy(dir, "self.crt", "trusted.crt");
    house.reload(&config);
    let log = house.proxy.log();
    assert!(log.contains("cannot use") && log.contains("mine.key"), "{log}");
    assert!(refused(&mut wire), "half of a pair changes nothing");

    copy(dir, "next.key", "mine.key");
    house.reload(&config);
    await_that("a backend with the new certificates", || wire.query("SELECT 1").is_good());
    assert!(!house.proxy.log().contains("PRIVATE KEY"));
}
