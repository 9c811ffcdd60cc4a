//! No code of the embedded broker is forgotten in [`EMBEDDED`]: what its sources can make is found in them.

use std::fs;
use std::path::Path;

use streamerson_core::ErrorKind::{self, *};

use super::{EMBEDDED, refused};

/// The errors that the sources below `folder` make, outside of their tests.
fn made_below(folder: &Path) -> Vec<(ErrorKind, String)> {
    let entries = fs::read_dir(folder).unwrap();
    let made = entries.flat_map(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => made_below(&path),
            // Where the constructors are there is no code to find.
            false if path.ends_with("streamerson-core/src/error.rs") => Vec::new(),
            false => made_in(&fs::read_to_string(path).unwrap()),
        }
    });
    made.collect()
}

fn made_in(source: &str) -> Vec<(ErrorKind, String)> {
    let source = source.split("\nmod tests {").next().unwrap_or_default();
    let lines = source.lines().map(str::trim);
    let code: String = lines.filter(|line| !line.starts_with("//")).collect();
    let code = code.replace("io::Error::", "");
    code.split("Error::").skip(1).filter_map(made_by).collect()
}

/// The error that a call makes; none when it is not the call of a constructor.
fn made_by(call: &str) -> Option<(ErrorKind, String)> {
    let (constructor, arguments) = call.split_once('(')?;
    let (kind, code) = match constructor {
        "new" => {
            let (kind, rest) = arguments.split_once(',')?;
            let kind = kind.rsplit("::").next()?;
            let kinds = [
                Invalid,
                NotFound,
                Conflict,
                Unavailable,
                Unknown,
                Fenced,
                Closed,
                Corrupt,
                Internal,
            ];
            let kind = kinds.into_iter().find(|it| format!("{it:?}") == kind);
            let kind = kind.unwrap_or_else(|| panic!("a kind that is not written out: {call}"));
            (kind, rest)
        }
        "invalid" => (Invalid, arguments),
        "unavailable" => (Unavailable, arguments),
        "unknown" => (Unknown, arguments),
        "fenced" | "closed" => {
            let kind = if constructor == "closed" {
                Closed
            } else {
                Fenced
            };
            return Some((kind, constructor.to_owned()));
        }
        _ => return None,
    };
    let literal = code.trim_start().strip_prefix('"');
    match (kind, literal) {
        // The port does not answer what nobody knows.
        (Unknown, _) => None,
        (_, None) => panic!("a code that is not written out: {call}"),
        (_, Some(literal)) => Some((kind, literal.split('"').next()?.to_owned())),
    }
}

#[test]
fn every_error_that_the_embedded_broker_can_make_is_known() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources = ["streamerson-core/src", "streamerson-embedded/src"].into_iter();
    let made: Vec<_> = sources
        .flat_map(|source| made_below(&crates.join(source)))
        .collect();
    assert!(made.len() > 40, "they are found: {made:?}");
    for (code, _) in EMBEDDED {
        let is_made = made.iter().any(|(_, made)| made == code);
        assert!(is_made, "nothing makes {code} any more");
    }
    // As its port words them.
    let words = |kind: ErrorKind, code: &str| match kind {
        Unavailable | Closed => (Unavailable, format!("MISCONF detail ({code})")),
        Fenced => (kind, format!("FENCED detail ({code})")),
        _ => (kind, format!("ERR detail ({code})")),
    };
    let mut wrong: Vec<_> = made
        .into_iter()
        .filter(|(kind, code)| {
            let (kind, words) = words(*kind, code);
            let error = refused(words.as_bytes(), "append to orders");
            (error.kind(), error.code()) != (kind, code)
        })
        .collect();
    wrong.dedup();
    assert!(wrong.is_empty(), "EMBEDDED lacks {wrong:?}");
}
