//! The command-line tool; everything is in the library.

fn main() {
    std::process::exit(memtrace::cli::main(std::env::args_os()));
}
