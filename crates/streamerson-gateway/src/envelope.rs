//! From a request to a message: the `meta` that a worker sees.
//!
//! Every request passes here, so its JSON is written straight from what is borrowed: nothing is built to be thrown away.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use http::HeaderName;
use http::request::Parts;

use crate::codes;
use crate::config::{Route, Target};
use crate::headers::RequestHeaders;
use crate::json;
use crate::path;
use crate::problem::Failure;
use crate::routes::Matched;

/// Data up to this size moves next to the other fields. Who waits for the reply keeps it, with the id.
const BESIDE: usize = 1 << 10;

/// Data up to this size is copied: cheaper than the buffer that it would keep.
const COPIED: usize = 4 << 10;

/// The fields of a message that a request tells; the type is empty when it does not.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) id: ByteString,
    pub(crate) kind: ByteString,
    pub(crate) meta: Bytes,
    pub(crate) data: Bytes,
}

/// What of a request goes into `meta`; borrowed, because it lives only until it is written.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    headers: &'a RequestHeaders<'a>,
    matched: &'a Matched<'a>,
    query: &'a str,
    key: Option<&'a str>,
    with_params: bool,
}

impl<'a> Envelope<'a> {
    /// The envelope of a request with `head`, as it matched `route`.
    pub(crate) fn new(
        head: &'a Parts,
        headers: &'a RequestHeaders<'a>,
        matched: &'a Matched<'a>,
        route: &Route,
    ) -> Envelope<'a> {
        let key = route.key.as_deref();
        Envelope {
            key: key.and_then(|key| matched.params.get(key)),
            headers,
            matched,
            query: head.uri.query().unwrap_or_default(),
            // Who chose the target by the path has the parameters in topic and type already.
            with_params: route.target != Target::Named,
        }
    }

    /// Writes the fields of the message `id`, with its type where the request says that, and with a deadline in
    /// milliseconds since 1970.
    ///
    /// They share one piece of memory. Small data moves in as well: left where it is, it would keep the read buffer of its
    /// connection, a hundred times as large, and the connection would have to get another one for its next request.
    pub(crate) fn encode(
        &self,
        id: &str,
        kind: Option<&str>,
        exp: Option<u64>,
        data: Bytes,
    ) -> Result<Encoded, Failure> {
        let moves = data.len() <= BESIDE;
        let kind = kind.unwrap_or_default();
        let mut room = 192 + id.len() + kind.len() + self.matched.path.len() + self.query.len();
        if moves {
            room += data.len();
        }
        let mut all = Vec::with_capacity(room);
        all.extend_from_slice(id.as_bytes());
        all.extend_from_slice(kind.as_bytes());
        let before = all.len();
        self.write_meta(exp, &mut all)?;
        let meta = all.len() - before;
        if moves {
            all.extend_from_slice(&data);
        }
        let mut rest = Bytes::from(all);
        let mut text = |length| ByteString::try_from(rest.split_to(length)).unwrap_or_default();
        let id = text(id.len());
        let kind = text(kind.len());
        let meta = rest.split_to(meta);
        let data = match data.len() {
            _ if moves => rest,
            ..=COPIED => Bytes::copy_from_slice(&data),
            _ => data,
        };
        Ok(Encoded {
            id,
            kind,
            meta,
            data,
        })
    }

    fn write_meta(&self, exp: Option<u64>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let Matched { path, method, .. } = self.matched;
        let mut object = Object::begin(out);
        if let Some(exp) = exp {
            object.number("exp", exp);
        }
        if let Some(key) = self.key {
            object.text("key", &decoded(key)?);
        }
        if let Some(ctype) = self.headers.content_type.filter(|it| !json::is_plain(it)) {
            object.text("ctype", ctype);
        }
        if let Some(trace) = self.headers.trace {
            object.text("trace", trace);
        }
        if !self.headers.passed_on.is_empty() {
            write_headers(object.object("hdr"), &self.headers.passed_on);
        }
        let mut http = object.object("http");
        http.text("method", method.as_str());
        http.text("path", path);
        if self.with_params && !self.matched.params.is_empty() {
            let mut params = http.object("params");
            for (name, value) in self.matched.params.iter() {
                params.text(name, &decoded(value)?);
            }
            params.end();
        }
        if !self.query.is_empty() {
            http.text("query", self.query);
        }
        http.end();
        object.end();
        Ok(())
    }
}

fn decoded(parameter: &str) -> Result<Cow<'_, str>, Failure> {
    path::decode(parameter).map_err(|why| Failure::new(codes::INVALID_PATH, why))
}

/// Writes headers whose equal names are neighbours: one value as a text, several as a list.
fn write_headers(mut object: Object<'_>, headers: &[(&HeaderName, &str)]) {
    for values in headers.chunk_by(|(a, _), (b, _)| a == b) {
        match values {
            [(name, value)] => object.text(name.as_str(), value),
            [(name, _), ..] => object.texts(name.as_str(), values.iter().map(|(_, value)| *value)),
            [] => (),
        }
    }
    object.end();
}

/// A JSON object in the making.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object {
            out,
            is_empty: true,
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        write(self.out, &number);
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        write(self.out, text);
    }

    fn texts<'t>(&mut self, name: &str, texts: impl Iterator<Item = &'t str>) {
        self.name(name);
        self.out.push(b'[');
        for (at, text) in texts.enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            write(self.out, text);
        }
        self.out.push(b']');
    }

    fn object(&mut self, name: &str) -> Object<'_> {
        self.name(name);
        Object::begin(self.out)
    }

    fn end(self) {
        self.out.push(b'}');
    }

    /// Writes a name as it is: ours, those of headers and those of parameters hold nothing to escape.
    fn name(&mut self, name: &str) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Texts and numbers cannot fail to encode, nor memory to be written to.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Found, RouteTable};
    use http::Request;
    use streamerson_core::{Meta, Topic};

    fn meta(request: http::request::Builder, allowed: &[HeaderName]) -> Result<Meta, Failure> {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let mut route = Route::new("/orders/{id}", Topic::new("orders").unwrap(), "order.read");
        route.headers = allowed.to_vec();
        route.methods = vec![head.method.clone()];
        let table = RouteTable::new([&route]).unwrap();
        let Found::Route(matched) = table.find(&head.method, head.uri.path())? else {
            panic!("not a route");
        };
        let headers = RequestHeaders::read(http::Version::HTTP_2, &head.headers, &route.headers)?;
        let envelope = Envelope::new(&head, &headers, &matched, &route);
        let data = Bytes::from_static(b"[1]");
        let encoded = envelope.encode("id-1", Some("order.read"), Some(5), data)?;
        assert_eq!(encoded.id, "id-1");
        assert_eq!(encoded.kind, "order.read");
        assert_eq!(encoded.data, "[1]");
        Ok(Meta::decode(&encoded.meta).unwrap())
    }

    #[test]
    fn a_worker_sees_method_path_decoded_parameters_and_raw_query() {
        let request = Request::builder()
            .method("PUT")
            .uri("/orders/a%2Fb%20%C3%A4?x=%20&y");
        let http = meta(request, &[]).unwrap().http.unwrap();
        assert_eq!(
            (http.method.as_str(), http.query.as_str()),
            ("PUT", "x=%20&y")
        );
        assert_eq!(http.path, "/orders/a%2Fb%20%C3%A4");
        assert_eq!(http.params["id"], "a/b ä");
    }

    #[test]
    fn only_allowed_headers_are_passed_on_with_all_their_values() {
        let request = Request::builder()
            .uri("/orders/7")
            .header("authorization", "Bearer secret")
            .header("cookie", "session=secret")
            .header("accept", "text/plain")
            .header("accept", "a\"b");
        let meta = meta(request, &[http::header::ACCEPT]).unwrap();
        let seen: Vec<_> = meta.hdr.iter().collect();
        assert_eq!(seen, [("accept", "text/plain"), ("accept", "a\"b")]);
    }

    #[test]
    fn the_content_type_is_told_when_it_is_not_json() {
        for (given, told) in [
            ("application/json", None),
            ("Application/JSON; charset=UTF-8", None),
            (
                "application/json; profile=x",
                Some("application/json; profile=x"),
            ),
            ("text/csv", Some("text/csv")),
        ] {
            let request = Request::builder()
                .uri("/orders/7")
                .header("content-type", given);
            assert_eq!(
                meta(request, &[]).unwrap().ctype.as_deref(),
                told,
                "{given}"
            );
        }
    }
}
