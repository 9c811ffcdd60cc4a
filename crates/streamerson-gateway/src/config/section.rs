//! One table of the configuration: its keys are read by name, from the environment first, and what is left over is a mistake.

use std::ops::Range;

use streamerson_core::Result;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::Source;

pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    title: &'static str,
    table: Option<&'a DeTable<'a>>,
    variables: Option<&'static str>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The section `title` held by `table`. With `variables`, each of its scalar keys is also an environment variable
    /// of this prefix.
    pub(super) fn new(
        source: &'a Source<'a>,
        title: &'static str,
        table: Option<&'a DeTable<'a>>,
        variables: Option<&'static str>,
    ) -> Section<'a> {
        Section {
            source,
            title,
            table,
            variables,
            known: Vec::new(),
        }
    }

    /// The value of a scalar key, from the environment or the file. A value that `parse` refuses is noted as a mistake.
    pub(super) fn scalar<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if let Some(prefix) = self.variables {
            let variable = format!("{prefix}{}", key.to_ascii_uppercase());
            if let Some(text) = self.source.environment.get(&variable) {
                self.known.push(key);
                let parsed = parse(text);
                return parsed
                    .map_err(|message| self.source.mistake_in_variable(&variable, message))
                    .ok();
            }
        }
        let value = self.value(key)?;
        let parsed = text(value.get_ref())
            .ok_or_else(|| {
                let found = value.get_ref().type_str();
                format!("expected a single value, found {}", article(found))
            })
            .and_then(parse);
        self.noted(key, value.span(), parsed)
    }

    /// The value of a key that holds one text or a list of texts.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let items: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let count = items.len();
        let parsed = items.into_iter().filter_map(|item| {
            let parsed = match item.get_ref().as_str() {
                Some(text) => parse(text),
                None => Err("expected a string or a list of strings".into()),
            };
            self.noted(key, item.span(), parsed)
        });
        let parsed: Vec<T> = parsed.collect();
        // A list with a mistake, told already, must not look like a shorter one.
        (parsed.len() == count).then_some(parsed)
    }

    /// The section inside `key`.
    pub(super) fn table(&mut self, key: &'static str) -> Option<&'a DeTable<'a>> {
        let value = self.value(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            let message = format!("`{key}` is a section: write [{key}]");
            self.source.mistake(value.span(), message);
        }
        table
    }

    /// The repeated sections `key`, each with its place.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<(Range<usize>, &'a DeTable<'a>)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let items = value.get_ref().as_array();
        let tables = items.into_iter().flat_map(|array| array.iter());
        let tables: Option<Vec<_>> = tables
            .map(|item| Some((item.span(), item.get_ref().as_table()?)))
            .collect();
        match tables {
            Some(tables) if items.is_some() => tables,
            _ => {
                let message = format!("`{key}` is a repeated section: write [[{key}]]");
                self.source.mistake(value.span(), message);
                Vec::new()
            }
        }
    }

    /// Which of `keys` are not there.
    pub(super) fn missing(&self, keys: &[&'static str]) -> Vec<&'static str> {
        let there = |key: &str| self.table.is_some_and(|table| table.contains_key(key));
        keys.iter().copied().filter(|key| !there(key)).collect()
    }

    /// Notes every key, and every variable of this section, that nothing has asked for.
    pub(super) fn finish(self) {
        let keys = self.table.into_iter().flat_map(|table| table.keys());
        for key in keys {
            if !self.known.contains(&key.get_ref().as_ref()) {
                self.source.mistake(key.span(), self.unknown(key.get_ref()));
            }
        }
        // At the top level the prefix is shared with what is not configuration of the gateway.
        let Some(prefix) = self.variables.filter(|prefix| prefix.ends_with("__")) else {
            return;
        };
        for variable in self.source.environment.starting_with(prefix) {
            let key = variable[prefix.len()..].to_ascii_lowercase();
            if !self.known.contains(&key.as_str()) {
                self.source
                    .mistake_in_variable(variable, self.unknown(&key));
            }
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table?.get(key)
    }

    fn noted<T>(&self, key: &str, span: Range<usize>, parsed: Result<T, String>) -> Option<T> {
        parsed
            .map_err(|message| self.source.mistake(span, format!("`{key}`: {message}")))
            .ok()
    }

    fn unknown(&self, key: &str) -> String {
        let distance = |known: &&&str| strsim::damerau_levenshtein(known, key);
        let nearest = self.known.iter().min_by_key(distance);
        let title = self.title;
        match nearest.filter(|known| distance(known) <= 2 || strsim::jaro_winkler(known, key) > 0.9)
        {
            Some(nearest) => format!("unknown key `{key}` in {title}; did you mean `{nearest}`?"),
            None => {
                let known = self.known.join(", ");
                format!("unknown key `{key}` in {title}; the keys are {known}")
            }
        }
    }
}

fn text<'v>(value: &'v DeValue<'_>) -> Option<&'v str> {
    match value {
        DeValue::String(text) => Some(text),
        DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str()),
        DeValue::Boolean(true) => Some("true"),
        DeValue::Boolean(false) => Some("false"),
        _ => None,
    }
}

fn article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}
