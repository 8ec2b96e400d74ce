//! The findings as text and as JSON, and the remedies as a script: pure.

use super::Findings;
use crate::cli::say::Color;
use crate::failover::{Gap, Mode, Promise, Remedy, Statement, Weight};
use serde_json::json;
use std::sync::Arc;

/// The SGR codes.
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;

const RELOAD: &str = "SELECT pg_reload_conf()";

/// For people.
pub(super) fn text(findings: &Findings, mode: Mode, color: Color) -> String {
    let mut lines = vec![format!("mode      {}", mode.as_str())];
    lines.push(match &findings.promise {
        Some(Promise::Quorum { .. }) => {
            let promise = findings.promise.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("promise   a commit is confirmed by {promise}: none is lost")
        }
        Some(Promise::Asynchronous(why)) => format!("promise   asynchronous: {why}"),
        None => "promise   not known: no primary was found".to_owned(),
    });
    for (name, reached) in &findings.servers {
        if let Err(why) = reached {
            lines.push(format!("{}  {name}: {why}", color.bold(RED, "unseen  ")));
        }
    }
    if mode == Mode::Off {
        lines.push(String::new());
        lines.push("failover.mode is \"off\": pgsteer changes no server, and needs nothing".into());
    } else if findings.gaps.is_empty() {
        lines.push(String::new());
        lines.push(color.bold(GREEN, "Nothing is lacking."));
    }
    for gap in &findings.gaps {
        lines.push(String::new());
        lines.extend(of_gap(gap, color));
    }
    if !findings.gaps.is_empty() {
        lines.push(String::new());
        lines.push(sum(findings));
    }
    lines.join("\n") + "\n"
}

fn of_gap(gap: &Gap, color: Color) -> Vec<String> {
    let sgr = match gap.weight {
        Weight::Blocks => RED,
        Weight::Warns => YELLOW,
    };
    let word = color.bold(sgr, &format!("{:<8}", gap.weight.as_str()));
    let mut lines = vec![format!("{word}  {}", gap.what())];
    lines.push(format!("          because {}", gap.lack.why()));
    let helps = match &gap.remedy {
        Remedy::Advice(advice) => vec![advice.clone()],
        Remedy::Sql(statements) => statements.iter().map(ended).collect(),
        Remedy::SqlAndRestart(statements) => {
            statements.iter().map(ended).chain(["and restart it".to_owned()]).collect()
        }
    };
    lines.extend(helps.iter().map(|line| format!("          {line}")));
    lines
}

fn sum(findings: &Findings) -> String {
    let count = |weight| findings.gaps.iter().filter(|gap| gap.weight == weight).count();
    let blocking = match count(Weight::Blocks) {
        0 => "Nothing keeps `auto` from arming".to_owned(),
        1 => "1 gap keeps `auto` from arming".to_owned(),
        blocking => format!("{blocking} gaps keep `auto` from arming"),
    };
    let warning = match count(Weight::Warns) {
        0 => String::new(),
        1 => "; 1 is a warning".to_owned(),
        warning => format!("; {warning} are warnings"),
    };
    format!("{blocking}{warning}. `pgsteer setup` prints the statements as a script.")
}

/// For machines: one object.
pub(super) fn json(findings: &Findings, mode: Mode) -> String {
    let gaps = findings.gaps.iter().map(|gap| {
        let (advice, restart) = match &gap.remedy {
            Remedy::Advice(text) => (Some(text.as_str()), false),
            Remedy::Sql(_) => (None, false),
            Remedy::SqlAndRestart(_) => (None, true),
        };
        let sql: Vec<_> = gap.remedy.statements().iter().map(|one| one.shown.as_str()).collect();
        json!({
            "server": &*gap.server,
            "weight": gap.weight.as_str(),
            "what": gap.lack.to_string(),
            "why": gap.lack.why(),
            "sql": sql,
            "restart": restart,
            "advice": advice,
        })
    });
    let servers = findings
        .servers
        .iter()
        .map(|(name, reached)| json!({ "name": &**name, "error": reached.as_ref().err() }));
    let quorum = matches!(findings.promise, Some(Promise::Quorum { .. }));
    let all = json!({
        "mode": mode.as_str(),
        "quorum": quorum,
        "promise": findings.promise.as_ref().map(ToString::to_string),
        "servers": servers.collect::<Vec<_>>(),
        "ready": !findings.gaps.iter().any(Gap::blocks),
        "gaps": gaps.collect::<Vec<_>>(),
    });
    format!("{all:#}\n")
}

/// The statements for one server, each once; a reload is the last of them.
pub(super) fn statements<'g>(gaps: &'g [Gap], server: &str) -> Vec<&'g Statement> {
    let mut all: Vec<&Statement> = Vec::new();
    let own = gaps.iter().filter(|gap| *gap.server == *server);
    for statement in own.flat_map(|gap| gap.remedy.statements()) {
        if !all.contains(&statement) {
            all.push(statement);
        }
    }
    all.sort_by_key(|statement| statement.shown == RELOAD);
    all
}

/// The remedies as a script for psql, server by server.
pub(super) fn script(gaps: &[Gap], servers: &[Arc<str>]) -> String {
    let mut lines = Vec::new();
    for server in servers {
        let statements = statements(gaps, server);
        let own = || gaps.iter().filter(|gap| gap.server == *server);
        if own().next().is_none() {
            continue;
        }
        lines.push(format!("-- on {server}, as a superuser"));
        lines.extend(statements.iter().map(|statement| ended(statement)));
        for gap in own() {
            match &gap.remedy {
                Remedy::Sql(_) => {}
                Remedy::SqlAndRestart(_) => lines.push(format!("-- restart it: {}", gap.lack)),
                Remedy::Advice(advice) => {
                    lines.push(format!("-- left to you: {}: {advice}", gap.lack));
                }
            }
        }
        lines.push(String::new());
    }
    lines.join("\n")
}

/// As it stands in a script: psql's own commands end a statement by themselves.
fn ended(statement: &Statement) -> String {
    if statement.shown.ends_with("\\gexec") {
        statement.shown.clone()
    } else {
        format!("{};", statement.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::{Lack, WeakPromise};
    use std::time::Duration;

    fn findings() -> Findings {
        let set = Statement::plain("ALTER SYSTEM SET wal_retrieve_retry_interval = '1s'".into());
        let reload = || Statement::plain(RELOAD.to_owned());
        let link = Statement { shown: "SELECT 'x' \\gexec".into(), run: set.run.clone() };
        let gap = |server: &str, lack, weight, remedy| Gap {
            server: server.into(),
            lack,
            weight,
            remedy,
        };
        Findings {
            servers: vec![
                ("db1:5432".into(), Ok(())),
                ("db2:5432".into(), Err("no connection: refused".into())),
            ],
            promise: Some(Promise::Asynchronous(WeakPromise::NoNames)),
            gaps: vec![
                gap(
                    "db1:5432",
                    Lack::SlowRetry(Duration::from_secs(5)),
                    Weight::Blocks,
                    Remedy::Sql(vec![set, reload()]),
                ),
                gap("db1:5432", Lack::NoName, Weight::Blocks, Remedy::Sql(vec![link, reload()])),
                gap(
                    "db1:5432",
                    Lack::NotHot,
                    Weight::Blocks,
                    Remedy::SqlAndRestart(vec![Statement::plain("ALTER SYSTEM SET a = b".into())]),
                ),
                gap("db2:5432", Lack::Paused, Weight::Warns, Remedy::Advice("do this".into())),
            ],
        }
    }

    #[test]
    fn each_gap_comes_with_its_reason_and_its_remedy() {
        let expected = "\
mode      auto
promise   asynchronous: synchronous_standby_names is empty
unseen    db2:5432: no connection: refused

blocks    db1:5432: wal_retrieve_retry_interval is 5s
          because after each failed attempt a standby sleeps for so long
          ALTER SYSTEM SET wal_retrieve_retry_interval = '1s';
          SELECT pg_reload_conf();

blocks    db1:5432: it has no application_name as a receiver
          because its acknowledgement can't be told from another receiver's
          SELECT 'x' \\gexec
          SELECT pg_reload_conf();

blocks    db1:5432: hot_standby is off
          because a standby that takes no connections can be neither asked nor promoted
          ALTER SYSTEM SET a = b;
          and restart it

warns     db2:5432: its replay is paused
          because a failover resumes it
          do this

3 gaps keep `auto` from arming; 1 is a warning. `pgsteer setup` prints the statements as a script.
";
        assert_eq!(text(&findings(), Mode::Auto, Color::Off), expected);
        let nothing = Findings { gaps: Vec::new(), ..findings() };
        assert!(text(&nothing, Mode::Auto, Color::Off).ends_with("\nNothing is lacking.\n"));
        assert!(text(&nothing, Mode::Off, Color::Off).contains("failover.mode is \"off\""));
    }

    #[test]
    fn a_script_reloads_once_and_last() {
        let servers = ["db1:5432".into(), "db2:5432".into()];
        let expected = "\
-- on db1:5432, as a superuser
ALTER SYSTEM SET wal_retrieve_retry_interval = '1s';
SELECT 'x' \\gexec
ALTER SYSTEM SET a = b;
SELECT pg_reload_conf();
-- restart it: hot_standby is off

-- on db2:5432, as a superuser
-- left to you: its replay is paused: do this
";
        assert_eq!(script(&findings().gaps, &servers), expected);
    }

    #[test]
    fn machines_get_the_same() {
        let read: serde_json::Value =
            serde_json::from_str(&json(&findings(), Mode::Manual)).unwrap();
        assert_eq!(read["ready"], false);
        assert_eq!(read["gaps"].as_array().unwrap().len(), 4);
        assert_eq!(read["gaps"][2]["restart"], true);
        assert_eq!(read["gaps"][3]["advice"], "do this");
        assert_eq!(read["servers"][1]["error"], "no connection: refused");
    }
}
