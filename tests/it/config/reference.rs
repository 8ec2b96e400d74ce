//! The reference file and the manual's page are what the table of keys says.

use crate::config::Said;
use pgsteer::config::Source;
use pgsteer::config::reference;
use std::path::Path;

fn kept(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap_or_default()
}

#[test]
fn the_reference_file_is_up_to_date() {
    let again = "run: cargo run -- config reference > config/pgsteer.toml";
    assert!(kept("config/pgsteer.toml") == reference::toml(), "{again}");
}

#[test]
fn the_manuals_page_is_up_to_date() {
    let again = "run: cargo run -- config reference --markdown > docs/configuration.md";
    assert!(kept("docs/configuration.md") == reference::markdown(), "{again}");
}

#[test]
fn the_reference_file_is_a_configuration() {
    let config = Said { file: &reference::toml(), ..Said::default() }.config();

    assert_eq!(config.servers.len(), 2);
    let set = config.sources.iter().filter(|shown| shown.source != Source::Default);
    assert_eq!(set.count(), 1, "only the hosts are set, all else is commented out");
}

/// What is commented out is no decoration: uncommented, it is the default or an example.
#[test]
fn every_key_of_the_reference_file_can_be_uncommented() {
    let uncommented: String = reference::toml()
        .lines()
        // Files that are examples do not exist here.
        .filter(|line| !line.contains("/etc/pgsteer/") && !line.contains("/run/secrets"))
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') && !setting.is_empty() => {
                format!("{setting}\n")
            }
            Some(_) | None => format!("{line}\n"),
        })
        .collect();

    let config = Said { file: &uncommented, ..Said::default() }.config();

    let unset: Vec<&str> = config
        .sources
        .iter()
        .filter(|shown| shown.source == Source::Default)
        .map(|shown| shown.key)
        .collect();
    let files = [
        "tls.cert",
        "tls.key",
        "tls.client_ca",
        "servers.password",
        "servers.sslrootcert",
        "servers.sslcert",
        "servers.sslkey",
        "auth.hba_file",
        "auth.file",
        "cancel.sslrootcert",
    ];
    assert_eq!(unset, files);
}
