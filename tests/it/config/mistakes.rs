//! The mistakes that are made most, each with the whole text that its maker reads.

use crate::config::Directory;
use crate::config::Said;
use pgsteer::config::Request;
use std::os::unix::fs::PermissionsExt as _;

/// The least that is right.
const HOSTS: &str = "[servers]\nhosts = [\"db1\"]\n";

/// What is said of a file.
fn file(text: &str) -> String {
    Said { file: text, ..Said::default() }.told()
}

/// What is said of a line in a section, the hosts being right. The line is the fourth.
fn line(section: &str, line: &str) -> String {
    file(&format!("{HOSTS}[{section}]\n{line}\n"))
}

/// What is said of a line in `[servers]`, the hosts being right. The line is the third.
fn servers(line: &str) -> String {
    file(&format!("{HOSTS}{line}\n"))
}

fn env(name: &str, value: &str) -> String {
    Said { file: HOSTS, env: &[(name, value)], ..Said::default() }.told()
}

fn set(key: &str, value: &str) -> String {
    let name = format!("--set {key}");
    Said { file: HOSTS, flags: &[(&name, key, value)], ..Said::default() }.told()
}

macro_rules! mistakes {
    ($($name:ident: $told:expr => $expected:literal)+) => {
        $(
            #[test]
            fn $name() {
                let expected = $expected.strip_prefix('\n').unwrap().trim_end();
                assert_eq!($told, expected);
            }
        )+
    };
}

mistakes! {
    a_misspelt_key: line("routing", "max_leg = { time = \"1s\" }") => r#"
error: pgsteer.toml:4:1: unknown key `max_leg` in [routing]
 4 | max_leg = { time = "1s" }
   | ^^^^^^^
   = help: did you mean `max_lag`?
"#
    a_misspelt_section: line("rooting", "reads = \"any\"") => r"
error: pgsteer.toml:3:2: unknown key `rooting`
 3 | [rooting]
   |  ^^^^^^^
   = help: did you mean `routing`?
"
    a_key_in_the_wrong_section: line("pool", "consistency = \"session\"") => r#"
error: pgsteer.toml:4:1: unknown key `consistency` in [pool]
 4 | consistency = "session"
   | ^^^^^^^^^^^
   = help: `consistency` belongs to [routing]
"#
    a_key_above_its_section: file("hosts = [\"db1\"]\n") => r#"
error: pgsteer.toml:1:1: unknown key `hosts`
 1 | hosts = ["db1"]
   | ^^^^^
   = help: `hosts` belongs to [servers]

error: there are no servers
  = help: name them: --server HOST, or hosts = ["HOST"] in [servers]
"#
    a_key_of_nobody: line("pool", "foo_bar_baz = 1") => r"
error: pgsteer.toml:4:1: unknown key `foo_bar_baz` in [pool]
 4 | foo_bar_baz = 1
   | ^^^^^^^^^^^
   = help: known here: mode, size, max_clients, wait_timeout, idle_timeout, max_lifetime, reset, unnamed_statements, audit_every
"
    a_key_of_another_proxy: line("pool", "default_pool_size = 1") => r"
error: pgsteer.toml:4:1: unknown key `default_pool_size` in [pool]
 4 | default_pool_size = 1
   | ^^^^^^^^^^^^^^^^^
   = help: here it is called `pool.size`
"
    a_misspelt_key_in_a_table: line("routing", "max_lag = { tiem = \"1s\" }") => r#"
error: pgsteer.toml:4:13: unknown key `tiem` in [routing.max_lag]
 4 | max_lag = { tiem = "1s" }
   |             ^^^^
   = help: did you mean `time`?
"#
    a_section_as_a_value: file("routing = \"standby\"\n[servers]\nhosts = [\"db1\"]\n") => r#"
error: pgsteer.toml:1:11: `routing` is a section, found text
 1 | routing = "standby"
   |           ^^^^^^^^^
   = help: write [routing] with these keys: reads, consistency, max_lag, on_all_stale, balance, replay_wait_max, observation_age_max, hold_max, hold_memory, read_functions, write_functions
"#
    a_lag_without_its_dimension: line("routing", "max_lag = \"1s\"") => r#"
error: pgsteer.toml:4:11: `routing.max_lag` is a section, found text
 4 | max_lag = "1s"
   |           ^^^^
   = help: write max_lag = { time = "1s", bytes = "16MB" }
"#
    a_bare_number_as_a_duration: line("routing", "hold_max = 10") => r#"
error: pgsteer.toml:4:12: a duration needs a unit
 4 | hold_max = 10
   |            ^^
   = help: write "10s" for seconds or "10ms" for milliseconds
"#
    a_bare_number_in_quotes_as_a_duration: line("routing", "hold_max = \"10\"") => r#"
error: pgsteer.toml:4:12: a duration needs a unit
 4 | hold_max = "10"
   |            ^^^^
   = help: write "10s" for seconds or "10ms" for milliseconds
"#
    a_fraction_as_a_duration: line("routing", "hold_max = \"1.5s\"") => r#"
error: pgsteer.toml:4:12: `1.5s` is not a duration
 4 | hold_max = "1.5s"
   |            ^^^^^^
   = help: durations are whole numbers with a unit: us, ms, s, m, h, d, as in "500ms"
"#
    a_negative_duration: line("routing", "hold_max = \"-1s\"") => r#"
error: pgsteer.toml:4:12: `-1s` is not a duration
 4 | hold_max = "-1s"
   |            ^^^^^
   = help: durations are whole numbers with a unit: us, ms, s, m, h, d, as in "500ms"
"#
    an_unknown_unit_of_time: line("routing", "hold_max = \"10 seconds\"") => r#"
error: pgsteer.toml:4:12: `10 seconds` has an unknown unit
 4 | hold_max = "10 seconds"
   |            ^^^^^^^^^^^^
   = help: durations are whole numbers with a unit: us, ms, s, m, h, d, as in "500ms"
"#
    an_endless_duration: line("routing", "hold_max = \"99999999999999d\"") => r#"
error: pgsteer.toml:4:12: `99999999999999d` is too large a duration
 4 | hold_max = "99999999999999d"
   |            ^^^^^^^^^^^^^^^^^
"#
    off_where_there_is_no_off: line("routing", "hold_max = \"off\"") => r#"
error: pgsteer.toml:4:12: `off` is not a duration
 4 | hold_max = "off"
   |            ^^^^^
   = help: durations are whole numbers with a unit: us, ms, s, m, h, d, as in "500ms"
"#
    false_for_off: line("routing", "max_lag.time = false") => r#"
error: pgsteer.toml:4:16: expected text in quotes
 4 | max_lag.time = false
   |                ^^^^^
   = help: write "off"
"#
    a_bare_number_as_a_size: line("routing", "max_lag.bytes = 16777216") => r#"
error: pgsteer.toml:4:17: a size needs a unit
 4 | max_lag.bytes = 16777216
   |                 ^^^^^^^^
   = help: write "16MB" if you mean bytes
"#
    a_unit_of_size_in_the_wrong_case: line("routing", "max_lag.bytes = \"16mb\"") => r#"
error: pgsteer.toml:4:17: `16mb` has an unknown unit
 4 | max_lag.bytes = "16mb"
   |                 ^^^^^^
   = help: units are case-sensitive, as in PostgreSQL: write `MB`
"#
    a_misspelt_choice: line("pool", "mode = \"transactions\"") => r#"
error: pgsteer.toml:4:8: `transactions` is not one of: transaction, session
 4 | mode = "transactions"
   |        ^^^^^^^^^^^^^^
   = help: did you mean "transaction"?
"#
    another_proxys_choice: line("pool", "mode = \"statement\"") => r#"
error: pgsteer.toml:4:8: `statement` is not one of: transaction, session
 4 | mode = "statement"
   |        ^^^^^^^^^^^
"#
    a_word_of_another_project: line("routing", "reads = \"replica\"") => r#"
error: pgsteer.toml:4:9: `replica` is not one of: standby, any, primary
 4 | reads = "replica"
   |         ^^^^^^^^^
   = help: did you mean "standby"?
"#
    a_number_in_quotes: line("pool", "size = \"20\"") => r#"
error: pgsteer.toml:4:8: expected a number, found text
 4 | size = "20"
   |        ^^^^
   = help: write it without quotes: 20
"#
    a_pool_of_nothing: line("pool", "size = 0") => r"
error: pgsteer.toml:4:8: `pool.size` must be at least 1
 4 | size = 0
   |        ^
   = help: left out, it is 20
"
    a_number_that_is_none: set("pool.size", "many") => r"
error: --set pool.size: `many` is not a whole number from 0 to 4294967295
  = help: write digits alone, without quotes and without a unit
"
    peers_without_a_number: line("cancel", "peers = [\"10.0.0.1:6432\", \"10.0.0.2:6432\"]") => r#"
error: pgsteer.toml:4:9: `cancel.peers` is set, `cancel.number` is not
 4 | peers = ["10.0.0.1:6432", "10.0.0.2:6432"]
   |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: name all pgsteers in cancel.peers, in one order, and say which one this is
"#
    a_number_without_peers: line("cancel", "number = 2") => r"
error: pgsteer.toml:4:10: `cancel.number` is set, `cancel.peers` is not
 4 | number = 2
   |          ^
   = help: name all pgsteers in cancel.peers, in one order, and say which one this is
"
    a_number_that_no_peer_has: line("cancel", "peers = [\"10.0.0.1:6432\"]\nnumber = 2") => r"
error: pgsteer.toml:5:10: `cancel.number` must be from 1 to 1
 5 | number = 2
   |          ^
   = help: name all pgsteers in cancel.peers, in one order, and say which one this is
"
    the_number_zero: line("cancel", "peers = [\"10.0.0.1:6432\"]\nnumber = 0") => r"
error: pgsteer.toml:5:10: `cancel.number` must be from 1 to 1
 5 | number = 0
   |          ^
   = help: name all pgsteers in cancel.peers, in one order, and say which one this is
"
    a_peers_number_in_quotes: line("cancel", "peers = [\"10.0.0.1:6432\"]\nnumber = \"1\"") => r#"
error: pgsteer.toml:5:10: expected a number, found text
 5 | number = "1"
   |          ^^^
   = help: write it without quotes: 1
"#
    a_peer_twice: line("cancel", "peers = [\"a:6432\", \"b:6432\", \"a:6432\"]\nnumber = 1") => r#"
error: pgsteer.toml:4:9: `a:6432` is listed twice in `cancel.peers`
 4 | peers = ["a:6432", "b:6432", "a:6432"]
   |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: name all pgsteers in cancel.peers, in one order, and say which one this is
"#
    a_peer_without_its_port: line("cancel", "peers = [\"10.0.0.1\"]\nnumber = 1") => r#"
error: pgsteer.toml:4:10: `10.0.0.1` is no peer's address and port
 4 | peers = ["10.0.0.1"]
   |          ^^^^^^^^^^
   = help: write "10.0.0.2:6432", "pgsteer-2.pgsteer:6432" or "[::1]:6432"
"#
    a_peer_at_port_zero: line("cancel", "peers = [\"10.0.0.1:0\"]\nnumber = 1") => r#"
error: pgsteer.toml:4:10: `10.0.0.1:0` is no peer's address and port
 4 | peers = ["10.0.0.1:0"]
   |          ^^^^^^^^^^^^
   = help: write "10.0.0.2:6432", "pgsteer-2.pgsteer:6432" or "[::1]:6432"
"#
    a_peer_as_a_uri: line("cancel", "peers = [\"postgresql://10.0.0.1:6432\"]\nnumber = 1") => r#"
error: pgsteer.toml:4:10: `postgresql://10.0.0.1:6432` is no peer's address and port
 4 | peers = ["postgresql://10.0.0.1:6432"]
   |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: write "10.0.0.2:6432", "pgsteer-2.pgsteer:6432" or "[::1]:6432"
"#
    peers_without_brackets: line("cancel", "peers = \"10.0.0.1:6432\"\nnumber = 1") => r#"
error: pgsteer.toml:4:9: expected a list, found text
 4 | peers = "10.0.0.1:6432"
   |         ^^^^^^^^^^^^^^^
   = help: write it in brackets: ["10.0.0.1:6432"]
"#
    another_peers_number: file(&format!(
        "listen = [\"127.0.0.2:6432\"]\n{HOSTS}[cancel]\nnumber = 1\n\
         peers = [\"127.0.0.1:6432\", \"127.0.0.2:6432\"]\n"
    )) => r"
error: pgsteer.toml:5:10: `cancel.number` is 1, but this pgsteer listens at the address of peer 2
 5 | number = 1
   |          ^
   = help: name all pgsteers in cancel.peers, in one order, and say which one this is
"
    a_strictness_towards_no_peers: line("cancel", "sslmode = \"verify-full\"") => r#"
error: pgsteer.toml:4:11: `cancel.sslmode` is set, `cancel.peers` is not
 4 | sslmode = "verify-full"
   |           ^^^^^^^^^^^^^
   = help: name the peers, or leave it out
"#
    an_authority_of_no_peers: line("cancel", "sslrootcert = \"/nowhere/ca.crt\"") => r#"
error: pgsteer.toml:4:15: `cancel.sslrootcert` is set, `cancel.peers` is not
 4 | sslrootcert = "/nowhere/ca.crt"
   |               ^^^^^^^^^^^^^^^^^
   = help: name the peers, or leave it out
"#
    a_misspelt_strictness_towards_peers: line(
        "cancel",
        "peers = [\"10.0.0.1:6432\"]\nnumber = 1\nsslmode = \"verify_full\""
    ) => r#"
error: pgsteer.toml:6:11: `verify_full` is not one of: disable, allow, prefer, require, verify-ca, verify-full
 6 | sslmode = "verify_full"
   |           ^^^^^^^^^^^^^
   = help: did you mean "verify-full"?
"#
    an_authority_of_peers_that_is_not_there: line(
        "cancel",
        "peers = [\"10.0.0.1:6432\"]\nnumber = 1\nsslrootcert = \"/nowhere/ca.crt\""
    ) => r#"
error: pgsteer.toml:6:15: cannot read /nowhere/ca.crt: No such file or directory (os error 2)
 6 | sslrootcert = "/nowhere/ca.crt"
   |               ^^^^^^^^^^^^^^^^^
   = help: name a file that is there, and that the user who runs pgsteer may read
"#
    an_authority_without_tls_towards_peers: line(
        "cancel",
        "peers = [\"a:1\"]\nnumber = 1\nsslmode = \"disable\"\nsslrootcert = \"/dev/null\""
    ) => r#"
error: pgsteer.toml:7:15: `cancel.sslrootcert` is set, but `cancel.sslmode` is `disable`
 7 | sslrootcert = "/dev/null"
   |               ^^^^^^^^^^^
   = help: set cancel.sslmode to verify-full, or leave cancel.sslrootcert out
"#
    one_host_without_brackets: file("[servers]\nhosts = \"db1\"\n") => r#"
error: pgsteer.toml:2:9: expected a list, found text
 2 | hosts = "db1"
   |         ^^^^^
   = help: write it in brackets: ["db1"]
"#
    no_hosts: file("[pool]\nsize = 10\n") => r#"
error: there are no servers
  = help: name them: --server HOST, or hosts = ["HOST"] in [servers]
"#
    an_empty_list_of_hosts: file("[servers]\nhosts = []\n") => r#"
error: pgsteer.toml:2:9: there are no servers
 2 | hosts = []
   |         ^^
   = help: name them: --server HOST, or hosts = ["HOST"] in [servers]
"#
    a_host_twice: file("[servers]\nhosts = [\"db1\", \"db2\", \"db1:5432\"]\n") => r#"
error: pgsteer.toml:2:24: `db1:5432` is listed twice
 2 | hosts = ["db1", "db2", "db1:5432"]
   |                        ^^^^^^^^^^
   = help: name it once
"#
    a_port_that_is_none: file("[servers]\nhosts = [\"db1:http\"]\n") => r#"
error: pgsteer.toml:2:10: `db1:http` has no valid port
 2 | hosts = ["db1:http"]
   |          ^^^^^^^^^^
   = help: a port is a number from 1 to 65535
"#
    libpqs_keyword_form: file("[servers]\nhosts = [\"host=db1 port=5432\"]\n") => r#"
error: pgsteer.toml:2:10: `host=db1 port=5432` is not a server's address
 2 | hosts = ["host=db1 port=5432"]
   |          ^^^^^^^^^^^^^^^^^^^^
   = help: write "HOST", "HOST:PORT", "[::1]:5432", "/socket/dir" or a postgresql:// URI
"#
    an_address_without_brackets: file("[servers]\nhosts = [\"fe80::1:2:3:4:5:5432:9\"]\n") => r#"
error: pgsteer.toml:2:10: `fe80::1:2:3:4:5:5432:9` is not a server's address
 2 | hosts = ["fe80::1:2:3:4:5:5432:9"]
   |          ^^^^^^^^^^^^^^^^^^^^^^^^
   = help: write an IPv6 address in brackets: "[::1]:5432"
"#
    another_databases_uri: file("[servers]\nhosts = [\"mysql://u:geheim@db1\"]\n") => r#"
error: pgsteer.toml:2:10: `mysql://u:***@db1` is not a server's address
 2 | hosts = ["mysql://u:***@db1"]
   |          ^^^^^^^^^^^^^^^^^^^^
   = help: only postgresql:// URIs are understood
"#
    an_unknown_parameter_of_a_uri: file("[servers]\nhosts = [\"postgresql://u:geheim@db1/app?ssl_mode=require\"]\n") => r#"
error: pgsteer.toml:2:10: `postgresql://u:***@db1/app?ssl_mode=require` has an unknown parameter `ssl_mode`
 2 | hosts = ["postgresql://u:***@db1/app?ssl_mode=require"]
   |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: did you mean `sslmode`?
"#
    two_logins: file("[servers]\nhosts = [\"postgresql://a@db1\", \"postgresql://b@db2\"]\n") => r#"
error: pgsteer.toml:2:32: the URIs of two servers name different logins
 2 | hosts = ["postgresql://a@db1", "postgresql://b@db2"]
   |                                ^^^^^^^^^^^^^^^^^^^^
   = help: pgsteer watches all servers as one user: name it once, in [servers]
"#
    an_override_of_nobody: servers("[servers.overrides.\"db9:5432\"]\nweight = 0") => r#"
error: pgsteer.toml:3:20: no server is called `db9:5432`
 3 | [servers.overrides."db9:5432"]
   |                    ^^^^^^^^^^
   = help: servers.hosts has: db1:5432
"#
    an_override_without_quotes: servers("[servers.overrides.db1.internal]\nweight = 0") => r#"
error: pgsteer.toml:3:24: unknown key `internal`
 3 | [servers.overrides.db1.internal]
   |                        ^^^^^^^^
   = help: put the whole address in quotes: "db1.internal"
"#
    a_misspelt_override: servers("[servers.overrides.db1]\nwieght = 0") => r"
error: pgsteer.toml:4:1: unknown key `wieght`
 4 | wieght = 0
   | ^^^^^^
   = help: did you mean `weight`?
"
    an_override_that_nobody_knows: servers("[servers.overrides.db1]\nzone = \"a\"") => r#"
error: pgsteer.toml:4:1: unknown key `zone`
 4 | zone = "a"
   | ^^^^
   = help: a server has these keys of its own: weight, priority, replication_address
"#
    a_replication_address_that_is_a_socket: servers("[servers.overrides.db1]\nreplication_address = \"/run/pg\"") => r#"
error: pgsteer.toml:4:23: `/run/pg` is a unix socket
 4 | replication_address = "/run/pg"
   |                       ^^^^^^^^^
   = help: other servers reach it by HOST or HOST:PORT
"#
    a_loss_without_a_unit: servers("[failover]\nmax_data_loss = 0") => r#"
error: pgsteer.toml:4:17: a size needs a unit
 4 | max_data_loss = 0
   |                 ^
   = help: write "0MB" or "0kB"; as in PostgreSQL, 1kB is 1024B
"#
    a_mode_of_failover_that_is_none: servers("[failover]\nmode = \"automatic\"") => r#"
error: pgsteer.toml:4:8: `automatic` is not one of: off, manual, auto
 4 | mode = "automatic"
   |        ^^^^^^^^^^^
   = help: did you mean "auto"?
"#
    a_mode_of_failover_that_is_no_word: servers("[failover]\nmode = true") => r#"
error: pgsteer.toml:4:8: expected one of: off, manual, auto; found true or false
 4 | mode = true
   |        ^^^^
   = help: put one of them in quotes, as "off"
"#
    a_drain_that_outlasts_what_waits_for_it: servers("[failover]\ndrain_timeout = \"15s\"") => r#"
warning: pgsteer.toml:4:17: failover.drain_timeout (15s) is not shorter than routing.hold_max (10s)
 4 | drain_timeout = "15s"
   |                 ^^^^^
   = help: statements that wait for a switchover may fail with SQLSTATE 57P03
"#
    a_role_that_is_declared: servers("role = \"primary\"") => r#"
error: pgsteer.toml:3:1: unknown key `role` in [servers]
 3 | role = "primary"
   | ^^^^
   = help: roles are discovered, never declared
"#
    trust_for_the_world: file("listen = [\"0.0.0.0:6432\"]\n[servers]\nhosts = [\"db1\"]\n") => r#"
error: pgsteer.toml:1:11: with auth.method = "trust", the default, anybody who reaches 0.0.0.0:6432 could log in as anybody
 1 | listen = ["0.0.0.0:6432"]
   |           ^^^^^^^^^^^^^^
   = help: set auth.method = "scram-sha-256", or listen on 127.0.0.1, [::1] or unix:/DIR only
"#
    a_listener_on_a_star: file("listen = [\"*:6432\"]\n[servers]\nhosts = [\"db1\"]\n") => r#"
error: pgsteer.toml:1:11: `*:6432` is not an address to listen on
 1 | listen = ["*:6432"]
   |           ^^^^^^^^
   = help: for every address write "0.0.0.0:6432" or "[::]:6432"
"#
    a_listener_on_a_mere_port: file("listen = [\"6432\"]\n[servers]\nhosts = [\"db1\"]\n") => r#"
error: pgsteer.toml:1:11: `6432` is not an address to listen on
 1 | listen = ["6432"]
   |           ^^^^^^
   = help: write "127.0.0.1:6432"
"#
    a_listener_twice: file("listen = [\"127.0.0.1\", \"127.0.0.1:6432\"]\n[servers]\nhosts = [\"db1\"]\n") => r#"
error: pgsteer.toml:1:24: `127.0.0.1:6432` is listed twice
 1 | listen = ["127.0.0.1", "127.0.0.1:6432"]
   |                        ^^^^^^^^^^^^^^^^
   = help: name it once
"#
    a_listener_of_a_role_that_is_none: file("listen = [\"127.0.0.1?role=replica\"]\n[servers]\nhosts = [\"db1\"]\n") => r#"
error: pgsteer.toml:1:11: `role=replica` is nothing that a listener can be asked for
 1 | listen = ["127.0.0.1?role=replica"]
   |           ^^^^^^^^^^^^^^^^^^^^^^^^
   = help: write ?role=standby, ?role=primary or nothing
"#
    tls_without_a_certificate: line("tls", "mode = \"require\"") => r#"
error: pgsteer.toml:4:8: TLS is required, but there is no certificate
 4 | mode = "require"
   |        ^^^^^^^^^
   = help: set both tls.cert and tls.key
"#
    a_certificate_that_is_not_there: line("tls", "cert = \"/nowhere/a.crt\"\nkey = \"/nowhere/a.key\"") => r#"
error: pgsteer.toml:4:8: cannot read /nowhere/a.crt: No such file or directory (os error 2)
 4 | cert = "/nowhere/a.crt"
   |        ^^^^^^^^^^^^^^^^
   = help: name a file that is there, and that the user who runs pgsteer may read

error: pgsteer.toml:5:7: cannot read /nowhere/a.key: No such file or directory (os error 2)
 5 | key = "/nowhere/a.key"
   |       ^^^^^^^^^^^^^^^^
   = help: name a file that is there, and that the user who runs pgsteer may read
"#
    a_certificate_without_its_key: line("tls", "cert = \"/nowhere/a.crt\"") => r#"
error: pgsteer.toml:4:8: `tls.cert` is set, `tls.key` is not
 4 | cert = "/nowhere/a.crt"
   |        ^^^^^^^^^^^^^^^^
   = help: set both tls.cert and tls.key
"#
    scram_without_verifiers: line("auth", "method = \"scram-sha-256\"\nquery = \"\"") => r#"
error: pgsteer.toml:5:9: nobody can log in: there is neither a file nor a query of verifiers
 5 | query = ""
   |         ^^
   = help: set auth.file or auth.query
"#
    an_age_below_the_interval: servers("check_interval = \"3s\"") => r#"
error: pgsteer.toml:3:18: routing.observation_age_max (2s) must be longer than servers.check_interval (3s)
 3 | check_interval = "3s"
   |                  ^^^^
   = help: or every standby counts as unseen between two looks at it
"#
    a_password_from_nowhere: servers("password = { env = \"NOT_SET\" }") => r#"
error: pgsteer.toml:3:12: the environment variable NOT_SET is not set
 3 | password = ***
   |            ^^^
   = help: set it, or write { file = "PATH" }
"#
    a_password_from_a_vault: servers("password = { vault = \"x\" }") => r#"
error: pgsteer.toml:3:14: a secret cannot come from `vault`
 3 | password = ***
   |              ^
   = help: write { file = "PATH" } or { env = "NAME" }
"#
    a_password_file_that_is_not_there: servers("password = { file = \"/nowhere/secret\" }") => r"
error: pgsteer.toml:3:12: cannot read the secret from /nowhere/secret: No such file or directory (os error 2)
 3 | password = ***
   |            ^^^
   = help: name a file that is there, and that the user who runs pgsteer may read
"
    a_function_with_arguments: line("routing", "read_functions = [\"f(int)\"]") => r#"
error: pgsteer.toml:4:19: `f(int)` is not a function's name
 4 | read_functions = ["f(int)"]
   |                   ^^^^^^^^
   = help: write the bare name, without arguments: "my_function" or "app.my_function"
"#
    a_string_that_does_not_end: file("[servers]\nhosts = [\"db1]\n") => r#"
error: pgsteer.toml:2:15: unclosed array, expected `]`
 2 | hosts = ["db1]
   |               ^

error: pgsteer.toml:2:15: invalid basic string, expected `"`
 2 | hosts = ["db1]
   |               ^
"#
    a_key_twice: file("[servers]\nhosts = [\"db1\"]\nhosts = [\"db2\"]\n") => r#"
error: pgsteer.toml:3:1: duplicate key
 3 | hosts = ["db2"]
   | ^^^^^
"#
    a_secret_that_does_not_end: servers("password = \"geheim") => r#"
error: pgsteer.toml:3:19: invalid basic string, expected `"`
 3 | password = ***
   |               ^
"#
    a_colon_for_an_equals_sign: servers("user: \"x\"") => r#"
error: pgsteer.toml:3:5: invalid unquoted key, expected letters, numbers, `-`, `_`
 3 | user: "x"
   |     ^

error: pgsteer.toml:3:7: key with no value, expected `=`
 3 | user: "x"
   |       ^
"#
    a_misspelt_variable: env("PGSTEER_ROUTING__HOLDMAX", "1s") => r"
error: environment PGSTEER_ROUTING__HOLDMAX: unknown key `routing.holdmax`
  = help: did you mean PGSTEER_ROUTING__HOLD_MAX?
"
    a_variable_without_a_unit: env("PGSTEER_ROUTING__HOLD_MAX", "5") => r#"
error: environment PGSTEER_ROUTING__HOLD_MAX: a duration needs a unit
  = help: write "5s" for seconds or "5ms" for milliseconds
"#
    a_misspelt_flag_key: set("routing.maxlag.time", "1s") => r"
error: --set routing.maxlag.time: unknown key `routing.maxlag.time`
  = help: did you mean `routing.max_lag.time`?
"
    an_authority_without_a_certificate: line("tls", "client_ca = \"/etc/hostname\"") => r#"
error: pgsteer.toml:4:13: `tls.client_ca` is set, but there is no certificate of our own
 4 | client_ca = "/etc/hostname"
   |             ^^^^^^^^^^^^^^^
   = help: set both tls.cert and tls.key
"#
    our_certificate_without_its_key: servers("sslcert = \"/etc/hostname\"") => r#"
error: pgsteer.toml:3:11: `servers.sslcert` is set, `servers.sslkey` is not
 3 | sslcert = "/etc/hostname"
   |           ^^^^^^^^^^^^^^^
   = help: set both, or neither
"#
    a_rule_about_a_listener_that_is_none: line("limits", "rules = [{ listener = \"1.2.3.4:5\", connections = 1 }]") => r#"
error: pgsteer.toml:4:9: `1.2.3.4:5` is no address where we listen
 4 | rules = [{ listener = "1.2.3.4:5", connections = 1 }]
   |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: a rule can be about: 127.0.0.1:6432
"#
    a_rule_that_limits_nothing: line("limits", "rules = [{ user = \"app\" }]") => r#"
error: pgsteer.toml:4:10: this rule limits nothing
 4 | rules = [{ user = "app" }]
   |          ^^^^^^^^^^^^^^^^
   = help: add one of: connections, login_timeout, idle_timeout, idle_in_transaction_timeout, transaction_timeout, query_timeout, max_message, max_statement, max_prepared, max_memory
"#
    a_rule_of_logins_for_a_user: line("limits", "rules = [{ user = \"app\", login_timeout = \"5s\" }]") => r#"
error: pgsteer.toml:4:10: before its login nobody knows a client's user and database
 4 | rules = [{ user = "app", login_timeout = "5s" }]
   |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: let a rule with login_timeout name an address, or nobody
"#
    a_rule_about_no_network: line("limits", "rules = [{ address = \"10.0.0\", connections = 1 }]") => r#"
error: pgsteer.toml:4:22: `10.0.0` is not a network
 4 | rules = [{ address = "10.0.0", connections = 1 }]
   |                      ^^^^^^^^
   = help: write "10.0.0.0/8", "2001:db8::/32" or a single address
"#
    a_rule_of_another_word: line("limits", "rules = [{ connection = 1 }]") => r"
error: pgsteer.toml:4:12: a rule of limits has no `connection`
 4 | rules = [{ connection = 1 }]
   |            ^^^^^^^^^^
   = help: did you mean `connections`?
"
    a_rule_for_each_of_nothing: line("limits", "rules = [{ each = \"host\", connections = 1 }]") => r#"
error: pgsteer.toml:4:19: `host` is not one of: user, database, address, listener
 4 | rules = [{ each = "host", connections = 1 }]
   |                   ^^^^^^
"#
    a_rule_of_too_short_a_time: line("limits", "rules = [{ idle_timeout = \"10ms\" }]") => r#"
error: pgsteer.toml:4:27: must be at least "1s"
 4 | rules = [{ idle_timeout = "10ms" }]
   |                           ^^^^^^
   = help: times are looked at once a second
"#
    direct_tls_that_may_be_left_out: servers("sslnegotiation = \"direct\"") => r#"
error: pgsteer.toml:3:18: `servers.sslnegotiation` can't be `direct` with the weak sslmode "prefer"
 3 | sslnegotiation = "direct"
   |                  ^^^^^^^^
   = help: set servers.sslmode to require, verify-ca or verify-full
"#
    a_wrong_channel_binding_in_the_environment: env("PGCHANNELBINDING", "on") => r"
error: environment PGCHANNELBINDING: `on` is not one of: disable, prefer, require
"
    a_wrong_sslmode_in_the_environment: env("PGSSLMODE", "on") => r"
error: environment PGSSLMODE: `on` is not one of: disable, allow, prefer, require, verify-ca, verify-full
"
}

/// Services of Kubernetes put variables with our prefix into every container.
#[test]
fn a_variable_of_ours_without_two_underscores_is_none_of_ours() {
    assert_eq!(env("PGSTEER_SERVICE_HOST", "10.0.0.1"), "");
    assert_eq!(env("PGSTEER_PORT_6432_TCP", "tcp://10.0.0.1:6432"), "");
}

#[test]
fn too_many_servers() {
    let hosts: Vec<String> = (0..65).map(|number| format!("\"db{number}\"")).collect();
    let told = file(&format!("[servers]\nhosts = [{}]\n", hosts.join(",")));
    assert!(
        told.starts_with("error: pgsteer.toml:2:9: 65 servers are too many: at most 64\n"),
        "{told}"
    );
}

#[test]
fn everything_is_told_at_once_and_in_the_order_of_the_file() {
    let text = "\
[routing]
reads = \"standbys\"
hold_max = 5
[servers]
hosts = [\"db1\", \"db1\"]
chekc_interval = \"1s\"
[pool]
size = 0
";
    let told = Said {
        file: text,
        env: &[("PGSTEER_POOL__MODE", "x")],
        flags: &[("--listen", "listen", "x")],
    }
    .told();

    let heads: Vec<&str> = told.lines().filter(|line| line.starts_with("error")).collect();
    let expected = [
        "error: pgsteer.toml:2:9: `standbys` is not one of: standby, any, primary",
        "error: pgsteer.toml:3:12: a duration needs a unit",
        "error: pgsteer.toml:5:17: `db1:5432` is listed twice",
        "error: pgsteer.toml:6:1: unknown key `chekc_interval` in [servers]",
        "error: pgsteer.toml:8:8: `pool.size` must be at least 1",
        "error: environment PGSTEER_POOL__MODE: `x` is not one of: transaction, session",
        "error: --listen: `x` is not an address to listen on",
    ];
    assert_eq!(heads, expected);
}

#[test]
fn a_mistake_in_the_file_counts_although_a_variable_overrides_it() {
    let told = Said {
        file: "[servers]\nhosts = [\"db1\"]\n[routing]\nhold_max = 5\n",
        env: &[("PGSTEER_ROUTING__HOLD_MAX", "5s")],
        ..Said::default()
    }
    .told();
    assert!(told.starts_with("error: pgsteer.toml:4:12: a duration needs a unit\n"), "{told}");
}

#[test]
fn a_file_that_is_not_text() {
    let directory = Directory::new();
    let path = directory.file("pgsteer.toml", b"[servers]\nhosts = [\"db1\xff\"]\n");

    let report = Request { file: Some(path), ..Request::default() }.load().unwrap_err();

    let told = report.to_string();
    assert!(told.contains("pgsteer.toml:2:14: the file is not UTF-8\n"), "{told}");
    assert_eq!(report.problems().len(), 1, "{told}");
}

#[test]
fn a_file_that_is_not_there() {
    let file = Some("/nowhere/pgsteer.toml".into());
    let report = Request { file, ..Request::default() }.load().unwrap_err();
    let expected = "error: /nowhere/pgsteer.toml: cannot read the file: No such file or directory (os error 2)\n  \
                    = help: name a file that is there, and that the user who runs pgsteer may read";
    assert_eq!(report.to_string(), expected);
}

#[test]
fn a_secret_that_others_can_read_is_used_with_a_warning() {
    let directory = Directory::new();
    let secret = directory.file("secret", b"geheim\n");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!("{HOSTS}password = {{ file = \"{}\" }}\n", secret.display());
    let said = Said { file: &text, ..Said::default() };

    let loaded = said.load_in(&directory).unwrap();

    let told = loaded.warnings.to_string();
    assert!(told.starts_with("warning: "), "{told}");
    assert!(told.contains("/secret has mode 0644: others can read the secret\n"), "{told}");
    assert_eq!(loaded.config.control_login.password.unwrap().reveal(), "geheim");
}

#[test]
fn no_secret_is_ever_shown() {
    let secret = "geheim";
    let texts = [
        format!("{HOSTS}password = \"{secret}\"\nport = 1\n"),
        format!("{HOSTS}password = [\"{secret}\"]\n"),
        format!("{HOSTS}password = \"{secret}\n"),
        format!("{HOSTS}password = {secret}\n"),
        format!("{HOSTS}password =\n\"{secret}\"\n"),
        format!("{HOSTS}password = \"\"\"\n{secret}\n"),
        format!("{HOSTS}password = '''\n{secret}\n"),
        format!("{HOSTS}passwort = \"{secret}\"\n"),
        format!("{HOSTS}password.text = \"{secret}\"\n"),
        format!("servers = {{ hosts = [\"db1\"], password = \"{secret}\", x = 1 }}\n"),
        format!("[servers]\nhosts = [\"postgresql://u:{secret}@db1/?x=1\"]\n"),
        format!("[servers]\nhosts = [\"postgresql://u:a/{secret}@db1:x\", 5]\n"),
        format!("[servers]\nhosts = [\"postgresql://db1/?password={secret}&x=1\"]\n"),
        format!("[servers]\nhosts = [\"postgresql://u:{secret}@db1\n"),
    ];
    for text in texts {
        let said = Said { file: &text, ..Said::default() };
        let told = match said.load() {
            Ok(loaded) => format!("{} {:?}", loaded.warnings, loaded.config),
            Err(report) => {
                format!("{report} {}", serde_json::to_string(report.problems()).unwrap())
            }
        };
        assert!(!told.contains(secret), "{text}\n{told}");
    }
}

#[test]
fn no_control_character_reaches_a_terminal() {
    let told = file("[servers]\nhosts = [\"db1\"] # \u{1b}[31m\r x\u{7}\nus\u{9b}er = 1\n");
    assert!(told.chars().all(|sign| sign == '\n' || !sign.is_control()), "{told:?}");
}
