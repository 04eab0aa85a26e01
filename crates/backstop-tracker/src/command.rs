//! What each command does.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use backstop_protocol::Timestamp;
use serde_json::json;

use crate::app::now;
use crate::cli::{
    AlertAddArgs, AlertCommand, AlertListArgs, AlertRemoveArgs, CheckArgs, Command, CopyArgs, Data,
    GroupArgs, ListArgs, Named, OutcomesArgs, ProjectCommand, ProjectCreateArgs, RestoreArgs,
    SettingsArgs, SignInArgs, TokenCommand, TokenCreateArgs, UserArgs, UserCommand,
};
use crate::config::{LISTEN_DEFAULT, check_public_url};
use crate::grouping::{self, Rules};
use crate::model::{AlertKind, AlertRule, Key, NewProject, Project, ProjectId, User};
use crate::serve;
use crate::store::{self, Store};
use crate::web::dsn;

/// How long a one-time sign-in link works.
const LINK_SECONDS: i64 = 24 * 3_600;

/// Where the address of the server that ran last is noted in the data directory.
const ADDRESS_FILE: &str = "public-url";

/// Does what the command line says.
///
/// # Errors
///
/// Whatever kept it from being done, with the reasons as its sources.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => crate::demo::run(&args),
        Command::DemoShop(args) => crate::demo::run_shop(args),
        Command::Project(ProjectCommand::Create(args)) => project_create(&args),
        Command::Project(ProjectCommand::List(args)) => project_list(&args),
        Command::Project(ProjectCommand::Settings(args)) => project_settings(&args),
        Command::Alert(AlertCommand::List(args)) => alert_list(&args),
        Command::Alert(AlertCommand::Add(args)) => alert_add(&args),
        Command::Alert(AlertCommand::Remove(args)) => alert_remove(&args),
        Command::Outcomes(args) => outcomes(&args),
        Command::Token(TokenCommand::Create(args)) => token_create(&args),
        Command::User(UserCommand::Create(args)) => user_create(&args),
        Command::User(UserCommand::SignIn(args)) => sign_in(&args),
        Command::Check(args) => check(&args),
        Command::Backup(args) => backup(&args),
        Command::Restore(args) => restore(&args),
        Command::Group(args) => group(&args),
    }
}

fn project_settings(args: &SettingsArgs) -> Result<ExitCode> {
    let (store, project) = open_project(&args.named)?;
    print(crate::ingest::command::settings(
        &store,
        &project,
        args.set.as_deref(),
    )?)
}

/// Opens the store of one project that is there.
fn open_project(named: &Named) -> Result<(Store, Project)> {
    let store = open_existing(&named.data)?;
    let project = find_project(&store, &named.org, &named.project)?;
    Ok((store, project))
}

fn find_project(store: &Store, org: &str, name: &str) -> Result<Project> {
    // As `project list` shows it.
    let (org, name) = name.split_once('/').unwrap_or((org, name));
    store.project_by_slug(org, name).with_context(|| {
        format!(
            "cannot find the project {org}/{name}: `backstop project list` shows those there are, \
             --org names another organization"
        )
    })
}

fn alert_list(args: &AlertListArgs) -> Result<ExitCode> {
    let (store, project) = open_project(&args.named)?;
    let rules = store.alert_rules(project.id)?;
    if args.json {
        return print(json!(rules.iter().map(alert_json).collect::<Vec<_>>()));
    }
    if rules.is_empty() && std::io::stderr().is_terminal() {
        eprintln!("The project sends no mails: `backstop alert add --help` says how to change it.");
    }
    for rule in &rules {
        let off = if rule.active { "" } else { " (switched off)" };
        print(format_args!("{}\t{}{off}", rule.id, rule.kind))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn alert_add(args: &AlertAddArgs) -> Result<ExitCode> {
    let kind = match (args.events, args.minutes) {
        (Some(events), Some(minutes)) => AlertKind::Frequency { events, minutes },
        _ if args.regression => AlertKind::Regression,
        _ => AlertKind::NewIssue,
    };
    let (store, project) = open_project(&args.named)?;
    let rule = store
        .add_alert_rule(project.id, kind)
        .with_context(|| format!("cannot add the alert on {kind}"))?;
    match args.json {
        true => print(alert_json(&rule)),
        false => print(format_args!("{}\t{}", rule.id, rule.kind)),
    }
}

fn alert_remove(args: &AlertRemoveArgs) -> Result<ExitCode> {
    let (store, project) = open_project(&args.named)?;
    store
        .delete_alert_rule(project.id, args.alert)
        .with_context(|| {
            let project = &args.named.project;
            format!(
                "cannot remove the alert {}: `backstop alert list {project}` shows those there are",
                args.alert
            )
        })?;
    Ok(ExitCode::SUCCESS)
}

fn alert_json(rule: &AlertRule) -> serde_json::Value {
    let mut object = json!({ "id": rule.id, "active": rule.active });
    match rule.kind {
        AlertKind::NewIssue => object["kind"] = "new_issue".into(),
        AlertKind::Regression => object["kind"] = "regression".into(),
        AlertKind::Frequency { events, minutes } => {
            object["kind"] = "frequency".into();
            object["events"] = events.into();
            object["minutes"] = minutes.into();
        }
    }
    object
}

fn outcomes(args: &OutcomesArgs) -> Result<ExitCode> {
    let store = open_existing(&args.data)?;
    let project = match &args.project {
        Some(project) => Some(find_project(&store, &args.org, project)?),
        None => None,
    };
    let micros = i64::from(args.days) * 86_400_000_000;
    let since = Timestamp::from_micros(now().micros() - micros);
    print(crate::ingest::command::outcomes(
        &store,
        project.as_ref(),
        since,
        args.json,
    )?)
}

/// The exit code of a check that found something wrong.
const EXIT_DAMAGED: u8 = 3;

fn check(args: &CheckArgs) -> Result<ExitCode> {
    let directory = args.data.data.display();
    let store = match open_existing(&args.data) {
        Err(error) if is_damaged(&error) => return cannot_be_opened(&error, args.json),
        opened => opened?,
    };
    let report = store
        .check(args.mend)
        .with_context(|| format!("cannot check the store in {directory}"))?;
    if args.json {
        let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        print(json!({
            "clean": report.is_clean(),
            "events": report.events,
            "bodies": report.bodies,
            "issues": report.issues,
            "findings": findings,
        }))?;
    } else {
        for finding in &report.findings {
            print(finding)?;
        }
        print(format_args!(
            "{}: {} events in {} issues, {} bodies kept",
            if report.is_clean() {
                "clean"
            } else {
                "damaged"
            },
            report.events,
            report.issues,
            report.bodies
        ))?;
    }
    Ok(match report.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_DAMAGED),
    })
}

fn is_damaged(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<store::Error>()
        .is_some_and(|error| error.kind() == store::ErrorKind::Corrupt)
}

/// The damage is where the store begins: there is nothing to look at, and a check cannot mend it.
fn cannot_be_opened(error: &anyhow::Error, json: bool) -> Result<ExitCode> {
    let finding = format!(
        "the store cannot be opened; restore a backup: {}",
        error.root_cause()
    );
    match json {
        true => print(json!({ "clean": false, "findings": [finding] }))?,
        false => print(format_args!("damaged: {finding}"))?,
    };
    Ok(ExitCode::from(EXIT_DAMAGED))
}

fn backup(args: &CopyArgs) -> Result<ExitCode> {
    anyhow::ensure!(
        args.from.join("backstop.db").exists(),
        "there is no store in {}",
        args.from.display()
    );
    Store::open(&args.from)
        .and_then(|store| store.backup(&args.to))
        .context("no backup was made")?;
    copy_address(&args.from, &args.to)?;
    print(format_args!("backed up to {}", args.to.display()))
}

fn restore(args: &RestoreArgs) -> Result<ExitCode> {
    store::restore(&args.from, &args.to).context("nothing was restored")?;
    copy_address(&args.from, &args.to)?;
    print(format_args!("restored to {}", args.to.display()))
}

fn group(args: &GroupArgs) -> Result<ExitCode> {
    let read = |path: &Option<PathBuf>| match path {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        }
        None => Ok(String::new()),
    };
    let rules = Rules::parse(&read(&args.fingerprint_rules)?, &read(&args.stack_rules)?)
        .context("cannot use the rules")?;
    let options = grouping::command::Options {
        explain: args.explain,
        version: args.version,
        rules,
    };
    let Some(name) = &args.project else {
        let input = std::io::stdin().lock();
        let output = BufWriter::new(std::io::stdout().lock());
        return grouping::command::run(input, output, options).map(|()| ExitCode::SUCCESS);
    };
    let store = open_existing(&args.data)?;
    let projects = store.projects()?;
    let mut named = projects.iter().filter(|project| {
        project.slug == *name || format!("{}/{}", project.organization, project.slug) == *name
    });
    let project = named
        .next()
        .with_context(|| format!("no project {name:?}"))?;
    anyhow::ensure!(
        named.next().is_none(),
        "several organizations have a project {name:?}; give ORGANIZATION/PROJECT"
    );
    let changes = grouping::command::replay(&store, project.id, options)?;
    match args.json {
        true => print(serde_json::to_string(&changes).context("cannot write JSON")?),
        false => print(changes.to_string().trim_end()),
    }
}

/// Opens a store that is there. Opening makes what is missing, which a command that only looks
/// must not: a misspelt directory would be an empty store.
fn open_existing(data: &Data) -> Result<Store> {
    let directory = &data.data;
    anyhow::ensure!(
        directory.join("backstop.db").exists(),
        "there is no store in {}",
        directory.display()
    );
    open(data)
}

fn open(data: &Data) -> Result<Store> {
    let directory = &data.data;
    Store::open(directory)
        .with_context(|| format!("cannot open the store in {}", directory.display()))
}

fn print(text: impl std::fmt::Display) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// Notes the address of the server, so that a DSN that is printed later has it.
pub(crate) fn note_public_url(store: &Store, public_url: &str) -> Result<()> {
    std::fs::write(store.directory().join(ADDRESS_FILE), public_url)
        .context("cannot note the server's address in the data directory")
}

/// A restored store prints the DSNs and links that it had.
fn copy_address(from: &Path, to: &Path) -> Result<()> {
    match std::fs::copy(from.join(ADDRESS_FILE), to.join(ADDRESS_FILE)) {
        Ok(_) => Ok(()),
        // No server has run there yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("the store is copied, but not the server's address"),
    }
}

fn public_url(store: &Store, given: Option<&str>) -> String {
    if let Some(url) = given {
        return url.trim_end_matches('/').to_owned();
    }
    // No server has run here yet, or the note is gone: the default address is the best guess.
    std::fs::read_to_string(store.directory().join(ADDRESS_FILE))
        .unwrap_or_else(|_| format!("http://{LISTEN_DEFAULT}"))
}

fn project_create(args: &ProjectCreateArgs) -> Result<ExitCode> {
    let key = |name: &str, text: &Option<String>| {
        text.as_deref()
            .map(|text| {
                text.parse::<Key>()
                    .with_context(|| format!("invalid {name} {text:?}"))
            })
            .transpose()
    };
    let wish = NewProject {
        name: args.name.clone(),
        organization: args.org.clone(),
        id: args.id.map(ProjectId),
        key: key("--key", &args.key)?,
        secret: key("--secret", &args.secret)?,
        ..NewProject::default()
    };
    if let Some(url) = &args.public_url {
        check_public_url(url)?;
    }
    let store = open(&args.data)?;
    let project = store
        .create_project(&wish, now())
        .with_context(|| format!("cannot make the project {:?}", args.name))?;
    let public_url = public_url(&store, args.public_url.as_deref());
    if args.json {
        return print(project_json(&project, &public_url));
    }
    print(dsns(&project, &public_url).join("\n"))
}

fn project_list(args: &ListArgs) -> Result<ExitCode> {
    let store = open_existing(&args.data)?;
    let projects = store.projects()?;
    let public_url = public_url(&store, None);
    if args.json {
        let list: Vec<_> = projects
            .iter()
            .map(|project| project_json(project, &public_url))
            .collect();
        return print(json!(list));
    }
    if projects.is_empty() && std::io::stderr().is_terminal() {
        eprintln!("There is no project yet: `backstop project create NAME` makes one.");
    }
    for project in &projects {
        for dsn in dsns(project, &public_url) {
            print(format_args!(
                "{}/{}\t{dsn}",
                project.organization, project.slug
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn dsns(project: &Project, public_url: &str) -> Vec<String> {
    let active = project.keys.iter().filter(|key| key.active);
    active.map(|key| dsn(public_url, project, key)).collect()
}

fn project_json(project: &Project, public_url: &str) -> serde_json::Value {
    let dsns = dsns(project, public_url);
    json!({
        "id": project.id.to_string(),
        "slug": project.slug,
        "org": project.organization,
        "name": project.name,
        "key": project.keys.first().map(|key| key.public.to_string()),
        "dsn": dsns.first(),
        "dateCreated": project.created,
    })
}

fn token_create(args: &TokenCreateArgs) -> Result<ExitCode> {
    let token = open(&args.data)?.create_token("command line", &args.scope, now())?;
    if args.json {
        return print(json!({ "token": token.expose(), "scopes": args.scope }));
    }
    print(token.expose())
}

fn sign_in(args: &SignInArgs) -> Result<ExitCode> {
    let store = open_existing(&args.user.data)?;
    let email = &args.user.email;
    let users = store.users()?;
    let known = users
        .into_iter()
        .find(|user| user.email.eq_ignore_ascii_case(email));
    let user = known.with_context(|| {
        format!("there is no user {email}: `backstop user create {email}` makes one")
    })?;
    if args.forget_password {
        store.forget_password(user.id)?;
    }
    print_link(&store, &user, args.user.json)
}

fn user_create(args: &UserArgs) -> Result<ExitCode> {
    let store = open(&args.data)?;
    let user = store.create_user(&args.email, "", now())?;
    print_link(&store, &user, args.json)
}

fn print_link(store: &Store, user: &User, json: bool) -> Result<ExitCode> {
    let link = sign_in_link(store, user.id, &public_url(store, None))?;
    if json {
        return print(json!({ "email": user.email, "link": link }));
    }
    print(link)
}

/// Makes a link that signs a user in once.
pub(crate) fn sign_in_link(
    store: &Store,
    user: crate::model::UserId,
    public_url: &str,
) -> Result<String, store::Error> {
    let expires = now().micros() + LINK_SECONDS * 1_000_000;
    let expires = Timestamp::from_micros(expires);
    let secret = store.create_sign_in_link(user, expires)?;
    Ok(format!("{public_url}/sign-in/{}/", secret.expose()))
}
