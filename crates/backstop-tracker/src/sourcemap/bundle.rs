//! What `sentry-cli` uploads: a zip with a `manifest.json` that says what each file is.
//!
//! Zip: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>; the files are passed on as
//! they are packed, so that nothing is unpacked before somebody needs it.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

use serde_json::Value;

use super::resolve;
use crate::record::{BundleFile, FileKind, Packing};

/// Files of one bundle; a large program has some thousands.
const FILES_MAX: usize = 20_000;
/// The manifest says some hundred bytes of each file.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// A bundle that was taken apart.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) release: Option<String>,
    pub(crate) dist: Option<String>,
    pub(crate) files: Vec<BundleFile>,
}

/// Takes a bundle apart.
///
/// # Errors
///
/// Why it is none, in words for people.
pub(crate) fn read(bytes: &[u8]) -> Result<Bundle, &'static str> {
    let entries = entries(bytes).ok_or("the bundle is not a zip")?;
    let manifest = entries
        .get("manifest.json")
        .ok_or("the bundle has no manifest")?;
    let manifest = unpack(
        manifest.packing,
        &bytes[manifest.range.clone()],
        MANIFEST_BYTES_MAX,
    )?;
    let manifest: Value =
        serde_json::from_slice(&manifest).map_err(|_| "the bundle's manifest is not JSON")?;
    let text = |name: &str| {
        let text = manifest.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let described = manifest.get("files").and_then(Value::as_object);
    let mut files = Vec::new();
    for (name, said) in described.into_iter().flatten() {
        if let Some(entry) = entries.get(name)
            && let Some(mut file) = describe(said)
        {
            file.packing = entry.packing;
            file.body = bytes[entry.range.clone()].to_vec();
            files.push(file);
        }
    }
    Ok(Bundle {
        release: text("release"),
        dist: text("dist"),
        files,
    })
}

/// What the manifest says of a file; `None` for files that no frame can need.
fn describe(said: &Value) -> Option<BundleFile> {
    let kind = match said.get("type")?.as_str()? {
        "minified_source" | "source" => FileKind::Source,
        "source_map" => FileKind::Map,
        _ => return None,
    };
    let url = said.get("url")?.as_str()?;
    // Header names come in every case.
    let header = |wanted: &str| {
        let headers = said.get("headers")?.as_object()?;
        let found = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found?.1.as_str().map(str::to_owned)
    };
    let map_url = header("sourcemap").or_else(|| header("x-sourcemap"));
    Some(BundleFile {
        kind,
        url: url.to_owned(),
        debug_id: header("debug-id").and_then(|id| debug_id(&id)),
        map_url: map_url.map(|reference| resolve(url, &reference)),
        packing: Packing::Stored,
        body: Vec::new(),
    })
}

/// The one form of a debug id: 32 hex digits, small, and whatever follows them.
pub(crate) fn debug_id(text: &str) -> Option<String> {
    let id: String = text
        .chars()
        .filter(|letter| *letter != '-')
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    let is_id = (32..=40).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(id)
}

/// Unpacks a file.
///
/// # Errors
///
/// Why it cannot be unpacked.
pub(crate) fn unpack(packing: Packing, bytes: &[u8], max: u64) -> Result<Vec<u8>, &'static str> {
    let mut unpacked = Vec::new();
    let broken = "the file is broken";
    let read = match packing {
        Packing::Stored => bytes.take(max + 1).read_to_end(&mut unpacked),
        Packing::Deflate => flate2::bufread::DeflateDecoder::new(bytes)
            .take(max + 1)
            .read_to_end(&mut unpacked),
        Packing::Zstd => zstd::stream::read::Decoder::with_buffer(bytes)
            .map_err(|_| broken)?
            .take(max + 1)
            .read_to_end(&mut unpacked),
    };
    read.map_err(|_| broken)?;
    if unpacked.len() as u64 > max {
        return Err("the file is too large");
    }
    Ok(unpacked)
}

struct Entry {
    packing: Packing,
    range: Range<usize>,
}

/// Reads the directory of a zip, which stands behind a magic word with a version; entries that are out of range or packed otherwise are left out.
fn entries(zip: &[u8]) -> Option<HashMap<String, Entry>> {
    /// The end record may be followed by a comment of this length.
    const COMMENT_BYTES_MAX: usize = 65_535 + 22;
    let tail = zip.len().saturating_sub(COMMENT_BYTES_MAX);
    let end = tail + memchr::memmem::rfind(&zip[tail..], b"PK\x05\x06")?;
    let count = usize::from(u16_at(zip, end + 10)?).min(FILES_MAX);
    let (bytes, offset) = (
        u32_at(zip, end + 12)? as usize,
        u32_at(zip, end + 16)? as usize,
    );
    let mut at = end.checked_sub(bytes)?;
    // Some writers count from the beginning of the zip, others from that of the file.
    let base = at.checked_sub(offset)?;
    let mut entries = HashMap::new();
    for _ in 0..count {
        if zip.get(at..at + 4)? != b"PK\x01\x02" {
            return None;
        }
        let packing = u16_at(zip, at + 10)?;
        let packed = u32_at(zip, at + 20)? as usize;
        let (name, extra, comment) = (
            usize::from(u16_at(zip, at + 28)?),
            usize::from(u16_at(zip, at + 30)?),
            usize::from(u16_at(zip, at + 32)?),
        );
        let local = base.checked_add(u32_at(zip, at + 42)? as usize)?;
        let name_bytes = zip.get(at + 46..at + 46 + name)?;
        at += 46 + name + extra + comment;
        if let (Some(range), Some(packing)) = (content(zip, local, packed), packing_of(packing))
            && let Ok(name) = std::str::from_utf8(name_bytes)
        {
            entries.insert(name.to_owned(), Entry { packing, range });
        }
    }
    Some(entries)
}

/// The content of a file stands behind its own header.
fn content(zip: &[u8], local: usize, packed: usize) -> Option<Range<usize>> {
    if zip.get(local..local.checked_add(4)?)? != b"PK\x03\x04" {
        return None;
    }
    let name = usize::from(u16_at(zip, local + 26)?);
    let extra = usize::from(u16_at(zip, local + 28)?);
    let start = local + 30 + name + extra;
    let range = start..start.checked_add(packed)?;
    zip.get(range.clone())?;
    Some(range)
}

fn packing_of(method: u16) -> Option<Packing> {
    match method {
        0 => Some(Packing::Stored),
        8 => Some(Packing::Deflate),
        93 => Some(Packing::Zstd),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(pair.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    /// Packs files as `sentry-cli` does, with offsets that count from the zip's beginning or not.
    fn zip(files: &[(&str, &[u8])], base: usize) -> Vec<u8> {
        let mut out = b"SYSB\x02\0\0\0".to_vec();
        let mut directory = Vec::new();
        for (name, content) in files {
            let mut packer =
                flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            packer.write_all(content).unwrap();
            let packed = packer.finish().unwrap();
            let at = (out.len() - base) as u32;
            let shared = |out: &mut Vec<u8>| {
                out.extend([20, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                out.extend((packed.len() as u32).to_le_bytes());
                out.extend((content.len() as u32).to_le_bytes());
                out.extend((name.len() as u16).to_le_bytes());
                out.extend([0, 0]);
            };
            out.extend(b"PK\x03\x04");
            shared(&mut out);
            out.extend(name.as_bytes());
            out.extend(&packed);
            directory.extend(b"PK\x01\x02\x14\0");
            shared(&mut directory);
            directory.extend([0; 10]);
            directory.extend(at.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let start = (out.len() - base) as u32;
        out.extend(&directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend((files.len() as u16).to_le_bytes());
        out.extend((files.len() as u16).to_le_bytes());
        out.extend((directory.len() as u32).to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend([0, 0]);
        out
    }

    fn small(base: usize) -> Vec<u8> {
        let manifest = json!({"release": "shop@1", "dist": "", "files": {
            "files/a.js": {"type": "minified_source", "url": "~/static/a.js", "headers":
                {"Debug-Id": "53E22148-A8F7-51B5-B525-4AD6C4108A6C", "Sourcemap": "a.js.map"}},
            "files/a.js.map": {"type": "source_map", "url": "~/static/a.js.map"},
            "files/gone.js": {"type": "source_map", "url": "~/gone.js"},
            "files/b.ram": {"type": "indexed_ram_bundle", "url": "~/b.ram"},
        }})
        .to_string();
        let files: [(&str, &[u8]); 4] = [
            ("files/a.js", b"function a(){}"),
            ("files/a.js.map", b"{}"),
            ("files/b.ram", b"x"),
            ("manifest.json", manifest.as_bytes()),
        ];
        zip(&files, base)
    }

    #[test]
    fn bundles() {
        check(&small(0));
        check(&small(8));
    }

    fn check(bytes: &[u8]) {
        let bundle = read(bytes).unwrap();
        assert_eq!(bundle.release.as_deref(), Some("shop@1"));
        assert_eq!(bundle.dist, None);
        let [source, map] = &bundle.files[..] else {
            panic!("{:?}", bundle.files)
        };
        assert_eq!((source.kind, map.kind), (FileKind::Source, FileKind::Map));
        assert_eq!(source.map_url.as_deref(), Some("~/static/a.js.map"));
        assert_eq!(
            source.debug_id.as_deref(),
            Some("53e22148a8f751b5b5254ad6c4108a6c")
        );
        let text = |max| unpack(source.packing, &source.body, max);
        assert_eq!(text(14).unwrap(), b"function a(){}");
        assert!(text(13).is_err());
    }

    #[test]
    fn a_broken_bundle_is_refused() {
        let whole = small(0);
        // The last two bytes are the length of a comment that nobody reads.
        for end in 0..whole.len() - 2 {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        // Whatever byte is wrong, there is an answer.
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            let _ = read(&bytes);
        }
    }
}
