//! The table of classified statements, each sent through the proxy: simple, extended, and to
//! `pgsteer route`.

use super::furnished;
use crate::statements::CASES;
use crate::statements::Case;
use crate::statements::Setting;
use crate::support::Ended;
use crate::support::House;
use crate::support::Reply;
use crate::support::command;
use pgsteer::wire::frame;
use pgsteer::wire::message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;

/// How a statement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Simple,
    Extended,
}

/// One statement that was sent.
#[derive(Debug)]
struct Sent {
    marker: String,
    case: &'static Case,
    how: How,
    told: String,
}

/// Every statement runs where the table says, in the servers' own words, and where
/// `pgsteer route` said that it would.
#[test]
fn every_statement_runs_where_the_table_says() {
    let house = furnished();
    // Those that change tables come last: each change makes the catalog unknown for a moment, and
    // what is not known goes to the primary.
    let (fit, unfit): (Vec<&'static Case>, Vec<&'static Case>) =
        CASES.iter().partition(|case| wanted(case, How::Simple) != ["primary"]);
    let told = |case: &&Case| {
        // An empty text is no question.
        if case.sql.is_empty() { "standby".to_owned() } else { told(&route(&house, case.sql)) }
    };
    let routes: Vec<String> = fit.iter().chain(&unfit).map(told).collect();

    let mut sent = Vec::new();
    for (case, told) in fit.iter().chain(&unfit).zip(&routes) {
        for how in [How::Simple, How::Extended] {
            if how == How::Extended && case.setting == Setting::SimpleOnly {
                continue;
            }
            let marker = format!("m{}x", sent.len());
            let reply = send(&house, case, how, &marker);
            if case.primary.is_none() {
                assert!(reply.is_good(), "{how:?} {}: {reply:?}", case.sql);
            }
            sent.push(Sent { marker, case, how, told: told.clone() });
        }
    }

    let ran = ran(&house);
    let mut wrong = Vec::new();
    let mut standbys = [0, 0];
    for Sent { marker, case, how, told } in &sent {
        let places = ran.get(marker).cloned().unwrap_or_default();
        standbys[0] += usize::from(places == ["standby1"]);
        standbys[1] += usize::from(places == ["standby2"]);
        let wanted = wanted(case, *how);
        let held: Vec<_> = places
            .iter()
            .map(|place| if place == "primary" { "primary" } else { "standby" })
            .collect();
        if held != wanted {
            wrong.push(format!("{how:?} {}: on {places:?}, not {wanted:?}", case.sql));
        }
        if case.setting == Setting::Anywhere && !wanted.is_empty() && [told.as_str()] != *wanted {
            wrong.push(format!("`pgsteer route` says {told} of {}", case.sql));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), sent.len());
    assert!(standbys.iter().all(|ran| *ran > 50), "both standbys take their share: {standbys:?}");
}

/// The command asks the running proxy.
#[test]
fn the_command_route_says_where_and_why() {
    let house = furnished();
    let ask_in = |database: &str, sql: &str| {
        let http = house.proxy.http_address().to_string();
        let args = ["--http", &http, "-o", "json", "route", "--database", database, sql];
        let said = command().args(args).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        serde_json::from_slice::<Value>(&said.stdout).unwrap()
    };

    let ask = |sql: &str| ask_in("postgres", sql);

    let read = ask("SELECT * FROM cheap_names");
    let write = ask("SELECT * FROM more_numbers");

    assert_eq!(read["target"], "standby", "{read}");
    let standbys = ["standby1", "standby2"].map(|name| house.server(name).address());
    assert!(standbys.iter().any(|address| read["server"] == **address), "{read}");
    assert_eq!(write["target"], "primary", "{write}");
    assert_eq!(write["server"], *house.server("primary").address(), "{write}");
    assert!(write["why"].to_string().contains("more_numbers"), "the reason is named: {write}");

    // A database of which nothing is known yet; of this one nothing ever will be.
    let unknown = ask_in("none", "SELECT * FROM cheap_names")["why"].to_string();
    assert!(unknown.contains("ask again in a moment"), "{unknown}");
    assert!(!ask("SELECT 1")["why"].to_string().contains("ask again"), "it needs no catalog");
}

/// The data, its end and the next `Sync` arrive at once, as tokio-postgres and libpq send them.
#[test]
fn a_copy_by_the_extended_protocol_comes_to_its_end() {
    let house = House::build();
    let mut wire = house.wire();
    wire.run("CREATE TABLE copied (i int)");
    for (data, code) in [("1\n2\n", ""), ("x\n", "22P02")] {
        let mut bytes = Vec::new();
        message::write_parse(&mut bytes, b"", b"COPY copied FROM STDIN");
        message::write_bind_text(&mut bytes, &[]);
        message::write_execute(&mut bytes);
        message::write_sync(&mut bytes);
        wire.send(&bytes).unwrap();
        while wire.message().expect("the server wants the data")[0] != b'G' {}
        bytes.clear();
        frame::write(&mut bytes, b'd', |body| body.extend_from_slice(data.as_bytes()));
        bytes.extend_from_slice(b"c\0\0\0\x04S\0\0\0\x04");
        let reply = wire.ask(&bytes);
        assert_eq!((reply.code(), reply.ended), (code, Ended::Ready('I')), "{reply:?}");
    }
    assert_eq!(wire.value("SELECT count(*) FROM copied"), "2");
}

/// Where a statement must have run.
fn wanted(case: &Case, how: How) -> &'static [&'static str] {
    match (how, case.primary, case.sql) {
        // Answered by the proxy itself; or nothing to execute, of which PostgreSQL logs nothing.
        (_, _, "SET pgsteer.role = 'primary'")
        | (How::Extended, None, "" | " ; " | "/* nothing */") => &[],
        (_, None, _) | (_, _, "START TRANSACTION READ ONLY") => &["standby"],
        (_, Some(_), _) => &["primary"],
    }
}

fn send(house: &House, case: &Case, how: How, marker: &str) -> Reply {
    // Nothing outside of the house is touched.
    let file = house.server("primary").data().join("items.copy");
    let sql = case.sql.replace("/tmp/items", &file.to_string_lossy());
    let sql = format!("{sql} /* {marker} */");
    let mut wire = house.wire();
    if case.setting == Setting::InTransaction {
        wire.run("BEGIN READ ONLY");
    }
    match how {
        How::Simple => wire.query(&sql),
        How::Extended => wire.extended(&sql),
    }
}

/// Which servers' logs hold which markers.
fn ran(house: &House) -> BTreeMap<String, Vec<String>> {
    let mut ran: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for server in house.cluster.servers() {
        for line in server.log().lines() {
            let Some((_, rest)) = line.rsplit_once("/* m") else { continue };
            let Some((number, _)) = rest.split_once("x */") else { continue };
            let places = ran.entry(format!("m{number}x")).or_default();
            if places.last().is_none_or(|last| last != server.name()) {
                places.push(server.name().to_owned());
            }
        }
    }
    ran
}

/// What the running proxy says of a statement.
fn route(house: &House, sql: &str) -> Value {
    let address = house.proxy.http_address();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = sql.len();
    let head = format!(
        "POST /route?database=postgres HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(sql.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{sql}: {error}: {answer}"))
}

fn told(route: &Value) -> String {
    route["target"].as_str().unwrap_or("nothing").to_owned()
}
