//! Tasks of the repository: `cargo xtask plugins` builds every plugin into a component, `licences` writes
//! what a package has to say of the software in it.

mod licences;
mod plugins;
mod variants;

use std::path::PathBuf;

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
    /// Write the licences of everything inside the binary, for packages.
    Licences {
        /// The file to write.
        #[arg(long, default_value = "target/THIRD-PARTY.txt")]
        out: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Plugins => plugins::build_all(),
        Task::Licences { out } => licences::write(&out),
    }
}
