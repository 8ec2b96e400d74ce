//! Which layer counts, and what each value's source is called.

use crate::config::Said;
use pgsteer::config::Source;
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
