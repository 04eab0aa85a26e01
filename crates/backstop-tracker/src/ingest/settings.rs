//! What a project wants of ingest: quotas, filters, scrubbing; and of grouping.
//!
//! Kept as JSON text with the project; a field that is missing means its default.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::grouping::GroupingSettings;

/// A project's settings of ingest.
///
/// # Example
///
/// ```
/// use backstop_tracker::ingest::Settings;
///
/// let settings = Settings::parse(r#"{"quota": {"per_minute": 600}}"#).unwrap();
/// assert_eq!(settings.quota.per_minute, Some(600));
/// assert!(settings.scrub.enabled);
/// assert!(Settings::parse(r#"{"qouta": {}}"#).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many events the project takes.
    pub quota: Quota,
    /// How many events each of its keys takes.
    pub key_quota: Quota,
    /// Events over a quota that are still taken, per minute, if their issue is new.
    pub new_issues_per_minute: NewIssues,
    /// What is not wanted at all.
    pub filter: Filters,
    /// What is removed from events.
    pub scrub: Scrubbing,
    /// Origins of browsers that may send, such as `https://shop.example` or `*.shop.example`;
    /// empty means all.
    pub origins: Vec<String>,
    /// How events are grouped; the digest reads it, and a misspelt rule is refused here.
    pub grouping: GroupingSettings,
}

/// How many events are taken; `None` means any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// In a minute of the clock.
    pub per_minute: Option<u64>,
    /// In a month of the calendar, in UTC.
    pub per_month: Option<u64>,
}

/// How many first events of new issues pass a quota that is used up, per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NewIssues(pub u64);

impl Default for NewIssues {
    fn default() -> NewIssues {
        // A storm of one error hides the others; a storm of new ones is a storm as well.
        NewIssues(20)
    }
}

/// Events that are counted and thrown away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    /// Releases, as globs: `shop@1.*`.
    pub releases: Vec<String>,
    /// Environments, as globs.
    pub environments: Vec<String>,
    /// Errors, as globs over `Type` and over `Type: message`.
    pub errors: Vec<String>,
    /// Errors from browser extensions.
    pub browser_extensions: bool,
    /// Errors that crawlers met.
    pub crawlers: bool,
    /// Errors of pages on the developer's own machine.
    pub localhost: bool,
}

/// What is removed from events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scrubbing {
    /// Whether secrets are removed at all.
    pub enabled: bool,
    /// Whether e-mail addresses are removed.
    pub emails: bool,
    /// Whether IP addresses are removed, and never noted.
    pub ip_addresses: bool,
    /// More names of secrets.
    pub secret_names: Vec<String>,
    /// Names that are none.
    pub safe_names: Vec<String>,
}

impl Default for Scrubbing {
    fn default() -> Scrubbing {
        Scrubbing {
            enabled: true,
            emails: false,
            ip_addresses: false,
            secret_names: Vec::new(),
            safe_names: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads the JSON text that the store keeps with a project.
    ///
    /// # Errors
    ///
    /// If it is not JSON, or has a field that no version knows: a misspelt quota is none.
    pub fn parse(text: &str) -> Result<Settings, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Reads what the store has; settings that do not read are the strictest ones there are.
    pub(super) fn of_project(text: &str) -> Arc<Settings> {
        match Settings::parse(text) {
            Ok(settings) => Arc::new(settings),
            Err(error) => {
                tracing::error!(%error, "a project's settings do not read; scrubbing everything");
                Arc::new(Settings {
                    scrub: Scrubbing {
                        emails: true,
                        ip_addresses: true,
                        ..Scrubbing::default()
                    },
                    ..Settings::default()
                })
            }
        }
    }
}
