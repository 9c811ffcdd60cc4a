//! The golden vectors, held against the protocol document by a reader in another language.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn spec() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec"))
}

fn check(vectors: &Path) -> Output {
    let check = Command::new("python3")
        .arg(spec().join("check.py"))
        .arg(vectors)
        .output();
    check.unwrap_or_else(|error| {
        panic!(
            "python3: {error}; install it by `apt-get install python3`, or run the tests by `cargo xtask test`, which does it for you"
        )
    })
}

#[test]
fn the_reader_in_python_agrees_with_every_vector() {
    let output = check(&spec().join("vectors"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// A check that cannot fail would prove nothing: each file in turn is damaged.
#[test]
fn the_reader_in_python_notices_a_wrong_vector() {
    for (file, right, wrong) in [
        (
            "messages.json",
            "b3JkZXIuY3JlYXRlZA==",
            "b3JkZXIuZGVsZXRlZA==",
        ),
        ("messages.json", "\"status\\\":201", "\"status\\\":202"),
        (
            "meta.json",
            "\"deadline\": 1763900003000",
            "\"deadline\": 1763900003001",
        ),
        (
            "correlation.json",
            "\"correlation\": \"r-1\"",
            "\"correlation\": \"r-2\"",
        ),
        ("foreign.json", "missing-field", "unexpected-field"),
        ("names.json", "\"inbox\": true", "\"inbox\": false"),
        ("keys.json", "shop.eu:{orders.3}", "shop.eu:orders.3"),
        ("partitions.json", "3421780262", "3421780263"),
        ("positions.json", "\"9-10\"", "\"11-10\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(spec().join("vectors")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        let damaged = folder.path().join(file);
        let text = fs::read_to_string(&damaged).unwrap();
        assert!(text.contains(right), "{file} has no {right}");
        fs::write(&damaged, text.replacen(right, wrong, 1)).unwrap();
        let output = check(folder.path());
        assert_eq!(output.status.code(), Some(1), "{file}: {right} → {wrong}");
    }
}
