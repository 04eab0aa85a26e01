//! Parts of an event that are kept as their JSON text until somebody looks into them.
//!
//! Most of an event's bytes are source lines and variables, and between the socket and the disk
//! nobody needs them as maps and lists.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use serde_json::Value;

use crate::Object;
use crate::json::Reader;
use crate::plain::{self, Piece, Plain};

/// A value that is read from its JSON text when it is first looked at.
///
/// It behaves like the value itself. Text is only kept as it was sent where it is plain JSON, so
/// that nothing of what [`crate::Event::decode`] forgives or notes is put off; changing the value
/// forgets the text.
///
/// # Example
///
/// ```
/// use backstop_protocol::Event;
///
/// let mut event = Event::decode(br#"{"extra": {"rows": 3, "user": "ann"}}"#).unwrap();
/// assert!(event.extra.is_unread());
/// assert_eq!(event.extra["rows"], 3);
/// event.extra.remove("user");
/// assert!(!event.extra.is_unread());
/// ```
#[derive(Clone, Default)]
pub struct Lazy<T> {
    text: Option<Box<str>>,
    value: OnceLock<T>,
    may_name_secret: bool,
}

/// What can be kept unread.
pub trait Unread: Default {
    /// Reads the value from text that [`Reader::plain`] has looked through.
    #[doc(hidden)]
    fn of_text(text: &str) -> Option<Self>;
}

impl Unread for Object {
    fn of_text(text: &str) -> Option<Object> {
        Reader::new(text).members().ok()
    }
}

impl Unread for Value {
    fn of_text(text: &str) -> Option<Value> {
        Reader::new(text).value().ok()
    }
}

impl Unread for Vec<String> {
    fn of_text(text: &str) -> Option<Vec<String>> {
        let mut lines = Vec::new();
        Reader::new(text).lines(&mut lines).ok()?;
        Some(lines)
    }
}

impl<T> Lazy<T> {
    pub(crate) fn unread(plain: Plain<'_>) -> Lazy<T> {
        Lazy {
            text: Some(plain.text.into()),
            value: OnceLock::new(),
            may_name_secret: plain.may_name_secret,
        }
    }

    /// Returns the JSON text as it was sent, while the value was not changed.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Says whether the text is still there as it was sent.
    pub fn is_unread(&self) -> bool {
        self.text.is_some()
    }

    /// Says whether a name inside it may be one of which [`crate::secret::is_name`] says yes.
    ///
    /// While the text is there, that was seen when it was looked through, and is wrong only by
    /// saying yes too often; else it is always true.
    pub fn may_name_secret(&self) -> bool {
        self.text.is_none() || self.may_name_secret
    }
}

impl<T: Unread> Lazy<T> {
    /// Returns the value, which is read now if it was not before.
    pub fn get_ref(&self) -> &T {
        self.value.get_or_init(|| {
            // Text is only kept after it was looked through, so it can be read.
            let text = self.text.as_deref();
            text.and_then(T::of_text).unwrap_or_default()
        })
    }

    /// Returns the value for changing it.
    pub fn get_mut(&mut self) -> &mut T {
        self.get_ref();
        self.text = None;
        self.value.get_mut().expect("the value was read just now")
    }

    /// Returns the value.
    pub fn into_inner(mut self) -> T {
        std::mem::take(self.get_mut())
    }

    /// Goes through the names and, if `texts` says so, the texts of the value in their order until
    /// `found` says yes, and says whether it did. `None` if the value was read: then it is to be
    /// looked at itself.
    ///
    /// Names and texts inside lists and objects are among them; numbers are not.
    pub fn any_piece(&self, texts: bool, mut found: impl FnMut(Piece<'_>) -> bool) -> Option<bool> {
        let text = self.text.as_deref()?;
        Some(plain::any_piece(text, texts, &mut found))
    }
}

impl Lazy<Object> {
    /// Says whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        // Text is only kept of objects that have members.
        self.text.is_none() && self.value.get().is_none_or(Object::is_empty)
    }

    /// Returns some of the members, without reading the others if the value is unread.
    ///
    /// # Example
    ///
    /// ```
    /// use backstop_protocol::Event;
    ///
    /// let wire = br#"{"contexts": {"os": {"name": "Linux"}, "runtime": {"name": "rustc"}}}"#;
    /// let event = Event::decode(wire).unwrap();
    /// let [os, gpu] = event.contexts.pick(["os", "gpu"]);
    /// assert_eq!(os.unwrap()["name"], "Linux");
    /// assert_eq!(gpu, None);
    /// ```
    pub fn pick<const N: usize>(&self, names: [&str; N]) -> [Option<Value>; N] {
        match (self.value.get(), &self.text) {
            (None, Some(text)) => Reader::new(text).pick(names).unwrap_or([const { None }; N]),
            _ => names.map(|name| self.get_ref().get(name).cloned()),
        }
    }
}

impl Lazy<Vec<String>> {
    /// Says whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.text.is_none() && self.value.get().is_none_or(Vec::is_empty)
    }
}

impl<T: Unread> Deref for Lazy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.get_ref()
    }
}

impl<T: Unread> DerefMut for Lazy<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.get_mut()
    }
}

impl<T> From<T> for Lazy<T> {
    fn from(value: T) -> Lazy<T> {
        Lazy {
            text: None,
            value: OnceLock::from(value),
            may_name_secret: true,
        }
    }
}

impl<T: Unread + PartialEq> PartialEq for Lazy<T> {
    fn eq(&self, other: &Lazy<T>) -> bool {
        let same_text = self.text.is_some() && self.text == other.text;
        same_text || self.get_ref() == other.get_ref()
    }
}

impl<T: Unread + PartialEq> PartialEq<T> for Lazy<T> {
    fn eq(&self, other: &T) -> bool {
        self.get_ref() == other
    }
}

impl<T: Unread + fmt::Debug> fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get_ref().fmt(f)
    }
}

impl<T: Unread> IntoIterator for Lazy<T>
where
    T: IntoIterator,
{
    type Item = T::Item;
    type IntoIter = T::IntoIter;

    fn into_iter(self) -> T::IntoIter {
        self.into_inner().into_iter()
    }
}

impl<'a, T: Unread> IntoIterator for &'a Lazy<T>
where
    &'a T: IntoIterator,
{
    type Item = <&'a T as IntoIterator>::Item;
    type IntoIter = <&'a T as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.get_ref().into_iter()
    }
}

impl<'a, T: Unread> IntoIterator for &'a mut Lazy<T>
where
    &'a mut T: IntoIterator,
{
    type Item = <&'a mut T as IntoIterator>::Item;
    type IntoIter = <&'a mut T as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.get_mut().into_iter()
    }
}

impl<T: Unread, A> FromIterator<A> for Lazy<T>
where
    T: FromIterator<A>,
{
    fn from_iter<I: IntoIterator<Item = A>>(items: I) -> Lazy<T> {
        Lazy::from(items.into_iter().collect::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::{Event, Frame};

    fn vars(wire: &str) -> Lazy<Object> {
        let wire = format!(r#"{{"stacktrace": {{"frames": [{{"vars": {wire}}}]}}}}"#);
        let event = Event::decode(wire.as_bytes()).unwrap();
        let written = event.encode();
        assert_eq!(Event::decode(&written).as_ref(), Ok(&event));
        assert_eq!(
            serde_json::from_slice::<Value>(&written).unwrap(),
            serde_json::to_value(&event).unwrap()
        );
        event.stacktrace.unwrap().frames.remove(0).vars
    }

    #[test]
    fn plain_text_is_kept_and_read_when_asked() {
        for wire in [
            r#"{"a":1}"#,
            r#"{"a":{"b":[1,-2,0.5,true,false,null,"\n\u00e9\ud83d\udca9\u0000"]},"a ":{}}"#,
            " { \"a\" : [ ] , \"b\" : { } } ",
            r#"{"a":123456789012345678,"b":-1.25}"#,
            r#"{"a":1,"a":2}"#,
        ] {
            let vars = vars(wire);
            assert!(vars.is_unread(), "{wire}");
            assert_eq!(
                Value::Object(vars.into_inner()),
                serde_json::from_str::<Value>(wire).unwrap()
            );
        }
    }

    #[test]
    fn text_that_is_not_plain_is_read_at_once() {
        for (wire, expected) in [
            ("{}", json!({})),
            ("null", json!({})),
            (r#"[["a",1]]"#, json!({"a": 1})),
            (r#"{"a":NaN}"#, json!({"a": "NaN"})),
            (r#"{"a":1e999}"#, json!({"a": "1e999"})),
            (r#"{"a":"\ud83d"}"#, json!({"a": "\u{fffd}"})),
            (r#"{"a":"\ud83d\u0041"}"#, json!({"a": "\u{fffd}A"})),
            (r#"{"a":"\q"}"#, json!({"a": "q"})),
            (r#"{"a":01}"#, json!({"a": 1})),
            (r#"{"a":18446744073709551615}"#, json!({"a": u64::MAX})),
            (
                r#"{"a":99999999999999999999999}"#,
                json!({"a": "99999999999999999999999"}),
            ),
        ] {
            let vars = vars(wire);
            assert!(!vars.is_unread(), "{wire}");
            assert_eq!(Value::Object(vars.into_inner()), expected, "{wire}");
        }
    }

    #[test]
    fn a_control_character_in_kept_text_is_escaped_when_written() {
        let vars = vars("{\"a\":\"x\u{1}\ty\"}");
        let mut json = Vec::new();
        crate::encode::Encode::encode(&vars, &mut json);
        assert_eq!(json, br#"{"a":"x\u0001\ty"}"#);
    }

    #[test]
    fn lines_are_texts_and_nothing_else() {
        let lines = |wire: &str| {
            let wire = format!(r#"{{"stacktrace": [{{"pre_context": {wire}}}]}}"#);
            let event = Event::decode(wire.as_bytes()).unwrap();
            assert_eq!(Event::decode(&event.encode()).as_ref(), Ok(&event));
            event.stacktrace.unwrap().frames.remove(0).pre_context
        };
        assert!(lines(r#"["a", "b\t"]"#).is_unread());
        assert_eq!(*lines(r#"["a", "b\t"]"#), ["a", "b\t"]);
        for (wire, expected) in [
            ("[]", vec![]),
            (r#"["a",null,1]"#, vec!["a", "", "1"]),
            (r#""a""#, vec!["a"]),
            (r#"[["a"]]"#, vec![r#"["a"]"#]),
        ] {
            assert!(!lines(wire).is_unread(), "{wire}");
            assert_eq!(*lines(wire), expected, "{wire}");
        }
    }

    #[test]
    fn nothing_costs_nothing() {
        let frame = Frame::default();
        assert!(frame.vars.is_empty() && frame.pre_context.is_empty());
        assert!(frame.vars.value.get().is_none());
        assert_eq!(frame.vars, Lazy::from(Object::new()));
    }
}
