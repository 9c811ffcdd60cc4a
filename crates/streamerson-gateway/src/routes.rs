//! The route table: from method and path to a route.

use std::collections::BTreeMap;

use http::{HeaderValue, Method};

use crate::codes;
use crate::config::Route;
use crate::problem::Failure;

/// Finds routes by method and canonical path. Its entries are indices into the list it was made from.
#[derive(Debug)]
pub(crate) struct RouteTable {
    paths: matchit::Router<Methods>,
}

/// The methods of one path.
#[derive(Debug)]
struct Methods {
    routes: Vec<(Method, usize)>,
    allow: HeaderValue,
}

/// A matched request.
#[derive(Debug)]
pub(crate) struct Matched<'a> {
    pub(crate) route: usize,
    /// The path, canonical and percent-encoded.
    pub(crate) path: &'a str,
    pub(crate) params: matchit::Params<'a, 'a>,
    /// The method as the route names it: GET also for HEAD.
    pub(crate) method: &'a Method,
}

/// What a method and path lead to.
pub(crate) enum Found<'a> {
    /// A route.
    Route(Matched<'a>),
    /// A question for the methods of a path.
    Options(&'a HeaderValue),
}

/// A route that cannot be: its place in the list, that of the one it collides with, and why.
#[derive(Debug)]
pub(crate) struct Conflict {
    pub(crate) route: usize,
    pub(crate) with: Option<usize>,
    pub(crate) problem: String,
}

impl RouteTable {
    /// A table of `routes`, in which no two serve the same method and path.
    pub(crate) fn new<'a>(
        routes: impl IntoIterator<Item = &'a Route>,
    ) -> Result<RouteTable, Conflict> {
        let mut by_path: BTreeMap<&str, Vec<(Method, usize)>> = BTreeMap::new();
        for (at, route) in routes.into_iter().enumerate() {
            check_key(at, route)?;
            let served = by_path.entry(&route.path).or_default();
            for method in &route.methods {
                if let Some((_, with)) = served.iter().find(|(taken, _)| taken == method) {
                    return Err(Conflict {
                        route: at,
                        with: Some(*with),
                        problem: format!("two routes serve {method} {}", route.path),
                    });
                }
                served.push((method.clone(), at));
            }
        }
        let mut paths = matchit::Router::new();
        for (path, routes) in &by_path {
            check_path(path, routes)?;
            let methods = Methods {
                allow: allow(routes),
                routes: routes.clone(),
            };
            paths
                .insert(*path, methods)
                .map_err(|error| refused(path, &error, &by_path))?;
        }
        Ok(RouteTable { paths })
    }

    /// What `method` and `path` lead to.
    pub(crate) fn find<'a>(
        &'a self,
        method: &'a Method,
        path: &'a str,
    ) -> Result<Found<'a>, Failure> {
        let matched = self.paths.at(path).map_err(|_| {
            Failure::new(
                codes::ROUTE_NOT_FOUND,
                format!("nothing is served at {path}"),
            )
        })?;
        let Methods { routes, allow } = matched.value;
        let serving = |wanted: &Method| routes.iter().find(|(method, _)| method == wanted);
        let found = serving(method).or_else(|| match *method {
            Method::HEAD => serving(&Method::GET),
            _ => None,
        });
        match found {
            Some((method, route)) => Ok(Found::Route(Matched {
                route: *route,
                path,
                params: matched.params,
                method,
            })),
            None if *method == Method::OPTIONS => Ok(Found::Options(allow)),
            None => Err(Failure::new(
                codes::METHOD_NOT_ALLOWED,
                format!("{path} does not serve {method}"),
            )
            .with_allow(allow)),
        }
    }
}

/// Whether `routes` can be served together.
pub(crate) fn check<'a>(routes: impl IntoIterator<Item = &'a Route>) -> Result<(), Conflict> {
    RouteTable::new(routes).map(|_| ())
}

/// The names of the parameters of a path.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    let names = path.split('{').skip(1);
    let names = names.filter_map(|rest| rest.split('}').next());
    names.map(|name| name.strip_prefix('*').unwrap_or(name))
}

/// What messages have as their key has to be there.
fn check_key(at: usize, route: &Route) -> Result<(), Conflict> {
    let Route { path, key, .. } = route;
    match key {
        Some(key) if parameters(path).all(|name| name != key) => Err(Conflict {
            route: at,
            with: None,
            problem: format!("the path {path} has no parameter {{{key}}} for the key"),
        }),
        _ => Ok(()),
    }
}

/// Requests are refused for some paths. Parameter names become keys of the message's meta, and are written there as they are.
fn check_path(path: &str, routes: &[(Method, usize)]) -> Result<(), Conflict> {
    if let Err(why) = crate::path::canonical(path) {
        return Err(Conflict {
            route: routes.first().map_or(0, |(_, at)| *at),
            with: None,
            problem: format!("the path {path} is not valid, no request reaches it: {why}"),
        });
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    for name in parameters(path) {
        if !name.chars().all(plain) {
            return Err(Conflict {
                route: routes.first().map_or(0, |(_, at)| *at),
                with: None,
                problem: format!(
                    "the path {path} is not valid: a parameter name is of A-Z a-z 0-9 . _ -, and {name:?} is not"
                ),
            });
        }
    }
    Ok(())
}

fn refused(
    path: &str,
    error: &matchit::InsertError,
    by_path: &BTreeMap<&str, Vec<(Method, usize)>>,
) -> Conflict {
    let place = |path: &str| by_path.get(path)?.first().map(|(_, at)| *at);
    let at = place(path).unwrap_or_default();
    match error {
        matchit::InsertError::Conflict { with } => {
            let other = place(with).unwrap_or(at);
            Conflict {
                route: at.max(other),
                with: Some(at.min(other)),
                problem: format!(
                    "{path} and {with} match the same requests: give their parameters the same names"
                ),
            }
        }
        error => Conflict {
            route: at,
            with: None,
            problem: format!("the path {path} is not valid: {}", remedy(error)),
        },
    }
}

fn remedy(error: &matchit::InsertError) -> &'static str {
    match error {
        matchit::InsertError::InvalidParamSegment => "a segment holds at most one parameter",
        matchit::InsertError::InvalidCatchAll => {
            "a parameter like {*rest} must be the last segment"
        }
        _ => "write a parameter as {name}, and the rest of a path as {*name}",
    }
}

fn allow(routes: &[(Method, usize)]) -> HeaderValue {
    let mut names: Vec<&str> = routes.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.push("OPTIONS");
    names.sort_unstable();
    names.dedup();
    // Methods are tokens, which are valid header values.
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::Topic;

    fn route(methods: &[Method], path: &str) -> Route {
        let mut route = Route::new(path, Topic::new("t").unwrap(), "k");
        route.methods = methods.to_vec();
        route
    }

    fn shop() -> RouteTable {
        RouteTable::new(&[
            route(&[Method::GET], "/orders"),
            route(&[Method::POST], "/orders"),
            route(&[Method::GET, Method::DELETE], "/orders/{id}"),
            route(&[Method::GET], "/orders/latest"),
            route(&[Method::GET], "/files/{*rest}"),
        ])
        .unwrap()
    }

    fn found(table: &RouteTable, method: Method, path: &str) -> Option<(usize, Vec<String>)> {
        match table.find(&method, path) {
            Ok(Found::Route(matched)) => {
                let values = matched.params.iter().map(|(_, value)| value.to_owned());
                Some((matched.route, values.collect()))
            }
            _ => None,
        }
    }

    #[test]
    fn a_request_finds_the_route_of_its_method_and_the_most_literal_path() {
        let table = shop();
        assert_eq!(found(&table, Method::GET, "/orders"), Some((0, vec![])));
        assert_eq!(found(&table, Method::POST, "/orders"), Some((1, vec![])));
        assert_eq!(
            found(&table, Method::DELETE, "/orders/7"),
            Some((2, vec!["7".into()]))
        );
        assert_eq!(
            found(&table, Method::GET, "/orders/latest"),
            Some((3, vec![]))
        );
        assert_eq!(
            found(&table, Method::GET, "/orders/a%2Fb"),
            Some((2, vec!["a%2Fb".into()]))
        );
        assert_eq!(
            found(&table, Method::GET, "/files/a/b"),
            Some((4, vec!["a/b".into()]))
        );
        assert_eq!(found(&table, Method::GET, "/orders/"), None);
        assert_eq!(found(&table, Method::GET, "/"), None);
    }

    #[test]
    fn head_goes_where_get_goes() {
        assert_eq!(found(&shop(), Method::HEAD, "/orders"), Some((0, vec![])));
        let table = shop();
        let Ok(Found::Route(matched)) = table.find(&Method::HEAD, "/orders") else {
            panic!("not found");
        };
        assert_eq!(matched.method, Method::GET);
    }

    #[test]
    fn other_methods_are_told_what_is_allowed() {
        let table = shop();
        let refused = table.find(&Method::PUT, "/orders").err().unwrap();
        assert_eq!(refused.code, codes::METHOD_NOT_ALLOWED);
        let response = refused.into_response("id");
        assert_eq!(response.headers()["allow"], "GET, HEAD, OPTIONS, POST");
        let Ok(Found::Options(allow)) = table.find(&Method::OPTIONS, "/orders/7") else {
            panic!("OPTIONS is not answered");
        };
        assert_eq!(allow, "DELETE, GET, HEAD, OPTIONS");
    }

    #[test]
    fn routes_that_cannot_both_be_are_named() {
        let twice = [
            route(&[Method::GET], "/a"),
            route(&[Method::POST, Method::GET], "/a"),
        ];
        let conflict = RouteTable::new(&twice).unwrap_err();
        assert_eq!((conflict.route, conflict.with), (1, Some(0)));
        assert_eq!(conflict.problem, "two routes serve GET /a");

        let renamed = [
            route(&[Method::GET], "/a/{y}"),
            route(&[Method::POST], "/a/{x}"),
        ];
        let conflict = RouteTable::new(&renamed).unwrap_err();
        assert_eq!(
            (conflict.route, conflict.with),
            (1, Some(0)),
            "{conflict:?}"
        );

        for path in [
            "/{*rest}/a",
            "/a{",
            "/{}",
            "/{a}-{b}",
            "/{a\"b}",
            "/{*a b}",
            "/a/../b",
            "/a/%2e/b",
        ] {
            let conflict = RouteTable::new(&[route(&[Method::GET], path)]).unwrap_err();
            assert!(
                conflict.problem.contains("is not valid"),
                "{path}: {conflict:?}"
            );
        }
    }
}
