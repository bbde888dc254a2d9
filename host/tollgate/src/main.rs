//! `tollgate`: the gateway, and the commands that talk to a running one.

mod admin;
mod app;
mod build_step;
mod builtin;
mod checks;
mod cli;
mod core_dumps;
mod credentials;
mod data;
mod keys;
mod listen;
mod notify;
mod observe;
mod open_files;
mod panics;
mod plugin_pack;
mod plugin_test;
mod service;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Arguments, Command, PluginCommand};

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::BuildPlugin { memory_bytes, time_s } => build_step::main(memory_bytes, time_s),
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
    eprintln!("tollgate: {error:#}");
    ExitCode::FAILURE
}
