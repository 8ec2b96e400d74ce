//! Two drivers of Rust through the proxy over TLS and SCRAM, in transaction mode, as applications
//! use them; those of other languages are in `tests/drivers` (see `drivers`), and have the same
//! checks.

use crate::drivers::{PASSWORD, Secured, stumble};
use crate::support::{House, await_that};
use futures_util::{SinkExt as _, StreamExt as _, pin_mut};
use pgsteer::clock;
use pgsteer::tasks;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection, Row as _};
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client};
use tokio_postgres_rustls::MakeRustlsConnect;

const LARGE: usize = 8 * 1024 * 1024;
/// Far more than a notification takes, even on a crowded machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What every driver must be told is wrong. The table `notes` has a row 1.
const MISTAKES: [(&str, &str); 4] = [
    ("SELECT 1/0", "22012"),
    ("SELECT nothing", "42703"),
    ("SELEKT", "42601"),
    ("INSERT INTO notes VALUES (1, 'again')", "23505"),
];

/// What is heard in the check of notifications.
fn everything() -> Vec<String> {
    let busy = (0..20).map(|number| format!("busy {number}"));
    ["idle".to_owned(), "own".to_owned()]
        .into_iter()
        .chain(busy)
        .chain(["end".to_owned()])
        .collect()
}

/// Standbys that are often behind, for as long as this lives.
struct Stumbling {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stumbling {
    fn begin(secured: &Arc<Secured>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (secured, until) = (Arc::clone(secured), Arc::clone(&done));
        let thread = std::thread::spawn(move || stumble(&secured.house, &until));
        Self { done, thread: Some(thread) }
    }
}

impl Drop for Stumbling {
    /// Waits for its end, so that the servers end with the test.
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlx_works_unchanged() {
    let secured = Arc::new(Secured::build(|blueprint| blueprint));
    let options = PgConnectOptions::new_without_pgpass()
        .host("localhost")
        .port(secured.house.proxy.address().port())
        .username("app")
        .password(PASSWORD)
        .database("app")
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(secured.files.path().join("ca.crt"));
    let pool =
        PgPoolOptions::new().max_connections(12).connect_with(options.clone()).await.unwrap();
    sqlx::query("CREATE TABLE notes (id int PRIMARY KEY, text text)").execute(&pool).await.unwrap();
    let mut connection = PgConnection::connect_with(&options).await.unwrap();

    await_catalog(&secured);
    let stumbling = Stumbling::begin(&secured);
    sqlx_prepares(&pool).await;
    let own = sqlx_reads_what_it_wrote(&mut connection, &secured.house).await;
    sqlx_transacts(&pool, &mut connection, 40 + own).await;
    sqlx_copies(&mut connection).await;
    sqlx_is_cancelled(&pool, &mut connection).await;
    sqlx_hears(&pool).await;
    for (sql, code) in MISTAKES {
        let error = sqlx::query(sql).execute(&mut connection).await.unwrap_err();
        let told = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        assert_eq!(told.as_deref(), Some(code), "{sql}");
        sqlx::query("SELECT 1").execute(&mut connection).await.unwrap();
    }
    let size = i32::try_from(LARGE).unwrap();
    let row = sqlx::query("SELECT repeat('x', $1)").bind(size).fetch_one(&mut connection).await;
    assert_eq!(row.unwrap().get::<String, _>(0).len(), LARGE);
    let text = "y".repeat(LARGE);
    let row = sqlx::query("SELECT length($1)").bind(text).fetch_one(&mut connection).await;
    assert_eq!(row.unwrap().get::<i32, _>(0), size);
    drop(stumbling);
}

/// More connections than backends, each with its own cache of prepared statements.
async fn sqlx_prepares(pool: &PgPool) {
    let mut writers = Vec::new();
    for id in 0..40_i32 {
        let pool = pool.clone();
        writers.push(tasks::spawn("writer", async move {
            let insert = "INSERT INTO notes VALUES ($1, $2)";
            sqlx::query(insert).bind(id).bind(format!("note {id}")).execute(&pool).await.unwrap();
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

/// How much it wrote.
async fn sqlx_reads_what_it_wrote(connection: &mut PgConnection, house: &House) -> i64 {
    let mut own = 0;
    for written in until_read_on_standbys(house) {
        let insert = "INSERT INTO notes VALUES ($1, 'own')";
        sqlx::query(insert).bind(-written).execute(&mut *connection).await.unwrap();
        let count = "SELECT count(*) FROM notes WHERE text = $1";
        for _ in 0..3 {
            let seen = sqlx::query_scalar::<_, i64>(count).bind("own");
            let seen = seen.fetch_one(&mut *connection).await.unwrap();
            assert_eq!(seen, i64::from(written), "a session reads what it wrote");
        }
        own = i64::from(written);
    }
    own
}

async fn sqlx_transacts(pool: &PgPool, connection: &mut PgConnection, notes: i64) {
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("DELETE FROM notes").execute(&mut *transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    let kept = "INSERT INTO notes VALUES (1000, 'kept')";
    sqlx::query(kept).execute(&mut *transaction).await.unwrap();
    let mut inner = transaction.begin().await.unwrap();
    sqlx::query(kept).execute(&mut *inner).await.unwrap_err();
    inner.rollback().await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notes")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(count, notes + 1);
    transaction.commit().await.unwrap();
}

async fn sqlx_copies(connection: &mut PgConnection) {
    let mut copy = connection.copy_in_raw("COPY notes FROM STDIN").await.unwrap();
    copy.send("2000\tcopied\n2001\tcopied\n".as_bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 2);
    let out = "COPY (SELECT * FROM notes WHERE id >= 2000) TO STDOUT";
    let mut out = connection.copy_out_raw(out).await.unwrap();
    let mut copied = Vec::new();
    while let Some(chunk) = out.next().await {
        copied.extend_from_slice(&chunk.unwrap());
    }
    drop(out);
    assert_eq!(String::from_utf8(copied).unwrap(), "2000\tcopied\n2001\tcopied\n");
    let mut copy = connection.copy_in_raw("COPY notes FROM STDIN").await.unwrap();
    copy.send("no number\tx\n".as_bytes()).await.unwrap();
    copy.finish().await.unwrap_err();
}

/// sqlx sends no cancel requests; its users end a statement by its process, which is asked for on
/// the same server in one transaction.
async fn sqlx_is_cancelled(pool: &PgPool, connection: &mut PgConnection) {
    let mut transaction = connection.begin().await.unwrap();
    let pid = "SELECT pg_backend_pid(), txid_current()";
    let pid: i32 = sqlx::query(pid).fetch_one(&mut *transaction).await.unwrap().get(0);
    let cancelling = async {
        loop {
            pgsteer::timer::sleep(Duration::from_millis(100)).await;
            let cancel = "/* pgsteer: role=primary */ SELECT pg_cancel_backend($1)";
            sqlx::query(cancel).bind(pid).execute(pool).await.unwrap();
        }
    };
    let error = tokio::select! {
        done = sqlx::query("SELECT pg_sleep(60)").execute(&mut *transaction) => done.unwrap_err(),
        () = cancelling => unreachable!("it goes on until the statement ends"),
    };
    let told = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    assert_eq!(told.as_deref(), Some("57014"));
    transaction.rollback().await.unwrap();
}

async fn sqlx_hears(pool: &PgPool) {
    let mut listener = PgListener::connect_with(pool).await.unwrap();
    listener.listen("notes").await.unwrap();
    let notify = async |payload: &str| {
        let sql = "SELECT pg_notify('notes', $1)";
        sqlx::query(sql).bind(payload).execute(pool).await.unwrap();
    };
    let mut heard = Vec::new();
    let until = async |listener: &mut PgListener, heard: &mut Vec<String>, last: &str| {
        while heard.last().is_none_or(|payload| payload != last) {
            let one = pgsteer::timer::timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
            heard.push(one.payload().to_owned());
        }
    };
    notify("idle").await;
    until(&mut listener, &mut heard, "idle").await;
    sqlx::query("NOTIFY notes, 'own'").execute(&mut listener).await.unwrap();
    until(&mut listener, &mut heard, "own").await;
    for number in 0..20 {
        notify(&format!("busy {number}")).await;
        for sql in ["SELECT count(*) FROM notes", "UPDATE notes SET text = text WHERE id = 1"] {
            sqlx::query(sql).execute(&mut listener).await.unwrap();
        }
    }
    notify("end").await;
    until(&mut listener, &mut heard, "end").await;
    assert_eq!(heard, everything());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres_works_unchanged() {
    let secured = Arc::new(Secured::build(|blueprint| blueprint));
    let (mut client, mut heard) = enter(&secured).await;
    client.batch_execute("CREATE TABLE notes (id int PRIMARY KEY, text text)").await.unwrap();
    let (other, _) = enter(&secured).await;

    await_catalog(&secured);
    let stumbling = Stumbling::begin(&secured);
    pipelines(&client).await;
    let own = reads_what_it_wrote(&client, &secured.house).await;
    transacts(&mut client, 50 + own).await;
    copies(&client).await;
    is_cancelled(&client, tls(&secured)).await;
    hears(&client, &other, &mut heard).await;
    for (sql, code) in MISTAKES {
        for error in [client.query(sql, &[]).await.err(), client.batch_execute(sql).await.err()] {
            assert_eq!(error.unwrap().code().map(SqlState::code), Some(code), "{sql}");
            client.query_one("SELECT 1", &[]).await.unwrap();
        }
    }
    let size = i32::try_from(LARGE).unwrap();
    let row = client.query_one("SELECT repeat('x', $1)", &[&size]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0).len(), LARGE);
    let row = client.query_one("SELECT length($1::text)", &[&"y".repeat(LARGE)]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), size);
    drop(stumbling);
}

fn tls(secured: &Secured) -> MakeRustlsConnect {
    MakeRustlsConnect::new(config(&secured.files.path().join("ca.crt")))
}

/// What trusts this authority.
pub(crate) fn config(root: &Path) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A client that demands that its proof is bound to the TLS connection, and what it is notified of.
async fn enter(secured: &Secured) -> (Client, mpsc::Receiver<String>) {
    let mut config = tokio_postgres::Config::new();
    config
        .host("localhost")
        .port(secured.house.proxy.address().port())
        .user("app")
        .password(PASSWORD)
        .dbname("app")
        .ssl_mode(tokio_postgres::config::SslMode::Require)
        .channel_binding(tokio_postgres::config::ChannelBinding::Require);
    let (client, mut connection) = config.connect(tls(secured)).await.unwrap();
    let (says, heard) = mpsc::channel(100);
    tasks::spawn("connection", async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(one) = message {
                says.send(one.payload().to_owned()).await.unwrap_or(());
            }
        }
    });
    (client, heard)
}

async fn pipelines(client: &Client) {
    let insert = client.prepare("INSERT INTO notes VALUES ($1, $2)").await.unwrap();
    let inserts = (0..50_i32).map(|id| {
        let insert = &insert;
        async move { client.execute(insert, &[&id, &"pipelined"]).await.unwrap() }
    });
    assert_eq!(futures_util::future::join_all(inserts).await.iter().sum::<u64>(), 50);
}

/// How much it wrote.
async fn reads_what_it_wrote(client: &Client, house: &House) -> i64 {
    let mut own = 0;
    let insert = client.prepare("INSERT INTO notes VALUES ($1, 'own')").await.unwrap();
    let count = client.prepare("SELECT count(*) FROM notes WHERE text = $1").await.unwrap();
    for written in until_read_on_standbys(house) {
        client.execute(&insert, &[&-written]).await.unwrap();
        for _ in 0..3 {
            let seen: i64 = client.query_one(&count, &[&"own"]).await.unwrap().get(0);
            assert_eq!(seen, i64::from(written));
        }
        own = i64::from(written);
    }
    own
}

async fn transacts(client: &mut Client, notes: i64) {
    let mut transaction = client.transaction().await.unwrap();
    transaction.execute("INSERT INTO notes VALUES (1000, 'kept')", &[]).await.unwrap();
    let inner = transaction.transaction().await.unwrap();
    inner.execute("INSERT INTO notes VALUES (1000, 'twice')", &[]).await.unwrap_err();
    inner.rollback().await.unwrap();
    transaction.commit().await.unwrap();

    let transaction = client.transaction().await.unwrap();
    transaction.execute("DELETE FROM notes", &[]).await.unwrap();
    let portal = transaction.bind("SELECT id FROM generate_series(1, 10) id", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 4).await.unwrap().len(), 4);
    assert_eq!(transaction.query_portal(&portal, 0).await.unwrap().len(), 6);
    transaction.rollback().await.unwrap();
    let row = client.query_one("SELECT count(*) FROM notes", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), notes + 1);
}

async fn copies(client: &Client) {
    let sink = client.copy_in("COPY notes FROM STDIN").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"2000\tcopied\n2001\tcopied\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    let out =
        client.copy_out("COPY (SELECT * FROM notes WHERE id >= 2000) TO STDOUT").await.unwrap();
    let chunks: Vec<_> = out.collect().await;
    assert_eq!(chunks.len(), 2, "a row a chunk");
    let sink = client.copy_in("COPY notes FROM STDIN").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"no number\tx\n")).await.unwrap();
    let error = sink.finish().await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_TEXT_REPRESENTATION));
}

async fn is_cancelled(client: &Client, tls: MakeRustlsConnect) {
    let cancel = client.cancel_token();
    let asleep = client.batch_execute("SELECT pg_sleep(60)");
    let cancelling = async {
        // A cancel that comes before its statement hits nothing: it is sent until it hits. One that
        // is still under way then would hit what comes next.
        pgsteer::timer::sleep(Duration::from_millis(500)).await;
        loop {
            cancel.cancel_query(tls.clone()).await.unwrap();
            pgsteer::timer::sleep(Duration::from_secs(10)).await;
        }
    };
    let cancelled = tokio::select! {
        done = asleep => done.unwrap_err(),
        () = cancelling => unreachable!("it goes on until the statement ends"),
    };
    assert_eq!(cancelled.code(), Some(&SqlState::QUERY_CANCELED));
    for _ in 0..50 {
        client.query_one("SELECT 1", &[]).await.unwrap();
    }
}

async fn hears(client: &Client, other: &Client, ear: &mut mpsc::Receiver<String>) {
    let mut heard = Vec::new();
    let until = async |ear: &mut mpsc::Receiver<String>, heard: &mut Vec<String>, last: &str| {
        while heard.last().is_none_or(|payload| payload != last) {
            heard.push(pgsteer::timer::timeout(PATIENCE, ear.recv()).await.unwrap().unwrap());
        }
    };
    client.batch_execute("LISTEN notes").await.unwrap();
    other.batch_execute("NOTIFY notes, 'idle'").await.unwrap();
    until(ear, &mut heard, "idle").await;
    client.batch_execute("NOTIFY notes, 'own'").await.unwrap();
    until(ear, &mut heard, "own").await;
    for number in 0..20 {
        other.batch_execute(&format!("NOTIFY notes, 'busy {number}'")).await.unwrap();
        client.query_one("SELECT count(*) FROM notes", &[]).await.unwrap();
        client.execute("UPDATE notes SET text = text WHERE id = 1", &[]).await.unwrap();
    }
    other.batch_execute("NOTIFY notes, 'end'").await.unwrap();
    until(ear, &mut heard, "end").await;
    assert_eq!(heard, everything());
}

/// Waits until the table is known: before, it is read on the primary alone.
fn await_catalog(secured: &Secured) {
    await_that("reads of the table on standbys", || {
        secured.psql("SELECT pg_is_in_recovery() FROM notes RIGHT JOIN (SELECT 1) one ON true")
            == "t"
    });
}

/// Fifty times, and on until what a session had just written was read on a standby, too: one that
/// is slow leaves such reads to the primary.
fn until_read_on_standbys(house: &House) -> impl Iterator<Item = i32> {
    const LEAST: i32 = 50;
    let begun = clock::now();
    (1..).take_while(move |number| {
        let standbys = house.cluster.standbys().iter();
        let read = standbys.map(|server| server.logged("SELECT count(*) FROM notes WHERE text"));
        if *number > LEAST && read.sum::<usize>() > 0 {
            return false;
        }
        let waited = clock::now().since(begun);
        assert!(waited < 2 * PATIENCE, "no session read its own writes on a standby");
        true
    })
}
