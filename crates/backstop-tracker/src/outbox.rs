//! Mail about issues: takes the alerts that are due from the store and sends them.
//!
//! The store decides who is told of what, in the same transaction as the event; here it is decided
//! which mail tells it, and the mail is handed over. What could not be sent stays in the store and is tried again,
//! under the same Message-ID, so that a mail program shows it once.

use std::sync::Arc;
use std::time::Duration;

use backstop::mail::{Mail, Mailer};
use backstop_protocol::Timestamp;
use minijinja::Environment;

use crate::app::now;
use crate::digest::Digest;
use crate::letter::{Letter, List};
use crate::model::{Alert, AlertKind, StoredEvent, Which};
use crate::store::{self, Store};

/// Alerts taken at a time; a storm of new issues beyond the first mails becomes one digest.
const ALERTS_MAX: usize = 200;

/// Single mails in one round; whoever breaks more at once wants a list.
const MAILS_MAX: usize = 10;

/// Looks for due alerts at least this often, for those that another process made.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends the alerts of a store.
pub(crate) struct Outbox {
    /// Where alerts and events are.
    pub(crate) store: Store,
    /// How mails leave.
    pub(crate) mailer: Mailer,
    /// The sender of mails.
    pub(crate) from: String,
    /// Who gets mails while there is no user.
    pub(crate) fallback_to: String,
    /// The address of this server for links.
    pub(crate) public_url: String,
    /// The templates of the HTML parts.
    pub(crate) templates: Environment<'static>,
}

impl Outbox {
    /// Sends what is due, for ever; cancel it at any await.
    pub(crate) async fn run(self: Arc<Outbox>, digest: Arc<Digest>) {
        loop {
            let outbox = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || outbox.send_due(now())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(error = format!("{error:#}"), "alerts cannot be read");
                }
                Err(error) => tracing::error!(%error, "sending alerts panicked"),
            }
            let rung = tokio::time::timeout(PATIENCE, digest.alerts_due()).await;
            drop(rung); // Whether rung or tired of waiting: look again.
        }
    }

    /// Sends what is due at `now`; returns when everything was sent or noted as failed.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written; a mail that cannot be sent is noted in the store.
    pub(crate) fn send_due(&self, now: Timestamp) -> Result<(), store::Error> {
        loop {
            let due = self.store.due_alerts(now, ALERTS_MAX)?;
            if due.is_empty() {
                return Ok(());
            }
            let to = self.receivers()?;
            for message_id in self.plan(due)? {
                let alerts = self.store.alerts_of_mail(&message_id)?;
                let about_one = |alert: &Alert| alert.issue.id == alerts[0].issue.id;
                let mut mail = match alerts.as_slice() {
                    // Another process has sent it meanwhile.
                    [] => continue,
                    [_, rest @ ..] if rest.iter().all(about_one) => {
                        self.mail_about(&alerts, &to)?
                    }
                    _ => self.digest_of(&alerts, &to),
                };
                mail.message_id = Some(message_id);
                let has_it = self.store.alert_receivers(alerts[0].id)?;
                mail.to.retain(|receiver| !has_it.contains(receiver));
                self.send(&mail, &alerts, now)?;
            }
        }
    }

    /// Decides which mail each alert belongs to and writes it down; returns their Message-IDs.
    ///
    /// Without this a mail that was sent just before the process was killed would be followed by
    /// another one about the same alert, because more alerts have become due meanwhile.
    fn plan(&self, due: Vec<Alert>) -> Result<Vec<String>, store::Error> {
        let mut mails: Vec<String> = Vec::new();
        let mut by_issue: Vec<Vec<Alert>> = Vec::new();
        for alert in due {
            if let Some(mail) = alert.mail {
                if !mails.contains(&mail) {
                    mails.push(mail);
                }
                continue;
            }
            match by_issue
                .iter_mut()
                .find(|alerts| alerts[0].issue.id == alert.issue.id)
            {
                Some(alerts) => alerts.push(alert),
                None => by_issue.push(vec![alert]),
            }
        }
        let rest = by_issue.split_off(by_issue.len().min(MAILS_MAX));
        let mut planned: Vec<_> = by_issue
            .iter()
            .map(|alerts| (self.message_id(alerts), ids(alerts)))
            .collect();
        let rest: Vec<Alert> = rest.into_iter().flatten().collect();
        if let Some(first) = rest.first() {
            let message_id = format!("digest-{}@{}", first.id, self.host());
            planned.push((message_id, ids(&rest)));
        }
        self.store.plan_mails(&planned)?;
        mails.extend(planned.into_iter().map(|(message_id, _)| message_id));
        Ok(mails)
    }

    /// The first mail about an issue begins a thread that the later ones belong to.
    fn message_id(&self, alerts: &[Alert]) -> String {
        let alert = &alerts[0];
        match is_first(alerts) {
            true => self.thread(alert),
            false => format!("alert-{}@{}", alert.id, self.host()),
        }
    }

    fn thread(&self, alert: &Alert) -> String {
        format!("issue-{}@{}", alert.issue.id, self.host())
    }

    fn host(&self) -> &str {
        let host = crate::config::host_of(&self.public_url).unwrap_or("localhost");
        host.split(':').next().unwrap_or("localhost")
    }

    fn receivers(&self) -> Result<Vec<String>, store::Error> {
        let users = self.store.users()?;
        if users.is_empty() {
            return Ok(vec![self.fallback_to.clone()]);
        }
        Ok(users.into_iter().map(|user| user.email).collect())
    }

    fn send(&self, mail: &Mail, alerts: &[Alert], now: Timestamp) -> Result<(), store::Error> {
        let ids = ids(alerts);
        let mut noted = Ok(());
        let mut failed: Vec<(String, String)> = Vec::new();
        self.mailer.send_each(mail, |receiver, sent| match sent {
            Ok(()) => {
                tracing::info!(subject = mail.subject, receiver, to = %self.mailer, "mail sent");
                // Noted at once: who has the mail must not get it again with the others.
                if mail.to.len() > 1 && noted.is_ok() {
                    noted = self.store.alerts_delivered(&ids, receiver);
                }
            }
            Err(error) => {
                let reason = match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                tracing::warn!(subject = mail.subject, receiver, reason, "mail not sent");
                failed.push((receiver.to_owned(), reason));
            }
        });
        noted?;
        let Some((_, reason)) = failed.first() else {
            return self.store.alerts_sent(&ids);
        };
        let given_up = self.store.alerts_failed(&ids, reason, now)?;
        if !given_up.is_empty() {
            for (receiver, reason) in &failed {
                tracing::error!(
                    subject = mail.subject,
                    receiver,
                    reason,
                    "mail given up: it was tried as often as it makes sense"
                );
            }
        }
        Ok(())
    }

    fn mail_about(&self, alerts: &[Alert], to: &[String]) -> Result<Mail, store::Error> {
        let alert = &alerts[0];
        let issue = &alert.issue;
        let stored = match store::optional(self.store.event(issue.project, alert.event))? {
            Some(stored) => Some(stored),
            None => store::optional(self.store.issue_event(issue.id, Which::Latest))?,
        };
        let event = stored
            .as_ref()
            .and_then(|stored: &StoredEvent| stored.event().ok());
        let letter = Letter::new(alerts, event.as_ref(), &self.public_url);
        Ok(Mail {
            from: self.from.clone(),
            to: to.to_vec(),
            subject: format!(
                "[{}] {}{}",
                issue.short_id,
                prefix_for(alert.kind),
                issue.title
            ),
            text: letter.text(),
            html: letter.html(&self.templates),
            message_id: None,
            thread_id: (!is_first(alerts)).then(|| self.thread(alert)),
        })
    }

    /// One mail for many issues at once.
    fn digest_of(&self, alerts: &[Alert], to: &[String]) -> Mail {
        let list = List::new(alerts, &self.public_url);
        Mail {
            from: self.from.clone(),
            to: to.to_vec(),
            subject: format!(
                "{} issues at once in {}",
                alerts.len(),
                alerts[0].issue.project_slug
            ),
            text: list.text(),
            html: list.html(&self.templates),
            ..Mail::default()
        }
    }
}

fn ids(alerts: &[Alert]) -> Vec<i64> {
    alerts.iter().map(|alert| alert.id).collect()
}

fn is_first(alerts: &[Alert]) -> bool {
    alerts.iter().any(|alert| alert.kind == AlertKind::NewIssue)
}

fn prefix_for(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::NewIssue => "",
        AlertKind::Regression => "Back again: ",
        AlertKind::Frequency { .. } => "Often: ",
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::{Event, EventId};
    use serde_json::json;

    use super::*;
    use crate::digest::Incoming;
    use crate::model::{Decision, NewProject, ProjectId};

    /// A store with a project, and an outbox that mails into memory.
    struct Bench {
        digest: Digest,
        outbox: Outbox,
        project: ProjectId,
        now: Timestamp,
        events: u8,
        _data: tempfile::TempDir,
    }

    impl Bench {
        fn new(mailer: Mailer) -> Bench {
            let data = tempfile::TempDir::new().unwrap();
            let store = Store::open(data.path()).unwrap();
            let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
            let wish = NewProject {
                name: "shop".into(),
                ..NewProject::default()
            };
            let project = store.create_project(&wish, now).unwrap().id;
            store.create_user("ada@example.com", "Ada", now).unwrap();
            let outbox = Outbox {
                store: store.clone(),
                mailer,
                from: "Backstop <backstop@example.com>".into(),
                fallback_to: "root@localhost".into(),
                public_url: "https://errors.example.com".into(),
                templates: crate::web::templates(data.path()).unwrap(),
            };
            Bench {
                digest: Digest::start(store).unwrap(),
                outbox,
                project,
                now,
                events: 0,
                _data: data,
            }
        }

        fn store(&self) -> &Store {
            &self.outbox.store
        }

        /// Lets a function fail once and sends the mails that are due.
        fn fail_in(&mut self, function: &str) {
            self.events += 1;
            let event = json!({
                "platform": "python",
                "exception": { "values": [{ "type": "KeyError", "value": "'sku'", "stacktrace": { "frames": [{
                    "filename": "shop.py", "function": function, "lineno": 3, "in_app": true,
                    "context_line": "    return prices[sku]", "vars": { "sku": "'teapot'" },
                }]}}]},
            });
            let mut event: Event = serde_json::from_value(event).unwrap();
            event.event_id = EventId::from_bytes([self.events; 16]);
            let incoming = Incoming {
                project: self.project,
                key: None,
                received: self.now,
            };
            let prepared = self.digest.prepare(incoming, event).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime
                .block_on(self.digest.submit(vec![prepared]))
                .unwrap();
        }

        fn mails(&self) -> Vec<String> {
            self.outbox.send_due(self.now).unwrap();
            self.outbox.mailer.sent()
        }
    }

    #[test]
    fn a_new_issue_is_one_mail_that_says_what_failed() {
        let mut bench = Bench::new(Mailer::memory());
        bench.fail_in("price_of");
        let mails = bench.mails();
        assert_eq!(mails.len(), 1);
        for line in [
            "To: ada@example.com",
            "Subject: [SHOP-1] KeyError: 'sku'",
            "https://errors.example.com/issues/1/",
            "shop.py:3 in price_of",
            "return prices[sku]",
            "'teapot'",
            "Message-ID: <issue-1@errors.example.com>",
        ] {
            assert!(mails[0].contains(line), "{line} is not in {}", mails[0]);
        }
        bench.fail_in("price_of");
        bench.fail_in("price_of");
        assert_eq!(bench.mails().len(), 1, "a repeated error is silent");
        bench.fail_in("stock_of");
        assert_eq!(bench.mails().len(), 2, "another bug is another mail");
    }

    #[test]
    fn the_html_part_says_the_same_and_lets_nothing_of_an_event_be_markup() {
        let mut bench = Bench::new(Mailer::memory());
        bench.fail_in("<script>alert(1)</script>");
        let alerts = bench.store().due_alerts(bench.now, ALERTS_MAX).unwrap();
        let mail = bench.outbox.mail_about(&alerts, &[]).unwrap();
        let html = mail.html.unwrap().replace("&#x2f;", "/");
        for text in [
            "KeyError",
            "href=\"https://errors.example.com/issues/1/\"",
            "shop.py:3",
            "&lt;script&gt;alert(1)&lt;",
            "return prices[sku]",
            "teapot",
            "a new issue",
        ] {
            assert!(html.contains(text), "{text} is not in {html}");
        }
        assert!(!html.contains("<script"), "{html}");
        for from_elsewhere in ["src=", "url(", "@import", "<link"] {
            assert!(!html.contains(from_elsewhere), "{from_elsewhere} in {html}");
        }
        assert!(bench.mails()[0].contains("Content-Type: multipart/alternative"));
    }

    #[test]
    fn a_template_that_fails_leaves_the_text() {
        let mut bench = Bench::new(Mailer::memory());
        bench
            .outbox
            .templates
            .add_template("mail.html", "{{ title.nothing.there }}")
            .unwrap();
        bench.fail_in("price_of");
        let mails = bench.mails();
        assert!(mails[0].contains("shop.py:3 in price_of"), "{}", mails[0]);
        assert!(!mails[0].contains("text/html"), "{}", mails[0]);
    }

    #[test]
    fn a_threshold_is_told_once() {
        let mut bench = Bench::new(Mailer::memory());
        let often = AlertKind::Frequency {
            events: 3,
            minutes: 5,
        };
        bench.store().add_alert_rule(bench.project, often).unwrap();
        for _ in 0..2 {
            bench.fail_in("price_of");
        }
        assert_eq!(bench.mails().len(), 1, "the new issue");
        for _ in 0..3 {
            bench.fail_in("price_of");
        }
        let mails = bench.mails();
        assert_eq!(mails.len(), 2, "{mails:?}");
        assert!(
            mails[1].contains("Subject: [SHOP-1] Often: KeyError"),
            "{}",
            mails[1]
        );
        assert!(
            mails[1].contains("at least 3 events within 5 min"),
            "{}",
            mails[1]
        );
        assert!(
            mails[1].contains("In-Reply-To: <issue-1@errors.example.com>"),
            "{}",
            mails[1]
        );
    }

    #[test]
    fn a_regression_is_told() {
        let mut bench = Bench::new(Mailer::memory());
        bench.fail_in("price_of");
        let issue = bench
            .store()
            .issues(&crate::model::IssueQuery::default())
            .unwrap()
            .issues[0]
            .id;
        bench.store().decide(issue, Decision::Resolve).unwrap();
        bench.mails();
        bench.fail_in("price_of");
        let mails = bench.mails();
        assert!(
            mails[1].contains("Subject: [SHOP-1] Back again: KeyError"),
            "{}",
            mails[1]
        );
    }

    #[test]
    fn many_new_issues_at_once_are_ten_mails_and_a_list() {
        let mut bench = Bench::new(Mailer::memory());
        for name in [
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m",
        ] {
            bench.fail_in(&format!("{name}_of"));
        }
        let mails = bench.mails();
        assert_eq!(mails.len(), 11);
        assert!(
            mails[10].contains("Subject: 3 issues at once in shop"),
            "{}",
            mails[10]
        );
        assert_eq!(bench.mails().len(), 11, "nothing is sent twice");
    }

    /// The process is killed after the mails were taken and before that was noted.
    #[test]
    fn mails_that_were_sent_and_not_noted_are_sent_again_as_they_were() {
        let mut bench = Bench::new(Mailer::memory());
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
            bench.fail_in(&format!("{name}_of"));
        }
        let due = bench.store().due_alerts(bench.now, ALERTS_MAX).unwrap();
        let mut expected = bench.outbox.plan(due).unwrap();
        assert_eq!(expected.len(), 11);
        // Meanwhile another issue comes up, which must not move anything from one mail to another.
        bench.fail_in("m_of");
        let mails = bench.mails();
        let ids = |mails: &[String]| -> Vec<String> {
            let mut ids: Vec<_> = mails
                .iter()
                .flat_map(|mail| mail.lines())
                .filter_map(|line| line.strip_prefix("Message-ID: <")?.strip_suffix('>'))
                .map(str::to_owned)
                .collect();
            ids.sort();
            ids
        };
        expected.push("issue-13@errors.example.com".to_owned());
        expected.sort();
        assert_eq!(ids(&mails), expected);
        assert_eq!(
            mails
                .iter()
                .filter(|mail| mail.contains("2 more issues"))
                .count(),
            1
        );
    }

    #[test]
    fn one_bad_address_stops_nobody_elses_mail_and_nobody_gets_it_twice() {
        let mut bench = Bench::new(Mailer::memory());
        let bad = bench.store().create_user("x@y@z", "", bench.now);
        assert_eq!(bad.unwrap_err().kind(), store::ErrorKind::Invalid);
        // Stores of older versions have such users.
        let file = rusqlite::Connection::open(bench.store().directory().join("backstop.db"));
        file.unwrap()
            .execute_batch("INSERT INTO user (email, name, created) VALUES ('x@y@z', '', 0)")
            .unwrap();
        bench.fail_in("price_of");
        let mails = bench.mails();
        assert_eq!(mails.len(), 1);
        assert!(mails[0].contains("To: ada@example.com\r\n"), "{}", mails[0]);
        for _ in 0..3 {
            bench.now = Timestamp::from_micros(bench.now.micros() + 10_000_000_000);
            assert_eq!(bench.mails().len(), 1, "ada has it");
        }
        assert!(bench.store().next_alert_at().unwrap().is_some());
        // Whoever comes later has not been told.
        bench
            .store()
            .create_user("bob@example.com", "", bench.now)
            .unwrap();
        bench.now = Timestamp::from_micros(bench.now.micros() + 10_000_000_000);
        let mails = bench.mails();
        assert_eq!(mails.len(), 2);
        assert!(mails[1].contains("To: bob@example.com\r\n"), "{}", mails[1]);
        assert!(
            mails[1].contains("Message-ID: <issue-1@errors.example.com>"),
            "{}",
            mails[1]
        );
        for _ in 0..40 {
            bench.now = Timestamp::from_micros(bench.now.micros() + 10_000_000_000);
            assert_eq!(bench.mails().len(), 2);
        }
        assert_eq!(bench.store().next_alert_at().unwrap(), None, "given up");
    }

    #[test]
    fn what_cannot_be_sent_is_kept_and_sent_later() {
        // A directory whose parent is a file can never be made.
        let blocked = tempfile::NamedTempFile::new().unwrap();
        let mut bench = Bench::new(Mailer::directory(blocked.path().join("mail")));
        bench.fail_in("price_of");
        assert!(bench.mails().is_empty());
        bench.outbox.mailer = Mailer::memory();
        assert!(bench.mails().is_empty(), "it is not tried again at once");
        bench.now = Timestamp::from_micros(bench.now.micros() + 60_000_000);
        assert_eq!(bench.mails().len(), 1);
    }
}
