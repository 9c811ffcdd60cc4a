//! Running other programs, from the root of the workspace.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use anyhow::{Context as _, Result, bail};

/// The folder of the root `Cargo.toml`.
pub(crate) fn workspace_root() -> &'static Path {
    // Where the package is now, which cargo says when it runs this. When it was built it may have been elsewhere: checkouts may
    // share a target directory, and must not test each other.
    static OWN: LazyLock<PathBuf> = LazyLock::new(|| {
        let now = env::var_os("CARGO_MANIFEST_DIR");
        now.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
    });
    OWN.parent().unwrap_or(&OWN)
}

/// The same cargo that runs this program.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).current_dir(workspace_root());
    cargo
}

/// Shows `command`, runs it on this terminal, and fails where it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs `command` and takes what it prints, on both outputs: `nginx -v` answers on stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("`{shown}` failed: {}\n{errors}", output.status);
    }
    Ok(format!(
        "{}{errors}",
        String::from_utf8_lossy(&output.stdout)
    ))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_that_names_it() {
        let error = run(Command::new("sh").args(["-c", "exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("sh -c exit 3"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn output_holds_both_streams() {
        let text = output(Command::new("sh").args(["-c", "echo a; echo b >&2"])).unwrap();
        assert_eq!(text, "a\nb\n");
    }
}
