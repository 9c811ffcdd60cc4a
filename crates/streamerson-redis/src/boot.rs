//! The boot check: what this Redis is, what it promises, and which of its settings endanger data.

use std::collections::HashMap;

use streamerson_core::broker::Capabilities;
use streamerson_core::{Durability, Error, ErrorKind, Name, Result};

use crate::connection::Commands;
use crate::error;
use crate::script;
use crate::target::Target;
use crate::wire::{Reply, Request};

const SECTIONS: [&str; 5] = ["server", "persistence", "memory", "replication", "cluster"];
const SETTINGS: [&str; 4] = [
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "maxmemory-policy",
];

/// Asks once. What a narrow ACL, or a provider that forbids CONFIG, does not tell is assumed at its weakest, and said.
pub(crate) async fn check(
    commands: &Commands,
    target: &Target,
    namespace: &Name,
) -> Result<Capabilities> {
    let mut request = Request::default();
    let scripts = script::all();
    for script in scripts {
        request.command(&["SCRIPT", "LOAD", script.text()]);
    }
    for section in SECTIONS {
        request.command(&["INFO", section]);
    }
    for setting in SETTINGS {
        request.command(&["CONFIG", "GET", setting]);
    }
    let replies = scripts.len() + SECTIONS.len() + SETTINGS.len();
    let mut answer = commands.call(request, replies).await?;
    let loaded: Vec<_> = scripts
        .iter()
        .map(|_| answer.next(format_args!("loading scripts into {target}")))
        .collect();
    let mut facts = Facts::default();
    for section in SECTIONS {
        if let Ok(reply) = answer.next(format_args!("INFO {section}")) {
            facts.info(reply.as_text().unwrap_or_default());
        }
    }
    for setting in SETTINGS {
        if let Ok(reply) = answer.next(format_args!("CONFIG GET {setting}")) {
            facts.setting(setting, &reply);
        }
    }
    // First: a server that is something else lacks commands because of that.
    facts.check_mode(target)?;
    facts.check_namespace(target, namespace)?;
    for script in loaded {
        script?;
    }
    Ok(facts.capabilities())
}

/// What its wall clock says, in milliseconds since 1970.
pub(crate) async fn time(commands: &Commands) -> Result<u64> {
    let about = "TIME";
    let mut answer = commands.call(Request::of(&["TIME"]), 1).await?;
    let time = answer.next(about)?;
    let number = |at: usize| -> Option<u64> { time.as_list()?.get(at)?.as_text()?.parse().ok() };
    let (seconds, micros) = number(0)
        .zip(number(1))
        .ok_or_else(|| error::unexpected(about))?;
    Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

/// What Redis told about itself.
#[derive(Debug, Default)]
struct Facts {
    info: HashMap<String, String>,
    settings: HashMap<&'static str, String>,
}

impl Facts {
    fn info(&mut self, section: &str) {
        let pairs = section.lines().filter_map(|line| line.split_once(':'));
        self.info
            .extend(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())));
    }

    fn setting(&mut self, name: &'static str, reply: &Reply) {
        if let Some(value) = reply.field(name).and_then(Reply::as_text) {
            self.settings.insert(name, value.to_owned());
        }
    }

    fn told(&self, key: &str) -> Option<&str> {
        self.info.get(key).map(String::as_str)
    }

    fn is_set(&self, setting: &str, value: &str) -> bool {
        self.settings.get(setting).is_some_and(|is| is == value)
    }

    fn check_mode(&self, target: &Target) -> Result<()> {
        if self.told("redis_mode") == Some("sentinel") {
            return Err(Error::invalid(
                "broker-sentinel",
                format!("{target} is a Sentinel, which holds no data; name the primary it watches"),
            ));
        }
        if self.told("cluster_enabled") != Some("1") {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            "broker-cluster",
            format!(
                "{target} is part of a Redis Cluster, which is not supported; use a standalone Redis or Valkey"
            ),
        ))
    }

    /// The embedded broker serves one namespace, and says which: better to be told of it now than by each request.
    fn check_namespace(&self, target: &Target, namespace: &Name) -> Result<()> {
        match self.told("streamerson_namespace") {
            Some(theirs) if theirs != namespace.as_str() => {
                let detail = format!(
                    "{target} serves the namespace {theirs}, not {namespace}; {}",
                    error::ONE_NAMESPACE
                );
                Err(Error::invalid("wrong-namespace", detail))
            }
            _ => Ok(()),
        }
    }

    fn capabilities(&self) -> Capabilities {
        let mut warnings = Vec::new();
        let durability = self.durability(&mut warnings);
        self.warn_of_eviction(&mut warnings);
        self.warn_of_state(&mut warnings);
        Capabilities {
            broker: self.name(),
            durability,
            warnings,
        }
    }

    fn name(&self) -> String {
        let version = |key| self.told(key).unwrap_or("of unknown version");
        match self.told("server_name") {
            Some("valkey") => format!("valkey {}", version("valkey_version")),
            Some("streamerson") => format!("streamerson {}", version("streamerson_version")),
            _ => format!("redis {}", version("redis_version")),
        }
    }

    fn durability(&self, warnings: &mut Vec<String>) -> Durability {
        // The embedded broker, which speaks this protocol too, says it itself.
        if let Some(class) = self.told("streamerson_durability") {
            return class.parse().unwrap_or(Durability::Memory);
        }
        let told = self.told("aof_enabled").map(|enabled| enabled == "1");
        let appends = self.settings.get("appendonly").map(|value| value == "yes");
        match appends.or(told) {
            Some(true) => self.sync(warnings),
            Some(false) => {
                warnings.push(
                    "appendonly is off: acknowledged messages are lost when Redis stops; set appendonly yes".into(),
                );
                Durability::Memory
            }
            None => {
                warnings.push(
                    "neither INFO nor CONFIG GET is allowed, so durability memory is assumed; allow +info or +config|get".into(),
                );
                Durability::Memory
            }
        }
    }

    fn sync(&self, warnings: &mut Vec<String>) -> Durability {
        match self.settings.get("appendfsync").map(String::as_str) {
            Some("always") if self.is_set("no-appendfsync-on-rewrite", "yes") => {
                warnings.push(
                    "no-appendfsync-on-rewrite is on: while the log is rewritten nothing is synced; set it to no for durability disk".into(),
                );
                Durability::Os
            }
            Some("always") => Durability::Disk,
            Some(_) => Durability::Os,
            None => {
                warnings.push(
                    "CONFIG GET is not allowed, so appendfsync everysec is assumed; allow +config|get to know".into(),
                );
                Durability::Os
            }
        }
    }

    fn warn_of_eviction(&self, warnings: &mut Vec<String>) {
        let bounded = self.told("maxmemory").is_some_and(|limit| limit != "0");
        let policy = self
            .settings
            .get("maxmemory-policy")
            .map(String::as_str)
            .or_else(|| self.told("maxmemory_policy"))
            .unwrap_or("noeviction");
        if !bounded || policy == "noeviction" {
            return;
        }
        let victims = if policy.starts_with("allkeys") {
            "whole topics, and the keys of what happens once, so that it happens twice,"
        } else {
            "inboxes with unread replies, and the keys of what happens once, so that it happens twice,"
        };
        warnings.push(format!(
            "maxmemory-policy {policy} removes {victims} when memory is short; set maxmemory-policy noeviction"
        ));
    }

    fn warn_of_state(&self, warnings: &mut Vec<String>) {
        if matches!(self.told("role"), Some("slave" | "replica")) {
            warnings
                .push("this Redis is a replica and takes no writes; connect to the primary".into());
        }
        if self.told("aof_last_write_status") == Some("err") {
            warnings.push("the last write to the append-only file failed; look at the log of Redis and the free space".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(info: &str, settings: &[(&'static str, &str)]) -> Facts {
        let mut facts = Facts::default();
        facts.info(info);
        let settings = settings
            .iter()
            .map(|(name, value)| (*name, value.to_string()));
        facts.settings.extend(settings);
        facts
    }

    fn class(info: &str, settings: &[(&'static str, &str)]) -> (Durability, usize) {
        let capabilities = facts(info, settings).capabilities();
        (capabilities.durability, capabilities.warnings.len())
    }

    #[test]
    fn the_class_follows_from_the_append_only_file() {
        let on = ("appendonly", "yes");
        assert_eq!(class("", &[("appendonly", "no")]), (Durability::Memory, 1));
        assert_eq!(
            class("", &[on, ("appendfsync", "everysec")]),
            (Durability::Os, 0)
        );
        assert_eq!(class("", &[on, ("appendfsync", "no")]), (Durability::Os, 0));
        assert_eq!(
            class("", &[on, ("appendfsync", "always")]),
            (Durability::Disk, 0)
        );
        let rewrite = ("no-appendfsync-on-rewrite", "yes");
        assert_eq!(
            class("", &[on, ("appendfsync", "always"), rewrite]),
            (Durability::Os, 1)
        );
    }

    #[test]
    fn what_is_not_told_is_assumed_at_its_weakest() {
        assert_eq!(class("aof_enabled:1\r\n", &[]), (Durability::Os, 1));
        assert_eq!(class("aof_enabled:0\r\n", &[]), (Durability::Memory, 1));
        assert_eq!(class("", &[]), (Durability::Memory, 1));
    }

    #[test]
    fn the_embedded_broker_names_its_own_class() {
        let info = "server_name:streamerson\r\nstreamerson_version:0.1.0\r\nstreamerson_durability:disk\r\n";
        let capabilities = facts(info, &[]).capabilities();
        assert_eq!(capabilities.durability, Durability::Disk);
        assert_eq!(capabilities.broker, "streamerson 0.1.0");
        assert_eq!(capabilities.warnings, Vec::<String>::new());
    }

    #[test]
    fn another_namespace_than_that_of_the_embedded_broker_is_refused() {
        let target = Target::parse("redis://127.0.0.1:6380").unwrap();
        let check = |info: &str| {
            let shop = Name::new("shop").unwrap();
            facts(info, &[]).check_namespace(&target, &shop)
        };
        let refused = check("streamerson_namespace:streamerson\r\n").unwrap_err();
        assert_eq!(refused.code(), "wrong-namespace");
        assert!(check("streamerson_namespace:shop\r\n").is_ok());
        assert!(check("").is_ok());
    }

    #[test]
    fn valkey_is_called_by_its_own_name() {
        let info = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n";
        assert_eq!(facts(info, &[]).capabilities().broker, "valkey 8.0.1");
        assert_eq!(
            facts("redis_version:7.0.15\r\n", &[]).capabilities().broker,
            "redis 7.0.15"
        );
    }

    #[test]
    fn eviction_is_a_danger_only_with_a_limit() {
        let on = ("appendonly", "yes");
        let sync = ("appendfsync", "always");
        let policy = ("maxmemory-policy", "allkeys-lru");
        assert_eq!(class("maxmemory:0\r\n", &[on, sync, policy]).1, 0);
        assert_eq!(class("maxmemory:1000\r\n", &[on, sync, policy]).1, 1);
    }
}
