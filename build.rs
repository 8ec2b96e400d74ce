//! Tells the program which compiler made it, for `pgsteer_build_info`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let said = std::process::Command::new(compiler).arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    // "rustc 1.95.0 (hash date)"
    let version = said.ok().and_then(|line| line.split(' ').nth(1).map(str::to_owned));
    println!("cargo::rustc-env=PGSTEER_RUSTC={}", version.as_deref().unwrap_or("unknown"));
}
