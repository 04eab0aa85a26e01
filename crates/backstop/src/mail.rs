//! Mail: one message type and the ways it can leave the program.
//!
//! A [`Mailer`] takes a [`Mail`] and returns when the message is with the server, in a file or in
//! memory; it never queues and never retries, that is its caller's job.
//! It blocks: call it from a thread of your own or from `spawn_blocking`.

#[cfg(feature = "web")]
mod admins;

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Message, SmtpTransport, Transport};

#[cfg(feature = "web")]
pub use admins::{AdminOptions, Admins, LogLayer, finish};

/// How long one SMTP command may take; a dead server must not hold the sender for minutes.
const SMTP_TIMEOUT: Duration = Duration::from_secs(10);

/// Subjects longer than this are cut; RFC 5322 allows 998, but nobody reads more.
const SUBJECT_CHARS_MAX: usize = 200;

/// One message to people.
///
/// # Example
///
/// ```
/// use backstop::mail::{Mail, Mailer};
///
/// let mailer = Mailer::memory();
/// mailer.send(&Mail {
///     from: "shop@example.com".into(),
///     to: vec!["Ada <ada@example.com>".into()],
///     subject: "ZeroDivisionError in /checkout".into(),
///     text: "It broke.\n".into(),
///     ..Mail::default()
/// })?;
/// let sent = mailer.sent();
/// assert_eq!(sent.len(), 1);
/// assert!(sent[0].contains("Subject: ZeroDivisionError in /checkout"));
/// # Ok::<(), backstop::mail::MailError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mail {
    /// The sender, `name@host` or `Name <name@host>`.
    pub from: String,
    /// The receivers, each like `from`; at least one.
    pub to: Vec<String>,
    /// The subject; line breaks become spaces.
    pub subject: String,
    /// The body as plain text.
    pub text: String,
    /// The body as HTML, sent beside the text.
    pub html: Option<String>,
    /// The message's id without angle brackets, so that a mail that is sent again is the same mail.
    pub message_id: Option<String>,
    /// The id of the first mail of the thread, without angle brackets.
    pub thread_id: Option<String>,
}

/// Why a mail did not leave.
#[derive(Debug)]
pub struct MailError {
    kind: MailErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What kind of trouble a [`MailError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailErrorKind {
    /// The mail itself cannot be sent (an address is wrong): trying again does not help.
    Refused,
    /// The server or the disk could not take it: trying again later may help.
    Unavailable,
    /// The mailer's own settings are wrong.
    Configuration,
}

/// A way for mail to leave the program.
///
/// Cloning is cheap; clones share the connection and the memory.
#[derive(Clone)]
pub struct Mailer(Way);

#[derive(Clone)]
enum Way {
    Smtp(SmtpTransport, String),
    Directory(PathBuf),
    Memory(Arc<Mutex<Vec<String>>>),
}

impl Mailer {
    /// Sends by SMTP to the server named by a URL.
    ///
    /// `smtp://host:25` is plain, `smtp://host?tls=required` demands STARTTLS,
    /// `smtps://user:password@host` is TLS from the start.
    ///
    /// # Errors
    ///
    /// [`MailErrorKind::Configuration`] if the URL cannot be understood; the message does not
    /// repeat the URL, because it may hold a password.
    pub fn smtp(url: &str) -> Result<Mailer, MailError> {
        let builder = SmtpTransport::from_url(url).map_err(|error| {
            MailError::new(
                MailErrorKind::Configuration,
                "invalid SMTP URL: expected smtp://host[:port], smtp://host?tls=required \
                 or smtps://user:password@host",
            )
            .with_source(error)
        })?;
        let host = url.rsplit('@').next().unwrap_or(url);
        let host = host
            .trim_start_matches("smtp://")
            .trim_start_matches("smtps://")
            .to_owned();
        Ok(Mailer(Way::Smtp(
            builder.timeout(Some(SMTP_TIMEOUT)).build(),
            host,
        )))
    }

    /// Writes each mail as an `.eml` file into a directory, which is made when it is missing.
    pub fn directory(path: impl Into<PathBuf>) -> Mailer {
        Mailer(Way::Directory(path.into()))
    }

    /// Keeps mails in memory, for tests; see [`Mailer::sent`].
    pub fn memory() -> Mailer {
        Mailer(Way::Memory(Arc::default()))
    }

    /// Sends one mail and returns when it was taken.
    ///
    /// # Errors
    ///
    /// - [`MailErrorKind::Refused`]: an address is malformed, there is no receiver, or the server
    ///   said no for good (5xx).
    /// - [`MailErrorKind::Unavailable`]: the server or the disk could not take it now.
    pub fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let message = mail.message()?;
        match &self.0 {
            Way::Smtp(transport, host) => match transport.send(&message) {
                Ok(_) => Ok(()),
                Err(error) => {
                    let kind = if error.is_permanent() {
                        MailErrorKind::Refused
                    } else {
                        MailErrorKind::Unavailable
                    };
                    let message = format!("mail server {host} did not take the mail");
                    Err(MailError::new(kind, message).with_source(error))
                }
            },
            Way::Directory(directory) => write_eml(directory, mail, &message.formatted()),
            Way::Memory(sent) => {
                let text = String::from_utf8_lossy(&message.formatted()).into_owned();
                sent.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(text);
                Ok(())
            }
        }
    }

    /// Sends one mail to each of its receivers by itself, and tells of each what became of it.
    ///
    /// One who is refused keeps nobody else from getting the mail.
    /// A mail server gets one mail per receiver, under the same message id; a directory and the
    /// memory get one for all whose addresses are well formed.
    /// A server that does not answer is not asked again for the next receiver.
    pub fn send_each(&self, mail: &Mail, mut told: impl FnMut(&str, Result<(), MailError>)) {
        let only = |to: Vec<String>| Mail { to, ..mail.clone() };
        if !matches!(self.0, Way::Smtp(..)) {
            let well_formed = mail.to.iter().filter(|receiver| mailbox(receiver).is_ok());
            let well_formed: Vec<String> = well_formed.cloned().collect();
            let sent = match well_formed.is_empty() {
                true => Ok(()),
                false => self.send(&only(well_formed)),
            };
            for receiver in &mail.to {
                let refused = mailbox(receiver).map(|_| ());
                told(
                    receiver,
                    refused.and_then(|()| sent.as_ref().copied().map_err(MailError::again)),
                );
            }
            return;
        }
        let mut away: Option<MailError> = None;
        for receiver in &mail.to {
            let sent = match &away {
                Some(error) => Err(error.again()),
                None => self.send(&only(vec![receiver.clone()])),
            };
            if let Err(error) = &sent
                && error.kind == MailErrorKind::Unavailable
                && !error.is_answer()
            {
                away = Some(error.again());
            }
            told(receiver, sent);
        }
    }

    /// Returns what a [`Mailer::memory`] was given so far, as sent; empty for other mailers.
    pub fn sent(&self) -> Vec<String> {
        match &self.0 {
            Way::Memory(sent) => sent.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Way::Smtp(..) | Way::Directory(_) => Vec::new(),
        }
    }
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailer({self})")
    }
}

/// Where the mail goes, without credentials.
impl fmt::Display for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Way::Smtp(_, host) => write!(f, "SMTP server {host}"),
            Way::Directory(path) => write!(f, "{}", path.display()),
            Way::Memory(_) => f.write_str("memory"),
        }
    }
}

impl Mail {
    fn message(&self) -> Result<Message, MailError> {
        let mut builder = Message::builder()
            .from(mailbox(&self.from)?)
            .subject(one_line(&self.subject))
            .message_id(self.message_id.as_ref().map(|id| format!("<{id}>")));
        if let Some(thread) = &self.thread_id {
            builder = builder
                .in_reply_to(format!("<{thread}>"))
                .references(format!("<{thread}>"));
        }
        for receiver in &self.to {
            builder = builder.to(mailbox(receiver)?);
        }
        // RFC 3834: tells vacation responders and ticket systems not to answer.
        builder = builder.raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".into(),
        ));
        let message = match &self.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(
                self.text.clone(),
                html.clone(),
            )),
            None => builder.singlepart(
                SinglePart::builder()
                    .header(ContentType::TEXT_PLAIN)
                    .body(self.text.clone()),
            ),
        };
        message.map_err(|error| {
            MailError::new(MailErrorKind::Refused, "the mail cannot be built").with_source(error)
        })
    }
}

fn mailbox(address: &str) -> Result<Mailbox, MailError> {
    address
        .parse()
        .map_err(|error: lettre::address::AddressError| {
            MailError::new(
                MailErrorKind::Refused,
                format!("invalid mail address {address:?}"),
            )
            .with_source(error)
        })
}

/// A line break in a subject would start a new header.
fn one_line(subject: &str) -> String {
    let subject: String = subject
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SUBJECT_CHARS_MAX)
        .collect();
    subject.trim().to_owned()
}

/// Writes to a hidden name first, so that a reader never sees half a mail.
fn write_eml(directory: &Path, mail: &Mail, bytes: &[u8]) -> Result<(), MailError> {
    let write = || {
        fs::create_dir_all(directory)?;
        let name = file_name(directory, mail)?;
        let hidden = directory.join(format!(".{name}.part"));
        let mut options = fs::File::options();
        options.write(true).create(true).truncate(true);
        // A mail has what the application was doing; other users of the machine need not see it.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&hidden)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&hidden, directory.join(name))
    };
    write().map_err(|error: std::io::Error| {
        MailError::new(
            MailErrorKind::Unavailable,
            format!("cannot write a mail into {}", directory.display()),
        )
        .with_source(error)
    })
}

/// `0007-zerodivisionerror-in-checkout.eml`: in order, and readable in a listing.
///
/// A mail with a message id always gets the same name, so that one that is sent again after a
/// crash does not appear twice.
fn file_name(directory: &Path, mail: &Mail) -> std::io::Result<String> {
    let slug: String = mail
        .subject
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(60)
        .collect();
    let slug: Vec<&str> = slug.split('-').filter(|part| !part.is_empty()).collect();
    let slug = slug.join("-");
    let id = mail.message_id.as_deref().unwrap_or_default();
    let id: String = id
        .split('@')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .take(80)
        .collect();
    let id = id.trim_matches('.');
    let mut last = 0;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let Some((number, rest)) = name.split_once('-') else {
            continue;
        };
        if !id.is_empty()
            && rest
                .strip_suffix(".eml")
                .is_some_and(|rest| rest.ends_with(id))
        {
            return Ok(name.into_owned());
        }
        last = last.max(number.parse().unwrap_or(0));
    }
    let dash = if slug.is_empty() || id.is_empty() {
        ""
    } else {
        "-"
    };
    Ok(format!("{:04}-{slug}{dash}{id}.eml", last + 1))
}

impl MailError {
    fn new(kind: MailErrorKind, message: impl Into<String>) -> MailError {
        MailError {
            kind,
            message: message.into(),
            source: None,
        }
    }

    fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> MailError {
        self.source = Some(source.into());
        self
    }

    /// The same once more, for somebody else whom it concerns.
    fn again(&self) -> MailError {
        MailError {
            kind: self.kind,
            message: self.message.clone(),
            source: self.source.as_ref().map(|source| source.to_string().into()),
        }
    }

    /// Says whether a mail server answered: then it may answer otherwise to the next mail.
    fn is_answer(&self) -> bool {
        let source = self.source.as_ref();
        source
            .and_then(|source| source.downcast_ref::<lettre::transport::smtp::Error>())
            .is_some_and(|error| error.is_transient() || error.is_permanent())
    }

    /// Says whether trying again may help, and who is at fault.
    pub fn kind(&self) -> MailErrorKind {
        self.kind
    }
}

impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MailError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail() -> Mail {
        Mail {
            from: "Backstop <backstop@example.com>".into(),
            to: vec!["ada@example.com".into()],
            subject: "broke\r\nBcc: everybody@example.com".into(),
            text: "It broke.".into(),
            message_id: Some("issue-1.new@example.com".into()),
            ..Mail::default()
        }
    }

    #[test]
    fn a_subject_cannot_smuggle_headers() {
        let mailer = Mailer::memory();
        mailer.send(&mail()).unwrap();
        assert!(mailer.sent()[0].contains("Subject: broke  Bcc: everybody@example.com\r\n"));
        assert!(!mailer.sent()[0].contains("\r\nBcc:"));
    }

    #[test]
    fn a_mail_sent_again_is_one_file() {
        let directory = std::env::temp_dir().join(format!("backstop-mail-{}", std::process::id()));
        let mailer = Mailer::directory(&directory);
        mailer.send(&mail()).unwrap();
        mailer.send(&mail()).unwrap();
        let other = Mail {
            message_id: Some("issue-2.new@example.com".into()),
            ..mail()
        };
        mailer.send(&other).unwrap();
        let mut names: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mail = directory.join(&names[0]).metadata().unwrap();
            assert_eq!(mail.permissions().mode() & 0o777, 0o600);
        }
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(
            names,
            [
                "0001-broke-bcc-everybody-example-com-issue-1.new.eml",
                "0002-broke-bcc-everybody-example-com-issue-2.new.eml"
            ]
        );
    }

    #[test]
    fn a_wrong_address_is_refused_and_named() {
        let error = Mailer::memory()
            .send(&Mail {
                to: vec!["nobody".into()],
                ..mail()
            })
            .unwrap_err();
        assert_eq!(error.kind(), MailErrorKind::Refused);
        assert_eq!(error.to_string(), "invalid mail address \"nobody\"");
        let error = Mailer::memory()
            .send(&Mail {
                to: vec![],
                ..mail()
            })
            .unwrap_err();
        assert_eq!(error.kind(), MailErrorKind::Refused);
    }

    /// A mail server that refuses the receivers it is told to; it returns what it took.
    fn smtp_server(refuses: &'static str) -> (Mailer, std::thread::JoinHandle<Vec<String>>) {
        use std::io::{BufRead, BufReader};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let took = std::thread::spawn(move || {
            let mut took = Vec::new();
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
                connection.write_all(b"220 test\r\n").unwrap();
                let mut to = String::new();
                while let Some(Ok(line)) = lines.next() {
                    let answer = match line.split(':').next().unwrap_or_default() {
                        "RCPT TO" if line.contains(refuses) => "550 no such user",
                        "RCPT TO" => {
                            to.push_str(&line);
                            "250 ok"
                        }
                        "DATA" => {
                            connection.write_all(b"354 go on\r\n").unwrap();
                            let mail = lines.by_ref().map(Result::unwrap);
                            let mail: Vec<String> = mail.take_while(|line| line != ".").collect();
                            took.push(format!("{to}\n{}", mail.join("\n")));
                            to.clear();
                            "250 taken"
                        }
                        "END" => return took,
                        "QUIT" => "221 bye",
                        _ => "250 ok",
                    };
                    connection
                        .write_all(format!("{answer}\r\n").as_bytes())
                        .unwrap();
                }
            }
            took
        });
        (Mailer::smtp(&format!("smtp://{address}")).unwrap(), took)
    }

    #[test]
    fn one_refused_receiver_keeps_nobody_else_from_getting_the_mail() {
        let (mailer, took) = smtp_server("gone@");
        let to = [
            "ada@example.com",
            "gone@example.com",
            "x@y@z",
            "bob@example.com",
        ];
        let mail = Mail {
            to: to.map(str::to_owned).to_vec(),
            ..mail()
        };
        let mut outcomes = Vec::new();
        mailer.send_each(&mail, |receiver, sent| {
            outcomes.push((receiver.to_owned(), sent.map_err(|error| error.kind())));
        });
        let refused = Err(MailErrorKind::Refused);
        let expected = [Ok(()), refused, refused, Ok(())];
        assert_eq!(
            outcomes,
            to.iter()
                .map(|to| (*to).to_owned())
                .zip(expected)
                .collect::<Vec<_>>()
        );
        let Way::Smtp(_, host) = &mailer.0 else {
            unreachable!()
        };
        let mut last = std::net::TcpStream::connect(host).unwrap();
        last.write_all(b"END\r\n").unwrap();
        let took = took.join().unwrap();
        assert_eq!(took.len(), 2, "{took:?}");
        for (mail, to) in took.iter().zip(["ada@example.com", "bob@example.com"]) {
            assert!(mail.starts_with(&format!("RCPT TO:<{to}>\n")), "{mail}");
            assert!(
                mail.contains("Message-ID: <issue-1.new@example.com>"),
                "{mail}"
            );
        }

        // In a directory and in memory it is one mail.
        let memory = Mailer::memory();
        let mut refused = Vec::new();
        memory.send_each(&mail, |receiver, sent| {
            if sent.is_err() {
                refused.push(receiver.to_owned());
            }
        });
        assert_eq!(
            (refused, memory.sent().len()),
            (vec!["x@y@z".to_owned()], 1)
        );
    }

    #[test]
    fn a_password_in_the_url_is_never_shown() {
        let mailer = Mailer::smtp("smtps://ada:hunter2@mail.example.com").unwrap();
        assert_eq!(mailer.to_string(), "SMTP server mail.example.com");
        let error = Mailer::smtp("gopher://ada:hunter2@mail.example.com").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
