//! The body of a request: read, bounded and decoded, whatever encoding the client chose.
//!
//! Bytes go in as they arrive; text or an envelope comes out.
//! Limits hold *while* reading and *while* decoding, so that neither an endless body nor a bomb
//! costs more memory than its limit; the ratio of the two sizes is not bounded, because a
//! legitimate event of 457 KB has come out of 3.9 KB.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use memchr::memmem;

use super::refusal::Refusal;

/// Bodies on the wire: minidumps and attachments are the largest.
pub(super) const WIRE_BYTES_MAX: usize = 50 * 1024 * 1024;
/// Bodies after decoding.
pub(super) const DECODED_BYTES_MAX: usize = 100 * 1024 * 1024;
/// All bodies that are held at one moment, on the wire and decoded. It is what a flood of large
/// bodies may cost; usual events are a thousandth of a per mille of it.
const HELD_BYTES_MAX: usize = 384 * 1024 * 1024;
/// A sender that is silent for so long has gone away.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// A sender that is this slow keeps a place from others.
const DURATION_MAX: Duration = Duration::from_secs(180);
/// Decoded bytes are counted in steps of this size.
const STEP_BYTES: usize = 256 * 1024;
/// `Content-Encoding: br, gzip` is legal; more layers are an attack.
const ENCODINGS_MAX: usize = 2;
/// 8 MiB, what a decoder of zstd must accept at least (RFC 8878, section 3.1.1.1.2).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Counts the bytes of all bodies that are held, and says when it is too much.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<AtomicUsize>);

/// A share of the memory, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    memory: Memory,
    bytes: usize,
}

/// A body with the share of memory that it needs.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    share: Share,
}

impl Memory {
    pub(super) fn share(&self) -> Share {
        Share {
            memory: self.clone(),
            bytes: 0,
        }
    }
}

impl Held {
    pub(super) fn into_parts(self) -> (Vec<u8>, Share) {
        (self.bytes, self.share)
    }
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.memory.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > HELD_BYTES_MAX {
            return Err(Refusal::busy("too many large requests at once"));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body as it is on the wire.
///
/// # Errors
///
/// 413 if it is too large, 408 if the sender is too slow, 400 if it breaks off.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    memory: &Memory,
) -> Result<Held, Refusal> {
    let announced = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > WIRE_BYTES_MAX) {
        return Err(too_large());
    }
    let deadline = tokio::time::Instant::now() + DURATION_MAX;
    let mut share = memory.share();
    // What is announced is not yet there: room is made as bytes arrive.
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(STEP_BYTES));
    let mut body = body;
    loop {
        let silence = tokio::time::Instant::now() + SILENCE_MAX;
        let frame = match tokio::time::timeout_at(silence.min(deadline), body.frame()).await {
            Err(_) => return Err(Refusal::timeout("the body did not arrive in time")),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Refusal::bad("the body broke off")),
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > WIRE_BYTES_MAX {
                return Err(too_large());
            }
            share.grow(data.len())?;
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Held { bytes, share })
}

/// Undoes the `Content-Encoding`.
///
/// A body that plainly is not what the header says is taken as it is: proxies decode bodies and
/// leave the header. Gzip without a header is seen by its first bytes.
///
/// # Errors
///
/// 413 if it becomes too large, 415 if the encoding is not known, 400 if it is broken.
pub(super) fn decode(headers: &HeaderMap, held: Held) -> Result<Held, Refusal> {
    let mut held = held;
    let mut layers = 0;
    let values: Vec<_> = headers.get_all(CONTENT_ENCODING).iter().collect();
    for value in values.into_iter().rev() {
        let names = value
            .to_str()
            .map_err(|_| Refusal::unsupported("unknown content encoding"))?;
        for name in names.rsplit(',').map(str::trim) {
            layers += 1;
            if layers > ENCODINGS_MAX {
                return Err(Refusal::unsupported("too many content encodings"));
            }
            held = decode_layer(&name.to_ascii_lowercase(), held)?;
        }
    }
    if held.bytes.starts_with(GZIP_MAGIC) {
        held = decode_layer("gzip", held)?;
    }
    Ok(held)
}

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 8];

fn decode_layer(name: &str, held: Held) -> Result<Held, Refusal> {
    // Gzip, zlib and zstd begin with other bytes; for brotli and raw deflate `{"` is no
    // beginning that any encoder makes of an envelope or an event.
    if held.bytes.is_empty() || held.bytes.starts_with(b"{\"") || held.bytes.starts_with(b"{}") {
        return Ok(held);
    }
    let wire = held.bytes.as_slice();
    let share = held.share.memory.share();
    match name {
        "" | "identity" => Ok(held),
        "gzip" | "x-gzip" => inflate_gzip(wire, share),
        "deflate" => inflate_deflate(wire, share),
        "br" => inflate(
            brotli_decompressor::Decompressor::new(wire, 4096),
            wire.len(),
            share,
        ),
        "zstd" => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(wire).map_err(broken)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(broken)?;
            inflate(decoder, wire.len(), share)
        }
        _ => Err(Refusal::unsupported("unknown content encoding")),
    }
}

fn inflate_gzip(wire: &[u8], mut share: Share) -> Result<Held, Refusal> {
    if let Some(size) = small_member(wire) {
        share.grow(STEP_BYTES)?;
        if let Some(bytes) = inflate_member(wire, size) {
            return Ok(Held { bytes, share });
        }
    }
    let decoder = flate2::bufread::MultiGzDecoder::new(wire);
    inflate(decoder, wire.len(), share)
}

/// Fixed part of a member's head, and its end with checksum and size (RFC 1952, section 2.3).
const GZIP_HEAD_BYTES: usize = 10;
const GZIP_TAIL_BYTES: usize = 8;

/// The size that a body says to have, if it is one plain member of a usual size: nearly every
/// body, and it can be decoded in one piece, which takes half the time.
fn small_member(wire: &[u8]) -> Option<usize> {
    let inner = wire.get(GZIP_HEAD_BYTES..wire.len().checked_sub(GZIP_TAIL_BYTES)?)?;
    let has_names = wire[3] != 0;
    // What could be the head of a second member is read bit by bit.
    if !wire.starts_with(GZIP_MAGIC) || has_names || memmem::find(inner, GZIP_MAGIC).is_some() {
        return None;
    }
    let size = wire.last_chunk().map(|size| u32::from_le_bytes(*size))? as usize;
    // The step bounds what a false size can cost.
    (size <= STEP_BYTES).then_some(size)
}

/// The memory that a thread keeps between bodies; it fits nearly all of them.
const SPARE_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Takes back the memory of a decoded body: the next one finds it in the processor's cache, where
/// new memory is not.
pub(super) fn reuse(held: Held) {
    if held.bytes.capacity() <= SPARE_BYTES_MAX {
        SPARE.set(held.bytes);
    }
}

/// Decodes one member in one piece; `None` if it is not exactly what its end says.
fn inflate_member(wire: &[u8], size: usize) -> Option<Vec<u8>> {
    thread_local! {
        static DECODER: RefCell<libdeflater::Decompressor> =
            RefCell::new(libdeflater::Decompressor::new());
    }
    let mut bytes = SPARE.take();
    bytes.resize(size, 0);
    let inflated = DECODER.with_borrow_mut(|decoder| decoder.gzip_decompress(wire, &mut bytes));
    (inflated.ok()? == size).then_some(bytes)
}

/// `deflate` means zlib (RFC 9110, section 8.4.1.2), but some send it raw.
fn inflate_deflate(wire: &[u8], share: Share) -> Result<Held, Refusal> {
    match *wire {
        [method, check, ..]
            if method & 15 == 8 && (u16::from(method) << 8 | u16::from(check)) % 31 == 0 =>
        {
            inflate(flate2::bufread::ZlibDecoder::new(wire), wire.len(), share)
        }
        _ => inflate(
            flate2::bufread::DeflateDecoder::new(wire),
            wire.len(),
            share,
        ),
    }
}

/// Inflates a body that is zlib by its own format, whatever the headers say.
///
/// # Errors
///
/// 400 if it is none, 413 if it becomes too large.
pub(super) fn inflate_zlib(held: &Held) -> Result<Held, Refusal> {
    let share = held.share.memory.share();
    let decoder = flate2::bufread::ZlibDecoder::new(held.bytes.as_slice());
    inflate(decoder, held.bytes.len(), share).map_err(|refusal| match refusal.status() {
        StatusCode::BAD_REQUEST => Refusal::bad("the body is not compressed by zlib"),
        _ => refusal,
    })
}

fn inflate(decoder: impl Read, wire_bytes: usize, mut share: Share) -> Result<Held, Refusal> {
    let mut bytes = Vec::with_capacity((wire_bytes * 6).min(STEP_BYTES));
    let mut decoder = decoder;
    // Steps are joined at the end: a buffer that grows is copied again and again, and a bomb would
    // cost a multiple of its limit.
    let mut steps: Vec<Vec<u8>> = Vec::new();
    loop {
        share.grow(STEP_BYTES)?;
        let mut step = (&mut decoder).take(STEP_BYTES as u64);
        step.read_to_end(&mut bytes).map_err(broken)?;
        if steps.len() * STEP_BYTES + bytes.len() > DECODED_BYTES_MAX {
            return Err(too_large());
        }
        if bytes.len() < STEP_BYTES {
            break;
        }
        steps.push(std::mem::replace(
            &mut bytes,
            Vec::with_capacity(STEP_BYTES),
        ));
    }
    if !steps.is_empty() {
        let mut whole = Vec::with_capacity(steps.len() * STEP_BYTES + bytes.len());
        for step in steps {
            whole.extend_from_slice(&step);
        }
        whole.extend_from_slice(&bytes);
        bytes = whole;
    }
    Ok(Held { bytes, share })
}

/// Finds the JSON in the body of the store endpoint, which may be base64 and zlib without saying so.
///
/// Text that begins with `{` is JSON; anything else is base64, in which again `{` is JSON and
/// anything else is zlib (or gzip).
///
/// # Errors
///
/// 400 if it is none of these, 413 if it becomes too large.
pub(super) fn sniff(held: Held) -> Result<Held, Refusal> {
    let text = held.bytes.trim_ascii();
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    // What is no object although it is JSON is told so by whoever reads it.
    if text.is_empty() || text.starts_with(b"{") || text.starts_with(b"[") {
        return Ok(held);
    }
    let neither = || Refusal::bad("the body is neither JSON nor base64 of compressed JSON");
    let named = |refusal: Refusal| match refusal.status() {
        StatusCode::BAD_REQUEST => neither(),
        _ => refusal,
    };
    let mut share = held.share.memory.share();
    if is_zlib(text) {
        return inflate_deflate(text, share).map_err(named);
    }
    share.grow(text.len())?;
    let decoded = decode_base64(text).ok_or_else(neither)?;
    if decoded.trim_ascii_start().starts_with(b"{") {
        let bytes = decoded;
        return Ok(Held { bytes, share });
    }
    if decoded.starts_with(GZIP_MAGIC) {
        return inflate_gzip(&decoded, share).map_err(named);
    }
    inflate_deflate(&decoded, share).map_err(named)
}

fn is_zlib(bytes: &[u8]) -> bool {
    // The three levels that are written in practice; none of them is base64 text.
    matches!(bytes, [0x78, 0x01 | 0x9c | 0xda, ..])
}

/// Decodes base64 of both alphabets, with or without padding and line breaks.
pub(super) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    let plain: Vec<u8> = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => *byte,
        })
        .collect();
    ENGINE.decode(plain).ok()
}

fn broken(_: io::Error) -> Refusal {
    Refusal::bad("the body does not decode: its content encoding is broken")
}

fn too_large() -> Refusal {
    Refusal::too_large("the request is too large")
}

impl Held {
    /// Holds bytes that came another way, and are small.
    pub(super) fn new(bytes: Vec<u8>, memory: &Memory) -> Held {
        let share = memory.share();
        Held { bytes, share }
    }

    #[cfg(test)]
    pub(super) fn of(bytes: &[u8]) -> Held {
        Held {
            bytes: bytes.to_vec(),
            share: Memory::default().share(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, StatusCode};
    use std::io::Write as _;

    const TEXT: &[u8] = br#"{"message":"Disk full"}"#;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(encoding: &str, wire: &[u8]) -> Result<Vec<u8>, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
        decode(&headers, Held::of(wire))
            .map(|held| held.bytes)
            .map_err(|refusal| refusal.status())
    }

    #[test]
    fn every_encoding() {
        let check = |encoding: &str, wire: &[u8]| {
            assert_eq!(decoded(encoding, wire).as_deref(), Ok(TEXT), "{encoding}");
        };
        check("identity", TEXT);
        check("gzip", &gzip(TEXT));
        check("X-GZIP", &gzip(TEXT));
        check("deflate", &zlib(TEXT));
        let zlib_bytes = zlib(TEXT);
        check("deflate", &zlib_bytes[2..zlib_bytes.len() - 4]);
        check("zstd", &zstd::encode_all(TEXT, 1).unwrap());
        check("deflate, gzip", &gzip(&zlib(TEXT)));
        // Proxies decode and leave the header, or encode and forget it.
        check("gzip", TEXT);
        check("br", TEXT);
        check("identity", &gzip(TEXT));
        let mut two = gzip(&TEXT[..7]);
        two.extend(gzip(&TEXT[7..]));
        check("gzip", &two);
    }

    #[test]
    fn gzip_in_one_piece_and_bit_by_bit() {
        let check = |wire: &[u8], expected: &[u8]| {
            assert_eq!(decoded("gzip", wire).as_deref(), Ok(expected));
        };
        let twice = [gzip(TEXT), gzip(TEXT)].concat();
        check(&twice, &TEXT.repeat(2));
        let mut named = flate2::GzBuilder::new()
            .filename("event.json")
            .write(Vec::new(), flate2::Compression::fast());
        named.write_all(TEXT).unwrap();
        check(&named.finish().unwrap(), TEXT);
        let long = TEXT.repeat(STEP_BYTES / TEXT.len() + 1);
        check(&gzip(&long), &long);
        check(&gzip(&long[..STEP_BYTES]), &long[..STEP_BYTES]);
        let mut lying = gzip(TEXT);
        for place in [3, 8, 20] {
            let at = lying.len() - place;
            lying[at] ^= 1;
            assert_eq!(decoded("gzip", &lying), Err(StatusCode::BAD_REQUEST));
            lying[at] ^= 1;
        }
        check(&lying, TEXT);
    }

    #[test]
    fn what_does_not_decode() {
        let check = |encoding: &str, wire: &[u8], status: u16| {
            assert_eq!(
                decoded(encoding, wire).map_err(|status| status.as_u16()),
                Err(status)
            );
        };
        check("compress", &gzip(TEXT), 415);
        check("gzip, gzip, gzip", &gzip(TEXT), 415);
        check("gzip", b"nonsense", 400);
        check("gzip", &gzip(TEXT)[..12], 400);
        check("br", b"\xff\xff\xff", 400);
        check("zstd", b"nonsense", 400);
        check("deflate", b"\x78\x9cnonsense", 400);
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let spaces = io::repeat(b' ').take(DECODED_BYTES_MAX as u64 + 1);
        let bomb = zstd::encode_all(spaces, 1).unwrap();
        assert!(bomb.len() < DECODED_BYTES_MAX / 1000);
        assert_eq!(decoded("zstd", &bomb), Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[test]
    fn memory_is_shared_and_given_back() {
        let memory = Memory::default();
        let mut first = memory.share();
        first.grow(HELD_BYTES_MAX).unwrap();
        let refusal = memory.share().grow(1).unwrap_err();
        assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn bodies_of_the_store_endpoint() {
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let check = |body: &[u8]| {
            let json = sniff(Held::of(body)).unwrap().bytes;
            assert_eq!(json.trim_ascii(), TEXT, "{body:?}");
        };
        check(TEXT);
        check(&[b" \n", TEXT].concat());
        check(base64(TEXT).as_bytes());
        check(base64(&zlib(TEXT)).as_bytes());
        check(base64(&gzip(TEXT)).as_bytes());
        check(base64(&zlib(TEXT)).trim_end_matches('=').as_bytes());
        check(&zlib(TEXT));
        for nonsense in ["?", "QUJD", "null"] {
            assert!(sniff(Held::of(nonsense.as_bytes())).is_err(), "{nonsense}");
        }
    }
}
