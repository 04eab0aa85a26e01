//! The program `backstop`; everything is in the library.

fn main() -> std::process::ExitCode {
    backstop_tracker::main()
}
