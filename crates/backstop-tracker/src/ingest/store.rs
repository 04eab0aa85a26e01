//! The store endpoint of older clients: one event, in whatever form its author found practical.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use backstop_protocol::query_pairs;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::Ingest;
use super::body::{self, Held};
use super::caller::{project_of_path, split};
use super::envelope::{blocking, decode};
use super::event::Batch;
use super::refusal::Refusal;
use super::symbolicate::may_need_maps;

/// The smallest picture there is: very old browser clients wait for one.
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;";

pub(super) async fn store(
    State(ingest): State<Arc<Ingest>>,
    Path(project): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let project = project_of_path(&project)?;
    receive(&ingest, request, Some(project)).await
}

/// The oldest clients send no project: the key alone tells it.
pub(super) async fn store_without_project(
    State(ingest): State<Arc<Ingest>>,
    request: Request,
) -> Result<Response, Refusal> {
    receive(&ingest, request, None).await
}

async fn receive(
    ingest: &Arc<Ingest>,
    request: Request,
    project: Option<u64>,
) -> Result<Response, Refusal> {
    let (head, body) = split(request);
    let caller = ingest.caller_of_head(&head, project, None).await?;
    let held = async {
        let held = body::read(&head.headers, body, &ingest.memory).await?;
        let held = decode(&head, held).await?;
        blocking_if_large(held, body::sniff).await?
    };
    let held = held
        .await
        .map_err(|refusal| ingest.count_refusal(Some(&caller), refusal))?;
    let batch = {
        let (ingest, caller) = (Arc::clone(ingest), caller.clone());
        blocking_if_large(held, move |held| {
            let mut batch = Batch::default();
            ingest.add_event_bytes(&mut batch, &caller, &caller.arrival(), &held.bytes, None);
            batch
        })
        .await?
    };
    ingest.finish(&caller, batch).await
}

/// The event in the query, answered with a picture: an `<img>` is how very old browsers send.
pub(super) async fn store_of_query(
    State(ingest): State<Arc<Ingest>>,
    Path(project): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, _) = split(request);
    let project = project_of_path(&project)?;
    let caller = ingest.caller_of_head(&head, Some(project), None).await?;
    let query = head.uri.query().unwrap_or_default();
    let data = query_pairs(query).find(|(name, _)| name == "sentry_data");
    let Some((_, data)) = data else {
        return Err(Refusal::bad("missing sentry_data in the query"));
    };
    let held = body::sniff(Held::new(data.into_owned().into_bytes(), &ingest.memory))
        .map_err(|refusal| ingest.count_refusal(Some(&caller), refusal))?;
    let mut batch = Batch::default();
    ingest.add_event_bytes(&mut batch, &caller, &caller.arrival(), &held.bytes, None);
    ingest.finish(&caller, batch).await?;
    let headers = [(CONTENT_TYPE, "image/gif"), (CACHE_CONTROL, "no-store")];
    Ok((headers, GIF).into_response())
}

/// Work on a large body, and reading source maps, goes to a thread of its own, so that it does not
/// hold up others.
async fn blocking_if_large<T: Send + 'static>(
    held: Held,
    work: impl FnOnce(Held) -> T + Send + 'static,
) -> Result<T, Refusal> {
    const INLINE_BYTES_MAX: usize = 64 * 1024;
    if held.bytes.len() <= INLINE_BYTES_MAX && !may_need_maps(&held.bytes) {
        return Ok(work(held));
    }
    blocking(move || work(held)).await
}
