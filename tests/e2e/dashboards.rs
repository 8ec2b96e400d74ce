//! The dashboards and the alerts that we ship, asked of a real Prometheus that scrapes a proxy
//! under load: each query of each panel has an answer.

use crate::support::Blueprint;
use crate::support::House;
use crate::support::Prometheus;
use crate::support::await_that;
use crate::support::tool;
use pgsteer::sandbox::eventually;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// More clients than a pool has backends, so that some wait.
const CLIENTS: usize = 12;

fn dashboards() -> Vec<(String, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards");
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
        })
        .collect();
    found.sort_by(|one, two| one.0.cmp(&two.0));
    assert!(!found.is_empty(), "no dashboards");
    found
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap().iter();
    all.filter(|panel| panel["type"] != "row").collect()
}

/// Every query, as Grafana would send it with all variables on "All"; without what gives one a
/// value where it finds none. What moved once is seen for a minute.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let text = target["expr"].as_str().unwrap();
            let text = text
                .trim_end_matches(" or vector(0)")
                .replace("$__rate_interval", "60s")
                .replace("$__interval", "10s")
                .replace("$__range", "60s");
            let text = ["$job", "$instance", "$server"]
                .iter()
                .fold(text, |text, variable| text.replace(variable, ".*"));
            assert!(!text.contains('$'), "an unknown variable: {text}");
            found.push((panel["title"].as_str().unwrap().to_owned(), text));
        }
    }
    found
}

#[test]
fn dashboards_are_well_formed() {
    const KINDS: [&str; 4] = ["row", "stat", "timeseries", "state-timeline"];
    for (name, dashboard) in dashboards() {
        assert!(dashboard["id"].is_null(), "{name}: an id belongs to one Grafana");
        assert!(dashboard["uid"].as_str().unwrap().starts_with("pgsteer-"), "{name}");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let kinds: Vec<_> = variables.iter().map(|v| v["type"].as_str().unwrap()).collect();
        assert_eq!(kinds[0], "datasource", "{name}: the datasource can be chosen");
        let mut ids = BTreeSet::new();
        let mut cells = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = format!("{name}: {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: the id is taken");
            assert!(KINDS.contains(&panel["type"].as_str().unwrap()), "{title}");
            let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            for x in place("x")..place("x") + place("w") {
                assert!(x < 24, "{title}: outside of the grid");
                for y in place("y")..place("y") + place("h") {
                    assert!(cells.insert((x, y)), "{title}: lies on another panel");
                }
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
            for target in panel["targets"].as_array().unwrap() {
                let text = target["expr"].as_str().unwrap();
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
                assert!(text.contains("$job") && text.contains("$instance"), "{title}: {text}");
                assert!(!text.contains("rate(") || text.contains("$__rate_interval"), "{title}");
                assert!(!text.contains("[5m]"), "{title}: a range of its own");
            }
        }
    }
}

#[test]
fn alerts_fire_on_what_they_are_for_and_on_nothing_else() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let done = Command::new(tool("promtool")).args(arguments).current_dir(&dir).output();
        let done = done.expect("promtool is missing: scripts/setup.sh test fetches it");
        let said = [done.stdout, done.stderr].concat();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
    }
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts.test.yml"));
    for name in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        for arm in ["fires", "keeps silent"] {
            assert!(tests.contains(&format!("- name: {name} {arm}\n")), "{name} {arm}: no test");
        }
    }
}

/// Clients that read, write and err until they are told to stop.
fn load(house: &House, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    house.wire().run("CREATE TABLE IF NOT EXISTS orders (client int, number int)");
    let client = |client: usize| {
        let mut wire = house.wire();
        let stop = Arc::clone(stop);
        std::thread::spawn(move || {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                wire.query(&format!("INSERT INTO orders VALUES ({client}, {number})"));
                wire.query("SELECT count(*) FROM orders");
                if number % 16 == 0 {
                    wire.query("SELECT 1/0");
                    wire.extended("SELECT * FROM nowhere");
                }
            }
        })
    };
    (0..CLIENTS).map(client).collect()
}

/// The queries of a dashboard, each with its panel's title.
fn dashboard(name: &str) -> Vec<(String, String)> {
    let (_, dashboard) = dashboards().into_iter().find(|(own, _)| own == name).unwrap();
    queries(&dashboard)
}

/// Waits until each query of a dashboard has a value, and returns them.
fn answers(prometheus: &Prometheus, name: &str) -> Vec<(String, Vec<f64>)> {
    let mut found = Vec::new();
    for (title, query) in dashboard(name) {
        let mut values = Vec::new();
        await_that(&format!("{name}, {title}: {query}"), || {
            let last = prometheus.query(&query);
            values = last.unwrap_or_else(|why| panic!("{title}: {query}: {why}"));
            values.iter().any(|value| value.is_finite())
        });
        found.push((title, values));
    }
    found
}

fn alerts(prometheus: &Prometheus) -> Vec<Value> {
    let answer = prometheus.get("/api/v1/rules").unwrap().body;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["data"]["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn every_panel_has_an_answer_while_clients_are_at_work_and_moves_in_a_failover() {
    let certificate = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboards.certificate");
    std::fs::create_dir_all(&certificate).unwrap();
    crate::metrics::certificate(&certificate, "90");
    let file = |name: &str| certificate.join(name).display().to_string();
    let house = Blueprint::new()
        .toml(&format!("[tls]\ncert = {:?}\nkey = {:?}", file("tls.crt"), file("tls.key")))
        .servers(|plan| {
            plan.log(pgsteer::sandbox::StatementLog::Off)
                .setting("synchronous_standby_names", "ANY 1 (standby1, standby2)")
                .setting("wal_retrieve_retry_interval", "100ms")
                .setting("wal_receiver_status_interval", "1s")
                .setting("wal_sender_timeout", "1s")
        })
        .set("pool.size", "4")
        .set("failover.mode", "auto")
        .build();
    let prometheus = Prometheus::start(house.proxy.http_address());
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(&house, &stop);
    answers(&prometheus, "overview.json");
    for rule in alerts(&prometheus) {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert!(rule["state"] != "firing", "all is well, and yet: {rule}");
    }
    await_that("pgsteer is armed", || house.status()["failover"]["armed"] == true);
    let query = |text: &str| prometheus.query(text).unwrap();
    // A scrape that took too long leaves nothing to be asked for until the next one.
    let epoch = || query("max(pgsteer_epoch)").first().copied();
    let before = eventually(Duration::from_mins(1), epoch).expect("an epoch");
    let primary =
        r#"pgsteer_server_role{role="primary"} == 1 and on (server) pgsteer_server_up == 1"#;
    await_that("one primary is seen", || query(primary).len() == 1);

    // At least one is told that it is in doubt.
    let mut under_way = house.wire();
    let mut sleeps = Vec::new();
    let sql = "INSERT INTO orders SELECT 1, 1 FROM pg_sleep(600)";
    pgsteer::wire::message::write_query(&mut sleeps, sql);
    under_way.send(&sleeps).unwrap();
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    house.server("primary").await_value(sleeping, "1", "under way").unwrap();
    house.server("primary").kill9().unwrap();

    await_that("the epoch is seen to rise", || epoch().is_some_and(|now| now > before));
    answers(&prometheus, "failover.json");
    // A panel may have had its value of before: it moves with a later scrape.
    let moves = |title: &str, to: &dyn Fn(f64) -> bool| {
        await_that(title, || {
            let all = answers(&prometheus, "failover.json");
            all.iter().any(|(own, values)| own == title && values.iter().any(|value| to(*value)))
        });
    };
    for title in ["Changes", "Time of a change", "Time of its phases", "What clients were told"] {
        moves(title, &|value| value > 0.0);
    }
    moves("When it was", &|millis| millis > 1e12);
    moves("Timeline of each server", &|timeline| timeline >= 2.0);
    moves("Lost by the last", &|bytes| bytes == 0.0);
    // Panels by server: what the new one has of them.
    let new = house.status()["primary"].as_str().unwrap().to_owned();
    for (title, query) in dashboard("failover.json") {
        if ["Who is the primary", "Writes"].contains(&title.as_str()) {
            let of_new = query.replace("server=~\".*\"", &format!("server=\"{new}\""));
            assert_ne!(of_new, query, "{title}");
            await_that(&title, || prometheus.query(&of_new).unwrap().iter().any(|it| *it > 0.0));
        }
    }
    await_that("the alert on the change fires", || {
        let fires =
            |rule: &Value| rule["name"] == "PgsteerPrimaryChanged" && rule["state"] == "firing";
        alerts(&prometheus).iter().any(fires)
    });
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
}
