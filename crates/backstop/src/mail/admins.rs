//! Mail to the administrators about errors that nobody handled.
//!
//! A thread of its own merges equal problems, keeps to a limit and sends, so a dead mail server
//! costs a request nothing, and a page that fails a thousand times is one mail and a digest.
//! What could not be sent or had to be dropped is counted; log and next mail say so.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::{Mail, MailError, MailErrorKind, Mailer};
use crate::config::Config;
use crate::web::{App, Extension, Failure};
use crate::{log, stacktrace};

/// Failures that wait for the mail thread; more are counted and dropped.
const QUEUE_MAX: usize = 1000;

/// Problems that are told apart; those beyond share one line of the digest.
const PROBLEMS_MAX: usize = 500;

/// Mails that wait for a server that is down; the oldest is dropped for a new one.
const UNSENT_MAX: usize = 20;

/// Of how many problems a digest shows the whole text.
const DIGEST_TEXTS_MAX: usize = 3;

/// Text of one failure beyond this is cut: a mail is read, not searched.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The first pause after a mail server was down; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(15);
const RETRY_MAX: Duration = Duration::from_secs(10 * 60);

/// The window of the limit on mails.
const HOUR: Duration = Duration::from_secs(3600);

/// Sends mail to administrators about unhandled errors.
///
/// The same problem is mailed once and then counted; after a pause one digest tells of
/// everything that happened meanwhile.
/// In debug mode nothing is sent.
///
/// # Example
///
/// ```
/// use axum::{Router, routing::get};
/// use backstop::App;
/// use backstop::mail::{Admins, Mailer};
///
/// async fn broken() -> backstop::Result<String> {
///     Ok(std::fs::read_to_string("/no/such/file")?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> backstop::Result<()> {
/// let mailer = Mailer::memory(); // Mailer::smtp("smtp://mail.example.com")? in production
/// let admins = Admins::new(mailer.clone(), "shop@example.com", ["ada@example.com"]);
/// let app = App::new(Router::new().route("/", get(broken))).init(&admins);
/// # use tower::ServiceExt;
/// # let request = axum::http::Request::get("/").body(axum::body::Body::empty())?;
/// # app.into_router()?.oneshot(request).await?;
/// admins.flush(std::time::Duration::from_secs(5));
/// assert!(mailer.sent()[0].contains("Subject: Application Error"));
/// # Ok(()) }
/// ```
///
/// Follows the pattern of Flask's page:
/// <https://flask.palletsprojects.com/en/stable/logging/#email-errors-to-admins>.
#[derive(Clone)]
pub struct Admins {
    thread: Arc<Thread>,
}

/// The end of the queue that belongs to the application.
struct Thread {
    queue: SyncSender<Message>,
    /// Failures that found the queue full.
    dropped: Arc<AtomicU64>,
}

/// The threads of the program that may have mail to send: a server that ends asks them all.
static STARTED: Mutex<Vec<Weak<Thread>>> = Mutex::new(Vec::new());

/// While the queue is full, how long somebody who waits for the thread pauses between two looks.
const FULL_PAUSE: Duration = Duration::from_millis(10);

enum Message {
    Failed(Box<Failure>, Duration),
    Logged(Report),
    /// Answered with what could not be sent.
    Flush(SyncSender<Left>),
    /// The same, after a digest of what was only counted: the program ends.
    Finish(SyncSender<Left>),
}

/// What is in no mail that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    mails: u64,
    errors: u64,
}

impl Left {
    /// Says so in the log.
    fn tell(self) {
        if self.mails + self.errors > 0 {
            tracing::warn!(
                target: "backstop::mail",
                mails = self.mails,
                errors = self.errors,
                "mails to administrators were never sent"
            );
        }
    }
}

/// Sends what still has to be mailed, digests of counted errors included, and says whether
/// everything left in time; what did not is told in the log.
///
/// [`serve`](crate::serve) does this at its end.
pub fn finish(timeout: Duration) -> bool {
    let until = Instant::now() + timeout;
    let threads: Vec<Arc<Thread>> = started().iter().filter_map(Weak::upgrade).collect();
    // All at once: one dead server must not use up the time of the others.
    let all_left: Vec<Option<Left>> = thread::scope(|scope| {
        let asked: Vec<_> = threads
            .iter()
            .map(|thread| scope.spawn(|| thread.ask(Message::Finish, until)))
            .collect();
        asked
            .into_iter()
            .map(|asked| asked.join().ok().flatten())
            .collect()
    });
    for left in &all_left {
        match left {
            Some(left) => left.tell(),
            None => {
                tracing::warn!(target: "backstop::mail", "mails to administrators took too long and are given up");
            }
        }
    }
    all_left
        .iter()
        .all(|left| left.is_some_and(|left| left.mails == 0))
}

fn started() -> MutexGuard<'static, Vec<Weak<Thread>>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Thread {
    /// Notes the thread among those that a server asks at its end.
    fn register(self: &Arc<Self>) {
        let mut started = started();
        started.retain(|thread| thread.strong_count() > 0);
        started.push(Arc::downgrade(self));
    }

    /// Asks the thread to send, and waits until then for room in the queue and the answer.
    fn ask(&self, message: fn(SyncSender<Left>) -> Message, until: Instant) -> Option<Left> {
        let (done, wait) = sync_channel(1);
        let mut message = message(done);
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < until => {
                    message = back;
                    thread::sleep(FULL_PAUSE);
                }
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return None,
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        wait.recv_timeout(left).ok()
    }
}

/// How mails are made.
#[derive(Debug, Clone)]
pub struct AdminOptions {
    /// The subject of a mail about one problem.
    pub subject: String,
    /// How long a problem that was mailed is only counted.
    pub pause: Duration,
    /// How many mails are sent in an hour; beyond that everything waits for the digest.
    pub mails_per_hour: usize,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self {
            subject: "Application Error".to_owned(),
            pause: Duration::from_secs(15 * 60),
            mails_per_hour: 20,
        }
    }
}

impl Admins {
    /// Sends through `mailer`, from one address to some.
    pub fn new(
        mailer: Mailer,
        from: impl Into<String>,
        to: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self::with_options(mailer, from, to, AdminOptions::default())
    }

    /// Sends through `mailer`, with options.
    pub fn with_options(
        mailer: Mailer,
        from: impl Into<String>,
        to: impl IntoIterator<Item = impl Into<String>>,
        options: AdminOptions,
    ) -> Self {
        let (queue, messages) = sync_channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            mailer,
            from: from.into(),
            to: to.into_iter().map(Into::into).collect(),
            ledger: Ledger::new(options),
            unsent: VecDeque::new(),
            retry: RETRY_MIN,
            retry_at: None,
            lost: 0,
            dropped: Arc::clone(&dropped),
            start: Instant::now(),
        };
        let started = thread::Builder::new()
            .name("backstop-mail".to_owned())
            .spawn(move || worker.run(&messages));
        if let Err(error) = started {
            tracing::error!(target: "backstop::mail", %error, "no mail will be sent to administrators");
        }
        let thread = Arc::new(Thread { queue, dropped });
        thread.register();
        Self { thread }
    }

    /// Reads `MAIL_SERVER` (a host or an SMTP URL), `MAIL_PORT`, `MAIL_USERNAME`,
    /// `MAIL_PASSWORD`, `MAIL_FROM`, `MAIL_ADMINS` (a list or one address) and `MAIL_SUBJECT`;
    /// `None` if there is no server or nobody to write to.
    ///
    /// # Errors
    ///
    /// The server's address cannot be understood.
    pub fn from_config(config: &Config) -> Result<Option<Self>, MailError> {
        let to: Vec<String> = match config.get("MAIL_ADMINS") {
            Some(serde_json::Value::String(one)) => vec![one.clone()],
            _ => config
                .get_as("MAIL_ADMINS")
                .ok()
                .flatten()
                .unwrap_or_default(),
        };
        let Some(server) = config.text("MAIL_SERVER").filter(|_| !to.is_empty()) else {
            return Ok(None);
        };
        let url = if server.contains("://") {
            server.to_owned()
        } else {
            let port = config
                .get_as::<u16>("MAIL_PORT")
                .ok()
                .flatten()
                .unwrap_or(25);
            match (config.text("MAIL_USERNAME"), config.text("MAIL_PASSWORD")) {
                (Some(user), Some(password)) => {
                    let (user, password) = (percent(user), percent(password));
                    format!("smtp://{user}:{password}@{server}:{port}?tls=required")
                }
                _ => format!("smtp://{server}:{port}"),
            }
        };
        let from = config.text("MAIL_FROM").unwrap_or("backstop@localhost");
        let mut options = AdminOptions::default();
        if let Some(subject) = config.text("MAIL_SUBJECT") {
            subject.clone_into(&mut options.subject);
        }
        Ok(Some(Self::with_options(
            Mailer::smtp(&url)?,
            from,
            to,
            options,
        )))
    }

    /// Puts a failure into the queue; never waits.
    pub fn report(&self, failure: &Failure) {
        let at = since_epoch();
        self.send(Message::Failed(Box::new(failure.clone()), at));
    }

    fn send(&self, message: Message) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.thread.queue.try_send(message)
        {
            self.thread.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A layer for the program's log that mails the program's own records of level `ERROR` too.
    ///
    /// Records of this library are left out: their errors are mailed with their stacks.
    pub fn log_layer(&self) -> LogLayer {
        LogLayer(self.clone())
    }

    /// Waits until everything that was put into the queue is sent, counted or refused, and says
    /// whether it is: no mail waits for a server that is down.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.thread
            .ask(Message::Flush, Instant::now() + timeout)
            .is_some_and(|left| left.mails == 0)
    }
}

impl std::fmt::Debug for Admins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admins").finish_non_exhaustive()
    }
}

impl Extension for Admins {
    fn init_app<S: Clone + Send + Sync + 'static>(&self, app: App<S>) -> App<S> {
        let admins = self.clone();
        // Debug mode may be turned on after this; a failure knows how its app was built.
        app.on_report(move |failure| {
            if !failure.is_for_developers() {
                admins.report(failure);
            }
        })
    }
}

/// Mails the program's own error records. Made by [`Admins::log_layer`].
#[derive(Debug, Clone)]
pub struct LogLayer(Admins);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for LogLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let metadata = event.metadata();
        let target = metadata.target();
        let is_ours = target == "backstop" || target.starts_with("backstop::");
        if *metadata.level() != tracing::Level::ERROR || is_ours {
            return;
        }
        let record = log::text_of(event);
        let title = record.lines().next().unwrap_or_default().to_owned();
        let at = crate::report::Timestamp::from_micros(micros(since_epoch()));
        self.0.send(Message::Logged(Report {
            fingerprint: hash_of(&(metadata.file(), metadata.line())),
            text: format!("[{at}] ERROR in {target}: {record}\n"),
            title,
        }));
    }
}

fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _written = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn since_epoch() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

fn micros(since_epoch: Duration) -> i64 {
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// One failure as a mail tells it.
#[derive(Debug, Clone)]
struct Report {
    /// Equal for failures that are one problem.
    fingerprint: u64,
    title: String,
    text: String,
}

impl Report {
    /// Names the frames and words the failure. Opens debug information.
    fn of(failure: &Failure, at: Duration) -> Self {
        let mut event = crate::web::event_of(failure);
        let options = crate::report::Options::default();
        crate::event::complete(&mut event, &options);
        crate::report::Scrubber::default().event(&mut event);
        let error = failure.error();
        let place = error.place();
        let path = log::escape_controls(&failure.path());
        let method = failure.method();
        let at = crate::report::Timestamp::from_micros(micros(at));
        let mut text = format!("[{at}] ERROR in backstop: Exception on {path} [{method}]\n");
        let url = event
            .request
            .as_ref()
            .and_then(|request| request.url.clone())
            .unwrap_or(path.clone());
        let query = event
            .request
            .as_ref()
            .and_then(|request| request.query_string.as_ref()?.as_str().map(str::to_owned))
            .map_or_else(String::new, |query| format!("?{query}"));
        let client = failure
            .client_address()
            .map_or_else(|| "somebody".to_owned(), |address| address.to_string());
        // Writing to a string cannot fail.
        let _written = write!(
            text,
            "{client} requested {url}{query}\nrequest {}, made at {place}\n\n{}",
            failure.request_id(),
            stacktrace::text(&event, &stacktrace::Options::default()),
        );
        if text.len() > TEXT_BYTES_MAX {
            let end = text.floor_char_boundary(TEXT_BYTES_MAX);
            text.truncate(end);
            text.push_str("\n…\n");
        }
        let message = event
            .exception
            .last()
            .and_then(|exception| exception.value.clone())
            .unwrap_or_default();
        Self {
            fingerprint: hash_of(&(error.kind_name(), &place, failure.route())),
            title: format!(
                "{}: {} ({method} {})",
                error.kind_name(),
                log::escape_controls(&message),
                failure.route().unwrap_or(&path),
            ),
            text,
        }
    }
}

/// What happened and what has been told. Knows no clock: times are since its start.
struct Ledger {
    options: AdminOptions,
    problems: HashMap<u64, Problem>,
    /// When mails were sent in the last hour.
    sent: VecDeque<Duration>,
}

struct Problem {
    told: Option<Duration>,
    /// How often since it was told.
    count: u64,
    latest: Report,
}

impl Ledger {
    fn new(options: AdminOptions) -> Self {
        Self {
            options,
            problems: HashMap::new(),
            sent: VecDeque::new(),
        }
    }

    /// Notes a failure; gives it back if it is to be mailed at once.
    fn note(&mut self, mut report: Report, now: Duration) -> Option<Report> {
        let is_new = !self.problems.contains_key(&report.fingerprint);
        if is_new && self.problems.len() >= PROBLEMS_MAX {
            self.forget_quiet(now);
        }
        if is_new && self.problems.len() >= PROBLEMS_MAX {
            report.fingerprint = 0;
            report.title = "further problems".to_owned();
        }
        let may_send = self.may_send(now);
        let pause = self.options.pause;
        let problem = self
            .problems
            .entry(report.fingerprint)
            .or_insert_with(|| Problem {
                told: None,
                count: 0,
                latest: report.clone(),
            });
        let is_due = problem.told.is_none_or(|told| now >= told + pause);
        if is_due && may_send && problem.count == 0 {
            problem.told = Some(now);
            self.sent.push_back(now);
            return Some(report);
        }
        problem.count += 1;
        problem.latest = report;
        None
    }

    /// What has been counted and may be told now, most frequent first.
    fn due(&mut self, now: Duration) -> Vec<(u64, Report)> {
        if !self.may_send(now) {
            return Vec::new();
        }
        let pause = self.options.pause;
        self.take(
            |problem| problem.told.is_none_or(|told| now >= told + pause),
            now,
        )
    }

    /// Everything that has been counted, whenever it was told.
    fn rest(&mut self, now: Duration) -> Vec<(u64, Report)> {
        self.take(|_| true, now)
    }

    fn take(&mut self, wanted: impl Fn(&Problem) -> bool, now: Duration) -> Vec<(u64, Report)> {
        let mut due: Vec<(u64, Report)> = self
            .problems
            .values_mut()
            .filter(|problem| problem.count > 0 && wanted(problem))
            .map(|problem| {
                problem.told = Some(now);
                (std::mem::take(&mut problem.count), problem.latest.clone())
            })
            .collect();
        if !due.is_empty() {
            self.sent.push_back(now);
        }
        due.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.title.cmp(&b.1.title)));
        due
    }

    fn may_send(&mut self, now: Duration) -> bool {
        while self.sent.front().is_some_and(|sent| now >= *sent + HOUR) {
            self.sent.pop_front();
        }
        self.sent.len() < self.options.mails_per_hour
    }

    /// Forgets problems that were told and have not come again.
    fn forget_quiet(&mut self, now: Duration) {
        let pause = self.options.pause;
        self.problems.retain(|_, problem| {
            problem.count > 0 || problem.told.is_some_and(|told| now < told + pause)
        });
    }
}

/// Words a digest.
fn digest(due: &[(u64, Report)]) -> (String, String) {
    let total: u64 = due.iter().map(|(count, _)| count).sum();
    let problems = match due.len() {
        1 => "one problem".to_owned(),
        several => format!("{several} problems"),
    };
    let subject = format!("{total} more errors, {problems}");
    let mut text = String::from("Since the last mail about them:\n\n");
    for (count, report) in due {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{count:>6} × {}", report.title);
    }
    for (_, report) in due.iter().take(DIGEST_TEXTS_MAX) {
        let _written = write!(text, "\n\n{}\n{}", "-".repeat(72), report.text);
    }
    (subject, text)
}

struct Worker {
    mailer: Mailer,
    from: String,
    to: Vec<String>,
    ledger: Ledger,
    /// Mails that the server did not take yet, oldest first.
    unsent: VecDeque<Mail>,
    retry: Duration,
    retry_at: Option<Duration>,
    /// Mails that were given up since the last one that was sent.
    lost: u64,
    dropped: Arc<AtomicU64>,
    start: Instant,
}

/// How often the thread looks whether something is due.
const TICK: Duration = Duration::from_secs(5);

impl Worker {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let message = messages.recv_timeout(TICK);
            let now = self.start.elapsed();
            match message {
                Ok(Message::Failed(failure, at)) => self.note(Report::of(&failure, at), now),
                Ok(Message::Logged(report)) => self.note(report, now),
                Ok(Message::Flush(done)) => {
                    self.send_unsent();
                    // Nobody waits any more: nothing to tell.
                    let _gone = done.send(self.left());
                }
                Ok(Message::Finish(done)) => {
                    let left = self.finish();
                    let _gone = done.send(left);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tick(now);
        }
        self.finish().tell();
    }

    /// The program ends: what was only counted is told now.
    fn finish(&mut self) -> Left {
        let rest = self.ledger.rest(self.start.elapsed());
        self.send_digest(&rest);
        self.send_unsent();
        self.left()
    }

    fn left(&self) -> Left {
        Left {
            mails: self.unsent.len() as u64 + self.lost,
            errors: self.dropped.load(Ordering::Relaxed),
        }
    }

    fn note(&mut self, report: Report, now: Duration) {
        if let Some(report) = self.ledger.note(report, now) {
            let subject = self.ledger.options.subject.clone();
            self.post(subject, report.text);
        }
    }

    fn tick(&mut self, now: Duration) {
        let due = self.ledger.due(now);
        self.send_digest(&due);
        if self.retry_at.is_some_and(|at| now >= at) {
            self.send_unsent();
        }
    }

    fn send_digest(&mut self, due: &[(u64, Report)]) {
        if !due.is_empty() {
            let (subject, text) = digest(due);
            let subject = format!("{}: {subject}", self.ledger.options.subject);
            self.post(subject, text);
        }
    }

    /// Queues a mail, with what was lost before it, and tries to send.
    fn post(&mut self, subject: String, mut text: String) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let lost = std::mem::take(&mut self.lost);
        if dropped + lost > 0 {
            // Writing to a string cannot fail.
            let _written = write!(
                text,
                "\n\nNot in any mail: {dropped} errors that came too fast, {lost} mails that could not be sent.\n"
            );
        }
        if self.unsent.len() >= UNSENT_MAX {
            self.unsent.pop_front();
            self.lost += 1;
        }
        self.unsent.push_back(Mail {
            from: self.from.clone(),
            to: self.to.clone(),
            subject,
            text,
            ..Mail::default()
        });
        if self.retry_at.is_none() {
            self.send_unsent();
        }
    }

    fn send_unsent(&mut self) {
        let waiting = self.unsent.len();
        while let Some(mail) = self.unsent.front_mut() {
            let mut delivered = false;
            let mut still_to = Vec::new();
            self.mailer.send_each(mail, |receiver, sent| match sent {
                Ok(()) => delivered = true,
                Err(error) if error.kind() == MailErrorKind::Unavailable => {
                    tracing::warn!(
                        target: "backstop::mail",
                        receiver,
                        %error,
                        waiting,
                        "a mail to administrators waits"
                    );
                    still_to.push(receiver.to_owned());
                }
                Err(error) => {
                    tracing::error!(
                        target: "backstop::mail",
                        receiver,
                        %error,
                        "a mail to an administrator was refused"
                    );
                }
            });
            if !still_to.is_empty() {
                // Who has it does not get it again.
                mail.to = still_to;
                self.retry_at = Some(self.start.elapsed() + self.retry);
                self.retry = (self.retry * 2).min(RETRY_MAX);
                return;
            }
            self.unsent.pop_front();
            if delivered {
                self.retry = RETRY_MIN;
                self.retry_at = None;
            } else {
                self.lost += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(fingerprint: u64) -> Report {
        Report {
            fingerprint,
            title: format!("problem {fingerprint}"),
            text: "text".to_owned(),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_problem_is_mailed_once_and_then_counted() {
        let mut ledger = Ledger::new(AdminOptions::default());
        assert!(ledger.note(report(1), seconds(0)).is_some());
        for second in 1..1000 {
            let now = Duration::from_millis(second);
            assert!(ledger.note(report(1), now).is_none());
            assert!(ledger.due(now).is_empty());
        }
        let due = ledger.due(seconds(15 * 60));
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].0, 999);
        assert!(ledger.due(seconds(15 * 60)).is_empty());
    }

    #[test]
    fn beyond_the_limit_everything_waits_for_the_digest() {
        let options = AdminOptions {
            mails_per_hour: 2,
            ..AdminOptions::default()
        };
        let mut ledger = Ledger::new(options);
        let mailed = (1..=5)
            .filter(|number| ledger.note(report(*number), seconds(0)).is_some())
            .count();
        assert_eq!(mailed, 2);
        assert!(ledger.due(seconds(3599)).is_empty());
        let due = ledger.due(seconds(3600));
        let (subject, text) = digest(&due);
        assert_eq!(subject, "3 more errors, 3 problems");
        assert!(text.contains("     1 × problem 3\n"), "{text}");
    }

    #[test]
    fn problems_beyond_the_limit_share_a_line() {
        let options = AdminOptions {
            mails_per_hour: 0,
            ..AdminOptions::default()
        };
        let mut ledger = Ledger::new(options);
        for number in 1..=PROBLEMS_MAX as u64 + 10 {
            ledger.note(report(number), seconds(0));
        }
        assert_eq!(ledger.problems.len(), PROBLEMS_MAX + 1);
        assert_eq!(ledger.problems[&0].count, 10);
    }

    #[test]
    fn flush_keeps_its_time_while_the_queue_is_full() {
        // Connections are made, but nobody says a word: the thread is stuck with its first mail.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let mailer = Mailer::smtp(&format!("smtp://127.0.0.1:{port}")).unwrap();
        let admins = Admins::new(mailer, "shop@example.com", ["ada@example.com"]);
        admins.send(Message::Logged(report(0)));
        let _stuck = silent.accept().unwrap();
        for number in 1..=QUEUE_MAX as u64 {
            admins.send(Message::Logged(report(number)));
        }
        assert!(!admins.flush(Duration::ZERO));
        // The thread has not moved: what is put now finds the queue as full as before.
        admins.send(Message::Logged(report(0)));
        assert_eq!(admins.thread.dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_was_counted_is_mailed_at_the_end() {
        let mailer = Mailer::memory();
        let admins = Admins::new(mailer.clone(), "shop@example.com", ["ada@example.com"]);
        for _ in 0..3 {
            admins.send(Message::Logged(report(1)));
        }
        assert!(admins.flush(Duration::from_secs(60)));
        assert_eq!(mailer.sent().len(), 1);
        let until = Instant::now() + Duration::from_secs(60);
        let left = admins.thread.ask(Message::Finish, until);
        assert_eq!(
            left,
            Some(Left {
                mails: 0,
                errors: 0
            })
        );
        let sent = mailer.sent();
        assert_eq!(sent.len(), 2);
        assert!(
            sent[1].contains("2 more errors, one problem"),
            "{}",
            sent[1]
        );
    }

    #[test]
    fn passwords_are_encoded_for_the_url() {
        assert_eq!(percent("a@b:c/d"), "a%40b%3Ac%2Fd");
    }
}
