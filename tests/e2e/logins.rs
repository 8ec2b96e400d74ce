//! Logins through the proxy as it is shipped: TLS and SCRAM to it, SCRAM to the servers, and no
//! password in between.

use crate::auth::postgres::certificates;
use crate::support::{Blueprint, Ended, House, Wire, await_that, remembers};
use pgsteer::auth::Secret;
use pgsteer::auth::scram::{Binding, ClientFirst, ClientSecret, EndPoint, NONCE_BYTES, Nonce};
use pgsteer::clock;
use pgsteer::net::{ClientTls, Plain, Roots, Stream, Verification};
use pgsteer::sandbox::{Auth, SUPERUSER, SUPERUSER_PASSWORD, Scratch, Shutdown, eventually};
use pgsteer::tasks;
use pgsteer::wire::frame;
use pgsteer::wire::message::{
    AuthRequest, SCRAM_SHA_256_PLUS, SSL_REQUEST, read_auth_request, read_error,
    write_sasl_initial, write_sasl_response, write_startup,
};
use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Passwords that occur nowhere else; in two parts, so that this program has none of them whole.
const ALICE: [&str; 2] = ["only-alice-", "knows-4711"];
const BOB: [&str; 2] = ["only-bob-", "knows-4712"];

struct Login {
    house: House,
    files: Scratch,
}

impl Login {
    /// Servers that demand SCRAM of everybody, and a proxy that does so over TLS.
    fn build(auth: &str) -> Self {
        let files = Scratch::new().unwrap();
        certificates(files.path());
        let at = |name: &str| files.path().join(name).display().to_string();
        let tls = format!(
            "[tls]\nmode = \"require\"\ncert = {:?}\nkey = {:?}\n[auth]\nmethod = \
             \"scram-sha-256\"\n{auth}",
            at("server.crt"),
            at("server.key"),
        );
        let house = Blueprint::new()
            .servers(|plan| plan.standbys(1).auth(Auth::Password))
            .toml(&tls)
            .unhurried()
            .any_lag()
            .set("routing.hold_max", "300ms")
            .set("limits.login_failure_delay", "0s")
            .build();
        Self { house, files }
    }

    /// With two users, whose verifiers the servers have.
    fn with_users(self) -> Self {
        for (name, password) in [("alice", ALICE), ("bob", BOB)] {
            let sql = format!("CREATE ROLE {name} LOGIN PASSWORD '{}'", password.concat());
            self.house.server("primary").rows(&sql).unwrap();
        }
        self.house.cluster.await_replay().unwrap();
        self
    }

    fn psql(&self, user: &str, password: &str, sql: &str) -> Result<String, String> {
        self.psql_with("verify-full", (user, password), sql)
    }

    /// The answer of a login for which the servers were heard: where they are slow, on a crowded
    /// machine, it is held against what they said before, or refused without their word.
    fn psql_heard(&self, user: &str, password: &str, sql: &str) -> Result<String, String> {
        let unheard = || self.house.proxy.log().matches("login goes on with what").count();
        let heard = eventually(Duration::from_mins(1), || {
            let before = unheard();
            let answer = self.psql(user, password, sql);
            let cannot = "cannot check the password";
            let is_unchecked = answer.as_ref().is_err_and(|why| why.contains(cannot));
            (!is_unchecked && unheard() == before).then_some(answer)
        });
        heard.expect("the servers are never heard in time")
    }

    /// Changes something on the primary, and waits until the standby has it: a primary that is slow
    /// is not waited for alone, and the standby's word counts as well.
    fn everywhere(&self, sql: &str) {
        self.house.server("primary").rows(sql).unwrap();
        self.house.cluster.await_replay().unwrap();
    }

    fn psql_with(
        &self,
        mode: &str,
        (user, password): (&str, &str),
        sql: &str,
    ) -> Result<String, String> {
        let port = self.house.proxy.address().port();
        let root = self.files.path().join("ca.crt");
        let target = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user={user} dbname=postgres \
             sslmode={mode} sslrootcert={} connect_timeout=30",
            root.display()
        );
        let output = Command::new("psql")
            .args(["-X", "-A", "-t", "-v", "VERBOSITY=verbose", "-d", &target, "-c", sql])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Whether these bytes are anywhere in the proxy's writable memory.
    fn remembers(&self, needle: &str) -> bool {
        remembers(self.house.proxy.pid().unwrap(), needle)
    }

    fn assert_without_passwords(&self) {
        // Its own password must be there: so the search finds what there is to be found.
        assert!(self.remembers(SUPERUSER_PASSWORD), "the search finds nothing at all");
        for password in [ALICE, BOB] {
            assert!(!self.remembers(&password.concat()), "a client's password is in memory");
            assert!(!self.house.proxy.log().contains(&password.concat()));
        }
    }
}

/// Who is asked, by whom, over what.
const WHO: &str = "SELECT current_user || ' ' || session_user";

#[test]
fn users_log_in_by_a_verifier_that_a_server_has() {
    // Remembered answers, and what a change of the password is to them, are `auth::asking`'s.
    let login = Login::build("query_cache = \"0s\"").with_users();
    for _ in 0..3 {
        assert_eq!(login.psql_heard("alice", &ALICE.concat(), WHO).as_deref(), Ok("alice alice"));
        assert_eq!(login.psql_heard("bob", &BOB.concat(), WHO).as_deref(), Ok("bob bob"));
    }
    // Reads and writes alike, on servers that ask for a proof themselves.
    let create = "CREATE TEMP TABLE t AS SELECT 1; SELECT count(*) FROM t";
    assert!(login.psql_heard("alice", &ALICE.concat(), create).unwrap().ends_with('1'));

    // A wrong password, and one who does not exist: nobody learns which it was.
    let wrong = login.psql_heard("alice", "wrong", WHO).unwrap_err();
    let nobody = login.psql_heard("nobody", "wrong", WHO).unwrap_err();
    assert!(wrong.contains("password authentication failed for user \"alice\""), "{wrong}");
    assert_eq!(wrong.replace("alice", "nobody"), nobody);
    for refused in [&ALICE, &BOB] {
        let other = login.psql_heard("bob", &format!("{}x", refused.concat()), WHO);
        assert!(other.is_err());
    }
    // The next one is let in again, and nobody without TLS.
    assert_eq!(login.psql_heard("alice", &ALICE.concat(), WHO).as_deref(), Ok("alice alice"));
    let plain = login.psql_with("disable", ("alice", &ALICE.concat()), WHO).unwrap_err();
    assert!(plain.contains("TLS") || plain.contains("SSL"), "{plain}");
    login.assert_without_passwords();

    // A password that is changed: the new one is taken and the old one refused, at once.
    let mut old = ALICE.concat();
    for change in 0..10 {
        let new = format!("{}new{change}", ALICE[0]);
        login.everywhere(&format!("ALTER ROLE alice PASSWORD '{new}'"));
        assert_eq!(login.psql_heard("alice", &new, WHO).as_deref(), Ok("alice alice"));
        assert!(login.psql_heard("alice", &old, WHO).is_err(), "the old password still opens");
        old = new;
    }
}

/// A server refuses it too, but is not asked while a backend of the user is at rest here
/// (CVE-2025-2291 of PgBouncer).
#[test]
fn a_password_that_has_expired_lets_nobody_in() {
    let login = Login::build("query_cache = \"0s\"").with_users();
    let alice = ALICE.concat();
    for (until, who) in [
        ("infinity", Ok("alice alice")),
        ("2020-01-01", Err("password authentication failed for user \"alice\"")),
        ("9999-01-01", Ok("alice alice")),
    ] {
        login.everywhere(&format!("ALTER ROLE alice VALID UNTIL '{until}'"));
        match (login.psql_heard("alice", &alice, WHO), who) {
            (Ok(told), Ok(who)) => assert_eq!(told, who, "{until}"),
            (Err(told), Err(why)) => assert!(told.contains(why), "{until}: {told}"),
            (told, _) => panic!("{until}: {told:?}"),
        }
    }
}

/// psql keeps the code of a refused login to itself; a driver does not.
#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_have_one_sqlstate() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).auth(Auth::Password))
        .set("auth.method", "scram-sha-256")
        .build();
    for user in ["postgres", "nobody"] {
        let uri = format!("postgresql://{user}:wrong@{}/postgres", house.proxy.address());
        let refused = tokio_postgres::connect(&uri, tokio_postgres::NoTls).await;
        let refused = refused.err().expect("a wrong password");
        assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("28P01"));
    }
    assert_eq!(house.client().await.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

/// Something that a client does.
type Event<'a> = Box<dyn Fn() + 'a>;

/// Why a client did not come in is counted under its own name, not as a wrong password.
#[test]
fn each_end_of_a_login_is_counted_as_what_it_is() {
    let login = Login::build("[limits]\nlogin_timeout = \"10s\"\n").with_users();
    let address = login.house.proxy.address();
    let counted = |result: &str| {
        let series = format!("pgsteer_client_connections_total{{result=\"{result}\"}}");
        login.house.metric(&series).unwrap()
    };
    let knock = |bytes: &[u8]| {
        let mut wire = Wire::connect(address).unwrap();
        let reply = wire.ask(bytes);
        assert_eq!(reply.ended, Ended::Closed, "{reply:?}");
    };
    let psql = |user: &str, password: &str, database: &str| {
        login.psql(user, password, &format!("\\connect {database}")).is_ok()
    };
    let alice = ALICE.concat();
    let stop = || {
        login.house.cluster.servers().iter().for_each(|server| {
            server.stop(Shutdown::Immediate).unwrap();
        });
    };
    let ssl_then_plain = b"\0\0\0\x08\x04\xd2\x16\x2fthis is no handshake".as_slice();
    let cancel = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd".as_slice();
    let cases: Vec<(&str, Event<'_>)> = vec![
        ("accepted", Box::new(|| assert!(login.psql_heard("alice", &alice, WHO).is_ok()))),
        ("auth_failed", Box::new(|| assert!(login.psql("alice", "wrong", WHO).is_err()))),
        ("auth_failed", Box::new(|| assert!(login.psql_heard("nobody", "wrong", WHO).is_err()))),
        (
            "tls_error",
            Box::new(|| {
                assert!(login.psql_with("disable", ("alice", &alice), WHO).is_err());
            }),
        ),
        ("tls_error", Box::new(|| knock(ssl_then_plain))),
        ("protocol_error", Box::new(|| knock(b"GET / HTTP/1.1\r\n\r\n"))),
        ("abandoned", Box::new(|| drop(TcpStream::connect(address).unwrap()))),
        // It says nothing until its time is over.
        ("abandoned", Box::new(|| knock(b""))),
        ("cancel", Box::new(|| knock(cancel))),
        ("refused", Box::new(|| assert!(!psql("alice", &alice, "nosuch")))),
        (
            "unavailable",
            Box::new(|| {
                stop();
                assert!(login.psql("stranger", "x", WHO).is_err());
            }),
        ),
    ];
    for (result, happens) in cases {
        let before = counted(result);
        happens();
        await_that(&format!("one more of {result}"), || counted(result) >= before + 1.0);
    }
}

#[test]
fn users_of_a_file_of_verifiers_are_passed_on_to_servers() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.path().join("userlist.txt");
    // The verifiers are made by the servers; until then the file is empty.
    std::fs::write(&file, "").unwrap();
    let login = Login::build(&format!("query = \"\"\nfile = {:?}", file.display().to_string()))
        .with_users();
    assert!(login.psql("alice", &ALICE.concat(), WHO).is_err(), "nothing is known of her");
    let sql = "SELECT string_agg(format('\"%s\" \"%s\"', rolname, rolpassword), E'\\n') \
               FROM pg_authid WHERE rolname IN ('alice', 'bob')";
    let verifiers = login.house.server("primary").value(sql).unwrap();
    assert!(verifiers.contains("SCRAM-SHA-256$"), "{verifiers}");
    std::fs::write(&file, verifiers + "\n").unwrap();
    login.house.proxy.signal(rustix::process::Signal::HUP);
    let let_in =
        eventually(Duration::from_secs(30), || login.psql("alice", &ALICE.concat(), WHO).ok());
    assert_eq!(let_in.as_deref(), Some("alice alice"));
    assert_eq!(login.psql("bob", &BOB.concat(), WHO).as_deref(), Ok("bob bob"));
    assert!(login.psql("bob", &ALICE.concat(), WHO).is_err());
    login.assert_without_passwords();
}

/// A role, its password and its database are on the primary first. Whoever is let in by it must not
/// be turned away by a standby that has not heard of him yet.
#[test]
fn a_standby_that_is_behind_turns_nobody_away() {
    let login = Login::build("query_cache = \"0s\"");
    let (primary, standby) = (login.house.server("primary"), login.house.server("standby1"));
    primary.rows("CREATE TABLE t AS SELECT 1 AS i; GRANT SELECT ON t TO PUBLIC").unwrap();
    let read = "SELECT pg_is_in_recovery() FROM t";
    await_that("reads go to the standby", || {
        login.psql(SUPERUSER, SUPERUSER_PASSWORD, read).as_deref() == Ok("t")
    });
    standby.pause_replay().unwrap();
    let sql = format!("CREATE ROLE alice LOGIN PASSWORD '{}'", ALICE.concat());
    primary.rows(&sql).unwrap();
    // Who waits too long for the primary's word takes the standby's, on a crowded machine: then it
    // is pgsteer's own door that is shut, and nothing was asked of a backend.
    let beyond_the_door = |password: &str| {
        let shut = || login.house.proxy.log().matches("login refused").count();
        let past = eventually(Duration::from_mins(1), || {
            let before = shut();
            let answer = login.psql("alice", password, read);
            (answer.is_ok() || shut() == before).then_some(answer)
        });
        past.expect("the door stays shut")
    };
    for _ in 0..3 {
        let answer = beyond_the_door(&ALICE.concat());
        assert_eq!(answer.as_deref(), Ok("f"), "not from the standby");
    }
    let refused = || standby.logged("password authentication failed for user \"alice\"");
    let before = refused();
    assert!(before > 0, "the standby was never asked");
    let began = clock::now();
    for _ in 0..20 {
        beyond_the_door(&ALICE.concat()).unwrap();
    }
    let again = refused() - before;
    // Each shard leaves it alone for two seconds, and a crowded machine takes many for all this.
    let waited = clock::now().since(began);
    let most = 10 + usize::try_from(waited.as_secs()).unwrap();
    assert!(again < most, "it is asked again and again: {again} in {waited:?}");

    standby.resume_replay().unwrap();
    login.house.cluster.await_replay().unwrap();
    await_that("the standby takes part again", || {
        login.psql("alice", &ALICE.concat(), read).as_deref() == Ok("t")
    });
    // The same for a password that the standby does not know yet.
    standby.pause_replay().unwrap();
    let sql = format!("ALTER ROLE alice PASSWORD '{}'", BOB.concat());
    primary.rows(&sql).unwrap();
    for _ in 0..3 {
        assert!(beyond_the_door(&BOB.concat()).is_ok());
    }
    standby.resume_replay().unwrap();
}

/// The control user need not be a superuser: a function of the operator's shows it verifiers.
#[test]
fn a_function_that_shows_verifiers_makes_a_superuser_needless() {
    const SECRET: &str = "only-pgsteer-knows";
    let grants = [
        "CREATE ROLE pgsteer LOGIN REPLICATION PASSWORD 'only-pgsteer-knows'",
        "GRANT pg_monitor TO pgsteer",
    ];
    let page = include_str!("../../docs/privileges.md");
    let (_, rest) = page.split_once("CREATE SCHEMA").unwrap();
    let (function, _) = rest.split_once("```").unwrap();
    let function = format!("CREATE SCHEMA{function}");
    let (_, rest) = page.split_once("\nquery = ").unwrap();
    let (query, _) = rest.split_once('\n').unwrap();
    let files = Scratch::new().unwrap();
    certificates(files.path());
    let at = |name: &str| files.path().join(name).display().to_string();
    let (cert, key) = (at("server.crt"), at("server.key"));
    let toml = |query: &str| {
        format!(
            "[tls]\ncert = {cert:?}\nkey = {key:?}\n\
             [servers]\nuser = \"pgsteer\"\npassword = \"{SECRET}\"\n\
             [auth]\nmethod = \"scram-sha-256\"\n{query}\n"
        )
    };
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1).auth(Auth::Password))
        .toml(&toml(""))
        .build_after(|cluster| {
            for sql in grants {
                cluster.primary().rows(sql).unwrap();
            }
            cluster.await_replay().unwrap();
        });
    let login = Login { house, files }.with_users();
    let alice = ALICE.concat();
    // The default query needs what it has not got, and that is said.
    await_that("what is missing is said", || {
        let refused = login.psql("alice", &alice, WHO).unwrap_err();
        assert!(refused.contains("cannot check the password"), "{refused}");
        // Servers that are slow say nothing of it at the first attempt.
        login.house.proxy.log().contains("permission denied for table pg_authid")
    });

    login.everywhere(&function);
    login.house.reload(&toml(&format!("query = {query}\nquery_cache = \"0s\"")));
    assert_eq!(login.psql_heard("alice", &alice, WHO).as_deref(), Ok("alice alice"));
    assert!(login.psql_heard("alice", "wrong", WHO).is_err());
    assert!(login.psql_heard("nobody", &alice, WHO).is_err());
    login.everywhere("ALTER ROLE alice VALID UNTIL '2020-01-01'");
    assert!(login.psql_heard("alice", &alice, WHO).is_err(), "the password has expired");
}

/// A certificate that is renewed is shown from the next reload on; one that is no certificate
/// leaves the old one in place.
#[test]
fn a_renewed_certificate_counts_from_the_reload_on() {
    let login = Login::build("").with_users();
    let config = std::fs::read_to_string(login.house.proxy.file()).unwrap();
    let alice = ALICE.concat();
    let trusts = |login: &Login| login.psql_heard("alice", &alice, WHO);
    assert!(trusts(&login).is_ok());

    // Another authority: the client trusts the new certificate alone.
    certificates(login.files.path());
    assert!(trusts(&login).unwrap_err().contains("certificate"), "the old one is still shown");
    login.house.reload(&config);
    assert_eq!(trusts(&login).as_deref(), Ok("alice alice"));

    std::fs::write(login.files.path().join("server.crt"), "no certificate").unwrap();
    login.house.reload(&config);
    assert!(login.house.proxy.log().contains("holds no certificate"));
    assert_eq!(trusts(&login).as_deref(), Ok("alice alice"), "the one before is still shown");
}

/// How far a login had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It may begin with TLS.
    Asked,
    /// The certificate was shown, and the handshake is over.
    Secured,
    /// The client knows by what it may prove itself.
    Offered,
    /// It has the salt.
    Challenged,
}

/// A login by `SCRAM-SHA-256-PLUS` that stops on its way until it is told to go on.
struct Halfway {
    address: SocketAddr,
    stops: Stage,
    /// It has come so far.
    there: Option<oneshot::Sender<()>>,
    /// It may go on, and binds itself to this if it is not to what it was shown.
    go_on: oneshot::Receiver<Option<EndPoint>>,
}

/// What came of it: what it was shown, and whether it was let in.
type Arrived = (EndPoint, Result<(), String>);

impl Halfway {
    fn begin(
        address: SocketAddr,
        stops: Stage,
    ) -> (oneshot::Receiver<()>, oneshot::Sender<Option<EndPoint>>, JoinHandle<Arrived>) {
        let (there, is_there) = oneshot::channel();
        let (may, go_on) = oneshot::channel();
        let halfway = Self { address, stops, there: Some(there), go_on };
        (is_there, may, tasks::spawn("halfway", halfway.log_in()))
    }

    async fn stop_at(&mut self, stage: Stage) -> Option<EndPoint> {
        if self.stops != stage {
            return None;
        }
        self.there.take().unwrap().send(()).unwrap();
        (&mut self.go_on).await.unwrap()
    }

    async fn log_in(mut self) -> Arrived {
        let mut tcp = tokio::net::TcpStream::connect(self.address).await.unwrap();
        tcp.write_all(&SSL_REQUEST).await.unwrap();
        assert_eq!(tcp.read_u8().await.unwrap(), b'S');
        self.stop_at(Stage::Asked).await;
        let tls = ClientTls::new(Verification::Nothing, Roots::System, None).unwrap();
        let mut stream = tls.connect("localhost", Plain::Runtime(tcp)).await.unwrap();
        let shown = EndPoint(stream.end_point().unwrap());
        let mut bound_to = self.stop_at(Stage::Secured).await;

        let mut out = Vec::new();
        write_startup(&mut out, &[("user", "alice"), ("database", "postgres")]).unwrap();
        let offer = ask(&mut stream, &out).await;
        let AuthRequest::Sasl(offered) = read_auth_request(&offer).unwrap() else { panic!() };
        assert_eq!(offered[0], SCRAM_SHA_256_PLUS);
        bound_to = bound_to.or(self.stop_at(Stage::Offered).await);
        let binding = Binding::Bound(bound_to.unwrap_or_else(|| shown.clone()));
        let secret = ClientSecret::Password(Secret::new(ALICE.concat()).into());
        let (hello, client) = ClientFirst::new(secret, binding, Nonce::new([7; NONCE_BYTES]));
        out.clear();
        write_sasl_initial(&mut out, SCRAM_SHA_256_PLUS, hello.as_bytes()).unwrap();
        let salt = ask(&mut stream, &out).await;
        let AuthRequest::SaslContinue(salt) = read_auth_request(&salt).unwrap() else { panic!() };
        self.stop_at(Stage::Challenged).await;
        let (proof, client) = client.next(&salt).unwrap();
        out.clear();
        write_sasl_response(&mut out, proof.as_bytes()).unwrap();
        let last = ask(&mut stream, &out).await;
        if last[0] == b'E' {
            let error = read_error(&last).unwrap();
            let words = String::from_utf8_lossy(error.message);
            return (shown, Err(format!("{} {words}", error.code)));
        }
        let AuthRequest::SaslFinal(last) = read_auth_request(&last).unwrap() else { panic!() };
        client.finish(&last).unwrap();
        // All that a server tells at a login.
        while next(&mut stream).await[0] != b'Z' {}
        (shown, Ok(()))
    }
}

async fn ask(stream: &mut Stream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    next(stream).await
}

async fn next(stream: &mut Stream) -> Vec<u8> {
    let mut message = vec![0; frame::HEADER];
    stream.read_exact(&mut message).await.unwrap();
    let total = frame::peek(&message).unwrap().unwrap().total;
    message.resize(total, 0);
    stream.read_exact(&mut message[frame::HEADER..]).await.unwrap();
    message
}

/// Logins that are bound to their connection, and are on their way when the certificate is
/// renewed: however far each has come, it was shown the old one, is bound to that, and is let in.
/// A proof that is bound to the other one is worth nothing, on either side of the reload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_harms_no_bound_login_in_flight() {
    let login = Login::build("").with_users();
    let config = std::fs::read_to_string(login.house.proxy.file()).unwrap();
    let address = login.house.proxy.address();
    let whole = async |stops: Stage, bound_to: Option<EndPoint>| {
        let (is_there, may, arrives) = Halfway::begin(address, stops);
        is_there.await.unwrap();
        may.send(bound_to).unwrap();
        arrives.await.unwrap()
    };
    let (old, before) = whole(Stage::Offered, None).await;
    assert_eq!(before, Ok(()));
    let mut in_flight = Vec::new();
    let stages = [Stage::Asked, Stage::Secured, Stage::Offered, Stage::Challenged];
    // The last one will bind itself to the wrong certificate.
    for stops in stages.into_iter().chain([Stage::Offered]) {
        let (is_there, may, arrives) = Halfway::begin(address, stops);
        is_there.await.unwrap();
        in_flight.push((stops, may, arrives));
    }
    // The yes is sent just before the handshake begins.
    pgsteer::timer::sleep(Duration::from_millis(200)).await;

    certificates(login.files.path());
    login.house.reload(&config);
    let (new, after) = whole(Stage::Offered, None).await;
    assert_eq!(after, Ok(()));
    assert_ne!(new, old, "the certificate is still the old one");

    let wrong = Err("28000 SCRAM channel binding check failed".to_owned());
    let (_, may, arrives) = in_flight.pop().unwrap();
    may.send(Some(new.clone())).unwrap();
    assert_eq!(arrives.await.unwrap(), (old.clone(), wrong.clone()), "bound to what comes next");
    for (stops, may, arrives) in in_flight {
        may.send(None).unwrap();
        assert_eq!(arrives.await.unwrap(), (old.clone(), Ok(())), "{stops:?}");
    }
    let late = whole(Stage::Offered, Some(old)).await;
    assert_eq!(late, (new, wrong), "bound to what was before");
}

/// Rules in the place of a method, from the reload on; a file with a mistake leaves the old ones in
/// place.
#[test]
fn rules_count_from_the_reload_on() {
    let login = Login::build("").with_users();
    let alice = ALICE.concat();
    let hba = login.files.path().join("hba.conf");
    let config = std::fs::read_to_string(login.house.proxy.file()).unwrap();
    let rules = config.replace(
        "method = \"scram-sha-256\"",
        &format!("hba_file = {:?}", hba.display().to_string()),
    );
    assert_ne!(config, rules);
    let reload = |lines: &str| {
        std::fs::write(&hba, lines).unwrap();
        login.house.reload(&rules);
    };
    assert!(login.psql_heard("bob", &BOB.concat(), WHO).is_ok());

    reload("hostssl postgres alice samehost scram-sha-256\n");
    assert_eq!(login.psql_heard("alice", &alice, WHO).as_deref(), Ok("alice alice"));
    let refused = login.psql_heard("bob", &BOB.concat(), WHO).unwrap_err();
    assert!(refused.contains("no entry in pgsteer's rules: host \"127.0.0.1\""), "{refused}");

    reload("host all all all scram-sha-256\nhost all +staff all scram-sha-256\n");
    let log = login.house.proxy.log();
    assert!(log.contains("hba.conf:2: `+staff`"), "{log}");
    assert_eq!(login.psql_heard("alice", &alice, WHO).as_deref(), Ok("alice alice"));
    assert!(
        login.psql_heard("bob", &BOB.concat(), WHO).is_err(),
        "the rules from before still count"
    );

    reload("host all alice all reject\nhost all all all scram-sha-256\n");
    let refused = login.psql_heard("alice", &alice, WHO).unwrap_err();
    assert!(refused.contains("rules reject the connection"), "{refused}");
    assert_eq!(login.psql_heard("bob", &BOB.concat(), WHO).as_deref(), Ok("bob bob"));
}

#[test]
fn logins_work_while_the_primary_is_down() {
    let login = Login::build("").with_users();
    assert_eq!(login.psql_heard("alice", &ALICE.concat(), WHO).as_deref(), Ok("alice alice"));
    // Whether a user has made an operator `||` of his own is to be known.
    let read = "SELECT '' || pg_is_in_recovery() FROM pg_class LIMIT 1";
    await_that("reads with it go to the standby", || {
        login.psql("alice", &ALICE.concat(), read).as_deref() == Ok("true")
    });
    login.house.server("primary").stop(Shutdown::Immediate).unwrap();
    // One who was here before, and one whose verifier a standby must be asked for.
    for (user, password) in [("alice", ALICE), ("bob", BOB)] {
        let who = login.psql_heard(user, &password.concat(), WHO);
        assert_eq!(who.as_deref(), Ok(format!("{user} {user}").as_str()));
        let refused = login.psql(user, "wrong", WHO).unwrap_err();
        assert!(refused.contains("password authentication failed"), "{refused}");
        let write = login.psql(user, &password.concat(), "CREATE TABLE t ()").unwrap_err();
        assert!(write.contains("57P03"), "{write}");
    }
}
