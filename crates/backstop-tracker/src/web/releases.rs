//! The web API that `sentry-cli` uploads to: releases, source maps, debug files.
//!
//! Files come in pieces named by their SHA-1; a call to `assemble` names the whole and its pieces,
//! and says which of them are missing. Shapes: <https://docs.sentry.io/api/releases/>.

use std::io::Read as _;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http_body_util::{BodyDataStream, Full};
use serde_json::{Map, Value, json};

use super::Failure;
use super::api::Answer;
use crate::app::{Tracker, now};
use crate::record::{Assembly, NewArtifact, Release};
use crate::store::ASSEMBLED_BYTES_MAX;

const CHUNK_BYTES: usize = 8 << 20;
const CHUNKS_PER_REQUEST: usize = 64;
const REQUEST_BYTES: usize = 32 << 20;
/// Files that one call puts together.
const FILES_MAX: usize = 1_000;
const CHUNKS_MAX: usize = 1_000;
/// The client's own words about a release.
const RELEASE_BYTES_MAX: usize = 1 << 20;

pub(super) fn router() -> Router<Tracker> {
    Router::new()
        .route(
            "/api/0/organizations/{org}/chunk-upload/",
            get(chunk_options).post(upload_chunks),
        )
        .route(
            "/api/0/organizations/{org}/artifactbundle/assemble/",
            post(assemble_bundle),
        )
        .route(
            "/api/0/organizations/{org}/releases/{version}/assemble/",
            post(assemble_bundle_of_release),
        )
        .route(
            "/api/0/projects/{org}/{project}/files/difs/assemble/",
            post(assemble_debug_files),
        )
        .route(
            "/api/0/organizations/{org}/releases/",
            get(releases).post(create),
        )
        .route(
            "/api/0/organizations/{org}/releases/{version}/",
            get(show).put(update).delete(delete),
        )
        .route(
            "/api/0/organizations/{org}/releases/{version}/previous-with-commits/",
            get(no_previous),
        )
        .route(
            "/api/0/organizations/{org}/releases/{version}/deploys/",
            get(deploys).post(deploy),
        )
        .route(
            "/api/0/projects/{org}/{project}/releases/",
            get(releases_of_project).post(create_of_project),
        )
        .route(
            "/api/0/projects/{org}/{project}/releases/{version}/",
            get(show_of_project)
                .put(update_of_project)
                .delete(delete_of_project),
        )
        .route(
            "/api/0/projects/{org}/{project}/releases/{version}/files/",
            get(no_files),
        )
}

async fn chunk_options(State(tracker): State<Tracker>, Path(org): Path<String>) -> Json<Value> {
    Json(json!({
        "url": format!("{}/api/0/organizations/{org}/chunk-upload/", tracker.0.public_url),
        "chunkSize": CHUNK_BYTES,
        "chunksPerRequest": CHUNKS_PER_REQUEST,
        "maxFileSize": ASSEMBLED_BYTES_MAX,
        "maxRequestSize": REQUEST_BYTES,
        "concurrency": 4,
        "hashAlgorithm": "sha1",
        "compression": ["gzip"],
        "accept": ["debug_files", "release_files", "pdbs", "sources", "artifact_bundles",
            "artifact_bundles_v2"],
    }))
}

/// Takes pieces; their names are checked against their content when they are put together.
async fn upload_chunks(
    State(tracker): State<Tracker>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let boundary = multer::parse_boundary(content_type.unwrap_or_default())
        .map_err(|_| bad("expected multipart/form-data"))?;
    // Form headers add a little to the pieces themselves.
    let bytes = to_bytes(body, REQUEST_BYTES + (1 << 20))
        .await
        .map_err(|_| Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large"))?;
    let stream = BodyDataStream::new(Full::new(bytes));
    let mut parts = multer::Multipart::new(stream, boundary);
    let mut chunks = Vec::new();
    let broken = |_| bad("the form is broken");
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        let packed = part.name() == Some("file_gzip");
        let bytes = part.bytes().await.map_err(broken)?;
        if chunks.len() == CHUNKS_PER_REQUEST {
            return Err(bad("too many pieces in one request"));
        }
        chunks.push(if packed {
            unpack(&bytes)?
        } else {
            bytes.to_vec()
        });
    }
    tracker
        .with_store(move |store| store.add_chunks(&chunks, now()))
        .await?;
    // Clients insist on JSON, and on nothing in it.
    Ok(([(header::CONTENT_TYPE, "application/json")], "").into_response())
}

fn unpack(bytes: &Bytes) -> Answer<Vec<u8>> {
    let mut chunk = Vec::new();
    flate2::bufread::GzDecoder::new(bytes.as_ref())
        .take(CHUNK_BYTES as u64 + 1)
        .read_to_end(&mut chunk)
        .map_err(|_| bad("a piece is not gzip"))?;
    if chunk.len() > CHUNK_BYTES {
        return Err(bad("a piece is larger than what was agreed"));
    }
    Ok(chunk)
}

async fn assemble_bundle(
    State(tracker): State<Tracker>,
    Path(org): Path<String>,
    Json(wish): Json<Value>,
) -> Answer<Json<Value>> {
    let version = wish.get("version").and_then(Value::as_str);
    let version = version.map(str::to_owned);
    assemble(&tracker, org, version, &wish).await
}

/// What clients call that know releases only; the files have no debug ids then.
async fn assemble_bundle_of_release(
    State(tracker): State<Tracker>,
    Path((org, version)): Path<(String, String)>,
    Json(wish): Json<Value>,
) -> Answer<Json<Value>> {
    assemble(&tracker, org, Some(version), &wish).await
}

async fn assemble(
    tracker: &Tracker,
    organization: String,
    release: Option<String>,
    wish: &Value,
) -> Answer<Json<Value>> {
    let dist = wish.get("dist").and_then(Value::as_str);
    let artifact = NewArtifact {
        organization,
        sha1: sha1_of(wish.get("checksum"))?,
        chunks: chunks_of(wish)?,
        kind: "bundle",
        name: "bundle".to_owned(),
        debug_id: None,
        release,
        dist: dist.map(str::to_owned),
        created: now(),
    };
    let assembly = tracker
        .with_store(move |store| store.assemble(&artifact))
        .await?;
    Ok(Json(assembly_json(&assembly)))
}

async fn assemble_debug_files(
    State(tracker): State<Tracker>,
    Path((org, _project)): Path<(String, String)>,
    Json(wishes): Json<Map<String, Value>>,
) -> Answer<Json<Value>> {
    if wishes.len() > FILES_MAX {
        return Err(bad("too many files in one request"));
    }
    let mut artifacts = Vec::new();
    for (checksum, wish) in &wishes {
        let text = |name: &str| wish.get(name).and_then(Value::as_str).map(str::to_owned);
        artifacts.push(NewArtifact {
            organization: org.clone(),
            sha1: sha1_of(Some(&json!(checksum)))?,
            chunks: chunks_of(wish)?,
            kind: "debug_file",
            name: text("name").unwrap_or_default(),
            debug_id: text("debug_id"),
            release: None,
            dist: None,
            created: now(),
        });
    }
    let assembled = tracker
        .with_store(move |store| {
            let mut assembled = Vec::new();
            for artifact in artifacts {
                assembled.push((store.assemble(&artifact)?, artifact));
            }
            Ok(assembled)
        })
        .await?;
    let answer: Map<String, Value> = assembled
        .iter()
        .map(|(assembly, artifact)| {
            let mut answer = assembly_json(assembly);
            if *assembly == Assembly::Done {
                answer["dif"] = debug_file_json(artifact);
            }
            (hex(&artifact.sha1), answer)
        })
        .collect();
    Ok(Json(Value::Object(answer)))
}

fn debug_file_json(artifact: &NewArtifact) -> Value {
    json!({
        "id": hex(&artifact.sha1),
        "uuid": artifact.debug_id,
        "debugId": artifact.debug_id,
        "codeId": Value::Null,
        "cpuName": "any",
        "objectName": artifact.name,
        "symbolType": "native",
        "headers": { "Content-Type": "application/octet-stream" },
        "size": 0,
        "sha1": hex(&artifact.sha1),
        "dateCreated": artifact.created,
        "data": { "type": "dbg", "features": ["debug"] },
    })
}

fn assembly_json(assembly: &Assembly) -> Value {
    match assembly {
        Assembly::Done => json!({ "state": "ok", "missingChunks": [], "detail": Value::Null }),
        Assembly::Missing(chunks) => json!({
            "state": "not_found",
            "missingChunks": chunks.iter().map(|sha1| hex(sha1)).collect::<Vec<_>>(),
        }),
        Assembly::Refused(why) => json!({
            "state": "error",
            "missingChunks": [],
            "detail": why,
        }),
    }
}

fn chunks_of(wish: &Value) -> Answer<Vec<[u8; 20]>> {
    let chunks = wish.get("chunks").and_then(Value::as_array);
    let chunks = chunks.ok_or_else(|| bad("chunks are missing"))?;
    if chunks.len() > CHUNKS_MAX {
        return Err(bad("too many chunks"));
    }
    chunks.iter().map(|sha1| sha1_of(Some(sha1))).collect()
}

fn sha1_of(value: Option<&Value>) -> Answer<[u8; 20]> {
    let text = value.and_then(Value::as_str).unwrap_or_default().as_bytes();
    let mut sha1 = [0; 20];
    if text.len() != 40 {
        return Err(bad("a checksum has 40 hex digits"));
    }
    for (byte, pair) in sha1.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = (high * 16 + low) as u8,
            _ => return Err(bad("a checksum has 40 hex digits")),
        }
    }
    Ok(sha1)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bad(detail: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, detail)
}

async fn create(
    State(tracker): State<Tracker>,
    Path(org): Path<String>,
    Json(said): Json<Map<String, Value>>,
) -> Answer<Response> {
    let version = said
        .get("version")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if version.is_empty() || version.len() > 250 || version.contains(['\n', '\t', '/']) {
        return Err(bad("invalid release version"));
    }
    let version = version.to_owned();
    let (release, new) = put(&tracker, org.clone(), version, said).await?;
    // Clients tell a new release from a known one by this.
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::ALREADY_REPORTED
    };
    Ok((status, Json(release_json(&tracker, &org, &release).await?)).into_response())
}

async fn create_of_project(
    state: State<Tracker>,
    Path((org, project)): Path<(String, String)>,
    Json(mut said): Json<Map<String, Value>>,
) -> Answer<Response> {
    said.entry("projects").or_insert_with(|| json!([project]));
    create(state, Path(org), Json(said)).await
}

/// Adds what the client says to what is known.
async fn put(
    tracker: &Tracker,
    org: String,
    version: String,
    said: Map<String, Value>,
) -> Answer<(Release, bool)> {
    tracker
        .with_store(move |store| {
            let known = store.release(&org, &version)?;
            let mut body: Map<String, Value> = known
                .as_ref()
                .and_then(|release| serde_json::from_str(&release.body).ok())
                .unwrap_or_default();
            body.extend(said);
            let mut text = Value::Object(body).to_string();
            if text.len() > RELEASE_BYTES_MAX {
                text = "{}".to_owned();
            }
            let release = Release {
                version,
                created: known.map_or_else(now, |release| release.created),
                body: text,
            };
            let new = store.put_release(&org, &release)?;
            Ok((release, new))
        })
        .await
}

async fn release_json(tracker: &Tracker, org: &str, release: &Release) -> Answer<Value> {
    let projects = tracker.with_store(|store| store.projects()).await?;
    let said: Map<String, Value> = serde_json::from_str(&release.body).unwrap_or_default();
    let names: Vec<&str> = said
        .get("projects")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let projects: Vec<Value> = projects
        .iter()
        .filter(|project| project.organization == org && names.contains(&project.slug.as_str()))
        .map(|project| json!({"id": project.id.0, "slug": project.slug, "name": project.name}))
        .collect();
    let said_or = |name: &str, otherwise: Value| said.get(name).cloned().unwrap_or(otherwise);
    Ok(json!({
        // Clients want a number; versions have none, and the time of the first word is as good.
        "id": release.created.micros(),
        "version": release.version,
        "shortVersion": release.version,
        "status": said_or("status", json!("open")),
        "ref": said_or("ref", Value::Null),
        "url": said_or("url", Value::Null),
        "dateCreated": release.created,
        "dateStarted": said_or("dateStarted", Value::Null),
        "dateReleased": said_or("dateReleased", Value::Null),
        "newGroups": 0,
        "commitCount": said.get("commits").and_then(Value::as_array).map_or(0, Vec::len),
        "deployCount": said.get("deploys").and_then(Value::as_array).map_or(0, Vec::len),
        "lastEvent": Value::Null,
        "firstEvent": Value::Null,
        "lastCommit": Value::Null,
        "lastDeploy": Value::Null,
        "authors": [],
        "data": {},
        "projects": projects,
    }))
}

async fn releases(State(tracker): State<Tracker>, Path(org): Path<String>) -> Answer<Json<Value>> {
    let name = org.clone();
    let all = tracker
        .with_store(move |store| store.releases(&name))
        .await?;
    let mut list = Vec::new();
    for release in &all {
        list.push(release_json(&tracker, &org, release).await?);
    }
    Ok(Json(Value::Array(list)))
}

async fn releases_of_project(
    state: State<Tracker>,
    Path((org, _project)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    releases(state, Path(org)).await
}

async fn known(tracker: &Tracker, org: &str, version: &str) -> Answer<Release> {
    let (org, version) = (org.to_owned(), version.to_owned());
    tracker
        .with_store(move |store| store.release(&org, &version))
        .await?
        .ok_or_else(|| Failure::not_found("release"))
}

async fn show(
    State(tracker): State<Tracker>,
    Path((org, version)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let release = known(&tracker, &org, &version).await?;
    Ok(Json(release_json(&tracker, &org, &release).await?))
}

async fn show_of_project(
    state: State<Tracker>,
    Path((org, _project, version)): Path<(String, String, String)>,
) -> Answer<Json<Value>> {
    show(state, Path((org, version))).await
}

async fn update(
    State(tracker): State<Tracker>,
    Path((org, version)): Path<(String, String)>,
    Json(said): Json<Map<String, Value>>,
) -> Answer<Json<Value>> {
    let (release, _) = put(&tracker, org.clone(), version, said).await?;
    Ok(Json(release_json(&tracker, &org, &release).await?))
}

async fn update_of_project(
    state: State<Tracker>,
    Path((org, _project, version)): Path<(String, String, String)>,
    said: Json<Map<String, Value>>,
) -> Answer<Json<Value>> {
    update(state, Path((org, version)), said).await
}

async fn delete(
    State(tracker): State<Tracker>,
    Path((org, version)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let deleted = tracker
        .with_store(move |store| store.delete_release(&org, &version))
        .await?;
    match deleted {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Failure::not_found("release")),
    }
}

async fn delete_of_project(
    state: State<Tracker>,
    Path((org, _project, version)): Path<(String, String, String)>,
) -> Answer<StatusCode> {
    delete(state, Path((org, version))).await
}

/// Commits are not compared; clients then send them all.
async fn no_previous() -> Json<Value> {
    Json(json!({}))
}

/// Files are kept in bundles, never one by one.
async fn no_files() -> Json<Value> {
    Json(json!([]))
}

async fn deploys(
    State(tracker): State<Tracker>,
    Path((org, version)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let release = known(&tracker, &org, &version).await?;
    Ok(Json(Value::Array(deploys_of(&release))))
}

fn deploys_of(release: &Release) -> Vec<Value> {
    let said: Value = serde_json::from_str(&release.body).unwrap_or_default();
    let deploys = said.get("deploys").and_then(Value::as_array);
    deploys.cloned().unwrap_or_default()
}

async fn deploy(
    State(tracker): State<Tracker>,
    Path((org, version)): Path<(String, String)>,
    Json(said): Json<Map<String, Value>>,
) -> Answer<Response> {
    /// A release is deployed a few times to a few places.
    const DEPLOYS_MAX: usize = 100;
    let release = known(&tracker, &org, &version).await?;
    let field = |name: &str| said.get(name).cloned().unwrap_or(Value::Null);
    let finished = field("dateFinished");
    let deploy = json!({
        "id": (deploys_of(&release).len() + 1).to_string(),
        "environment": field("environment"),
        "name": field("name"),
        "url": field("url"),
        "dateStarted": field("dateStarted"),
        "dateFinished": if finished.is_null() { json!(now()) } else { finished },
    });
    let mut deploys = deploys_of(&release);
    deploys.insert(0, deploy.clone());
    deploys.truncate(DEPLOYS_MAX);
    let body = Map::from_iter([("deploys".to_owned(), Value::Array(deploys))]);
    put(&tracker, org, version, body).await?;
    Ok((StatusCode::CREATED, Json(deploy)).into_response())
}
