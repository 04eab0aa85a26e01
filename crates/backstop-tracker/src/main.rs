//! The program: reads the command line, does what it says, and exits with a code that says how it went.

use std::process::ExitCode;

use clap::Parser;

use backstop_tracker::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match backstop_tracker::command::run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("backstop: {error:#}");
            ExitCode::FAILURE
        }
    }
}
