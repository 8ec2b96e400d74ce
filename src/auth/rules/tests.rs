//! Tables of lines and of visits; PostgreSQL's own verdicts are in `tests/e2e/auth/rules.rs`.

use super::*;
use proptest::prelude::*;

fn one(line: &str) -> Rule {
    Rules::parse(line).unwrap_or_else(|errors| panic!("{line}: {errors:?}")).0.remove(0)
}

fn from(address: &str, secured: Secured) -> Through {
    Through::Network { address: address.parse().unwrap(), secured }
}

fn visit<'a>(from: Through, user: &'a str, database: &'a str) -> Visit<'a> {
    Visit { from, user, wants: Wants::Database(database) }
}

fn fits(line: &str, visit: Visit<'_>) -> bool {
    let ours: IpAddr = "10.1.2.3".parse().unwrap();
    one(line).fits(visit, &|address| address == ours)
}

#[test]
fn a_line_is_about_the_connections_that_it_names() {
    let (tls, plain) = (from("10.1.2.3", Secured::Yes), from("10.1.2.3", Secured::No));
    for (kind, socket, with, without) in [
        ("local all all trust", true, false, false),
        ("host all all all trust", false, true, true),
        ("hostnogssenc all all all trust", false, true, true),
        ("hostssl all all all trust", false, true, false),
        ("hostnossl all all all trust", false, false, true),
    ] {
        for (from, expected) in [(Through::Socket, socket), (tls, with), (plain, without)] {
            assert_eq!(fits(kind, visit(from, "u", "d")), expected, "{kind}: {from:?}");
        }
    }
}

#[test]
fn a_line_is_about_the_addresses_that_it_names() {
    for (written, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("10.1.2.200/24", "10.1.2.3", "10.1.3.3"),
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.4"),
        ("10.1.0.0 255.255.0.0", "10.1.9.9", "10.2.9.9"),
        ("0.0.0.0/0", "1.2.3.4", "::1"),
        ("::/0", "2001:db8::1", "1.2.3.4"),
        ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
        ("fe80:: ffff::", "fe80::1", "fe81::1"),
        ("127.0.0.1/32", "::ffff:127.0.0.1", "::1"),
        ("samehost", "10.1.2.3", "10.1.2.4"),
    ] {
        let line = format!("host all all {written} trust");
        assert!(fits(&line, visit(from(inside, Secured::No), "u", "d")), "{line}: {inside}");
        assert!(!fits(&line, visit(from(outside, Secured::No), "u", "d")), "{line}: {outside}");
    }
    assert!(fits("host all all all trust", visit(from("::1", Secured::No), "u", "d")));
}

#[test]
fn a_line_is_about_the_databases_and_users_that_it_names() {
    for (databases, users, database, user, expected) in [
        ("all", "all", "d", "u", true),
        ("a,b", "u", "b", "u", true),
        ("a, b", "u", "b", "u", true),
        ("a,b", "u", "c", "u", false),
        ("sameuser", "all", "u", "u", true),
        ("sameuser", "all", "d", "u", false),
        // Quoted, a keyword is a name.
        ("\"all\"", "all", "d", "u", false),
        ("\"all\"", "all", "all", "u", true),
        ("\"sameuser\"", "all", "u", "u", false),
        ("replication", "all", "replication", "u", false),
        ("\"replication\"", "all", "replication", "u", true),
        ("\"a,b c#\"", "all", "a,b c#", "u", true),
        ("d", "\"+group\"", "d", "+group", true),
        // Names are compared as they are written.
        ("D", "all", "d", "u", false),
        ("/^app_", "all", "app_x", "u", true),
        ("/^app_", "all", "xapp_", "u", false),
        ("d", "/^(a|b)[0-9]+$", "d", "b12", true),
        ("d", "/^(a|b)[0-9]+$", "d", "c12", false),
        ("d", "\"/^a{1,2}$\"", "d", "aa", true),
    ] {
        let line = format!("local {databases} {users} trust");
        assert_eq!(fits(&line, visit(Through::Socket, user, database)), expected, "{line}");
    }
    let replicates = Visit { from: Through::Socket, user: "u", wants: Wants::Replication };
    assert!(!fits("local all all trust", replicates), "`all` is not replication");
    assert!(fits("local a,replication all trust", replicates));
}

#[test]
fn the_first_line_that_fits_decides() {
    let text = "\
# comment
local all postgres peer # for root
host all all 10.0.0.0/8 reject

hostssl all bob \\
  all \\
  scram-sha-256 clientcert=verify-full
host all all all md5
";
    let rules = Rules::parse(text).unwrap();
    let found = |from: Through, user: &str| {
        let rule = rules.find(visit(from, user, "d"), |_| false);
        rule.map(|rule| (rule.line, rule.method, rule.certificate))
    };
    let none = Certificate::NotNeeded;
    let far = from("192.0.2.1", Secured::Yes);
    assert_eq!(found(Through::Socket, "postgres"), Some((2, RuleMethod::Peer, none)));
    assert_eq!(found(Through::Socket, "bob"), None);
    let near = from("10.9.9.9", Secured::Yes);
    assert_eq!(found(near, "bob"), Some((3, RuleMethod::Reject, none)));
    let full = Certificate::OfTheUser;
    assert_eq!(found(far, "bob"), Some((5, RuleMethod::ScramSha256, full)));
    assert_eq!(found(far, "eve"), Some((8, RuleMethod::Md5, none)));
    assert_eq!(rules.len(), 4);
    assert!(Rules::parse("\n# nothing\n").unwrap().is_empty());
}

#[test]
fn what_can_not_be_had_is_told_with_a_remedy() {
    for (line, what, remedy) in [
        ("hots all all all trust", "`hots` is no type", "hostssl"),
        ("hostgssenc all all all trust", "no GSSAPI", "hostssl"),
        ("include other.conf", "`include`", "into this file"),
        ("local", "a database is missing", "TYPE DATABASE USER"),
        ("local all", "a user is missing", "TYPE DATABASE USER"),
        ("local all all", "a method is missing", "METHOD"),
        ("host all all trust", "`trust` is no address", "samehost"),
        ("host all all db.example.org trust", "names of hosts", "10.0.0.0/8"),
        ("host all all .example.org trust", "names of hosts", "10.0.0.0/8"),
        ("host all all 10.0.0.1 trust", "neither a length nor a mask", "10.0.0.1/32"),
        ("host all all 10.0.0.1/33 trust", "`33` is no length", "at most 32"),
        ("host all all ::1/129 trust", "`129` is no length", "128"),
        ("host all all 10.0.0.1 255.0.255.0 trust", "neither a length nor a mask", "/32"),
        ("host all all 10.0.0.1 ffff:: trust", "neither a length nor a mask", "/32"),
        ("host all all 10.0.0.0/8 255.0.0.0 trust", "`255.0.0.0` is no method", "one of"),
        ("host all all samenet trust", "`samenet`", "name them"),
        ("host samerole all all trust", "`samerole`", "sameuser"),
        ("host all +staff all trust", "`+staff`", "name the users"),
        ("host all @users all trust", "`@users`", "into this line"),
        ("host all /( all trust", "`/(`", "quoted"),
        ("host all all all password", "send their passwords", "scram-sha-256"),
        ("host all all all ldap ldapserver=x", "`ldap` is not supported", "one of: trust"),
        ("host all all all scarm", "`scarm` is no method", "one of: trust"),
        ("host all all all peer", "`peer` is for socket files", "local"),
        ("host all all all cert", "`cert` needs", "hostssl"),
        ("local all all trust clientcert=verify-ca", "`clientcert` needs", "hostssl"),
        ("hostssl all all all cert clientcert=verify-ca", "contradicts", "leave"),
        ("hostssl all all all trust clientcert=1", "`1` is no value", "verify-full"),
        ("hostssl all all all cert map=x", "`map`", "name of the role"),
        ("hostssl all all all cert foo=x", "`foo=x` is not supported", "clientcert"),
        ("local all \"all trust", "a quote is not closed", "on the line"),
        ("local,host all all trust", "more than the type", "TYPE"),
    ] {
        let errors = Rules::parse(line).expect_err(line);
        assert_eq!(errors.len(), 1, "{line}");
        assert!(errors[0].what.contains(what), "{line}: {:?}", errors[0]);
        assert!(errors[0].remedy.contains(remedy), "{line}: {:?}", errors[0]);
    }
    let errors = Rules::parse("local all all trust\nx\nlocal all all y\n").unwrap_err();
    assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(errors[1].to_string(), "3: `y` is no method");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "((local|host|all|10.0.0.1/8|trust|md5|[\"@/+,#\\\\ =]|.|\n) ?){0,20}") {
        let _read = Rules::parse(&text);
    }
}
