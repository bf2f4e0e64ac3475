//! `SELECT event, count(*) … GROUP BY event` by hand: no row is ever built.
//!
//! Exact means: the whole message must be valid JSON to its end; a field's name matches in any
//! case and the last of several wins; an escaped string is the string it stands for; numbers and
//! booleans count as their text, a missing field or null as NULL.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Events by value, and the messages that could not be decoded.
#[derive(Default)]
pub struct Counts {
    /// Few values are expected: the search is linear, and the last hit is tried first.
    by_event: Vec<(Box<str>, u64)>,
    last: usize,
    pub null: u64,
    pub undecodable: u64,
}

/// The library that decodes: which is faster depends on the processor.
#[derive(Clone, Copy, Debug)]
pub enum Parser {
    SerdeJson,
    SonicRs,
}

impl Parser {
    /// Both, by the names that `hand_count` knows them by.
    pub const ALL: [(&str, Parser); 2] = [
        ("serde_json", Parser::SerdeJson),
        ("sonic-rs", Parser::SonicRs),
    ];
}

/// What a message says about its event.
enum Event<'a> {
    Null,
    Borrowed(&'a str),
    Owned(String),
    /// An object or array, which is no text.
    Unfit,
}

impl Counts {
    /// Counts one message, decoded by `parser`.
    pub fn add(&mut self, message: &[u8], parser: Parser) {
        let decoded = match parser {
            Parser::SerdeJson => serde_json::from_slice::<Message<'_>>(message).ok(),
            Parser::SonicRs => sonic_rs::from_slice::<Message<'_>>(message).ok(),
        };
        match decoded.map(|Message(event)| event) {
            Some(Event::Null) => self.null += 1,
            Some(Event::Borrowed(text)) => self.add_event(text),
            Some(Event::Owned(text)) => self.add_event(&text),
            Some(Event::Unfit) => {
                self.null += 1;
                self.undecodable += 1;
            }
            None => self.undecodable += 1,
        }
    }

    /// Each event with its count, in order.
    pub fn events(&self) -> Vec<(&str, u64)> {
        let mut events: Vec<_> = self.by_event.iter().map(|(k, n)| (&**k, *n)).collect();
        events.sort_unstable();
        events
    }

    fn add_event(&mut self, text: &str) {
        if let Some((key, count)) = self.by_event.get_mut(self.last)
            && **key == *text
        {
            *count += 1;
            return;
        }
        match self.by_event.iter().position(|(key, _)| **key == *text) {
            Some(found) => {
                self.last = found;
                self.by_event[found].1 += 1;
            }
            None => self.by_event.push((text.into(), 1)),
        }
    }
}

struct Message<'a>(Event<'a>);

impl<'de> Deserialize<'de> for Message<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MessageVisitor)
    }
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = Message<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message<'de>, A::Error> {
        let mut event = Event::Null;
        while let Some(IsEvent(is_event)) = map.next_key()? {
            if is_event {
                event = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Message(event))
    }
}

/// Whether a field's name is `event`.
struct IsEvent(bool);

impl<'de> Deserialize<'de> for IsEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = IsEvent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E>(self, name: &str) -> Result<IsEvent, E> {
                Ok(IsEvent(name.eq_ignore_ascii_case("event")))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

impl<'de> Deserialize<'de> for Event<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Event<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Event<'de>, E> {
        Ok(Event::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Event<'de>, E> {
        Ok(Event::Owned(text.into()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Event<'de>, E> {
        Ok(Event::Owned(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Event<'de>, E> {
        Ok(Event::Owned(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Event<'de>, E> {
        Ok(Event::Owned(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Event<'de>, E> {
        Ok(Event::Owned(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Event<'de>, E> {
        Ok(Event::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Event<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Event::Unfit)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Event::Unfit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted_by(messages: &[&str], parser: Parser) -> (Vec<(String, u64)>, u64, u64) {
        let mut counts = Counts::default();
        messages
            .iter()
            .for_each(|message| counts.add(message.as_bytes(), parser));
        let events = counts
            .events()
            .into_iter()
            .map(|(k, n)| (k.to_string(), n))
            .collect();
        (events, counts.null, counts.undecodable)
    }

    /// What both parsers make of the messages: the same.
    fn counted(messages: &[&str]) -> (Vec<(String, u64)>, u64, u64) {
        let [one, other] = Parser::ALL.map(|(_, parser)| counted_by(messages, parser));
        assert_eq!(one, other);
        one
    }

    #[test]
    fn names_in_any_case_escapes_and_repeats() {
        let (events, null, undecodable) = counted(&[
            r#"{"event": "click", "user": {"event": "inner"}}"#,
            r#" {"a": [1, {"b": null}], "EVENT": "click"} "#,
            r#"{"event": "scroll", "event": "click"}"#,
            r#"{"\u0065vent": "c\u006cick"}"#,
            r#"{"event": 7}"#,
            r#"{"event": true}"#,
        ]);
        assert_eq!(
            events,
            [("7".into(), 1), ("click".into(), 4), ("true".into(), 1)]
        );
        assert_eq!((null, undecodable), (0, 0));
    }

    #[test]
    fn nothing_and_broken() {
        let (events, null, undecodable) = counted(&[
            r#"{"event": null}"#,
            "{}",
            r#"{"event": ["x"]}"#,
            r#"{"event": "click""#,
            r#"{"event": "click"} x"#,
            r#"{"event": "click", "n": 01}"#,
            "no JSON",
            "",
        ]);
        assert_eq!(events, []);
        assert_eq!((null, undecodable), (3, 6));
    }
}
