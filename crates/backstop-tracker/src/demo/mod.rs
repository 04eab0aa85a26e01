//! The demonstration: a tracker, a shop that fails in the seven ways of real life, and a table of
//! what became of it.
//!
//! The shop is a process of its own and reports over the network, as any program would.
//! The surroundings that make it fail are real: a locked database, a full device, a disk that
//! returns an input/output error, an overloaded upstream, a closed port.

pub(crate) mod shop;
mod table;
mod world;

use std::io::{BufRead, BufReader, IsTerminal};
use std::net::TcpListener;
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use backstop::report::{Options, Tracker};

use crate::app::now;
use crate::cli::{DemoArgs, DemoShopArgs, ServeArgs};
use crate::command::sign_in_link;
use crate::config::Config;
use crate::model::{NewProject, Project};
use crate::serve::{Server, until_signal};
use crate::store::{Store, optional};
use crate::web::dsn;

use self::table::Row;
use self::world::World;

/// The ports that the demonstration takes if they are free.
const TRACKER_PORT: u16 = 9000;
const SHOP_PORT: u16 = 8000;

/// The first user, whose sign-in link is printed.
const USER: &str = "you@localhost";

/// How long everything together may take to appear in the tracker.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the demonstration.
///
/// # Errors
///
/// Something that is needed does not work; the message says what.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(demo(args))
}

/// Runs the shop alone; the demonstration starts it.
///
/// # Errors
///
/// The DSN or an address is wrong, or the port is taken.
pub(crate) fn run_shop(args: DemoShopArgs) -> Result<ExitCode> {
    let tracker = Tracker::with_options(
        &args.dsn,
        Options::default()
            .environment("demo")
            .release(concat!("shop@", env!("CARGO_PKG_VERSION"))),
    )?;
    backstop::log::init(backstop::log::Form::Text);
    let app = shop::create_app(shop::Shop {
        database: args.database,
        invoices: args.invoices,
        pictures: args.pictures,
        payments: args.payments,
        stock: args.stock,
    })
    .init(&tracker);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(args.listen).await?;
        println!("listening on http://{}", listener.local_addr()?);
        backstop::serve(listener, app.into_router()?).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn demo(args: &DemoArgs) -> Result<ExitCode> {
    let config = Config::load(&ServeArgs {
        listen: Some(format!("127.0.0.1:{}", free_or(TRACKER_PORT))),
        ..ServeArgs::of(args.data.clone())
    })?;
    // A server waits for a store that cannot be opened; whoever looks at a demonstration would
    // wait as well, and not know why.
    let directory = config.data.clone();
    tokio::task::spawn_blocking(move || Store::open(&directory).map(drop))
        .await?
        .with_context(|| format!("cannot open the store in {}", config.data.display()))?;
    let server = Server::start(&config, |_| {}).await?;
    let store = server.store().clone();
    let project = project(&store)?;
    let user = store.create_user(USER, "You", now())?;
    let dsn = dsn(server.public_url(), &project, &project.keys[0]);

    let world = World::make(&config.data.join("demo")).await?;
    let mut shop = start_shop(&dsn, &world, args.once)?;
    let url = shop.url.clone();
    // The store may know these failures from an earlier run.
    let since = now();
    let attempts = tokio::task::spawn_blocking(move || world::break_everything(&url)).await??;
    let find =
        |log: &[String]| table::rows(&store, project.id, since, &attempts, log, &config.mail_dir);
    let rows = wait_for_rows(find, &shop.lines).await?;

    if rows.iter().any(Row::is_bare) {
        // For example a binary that was copied without the `.dwp` beside it.
        eprintln!(
            "backstop: not every variable could be read. {}",
            backstop_capture::doctor()
        );
    }
    if args.once {
        let fine = rows.iter().all(Row::is_fine);
        if args.json {
            println!("{}", table::json(&rows));
        } else {
            print!("{}", table::text(&rows, false));
        }
        shop.stop();
        server.stop().await?;
        return Ok(if fine {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }

    print!("{}", table::text(&rows, std::io::stdout().is_terminal()));
    let link = sign_in_link(&store, user.id, server.public_url())?;
    println!();
    println!("  Shop      {}", shop.url);
    println!("  Tracker   {}", server.public_url());
    println!("  Sign in   {link}");
    println!("  Mails     {}", config.mail_dir.display());
    println!();
    println!("Both run until Ctrl-C.");
    until_signal().await;
    shop.stop();
    server.stop().await?;
    Ok(ExitCode::SUCCESS)
}

fn project(store: &Store) -> Result<Project> {
    if let Some(project) = optional(store.project_by_slug("demo", "shop"))? {
        return Ok(project);
    }
    let wish = NewProject {
        name: "shop".into(),
        organization: Some("demo".into()),
        platform: Some("rust".into()),
        ..NewProject::default()
    };
    Ok(store.create_project(&wish, now())?)
}

/// Returns the port if nobody has it, else 0 for any free one.
fn free_or(port: u16) -> u16 {
    TcpListener::bind(("127.0.0.1", port)).map_or(0, |_| port)
}

/// The shop's process; it ends with the demonstration.
struct ShopProcess {
    child: Child,
    url: String,
    /// What it writes into its log.
    lines: Receiver<String>,
}

fn start_shop(dsn: &str, world: &World, quiet: bool) -> Result<ShopProcess> {
    let program = std::env::current_exe().context("cannot find the own program")?;
    let mut child = std::process::Command::new(program)
        .arg("demo-shop")
        .args(["--dsn", dsn])
        .args(["--listen", &format!("127.0.0.1:{}", free_or(SHOP_PORT))])
        .args(["--payments", &world.payments])
        .args(["--stock", &world.stock.to_string()])
        .arg("--database")
        .arg(&world.database)
        .arg("--invoices")
        .arg(&world.invoices)
        .arg("--pictures")
        .arg(&world.pictures)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the shop")?;
    let log = child.stderr.take().context("the shop has no log")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if !quiet {
                eprintln!("shop: {line}");
            }
            // Nobody may listen any more; the pipe must be emptied all the same.
            let _ = sender.send(line);
        }
    });
    let out = child.stdout.take().context("the shop has no output")?;
    let mut first = String::new();
    BufReader::new(out).read_line(&mut first)?;
    match first.trim().strip_prefix("listening on ") {
        Some(url) => Ok(ShopProcess {
            url: url.to_owned(),
            child,
            lines,
        }),
        None => {
            let _ = child.kill(); // It has ended already or is of no use.
            let reason: Vec<String> = lines.iter().collect();
            bail!("the shop did not start: {}", reason.join("; "));
        }
    }
}

impl ShopProcess {
    fn stop(&mut self) {
        let _ = self.child.kill(); // An error means that it has ended already.
        let _ = self.child.wait();
    }
}

impl Drop for ShopProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until everything that was broken has arrived, or until patience ends.
async fn wait_for_rows(
    find: impl Fn(&[String]) -> Result<Vec<Row>>,
    log: &Receiver<String>,
) -> Result<Vec<Row>> {
    let deadline = Instant::now() + PATIENCE;
    let mut lines = Vec::new();
    loop {
        lines.extend(log.try_iter());
        let rows = find(&lines)?;
        if rows.iter().all(Row::has_arrived) || Instant::now() > deadline {
            return Ok(rows);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
