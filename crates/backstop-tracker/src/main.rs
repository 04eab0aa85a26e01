//! The program `backstop`; everything is in the library.

/// Decoding one event makes a thousand small allocations on one thread that the writer frees on
/// another; the allocator of the C library spends a quarter of the server's time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    backstop_tracker::main()
}
