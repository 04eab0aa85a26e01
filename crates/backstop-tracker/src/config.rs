//! The settings of a server: command line over environment over `config.yaml` over defaults.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lettre::message::Mailbox;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::ServeArgs;

/// Where a server listens when nobody says otherwise; the port is the one of self-hosted Sentry.
pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:9000";

/// Who gets mails while there is no user: by tradition the operator reads this mailbox.
pub(crate) const MAIL_TO_DEFAULT: &str = "root@localhost";

/// Everything that a server needs to know before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// The address to listen on.
    pub(crate) listen: String,
    /// The mail server, if any.
    pub(crate) smtp: Option<String>,
    /// Where mails go as files, if there is no mail server.
    pub(crate) mail_dir: PathBuf,
    /// The sender of mails; `None` means `backstop@` the public host.
    pub(crate) mail_from: Option<String>,
    /// Who gets mails while there is no user.
    pub(crate) mail_to: String,
    /// The address for links and DSNs, without a slash at the end; `None` means the listening one.
    pub(crate) public_url: Option<String>,
}

/// `config.yaml`, with the names of the command line and `_` for `-`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    listen: Option<String>,
    smtp: Option<String>,
    mail_dir: Option<PathBuf>,
    mail_from: Option<String>,
    mail_to: Option<String>,
    public_url: Option<String>,
}

impl Config {
    /// Puts the settings together.
    ///
    /// # Errors
    ///
    /// - The file named by `--config` cannot be read, or it or `DIR/config.yaml` is not YAML with
    ///   known names only.
    /// - The public URL does not begin with `http://` or `https://`.
    /// - The sender's or the receiver's address is none.
    pub(crate) fn load(args: &ServeArgs) -> Result<Config> {
        let data = args.data.data.clone();
        let file = match &args.config {
            Some(path) => read(path)?,
            None => {
                let path = data.join("config.yaml");
                if path.exists() {
                    read(&path)?
                } else {
                    File::default()
                }
            }
        };
        let public_url = args.public_url.clone().or(file.public_url);
        let config = Config {
            listen: args
                .listen
                .clone()
                .or(file.listen)
                .unwrap_or_else(|| LISTEN_DEFAULT.into()),
            smtp: args
                .smtp
                .clone()
                .or(file.smtp)
                .filter(|url| !url.is_empty()),
            mail_dir: args
                .mail_dir
                .clone()
                .or(file.mail_dir)
                .unwrap_or_else(|| data.join("mail")),
            mail_from: args
                .mail_from
                .clone()
                .or(file.mail_from)
                .filter(|address| !address.is_empty()),
            mail_to: args
                .mail_to
                .clone()
                .or(file.mail_to)
                .filter(|address| !address.is_empty())
                .unwrap_or_else(|| MAIL_TO_DEFAULT.into()),
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            data,
        };
        if let Some(url) = &config.public_url {
            check_public_url(url)?;
        }
        for (option, address) in [
            ("--mail-from", config.mail_from.as_deref()),
            ("--mail-to", Some(config.mail_to.as_str())),
        ] {
            if let Some(address) = address
                && let Err(error) = address.parse::<Mailbox>()
            {
                bail!(
                    "invalid {option} {address:?}: {error}; it is an address like \
                     ada@example.com or \"Ada <ada@example.com>\""
                );
            }
        }
        Ok(config)
    }
}

/// Refuses a public URL that no client could send to.
///
/// # Errors
///
/// If it does not begin with `http://` or `https://` and a host.
pub(crate) fn check_public_url(url: &str) -> Result<()> {
    if host_of(url).is_none() {
        bail!("invalid public URL {url:?}: it must begin with http:// or https:// and a host");
    }
    Ok(())
}

/// Returns `host[:port]` of a URL that begins with `http://` or `https://`.
pub(crate) fn host_of(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    (!host.is_empty()).then_some(host)
}

fn read(path: &Path) -> Result<File> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the settings in {}", path.display()))?;
    let settings = match backstop::config::value_of_yaml(&text) {
        Ok(Value::Null) => return Ok(File::default()),
        Ok(settings) => settings,
        Err(error) => bail!("cannot understand {}: {error}", path.display()),
    };
    serde_json::from_value(settings)
        .with_context(|| format!("cannot understand {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &[&str]) -> ServeArgs {
        let line = ["backstop", "serve"].iter().chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Serve(args) => args,
            command => panic!("{command:?}"),
        }
    }

    fn file(text: &str) -> tempfile::Path {
        tempfile::Path::new(text)
    }

    /// A file that is removed when the test ends.
    mod tempfile {
        use std::sync::atomic::{AtomicU32, Ordering};

        pub(super) struct Path(pub(super) std::path::PathBuf);

        static NEXT: AtomicU32 = AtomicU32::new(0);

        impl Path {
            pub(super) fn new(text: &str) -> Path {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let name = format!("backstop-config-{}-{number}.yaml", std::process::id());
                let path = std::env::temp_dir().join(name);
                std::fs::write(&path, text).unwrap();
                Path(path)
            }
        }

        impl Drop for Path {
            fn drop(&mut self) {
                let _ = std::fs::remove_file(&self.0); // The temporary directory is cleaned anyway.
            }
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = file("listen: 0.0.0.0:80\npublic_url: https://errors.example.com/\n");
        let path = file.0.to_str().unwrap();
        let config = Config::load(&args(&["--config", path, "--listen", "127.0.0.1:0"])).unwrap();
        assert_eq!(config.listen, "127.0.0.1:0");
        assert_eq!(
            config.public_url.as_deref(),
            Some("https://errors.example.com")
        );
        assert_eq!(config.mail_to, MAIL_TO_DEFAULT);
    }

    #[test]
    fn a_misspelt_name_is_an_error_that_names_it() {
        let file = file("listne: 0.0.0.0:80\n");
        let error = Config::load(&args(&["--config", file.0.to_str().unwrap()])).unwrap_err();
        assert!(format!("{error:#}").contains("listne"), "{error:#}");
    }

    #[test]
    fn a_mail_address_that_is_none_is_told_at_the_start_and_not_with_the_first_mail() {
        for option in ["--mail-from", "--mail-to"] {
            let error = Config::load(&args(&[option, "ada at home", "--data", "/nowhere"]));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
            assert!(error.contains("ada at home"), "{error}");
            let named = "Ada <ada@example.com>";
            Config::load(&args(&[option, named, "--data", "/nowhere"])).unwrap();
        }
    }

    #[test]
    fn a_public_url_needs_scheme_and_host() {
        for url in ["errors.example.com", "https://", "ftp://x"] {
            let error =
                Config::load(&args(&["--public-url", url, "--data", "/nowhere"])).unwrap_err();
            assert!(error.to_string().contains("http://"), "{error}");
        }
        assert_eq!(
            host_of("https://errors.example.com:8443/sub"),
            Some("errors.example.com:8443")
        );
    }
}
