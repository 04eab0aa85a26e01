//! What the command line says about ingest: `backstop outcomes` and `backstop project settings`.

use anyhow::{Context, Result, anyhow};
use backstop_protocol::Timestamp;
use serde_json::json;

use super::Settings;
use crate::grouping::Grouper;
use crate::model::{Outcome, Project};
use crate::store::Store;

/// Says what became of everything that was sent to a project, or to all, as lines or as JSON.
pub(crate) fn outcomes(
    store: &Store,
    project: Option<&Project>,
    since: Timestamp,
    as_json: bool,
) -> Result<String> {
    let outcomes = store
        .outcomes(project.map(|project| project.id), since)
        .context("cannot read the outcomes")?;
    if as_json {
        let list: Vec<_> = outcomes.iter().map(outcome_json).collect();
        return Ok(serde_json::to_string_pretty(&list)?);
    }
    let mut lines = vec![format!(
        "{:<10}  {:<12}  {:<32}  {:<40}  {:>9}",
        "day", "project", "key", "outcome", "events"
    )];
    for outcome in &outcomes {
        let key = outcome.key.map(|key| key.to_string()).unwrap_or_default();
        lines.push(format!(
            "{:<10}  {:<12}  {key:<32}  {:<40}  {:>9}",
            date_of(outcome.day),
            outcome.project,
            outcome.reason,
            outcome.count
        ));
    }
    let total: u64 = outcomes.iter().map(|outcome| outcome.count).sum();
    lines.push(format!("{:<102}  {total:>9}", "total"));
    Ok(lines.join("\n"))
}

fn outcome_json(outcome: &Outcome) -> serde_json::Value {
    json!({
        "date": date_of(outcome.day),
        "project": outcome.project.to_string(),
        "key": outcome.key.map(|key| key.to_string()),
        "reason": outcome.reason,
        "quantity": outcome.count,
    })
}

pub(crate) fn date_of(day: i64) -> String {
    let time = Timestamp::from_micros(day.saturating_mul(86_400_000_000)).to_string();
    time.chars().take(10).collect()
}

/// Shows a project's settings of ingest, or replaces them; both as JSON with every field.
pub(crate) fn settings(store: &Store, project: &Project, new: Option<&str>) -> Result<String> {
    let settings = match new {
        None => Settings::parse(&project.settings).context("the stored settings do not read")?,
        Some(text) => {
            let settings =
                Settings::parse(text).context("the settings are not what is expected")?;
            // A rule that cannot be read is refused now, with its place, and not at the next event.
            Grouper::new()
                .with_settings(text, super::now())
                .map_err(|error| anyhow!("the settings are not what is expected: {error}"))?;
            store
                .set_project_settings(project.id, &serde_json::to_string(&settings)?)
                .context("cannot store the settings")?;
            settings
        }
    };
    Ok(serde_json::to_string_pretty(&settings)?)
}
