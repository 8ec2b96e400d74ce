//! What `deploy/` promises: systemd takes the unit, the unit lets pgsteer do all that it does, and
//! the image and the sidecar fit each other and the program.

use crate::support::{House, cluster, program};
use pgsteer::sandbox::{Cluster, Plan, Proxy, Scratch, StatementLog};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const UNIT: &str = "deploy/systemd/pgsteer.service";

fn systemd_analyze(args: &[&str]) -> (bool, String) {
    let done = Command::new("systemd-analyze").args(args).output();
    let done = done.expect("no systemd-analyze: scripts/setup.sh test");
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(said).unwrap())
}

/// The system calls of a name or of a set.
fn expand(name: &str, into: &mut BTreeSet<String>) {
    if !name.starts_with('@') {
        into.insert(name.to_owned());
        return;
    }
    let (good, said) = systemd_analyze(&["syscall-filter", name]);
    assert!(good, "{said}");
    let members = said.lines().filter(|line| line.starts_with(' ')).map(str::trim);
    for member in members.filter(|member| !member.starts_with('#')) {
        expand(member, into);
    }
}

/// What a unit allows, by `SystemCallFilter=` of `systemd.exec(5)`.
fn allowed(unit: &str) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    expand("@default", &mut allowed);
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let mut named = BTreeSet::new();
        for name in line.trim_start_matches('~').split_whitespace() {
            expand(name, &mut named);
        }
        if line.starts_with('~') {
            allowed = &allowed - &named;
        } else {
            allowed.extend(named);
        }
    }
    allowed
}

/// A program that runs pgsteer, which is its own process, and writes its system calls to a file.
fn traced(cluster: &Cluster) -> (PathBuf, PathBuf) {
    let dir = cluster.workshop("traced").unwrap();
    let (script, calls) = (dir.join("pgsteer"), dir.join("calls"));
    let text = format!(
        "#!/bin/sh\nexec strace -D -f -qq -e signal=none -o {} {} \"$@\"\n",
        calls.display(),
        program().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    (script, calls)
}

/// The system calls of a life: start, clients, TLS, a reload, the pages, an order, the end.
fn calls_of_a_life() -> BTreeSet<String> {
    let cluster = cluster(&Plan::new().standbys(1).log(StatementLog::Off));
    let (script, calls) = traced(&cluster);
    let dir = cluster.workshop("pgsteer").unwrap();
    let state = dir.join("state");
    let proxy = Proxy::new(script, dir).unwrap().env("STATE_DIRECTORY", &state.to_string_lossy());
    let proxy = proxy.toml("[failover]\nmode = \"manual\"\n").unwrap();
    let servers: Vec<_> = cluster.servers().iter().map(pgsteer::sandbox::Server::address).collect();
    let proxy = proxy.args(servers.iter().flat_map(|server| ["--server", server]));
    proxy.start().unwrap();
    proxy.await_ready().unwrap();
    let house = House { proxy, cluster };
    let mut wire = house.wire();
    wire.run("CREATE TABLE t (a int); INSERT INTO t VALUES (7)");
    assert_eq!(wire.value("SELECT a FROM t"), "7");
    for page in ["/status", "/metrics", "/livez"] {
        assert_eq!(house.http(page).status, 200, "{page}");
    }
    house.reload("[failover]\nmode = \"manual\"\n");
    house.proxy.signal(Signal::TERM);
    house.proxy.await_end().unwrap();
    let text = std::fs::read_to_string(calls).unwrap();
    let name = |line: &str| {
        let call = line.split_once(' ')?.1.trim_start();
        let (name, _) = call.split_once('(')?;
        let good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        good.then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

#[test]
fn systemd_takes_the_unit() {
    let dir = std::env::temp_dir().join(format!("pgsteer-unit-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let check = |unit: &str| {
        let path = dir.join("pgsteer.service");
        let there = unit.replace("/usr/local/bin/pgsteer", &program().to_string_lossy());
        std::fs::write(&path, there).unwrap();
        systemd_analyze(&["verify", "--man=no", &path.to_string_lossy()])
    };
    let unit = file(UNIT);
    assert_eq!(check(&unit), (true, String::new()));
    // What it does not know it says.
    let (_, said) = check(&unit.replace("RestrictRealtime=yes", "RestrictRealtimes=yes"));
    assert!(said.contains("RestrictRealtimes"), "{said}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_unit_allows_every_system_call_that_pgsteer_makes() {
    let calls = calls_of_a_life();
    for known in ["execve", "recvfrom", "sched_setscheduler", "fsync"] {
        assert!(calls.contains(known), "{known} is none of {calls:?}");
    }
    let unit = file(UNIT);
    let refused: Vec<_> = calls.difference(&allowed(&unit)).cloned().collect();
    assert!(refused.is_empty(), "{refused:?}");
    let without = unit.replace("SystemCallFilter=sched_setscheduler\n", "");
    let refused: Vec<_> = calls.difference(&allowed(&without)).cloned().collect();
    assert_eq!(refused, ["sched_setscheduler"]);
}

/// The words behind a key or an instruction, of the first line that begins with it.
fn behind<'a>(text: &'a str, beginning: &str) -> &'a str {
    let mut lines = text.lines().map(str::trim_start);
    lines.find_map(|line| line.strip_prefix(beginning)).unwrap_or_else(|| panic!("no {beginning}"))
}

#[test]
fn the_image_and_the_sidecar_fit_each_other() {
    let image = file("deploy/Dockerfile");
    let sidecar = file("deploy/kubernetes/sidecar.yaml");
    let user = behind(&sidecar, "runAsUser: ");
    assert_eq!(behind(&image, "USER "), format!("{user}:{}", behind(&sidecar, "runAsGroup: ")));
    let state = behind(&image, "ENV STATE_DIRECTORY=");
    assert!(image.contains(&format!("--owner={user} --group={user} --mode=0700 {state}")));
    let program = behind(&image, "COPY --from=build /pgsteer ");
    assert_eq!(behind(&image, "ENTRYPOINT "), format!("[\"{program}\"]"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(behind(&sidecar, "image: pgsteer:"), version);
    // There are as many of them as pods, each with a record of its own.
    assert!(sidecar.contains("    [failover]\n    mode = \"off\"\n"), "several would promote");
    let rust = env!("CARGO_PKG_RUST_VERSION").split('.').nth(1).unwrap().parse::<u32>().unwrap();
    let base = behind(&image, "FROM rust:1.").split('-').next().unwrap();
    assert!(base.parse::<u32>().unwrap() >= rust, "the image's Rust is too old for us");
    // The ports that the program listens on unless it is told otherwise.
    let reference = file("config/pgsteer.toml");
    for port in behind(&image, "EXPOSE ").split_whitespace() {
        assert!(reference.contains(&format!(":{port}\"")), "{port}");
    }
}

/// What the image is built by and from is there: a file that was moved would be noticed by nobody
/// who does not build it.
#[test]
fn what_the_image_is_built_from_is_there() {
    let image = file("deploy/Dockerfile");
    let command = behind(&image, "make ");
    let (target, rest) = command.split_once(" && cp ").unwrap();
    let built = rest.split_whitespace().next().unwrap();
    let makefile = file("Makefile");
    assert!(makefile.contains(&format!("\n{target}: {built}\n")), "make {target}: no {built}");
    assert!(makefile.contains(&format!("\n{built}: ")), "nothing makes {built}");
    // What `COPY . .` leaves out is nothing that the build reads.
    let ignored = file(".dockerignore");
    for needed in ["Cargo.toml", "Cargo.lock", "Makefile", "build.rs", "src", "scripts"] {
        let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(needed).exists();
        assert!(there && !ignored.lines().any(|line| line.ends_with(needed)), "{needed}");
    }
}

/// The values behind a key of the manifest, wherever it stands.
fn values<'a>(manifest: &'a str, key: &str) -> Vec<&'a str> {
    let lines = manifest.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).collect()
}

/// The part of the manifest behind a line, up to one that is indented less.
fn part<'a>(manifest: &'a str, head: &str) -> String {
    let indent = |line: &'a str| line.len() - line.trim_start().len();
    let mut lines = manifest.lines().skip_while(|line| line.trim() != head);
    let own = indent(lines.next().unwrap_or_else(|| panic!("no {head}")));
    lines.take_while(|line| indent(line) > own).collect::<Vec<_>>().join("\n")
}

/// The releases of Kubernetes that are asked: the first in which a sidecar is what it is called,
/// and the newest that is fetched (`scripts/kubernetes.txt`).
const KUBERNETES: [&str; 2] = ["1.29", "1.37"];

/// What Kubernetes' own schema says of a manifest: whether every document of it is known, and is as
/// it should be, with no field that is not known.
fn validated(manifest: &Path, release: &str) -> Result<usize, String> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/kubernetes/bin");
    let done = Command::new(tools.join("kubernetes-validate"))
        .args(["--strict", "-k", release])
        .arg(manifest)
        .output()
        .expect("no kubernetes-validate: scripts/setup.sh test");
    let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    // Of a kind that it does not know it only warns.
    let passed = said.lines().filter(|line| line.contains(" passed for resource ")).count();
    let good = done.status.success() && passed == said.lines().count();
    if good { Ok(passed) } else { Err(said) }
}

#[test]
fn kubernetes_takes_every_manifest() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes");
    for manifest in std::fs::read_dir(dir).unwrap() {
        let path = manifest.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for release in KUBERNETES {
            let documents = text.split("\n---\n").count();
            assert_eq!(validated(&path, release), Ok(documents), "{}", path.display());
        }
    }
}

/// And it is really asked.
#[test]
fn kubernetes_refuses_a_manifest_that_is_broken() {
    let sidecar = file("deploy/kubernetes/sidecar.yaml");
    let scratch = Scratch::new().unwrap();
    let path = scratch.path().join("broken.yaml");
    for (right, wrong) in [
        ("initContainers:", "initContainer:"),
        ("containerPort: 9632", "containerPort: metrics"),
        ("- name: metrics", "- called: metrics"),
        ("  template:", "  pattern:"),
        ("apiVersion: apps/v1", "apiVersion: apps/v1beta1"),
    ] {
        assert!(sidecar.contains(right), "{right}");
        std::fs::write(&path, sidecar.replace(right, wrong)).unwrap();
        for release in KUBERNETES {
            let said = validated(&path, release);
            assert!(said.is_err(), "{wrong} passes for {release}: {said:?}");
        }
    }
}

/// Kubernetes takes names that lead nowhere, and the pod never starts.
#[test]
fn every_name_in_the_sidecars_manifest_leads_somewhere() {
    let manifest = file("deploy/kubernetes/sidecar.yaml");
    let volumes = part(&manifest, "volumes:");
    let named = volumes.lines().filter_map(|line| line.trim().strip_prefix("- name: "));
    let named: Vec<_> = named.collect();
    let mounts = values(&part(&manifest, "volumeMounts:"), "name").len();
    assert_eq!(mounts, named.len(), "each volume is mounted");
    for name in values(&part(&manifest, "volumeMounts:"), "name") {
        assert!(named.contains(&name), "no volume {name}");
    }
    // Its own configuration and secret: both are called as the first two documents say.
    let mut documents = manifest.split("\n---\n");
    for (kind, reference) in [("ConfigMap", "configMap:"), ("Secret", "secretName: pgsteer")] {
        let document = documents.next().unwrap();
        assert_eq!(values(document, "kind"), [kind]);
        assert!(
            part(document, "metadata:").contains("name: pgsteer") && volumes.contains(reference)
        );
    }
    let deployment = documents.next().unwrap();
    assert_eq!(values(deployment, "kind"), ["Deployment"]);
    let (selector, template) = (part(deployment, "matchLabels:"), part(deployment, "template:"));
    assert!(template.contains(selector.trim()), "it selects its own pods");
    let ports = part(deployment, "ports:");
    for probe in ["startupProbe:", "readinessProbe:", "livenessProbe:"] {
        let probe = part(deployment, probe);
        let (path, port) = (values(&probe, "path")[0], values(&probe, "port")[0]);
        assert!(["/readyz", "/livez"].contains(&path), "{path}");
        assert!(values(&ports, "name").contains(&port), "no port {port}");
    }
    let scraped = values(deployment, "prometheus.io/port")[0].trim_matches('"');
    assert_eq!(values(&ports, "containerPort"), [scraped]);
    assert!(manifest.contains(&format!("http = \"0.0.0.0:{scraped}\"")));
    // Where the command looks for its configuration is where that is put.
    let mounts = part(deployment, "volumeMounts:");
    let mounted = values(&mounts, "mountPath");
    assert!(mounted.iter().any(|path| values(deployment, "args")[0].contains(path)));
}

#[test]
fn the_sidecars_configuration_is_valid() {
    let sidecar = file("deploy/kubernetes/sidecar.yaml");
    let (_, config) = sidecar.split_once("pgsteer.toml: |\n").unwrap();
    let config: Vec<_> = config.lines().take_while(|line| *line != "---").map(str::trim).collect();
    let dir = std::env::temp_dir().join(format!("pgsteer-sidecar-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (password, path) = (dir.join("password"), dir.join("pgsteer.toml"));
    std::fs::write(&password, "change-me").unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    let there = password.to_string_lossy();
    let config = config.join("\n").replace("/etc/pgsteer/secret/password", &there);
    let check = |config: &str| {
        std::fs::write(&path, config).unwrap();
        let mut command = Proxy::command(&program());
        command.args(["check-config", "--config", &path.to_string_lossy()]).output().unwrap()
    };
    let done = check(&config);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!check(&config.replace("hosts", "host")).status.success(), "and it is really read");
    std::fs::remove_dir_all(dir).unwrap();
}
