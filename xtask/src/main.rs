//! Tasks of the repository: `cargo xtask plugins` builds every plugin into a component.

mod plugins;
mod variants;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the first-party plugins and the tests' guests into `target/plugins/*.wasm`.
    Plugins,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Plugins => plugins::build_all(),
    }
}
