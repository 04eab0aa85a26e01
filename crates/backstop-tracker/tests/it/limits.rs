//! What ingest takes at most: bodies that are too large, bombs, and senders that stop.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;

use crate::ingest::Ingest;

/// Zeros that a bomb's repeated part becomes.
const STEP_BYTES: usize = 1 << 20;
/// So many parts are more than ten gigabytes.
const STEPS: usize = 10 * 1024;

/// Opens a connection and sends the head of an envelope that announces a body.
fn begin(ingest: &Ingest, length: usize) -> TcpStream {
    let mut socket = TcpStream::connect(ingest.server.url.trim_start_matches("http://")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        socket,
        "POST {} HTTP/1.1\r\nHost: x\r\nX-Sentry-Auth: {}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",
        ingest.path("envelope/"),
        ingest.auth()
    )
    .unwrap();
    socket
}

fn status_of(socket: &mut TcpStream) -> String {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_sender_that_stops_in_the_middle_leaves_nothing_behind() {
    let ingest = Ingest::start();
    let mut socket = begin(&ingest, 1000);
    socket
        .write_all(b"{}\n{\"type\":\"event\"}\n{\"message\":")
        .unwrap();
    socket.shutdown(Shutdown::Both).unwrap();
    // Many that only begin do not keep others from sending.
    let idle: Vec<TcpStream> = (0..200).map(|_| begin(&ingest, 1000)).collect();
    assert_eq!(
        ingest.post("store/", &[], b"{\"message\":\"m\"}").status,
        200
    );
    drop(idle);
    assert_eq!(ingest.api("issues/").as_array().unwrap().len(), 1);
}

#[test]
fn too_much_is_refused_before_it_is_read() {
    let ingest = Ingest::start();
    let mut socket = begin(&ingest, 10_000_000_000);
    assert_eq!(status_of(&mut socket), "413");
    assert_eq!(
        ingest.post("store/", &[], b"{\"message\":\"m\"}").status,
        200
    );
    assert_eq!(ingest.outcomes(), ["accepted=1", "too_large:request=1"]);
}

/// Bodies of ten gigabytes of zeros, by the endpoint and the content encoding.
fn bombs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let zeros = vec![0_u8; STEP_BYTES];
    // A flush ends at a whole byte, so that the part after the first one can be repeated.
    let repeat = |bytes: &[u8], first: usize| {
        let mut bomb = bytes[..first].to_vec();
        bomb.extend(bytes[first..].repeat(STEPS));
        bomb
    };
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&zeros).unwrap();
    zlib.flush().unwrap();
    let first = zlib.get_ref().len();
    zlib.write_all(&zeros).unwrap();
    zlib.flush().unwrap();
    let zlib = repeat(zlib.get_ref(), first);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).unwrap();
    let gzip = gzip.finish().unwrap().repeat(STEPS);
    let zstd = zstd::encode_all(&zeros[..], 1).unwrap().repeat(STEPS);
    // Made by the reference encoder: the first part and every other one, of 16 MiB each.
    let mut brotli = b"\xcb\xff\xff\x3f\x00\x24\x00\xe2\xb1\x40\x72\xef\xff\xf8\xff\xff\x07\x80\x04\x40\x1c\x16\x80\xee\xfd\x9f\x01".to_vec();
    brotli.extend(
        b"\xfc\xff\xff\x03\x40\x02\x20\x0e\x0b\x40\xf7\xfe\x8f\xff\xff\x7f\x00\x48\x00\xc4\x61\x01\xe8\xde\xff\x19"
            .repeat(STEPS / 16),
    );
    let base64 = base64::engine::general_purpose::STANDARD.encode(&zlib);
    // Without the two bytes of its header, zlib is raw deflate.
    let raw = zlib[2..].to_vec();
    vec![
        ("envelope/", "gzip", gzip.clone()),
        ("envelope/", "deflate", zlib.clone()),
        ("envelope/", "deflate", raw),
        ("envelope/", "br", brotli),
        ("envelope/", "zstd", zstd),
        // Without a header that says which.
        ("envelope/", "", gzip),
        ("store/", "", zlib),
        ("store/", "", base64.into_bytes()),
    ]
}

#[test]
fn bombs_cost_no_more_than_their_limit_and_others_are_served() {
    let ingest = Ingest::start();
    let event = || ingest.post("store/", &[], b"{\"message\":\"m\"}").status;
    assert_eq!(event(), 200);
    let before = ingest.server.memory_peak();
    let done = AtomicBool::new(false);
    let others = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut sent = 1;
            loop {
                // One more after the last bomb, so that there is one in any case.
                let last = done.load(Ordering::Relaxed);
                assert_eq!(event(), 200);
                sent += 1;
                if last {
                    return sent;
                }
            }
        });
        for (endpoint, encoding, body) in bombs() {
            let answer = ingest.post(endpoint, &[("Content-Encoding", encoding)], &body);
            assert!(body.len() < 20_000_000, "{encoding}: {}", body.len());
            let detail = answer.text();
            assert_eq!(answer.status, 413, "{endpoint} {encoding}: {detail}");
        }
        let items = "{\"type\":\"event\",\"length\":2}\n{}\n".repeat(1_000_000);
        let answer = ingest.post("envelope/", &[], format!("{{}}\n{items}").as_bytes());
        assert_eq!(answer.status, 413);
        assert_eq!(
            answer.json()["detail"],
            "the envelope has more than 1000 items"
        );
        done.store(true, Ordering::Relaxed);
        others.join().unwrap()
    });
    let peak = ingest.server.memory_peak();
    println!(
        "memory: {} MiB before, {} MiB at most",
        before >> 20,
        peak >> 20
    );
    // One body as it came and as it was decoded, and what the allocator makes of that.
    assert!(peak < 400 << 20, "{peak}");
    let outcomes = [
        format!("accepted={others}"),
        "too_large:request=9".to_owned(),
    ];
    assert_eq!(ingest.outcomes(), outcomes);
}

#[test]
fn chunked_bodies_need_no_length() {
    let ingest = Ingest::start();
    let mut socket = TcpStream::connect(ingest.server.url.trim_start_matches("http://")).unwrap();
    write!(
        socket,
        "POST {}?sentry_key={} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        ingest.path("store/"),
        ingest.key()
    )
    .unwrap();
    for piece in ["{\"mess", "age\":\"m\"", "}"] {
        write!(socket, "{:x}\r\n{piece}\r\n", piece.len()).unwrap();
    }
    socket.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(status_of(&mut socket), "200");
}
