//! What an operator writes: the configuration, lists of users, rules of who may log in.
//!
//! No stranger writes these, but a template or a script may, and a bad one must be told, not
//! believed in part.

use pgsteer::auth::Userlist;
use pgsteer::auth::rules::{Rules, Secured, Through, Visit, Wants};
use pgsteer::config::Request;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Anything: as each of the three.
pub(crate) fn run(data: &[u8]) {
    configured(data);
    if let Ok(text) = std::str::from_utf8(data) {
        users(text);
        rules(text);
    }
}

/// A file that is gone with its owner.
struct Paper(PathBuf);

impl Paper {
    fn of(data: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pgsteer-hostile-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        file.write_all(data).unwrap();
        Self(path)
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// It is taken, or told with all that is wrong; twice alike.
fn configured(data: &[u8]) {
    let paper = Paper::of(data);
    let told = || {
        let request = Request { file: Some(paper.0.clone()), ..Request::default() };
        match request.load() {
            Ok(loaded) => {
                assert!(!loaded.config.servers.is_empty(), "there is nothing to stand before");
                (true, loaded.warnings.to_string())
            }
            Err(report) => {
                assert!(report.has_errors());
                assert!(report.problems().len() <= 100);
                (false, report.to_string())
            }
        }
    };
    assert_eq!(told(), told());
}

/// Who is listed is found by the name that a reader finds who knows nothing but quotes.
fn users(text: &str) {
    let Ok(users) = Userlist::parse(text) else { return };
    let mut named = 0;
    for line in text.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix('"') else { continue };
        named += 1;
        let mut name = String::new();
        let mut signs = rest.chars().peekable();
        while let Some(sign) = signs.next() {
            match sign {
                '"' if signs.peek() == Some(&'"') => name.extend(signs.next()),
                '"' => break,
                other => name.push(other),
            }
        }
        assert!(users.get(&name).is_some(), "{name:?} is lost");
    }
    assert_eq!(users.len(), named);
}

/// The first rule that fits is the first line that fits by itself, and where no line fits nobody
/// comes in.
fn rules(text: &str) {
    // A line may go on behind a backslash, and then it is none by itself.
    if text.contains('\\') {
        return;
    }
    let Ok(rules) = Rules::parse(text) else { return };
    let lines: Vec<Rules> =
        text.split(['\n', '\r']).filter_map(|line| Rules::parse(line).ok()).collect();
    assert_eq!(lines.iter().map(Rules::len).sum::<usize>(), rules.len());
    let addresses = ["10.1.2.3", "127.0.0.1", "::1", "fe80::1"].map(|ip| ip.parse().unwrap());
    let network = addresses.iter().flat_map(|address| {
        [Secured::Yes, Secured::No].map(|secured| Through::Network { address: *address, secured })
    });
    for from in network.chain([Through::Socket]) {
        for user in ["alice", "all", "", "+x"] {
            for wants in [Wants::Database("shop"), Wants::Database("alice"), Wants::Replication] {
                let visit = Visit { from, user, wants };
                let ours = |address| address == addresses[1];
                let first = rules.find(visit, ours).map(|rule| (rule.method, rule.certificate));
                let mut alone = lines.iter().filter_map(|line| line.find(visit, ours));
                let by_line = alone.next().map(|rule| (rule.method, rule.certificate));
                assert_eq!(first, by_line, "{user} from {from:?}");
            }
        }
    }
}

/// One of each.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let files = [
        "listen = \"0.0.0.0:6432\"\n[servers]\nhosts = [\"db1\", \"db2:5433\"]\nuser = \"u\"\n",
        "[servers]\nhosts = \"db1\"\n[routing]\nmax_lag = \"16MB\"\nhold_max = \"1m30s\"\n",
        "[servers]\nhosts = [\"postgresql://u@db1:5432/x?sslmode=require\"]\n[pool]\nsize = 20\n",
        "\"alice\" \"hush \"\"word\"\"\"\n\"old\" \"md5d41d8cd98f00b204e9800998ecf8427e\"\n",
        "; comment\n\"bob\"\t\"SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA\" and more\n",
        "local all all peer\nhost all all 127.0.0.1/32 trust\nhostssl all all ::/0 scram-sha-256\n",
        "hostnossl shop,\"all\" alice 10.0.0.0 255.0.0.0 reject # no\n",
        "host sameuser /^a(l|b).*$ samehost md5\nhostssl all all all cert clientcert=verify-full\n",
    ];
    files.iter().map(|text| text.as_bytes().to_vec()).collect()
}
