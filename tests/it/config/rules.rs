//! `auth.hba_file`: mistakes in the file, and what its rules need of the rest.

use crate::config::Directory;
use crate::config::Said;

/// What is told of a configuration with these rules, and these lines of `[auth]` and `[tls]`.
fn told(rules: &str, auth: &str, tls: &str) -> String {
    let directory = Directory::new();
    let file = directory.file("hba.conf", rules.as_bytes()).display().to_string();
    let path = directory.file("cert", b"").display().to_string();
    let tls = tls.replace("PATH", &path);
    let text = format!(
        "[servers]\nhosts = [\"db1\"]\n[auth]\nhba_file = {file:?}\n{auth}\n[tls]\n{tls}\n"
    );
    let report = match (Said { file: &text, ..Said::default() }).load() {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(report) => report.to_string(),
    };
    report.replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn every_mistake_in_the_rules_is_told_with_its_line() {
    let report =
        told("local all all peer\nhost all +staff all md4\nhost all all all ldap\n", "", "");
    assert!(report.contains("pgsteer.toml:4:12: DIR/hba.conf:2: `+staff`"), "{report}");
    assert!(report.contains("name the users"), "{report}");
    assert!(report.contains("DIR/hba.conf:3: the method `ldap` is not supported"), "{report}");
    assert!(!report.contains("anybody"), "{report}");
}

#[test]
fn rules_that_can_not_be_kept_are_told() {
    let tls = "cert = \"PATH\"\nkey = \"PATH\"";
    let asking = "cert = \"PATH\"\nkey = \"PATH\"\nclient_ca = \"PATH\"";
    for (rules, auth, tls, expected) in [
        ("host all all all trust", "", "", ""),
        ("host all all all scram-sha-256", "", "", ""),
        ("host all all all scram-sha-256", "query = \"\"", "", "DIR/hba.conf:1: there is nothing"),
        ("host all all all trust", "query = \"\"", "", ""),
        ("\nhostssl all all all trust", "", "", "DIR/hba.conf:2: there is no TLS"),
        ("hostssl all all all trust", "", tls, ""),
        ("hostssl all all all cert", "", tls, "DIR/hba.conf:1: clients are not asked"),
        ("hostssl all all all md5 clientcert=verify-ca", "", tls, "clients are not asked"),
        ("hostssl all all all cert", "", asking, ""),
        ("# nothing", "", "", "DIR/hba.conf has no rules: nobody can log in"),
        ("local all all peer", "method = \"scram-sha-256\"", "", "auth.method does not count"),
    ] {
        let report = told(rules, auth, tls);
        let is_right =
            if expected.is_empty() { report.is_empty() } else { report.contains(expected) };
        assert!(is_right, "{rules} {auth}: {report}");
    }
}

#[test]
fn rules_that_are_not_there_are_told() {
    let text = "[servers]\nhosts = [\"db1\"]\n[auth]\nhba_file = \"/nowhere/hba.conf\"\n";
    let report = (Said { file: text, ..Said::default() }).load().unwrap_err().to_string();
    assert!(report.contains("cannot read /nowhere/hba.conf"), "{report}");
}
