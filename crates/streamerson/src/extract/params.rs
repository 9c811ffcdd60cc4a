//! Path parameters, which are text, as the types a handler wants.

use std::collections::BTreeMap;

use serde::Deserializer;
use serde::de::value::{Error, MapDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// Reads `params` as a struct or map by name, or the only one as a single value.
pub(super) fn from_params<T: DeserializeOwned>(
    params: &BTreeMap<String, String>,
) -> Result<T, serde_path_to_error::Error<Error>> {
    serde_path_to_error::deserialize(Params(params))
}

struct Params<'de>(&'de BTreeMap<String, String>);

impl<'de> Params<'de> {
    fn single(&self) -> Result<Text<'de>, Error> {
        match (self.0.values().next(), self.0.len()) {
            (Some(value), 1) => Ok(Text(value)),
            (_, count) => Err(de::Error::custom(format!(
                "it has {count} parameters, and a single value was asked for; name them in a struct"
            ))),
        }
    }
}

macro_rules! single {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.single()?.$method(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Params<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let entries = self
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), Text(value)));
        visitor.visit_map(MapDeserializer::new(entries))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.single()?.deserialize_enum(name, variants, visitor)
    }

    single! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
    }

    forward_to_deserialize_any! {
        option unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// One parameter.
#[derive(Clone, Copy)]
struct Text<'de>(&'de str);

impl<'de> IntoDeserializer<'de, Error> for Text<'de> {
    type Deserializer = Text<'de>;

    fn into_deserializer(self) -> Text<'de> {
        self
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let value = self.0.parse::<$type>().map_err(|error| {
                de::Error::custom(format!("{:?} is not a {}: {error}", self.0, stringify!($type)))
            })?;
            visitor.$visit(value)
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    parsed! {
        deserialize_bool visit_bool bool,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64,
        deserialize_char visit_char char,
    }

    forward_to_deserialize_any! {
        str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    fn params(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Color {
        Red,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Item {
        id: u64,
        name: String,
        color: Color,
        page: Option<u8>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Id(u64);

    #[test]
    fn structs_are_read_by_name_with_their_types() {
        let item: Item =
            from_params(&params(&[("id", "7"), ("name", "42"), ("color", "red")])).unwrap();
        assert_eq!(
            item,
            Item {
                id: 7,
                name: "42".into(),
                color: Color::Red,
                page: None
            }
        );
    }

    #[test]
    fn the_only_parameter_is_a_single_value() {
        let one = params(&[("id", "7")]);
        assert_eq!(from_params::<u64>(&one).unwrap(), 7);
        assert_eq!(from_params::<String>(&one).unwrap(), "7");
        assert_eq!(from_params::<Id>(&one).unwrap(), Id(7));
        let color: Color = from_params(&params(&[("c", "red")])).unwrap();
        assert_eq!(color, Color::Red);
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_says_so() {
        let error = from_params::<u64>(&params(&[("id", "x")]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"x\" is not a u64"), "{error}");
        let error = from_params::<u64>(&params(&[("a", "1"), ("b", "2")]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("2 parameters"), "{error}");
        assert!(from_params::<Item>(&params(&[("id", "7")])).is_err());
        assert!(from_params::<(u8, u8)>(&params(&[("a", "1"), ("b", "2")])).is_err());
    }
}
