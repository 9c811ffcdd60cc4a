//! Configuration as people write it, and the mistakes they make.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use http::Method;
use streamerson_gateway::config::{Accepts, Mode, Target};
use streamerson_gateway::{Config, Environment};

fn read(toml: &str) -> Result<Config, String> {
    under(toml, &[])
}

fn under(toml: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables = variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let environment: Environment = variables.collect();
    Config::parse("shop.toml", toml, &environment).map_err(|error| {
        assert_eq!(error.code(), "invalid-config");
        error.detail().to_owned()
    })
}

#[track_caller]
fn mistake(toml: &str, expected: &str) {
    let found = read(toml).unwrap_err();
    assert!(
        found.contains(expected),
        "expected {expected:?} in:\n{found}"
    );
}

const ROUTE: &str = "[[route]]\npath = \"/orders\"\ntopic = \"orders\"\ntype = \"order.create\"\n";

#[test]
fn the_example_of_the_design_reads_as_written() {
    let config = read(
        r#"
        broker = "redis://127.0.0.1:6379"
        namespace = "shop"

        [gateway]
        listen = "0.0.0.0:80"
        admin = "off"
        max_connections = 20_000
        max_in_flight = 500
        header_read_timeout = "5s"
        body_read_timeout = "1m"
        keep_alive = "2m"
        drain_timeout = "30s"
        max_header = "32KiB"
        max_streams = 50
        timeout = "10s"
        max_body = "64KiB"

        [[route]]
        method = ["get", "DELETE"]
        path = "/orders/{id}"
        topic = "orders"
        type = "order.create"
        mode = "send"
        timeout = "3s"
        max_body = "1MiB"
        body = "json"
        headers = ["Authorization"]

        [[route]]
        path = "/orders/{id}"
        topic = "orders"
        type = "order.update"
        "#,
    )
    .unwrap();
    assert_eq!(config.broker.as_deref(), Some("redis://127.0.0.1:6379"));
    assert_eq!(config.namespace.as_str(), "shop");
    let gateway = &config.gateway;
    assert_eq!(
        (gateway.listen.port(), gateway.admin, gateway.max_in_flight),
        (80, None, 500)
    );
    assert_eq!(gateway.body_read_timeout, Duration::from_secs(60));
    let limits = &gateway.limits;
    assert_eq!(
        (
            limits.max_connections,
            limits.max_header,
            limits.max_streams
        ),
        (20_000, 32 << 10, 50)
    );
    assert_eq!(limits.header_read_timeout, Duration::from_secs(5));
    assert_eq!(limits.keep_alive, Duration::from_secs(120));
    assert_eq!(limits.drain_timeout, Duration::from_secs(30));

    let [first, second] = &config.routes[..] else {
        panic!("{:?}", config.routes);
    };
    assert_eq!(first.methods, [Method::GET, Method::DELETE]);
    assert_eq!(
        (first.mode, first.body, first.max_body),
        (Mode::Send, Accepts::Json, 1 << 20)
    );
    assert_eq!(first.timeout, Duration::from_secs(3));
    assert_eq!(first.headers, [http::header::AUTHORIZATION]);
    let Target::Fixed { topic, kind } = &first.target else {
        panic!("{first:?}");
    };
    assert_eq!((topic.as_str(), &**kind), ("orders", "order.create"));
    // What a route leaves out is the gateway's, then the default.
    assert_eq!(
        (second.mode, second.body, second.max_body),
        (Mode::Reply, Accepts::Any, 64 << 10)
    );
    assert_eq!(
        (second.timeout, &second.methods[..]),
        (Duration::from_secs(10), &[Method::POST][..])
    );
    assert!(second.headers.contains(&http::header::USER_AGENT));
    assert!(!second.headers.contains(&http::header::COOKIE));
}

#[test]
fn nothing_written_is_the_default() {
    assert_eq!(read("").unwrap(), Config::default());
    let config = Config::from_environment(&Environment::empty()).unwrap();
    assert_eq!(config.gateway.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.gateway.admin.unwrap().to_string(), "127.0.0.1:9090");
}

#[test]
fn every_topic_is_served_only_where_nothing_is_configured() {
    let mut config = read(ROUTE).unwrap();
    config.serve_every_topic();
    assert_eq!(config.routes[0].path, "/orders");
    let mut config = read("[gateway]\ntimeout = \"7s\"").unwrap();
    config.serve_every_topic();
    assert_eq!(config.routes[0].path, "/{topic}/{type}");
    assert_eq!(config.routes[0].timeout, Duration::from_secs(7));
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = under(
        "broker = \"memory:\"\n[gateway]\nlisten = \"1.1.1.1:1\"\nmax_streams = 7",
        &[
            ("STREAMERSON_BROKER", "redis://elsewhere"),
            ("STREAMERSON_NAMESPACE", "eu"),
            ("STREAMERSON_GATEWAY__LISTEN", "0.0.0.0:80"),
            ("STREAMERSON_GATEWAY__MAX_CONNECTIONS", "5"),
            ("STREAMERSON_LOG", "debug"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(config.broker.as_deref(), Some("redis://elsewhere"));
    assert_eq!(config.namespace.as_str(), "eu");
    assert_eq!(config.gateway.listen.to_string(), "0.0.0.0:80");
    assert_eq!(
        (
            config.gateway.limits.max_connections,
            config.gateway.limits.max_streams
        ),
        (5, 7)
    );
}

#[test]
fn a_wrong_variable_is_named() {
    let error = under("", &[("STREAMERSON_GATEWAY__LISTEN", "80")]).unwrap_err();
    assert!(
        error.starts_with(
            "environment variable STREAMERSON_GATEWAY__LISTEN: \"80\" is not an address"
        ),
        "{error}"
    );
    let error = under("", &[("STREAMERSON_GATEWAY__LISTN", "x")]).unwrap_err();
    assert!(
        error.contains("STREAMERSON_GATEWAY__LISTN") && error.contains("did you mean `listen`?"),
        "{error}"
    );
}

#[test]
fn a_mistake_is_shown_with_its_place_and_a_remedy() {
    let error = read(&format!("{ROUTE}tmeout = \"3s\"\n")).unwrap_err();
    assert_eq!(
        error,
        "shop.toml:5:1: unknown key `tmeout` in [[route]]; did you mean `timeout`?\n  |\n5 | tmeout = \"3s\"\n  | ^^^^^^"
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let error = read("borker = 1\n[gateway]\nlisten = 80\nmax_streams = 0\n[[route]]\npath = \"orders\"\ntopic = \"a b\"").unwrap_err();
    let places: Vec<&str> = error
        .lines()
        .filter_map(|line| line.strip_prefix("shop.toml:"))
        .collect();
    let lines: Vec<&str> = places
        .iter()
        .filter_map(|place| place.split(':').next())
        .collect();
    assert_eq!(lines, ["1", "3", "4", "5", "6", "7"], "{error}");
    assert!(error.contains("this route has no `type`"), "{error}");
}

#[test]
fn a_bad_path_is_told_also_when_its_route_lacks_more() {
    let error = read("[[route]]\npath = \"/orders/{id\"\ntopic = \"orders\"").unwrap_err();
    assert!(error.contains("this route has no `type`"), "{error}");
    assert!(error.contains("/orders/{id"), "{error}");
}

#[test]
fn values_are_explained() {
    mistake(
        "[gateway]\ntimeout = 3",
        "shop.toml:2:11: `timeout`: \"3\" is not a duration: write a number and a unit, for example \"250ms\"",
    );
    mistake(
        "[gateway]\nmax_body = \"1 meg\"",
        "`max_body`: \"1 meg\" is not a size",
    );
    mistake(
        "[gateway]\nmax_body = [1]",
        "`max_body`: expected a single value, found an array",
    );
    mistake("[gateway]\nmax_header = \"1KiB\"", "use 8KiB to 1MiB");
    mistake("[gateway]\nadmin = \"no\"", "or \"off\"");
    mistake("namespace = \"a b\"", "`namespace`:");
    mistake("broker = \"\"", "`broker`: must not be empty");
    mistake("gateway = 3", "`gateway` is a section: write [gateway]");
    mistake(
        "[route]\npath = \"/\"",
        "`route` is a repeated section: write [[route]]",
    );
    mistake(
        "[[socket]]\npath = \"/live\"",
        "unknown key `socket` in the top level; the keys are broker, namespace, gateway, route",
    );
    mistake("[gateway\n", "shop.toml:1:9:");
    mistake("a = 1\na = 2", "shop.toml:2:1:");
}

#[test]
fn routes_are_explained() {
    let route = |line: &str| format!("{ROUTE}{line}\n");
    mistake(
        &route("mode = \"accept\""),
        "\"accept\" is not supported yet; use \"reply\"",
    );
    mistake(
        &route("mode = \"replay\""),
        "\"replay\" is not one of \"reply\", \"send\"",
    );
    mistake(
        &route("body = \"xml\""),
        "\"xml\" is not one of \"any\", \"json\"",
    );
    mistake(
        &route("method = \"CONNECT\""),
        "\"CONNECT\" is not one of GET",
    );
    mistake(
        &route("method = [\"GET\", 3]"),
        "shop.toml:5:18: `method`: expected a string or a list of strings",
    );
    mistake(&route("method = []"), "the list is empty");
    mistake(
        &route("key = \"{id}\""),
        "the path /orders has no parameter {id} for the key",
    );
    mistake(
        &route("key = \"id\""),
        "name a parameter of the path, for example \"{id}\"",
    );
    mistake(
        &route("headers = [\"transfer-encoding\"]"),
        "belongs to the connection",
    );
    mistake(&route("headers = [\"a b\"]"), "is not a header name");
    mistake(
        &ROUTE.replace("\"/orders\"", "\"/a?b\""),
        "must be a plain path",
    );
    mistake(
        &ROUTE.replace("\"/orders\"", "\"/a/{*rest}/b\""),
        "must be the last segment",
    );
    mistake(
        &ROUTE.replace("\"orders\"", "\"inbox.1\""),
        "reserved topic",
    );
    mistake(
        &ROUTE.replace("\"orders\"", "\"orders:dlq\""),
        "reserved topic",
    );
    mistake(
        &ROUTE.replace("\"order.create\"", "\"\""),
        "is not a message type",
    );
}

#[test]
fn routes_that_collide_are_both_named() {
    mistake(
        &format!("{ROUTE}\n{ROUTE}"),
        "shop.toml:6:1: two routes serve POST /orders (the other route is in line 1)",
    );
    let other = ROUTE.replace("/orders", "/{a}");
    let another = ROUTE
        .replace("/orders", "/{b}")
        .replace("topic", "method = \"GET\"\ntopic");
    mistake(
        &format!("{other}\n{another}"),
        "match the same requests: give their parameters the same names (the other route is in line 1)",
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/nowhere/shop.toml"), &Environment::empty()).unwrap_err();
    assert_eq!(error.code(), "config-unreadable");
    assert!(error.detail().contains("/nowhere/shop.toml"), "{error}");
}

#[test]
fn the_page_on_configuration_reads_as_written() {
    let page = include_str!("../../../../docs/configuration.md");
    let (_, rest) = page.split_once("```toml").unwrap();
    let (toml, _) = rest.split_once("```").unwrap();
    let config = read(toml).unwrap();
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.routes[0].body, Accepts::Json);
}

#[test]
fn a_wrong_method_is_told_once() {
    let told = read(&format!("{ROUTE}method = \"FE TCH\"\n")).unwrap_err();
    assert!(!told.contains("empty"), "{told}");
}
