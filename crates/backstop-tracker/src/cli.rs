//! The command line: what can be asked of the program, as types.
//!
//! Every option of `serve` can also be set in the environment (`BACKSTOP_…`) and, except for the
//! data directory itself and the file's own path, in `config.yaml` of the data directory; the command line wins over the environment, the environment over the
//! file. The names are a contract: scripts rely on them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXAMPLES_AND_EXIT_CODES: &str = "\
Examples:
  backstop demo
  backstop serve --data /var/lib/backstop
  backstop project create shop --data /var/lib/backstop

Exit codes:
  0  done
  1  it could not be done; the reason is on standard error
  2  the command line was not understood
  3  `check` found damage";

/// An error tracker in one process and one file. Any Sentry SDK can send to it.
#[derive(Debug, Parser)]
#[command(name = "backstop", version, max_term_width = 100, after_help = EXAMPLES_AND_EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Accept events, group them into issues, send mails and show the web pages
    #[command(after_help = "\
Examples:
  backstop serve --data /var/lib/backstop --listen 0.0.0.0:9000 \\
      --public-url https://errors.example.com --smtp smtps://user:password@mail.example.com
  BACKSTOP_DATA=/var/lib/backstop backstop serve

Prints `listening on http://…` when it accepts. SIGTERM and Ctrl-C finish what was begun and exit 0.")]
    Serve(ServeArgs),
    /// Start a tracker and a shop that fails in seven ways, and show where to look
    #[command(after_help = "\
Examples:
  backstop demo
  backstop demo --once --data /tmp/demo")]
    Demo(DemoArgs),
    /// Make and list projects
    #[command(
        subcommand,
        after_help = "\
Examples:
  backstop project create shop
  backstop project list --json"
    )]
    Project(ProjectCommand),
    /// Say which mails a project sends, and change it
    #[command(
        subcommand,
        after_help = "\
Examples:
  backstop alert list shop
  backstop alert add shop --events 20 --minutes 5
  backstop alert remove shop 3"
    )]
    Alert(AlertCommand),
    /// Say what became of everything that was sent
    #[command(after_help = "\
Examples:
  backstop outcomes
  backstop outcomes shop --days 7 --json")]
    Outcomes(OutcomesArgs),
    /// Make tokens for the web API
    #[command(
        subcommand,
        after_help = "\
Example:
  backstop token create --data /var/lib/backstop --scope event:read"
    )]
    Token(TokenCommand),
    /// Make users and one-time sign-in links
    #[command(
        subcommand,
        after_help = "\
Examples:
  backstop user create ada@example.com
  backstop user sign-in ada@example.com"
    )]
    User(UserCommand),
    /// Check pages, references, sums and every stored event, and mend what can be mended
    #[command(after_help = "\
Examples:
  backstop check --data /var/lib/backstop
  backstop check --data /var/lib/backstop --mend

Without --mend it only reads, and a server may go on running. Exits with 3 if anything is wrong.")]
    Check(CheckArgs),
    /// Copy the store into a new directory, also while a server runs
    #[command(after_help = "\
Example:
  backstop backup /var/lib/backstop /backup/backstop-2026-11-22

Has everything but config.yaml, which may hold the mail server's password: keep that yourself.")]
    Backup(CopyArgs),
    /// Bring a backup back into a directory that has no store
    #[command(after_help = "\
Example:
  backstop restore /backup/backstop-2026-11-22 /var/lib/backstop")]
    Restore(RestoreArgs),
    /// Group events from standard input, or show what another grouping would change
    #[command(after_help = "\
Examples:
  backstop group < events.jsonl
  backstop group --explain < events.jsonl
  backstop group --data /var/lib/backstop --project shop --fingerprint-rules new-rules.txt

Reads one event payload a line and writes {\"event_id\":…,\"group\":…} a line.
With --project it groups the stored events of a project again and shows which issues would merge and
split; nothing is changed, and a server may go on running.")]
    Group(GroupArgs),
    /// The shop of the demonstration
    #[command(hide = true)]
    DemoShop(DemoShopArgs),
}

/// Where the store is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Data {
    /// The data directory; `serve`, `demo` and `create` make it if it is missing
    #[arg(
        long,
        env = "BACKSTOP_DATA",
        value_name = "DIR",
        default_value = "backstop-data"
    )]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) data: Data,
    /// The address to listen on; port 0 takes a free one [default: 127.0.0.1:9000]
    #[arg(long, env = "BACKSTOP_LISTEN", value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// The mail server: smtp://host[:port], smtp://host?tls=required or smtps://user:password@host
    #[arg(
        long,
        env = "BACKSTOP_SMTP",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) smtp: Option<String>,
    /// Write mails as .eml files into this directory [default: DIR/mail without --smtp]
    #[arg(long, env = "BACKSTOP_MAIL_DIR", value_name = "DIR")]
    pub(crate) mail_dir: Option<PathBuf>,
    /// The sender of mails [default: backstop@ the host of the public URL]
    #[arg(long, env = "BACKSTOP_MAIL_FROM", value_name = "ADDRESS")]
    pub(crate) mail_from: Option<String>,
    /// Who gets mails while there is no user [default: root@localhost]
    #[arg(long, env = "BACKSTOP_MAIL_TO", value_name = "ADDRESS")]
    pub(crate) mail_to: Option<String>,
    /// The address under which people and clients reach the server [default: http://LISTEN]
    #[arg(long, env = "BACKSTOP_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Settings as YAML: the same names with `_` for `-` [default: DIR/config.yaml if it is there]
    #[arg(long, env = "BACKSTOP_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Let everything fail once, print the table and exit
    #[arg(long)]
    pub(crate) once: bool,
    /// Print the table as JSON
    #[arg(long, requires = "once")]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Make a project and print its DSN
    #[command(after_help = "\
Examples:
  backstop project create shop
  backstop project create shop --org acme --json
  backstop project create shop --id 4505 --key 0123456789abcdef0123456789abcdef

Give --id and --key to keep the DSN that your clients have. Works while a server runs on DIR.")]
    Create(ProjectCreateArgs),
    /// List the projects with their DSNs
    #[command(after_help = "\
Examples:
  backstop project list
  backstop project list --data /var/lib/backstop --json")]
    List(ListArgs),
    /// Show a project's quotas, filters, scrubbing and grouping rules, or replace them
    #[command(after_help = "\
Examples:
  backstop project settings shop
  backstop project settings shop --set '{\"quota\": {\"per_minute\": 600}, \"filter\": {\"localhost\": true}}'

What --set leaves out gets its default. It counts within a second or two, also in a running server.")]
    Settings(SettingsArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SettingsArgs {
    #[command(flatten)]
    pub(crate) named: Named,
    /// The new settings
    #[arg(long, value_name = "JSON")]
    pub(crate) set: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertCommand {
    /// List what a project sends mails about
    #[command(after_help = "\
Examples:
  backstop alert list shop
  backstop alert list shop --json")]
    List(AlertListArgs),
    /// Send mails about something more
    #[command(after_help = "\
Examples:
  backstop alert add shop --events 20 --minutes 5
  backstop alert add shop --new-issue

A threshold tells once, and again when its time has passed and there are still as many events.
It counts from the next event on, also in a running server.")]
    Add(AlertAddArgs),
    /// Send no more mails about something
    #[command(after_help = "\
Example:
  backstop alert remove shop 3

The number is the one that `backstop alert list` shows.")]
    Remove(AlertRemoveArgs),
}

/// One project.
#[derive(Debug, Clone, Args)]
pub(crate) struct Named {
    /// The project's name in URLs, or its number
    pub(crate) project: String,
    #[command(flatten)]
    pub(crate) data: Data,
    /// The organization it belongs to
    #[arg(long, value_name = "ORG", default_value = "main")]
    pub(crate) org: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AlertListArgs {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("about").required(true))]
pub(crate) struct AlertAddArgs {
    #[command(flatten)]
    pub(crate) named: Named,
    /// At least so many events of one issue …
    #[arg(long, value_name = "N", requires = "minutes", group = "about")]
    pub(crate) events: Option<u32>,
    /// … within so many minutes, at most 1440
    #[arg(long, value_name = "N", requires = "events", conflicts_with_all = ["new_issue", "regression"])]
    pub(crate) minutes: Option<u32>,
    /// An issue that was not there before
    #[arg(long, group = "about")]
    pub(crate) new_issue: bool,
    /// An event of an issue that was resolved
    #[arg(long, group = "about")]
    pub(crate) regression: bool,
    /// Print an object as in the list
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AlertRemoveArgs {
    #[command(flatten)]
    pub(crate) named: Named,
    /// The alert's number in the list
    #[arg(value_name = "NUMBER")]
    pub(crate) alert: i64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct OutcomesArgs {
    /// The project's name in URLs, or its number [default: all]
    pub(crate) project: Option<String>,
    #[command(flatten)]
    pub(crate) data: Data,
    /// The organization it belongs to
    #[arg(long, value_name = "ORG", default_value = "main")]
    pub(crate) org: String,
    /// How many days back
    #[arg(long, value_name = "N", default_value_t = 14)]
    pub(crate) days: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ProjectCreateArgs {
    /// What people call it, usually the program's name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) data: Data,
    /// The organization it belongs to [default: main]
    #[arg(long, value_name = "ORG")]
    pub(crate) org: Option<String>,
    /// The numeric id in the DSN; the next free one if not given
    #[arg(long, value_name = "N")]
    pub(crate) id: Option<u64>,
    /// The public key in the DSN; random if not given
    #[arg(long, value_name = "32HEX")]
    pub(crate) key: Option<String>,
    /// The secret key that old clients have in their DSN
    #[arg(long, value_name = "32HEX")]
    pub(crate) secret: Option<String>,
    /// The address in the printed DSN, if no server has run on DIR yet
    #[arg(long, env = "BACKSTOP_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Print an object with id, slug, org, dsn
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Mend what can be mended
    #[arg(long)]
    pub(crate) mend: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct GroupArgs {
    /// Add title, reason and hashes to every line
    #[arg(long)]
    pub(crate) explain: bool,
    /// The version of the grouping algorithm [default: the newest]
    #[arg(long, value_name = "N")]
    pub(crate) version: Option<u16>,
    /// Fingerprint rules, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) fingerprint_rules: Option<PathBuf>,
    /// Stack-trace rules, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) stack_rules: Option<PathBuf>,
    /// Group the stored events of this project again: its slug, or ORGANIZATION/PROJECT
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Option<String>,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print JSON, with --project
    #[arg(long, requires = "project")]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CopyArgs {
    /// The directory with the store
    #[arg(value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The directory for the backup; made if it is missing
    #[arg(value_name = "TARGET")]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreArgs {
    /// The directory with the backup
    #[arg(value_name = "BACKUP")]
    pub(crate) from: PathBuf,
    /// The directory for the store; it has none yet
    #[arg(value_name = "DIR")]
    pub(crate) to: PathBuf,
}

/// Something that lists.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a bearer token for the web API and print it; it cannot be shown again
    #[command(after_help = "\
Examples:
  backstop token create --data /var/lib/backstop
  curl -H \"Authorization: Bearer $(backstop token create)\" http://127.0.0.1:9000/api/0/")]
    Create(TokenCreateArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TokenCreateArgs {
    #[command(flatten)]
    pub(crate) data: Data,
    /// What the token may do: `event:read` lets it read, `event:write` also change; give it
    /// more than once for more [default: everything]
    #[arg(long, value_name = "SCOPE", value_parser = scope)]
    pub(crate) scope: Vec<String>,
    /// Print an object with token and scopes
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user and print a link that signs in once
    #[command(after_help = "\
Example:
  backstop user create ada@example.com")]
    Create(UserArgs),
    /// Print a new link that signs an existing user in once
    #[command(after_help = "\
Examples:
  backstop user sign-in ada@example.com
  backstop user sign-in --forget-password ada@example.com")]
    SignIn(SignInArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UserArgs {
    /// The e-mail address; alerts go there
    pub(crate) email: String,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Print an object with email and link
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SignInArgs {
    #[command(flatten)]
    pub(crate) user: UserArgs,
    /// Take the password away and end every session, so that a new password can be set
    #[arg(long)]
    pub(crate) forget_password: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DemoShopArgs {
    #[arg(long)]
    pub(crate) dsn: String,
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    #[arg(long)]
    pub(crate) database: PathBuf,
    #[arg(long)]
    pub(crate) invoices: PathBuf,
    #[arg(long)]
    pub(crate) pictures: PathBuf,
    #[arg(long)]
    pub(crate) payments: String,
    #[arg(long)]
    pub(crate) stock: SocketAddr,
}

/// Scopes as Sentry names them: <https://docs.sentry.io/api/permissions/>.
fn scope(text: &str) -> Result<String, String> {
    const THINGS: [&str; 7] = [
        "alerts", "event", "member", "org", "project", "release", "team",
    ];
    const WHAT: [&str; 3] = ["read", "write", "admin"];
    match text.split_once(':') {
        Some((thing, what)) if THINGS.contains(&thing) && WHAT.contains(&what) => {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "a scope is one of {} with `:read`, `:write` or `:admin`, for example `event:read`",
            THINGS.join(", ")
        )),
    }
}

impl ServeArgs {
    /// The options of a server of which only the data directory is given.
    pub(crate) fn of(data: Data) -> ServeArgs {
        ServeArgs {
            data,
            listen: None,
            smtp: None,
            mail_dir: None,
            mail_from: None,
            mail_to: None,
            public_url: None,
            config: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
