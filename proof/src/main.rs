//! The proof: `proof verify` runs the long forms of what is promised and writes VERIFICATION.md, `proof bench` measures against
//! real peers and writes BENCHMARKS.md. Neither is part of `make test`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool says what it does")]
#![allow(clippy::indexing_slicing, clippy::panic, reason = "a row that fails ends as a failed row, and the others go on")]
#![allow(clippy::disallowed_methods, reason = "tasks end with their row")]

mod bench;
mod generated;
mod load;
mod process;
mod records;
mod report;
mod rows;
mod stats;
mod verify;
mod weigh;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shows what is promised.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure against real peers, and write BENCHMARKS.md.
    Bench(rows::Selection),
    /// Run the long forms of what is promised, and write VERIFICATION.md.
    Verify(rows::Selection),
    /// Keep one core busy until the parent has gone; a row starts it.
    #[command(name = "__busy", hide = true)]
    Busy,
    /// Answer requests with nothing behind; a row starts it.
    #[command(name = "__bare", hide = true)]
    Bare(bench::bare::Arguments),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Bench(selection) => bench::run(&selection),
        Command::Verify(selection) => verify::run(&selection),
        Command::Busy => bench::busy(),
        Command::Bare(arguments) => bench::bare::main(&arguments),
    }
}
