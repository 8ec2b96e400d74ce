//! A real Prometheus that scrapes a proxy of ours.

use crate::support::await_that;
use pgsteer::sandbox::Answer;
use pgsteer::sandbox::Port;
use pgsteer::sandbox::Scratch;
use pgsteer::sandbox::get;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

/// A tool of Prometheus: this machine's, or the one that `scripts/setup.sh` unpacked.
pub fn tool(name: &str) -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(name);
    if unpacked.exists() { unpacked } else { name.into() }
}

/// Prometheus at work; it ends with this value.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    port: Port,
    /// Where it keeps what it scraped.
    _dir: Scratch,
}

impl Prometheus {
    /// Scrapes the proxy's HTTP port each second, and has the alerts that we ship.
    pub fn start(scraped: SocketAddr) -> Self {
        let dir = Scratch::new().unwrap();
        let port = Port::free().unwrap();
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/alerts.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [\"{rules}\"]\n\
             scrape_configs:\n  - job_name: pgsteer\n    static_configs: \
             [{{targets: [\"{scraped}\"]}}]\n"
        );
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, text).unwrap();
        let child = Command::new(tool("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is missing: scripts/setup.sh test fetches it");
        let prometheus = Self { child, port, _dir: dir };
        await_that("prometheus is ready", || {
            prometheus.get("/-/ready").is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    /// What it says of a query now: each series' value.
    pub fn query(&self, expression: &str) -> Result<Vec<f64>, String> {
        let answer = self.get(&format!("/api/v1/query?query={}", escaped(expression)));
        let answer = answer.map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_str(&answer.body).map_err(|e| e.to_string())?;
        if value["status"] != "success" {
            return Err(value["error"].to_string());
        }
        let result = &value["data"]["result"];
        let series = result.as_array().ok_or_else(|| result.to_string())?;
        let number = |one: &Value| one["value"][1].as_str()?.parse().ok();
        Ok(series.iter().filter_map(number).collect())
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        get(SocketAddr::from(([127, 0, 0, 1], self.port.number())), path)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().unwrap_or(());
        drop(self.child.wait());
    }
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escape = |byte| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(escape).collect()
}
