//! However the bytes are cut on their way, the replies are the server's own.
//!
//! Between the clients and the proxy the test cuts; between the proxy and its server stands a
//! relay that cuts both directions. What comes back is compared with what the server says to the
//! same bytes without any proxy.

use crate::raw::{
    Answer, Message, Raw, bind, bind_portal, close, copy_data, copy_done, copy_fail, describe,
    execute, execute_portal, flush, parse, query, sync,
};
use crate::support::{Blueprint, Dice, cluster, program};
use pgsteer::sandbox::{Cluster, Plan, Proxy, SUPERUSER, StatementLog};
use pgsteer::tasks;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const LOGIN: [(&str, &str); 2] = [("user", SUPERUSER), ("database", "postgres")];

/// What a client sends, and how many `ReadyForQuery` answer it. Each leaves things as they were.
struct Talk {
    bytes: Vec<u8>,
    ready: usize,
}

fn talk(ready: usize, messages: &[Vec<u8>]) -> Talk {
    Talk { bytes: messages.concat(), ready }
}

/// One of each kind, short enough to be cut at every byte.
fn short() -> Talk {
    talk(
        3,
        &[
            query("SELECT 1; SELECT 'two'"),
            parse("s", "SELECT $1::int + 1"),
            describe("s"),
            bind("s", &[b"41"]),
            execute(),
            close("s"),
            sync(),
            query("SELECT nothing"),
        ],
    )
}

fn short_copy() -> Talk {
    talk(
        3,
        &[
            query("COPY c FROM STDIN"),
            copy_data(b"1\n2\n"),
            copy_data(b"3\n"),
            copy_done(),
            query("COPY c TO STDOUT"),
            query("TRUNCATE c"),
        ],
    )
}

/// Longer ones.
fn talks() -> Vec<Talk> {
    let mut rows = vec![query("COPY c FROM STDIN")];
    rows.extend((0..400).map(|number| copy_data(format!("{number}\n").as_bytes())));
    let with = |last: &[Vec<u8>]| [rows.clone(), last.to_vec()].concat();
    let one = |value: &str| [bind("p", &[value.as_bytes()]), execute()].concat();
    vec![
        short(),
        short_copy(),
        talk(1, &[query("SELECT i, repeat('x', i) FROM generate_series(1, 300) i")]),
        talk(1, &[query("")]),
        talk(2, &[query("DO $$ BEGIN RAISE NOTICE 'listen'; END $$"), query("SELECT 1/0")]),
        // A pipeline whose second batch fails in its middle.
        talk(
            4,
            &[
                parse("p", "SELECT 10 / $1::int"),
                one("5"),
                one("2"),
                sync(),
                one("1"),
                // Refused where it is bound; a division by zero depends on the plan.
                one("x"),
                one("3"),
                sync(),
                one("10"),
                sync(),
                close("p"),
                sync(),
            ],
        ),
        // A portal that is read in pieces, in a transaction.
        talk(
            3,
            &[
                query("BEGIN"),
                parse("", "SELECT generate_series(1, 7)"),
                bind_portal("c", "", &[]),
                execute_portal("c", 3),
                flush(),
                execute_portal("c", 3),
                execute_portal("c", 3),
                sync(),
                query("COMMIT"),
            ],
        ),
        talk(3, &with(&[copy_done(), query("COPY c TO STDOUT"), query("TRUNCATE c")])),
        talk(2, &with(&[copy_fail("enough"), query("SELECT count(*) FROM c")])),
        talk(
            2,
            &[
                query("COPY c FROM STDIN"),
                copy_data(b"1\nnot a number\n"),
                copy_data(&[b'7'; 5000]),
                copy_done(),
                query("SELECT count(*) FROM c"),
            ],
        ),
        talk(
            1,
            &[parse("", "SELECT length($1), $1"), bind("", &[&[b'p'; 20_000]]), execute(), sync()],
        ),
        talk(1, &[bind("unknown", &[]), execute(), parse("x", "SELECT 1"), sync()]),
    ]
}

/// Says it in one piece, and hears the whole answer.
async fn say(client: &mut Raw, talk: &Talk) -> Vec<Answer> {
    client.send(&talk.bytes).await;
    hear(client, talk).await
}

async fn hear(client: &mut Raw, talk: &Talk) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..talk.ready {
        let Answer(messages) = client.ready().await;
        // Parameters come when their server finds time for them.
        let said = |message: &Message| message.tag() != 'S';
        answers.push(Answer(messages.into_iter().filter(said).collect()));
    }
    answers
}

fn assert_same(seen: &[Answer], expected: &[Answer], how: &str) {
    for (seen, expected) in seen.iter().zip(expected) {
        assert_eq!(seen.tags(), expected.tags(), "{how}");
        assert!(seen == expected, "{how}: {seen:?} is not {expected:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_bytes_may_be_cut_anywhere() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).log(StatementLog::Off))
        .set("pool.size", "1")
        .build();
    let server = house.server("primary").address().parse().unwrap();
    let mut straight = Raw::connect(server, &LOGIN).await.unwrap();
    straight.value("CREATE TABLE c (i int)").await;
    let mut client = Raw::enter(&house).await;
    for talk in [short(), short_copy()] {
        let expected = say(&mut straight, &talk).await;
        assert_same(&say(&mut client, &talk).await, &expected, "whole");
        for at in 1..talk.bytes.len() {
            let (first, second) = talk.bytes.split_at(at);
            client.send(first).await;
            // Long enough for the first part to be dealt with; shorter would only test less.
            pgsteer::timer::sleep(Duration::from_millis(2)).await;
            client.send(second).await;
            assert_same(&hear(&mut client, &talk).await, &expected, &format!("cut at {at}"));
        }
    }
}

/// A client may ask before it was let in: for a session, and for replication.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_may_be_cut_anywhere_and_is_not_waited_for() {
    let house = Blueprint::new().servers(|plan| plan.standbys(0).log(StatementLog::Off)).build();
    let session = [query("SELECT 'behind the login'"), query("SELECT 'and a second'")].concat();
    let long = query(&format!("SELECT length('{}'), 'a long one'", "x".repeat(3000)));
    let mut replicates = LOGIN.to_vec();
    replicates.push(("replication", "true"));
    let cases = [
        (LOGIN.as_slice(), session, "and a second", 1),
        (LOGIN.as_slice(), long, "a long one", 97),
        (replicates.as_slice(), query("IDENTIFY_SYSTEM"), "systemid", 1),
    ];
    for (login, asked, answer, step) in cases {
        let mut bytes = Vec::new();
        pgsteer::wire::message::write_startup(&mut bytes, login).unwrap();
        bytes.extend(asked);
        for at in (1..=bytes.len()).step_by(step) {
            let mut stream = TcpStream::connect(house.proxy.address()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(&bytes[..at]).await.unwrap();
            pgsteer::timer::sleep(Duration::from_millis(2)).await;
            stream.write_all(&bytes[at..]).await.unwrap();
            let mut seen = Vec::new();
            while !seen.windows(answer.len()).any(|part| part == answer.as_bytes()) {
                let read = stream.read_buf(&mut seen);
                let read = pgsteer::timer::timeout(crate::raw::PATIENCE, read).await;
                assert_ne!(read.unwrap().unwrap(), 0, "{answer}: closed after a cut at {at}");
            }
        }
    }
}

/// How a relay cuts.
#[derive(Debug, Clone, Copy)]
enum Knife {
    /// Into single bytes.
    Bytes,
    /// Into pieces of at most so many.
    UpTo(u64),
}

/// Passes connections on to `server`, cut into pieces; its address.
async fn relay(server: SocketAddr, knife: Knife, dice: Dice) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tasks::spawn("relay", async move {
        let mut dice = dice;
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(server).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            for (from, to) in [(near_in, far_out), (far_in, near_out)] {
                dice.roll();
                drop(tasks::spawn("pump", pump(from, to, knife, dice.clone())));
            }
        }
    }));
    address
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, knife: Knife, mut dice: Dice) {
    let mut buffer = vec![0; 8192];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let most = match knife {
                Knife::Bytes => 1,
                Knife::UpTo(most) => 1 + dice.below(most),
            };
            let piece = rest.len().min(usize::try_from(most).unwrap());
            if to.write_all(&rest[..piece]).await.is_err() {
                return;
            }
            rest = &rest[piece..];
            // Lets the other side read before the next piece comes.
            tokio::task::yield_now().await;
        }
    }
}

fn behind(cluster: &Cluster, number: usize, relay: SocketAddr) -> Proxy {
    let dir = cluster.workshop(&format!("pgsteer{number}")).unwrap();
    let proxy = Proxy::new(program(), dir).unwrap();
    // Answers that come in pieces take their time.
    let proxy = proxy.args(["--server", &relay.to_string(), "--set", "pool.size=2"]).args([
        "--set",
        "servers.check_timeout=1m",
        "--set",
        "routing.observation_age_max=10m",
    ]);
    proxy.start().unwrap();
    proxy.await_ready().unwrap();
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_bytes_may_be_cut_anywhere() {
    let cluster = cluster(&Plan::new().standbys(0));
    let server: SocketAddr = cluster.server("primary").unwrap().address().parse().unwrap();
    let mut dice = Dice::from_env();
    let mut straight = Raw::connect(server, &LOGIN).await.unwrap();
    straight.value("CREATE TABLE c (i int)").await;
    let mut expected = Vec::new();
    for talk in talks() {
        expected.push(say(&mut straight, &talk).await);
    }
    let knives = [Knife::Bytes, Knife::UpTo(7), Knife::UpTo(60), Knife::UpTo(3000)];
    for (number, knife) in knives.into_iter().enumerate() {
        dice.roll();
        let proxy = behind(&cluster, number, relay(server, knife, dice.clone()).await);
        let mut client = Raw::connect(proxy.address(), &LOGIN).await.unwrap();
        let mut other = Raw::connect(proxy.address(), &LOGIN).await.unwrap();
        for _ in 0..3 {
            for (talk, expected) in talks().iter().zip(&expected) {
                let how = format!("{knife:?}");
                assert_same(&say(&mut client, talk).await, expected, &how);
                // Through the client's side as well, in random pieces.
                let mut rest = &talk.bytes[..];
                while !rest.is_empty() {
                    let piece = rest.len().min(1 + usize::try_from(dice.below(900)).unwrap());
                    other.send(&rest[..piece]).await;
                    rest = &rest[piece..];
                    tokio::task::yield_now().await;
                }
                assert_same(&hear(&mut other, talk).await, expected, &how);
            }
        }
    }
}
