//! Which layer counts, and what each value's source is called.

use crate::config::Directory;
use crate::config::Said;
use pgsteer::backend::ChannelBinding;
use pgsteer::backend::SslMode;
use pgsteer::backend::SslNegotiation;
use pgsteer::config::ClientTlsMode;
use pgsteer::config::Config;
use pgsteer::config::Listen;
use pgsteer::config::Source;
use pgsteer::failover;
use pgsteer::failover::{Demotion, MaxLoss, Mode, Profile, Rejoin};
use pgsteer::route::LagLimit;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

const HOSTS: &str = "[servers]\nhosts = [\"db1\"]\n";

fn source(said: &Said<'_>, key: &str) -> String {
    let config = said.config();
    config.sources.iter().find(|shown| shown.key == key).unwrap().source.to_string()
}

#[test]
fn a_file_with_one_host_is_enough_and_gives_every_policys_default() {
    let config = Said { file: HOSTS, ..Said::default() }.config();

    assert_eq!(config.pool, pgsteer::pool::Policy::default());
    assert_eq!(config.routing, pgsteer::route::Policy::default());
    assert_eq!(config.control, pgsteer::control::Policy::default());
    assert_eq!(config.auth, pgsteer::auth::Policy::default());
    assert_eq!(config.limits, pgsteer::config::Limits::default());
    assert_eq!(config.server_tls, pgsteer::backend::TlsPolicy::default());
    assert_eq!(config.listen.len(), 1);
    assert_eq!(config.listen[0].to_string(), "127.0.0.1:6432");
    assert_eq!(config.http.unwrap().to_string(), "127.0.0.1:9632");
    assert_eq!(&*config.servers[0].name, "db1:5432");
    assert_eq!(config.servers[0].weight, 1);
    assert_eq!(config.control_login.user, "tester");
    assert_eq!(config.control_login.database, "postgres");
    assert!(config.sources.iter().filter(|shown| shown.source != Source::Default).count() == 1);
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = "[servers]\nhosts = [\"db1\"]\n[routing]\nhold_max = \"1s\"\n";
    let env = [("PGSTEER_ROUTING__HOLD_MAX", "2s")];
    let flags = [("--set routing.hold_max", "routing.hold_max", "3s")];
    let key = "routing.hold_max";

    let none = Said { file: HOSTS, ..Said::default() };
    let in_file = Said { file, ..Said::default() };
    let in_env = Said { file, env: &env, ..Said::default() };
    let in_flag = Said { file, env: &env, flags: &flags };

    assert_eq!(none.config().routing.hold_max, Duration::from_secs(10));
    assert_eq!(in_file.config().routing.hold_max, Duration::from_secs(1));
    assert_eq!(in_env.config().routing.hold_max, Duration::from_secs(2));
    assert_eq!(in_flag.config().routing.hold_max, Duration::from_secs(3));
    assert_eq!(source(&none, key), "default");
    assert!(source(&in_file, key).ends_with("/pgsteer.toml:4"));
    assert_eq!(source(&in_env, key), "environment PGSTEER_ROUTING__HOLD_MAX");
    assert_eq!(source(&in_flag, key), "--set routing.hold_max");
}

#[test]
fn flags_add_up_servers_and_listeners_and_replace_those_of_the_file() {
    let flags = [
        ("--server", "servers.hosts", "db2"),
        ("--server", "servers.hosts", "db3:5433,[::1]:5434"),
        ("--listen", "listen", "127.0.0.2:7000"),
        ("--listen", "listen", "unix:/run/pgsteer"),
    ];
    let config = Said { file: HOSTS, flags: &flags, ..Said::default() }.config();

    let names: Vec<&str> = config.servers.iter().map(|server| &*server.name).collect();
    assert_eq!(names, ["db2:5432", "db3:5433", "[::1]:5434"]);
    assert_eq!(&*config.servers[2].host, "::1");
    assert_eq!(config.listen[0].to_string(), "127.0.0.2:7000");
    let socket = config.listen[1].socket_path().unwrap();
    assert_eq!(socket.to_str(), Some("/run/pgsteer/.s.PGSQL.7000"));
}

#[test]
fn every_type_can_be_said_in_a_variable() {
    let env = [
        ("PGSTEER_LISTEN", "127.0.0.1:1, 127.0.0.1:2"),
        ("PGSTEER_HTTP", "off"),
        ("PGSTEER_SERVERS__HOSTS", "db1,db2"),
        ("PGSTEER_SERVERS__PASSWORD", "{ env = \"THE_PASSWORD\" }"),
        ("PGSTEER_SERVERS__OVERRIDES", "{ \"db2\" = { weight = 0 } }"),
        ("PGSTEER_SERVERS__SSLMODE", "verify-full"),
        ("PGSTEER_ROUTING__MAX_LAG__TIME", "off"),
        ("PGSTEER_ROUTING__MAX_LAG__BYTES", "64kB"),
        ("PGSTEER_ROUTING__READ_FUNCTIONS", "f, App.G"),
        ("PGSTEER_ROUTING__WRITE_FUNCTIONS", "[\"h\"]"),
        ("PGSTEER_LIMITS__SHARDS", "3"),
        ("THE_PASSWORD", "geheim"),
    ];
    let config = Said { env: &env, ..Said::default() }.config();

    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.http, None);
    assert_eq!(config.servers.len(), 2);
    assert_eq!(config.servers[1].weight, 0);
    assert_eq!(config.control_login.password.as_ref().unwrap().reveal(), "geheim");
    assert_eq!(config.server_tls.mode, SslMode::VerifyFull);
    assert_eq!(config.routing.max_lag, LagLimit { bytes: Some(65_536), time: None });
    assert_eq!(config.control.max_lag, config.routing.max_lag);
    assert_eq!(config.routing.read_functions, ["f", "app.g"]);
    assert_eq!(config.routing.write_functions, ["h"]);
    assert_eq!(config.limits.shards.unwrap().get(), 3);
    let shown = config.sources.iter().find(|shown| shown.key == "servers.password").unwrap();
    assert_eq!(shown.value, "{ env = \"THE_PASSWORD\" }");
}

#[test]
fn units_are_those_of_postgresql() {
    let durations = [
        ("1us", 1),
        ("250ms", 250_000),
        ("10s", 10_000_000),
        ("10 s", 10_000_000),
        ("3m", 180_000_000),
        ("3min", 180_000_000),
        ("2h", 7_200_000_000),
        ("1d", 86_400_000_000),
        ("0s", 0),
    ];
    for (written, meant) in durations {
        let env = [("PGSTEER_ROUTING__REPLAY_WAIT_MAX", written)];
        let config = Said { file: HOSTS, env: &env, ..Said::default() }.config();
        assert_eq!(config.routing.replay_wait_max, Duration::from_micros(meant), "{written}");
    }
    let sizes = [("7B", 7), ("1kB", 1024), ("1KiB", 1024), ("1MB", 1 << 20), ("1GB", 1 << 30)];
    for (written, meant) in sizes {
        let env = [("PGSTEER_ROUTING__MAX_LAG__BYTES", written)];
        let config = Said { file: HOSTS, env: &env, ..Said::default() }.config();
        assert_eq!(config.routing.max_lag.bytes, Some(meant), "{written}");
    }
}

#[test]
fn an_override_counts_for_its_server_alone() {
    let file = "[servers]\nhosts = [\"a\", \"b:5433\"]\n[servers.overrides.\"b:5433\"]\n\
                weight = 3\npriority = 0\nreplication_address = \"10.0.0.2\"\n";
    let config = Said { file, ..Said::default() }.config();
    let [a, b] = &config.servers[..] else { panic!("{:?}", config.servers) };
    assert_eq!((a.weight, a.priority), (1, 1));
    assert_eq!((b.weight, b.priority), (3, 0));
    assert_eq!(a.replication_address, ("a".into(), 5432), "its own, unless another is named");
    assert_eq!(b.replication_address, ("10.0.0.2".into(), 5432));
}

/// What is not said is the policy's own; the profile sets the times.
#[test]
fn failover_is_as_the_operator_says() {
    let usual = Said { file: HOSTS, ..Said::default() }.config();
    assert_eq!(usual.failover, failover::Policy::default());
    assert_eq!(usual.failover.mode, Mode::Manual);

    let flags = [
        ("--set", "failover.mode", "auto"),
        ("--set", "failover.profile", "aggressive"),
        ("--set", "failover.max_data_loss", "any"),
        ("--set", "failover.demote", "crash_restart"),
        ("--set", "failover.rejoin", "fence"),
        ("--set", "failover.state_dir", "/s/t"),
    ];
    let config = Said { file: HOSTS, flags: &flags, ..Said::default() }.config();
    assert_eq!(
        config.failover,
        failover::Policy {
            mode: Mode::Auto,
            max_data_loss: MaxLoss::Any,
            demotion: Demotion::CrashRestart,
            rejoin: Rejoin::Fence,
            ..failover::Policy::of(Profile::Aggressive)
        }
    );
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("/s/t")));
    // Where the record lies is asked once; the rest may change while we run.
    assert_eq!(Config::changes_needing_restart(&usual, &config), ["failover.state_dir"]);
}

#[test]
fn a_uri_names_servers_and_the_login() {
    let uri = "postgresql://me:a%40b@db1,db2:5433/app?sslmode=verify-ca&channel_binding=require\
               &sslnegotiation=direct";
    let flags = [("--server", "servers.hosts", uri)];
    let config = Said { flags: &flags, ..Said::default() }.config();

    let names: Vec<&str> = config.servers.iter().map(|server| &*server.name).collect();
    assert_eq!(names, ["db1:5432", "db2:5433"]);
    assert_eq!(config.control_login.user, "me");
    assert_eq!(config.control_login.password.as_ref().unwrap().reveal(), "a@b");
    assert_eq!(config.control_login.database, "app");
    assert_eq!(config.server_tls.mode, SslMode::VerifyCa);
    assert_eq!(config.server_tls.channel_binding, ChannelBinding::Require);
    assert_eq!(config.server_tls.negotiation, SslNegotiation::Direct);
    assert!(!format!("{config:?}").contains("a@b"));
}

#[test]
fn a_uri_can_mean_a_socket() {
    for uri in ["postgresql:///app?host=/run/pg&port=5433", "postgresql://%2Frun%2Fpg:5433/app"] {
        let flags = [("--server", "servers.hosts", uri)];
        let config = Said { flags: &flags, ..Said::default() }.config();
        assert_eq!(&*config.servers[0].host, "/run/pg", "{uri}");
        assert_eq!(&*config.servers[0].name, "/run/pg:5433", "{uri}");
        assert_eq!(config.servers[0].port, 5433, "{uri}");
    }
}

#[test]
fn the_control_user_is_who_libpq_would_take() {
    let env = [
        ("PGUSER", "envuser"),
        ("PGPASSWORD", "envpassword"),
        ("PGDATABASE", "envdb"),
        ("PGSSLMODE", "require"),
        ("PGCHANNELBINDING", "disable"),
        ("PGSSLNEGOTIATION", "direct"),
    ];
    let in_file = "user = 'fileuser'\npassword = 'filepassword'\ndatabase = 'filedb'\n";
    let in_file = format!("{in_file}sslmode = 'disable'\nchannel_binding = 'require'\n");
    let in_file = format!("{in_file}sslnegotiation = 'postgres'\n");
    let file = format!("{HOSTS}{in_file}");

    let by_env = Said { file: HOSTS, env: &env, ..Said::default() }.config();
    let by_file = Said { file: &file, env: &env, ..Said::default() }.config();

    let login = &by_env.control_login;
    assert_eq!((login.user.as_str(), login.database.as_str()), ("envuser", "envdb"));
    assert_eq!(login.password.as_ref().unwrap().reveal(), "envpassword");
    assert_eq!(by_env.server_tls.mode, SslMode::Require);
    assert_eq!(by_env.server_tls.channel_binding, ChannelBinding::Disable);
    assert_eq!(by_env.server_tls.negotiation, SslNegotiation::Direct);
    let login = &by_file.control_login;
    assert_eq!((login.user.as_str(), login.database.as_str()), ("fileuser", "filedb"));
    assert_eq!(login.password.as_ref().unwrap().reveal(), "filepassword");
    assert_eq!(by_file.server_tls.mode, SslMode::Disable);
    assert_eq!(by_file.server_tls.channel_binding, ChannelBinding::Require);
    assert_eq!(by_file.server_tls.negotiation, SslNegotiation::Postgres);
}

#[test]
fn the_password_file_has_a_password_for_each_server() {
    let directory = Directory::new();
    let lines = b"db1:5432:postgres:tester:one\n*:*:*:tester:any\n";
    let passfile = directory.file("pgpass", lines).display().to_string();
    let env = [("PGPASSFILE", passfile.as_str())];
    let flags = [("--server", "servers.hosts", "db1"), ("--server", "servers.hosts", "db2")];
    let said = Said { env: &env, flags: &flags, ..Said::default() };

    let config = said.config();
    assert_eq!(config.password_for(&config.servers[0]).unwrap().reveal(), "one");
    assert_eq!(config.password_for(&config.servers[1]).unwrap().reveal(), "any");

    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = said.load().unwrap();
    assert_eq!(loaded.config.password_for(&loaded.config.servers[0]), None);
    assert!(loaded.warnings.to_string().contains("can be read by others: not used"));
}

#[test]
fn a_secret_comes_from_text_file_or_environment() {
    let directory = Directory::new();
    let secret = directory.file("secret", b"from file\r\n").display().to_string();
    let sources = [
        ("\"from text\"".to_owned(), "from text"),
        (format!("{{ file = \"{secret}\" }}"), "from file"),
        ("{ env = \"MINE\" }".to_owned(), "from env"),
    ];
    for (written, meant) in sources {
        let file = format!("{HOSTS}password = {written}\n");
        let config = Said { file: &file, env: &[("MINE", "from env")], ..Said::default() }.config();
        assert_eq!(config.control_login.password.as_ref().unwrap().reveal(), meant);
        assert!(!format!("{config:?}").contains(meant));
    }
}

#[test]
fn a_plain_password_in_an_open_file_is_warned_of() {
    let directory = Directory::new();
    let path = directory.file("open.toml", format!("{HOSTS}password = \"x\"\n").as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();

    let request = pgsteer::config::Request { file: Some(path), ..Default::default() };

    let told = request.load().unwrap().warnings.to_string();
    assert!(told.contains("holds a password and has mode 0644: others can read it"), "{told}");
}

#[test]
fn tls_needs_both_its_files_and_both_readable() {
    let directory = Directory::new();
    let cert = directory.file("a.crt", b"-").display().to_string();
    let key = directory.file("a.key", b"-").display().to_string();
    let file = format!("{HOSTS}[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n");
    let required = format!("{file}mode = \"require\"\n");
    let disabled = format!("{file}mode = \"disable\"\n");
    let mode = |file: &str| Said { file, ..Said::default() }.config().tls.map(|tls| tls.mode);

    assert_eq!(mode(&file), Some(ClientTlsMode::Prefer));
    assert_eq!(mode(&required), Some(ClientTlsMode::Require));
    assert_eq!(mode(&disabled), None);
    assert_eq!(mode(HOSTS), None);
}

/// Each of two sockets in one directory is numbered after the port that means the same.
#[test]
fn a_listener_may_give_its_sessions_a_role() {
    let flags = [
        ("--listen", "listen", "unix:/run/x"),
        ("--listen", "listen", "[::1]:7000"),
        ("--listen", "listen", "127.0.0.1:7001?role=standby"),
        ("--listen", "listen", "unix:/run/x?role=standby"),
        ("--listen", "listen", "127.0.0.1?role=primary"),
    ];
    let config = Said { file: HOSTS, flags: &flags, ..Said::default() }.config();
    let shown: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let expected = [
        "unix:/run/x",
        "[::1]:7000",
        "127.0.0.1:7001?role=standby",
        "unix:/run/x?role=standby",
        "127.0.0.1:6432?role=primary",
    ];
    assert_eq!(shown, expected);
    let sockets: Vec<_> = config.listen.iter().filter_map(Listen::socket_path).collect();
    let paths: Vec<_> = sockets.iter().map(|path| path.display().to_string()).collect();
    assert_eq!(paths, ["/run/x/.s.PGSQL.7000", "/run/x/.s.PGSQL.7001"]);
}

#[test]
fn trust_may_listen_at_home_and_scram_anywhere() {
    let homes =
        ["127.0.0.1", "127.8.9.10:1", "[::1]", "[::1]:1", "localhost", "unix:/run/x", "/run/x"];
    for home in homes {
        let flags = [("--listen", "listen", home)];
        Said { file: HOSTS, flags: &flags, ..Said::default() }.config();
    }
    let file =
        format!("listen = [\"0.0.0.0\", \"[::]\"]\n{HOSTS}[auth]\nmethod = \"scram-sha-256\"\n");
    let config = Said { file: &file, ..Said::default() }.config();
    assert_eq!(config.listen[0].to_string(), "0.0.0.0:6432");
    assert_eq!(config.listen[1].to_string(), "[::]:6432");
}

#[test]
fn a_reload_knows_what_changed_and_what_must_wait_for_a_restart() {
    let before = Said { file: HOSTS, ..Said::default() }.config();
    let file =
        "http = \"off\"\n[servers]\nhosts = [\"db1\", \"db2\"]\n[routing]\nhold_max = \"5s\"\n";
    let after = Said { file, ..Said::default() }.config();

    let changes = Config::changes(&before, &after);

    let keys: Vec<&str> = changes.iter().map(|change| change.key).collect();
    assert_eq!(keys, ["http", "servers.hosts", "routing.hold_max"]);
    assert_eq!((changes[2].old.as_str(), changes[2].new.as_str()), ("\"10s\"", "\"5s\""));
    assert_eq!(Config::changes_needing_restart(&before, &after), ["http", "servers.hosts"]);
    assert_eq!(Config::changes(&after, &after), []);
}

#[test]
fn another_password_is_a_change_that_shows_no_password() {
    let config = |password: &str| {
        let file = format!("{HOSTS}password = \"{password}\"\n");
        Said { file: &file, ..Said::default() }.config()
    };
    let changes = Config::changes(&config("eins"), &config("zwei"));
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].old.as_str(), changes[0].new.as_str()), ("\"***\"", "\"***\""));
}

#[test]
fn a_fingerprint_is_of_the_values_without_secrets() {
    let config = |file: &str, flags: &[(&'static str, &'static str, &'static str)]| {
        Said { file: &format!("{HOSTS}{file}"), flags, ..Said::default() }.config().fingerprint()
    };
    let plain = config("", &[]);
    assert_eq!(plain, config("", &[]), "it stays the same");
    assert_eq!(config("password = \"eins\"\n", &[]), config("password = \"zwei\"\n", &[]));
    let other = config("[pool]\nsize = 7\n", &[]);
    assert_ne!(other, plain);
    let flag = config("", &[("--set", "pool.size", "7")]);
    assert_eq!(flag, other, "where a value comes from is no part of it");
}

/// What a running pgsteer tells a command leads to the same servers, and gives nothing away.
#[test]
fn what_a_command_is_told_is_the_same_without_a_password() {
    let said = Said {
        file: "listen = [\"127.0.0.1:7000\"]\n[servers]\npassword = \"hidden\"\n\
               [servers.overrides]\n\"db1\" = { weight = 3 }\n",
        env: &[("PGUSER", "o'neill \"x\""), ("PGDATABASE", "post")],
        flags: &[
            ("--server", "servers.hosts", "db1"),
            ("--server", "servers.hosts", "postgresql://joe:secret@db2:5433/post"),
            ("--set", "failover.mode", "auto"),
            ("--set", "failover.demote", "crash_restart"),
        ],
    };
    let config = said.load().unwrap().config;
    let told = config.told();
    assert!(!told.contains("hidden") && !told.contains("secret"), "{told}");

    let again = Said { file: &told, ..Said::default() }.load().unwrap().config;

    assert_eq!(again.told(), told);
    assert_eq!((&again.listen, &again.failover), (&config.listen, &config.failover));
    let login = |config: &Config| {
        (config.control_login.user.clone(), config.control_login.database.clone())
    };
    assert_eq!(login(&again), login(&config));
    let servers = |config: &Config| -> Vec<_> {
        let each = config.servers.iter();
        each.map(|server| (server.name.to_string(), server.weight)).collect()
    };
    assert_eq!(servers(&again), servers(&config));
}
