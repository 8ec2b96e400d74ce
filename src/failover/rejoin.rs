//! What an operator runs to make a server a standby again that holds what the primary never will:
//! the very commands, for a shell on its machine.
//!
//! pgsteer speaks SQL and has no hand on a server that is stopped, so it can only say them. They
//! keep the server's own configuration, which `pg_rewind` and `pg_basebackup` would replace by the
//! primary's, and leave what was set aside where it can be found.
//!
//! Invariants:
//! - No command holds a password: where one is needed, a remark says where to put it.
//! - What is not known is told as such, and never guessed.
//!
//! Source: PostgreSQL manual, `pg_rewind` ("How It Works") and 20.1.2 on `postgresql.auto.conf`.

use crate::failover::{Change, Survey, Switch};
use crate::pg::{Conninfo, Timeline, quote_literal};
use crate::topology::Role;
use std::sync::Arc;

/// Where a server's files are and how it was started, as far as our user may know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// `data_directory`.
    pub data: Option<Arc<str>>,
    /// `config_file`.
    pub config: Option<Arc<str>>,
    /// The command line that started it, as in `postmaster.opts`; known to superusers only.
    pub started: Option<Arc<str>>,
}

/// The primary that is to be followed.
#[derive(Debug, Clone, Copy)]
pub struct Leader<'a> {
    /// Its address, for its standbys.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// Who may read its files: `servers.user`.
    pub user: &'a str,
    /// How another standby follows, as a pattern; `None`: none is known.
    pub pattern: Option<&'a Conninfo>,
}

/// Whose branch it is that a server is on, by the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// The primary's, one that it left, or one that only this server knows.
    Known,
    /// A branch of its own has the number of one that another server wrote.
    SameNumber(Timeline),
}

/// A server that can't follow the primary as it is.
#[derive(Debug, Clone, Copy)]
pub struct Lost<'a> {
    /// Its configured name.
    pub name: &'a str,
    /// What it says that it is.
    pub role: Role,
    /// On which branch, where that is known.
    pub timeline: Option<Timeline>,
}

impl Branch {
    /// That of such a server, with the primary on that branch, after these changes.
    pub fn of(lost: Lost<'_>, primary: Option<Timeline>, changes: &[Change]) -> Self {
        let Some(own) = lost.timeline else { return Self::Known };
        // There is nothing to rewind on one and the same branch: it would just follow.
        let alike = primary == Some(own);
        let made = |by: &dyn Fn(&str) -> bool| {
            changes.iter().any(|made| made.timeline == own && by(&made.to))
        };
        // A standby may have followed whoever wrote it.
        let anothers = lost.role == Role::Primary
            && made(&|to| to != lost.name)
            && !made(&|to| to == lost.name);
        if alike || anothers { Self::SameNumber(own) } else { Self::Known }
    }
}

/// The commands that make the server of this name and survey follow the leader, in their order;
/// those that begin with `#` are remarks.
pub fn rejoin(name: &str, survey: &Survey, branch: Branch, leader: &Leader<'_>) -> Vec<String> {
    let place = &survey.place;
    let Some(data) = place.data.as_deref() else {
        return vec![format!(
            "# where its files are is not known: give the control user {:?} pg_monitor",
            leader.user
        )];
    };
    let started = Started::of(place);
    let program = |name: &str| shell(&started.program(name));
    let source = Conninfo::default()
        .to_server(leader.host, leader.port)
        .with("user", leader.user)
        .with("dbname", "postgres")
        .text();
    let source = shell(&source);
    let (kept, data) = (shell(&format!("{data}.conf")), shell(data));
    let link = link(name, survey, leader);
    let mut all = vec![
        "# on its machine, as the user who runs it; if a service manager does (systemd), stop and \
         start it by that"
            .to_owned(),
    ];
    if SECRETS.iter().any(|secret| link.get(secret).is_some()) {
        all.push(format!(
            "# the password of {} belongs in that user's ~/.pgpass",
            link.get("user").unwrap_or(leader.user)
        ));
    }
    // Until the new primary wrote a checkpoint, its files say that it is on the old timeline.
    let slot = slot(&survey.upstream.slot);
    all.push(format!("{} -d {source} -c CHECKPOINT{slot}", program("psql")));
    all.push(format!("{} stop -D {data} -m fast", program("pg_ctl")));
    all.push(format!("mkdir -p {kept} && cp -p {data}/*.conf {kept}/"));
    all.extend(take_over(survey, branch, &started, (&data, &source)));
    all.push(format!("cp -p {kept}/*.conf {data}/ && rm -r {kept}"));
    let setting = format!("primary_conninfo = {}", value(&unsecret(link).text()));
    all.push(format!("printf '%s\\n' {} >> {data}/postgresql.auto.conf", shell(&setting)));
    all.push(format!("touch {data}/standby.signal"));
    let options = started.options(place.data.as_deref());
    let options =
        if options.is_empty() { String::new() } else { format!(" -o {}", shell(&options)) };
    all.push(format!("{} start -D {data} -l {data}/start.log{options}", program("pg_ctl")));
    all
}

/// What gives it the primary's log: a rewind where that is possible, else a copy.
///
/// `pg_rewind` tells branches by their numbers and by where they began, which may be one place. Of
/// two that it can't tell apart it says that no rewind is required, and ends well.
///
/// Source: `findCommonAncestorTimeline` and `main` in `bin/pg_rewind/pg_rewind.c` of PostgreSQL.
fn take_over(
    survey: &Survey,
    branch: Branch,
    started: &Started<'_>,
    (data, source): (&str, &str),
) -> Vec<String> {
    let program = |name: &str| shell(&started.program(name));
    let logged = [Switch::Checksums, Switch::HintsLogged];
    let logged = logged.iter().any(|switch| survey.settings.on.contains(switch));
    let why = match branch {
        Branch::SameNumber(number) => format!(
            "# its timeline has the number of another server's, {number}, and pg_rewind would take \
             them for one: it is copied anew"
        ),
        Branch::Known if logged => {
            let config = outside(survey)
                .map_or_else(String::new, |file| format!(" --config-file={}", shell(file)));
            return vec![format!(
                "{} -D {data} --source-server={source}{config}",
                program("pg_rewind")
            )];
        }
        Branch::Known => {
            "# without data checksums and wal_log_hints it can't be rewound: it is copied anew"
                .to_owned()
        }
    };
    vec![
        why,
        format!("mv {data} {data}.lost"),
        format!("{} -D {data} -d {source} -X stream -c fast", program("pg_basebackup")),
    ]
}

/// Its configuration, if that is not among its data.
///
/// `pg_rewind` wants it to recover a server that crashed, which this one is not: it was stopped. It
/// takes it since PostgreSQL 15.
fn outside(survey: &Survey) -> Option<&str> {
    const TAKES_IT: u32 = 15;
    if survey.version.major() < TAKES_IT {
        return None;
    }
    let (data, config) = (survey.place.data.as_deref()?, survey.place.config.as_deref()?);
    let among = config.strip_prefix(data).is_some_and(|rest| rest.starts_with('/'));
    (!among).then_some(config)
}

/// How it is to follow: as it did before, else as another standby does, under its own name.
fn link(name: &str, survey: &Survey, leader: &Leader<'_>) -> Conninfo {
    let own = survey.link();
    let link = own.unwrap_or_else(|| {
        let cluster = &*survey.settings.cluster_name;
        let name = if cluster.is_empty() { name } else { cluster };
        let pattern = leader.pattern.cloned();
        let pattern = pattern.unwrap_or_else(|| Conninfo::default().with("user", leader.user));
        pattern.with("application_name", name)
    });
    link.to_server(leader.host, leader.port)
}

/// What no command may hold.
const SECRETS: [&str; 2] = ["password", "sslpassword"];

fn unsecret(link: Conninfo) -> Conninfo {
    SECRETS.iter().fold(link, |link, secret| link.without(secret))
}

/// A value as a configuration file has it.
///
/// Source: PostgreSQL manual, 20.1.2, and `GUC_scanstr` in `utils/misc/guc-file.l`.
fn value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// What makes the slot through which it receives, if it is to have one.
fn slot(name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let name = quote_literal(name);
    let sql = format!(
        "SELECT pg_create_physical_replication_slot({name}) WHERE NOT EXISTS \
         (SELECT FROM pg_replication_slots WHERE slot_name = {name})"
    );
    format!(" -c {}", shell(&sql))
}

/// The command line that started a server.
struct Started<'a> {
    /// The directory of the programs; empty: not known.
    directory: &'a str,
    arguments: Vec<&'a str>,
}

impl<'a> Started<'a> {
    /// Source: `CreateOptsFile` in `postmaster/postmaster.c` of PostgreSQL: the program, and each
    /// argument in quotation marks.
    fn of(place: &'a Place) -> Self {
        let text = place.started.as_deref().unwrap_or_default().trim();
        let (program, rest) = text.split_once(" \"").unwrap_or((text, ""));
        let directory = program.rsplit_once('/').map_or("", |(directory, _)| directory);
        let rest = rest.strip_suffix('"').unwrap_or(rest);
        let arguments = rest.split("\" \"").filter(|argument| !argument.is_empty()).collect();
        Self { directory, arguments }
    }

    fn program(&self, name: &str) -> String {
        if self.directory.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.directory)
        }
    }

    /// The arguments without the directory, which `pg_ctl` adds, each for its shell.
    fn options(&self, data: Option<&str>) -> String {
        let own = |argument: &str| argument == "-D" || Some(argument) == data;
        let others = self.arguments.iter().filter(|argument| !own(argument));
        others.map(|argument| format!("\"{argument}\"")).collect::<Vec<_>>().join(" ")
    }
}

/// A word for a shell.
fn shell(word: &str) -> String {
    let plain = |sign: char| sign.is_ascii_alphanumeric() || "/._-:,=@%+".contains(sign);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::survey::sample;
    use crate::failover::{By, Kind, Loss};
    use crate::pg::Version;
    use crate::topology::Epoch;

    fn place() -> Place {
        Place {
            data: Some("/srv/pg data".into()),
            config: Some("/srv/pg data/postgresql.conf".into()),
            started: Some(
                "/usr/lib/pg/bin/postgres \"-D\" \"/srv/pg data\" \"-p\" \"5433\"\n".into(),
            ),
        }
    }

    fn told(change: impl FnOnce(&mut Survey), pattern: Option<&str>) -> Vec<String> {
        let mut survey = sample::primary("", &[]);
        survey.place = place();
        survey.upstream.conninfo = None;
        change(&mut survey);
        let pattern = pattern.map(|text| Conninfo::parse(text).unwrap());
        let leader = Leader { host: "db2", port: 5432, user: "admin", pattern: pattern.as_ref() };
        rejoin("db1:5432", &survey, Branch::Known, &leader)
    }

    #[test]
    fn a_server_is_rewound_and_keeps_its_own_configuration() {
        let pattern = "host=db1 user=r password=secret application_name=s2 sslmode=require";
        let source = "'host='\\''db2'\\'' port='\\''5432'\\'' user='\\''admin'\\'' \
                      dbname='\\''postgres'\\'''";
        let link = "primary_conninfo = 'host=''db2'' user=''r'' application_name=''s0'' \
                    sslmode=''require'' port=''5432'''";
        let expected = [
            "# on its machine, as the user who runs it; if a service manager does (systemd), stop \
             and start it by that"
                .to_owned(),
            "# the password of r belongs in that user's ~/.pgpass".to_owned(),
            format!("/usr/lib/pg/bin/psql -d {source} -c CHECKPOINT"),
            "/usr/lib/pg/bin/pg_ctl stop -D '/srv/pg data' -m fast".to_owned(),
            "mkdir -p '/srv/pg data.conf' && cp -p '/srv/pg data'/*.conf '/srv/pg data.conf'/"
                .to_owned(),
            format!("/usr/lib/pg/bin/pg_rewind -D '/srv/pg data' --source-server={source}"),
            "cp -p '/srv/pg data.conf'/*.conf '/srv/pg data'/ && rm -r '/srv/pg data.conf'"
                .to_owned(),
            format!("printf '%s\\n' {} >> '/srv/pg data'/postgresql.auto.conf", shell(link)),
            "touch '/srv/pg data'/standby.signal".to_owned(),
            "/usr/lib/pg/bin/pg_ctl start -D '/srv/pg data' -l '/srv/pg data'/start.log \
             -o '\"-p\" \"5433\"'"
                .to_owned(),
        ];
        assert_eq!(told(|_| (), Some(pattern)), expected);
    }

    #[test]
    fn what_is_not_known_is_said_and_not_guessed() {
        let nowhere = told(|survey| survey.place.data = None, None);
        assert_eq!((nowhere.len(), nowhere[0].contains("pg_monitor")), (1, true));
        let bare = told(|survey| survey.place.started = None, None);
        assert!(bare[1].starts_with("psql -d "), "{bare:?}");
        assert_eq!(
            bare.last().map(String::as_str),
            Some("pg_ctl start -D '/srv/pg data' -l '/srv/pg data'/start.log")
        );
    }

    #[test]
    fn each_kind_of_server_gets_its_own_commands() {
        let unlogged = told(|survey| survey.settings.on.clear(), None).join("\n");
        assert!(unlogged.contains("pg_basebackup") && !unlogged.contains("pg_rewind"));
        assert!(unlogged.contains("mv '/srv/pg data' '/srv/pg data'.lost"), "{unlogged}");
        let outside = told(|survey| survey.place.config = Some("/etc/pg/main.conf".into()), None);
        assert!(outside.join("\n").contains(" --config-file=/etc/pg/main.conf"), "{outside:?}");
        let older = |survey: &mut Survey| {
            survey.version = Version(140_023);
            survey.place.config = Some("/etc/pg/main.conf".into());
        };
        assert!(!told(older, None).join("\n").contains("--config-file"));
        let slot = told(|survey| survey.upstream.slot = "s0".into(), None);
        assert!(slot[1].contains("pg_create_physical_replication_slot"), "{slot:?}");
        let own = "host=x user=u application_name=me password=secret sslpassword=secret";
        let own = told(
            |survey| survey.upstream.conninfo = Some(crate::auth::Secret::new(own.to_owned())),
            None,
        );
        let own = own.join("\n");
        assert!(own.contains("application_name='\\'''\\''me"), "{own}");
        assert!(!own.contains("secret"), "{own}");
        let replaced = told(|survey| sample::cut_off(survey, sample::before("me")), None);
        let replaced = replaced.join("\n");
        assert!(replaced.contains("application_name='\\'''\\''me"), "{replaced}");
    }
    #[test]
    fn a_branch_of_the_same_number_is_not_the_same() {
        let made = |to: &str, timeline: u32| Change {
            epoch: Epoch(timeline.into()),
            kind: Kind::Failover,
            by: By::Evidence,
            from: None,
            to: to.into(),
            timeline: Timeline(timeline),
            fork: None,
            loss: Loss::None,
            began: 0,
            ended: 0,
        };
        let changes = [made("db2", 2), made("db3", 4)];
        let (same, known) = (|number| Branch::SameNumber(Timeline(number)), Branch::Known);
        let cases = [
            ("the primary's number", "db1", Role::Primary, Some(4), same(4)),
            ("the same as a standby", "db1", Role::Standby, Some(4), same(4)),
            ("a former primary's", "db1", Role::Primary, Some(2), same(2)),
            ("one that followed it", "db1", Role::Standby, Some(2), known),
            ("that former primary itself", "db2", Role::Primary, Some(2), known),
            ("one of before the first change", "db1", Role::Primary, Some(1), known),
            ("one that the primary's line passes by", "db1", Role::Primary, Some(3), known),
            ("not seen", "db1", Role::Primary, None, known),
        ];
        for (case, name, role, timeline, expected) in cases {
            let lost = Lost { name, role, timeline: timeline.map(Timeline) };
            assert_eq!(Branch::of(lost, Some(Timeline(4)), &changes), expected, "{case}");
            let alone = Branch::of(lost, lost.timeline, &[]);
            assert_eq!(alone, timeline.map_or(known, same), "{case}, and nothing is recorded");
        }
    }

    /// `pg_rewind` would say that nothing is to be done, and it would be started as it is.
    #[test]
    fn what_a_rewind_would_take_for_the_same_is_copied() {
        let mut survey = sample::primary("", &[]);
        survey.place = place();
        let leader = Leader { host: "db2", port: 5432, user: "admin", pattern: None };
        let told = |branch| rejoin("db1:5432", &survey, branch, &leader).join("\n");
        assert!(told(Branch::Known).contains("pg_rewind -D"));
        let copied = told(Branch::SameNumber(Timeline(2)));
        assert!(copied.contains("pg_basebackup -D") && !copied.contains("pg_rewind -D"));
        assert!(copied.contains("another server's, 2"), "{copied}");
    }
}
