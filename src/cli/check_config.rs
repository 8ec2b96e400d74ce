//! `pgsteer check-config`: every mistake, or what the configuration comes to.

use crate::auth::Access;
use crate::cli::args::Globals;
use crate::cli::args::Output;
use crate::cli::exit::Exit;
use crate::cli::load;
use crate::cli::say;
use crate::config::Config;
use crate::config::Loaded;
use crate::config::Report;
use crate::config::Request;
use crate::proxy;
use std::fmt::Write as _;

/// Checks it.
pub(super) fn run(globals: &Globals) -> Result<Exit, Exit> {
    let request = load::request(globals)?;
    let loaded = load::load(&request).and_then(with_its_files);
    match globals.output {
        Output::Json => {
            let (report, config) = match &loaded {
                Ok(loaded) => (&loaded.warnings, Some(&loaded.config)),
                Err(report) => (report, None),
            };
            say::data(&json(report, config))?;
        }
        Output::Table => {
            let report = match &loaded {
                Ok(loaded) => &loaded.warnings,
                Err(report) => report,
            };
            say::report(report, globals.color.for_stderr());
            if let Ok(loaded) = &loaded {
                say::data(&summary(&request, &loaded.config))?;
            }
        }
    }
    Ok(if loaded.is_ok() { Exit::Done } else { Exit::Config })
}

/// Also what the files that it names hold; the keys themselves are right.
fn with_its_files(loaded: Loaded) -> Result<Loaded, Report> {
    let unusable = proxy::unusable_files(&loaded.config);
    if unusable.is_empty() {
        return Ok(loaded);
    }
    let each = unusable.iter().map(|error| Report::of("", &error.to_string(), ""));
    Err(each.fold(loaded.warnings, Report::and))
}

/// One object: `ok`, `problems`, and every key with its source if it is ok.
fn json(report: &Report, config: Option<&Config>) -> String {
    let settings = config.map(|config| {
        let each = config.sources.iter().map(|shown| {
            serde_json::json!({
                "key": shown.key,
                "value": shown.value,
                "default": shown.default,
                "source": shown.source.to_string(),
            })
        });
        each.collect::<Vec<_>>()
    });
    let all = serde_json::json!({
        "ok": config.is_some(),
        "problems": report.problems(),
        "settings": settings,
    });
    format!("{all:#}\n")
}

/// What a reader would want to see confirmed.
fn summary(request: &Request, config: &Config) -> String {
    let name = request.file.as_ref().map(|file| file.display().to_string());
    let mut out = format!("{}: ok\n", name.as_deref().unwrap_or("configuration"));
    let value = |key: &str| {
        let shown = config.sources.iter().find(|shown| shown.key == key);
        shown.map_or("", |shown| shown.value.trim_matches('"'))
    };
    let servers: Vec<&str> = config.servers.iter().map(|server| &*server.name).collect();
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let login = &config.control_login;
    let http = config.http.map_or_else(|| "off".to_owned(), |http| http.to_string());
    let tls = if config.tls.is_some() { value("tls.mode") } else { "off" };
    let access = match &config.auth.access {
        Access::Everybody(_) => value("auth.method").to_owned(),
        Access::ByRules(rules) => format!("{} rules of {}", rules.len(), value("auth.hba_file")),
    };
    let rows = [
        ("listen", listen.join(", ")),
        ("http", http),
        ("clients", format!("{access}, TLS {tls}")),
        ("servers", format!("{} as {} on {}", servers.join(", "), login.user, login.database)),
        (
            "pool",
            format!(
                "{} backends per server, database and user, {} mode",
                config.pool.size,
                value("pool.mode")
            ),
        ),
        (
            "reads",
            format!(
                "{}, consistency {}, max_lag {} / {}",
                value("routing.reads"),
                value("routing.consistency"),
                value("routing.max_lag.time"),
                value("routing.max_lag.bytes"),
            ),
        ),
    ];
    for (what, text) in rows {
        // Writing to a string cannot fail.
        let _written: Result<(), std::fmt::Error> = writeln!(out, "  {what:<8} {text}");
    }
    out
}
