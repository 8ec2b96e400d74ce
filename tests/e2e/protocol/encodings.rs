//! Letters other than UTF-8 pass byte for byte, and are never taken for SQL that they are not.

use crate::raw::{Answer, Raw, bind, execute, message_of, parse, query, sync};
use crate::support::{Blueprint, House};
use pgsteer::sandbox::StatementLog;
use std::net::SocketAddr;

fn house(standbys: usize, size: &str) -> House {
    Blueprint::new()
        .servers(|plan| plan.standbys(standbys).log(StatementLog::Off))
        .set("pool.size", size)
        .any_lag()
        .unhurried()
        .build()
}

/// A `Query` of these very bytes.
fn bytes(sql: &[u8]) -> Vec<u8> {
    message_of(b'Q', |out| {
        out.extend_from_slice(sql);
        out.push(0);
    })
}

async fn enter(address: SocketAddr, database: &str, encoding: &str) -> Raw {
    let login = [("user", "postgres"), ("database", database), ("client_encoding", encoding)];
    Raw::connect(address, &login).await.unwrap()
}

async fn ask(raw: &mut Raw, sql: &[u8]) -> Answer {
    raw.send(&bytes(sql)).await;
    raw.ready().await
}

/// What a client can tell of an answer: rows to the byte, errors by code and text.
fn told(answer: &Answer) -> Vec<Vec<u8>> {
    let texts = answer.0.iter().map(|message| match message.tag() {
        'E' | 'N' => {
            let mut fields = message.0[5..].split(|byte| *byte == 0);
            fields.find(|field| field.first() == Some(&b'M')).unwrap_or_default().to_vec()
        }
        _ => message.0.clone(),
    });
    texts.collect()
}

/// Databases and what clients of them speak, with a text in that.
const LETTERS: [(&str, &str, &[u8]); 7] = [
    ("postgres", "LATIN1", b"caf\xe9 \xa4"),
    ("postgres", "SJIS", b"\x95\x5c\x83\x5c\x8f\x5c"),
    ("postgres", "EUC_JP", b"\xc9\xbd\xa5\xbd"),
    ("postgres", "BIG5", b"\xb3\x5c\xa5\x5c"),
    ("latin1", "LATIN1", b"caf\xe9"),
    ("latin1", "UTF8", "caf\u{e9}".as_bytes()),
    ("ascii", "SQL_ASCII", b"\xff\xfe\x80 caf\xe9"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_go_in_and_out_to_the_byte() {
    let house = house(0, "20");
    let primary = house.server("primary");
    for (name, encoding) in [("latin1", "LATIN1"), ("ascii", "SQL_ASCII")] {
        let sql = format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' \
             LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        primary.rows(&sql).unwrap();
    }
    let direct: SocketAddr = primary.address().parse().unwrap();
    for (database, encoding, text) in LETTERS {
        let mut heard = Vec::new();
        for address in [direct, house.proxy.address()] {
            let mut raw = enter(address, database, encoding).await;
            assert_eq!(raw.params["client_encoding"], encoding);
            let quoted = [b"'", text, b"'"].concat();
            let table = [b"CREATE TEMP TABLE t AS SELECT ".as_slice(), &quoted, b"::text AS x"];
            let mut said = vec![ask(&mut raw, &table.concat()).await];
            said.push(ask(&mut raw, b"SELECT x || '' AS x, octet_length(x) FROM t").await);
            said.push(
                ask(&mut raw, &[b"SELECT x || '' AS x FROM t WHERE x = ", &*quoted].concat()).await,
            );
            said.push(ask(&mut raw, &[b"SELECT 1 AS \"", text, b"\""].concat()).await);
            said.push(ask(&mut raw, &[b"TABLE \"", text, b"\""].concat()).await);
            let batch = [parse("", "SELECT $1::text"), bind("", &[text]), execute()];
            said.push(raw.batch(&batch).await);
            heard.push(said.iter().map(told).collect::<Vec<_>>());
        }
        assert_eq!(heard[0], heard[1], "{database}, {encoding}");
        let row = heard[1][1].iter().find(|message| message[0] == b'D').unwrap();
        assert!(row.windows(text.len()).any(|part| part == text), "{database}, {encoding}");
    }
}

/// What a byte is depends on the encoding: a backslash, a quote, or the half of a letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_something_else_goes_to_the_primary() {
    let house = house(1, "20");
    house.await_catalog();
    let address = house.proxy.address();
    let reads: &[u8] = b"SELECT pg_is_in_recovery(), 'x' FROM pg_class LIMIT 1";
    let letters: &[u8] = b"SELECT pg_is_in_recovery(), '\x95\x5c' FROM pg_class LIMIT 1";
    for (encoding, sql, expected) in [
        ("UTF8", reads, "t"),
        ("LATIN1", reads, "t"),
        ("LATIN1", letters, "t"),
        ("SJIS", reads, "f"),
        ("SJIS", letters, "f"),
        ("BIG5", reads, "f"),
    ] {
        let mut raw = enter(address, "postgres", encoding).await;
        let answer = ask(&mut raw, sql).await;
        assert_eq!(answer.value(), expected, "{encoding}: {answer:?}");
    }

    // Two strings, or one and a call: of a function that succeeds on a standby, and is of no use.
    let confusing = "SELECT '\\' || ', pg_advisory_lock(7), ' --' FROM pg_class LIMIT 1";
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7";
    let locked = || {
        let of = |name: &str| house.server(name).value(locks).unwrap();
        (of("primary"), of("standby1"))
    };
    let on_primary = ("1".to_owned(), "0".to_owned());
    let off = "SET standard_conforming_strings = off";
    let mut session = enter(address, "postgres", "UTF8").await;
    session.query(off).await;
    assert_eq!(session.params["standard_conforming_strings"], "off");
    assert_eq!(session.query(confusing).await.code(), None);
    assert_eq!(locked(), on_primary);
    session.leave().await;
    // Likewise by a startup parameter, and in one batch with what it changes.
    let login = [
        ("user", "postgres"),
        ("database", "postgres"),
        ("options", "-c standard_conforming_strings=off"),
    ];
    let mut session = Raw::connect(address, &login).await.unwrap();
    assert_eq!(session.query(confusing).await.code(), None);
    assert_eq!(locked(), on_primary);
    session.leave().await;
    let mut session = enter(address, "postgres", "UTF8").await;
    let statement = |sql: &str| [parse("", sql), bind("", &[]), execute()].concat();
    session.send(&[statement(off), statement(confusing), sync()].concat()).await;
    assert_eq!(session.ready().await.code(), None);
    assert_eq!(locked(), on_primary);
    session.leave().await;
}

/// A setting means the same letters on every backend, or stays on the one that knows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_keep_their_letters() {
    let house = house(0, "2");
    let address = house.proxy.address();
    let mut latin = enter(address, "postgres", "LATIN1").await;
    let mut utf = enter(address, "postgres", "UTF8").await;
    let mut other = enter(address, "postgres", "LATIN1").await;
    let bytes_of = |answer: &Answer| {
        let row = answer.0.iter().find(|message| message.tag() == 'D').unwrap();
        row.0[11..].to_vec()
    };
    for _ in 0..3 {
        ask(&mut utf, "SET app.who = 'caf\u{e9}'".as_bytes()).await;
        // Takes the other's backend, and leaves it speaking LATIN1.
        ask(&mut other, b"SELECT 1").await;
        ask(&mut other, b"SET work_mem = '5MB'").await;
        let shown = ask(&mut utf, b"SHOW app.who").await;
        assert_eq!(bytes_of(&shown), "caf\u{e9}".as_bytes());
        let length = ask(&mut utf, b"SELECT length(current_setting('app.who'))").await;
        assert_eq!(length.value(), "4");
    }
    ask(&mut latin, b"SET app.who = 'caf\xe9'").await;
    let (pid, mut pids) = (ask(&mut latin, b"SELECT pg_backend_pid()").await.value(), Vec::new());
    for _ in 0..3 {
        pids.push(other.query("SELECT pg_backend_pid()").await.value());
        assert_eq!(bytes_of(&ask(&mut latin, b"SHOW app.who").await), b"caf\xe9");
    }
    assert!(!pids.contains(&pid), "it stays where it is: {pids:?}");
    latin.send(&query("RESET app.who")).await;
    latin.ready().await;
    assert_eq!(
        latin.value("SELECT length(coalesce(current_setting('app.who', true), ''))").await,
        "0"
    );
}

/// A name of SQL and one of the protocol are the same if their bytes are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_statements_are_the_same_to_the_byte() {
    let house = house(0, "1");
    let direct: SocketAddr = house.server("primary").address().parse().unwrap();
    // Two names that are one to who knows only the letters of ASCII.
    let names: [&[u8]; 2] = [b"caf\xe9", b"caf\xe8"];
    let given = |name: &[u8]| {
        let sql = [b"SELECT '".as_slice(), name, b"'::text\0\0\0"].concat();
        [message_of(b'P', |out| out.extend([name, b"\0", &sql].concat())), sync()].concat()
    };
    let sql = |verb: &str, name: &[u8]| bytes(&[verb.as_bytes(), name].concat());
    let mut script = vec![given(names[0]), given(names[1]), given(names[0])];
    script.extend(names.map(|name| sql("EXECUTE ", name)));
    script.push(query("BEGIN"));
    script.extend(names.map(|name| sql("EXECUTE ", name)));
    script.push(sql("PREPARE x AS SELECT 1; PREPARE ", &[names[1], b" AS SELECT 1"].concat()));
    script.extend([query("ROLLBACK"), query("DEALLOCATE x")]);
    script.push(sql("BEGIN; SELECT 1/0; DEALLOCATE ", names[0]));
    script.extend([query("ROLLBACK"), sql("EXECUTE ", names[0])]);
    script.push(sql("DEALLOCATE ", names[0]));
    script.extend(names.map(|name| sql("EXECUTE ", name)));
    script.extend([given(names[0]), sql("EXECUTE ", names[0])]);

    let mut heard = Vec::new();
    for address in [direct, house.proxy.address()] {
        let mut raw = enter(address, "postgres", "LATIN1").await;
        let mut answers = Vec::new();
        for messages in &script {
            raw.send(messages).await;
            answers.push(told(&raw.ready().await));
        }
        raw.leave().await;
        heard.push(answers);
    }

    for ((alone, heard), sent) in heard[0].iter().zip(&heard[1]).zip(&script) {
        assert_eq!(heard, alone, "{}", sent.escape_ascii());
    }
    // The only backend knows nothing any more by the client's names.
    let mut other = Raw::enter(&house).await;
    let there = "SELECT string_agg(name, ' ') FROM pg_prepared_statements \
                 WHERE name NOT LIKE 'pgsteer%'";
    assert_eq!(other.value(there).await, "");
}

/// A name is lent in the letters of one moment, and taken back in those of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_taken_back_in_whichever_letters_they_were_lent() {
    let house = house(0, "1");
    let direct: SocketAddr = house.server("primary").address().parse().unwrap();
    // Of the second there is nothing in LATIN1.
    let names = ["caf\u{e9}", "\u{436}"];
    let other = "SET LOCAL client_encoding = 'LATIN1'";
    let mut script = Vec::new();
    for name in names {
        script.push([parse(name, "SELECT 'it'"), sync()].concat());
        script.push(query("SELECT 'ahead'"));
        for end in ["COMMIT", "ROLLBACK"] {
            script.push(query("BEGIN"));
            script.push(query(&format!("EXECUTE {name}")));
            script.push(query("SET client_encoding = 'LATIN1'"));
            script.push(query("SELECT 'in between'"));
            script.push(query(end));
            script.push(query("SET client_encoding = 'UTF8'"));
            script.push(query(&format!("EXECUTE {name}")));
        }
        script.push(query(&format!("BEGIN; {other}; SELECT 1/0; DEALLOCATE {name}")));
        script.push(query("ROLLBACK"));
        script.push(query(&format!("BEGIN; SAVEPOINT a; {other}")));
        script.push(query("ROLLBACK TO a"));
        script.push(query(&format!("EXECUTE {name}")));
        script.push(query(&format!("{other}; DEALLOCATE {name}; SELECT 1/0")));
        script.push(query("ROLLBACK TO a"));
        script.push(query(&format!("EXECUTE {name}")));
        script.push(query("COMMIT"));
    }

    let (mut heard, mut pids) = (Vec::new(), Vec::new());
    for address in [direct, house.proxy.address()] {
        let mut raw = enter(address, "postgres", "UTF8").await;
        let before = raw.value("SELECT pg_backend_pid()").await;
        let mut answers = Vec::new();
        for messages in &script {
            raw.send(messages).await;
            answers.push(told(&raw.ready().await));
        }
        pids.push((before, raw.value("SELECT pg_backend_pid()").await));
        raw.leave().await;
        heard.push(answers);
    }

    for ((alone, heard), sent) in heard[0].iter().zip(&heard[1]).zip(&script) {
        assert_eq!(heard, alone, "{}", sent.escape_ascii());
    }
    for (before, after) in pids {
        assert_eq!(before, after, "the backend was closed");
    }
    let mut other = Raw::enter(&house).await;
    let there = "SELECT string_agg(name, ' ') FROM pg_prepared_statements \
                 WHERE name NOT LIKE 'pgsteer%'";
    assert_eq!(other.value(there).await, "");
}
