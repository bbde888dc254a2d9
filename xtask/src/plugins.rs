//! From crates to components: core modules by cargo, components by `tollgate-pack`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::variants;

const TARGET: &str = "wasm32-unknown-unknown";
/// Where plugins are found: every crate below these folders.
const FOLDERS: [&str; 2] = ["plugins", "tests/guests"];

/// The guest that the tests' variants are made of.
const PROBE: &str = "probe";

/// A crate that becomes a component.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Plugin {
    pub(crate) package: String,
    /// Its folder's name, and the component's.
    name: String,
    folder: PathBuf,
}

/// Builds every plugin crate into `target/plugins/NAME.wasm`.
pub(crate) fn build_all() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let crates = find_crates(root, &FOLDERS)?;
    let mut cargo = cargo()?;
    cargo.current_dir(root).args(["build", "--profile", "plugin", "--target", TARGET]);
    for plugin in &crates {
        cargo.args(["--package", &plugin.package]);
    }
    ensure!(cargo.status().context("cargo")?.success(), "the plugins do not build");

    let out = root.join("target/plugins");
    std::fs::create_dir_all(&out)?;
    for Plugin { package, name, folder } in &crates {
        let module = root.join("target").join(TARGET).join("plugin").join(format!("{}.wasm", package.replace('-', "_")));
        let module = std::fs::read(&module).with_context(|| module.display().to_string())?;
        let cases = cases_in(&folder.join("cases"))?;
        let component = tollgate_pack::pack(&module, &cases).with_context(|| package.clone())?;
        write_if_changed(&out, name, &component)?;
        if name == PROBE {
            let without = tollgate_pack::component(&variants::without_snapshot(&module)?)?;
            write_if_changed(&out, "probe-without-snapshot", &without)?;
            write_if_changed(&out, "probe-of-another-world", &variants::of_another_world(&component))?;
        }
    }
    Ok(())
}

/// An unchanged component keeps its time stamp, so that what embeds it is not built again.
fn write_if_changed(out: &Path, name: &str, component: &[u8]) -> anyhow::Result<()> {
    let file = out.join(format!("{name}.wasm"));
    if std::fs::read(&file).ok().as_deref() == Some(component) {
        return Ok(());
    }
    std::fs::write(&file, component)?;
    #[allow(clippy::print_stderr, reason = "a build tool says what it did")]
    {
        eprintln!("{name}: {} KiB", component.len() / 1024);
    }
    Ok(())
}

/// The golden cases of a plugin. One that has no folder of them has none.
fn cases_in(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    Ok(if folder.is_dir() { tollgate_cases::sources(folder)? } else { Vec::new() })
}

/// The plugin crates below `folders`, sorted.
pub(crate) fn find_crates(root: &Path, folders: &[&str]) -> anyhow::Result<Vec<Plugin>> {
    let mut found = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(root.join(folder)).with_context(|| (*folder).to_owned())? {
            let manifest = entry?.path().join("Cargo.toml");
            let Ok(text) = std::fs::read_to_string(&manifest) else { continue };
            let table: toml::Table = text.parse().with_context(|| manifest.display().to_string())?;
            let package = table.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
            let Some(folder) = manifest.parent() else { continue };
            if let (Some(package), Some(name)) = (package, folder.file_name().and_then(|name| name.to_str())) {
                found.push(Plugin { package: package.to_owned(), name: name.to_owned(), folder: folder.to_owned() });
            }
        }
    }
    found.sort();
    Ok(found)
}

/// cargo for the WASM target: as it is where rustup brought the target, else Debian's compiler with std from its source.
fn cargo() -> anyhow::Result<Command> {
    let print = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output().context("rustc")?;
    let libdir = PathBuf::from(String::from_utf8_lossy(&print.stdout).trim());
    if print.status.success() && libdir.is_dir() {
        return Ok(Command::new("cargo"));
    }
    ensure!(
        Path::new("/usr/lib/rustlib/src/rust/library").is_dir()
            || Path::new("/usr/src/rustc").is_dir()
            || Path::new("/usr/bin/cargo").exists(),
        "the target {TARGET} is missing: `make setup` installs it by rustup, or Debian's rustc-web, cargo-web, rust-web-src and lld"
    );
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
    Ok(cargo)
}
