//! Crashes of native programs: minidumps and Unreal Engine.

use std::io::Write;

use serde_json::{Value, json};

use crate::ingest::{ID, Ingest};

const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=cut");

/// A form as crash reporters send it.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (disposition, bytes) in parts {
        body.extend(
            format!("--cut\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").bytes(),
        );
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--cut--\r\n");
    body
}

#[test]
fn a_minidump_is_a_crash_with_a_file() {
    let ingest = Ingest::start();
    let event = json!({"event_id": ID, "release": "native@1", "tags": {"a": "b"}});
    let crumbs = [
        json!({"message": "second", "timestamp": "2026-11-22T10:00:02Z"}),
        json!({"message": "first", "timestamp": "2026-11-22T10:00:01Z"}),
    ];
    let pack = |value: &Value| rmp_serde::to_vec(value).unwrap();
    let (event, crumb1, crumb2) = (pack(&event), pack(&crumbs[0]), pack(&crumbs[1]));
    let body = form(&[
        ("name=\"guid\"", b"abc"),
        (
            "name=\"upload_file_minidump\"; filename=\"a.dmp\"",
            b"MDMP\x93\xa7\0\0",
        ),
        (
            "name=\"__sentry-event\"; filename=\"__sentry-event\"",
            &event,
        ),
        (
            "name=\"__sentry-breadcrumb1\"; filename=\"__sentry-breadcrumb1\"",
            &crumb1,
        ),
        (
            "name=\"__sentry-breadcrumb2\"; filename=\"__sentry-breadcrumb2\"",
            &crumb2,
        ),
    ]);
    let path = format!("{}?sentry_key={}", ingest.path("minidump/"), ingest.key());
    let answer = ingest.server.post(&path, &[FORM], &body);
    assert_eq!(
        (answer.status, answer.text()),
        (200, "9ec79c33-ec99-42ab-8353-589fcb2e04dc".to_owned())
    );
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let stored = ingest.event(ID);
    assert_eq!(stored["level"], "fatal");
    assert_eq!(
        stored["exception"]["values"][0]["mechanism"]["type"],
        "minidump"
    );
    assert_eq!(stored["breadcrumbs"]["values"][0]["message"], "first");
    assert_eq!(stored["extra"]["guid"], "abc");
    assert_eq!(stored["release"], "native@1");
    let more = form(&[("name=\"log\"; filename=\"x.log\"", b"line\r\n")]);
    let path = ingest.path(&format!("events/{ID}/attachments/"));
    let path = format!("{path}?sentry_key={}", ingest.key());
    assert_eq!(ingest.server.post(&path, &[FORM], &more).status, 201);
    let files = ingest.api(&format!("events/{ID}/attachments/"));
    let files: Vec<_> = files
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (&file["name"], &file["type"], &file["size"]))
        .collect();
    assert_eq!(
        files,
        [
            (&json!("a.dmp"), &json!("event.minidump"), &json!(8)),
            (&json!("x.log"), &json!("event.attachment"), &json!(6))
        ]
    );
    let none = ingest.post("minidump/", &[FORM], &form(&[("name=\"a\"", b"b")]));
    assert_eq!(
        (none.status, none.json()["detail"].as_str()),
        (400, Some("missing minidump"))
    );
    assert_eq!(ingest.post("minidump/", &[], b"MDMP").status, 415);
}

/// A crash as Unreal Engine's reporter sends it: names in 260 bytes, all of it in one zlib stream.
fn unreal_crash(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut crash = Vec::new();
    let text = |crash: &mut Vec<u8>, text: &str| {
        crash.extend(260_u32.to_le_bytes());
        crash.extend(text.bytes());
        crash.resize(crash.len() + 260 - text.len(), 0);
    };
    let header = |crash: &mut Vec<u8>, count: usize| {
        text(crash, "UE4CC-Windows-1");
        text(crash, "UE4CC-Windows-1.ue4crash");
        crash.extend(0_u32.to_le_bytes());
        crash.extend(u32::try_from(count).unwrap().to_le_bytes());
    };
    header(&mut crash, 0);
    for (number, (name, content)) in (0_u32..).zip(files) {
        crash.extend(number.to_le_bytes());
        text(&mut crash, name);
        crash.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        crash.extend(*content);
    }
    header(&mut crash, files.len());
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&crash).unwrap();
    zlib.finish().unwrap()
}

#[test]
fn a_crash_of_unreal_engine_is_an_event_with_files() {
    let ingest = Ingest::start();
    let context = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<FGenericCrashContext><RuntimeProperties>\
         <UserName>bruno</UserName><GameName>UE4-&lt;Yet&gt;</GameName>\
         <ErrorMessage>Access violation &amp; more</ErrorMessage></RuntimeProperties>\
         <EngineData><RHI.RHIName>D3D11</RHI.RHIName></EngineData>\
         <GameData><level>seven</level><__sentry>{{\"event_id\":\"{ID}\",\"release\":\"game@1\"}}</__sentry></GameData>\
         </FGenericCrashContext>"
    );
    let crash = unreal_crash(&[
        ("CrashContext.runtime-xml", context.as_bytes()),
        ("Game.log", b"LogInit: started"),
        ("UE4Minidump.dmp", b"MDMP\x93\xa7\0\0"),
    ]);
    let path = ingest.path(&format!("unreal/{}/", ingest.key()));
    let from = format!("{path}?AppID=CrashReporter&UserID=login%7Cepic%7Cmachine");
    let answer = ingest.server.post(&from, &[], &crash);
    assert_eq!(
        (answer.status, answer.text()),
        (200, "9ec79c33-ec99-42ab-8353-589fcb2e04dc".to_owned())
    );
    let stored = ingest.event(ID);
    assert_eq!(stored["level"], "fatal");
    assert_eq!(stored["release"], "game@1");
    assert_eq!(stored["user"]["id"], "login");
    assert_eq!(stored["user"]["username"], "bruno");
    assert_eq!(stored["contexts"]["unreal"]["GameName"], "UE4-<Yet>");
    assert_eq!(stored["contexts"]["game"], json!({"level": "seven"}));
    assert_eq!(stored["contexts"]["engine"]["RHI.RHIName"], "D3D11");
    assert_eq!(stored["tags"]["machine_id"], "machine");
    let files = ingest.api(&format!("events/{ID}/attachments/"));
    let mut files: Vec<_> = files
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            (
                file["name"].as_str().unwrap(),
                file["type"].as_str().unwrap(),
            )
        })
        .collect();
    files.sort_unstable();
    assert_eq!(
        files,
        [
            ("CrashContext.runtime-xml", "event.attachment"),
            ("Game.log", "event.attachment"),
            ("UE4Minidump.dmp", "event.minidump"),
        ]
    );
    let exception = &stored["exception"]["values"][0];
    assert_eq!(exception["value"], "Access violation & more");

    // Newer engines write `CR1`, one header and the files.
    let mut newer = b"CR1".to_vec();
    for text in ["UECC-Windows-1", "UECC-Windows-1.uecrash"] {
        newer.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        newer.extend(text.bytes());
    }
    newer.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    newer.extend([8, 0, 0, 0]);
    newer.extend(b"Game.log");
    newer.extend([2, 0, 0, 0]);
    newer.extend(b"ok");
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&newer).unwrap();
    let answer = ingest.server.post(&path, &[], &zlib.finish().unwrap());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let files = ingest.api(&format!(
        "events/{}/attachments/",
        answer.text().replace('-', "")
    ));
    assert_eq!(files[0]["name"], "Game.log");

    for (wrong, status) in [(&b"nonsense"[..], 400), (&crash[..crash.len() / 2], 400)] {
        let refused = ingest.server.post(&path, &[], wrong);
        assert_eq!(refused.status, status);
        assert!(refused.json()["detail"].is_string(), "{}", refused.text());
    }
    let elsewhere = ingest.path("unreal/0123456789abcdef0123456789abcdef/");
    assert_eq!(ingest.server.post(&elsewhere, &[], &crash).status, 403);
}
