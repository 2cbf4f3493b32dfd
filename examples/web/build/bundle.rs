//! The page as files: what is written by hand, and what is compiled.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

const TARGET: &str = "wasm32-unknown-unknown";

/// Why the page cannot be built here, if it cannot.
#[allow(dead_code, reason = "the tests ask, the program tries")]
pub(crate) fn missing() -> Option<String> {
    let ask = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    match ask {
        Ok(answer) if Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_dir() => None,
        Ok(_) => Some(format!("no {TARGET}: rustup target add {TARGET}")),
        Err(error) => Some(format!("no rustc: {error}")),
    }
}

/// Writes the page into `out` and gives its size in bytes, models not counted.
pub(crate) fn build(out: &Path) -> Result<u64> {
    std::fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/web/page");
    for entry in std::fs::read_dir(&page).with_context(|| format!("{}", page.display()))? {
        let entry = entry?;
        std::fs::copy(entry.path(), out.join(entry.file_name()))?;
    }
    let mut bindgen = Bindgen::new();
    bindgen.input_path(compile()?).out_name("sixpack_web").typescript(false);
    bindgen.remove_name_section(true).remove_producers_section(true).web(true)?.generate(out)?;
    size(out)
}

/// The compiled module.
fn compile() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.args(["build", "--package", "sixpack-web", "--profile", "web", "--target", TARGET]);
    command.arg("--message-format=json-render-diagnostics");
    // They would replace the flags that .cargo/config.toml has for this target.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let done = command.output().context("cargo")?;
    if !done.status.success() {
        bail!("the module was not compiled; if the target is not there: rustup target add {TARGET}");
    }
    let messages = String::from_utf8(done.stdout)?;
    let files = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut files = files.flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
    let module = files.find_map(|file| file.as_str().filter(|f| f.ends_with("sixpack_web.wasm")).map(PathBuf::from));
    module.context("cargo names no module")
}

/// Bytes of the files of a folder that are not models.
fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_none_or(|e| e != "6pk") {
            sum += entry.metadata()?.len();
        }
    }
    Ok(sum)
}
