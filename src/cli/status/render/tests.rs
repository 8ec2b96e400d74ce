//! What `pgsteer status` prints, by example.

use super::*;
use crate::admin::{
    ChangeReport, ClientReport, FailoverReport, LimitReport, LossReport, PinnedReport,
    PinnedSessionReport, PreparedReport, ReadReport, SessionReport,
};

const PLAIN: Style = Style { color: Color::Off, glyphs: Glyphs::Unicode, columns: None };

fn standby(name: &str, state: State) -> ServerReport {
    ServerReport {
        name: name.to_owned(),
        role: Some("standby".to_owned()),
        state,
        upstream: Some("pg-1:5432".to_owned()),
        timeline: Some(5),
        lsn: Some("1A/7F3C2E80".to_owned()),
        received_lsn: None,
        lag_bytes: Some(0),
        lag_seconds: Some(0.004),
        sessions: SessionReport { active: 14, idle: 2, limit: 20 },
        weight: 1,
        reads: true,
        no_reads: None,
        unseen: None,
        unseen_seconds: None,
        version: Some("17.6".to_owned()),
        rejoin: Vec::new(),
    }
}

fn primary(name: &str) -> ServerReport {
    ServerReport {
        role: Some("primary".to_owned()),
        upstream: None,
        lag_bytes: None,
        lag_seconds: None,
        reads: false,
        ..standby(name, State::Writable)
    }
}

fn down(name: &str) -> ServerReport {
    ServerReport {
        role: None,
        upstream: None,
        timeline: None,
        lsn: None,
        lag_bytes: None,
        lag_seconds: None,
        reads: false,
        unseen: Some("connection refused".to_owned()),
        unseen_seconds: Some(12.2),
        sessions: SessionReport { active: 0, idle: 0, limit: 0 },
        ..standby(name, State::Down)
    }
}

fn lagging(name: &str) -> ServerReport {
    ServerReport {
        lsn: Some("1A/7D001120".to_owned()),
        lag_bytes: Some(35_861_299),
        lag_seconds: Some(2.6),
        ..standby(name, State::Lagging)
    }
}

fn report(servers: Vec<ServerReport>) -> StatusReport {
    StatusReport {
        version: "0.1.0".to_owned(),
        uptime_seconds: 273_600.0,
        system: Some("7423474350493388827".to_owned()),
        postgres: Some("17.6".to_owned()),
        epoch: 1,
        primary: Some("pg-1:5432".to_owned()),
        no_primary: None,
        consistency: "session".to_owned(),
        max_lag: LimitReport { bytes: Some(16 << 20), seconds: Some(1.0) },
        servers,
        clients: ClientReport { connected: 214, active: 39, waiting: 0, in_transaction: 3 },
        pinned: PinnedReport::default(),
        reads: ReadReport { on_standbys: 86, on_primary: 14, stale_prevented: 7 },
        failover: failover(),
    }
}

fn failover() -> FailoverReport {
    FailoverReport {
        mode: "auto".to_owned(),
        armed: true,
        lacking: Vec::new(),
        demote: "crash_restart".to_owned(),
        undemotable: Vec::new(),
        promise: Some("quorum".to_owned()),
        promise_text: Some("1 of pg-2:5432, pg-3:5432".to_owned()),
        epoch: Some(3),
        phase: Some("stable".to_owned()),
        why: None,
        unavailable: None,
        prepared: Vec::new(),
        last_change: Some(ChangeReport {
            epoch: 3,
            kind: "switchover".to_owned(),
            by: "operator".to_owned(),
            from: Some("pg-3:5432".to_owned()),
            to: "pg-1:5432".to_owned(),
            timeline: 5,
            fork_lsn: Some("1A/70000000".to_owned()),
            loss: LossReport { text: "none".to_owned(), at_most_bytes: Some(0), at_least_bytes: 0 },
            began: 1_795_239_370,
            ended: 1_795_239_371,
        }),
        token_file: None,
    }
}

fn troubled() -> StatusReport {
    let cascading = ServerReport {
        upstream: Some("pg-2:5432".to_owned()),
        ..standby("pg-5:5432", State::Cascading)
    };
    let streaming = standby("pg-2:5432", State::Streaming);
    let servers =
        vec![primary("pg-1:5432"), streaming, lagging("pg-3:5432"), down("pg-4:5432"), cascading];
    report(servers)
}

#[test]
fn a_troubled_set_on_one_screen() {
    let expected = "\
PostgreSQL 17.6 · system 7423474350493388827 · pgsteer 0.1.0, up 3d 4h   ▲ degraded

  SERVER           ROLE     STATE       TL  LSN              LAG        SESSIONS
  ● pg-1:5432      primary  writable     5  1A/7F3C2E80                  14 / 20
  ├─● pg-2:5432    standby  streaming    5  1A/7F3C2E80      0 B   4ms   14 / 20
  │ └─● pg-5:5432  standby  cascading    5  1A/7F3C2E80      0 B   4ms   14 / 20
  ├─▲ pg-3:5432    standby  lagging      5  1A/7D001120  34.1 MB  2.6s   14 / 20
  └─✗ pg-4:5432    ?        down 12.2s   ?  ?                  ?     ?         0

  ▲ pg-3:5432 gets no reads: 2.6s behind, limit 1s (routing.max_lag.time); 34.1 MB behind, limit 16.0 MB (routing.max_lag.bytes).
  ✗ pg-4:5432 connection refused.

  Clients   214 connected, 39 active, 0 waiting
  Reads     86% on standbys; 7 kept from being stale; consistency session
  Failover  auto, armed; quorum: 1 of pg-2:5432, pg-3:5432
  Last      2026-11-21 05:36:10 UTC  switchover pg-3:5432 -> pg-1:5432 by operator in 1s, loss: none, epoch 3
";
    assert_eq!(render(&troubled(), PLAIN), expected);
}

const fn on(columns: usize) -> Style {
    Style { columns: Some(columns), ..PLAIN }
}

fn three() -> StatusReport {
    let named = |server: ServerReport, name: &str| ServerReport {
        name: format!("{name}.example.com:5432"),
        upstream: server.upstream.map(|_| "db1.example.com:5432".to_owned()),
        ..server
    };
    let servers = vec![
        named(primary("db1"), "db1"),
        named(standby("db2", State::Streaming), "db2"),
        named(lagging("db3"), "db3"),
    ];
    StatusReport { primary: Some("db1.example.com:5432".to_owned()), ..report(servers) }
}

/// What says least is left out, and what is long goes on in the next line.
#[test]
fn eighty_columns_are_enough_for_three_servers() {
    let expected = "\
PostgreSQL 17.6 · pgsteer 0.1.0, up 3d 4h   ▲ degraded

  SERVER                    ROLE     STATE      TL      LAG        SESSIONS
  ● db1.example.com:5432    primary  writable    5                  14 / 20
  ├─● db2.example.com:5432  standby  streaming   5      0 B   4ms   14 / 20
  └─▲ db3.example.com:5432  standby  lagging     5  34.1 MB  2.6s   14 / 20

  ▲ db3.example.com:5432 gets no reads: 2.6s behind, limit 1s
    (routing.max_lag.time); 34.1 MB behind, limit 16.0 MB
    (routing.max_lag.bytes).

  Clients   214 connected, 39 active, 0 waiting
  Reads     86% on standbys; 7 kept from being stale; consistency session
  Failover  auto, armed; quorum: 1 of pg-2:5432, pg-3:5432
  Last      2026-11-21 05:36:10 UTC  switchover pg-3:5432 -> pg-1:5432 by
            operator in 1s, loss: none, epoch 3
";
    assert_eq!(render(&three(), on(80)), expected);
}

#[test]
fn a_wide_terminal_shows_more() {
    let shown = render(&three(), on(120));
    let expected = "
  SERVER                    ROLE     STATE      TL  LSN              LAG        SESSIONS  WEIGHT  VERSION
  ● db1.example.com:5432    primary  writable    5  1A/7F3C2E80                  14 / 20       1  17.6
  ├─● db2.example.com:5432  standby  streaming   5  1A/7F3C2E80      0 B   4ms   14 / 20       1  17.6
  └─▲ db3.example.com:5432  standby  lagging     5  1A/7D001120  34.1 MB  2.6s   14 / 20       1  17.6
";
    assert!(shown.contains(expected), "{shown}");
    assert!(shown.starts_with("PostgreSQL 17.6 · system 7423474350493388827 · "), "{shown}");
    let unknown = render(&report(vec![ServerReport { version: None, ..down("a") }]), on(120));
    assert!(unknown.lines().any(|line| line.ends_with("       1  ?")), "{unknown}");
}

#[test]
fn no_line_is_longer_than_the_terminal() {
    let long = |name: &str| "a-name-that-takes-much-room.".repeat(2) + name;
    let follows = |name: &str, state| ServerReport {
        upstream: Some(long("1")),
        ..standby(&long(name), state)
    };
    let servers = vec![primary(&long("1")), follows("2", State::Unmeasured), down(&long("3"))];
    let named = StatusReport { primary: Some(long("1")), ..report(servers) };
    for report in [troubled(), three(), named] {
        for columns in 60..240 {
            for style in [on(columns), Style { glyphs: Glyphs::Ascii, ..on(columns) }] {
                let shown = render(&report, style);
                let longest = shown.lines().map(|line| line.chars().count()).max();
                assert!(longest <= Some(columns), "{columns} columns:\n{shown}");
                let servers = shown.lines().skip(3).take(report.servers.len());
                let words = ["writable", "streaming", "cascading", "lag", "down"];
                let told = |line: &str| words.iter().any(|word| line.contains(word));
                assert!({ servers }.all(told), "{columns} columns:\n{shown}");
            }
        }
    }
}

/// The ends of a name say which server it is.
#[test]
fn a_long_name_loses_its_middle() {
    let name = "orders.europe-west.compute.internal.example.com:5432";
    let report = StatusReport { primary: Some(name.to_owned()), ..report(vec![primary(name)]) };
    let shown = render(&report, on(60));
    assert!(
        shown.contains("\n  ● orders.eur….com:5432  primary  writable          14 / 20\n"),
        "{shown}"
    );
}

#[test]
fn the_same_without_unicode_has_no_other_sign() {
    let shown = render(&troubled(), Style { glyphs: Glyphs::Ascii, ..PLAIN });
    assert!(shown.is_ascii(), "{shown}");
    assert!(shown.contains("\n  | `-* pg-5:5432"), "{shown}");
}

#[test]
fn colours_change_no_column() {
    let colored = render(&troubled(), Style { color: Color::On, ..PLAIN });
    let mut plain = colored.clone();
    for code in ["\u{1b}[1;31m", "\u{1b}[1;32m", "\u{1b}[1;33m", "\u{1b}[0m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, render(&troubled(), PLAIN));
    assert_ne!(colored, plain);
}

#[test]
fn without_a_primary_it_says_so_first() {
    let servers = vec![down("pg-1:5432"), standby("pg-2:5432", State::Streaming)];
    let report = StatusReport {
        primary: None,
        no_primary: Some("the primary does not answer".to_owned()),
        ..report(servers)
    };

    let shown = render(&report, PLAIN);

    assert!(shown.lines().next().is_some_and(|title| title.ends_with("✗ no writes")), "{shown}");
    let line = "  ✗ no server takes writes: the primary does not answer. \
                Writes wait (routing.hold_max), then fail.";
    assert!(shown.contains(line), "{shown}");
    assert_eq!(Health::of(&report), Health::NoPrimary);
}

#[test]
fn servers_that_follow_each_other_are_all_shown() {
    let follows = |name: &str, upstream: &str| ServerReport {
        upstream: Some(upstream.to_owned()),
        ..standby(name, State::Streaming)
    };
    let ring = vec![primary("pg-1:5432"), follows("b", "c"), follows("c", "b")];
    let shown = render(&report(ring), PLAIN);
    assert!(shown.contains("● b") && shown.contains("● c"), "{shown}");
}

#[test]
fn before_the_first_look_nothing_is_made_up() {
    let nothing = StatusReport {
        system: None,
        postgres: None,
        primary: None,
        no_primary: Some("no primary was seen since the start".to_owned()),
        reads: ReadReport { on_standbys: 0, on_primary: 0, stale_prevented: 0 },
        failover: FailoverReport {
            promise: None,
            promise_text: None,
            epoch: None,
            phase: None,
            last_change: None,
            ..failover()
        },
        ..report(vec![ServerReport { unseen_seconds: None, ..down("pg-1:5432") }])
    };
    let shown = render(&nothing, PLAIN);
    assert!(shown.contains("Reads     none yet"), "{shown}");
    assert!(shown.ends_with("; no primary was recorded yet\n"), "{shown}");
    assert!(shown.contains("✗ pg-1:5432  ?     down    ?  ?      ?  ?         0"), "{shown}");
}

/// How it stands with failover is told in a line: what may happen, and what happens now.
#[test]
fn failover_is_told_in_a_line() {
    let usual = failover;
    let some = |text: &str| Some(text.to_owned());
    let cases = [
        (
            FailoverReport { unavailable: some("the disk is full"), ..usual() },
            "unavailable: the disk is full",
        ),
        (
            FailoverReport { mode: "manual".to_owned(), armed: false, ..usual() },
            "manual; quorum: 1 of pg-2:5432, pg-3:5432",
        ),
        (
            FailoverReport { promise: None, promise_text: None, armed: false, ..usual() },
            "auto, not armed; no primary was recorded yet",
        ),
        (
            FailoverReport {
                phase: some("revoking"),
                why: some("standbys are being cut off"),
                ..usual()
            },
            "auto, armed; quorum: 1 of pg-2:5432, pg-3:5432; revoking (epoch 3): standbys are \
             being cut off",
        ),
    ];
    for (failover, expected) in cases {
        let report = StatusReport { failover, ..report(vec![primary("pg-1:5432")]) };
        let shown = render(&report, PLAIN);
        assert!(shown.contains(&format!("\n  Failover  {expected}\n")), "{shown}");
        assert_eq!(Health::of(&report), Health::Healthy);
    }
}

/// Told to act by itself and unable to: that is something wrong.
#[test]
fn what_auto_lacks_is_a_problem() {
    let lacking = vec!["a names no application".to_owned()];
    let failover = FailoverReport { armed: false, lacking, ..failover() };
    let report = StatusReport { failover, ..report(vec![primary("pg-1:5432")]) };

    assert!(render(&report, PLAIN).contains("▲ failover is not armed: a names no application."));
    assert_eq!(Health::of(&report), Health::Degraded);
}

/// Somebody has to end each; of many the oldest are told.
#[test]
fn prepared_transactions_that_are_left_are_a_problem() {
    let prepared = |number: usize| PreparedReport {
        gid: format!("g{number}"),
        owner: "app".to_owned(),
        database: "shop".to_owned(),
        seconds: 90,
        text: format!("transaction 'g{number}' waits"),
    };
    let prepared = (0..7).map(prepared).collect();
    let failover = FailoverReport { prepared, ..failover() };
    let report = StatusReport { failover, ..report(vec![primary("pg-1:5432")]) };

    let text = render(&report, PLAIN);
    assert!(text.contains("▲ transaction 'g4' waits.") && !text.contains("'g5'"), "{text}");
    assert!(text.contains("▲ 2 more prepared transactions wait like that."), "{text}");
    assert_eq!(Health::of(&report), Health::Degraded);
}

#[test]
fn who_keeps_backends_is_told_by_application_and_reason() {
    let session = |application: &str, because: &str, seconds| PinnedSessionReport {
        application: application.to_owned(),
        user: "app".to_owned(),
        database: "shop".to_owned(),
        server: Some("pg-1:5432".to_owned()),
        pid: 4711,
        because: because.to_owned(),
        seconds,
    };
    let oldest = vec![
        session("", "advisory locks", 7200.0),
        session("billing", "temporary objects", 185.0),
        session("billing", "temporary objects", 2.0),
    ];
    let pinned = PinnedReport { count: oldest.len(), oldest };
    let report = StatusReport { pinned, ..report(vec![primary("pg-1:5432")]) };
    let line = "\n  Pinned    3 sessions keep their backends: 2 of billing for temporary objects, \
                the longest 3m 5s; 1 of (no name) for advisory locks, the longest 2h 0m\n";
    let shown = render(&report, PLAIN);
    assert!(shown.contains(line), "{shown}");

    let nobody = StatusReport { pinned: PinnedReport::default(), ..report };
    assert!(!render(&nobody, PLAIN).contains("Pinned"));
}

/// `pg_rewind` would say that there is nothing to do.
#[test]
fn one_on_a_timeline_of_the_primarys_number_is_to_be_copied() {
    for state in [State::Diverged, State::Cordoned] {
        let told = |timeline| {
            let lost = ServerReport { timeline: Some(timeline), ..standby("pg-2:5432", state) };
            let report = report(vec![primary("pg-1:5432"), lost]);
            problem(&report.servers[1], &report).unwrap()
        };
        assert!(told(5).contains("pg_basebackup") && !told(5).contains("pg_rewind"), "{state:?}");
        assert!(told(4).contains("pg_rewind"), "{state:?}");
    }
}
