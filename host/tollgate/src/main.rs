//! `tollgate`: the gateway, and the commands that talk to a running one.

mod admin;
mod allocator;
mod app;
mod build_step;
mod builtin;
mod checks;
mod cli;
mod convert_step;
mod core_dumps;
mod credentials;
mod data;
mod import;
mod keys;
mod listen;
mod model;
mod notify;
mod observe;
mod open_files;
mod panics;
mod plugin_pack;
mod plugin_test;
mod probe_step;
mod service;
mod tune_step;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Arguments, Command, PluginCommand};

fn main() -> ExitCode {
    allocator::return_big_blocks();
    match Arguments::parse().command {
        Command::BuildPlugin { memory_bytes, time_s } => build_step::main(memory_bytes, time_s),
        Command::ProbeModel { memory_bytes, time_s } => probe_step::main(memory_bytes, time_s),
        Command::ConvertModel { memory_bytes, time_s } => convert_step::main(memory_bytes, time_s),
        Command::TuneModel { memory_bytes, time_s } => tune_step::main(memory_bytes, time_s),
        Command::Serve(serve) => match app::main(&serve) {
            Ok(code) => code,
            Err(error) => failed(&error),
        },
        Command::Check { config } => checks::check(&config),
        Command::Schemas { out } => done(checks::write_schemas(&out)),
        Command::Completions { shell } => done(cli::completions(shell)),
        Command::Status(ask) => done(admin::client::show(&ask, "status")),
        Command::Plugins(ask) => done(admin::client::show(&ask, "plugins")),
        Command::Plugin { command: PluginCommand::Test(test) } => match plugin_test::main(&test) {
            Ok(code) => code,
            Err(error) => failed(&error),
        },
        Command::Plugin { command: PluginCommand::Pack(pack) } => done(plugin_pack::main(&pack)),
        Command::Models(ask) => done(admin::client::show(&ask, "models")),
        Command::Model { command } => match model::main(command) {
            Ok(code) => code,
            Err(error) => failed(&error),
        },
        Command::Import(ask) => done(import::main(&ask)),
        Command::Routes(ask) => done(admin::client::show(&ask, "routes")),
        Command::Metrics { data } => done(admin::client::metrics(&data)),
        Command::Reload(ask) => done(admin::client::reload(&ask)),
        Command::Keys { command } => done(keys::run(command)),
    }
}

fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

#[allow(clippy::print_stderr, reason = "a command line tool says what went wrong")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("tollgate: {}", told(error));
    ExitCode::FAILURE
}

/// An error with its causes. Those that the error before has told already, as some of ours do, are not told again. A file's own words
/// may be in it: nothing is left that a terminal would obey.
fn told(error: &anyhow::Error) -> String {
    let told = error.chain().fold(String::new(), |told, cause| match cause.to_string() {
        cause if told.ends_with(&cause) => told,
        cause if told.is_empty() => cause,
        cause => format!("{told}: {cause}"),
    });
    told.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow!("in use").context("cannot listen on 8443: in use").context("the listener main");
        assert_eq!(super::told(&error), "the listener main: cannot listen on 8443: in use");
        assert_eq!(super::told(&anyhow!("alone")), "alone");
        assert_eq!(super::told(&anyhow!("a\u{1b}[2J\u{9b}b\n  c")), "a [2J b\n  c");
    }
}
