//! Sources inside the program, for machines that do not have the files.
//!
//! A build script packs them, [`embedded_sources!`](crate::embedded_sources) puts them into
//! the program, and [`source`](crate::source()) and [`source_text`] find them there first:
//! they are what was compiled, whatever the files say by now.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Files of one package; more are generated code.
const FILES_MAX: usize = 4096;
/// A source file beyond this is generated, and is left out.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// All sources of one package, unpacked; a program that claims more is damaged.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Directories inside directories that are searched for sources.
const DEPTH_MAX: usize = 24;
/// Packages whose sources are embedded.
const PACKAGES_MAX: usize = 64;
/// Parts of a path that must agree when the directories before them do not.
const PARTS_MIN: usize = 2;

/// The name of the file that [`embed_sources`] writes and the macro reads.
const FILE: &str = "backstop-sources.zst";

/// Packs the sources of the package whose build script calls this.
///
/// It writes one file of all `src/**/*.rs` to `OUT_DIR`; Cargo runs the script again when
/// one of them changes. The program takes them in with
/// [`embedded_sources!`](crate::embedded_sources).
///
/// # Example
///
/// ```no_run
/// // The whole of `build.rs`'s `main`, with `backstop-capture` under `[build-dependencies]`.
/// backstop_capture::embed_sources().expect("the sources can be read");
/// ```
///
/// # Errors
///
/// When this does not run in a build script, or a file cannot be read or written.
pub fn embed_sources() -> io::Result<()> {
    let variable = |name: &str| {
        let value = std::env::var_os(name).map(PathBuf::from);
        let missing = || io::Error::other(format!("{name} is not set; this is for build scripts"));
        value.ok_or_else(missing)
    };
    let (root, out) = (variable("CARGO_MANIFEST_DIR")?, variable("OUT_DIR")?);
    println!("cargo::rerun-if-changed=src");
    std::fs::write(out.join(FILE), pack(&root)?)
}

/// Puts the sources that the build script packed into the program.
///
/// Call it once at start, before anything fails.
///
/// # Example
///
/// It compiles where the package's build script has called [`embed_sources`]:
///
/// ```text
/// backstop_capture::embedded_sources!();
/// ```
#[macro_export]
macro_rules! embedded_sources {
    () => {
        $crate::use_sources(::core::include_bytes!(::core::concat!(
            ::core::env!("OUT_DIR"),
            "/backstop-sources.zst"
        )))
    };
}

/// One package's sources.
#[derive(Debug)]
struct Package {
    packed: &'static [u8],
    /// Unpacked when a line is first asked for.
    files: Option<Vec<(String, Arc<str>)>>,
}

static PACKAGES: Mutex<Vec<Package>> = Mutex::new(Vec::new());

/// Takes in what [`embed_sources`] wrote; [`embedded_sources!`](crate::embedded_sources) calls it.
#[doc(hidden)]
pub fn use_sources(packed: &'static [u8]) {
    let mut packages = PACKAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = packages.iter().any(|package| package.packed == packed);
    if !known && packages.len() < PACKAGES_MAX {
        packages.push(Package {
            packed,
            files: None,
        });
    }
}

/// The whole text of a source file as it was compiled, if it is embedded.
///
/// The path is one that a frame has. Where its directories were changed, by
/// `--remap-path-prefix` or another machine, the file whose path ends alike is taken,
/// if there is only one.
pub fn source_text(path: &str) -> Option<Arc<str>> {
    let mut packages = PACKAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut best: Option<(usize, &Arc<str>)> = None;
    let mut only = true;
    for package in packages.iter_mut() {
        let packed = package.packed;
        let files = package
            .files
            .get_or_insert_with(|| unpack(packed).unwrap_or_default());
        for (known, text) in files.iter() {
            if known == path {
                return Some(Arc::clone(text));
            }
            let alike = parts_alike(known, path);
            match &best {
                Some((most, _)) if *most > alike => {}
                Some((most, _)) if *most == alike => only = false,
                _ if alike >= PARTS_MIN => (best, only) = (Some((alike, text)), true),
                _ => {}
            }
        }
    }
    best.filter(|_| only).map(|(_, text)| Arc::clone(text))
}

/// How many parts two paths have in common at their ends.
fn parts_alike(left: &str, right: &str) -> usize {
    let parts = |path| str::rsplit(path, '/');
    parts(left)
        .zip(parts(right))
        .take_while(|(left, right)| left == right)
        .count()
}

/// Packs all sources below `<root>/src`.
fn pack(root: &Path) -> io::Result<Vec<u8>> {
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files, DEPTH_MAX)?;
    files.sort();
    let mut all = Vec::new();
    for path in files.iter().take(FILES_MAX) {
        let Some(name) = path.to_str() else { continue };
        let text = std::fs::read(path)?;
        for part in [name.as_bytes(), &text] {
            let len = u32::try_from(part.len()).map_err(io::Error::other)?;
            all.extend(len.to_le_bytes());
            all.extend(part);
        }
    }
    const LEVEL: i32 = 19; // Packed once in a build, carried by every copy of the program.
    let mut packed = (all.len() as u64).to_le_bytes().to_vec();
    packed.extend(zstd::bulk::compress(&all, LEVEL)?);
    Ok(packed)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>, left: usize) -> io::Result<()> {
    let Some(left) = left.checked_sub(1) else {
        return Ok(());
    };
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            collect(&path, files, left)?;
        } else if kind.is_file()
            && path.extension().is_some_and(|extension| extension == "rs")
            && entry.metadata()?.len() <= FILE_BYTES_MAX
        {
            files.push(path);
        }
    }
    Ok(())
}

fn unpack(packed: &[u8]) -> Option<Vec<(String, Arc<str>)>> {
    let (len, packed) = packed.split_first_chunk()?;
    let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
    let all = zstd::bulk::decompress(packed, len.min(TEXT_BYTES_MAX)).ok()?;
    let mut rest = all.as_slice();
    let mut files = Vec::new();
    let mut next = || {
        let (len, after) = rest.split_first_chunk()?;
        let part = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = part.1;
        Some(String::from_utf8_lossy(part.0).into_owned())
    };
    while let Some(path) = next() {
        files.push((path, next()?.into()));
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_package() -> &'static [u8] {
        let packed = pack(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the sources are here");
        Box::leak(packed.into_boxed_slice())
    }

    #[test]
    fn packed_sources_come_out_as_they_went_in() {
        let packed = this_package();
        let files = unpack(packed).expect("it was just packed");
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/src/embed.rs");
        let found = files.iter().find(|(path, _)| path == own);
        assert_eq!(
            found.map(|(_, text)| &**text),
            Some(include_str!("embed.rs"))
        );
        let bytes: usize = files.iter().map(|(_, text)| text.len()).sum();
        assert!(packed.len() * 3 < bytes, "{} of {bytes}", packed.len());
    }

    #[test]
    fn damaged_sources_are_none() {
        let packed = this_package();
        assert!(unpack(&[]).is_none());
        assert!(unpack(&packed[..packed.len() / 2]).is_none());
        let mut changed = packed.to_vec();
        changed[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(
            unpack(&changed).is_some(),
            "the length is only an upper bound"
        );
        changed[..8].copy_from_slice(&[0; 8]);
        assert!(unpack(&changed).is_none());
    }

    #[test]
    fn embedded_sources_are_found_by_path_and_by_its_end() {
        use_sources(this_package());
        let found = |path: &str| source_text(path).is_some();
        assert!(found(concat!(env!("CARGO_MANIFEST_DIR"), "/src/embed.rs")));
        assert!(found("/build/elsewhere/src/embed.rs"));
        assert!(found("src/linux/unit.rs"));
        assert!(!found("embed.rs"), "a name alone is too little");
        assert!(!found("/home/ann/shop/src/orders.rs"));
        // The line is read from the text that is embedded: there is no such file.
        let source = crate::source("/build/elsewhere/src/embed.rs", 1, 1).expect("embedded");
        assert_eq!(
            source.line,
            include_str!("embed.rs").lines().next().unwrap_or("")
        );
        assert_eq!(
            (source.before.len(), source.after.len(), source.stale),
            (0, 1, false)
        );
    }
}
