//! The program `backstop`; everything is in the library.

/// Decoding one event makes a thousand small allocations on one thread that the writer frees on
/// another; the allocator of the C library spends a quarter of the server's time on that.
/// Without huge pages (`no_thp`), because those add 12 MB to an idle server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    backstop_tracker::main()
}
