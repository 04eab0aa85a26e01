//! Reporting from a program that is no web service: errors, panics, messages.
//!
//! ```text
//! BACKSTOP_DSN=http://KEY@127.0.0.1:9000/1 cargo run -p backstop --example report
//! ```
//!
//! Three issues appear in the tracker: the file that is missing, with the variables of `import`,
//! the panic of a worker thread, and the message.
//! Such a program can leave the web part out: `backstop = { …, default-features = false }`.

use backstop::report::{self, Breadcrumb, Options, Scope};

/// Imports a file and returns how many lines it has.
fn import(path: &str) -> backstop::Result<usize> {
    let attempts = 3;
    report::add_breadcrumb(Breadcrumb {
        message: Some(format!("importing {path}, {attempts} attempts left")),
        ..Breadcrumb::default()
    });
    Ok(std::fs::read_to_string(path)?.lines().count())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dsn =
        std::env::var("BACKSTOP_DSN").map_err(|_| "set BACKSTOP_DSN to the DSN of your project")?;
    let options = Options::default()
        .release(concat!("importer@", env!("CARGO_PKG_VERSION")))
        .environment("example")
        .before_send(|event| {
            println!("sending {}", event.event_id);
            Some(event)
        });
    // When the guard goes, what still waits is sent.
    let _guard = report::init_with(&dsn, options)?;

    report::set_tag("job", "nightly");
    if let Err(error) = import("/var/lib/shop/orders.csv") {
        report::capture(&error);
    }

    // A new thread starts with an empty scope; it is handed this one.
    let scope = Scope::current();
    let worker = std::thread::spawn(move || {
        scope.run(|| {
            let orders: Vec<u32> = Vec::new();
            orders[0]
        })
    });
    if worker.join().is_err() {
        report::capture_message("the worker is gone");
    }
    Ok(())
}
