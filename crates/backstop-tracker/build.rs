//! Links a released binary small: what lies in it for stack traces is compressed, and addresses
//! that the loader has to adjust are a bit map where the system's loader knows it.

use std::process::Command;

/// The first glibc whose loader reads packed relocations (`DT_RELR`).
const GLIBC_WITH_RELR: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !(is_release && is_linux) {
        return;
    }
    // Uncompressed the line tables are half of the binary. The linker's -O2 compresses harder.
    for argument in ["--compress-debug-sections=zlib", "-O2"] {
        println!("cargo:rustc-link-arg-bins=-Wl,{argument}");
    }
    let is_gnu = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    if is_gnu && is_native() && glibc().is_some_and(|version| version >= GLIBC_WITH_RELR) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Tells whether the binary is made for this system, so that this system's glibc says what its
/// loader can do. An older loader elsewhere refuses the binary and names the version it lacks.
fn is_native() -> bool {
    std::env::var("HOST").ok() == std::env::var("TARGET").ok()
}

fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
