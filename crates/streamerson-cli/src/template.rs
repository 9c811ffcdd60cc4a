//! The template of `reply --json`: JSON first, then each string in it.
//!
//! The template is parsed as JSON, and each string in it is rendered on its own: whatever a message holds, it can
//! change the content of a string but never the shape of the reply.

use std::collections::BTreeMap;

use minijinja::{Environment, Expression, UndefinedBehavior, Value};
use serde_json::Value as Json;
use streamerson_core::{Message, Meta};

use crate::failure::{Failure, Result};

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    root: Node,
}

#[derive(Debug)]
enum Node {
    Literal(Json),
    Text(minijinja::Template<'static, 'static>),
    Expression(Expression<'static, 'static>),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Template {
    /// Parses `text`: JSON, whose strings are minijinja templates.
    pub(crate) fn parse(text: &str) -> Result<Template> {
        let json: Json = serde_json::from_str(&escaped(text)).map_err(|error| {
            Failure::usage("invalid-template", format!("--json is not JSON: {error}")).with_help(
                r#"quote strings within the template, for example --json '{"howdy":"there, {{payload.name}}"}'"#,
            )
        })?;
        let mut environment = Environment::new();
        // A template may ask for payload.address.city whether or not there is an address.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        // There is one template per process, and it is used until the end: a leak gives it that lifetime.
        let root = Node::parse(json, Box::leak(Box::new(environment)))?;
        Ok(Template { root })
    }

    /// The reply to `message`, as JSON.
    pub(crate) fn render(&self, message: &Message) -> Result<Vec<u8>, minijinja::Error> {
        let json = self.root.render(&context(message))?;
        Ok(json.to_string().into_bytes())
    }
}

impl Node {
    fn parse(json: Json, environment: &'static Environment<'static>) -> Result<Node> {
        match json {
            Json::String(text) if text.contains("{{") || text.contains("{%") => {
                Node::parse_text(text, environment)
            }
            Json::Array(items) => {
                let items = items
                    .into_iter()
                    .map(|item| Node::parse(item, environment))
                    .collect::<Result<_>>()?;
                Ok(Node::List(items))
            }
            Json::Object(entries) => {
                let entries = entries
                    .into_iter()
                    .map(|(key, value)| Ok((key, Node::parse(value, environment)?)))
                    .collect::<Result<_>>()?;
                Ok(Node::Object(entries))
            }
            literal => Ok(Node::Literal(literal)),
        }
    }

    fn parse_text(text: String, environment: &'static Environment<'static>) -> Result<Node> {
        let text: &'static str = text.leak();
        let inner = text
            .trim()
            .strip_prefix("{{")
            .and_then(|rest| rest.strip_suffix("}}"));
        if let Some(inner) = inner
            && !inner.contains("{{")
            && !inner.contains("}}")
            // White space control, not arithmetic.
            && !inner.starts_with(['-', '+'])
            && !inner.ends_with(['-', '+'])
            && let Ok(expression) = environment.compile_expression(inner.trim())
        {
            return Ok(Node::Expression(expression));
        }
        let template = environment.template_from_str(text).map_err(|error| {
            Failure::usage(
                "invalid-template",
                format!("the template {text:?} cannot be read: {error}"),
            )
        })?;
        Ok(Node::Text(template))
    }

    fn render(&self, context: &Value) -> Result<Json, minijinja::Error> {
        Ok(match self {
            Node::Literal(json) => json.clone(),
            Node::Text(template) => Json::String(template.render(context)?),
            Node::Expression(expression) => to_json(expression.eval(context)?)?,
            Node::List(items) => Json::Array(
                items
                    .iter()
                    .map(|item| item.render(context))
                    .collect::<Result<_, _>>()?,
            ),
            Node::Object(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), value.render(context)?)))
                    .collect::<Result<_, minijinja::Error>>()?,
            ),
        })
    }
}

fn to_json(value: Value) -> Result<Json, minijinja::Error> {
    serde_json::to_value(&value).map_err(|error| {
        minijinja::Error::new(minijinja::ErrorKind::BadSerialization, error.to_string())
    })
}

/// `text` with the quotes inside `{{ }}` and `{% %}` escaped, so that `"{{ name | default("x") }}"` is JSON: in a shell
/// the template is within single quotes already.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    let mut end = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match end {
            // Outside of strings JSON has no {{ and no {%.
            None if rest.starts_with("{{") => end = Some("}}"),
            None if rest.starts_with("{%") => end = Some("%}"),
            Some(mark) if rest.starts_with(mark) => end = None,
            Some(_) if c == '"' && !escaped.ends_with('\\') => escaped.push('\\'),
            _ => {}
        }
        escaped.push(c);
        rest = &rest[c.len_utf8()..];
    }
    escaped
}

/// What a template sees: `id`, `type`, `meta`, `payload`, and of an HTTP request `path` (parameters) and `query`.
fn context(message: &Message) -> Value {
    let meta = message.parse_meta().unwrap_or_default();
    let payload: Option<Json> = serde_json::from_slice(&message.data).ok();
    let (path, query) = http(&meta);
    Value::from(BTreeMap::from([
        ("id", Value::from(&*message.id)),
        ("type", Value::from(&*message.kind)),
        (
            "payload",
            payload.map_or(Value::UNDEFINED, Value::from_serialize),
        ),
        ("path", path),
        ("query", query),
        ("meta", Value::from_serialize(&meta)),
    ]))
}

fn http(meta: &Meta) -> (Value, Value) {
    let Some(http) = &meta.http else {
        return (Value::UNDEFINED, Value::UNDEFINED);
    };
    let query: BTreeMap<String, String> = form_urlencoded(&http.query);
    (
        Value::from_serialize(&http.params),
        Value::from_serialize(query),
    )
}

fn form_urlencoded(query: &str) -> BTreeMap<String, String> {
    serde_urlencoded::from_str(query).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, payload: &str) -> String {
        let template = Template::parse(template).unwrap();
        let bytes = template
            .render(&Message::new("greet", payload.to_owned()))
            .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn strings_are_rendered_and_the_rest_stays() {
        assert_eq!(
            render(
                r#"{"howdy":"there, {{ payload.name | default("stranger") }}","n":[1,null]}"#,
                r#"{"name":"Ada"}"#
            ),
            r#"{"howdy":"there, Ada","n":[1,null]}"#
        );
    }

    #[test]
    fn quotes_may_be_escaped_within_an_expression_and_need_not_be() {
        for template in [
            r#"{"a":{"b":"{{ payload.x | default("y") }}"}}"#,
            r#"{"a":{"b":"{{ payload.x | default(\"y\") }}"}}"#,
            r#"{"a":{"b":"{% if payload.x == "x" %}{% else %}y{% endif %}"}}"#,
        ] {
            assert_eq!(render(template, ""), r#"{"a":{"b":"y"}}"#, "{template}");
        }
    }

    #[test]
    fn what_is_missing_has_its_default() {
        for payload in ["", "{}", "null", "not json", "[]", "3"] {
            assert_eq!(
                render(
                    r#""there, {{ payload.name | default("stranger") }}""#,
                    payload
                ),
                r#""there, stranger""#,
                "{payload:?}"
            );
        }
    }

    #[test]
    fn a_single_expression_keeps_its_type() {
        assert_eq!(
            render(
                r#"{"a":"{{payload.n}}","b":"{{ payload.n + 1 }}","c":"{{payload}}","d":"{{payload.x}}","e":"{{payload.n}} "}"#,
                r#"{"n":41}"#
            ),
            r#"{"a":41,"b":42,"c":{"n":41},"d":null,"e":41}"#
        );
        assert_eq!(
            render(r#"["{{- payload.n -}}","{{ -1 }}"]"#, r#"{"n":41}"#),
            r#"["41",-1]"#
        );
    }

    #[test]
    fn a_payload_cannot_change_the_shape_of_the_reply() {
        let payload = r#"{"name":"\",\"admin\":true,\"x\":\"{{ id }}"}"#;
        let reply: Json =
            serde_json::from_str(&render(r#"{"hi":"{{payload.name}}!"}"#, payload)).unwrap();
        assert_eq!(
            reply,
            serde_json::json!({"hi": r#"","admin":true,"x":"{{ id }}!"#})
        );
    }

    #[test]
    fn path_and_query_of_a_request_are_there() {
        let meta = Meta {
            http: Some(streamerson_core::meta::Http {
                params: BTreeMap::from([("id".to_owned(), "7".to_owned())]),
                query: "q=a%20b&q2=".into(),
                ..Default::default()
            }),
            ..Meta::default()
        };
        let template = Template::parse(r#""{{path.id}} {{query.q}} {{type}}""#).unwrap();
        let reply = template
            .render(&Message::new("find", "").with_meta(&meta))
            .unwrap();
        assert_eq!(reply, br#""7 a b find""#);
    }

    #[test]
    fn a_template_that_cannot_be_read_is_refused_at_the_start() {
        for template in [
            "",
            "{hi}",
            r#""{{ a b }}""#,
            r#""{{ a ] }}""#,
            r#""{{ a } }}""#,
            r#""{% if %}""#,
            r#""{{""#,
        ] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }
}
