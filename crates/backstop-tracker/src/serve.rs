//! The server: puts store, digest, ingest, pages and mail together, and ends in good order.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use backstop::mail::Mailer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::Tracker;
use crate::cli::ServeArgs;
use crate::closed;
use crate::config::{Config, host_of};
use crate::digest::Digest;
use crate::ingest::Ingest;
use crate::outbox::Outbox;
use crate::store::{ServeLock, Store};

/// How long requests that were begun may take once the server is to end; process managers kill
/// after ten seconds or more.
const DRAIN_PATIENCE: Duration = Duration::from_secs(8);

/// How often what is due beside the events is looked for.
const MAINTAIN_EVERY: Duration = Duration::from_secs(2);

/// A server that accepts.
pub(crate) struct Server {
    store: Store,
    public_url: String,
    ending: watch::Sender<bool>,
    serving: JoinHandle<std::io::Result<()>>,
    mailing: JoinHandle<()>,
    maintaining: JoinHandle<()>,
    digest: Arc<Digest>,
    ingest: Arc<Ingest>,
    _lock: ServeLock,
}

/// Serves until a signal says to end.
///
/// # Errors
///
/// The settings are wrong, the store cannot be opened, or the address cannot be listened on.
pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    backstop::log::init(backstop::log::Form::Text);
    let config = Config::load(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // One future for both waits, so that no signal falls between them.
        let mut signal = std::pin::pin!(until_signal());
        let server = tokio::select! {
            started = Server::start(&config, say_address) => started?,
            // Only a store that cannot be opened makes the start last.
            () = &mut signal => return Ok(()),
        };
        signal.await;
        server.stop().await
    })
}

/// Scripts wait for this line.
fn say_address(public_url: &str) {
    // Nobody may be reading any more.
    let _ = writeln!(std::io::stdout(), "listening on {public_url}");
}

impl Server {
    /// Starts a server; when this returns, it accepts. `announce` is called with its address as
    /// soon as anything is answered there.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub(crate) async fn start(config: &Config, announce: impl Fn(&str)) -> Result<Server> {
        let directory = config.data.display();
        // Before the address, because a second server on the same directory should be told that.
        let opened = match closed::open(config).await? {
            Ok(store) => Ok((store.lock_for_serving()?, store)),
            Err(error) => Err(error),
        };
        let listener = std::net::TcpListener::bind(&config.listen)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| {
                format!(
                    "cannot listen on {}; --listen takes another HOST:PORT, with port 0 any free one",
                    config.listen
                )
            })?;
        let address = listener.local_addr()?;
        let public_url = config
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://{address}"));
        let is_closed = opened.is_err();
        let (lock, store) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                announce(&public_url);
                let store = closed::refuse_until_open(config, &listener, error).await?;
                (store.lock_for_serving()?, store)
            }
        };
        if let Some(repaired) = store.repaired() {
            tracing::warn!("{repaired}");
        }
        let listener = TcpListener::from_std(listener)?;
        if let Err(error) = crate::command::note_public_url(&store, &public_url) {
            // A full disk; it is only for the command line.
            tracing::warn!(error = format!("{error:#}"), "the address was not noted");
        }
        let digest = Arc::new(Digest::start(store.clone())?);
        let tracker = Tracker::new(store.clone(), Arc::clone(&digest), &public_url)?;
        let outbox = Arc::new(outbox(config, &tracker)?);
        let mailing = tokio::spawn(outbox.run(Arc::clone(&digest)));
        let maintaining = tokio::spawn(maintain(Arc::clone(&digest)));
        let ingest = Arc::clone(&tracker.0.ingest);
        let (ending, ended) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, tracker, ended));
        tracing::info!(%address, public_url, data = %directory, "accepting");
        if !is_closed {
            announce(&public_url);
        }
        Ok(Server {
            store,
            public_url,
            ending,
            serving,
            mailing,
            maintaining,
            digest,
            ingest,
            _lock: lock,
        })
    }

    /// Returns the store.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the address for links and DSNs.
    pub(crate) fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Finishes what was begun and ends.
    ///
    /// # Errors
    ///
    /// The listener failed while it served.
    pub(crate) async fn stop(self) -> Result<()> {
        // The server may have ended by itself, then nobody listens.
        let _ = self.ending.send(true);
        self.mailing.abort();
        self.maintaining.abort();
        match tokio::time::timeout(DRAIN_PATIENCE, self.serving).await {
            Ok(served) => served
                .context("the server panicked")?
                .context("the listener failed")?,
            Err(_) => tracing::warn!("some requests did not end in time and were cut off"),
        }
        self.ingest.flush().await;
        let digest = self.digest;
        tokio::task::spawn_blocking(move || digest.stop())
            .await
            .context("the digest panicked")?;
        tracing::info!("ended");
        Ok(())
    }
}

/// Waits for SIGTERM or Ctrl-C.
pub(crate) async fn until_signal() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            },
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be caught");
                let _ = interrupted.await; // An error means that no signal can be waited for.
            }
        }
    }
    #[cfg(not(unix))]
    let _ = interrupted.await;
}

async fn serve(
    listener: TcpListener,
    tracker: Tracker,
    mut ended: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let until = async move {
        // An error means that the server was dropped, which is an end as well.
        let _ = ended.wait_for(|ended| *ended).await;
    };
    backstop::serve_until(listener, tracker.router(), until).await
}

fn outbox(config: &Config, tracker: &Tracker) -> Result<Outbox> {
    let public_url = &tracker.0.public_url;
    let mailer = match &config.smtp {
        Some(url) => Mailer::smtp(url)?,
        None => Mailer::directory(&config.mail_dir),
    };
    let host = host_of(public_url).unwrap_or("localhost");
    // An address in a mail needs a name, and no port.
    let host = host
        .rsplit_once(':')
        .map_or(host, |(host, _)| host)
        .trim_matches(['[', ']']);
    let host = if host.parse::<std::net::IpAddr>().is_ok() {
        "localhost"
    } else {
        host
    };
    Ok(Outbox {
        store: tracker.0.store.clone(),
        mailer,
        from: config
            .mail_from
            .clone()
            .unwrap_or_else(|| format!("Backstop <backstop@{host}>")),
        fallback_to: config.mail_to.clone(),
        public_url: public_url.clone(),
        templates: tracker.0.templates.clone(),
    })
}

/// Does what is due beside the events, until the task is aborted.
async fn maintain(digest: Arc<Digest>) {
    let mut ticks = tokio::time::interval(MAINTAIN_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let digest = Arc::clone(&digest);
        let done = tokio::task::spawn_blocking(move || digest.maintain(crate::app::now())).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(
                error = format!("{error:#}"),
                "maintenance will be tried again"
            );
        }
    }
}
