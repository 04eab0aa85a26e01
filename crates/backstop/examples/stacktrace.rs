//! Renders an event of any client as a page.
//!
//! ```text
//! cargo run --example stacktrace < event.json > event.html
//! ```

use std::io::{Read, Write};

use backstop::report::Event;
use backstop::stacktrace::{self, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut json = String::new();
    std::io::stdin().read_to_string(&mut json)?;
    let event: Event = serde_json::from_str(&json)?;
    let css = stacktrace::CSS;
    let body = stacktrace::render(&event, &Options::default());
    write!(
        std::io::stdout(),
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Event</title>\
         <style>:root {{ color-scheme: light dark }} \
         body {{ font: 15px system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; \
         padding: 0 1rem; background: light-dark(#fbfaf7, #17171a) }} {css}</style>{body}</html>"
    )?;
    Ok(())
}
