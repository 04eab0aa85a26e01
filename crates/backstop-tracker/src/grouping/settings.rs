//! What a project's settings say about grouping.
//!
//! They are the member `grouping` of the project's settings:
//!
//! ```json
//! {"grouping": {
//!     "version": 1,
//!     "previous": 1, "until": "2027-03-01T00:00:00Z",
//!     "fingerprint_rules": "type:DatabaseError -> database",
//!     "stack_rules": "path:**/vendor/** -app"
//! }}
//! ```
//!
//! `previous` is the version of the time before a change, which finds issues until `until`.

use backstop_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Grouper, Rules, VERSION};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    grouping: GroupingSettings,
}

/// How a project's events are grouped, beside what holds for everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupingSettings {
    /// The version of the algorithm; the newest if there is none.
    pub version: Option<u16>,
    /// The version of the time before a change, by whose hashes issues are found as well.
    pub previous: Option<u16>,
    /// When that ends; never if there is no time.
    pub until: Option<Timestamp>,
    /// Fingerprint rules in Sentry's syntax, one a line.
    pub fingerprint_rules: String,
    /// Stack-trace rules in Sentry's syntax, one a line.
    pub stack_rules: String,
}

impl Grouper {
    /// Groups as a project's settings, which are JSON text, ask for.
    ///
    /// # Errors
    ///
    /// What is wrong with them, for people.
    pub fn with_settings(self, settings: &str, now: Timestamp) -> Result<Grouper, String> {
        let mut grouper = self.with_parsed_settings(settings, now)?;
        settings.clone_into(&mut grouper.settings);
        Ok(grouper)
    }

    /// Groups by default although settings ask for something that cannot be understood, so that
    /// the failure is told once and not again and again.
    pub(crate) fn despite_settings(mut self, settings: &str) -> Grouper {
        settings.clone_into(&mut self.settings);
        self
    }

    /// Says whether this grouper still does what a project's settings ask for.
    pub fn follows(&self, settings: &str, now: Timestamp) -> bool {
        self.settings == settings && self.until.is_none_or(|until| now < until)
    }

    fn with_parsed_settings(self, settings: &str, now: Timestamp) -> Result<Grouper, String> {
        let Settings { grouping } = serde_json::from_str(settings)
            .map_err(|error| format!("the settings are not understood: {error}"))?;
        let rules = |kind: &str, error: super::RuleError| format!("{kind}, {error}");
        let fingerprints = Rules::parse(&grouping.fingerprint_rules, "")
            .map_err(|error| rules("fingerprint rules", error))?;
        let stacks =
            Rules::parse("", &grouping.stack_rules).map_err(|error| rules("stack rules", error))?;
        let grouper = self
            .with_rules(Rules {
                stacks: stacks.stacks,
                ..fingerprints
            })
            .with_version(grouping.version.unwrap_or(VERSION))
            .map_err(|error| error.to_string())?;
        match grouping.previous {
            Some(previous) if grouping.until.is_none_or(|until| now < until) => {
                let mut grouper = grouper
                    .with_previous(previous)
                    .map_err(|error| error.to_string())?;
                grouper.until = grouping.until;
                Ok(grouper)
            }
            _ => Ok(grouper),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let check = |settings: &str, expected: &str| {
            let got = Grouper::new().with_settings(settings, Timestamp::from_micros(0));
            assert_eq!(
                got.map(|_| ()),
                if expected.is_empty() {
                    Ok(())
                } else {
                    Err(expected.into())
                }
            );
        };
        check("{}", "");
        check(
            r#"{"scrub": 1, "grouping": {"previous": 1, "until": "2027-03-01"}}"#,
            "",
        );
        check(
            r#"{"grouping": {"version": 9}}"#,
            "no grouping version 9; there is 0, 1",
        );
        check(
            r#"{"grouping": {"stack_rules": "app:no +up"}}"#,
            "stack rules, line 1, column 8: unknown action \"+up\"",
        );
        check(
            r#"{"grouping": {"fingerprint_rules": "type:a"}}"#,
            "fingerprint rules, line 1, column 7: expected \"->\"",
        );
    }
}
